/*
 * The fault guard: our SIGSEGV and SIGBUS handler, and the program's own handlers kept beneath it.
 *
 * The handler recognises a fault of our copies by program counter (the kernel's exception-table technique), moves the
 * program counter to the fix-up and returns. Every other fault goes to the program's handler as if we were not there:
 * with its mask, SA_ONSTACK, SA_NODEFER, SA_RESETHAND; or to the default action, as the kernel would.
 *
 * The two signals are never really blocked once the guard is up, or a bad pointer would kill the program where the
 * kernel says EFAULT; what the program asked for is kept per thread and reported back.
 */
#ifndef BOUNCEIO_BOUNCE_GUARD_H
#define BOUNCEIO_BOUNCE_GUARD_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Install the handler, once, when the first direct descriptor appears; a no-op with BOUNCEIO_COPY=kernel.
 * Also strips the two signals from the sa_mask of every handler already installed. Thread-safe, async-signal-safe.
 */
void guard_install(void);

/* Is the handler in place? */
bool guard_is_up(void);

/*
 * Make sure that the calling thread has neither signal really blocked. One test when it is known, one system call on the
 * thread's first direct request. The copies (copy.h) call it themselves. Async-signal-safe.
 */
void guard_thread(void);

/*
 * sigaction(2) as the program means it. For SIGSEGV and SIGBUS with the guard up: keeps `action` as the program's, returns
 * the program's previous one. For other signals: strips the two from the mask it installs, reports it as asked for.
 * @return 0 or -errno.
 */
int guard_sigaction(int signal, const struct sigaction *action, struct sigaction *old);

/* pthread_sigmask(3)/sigprocmask(2) as the program means it. @return 0 or -errno. */
int guard_sigmask(int how, const sigset_t *set, sigset_t *old);

/*
 * A jump to `stack` is about to be made (longjmp, setcontext): handlers that it leaves no longer block anything, provided that
 * the jump restores a signal mask. One test unless a SIGSEGV or SIGBUS handler of the program's is running. Async-signal-safe.
 */
void guard_jump(uintptr_t stack, bool restores_mask);

/*
 * A new thread inherits the mask as its creator believes it to be: between these two calls the calling thread really blocks
 * what it blocks virtually, and must not touch user memory. @return the bits to hand to guard_inherited, 0 for none.
 */
unsigned guard_inherit(void);
void guard_inherited(unsigned bits);

/*
 * `set` without the two signals, when the guard is up; otherwise `set`, and also when it is a bad address, for the kernel to
 * say so. For ppoll, pselect, epoll_pwait, sigsuspend.
 */
const sigset_t *guard_strip(const sigset_t *set, sigset_t *storage);

/*
 * Called by the handler for a fault that is not in our copies; returns true when it has repaired the address (memory of a
 * map whose disk failed). Set once at start-up by the floor above. Must be async-signal-safe.
 */
extern bool (*guard_repair)(void *address);

#endif
