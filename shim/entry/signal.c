/*
 * Signal actions and masks as the program means them: SIGSEGV and SIGBUS belong to the fault guard, which keeps what the
 * program says about them (bounce/guard.h).
 *
 * signal() and its relatives reach sigaction inside the C library, past any wrapper. So they are written here again, on the guard,
 * as glibc 2.36 documents and does them. Until the shim has started, everything goes to the C library.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/next.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "entry/entry.h"

/* --- Actions ------------------------------------------------------------------------------------------------------ */

EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    if (!process_start())
        return next.sigaction(number, action, old);
    return (int)with_errno(guard_sigaction(number, action, old));
}
ALIAS(__sigaction, sigaction);

/* @return the handler there was, or SIG_ERR. */
static sighandler_t replace_action(int number, sighandler_t handler, const sigset_t *mask, int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct sigaction old;
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    if (mask != NULL)
        action.sa_mask = *mask;
    return with_errno(guard_sigaction(number, &action, &old)) == 0 ? old.sa_handler : SIG_ERR;
}

/* Signals whose handlers, when installed by signal(), interrupt system calls: bit n is signal n + 1. See siginterrupt(3). */
static _Atomic uint64_t interrupting;

static uint64_t interrupting_bit(int number)
{
    return number >= 1 && number <= 64 ? UINT64_C(1) << (number - 1) : 0;
}

EXPORT sighandler_t signal(int number, sighandler_t handler)
{
    if (!process_start())
        return next.signal(number, handler);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, number);
    /* Relaxed: a flag that orders nothing. */
    bool interrupts = atomic_load_explicit(&interrupting, memory_order_relaxed) & interrupting_bit(number);
    return replace_action(number, handler, &mask, interrupts ? 0 : SA_RESTART);
}
ALIAS(bsd_signal, signal);
ALIAS(ssignal, signal);

EXPORT sighandler_t sysv_signal(int number, sighandler_t handler)
{
    if (!process_start())
        return next.sysv_signal(number, handler);
    return replace_action(number, handler, NULL, (int)SA_RESETHAND | SA_NODEFER);
}
ALIAS(__sysv_signal, sysv_signal);

EXPORT int siginterrupt(int number, int interrupt)
{
    struct sigaction action;
    if (!process_start())
        return next.siginterrupt(number, interrupt);
    if (with_errno(guard_sigaction(number, NULL, &action)) < 0)
        return -1;
    if (interrupt) {
        atomic_fetch_or_explicit(&interrupting, interrupting_bit(number), memory_order_relaxed);
        action.sa_flags &= ~SA_RESTART;
    } else {
        atomic_fetch_and_explicit(&interrupting, ~interrupting_bit(number), memory_order_relaxed);
        action.sa_flags |= SA_RESTART;
    }
    return (int)with_errno(guard_sigaction(number, &action, NULL));
}

EXPORT int sigignore(int number)
{
    if (!process_start())
        return next.sigignore(number);
    return replace_action(number, SIG_IGN, NULL, 0) == SIG_ERR ? -1 : 0;
}

/* --- Masks -------------------------------------------------------------------------------------------------------- */

EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    if (!guard_is_up())
        return next.pthread_sigmask(how, set, old);
    return -guard_sigmask(how, set, old);
}

EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    if (!guard_is_up())
        return next.sigprocmask(how, set, old);
    return (int)with_errno(guard_sigmask(how, set, old));
}

/* Block or unblock one signal. @return 1 when it was blocked before, 0 when not, -1 with errno set. */
static int change_one(int how, int number)
{
    sigset_t set, old;
    sigemptyset(&set);
    if (sigaddset(&set, number) < 0 || sigprocmask(how, &set, &old) < 0)
        return -1;
    return sigismember(&old, number);
}

EXPORT int sighold(int number)
{
    if (!guard_is_up())
        return next.sighold(number);
    return change_one(SIG_BLOCK, number) < 0 ? -1 : 0;
}

EXPORT int sigrelse(int number)
{
    if (!guard_is_up())
        return next.sigrelse(number);
    return change_one(SIG_UNBLOCK, number) < 0 ? -1 : 0;
}

EXPORT sighandler_t sigset(int number, sighandler_t handler)
{
    struct sigaction current;
    if (!process_start())
        return next.sigset(number, handler);
    if (handler == SIG_HOLD) {
        int was_blocked = change_one(SIG_BLOCK, number);
        if (was_blocked != 0)
            return was_blocked < 0 ? SIG_ERR : SIG_HOLD;
        return with_errno(guard_sigaction(number, NULL, &current)) == 0 ? current.sa_handler : SIG_ERR;
    }
    sighandler_t old = replace_action(number, handler, NULL, 0);
    if (old == SIG_ERR)
        return SIG_ERR;
    int was_blocked = change_one(SIG_UNBLOCK, number);
    return was_blocked < 0 ? SIG_ERR : was_blocked ? SIG_HOLD : old;
}

/* The masks of 4.2BSD are an int: bit n is signal n + 1. */
static sigset_t set_of_old_mask(int mask)
{
    sigset_t set;
    unsigned bits = (unsigned)mask;
    sigemptyset(&set);
    memcpy(&set, &bits, sizeof(bits));
    return set;
}

static int change_old_mask(int how, int mask)
{
    sigset_t set = set_of_old_mask(mask), old;
    int bits;
    if (sigprocmask(how, &set, &old) < 0)
        return -1;
    memcpy(&bits, &old, sizeof(bits));
    return bits;
}

EXPORT int sigblock(int mask)
{
    return guard_is_up() ? change_old_mask(SIG_BLOCK, mask) : next.sigblock(mask);
}

EXPORT int sigsetmask(int mask)
{
    return guard_is_up() ? change_old_mask(SIG_SETMASK, mask) : next.sigsetmask(mask);
}

EXPORT int siggetmask(void)
{
    return guard_is_up() ? change_old_mask(SIG_BLOCK, 0) : next.siggetmask();
}

/* --- Masks for the duration of a wait ----------------------------------------------------------------------------- */

EXPORT int sigsuspend(const sigset_t *mask)
{
    sigset_t storage;
    return next.sigsuspend(guard_strip(mask, &storage));
}
ALIAS(__sigsuspend, sigsuspend);

EXPORT int __sigpause(int argument, int is_number)
{
    sigset_t set, storage;
    if (!guard_is_up())
        return next.__sigpause(argument, is_number);
    if (!is_number)
        set = set_of_old_mask(argument);
    else if (sigprocmask(SIG_BLOCK, NULL, &set) < 0 || sigdelset(&set, argument) < 0)
        return -1;
    return next.sigsuspend(guard_strip(&set, &storage));
}

/* Two functions of one name: the C library's header gives programs the second, linkers give old ones the first. */
int bsd_sigpause(int mask) __asm__("sigpause");
EXPORT int bsd_sigpause(int mask)
{
    return __sigpause(mask, 0);
}

int xpg_sigpause(int number) __asm__("__xpg_sigpause");
EXPORT int xpg_sigpause(int number)
{
    return __sigpause(number, 1);
}
