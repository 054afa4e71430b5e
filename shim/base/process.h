/*
 * The process the shim lives in: start-up, fork, and the one lock of the slow paths.
 *
 * Everything that belongs to one process and must not be inherited by a forked child (descriptor table, open files, page
 * pool, session) is carved from one mapping that the kernel zeroes in the child (MADV_WIPEONFORK). All zero therefore
 * means "not built yet": a child rebuilds what it needs on first use, whatever state the parent's threads were in at the
 * moment of the fork, and however it was forked (fork, _Fork, clone). vfork shares memory and is told apart by its pid.
 */
#ifndef BOUNCEIO_BASE_PROCESS_H
#define BOUNCEIO_BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Start the shim: configuration, next symbols, statistics, arena. Idempotent, cheap when done; called by the library's
 * constructor and by the first wrapper that needs it (other libraries' constructors run before ours).
 * Thread-safe; async-signal-safe.
 * @return true when the shim is to act, false when it is disabled (BOUNCEIO_DISABLE, set-user-ID program).
 */
bool process_start(void);

/*
 * Carve zeroed, wiped-on-fork memory, 64-byte aligned, from the arena. Called from module initialisers during
 * process_start only; lives as long as the process. @return never NULL (the arena's size is fixed and checked).
 */
void *process_arena(size_t bytes);

/*
 * Register an initialiser of a floor above: `PROCESS_INITIALISER(pool_start)` at file scope puts the function into a linker
 * section that process_start walks (in no particular order) to let it carve its arena memory. Runs once per loaded image, not
 * again in a forked child, whose arena is the same addresses, zeroed.
 */
#define PROCESS_INITIALISER(function)                                                                                  \
    __attribute__((used, section("process_initialisers"))) static void (*const process_initialiser_##function)(void) = \
        function

/*
 * May this caller change per-process tables? False in a vfork child, which runs on its parent's memory.
 * In a forked child the first call takes ownership of the wiped arena. Thread-safe, async-signal-safe.
 */
bool process_owns_tables(void);

/*
 * Is this a vfork child that has descriptors of its own by now? What the tables say of a number is its parent's then. One load as long as
 * no vfork child has tried to change them.
 */
bool process_is_foreign(void);

/*
 * The lock of the slow paths (open, close, growth): taken with every signal blocked but those of faults
 * (process_faults), so that no handler of the program's can find it taken by its own thread; kept in wiped memory, so that no child can inherit it taken. Never held
 * while user memory is touched or a request is issued. `saved` receives the caller's signal mask.
 * Thread-safe, async-signal-safe, not recursive.
 */
void process_lock(uint64_t *saved);
void process_unlock(const uint64_t *saved);

/*
 * The lock's way with signals, for what must not be jumped out of but touches memory that may fault: all are blocked but those of faults,
 * and of these the ones that were sent are kept. May be nested.
 */
void process_hold_signals(uint64_t *saved);
void process_release_signals(const uint64_t *saved);

/* Does the calling thread, by the lock or without? For handlers of the signals that are let through. */
bool process_holds_signals(void);

/*
 * Signals of faults: once a handler of ours is in place, they must reach it even under the lock. Set once at start-up by the floor above, which
 * keeps those that were sent until the lock has been released.
 */
struct process_faults {
    uint64_t (*let_through)(void); /* before signals are held: those that are not to be blocked */
    void (*released)(void);        /* after they have been released: deliver what was kept */
};
extern const struct process_faults *process_faults; /* NULL: none */

/* Blocking and restoring signals around a few instructions that must not be interrupted by the program's handlers. */
void process_block_signals(uint64_t *saved);
void process_restore_signals(const uint64_t *saved);

#endif
