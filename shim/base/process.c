/*
 * Start-up, the wiped arena, ownership of the per-process tables, and the lock of the slow paths.
 *
 * The arena is reserved once and its address never changes; a forked child finds it zeroed at the same place. Its first
 * line is this file's own: who owns the tables, and the lock. Everything behind it belongs to the floors above.
 */
#include "base/process.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/futex.h>

#include "base/config.h"
#include "base/log.h"
#include "base/next.h"
#include "base/raw.h"
#include "base/stats.h"

/* Address space only: pages that are never touched cost nothing. */
#define ARENA_SIZE ((size_t)48 << 20)
#define ARENA_ALIGNMENT ((size_t)64)

/* The first line of the arena; zero in a new process and in every forked child. */
struct process {
    _Atomic int owner;     /* pid of the process whose tables these are; 0: nobody has asked yet */
    _Atomic uint32_t lock; /* 0 free, 1 taken, 2 taken and somebody may be waiting */
    _Atomic bool foreign;  /* a vfork child has asked for the tables, and was refused */
} __attribute__((aligned(ARENA_ALIGNMENT)));

enum start_state { NOT_STARTED, STARTING, STARTED, DISABLED };

/* Release when STARTED or DISABLED is stored, acquire when it is read: whoever sees it sees all that start-up wrote. */
static _Atomic enum start_state start_state = NOT_STARTED;

static unsigned char *arena;
static size_t arena_used;

/* Both absent when no floor above has registered an initialiser (unit tests). */
extern void (*const initialisers_begin[])(void) __asm__("__start_process_initialisers")
    __attribute__((weak, visibility("hidden")));
extern void (*const initialisers_end[])(void) __asm__("__stop_process_initialisers")
    __attribute__((weak, visibility("hidden")));

static struct process *this_process(void)
{
    return (struct process *)(void *)arena;
}

/* For kernels that cannot wipe on fork (before 4.14): put fresh zero pages over the copy that the child inherited. */
static void replace_arena(void)
{
    raw(SYS_mmap, arena, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
        -1, 0);
    raw(SYS_madvise, arena, ARENA_SIZE, MADV_NOHUGEPAGE);
}

/*
 * Take the tables at once in a child of fork(), so that the child's first caller cannot be a vfork child of its own,
 * which would take them away from it. Children of _Fork and clone take them at their first call instead.
 */
static void claim_tables_after_fork(void)
{
    process_owns_tables();
}

static bool map_arena(void)
{
    long address =
        raw(SYS_mmap, NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_failed(address)) {
        log_warn("cannot reserve %zu bytes of address space : %s; this process runs without the shim", ARENA_SIZE,
                 log_reason(address));
        return false;
    }
    arena = (unsigned char *)address;
    arena_used = sizeof(struct process);
    /* Where huge pages are always given, the first touch would cost 2 MiB. */
    raw(SYS_madvise, arena, ARENA_SIZE, MADV_NOHUGEPAGE);
    if (raw_failed(raw(SYS_madvise, arena, ARENA_SIZE, MADV_WIPEONFORK)))
        pthread_atfork(NULL, NULL, replace_arena);
    pthread_atfork(NULL, NULL, claim_tables_after_fork);
    return true;
}

static void run_initialisers(void)
{
    for (void (*const *run)(void) = initialisers_begin; run < initialisers_end; run++)
        (*run)();
}

/* @return true when the shim is to act. */
static bool start_up(void)
{
    next_resolve();
    if (getauxval(AT_SECURE))
        return false;
    config_load();
    log_start();
    if (config.disable || !map_arena())
        return false;
    process_owns_tables();
    stats_start();
    run_initialisers();
    return true;
}

