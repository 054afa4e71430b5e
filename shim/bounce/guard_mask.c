/*
 * What each thread believes about SIGSEGV and SIGBUS in its signal mask, while neither is really blocked.
 *
 * A thread is not known until its first direct request or change of mask: it may have inherited a mask, or been created with
 * one (pthread_attr_setsigmask_np). From then on `blocked` is the truth for the two and the kernel's mask for the rest.
 *
 * Not followed, because the kernel alone carries it: the two in the mask of another signal's handler while that runs, in masks
 * saved by sigsetjmp and getcontext, in masks of waits for signals that somebody sends, and
 * across exec. Programs that change the two by raw system calls need BOUNCEIO_COPY=kernel.
 */
#include <errno.h>

#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "bounce/guard_state.h"

_Thread_local struct guard_thread guard_self;

static __attribute__((noinline)) void get_to_know_thread(void)
{
    struct guard_thread *self = &guard_self;
    uint64_t mask = 0;
    raw(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
    unsigned blocked = guarded_bits(mask);
    if (blocked != 0) {
        /* Before they are unblocked: what was waiting in the kernel then goes on waiting here. */
        self->blocked |= blocked;
        mask = guarded_signals(blocked);
        self->known = true;
        raw(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, sizeof(mask));
    }
    /* A child of vfork knows its own mask; what it writes here, its parent would take for its. */
    self->known = process_owns_tables();
}

void guard_thread(void)
{
    if (!guard_self.known && guard_is_up())
        get_to_know_thread();
}

void guard_postpone(enum guarded which, const siginfo_t *info)
{
    struct guard_thread *self = &guard_self;
    pid_t thread = (pid_t)raw(SYS_gettid);
    if (self->owner != thread) {
        self->owner = thread;
        self->pending = 0;
    }
    if ((self->pending & GUARDED_BIT(which)) != 0)
        return;
    self->arrived[which] = *info;
    self->pending |= GUARDED_BIT(which);
}

void guard_deliver_postponed(void)
{
    struct guard_thread *self = &guard_self;
    if ((self->pending & ~self->blocked) == 0)
        return;
    pid_t process = (pid_t)raw(SYS_getpid);
    pid_t thread = (pid_t)raw(SYS_gettid);
    for (enum guarded which = GUARDED_SEGV; which < GUARDED_COUNT; which++) {
        if ((self->pending & ~self->blocked & GUARDED_BIT(which)) == 0)
            continue;
        siginfo_t info = self->arrived[which];
        self->pending &= ~GUARDED_BIT(which);
        if (self->owner == thread)
            raw(SYS_rt_tgsigqueueinfo, process, thread, guarded_signal(which), &info);
    }
}

/* What `blocked` becomes by this call. */
static unsigned blocked_after(unsigned blocked, int how, uint64_t signals)
{
    unsigned bits = guarded_bits(signals);
    return how == SIG_BLOCK ? blocked | bits : how == SIG_UNBLOCK ? blocked & ~bits : bits;
}

/* Keep what the call says about the two. @return the signals that are left for the kernel. */
static uint64_t keep_guarded(int how, uint64_t signals)
{
    struct guard_thread *self = &guard_self;
    unsigned after = blocked_after(self->blocked, how, signals);
    /* A child of vfork has a mask of its own but shares our memory: there the kernel keeps them. */
    if (!guard_is_up() || (after != self->blocked && !process_owns_tables()))
        return signals;
    self->blocked = after;
    return signals & ~GUARDED_SIGNALS;
}

int guard_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    uint64_t signals = 0;

    guard_thread();
    uint64_t before = guarded_signals(guard_self.blocked);
    if (set != NULL) {
        if (how != SIG_BLOCK && how != SIG_UNBLOCK && how != SIG_SETMASK)
            return -EINVAL;
        /* As the C library does: its two internal signals are never blocked by the program. */
        signals = keep_guarded(how, signals_of(set) & ~(SIGNAL_BIT(32) | SIGNAL_BIT(33)));
    }
    long result = raw(SYS_rt_sigprocmask, how, set != NULL ? &signals : NULL, old, sizeof(signals));
    if (old != NULL && result == 0)
        signals_into(old, signals_of(old) | before);
    guard_deliver_postponed();
    return (int)result;
}

const sigset_t *guard_strip(const sigset_t *set, sigset_t *storage)
{
    uint64_t signals;
    if (set == NULL || !guard_is_up() || copy_from_user(&signals, set, sizeof(signals)) != sizeof(signals))
        return set;
    memset(storage, 0, sizeof(*storage));
    signals_into(storage, signals & ~GUARDED_SIGNALS);
    return storage;
}

void guard_jump(uintptr_t stack, bool restores_mask)
{
    struct guard_thread *self = &guard_self;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    while (self->calls > 0) {
        const struct guard_call *call = &self->call[self->calls - 1];
        /* A jump within the handler goes up the stack from here, and not past the frame that called it. */
        if (stack >= here && stack < call->stack)
            return;
        if (restores_mask)
            self->blocked = call->outer;
        self->calls--;
    }
    guard_deliver_postponed();
}

unsigned guard_inherit(void)
{
    unsigned bits = guard_self.known ? guard_self.blocked : 0;
    uint64_t signals = guarded_signals(bits);
    if (bits != 0)
        raw(SYS_rt_sigprocmask, SIG_BLOCK, &signals, NULL, sizeof(signals));
    return bits;
}

void guard_inherited(unsigned bits)
{
    uint64_t signals = guarded_signals(bits);
    if (bits != 0)
        raw(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals, NULL, sizeof(signals));
}