/* Losers of the race, and wrappers that start-up itself runs into (dlsym may allocate), go on with the raw stubs. */
static __attribute__((noinline)) bool process_start_slow(void)
{
    enum start_state expected = NOT_STARTED;
    /* Relaxed: nothing was published before. */
    if (!atomic_compare_exchange_strong_explicit(&start_state, &expected, STARTING, memory_order_relaxed,
                                                 memory_order_relaxed))
        return false;
    int saved_errno = errno;
    bool act = start_up();
    atomic_store_explicit(&start_state, act ? STARTED : DISABLED, memory_order_release);
    errno = saved_errno;
    return act;
}

bool process_start(void)
{
    enum start_state state = atomic_load_explicit(&start_state, memory_order_acquire);
    if (__builtin_expect(state == STARTED, 1))
        return true;
    return state == NOT_STARTED && process_start_slow();
}

static __attribute__((constructor)) void start_with_the_program(void)
{
    process_start();
}

/* Last of ours: those without a priority have run before. */
static __attribute__((destructor(101))) void end_with_the_program(void)
{
    stats_report();
}

void *process_arena(size_t bytes)
{
    size_t begin = arena_used;
    size_t end = begin + ((bytes + ARENA_ALIGNMENT - 1) & ~(ARENA_ALIGNMENT - 1));
    if (!arena || end > ARENA_SIZE || end < begin) {
        log_error("the arena cannot hold %zu more bytes", bytes);
        abort();
    }
    arena_used = end;
    return arena + begin;
}

bool process_owns_tables(void)
{
    if (!arena)
        return false;
    struct process *process = this_process();
    int self = (int)raw(SYS_getpid);
    /* Relaxed: the word only says who; the tables have their own orders. */
    int owner = atomic_load_explicit(&process->owner, memory_order_relaxed);
    if (owner == self)
        return true;
    if (owner == 0 && (atomic_compare_exchange_strong_explicit(&process->owner, &owner, self, memory_order_relaxed,
                                                               memory_order_relaxed) ||
                       owner == self))
        return true;
    atomic_store_explicit(&process->foreign, true, memory_order_relaxed);
    return false;
}

bool process_is_foreign(void)
{
    struct process *process = this_process();
    /* Relaxed: a vfork child reads what it has written itself. */
    return atomic_load_explicit(&process->foreign, memory_order_relaxed) && !process_owns_tables();
}

void process_block_signals(uint64_t *saved)
{
    uint64_t blocked = ~UINT64_C(0);
    raw(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, saved, sizeof(blocked));
}

void process_restore_signals(const uint64_t *saved)
{
    raw(SYS_rt_sigprocmask, SIG_SETMASK, saved, NULL, sizeof(*saved));
}

const struct process_faults *process_faults;

/* Written by its thread, read by handlers that interrupt it. */
static _Thread_local volatile unsigned held __attribute__((tls_model("initial-exec")));

bool process_holds_signals(void)
{
    return held != 0;
}

void process_hold_signals(uint64_t *saved)
{
    uint64_t blocked = ~(process_faults ? process_faults->let_through() : 0);
    raw(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, saved, sizeof(blocked));
    held = held + 1;
}

void process_release_signals(const uint64_t *saved)
{
    held = held - 1;
    process_restore_signals(saved);
    if (process_faults && held == 0)
        process_faults->released();
}

/* The three-state futex lock of "Futexes Are Tricky" (Drepper, 2011). */
void process_lock(uint64_t *saved)
{
    _Atomic uint32_t *lock = &this_process()->lock;
    process_hold_signals(saved);
    uint32_t seen = 0;
    /* Acquire: partner of the release in process_unlock. */
    if (atomic_compare_exchange_strong_explicit(lock, &seen, 1, memory_order_acquire, memory_order_relaxed))
        return;
    while (atomic_exchange_explicit(lock, 2, memory_order_acquire) != 0)
        raw(SYS_futex, lock, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void process_unlock(const uint64_t *saved)
{
    _Atomic uint32_t *lock = &this_process()->lock;
    /* Release: partner of the acquires in process_lock. */
    if (atomic_exchange_explicit(lock, 0, memory_order_release) == 2)
        raw(SYS_futex, lock, FUTEX_WAKE_PRIVATE, 1);
    process_release_signals(saved);
}
