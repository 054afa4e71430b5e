/*
 * The program's signal actions: those of SIGSEGV and SIGBUS, kept here because the kernel has ours, and the masks that its
 * other handlers were installed with.
 *
 * In plain static memory, which a forked child inherits as it inherits handlers. An action is a pair of slots and a version
 * whose lowest bit names the current one: a fault that interrupts a writer, even in the writer's own thread, reads the slot
 * that is not being written. Writers hold process_lock.
 */
#include <errno.h>

#include "base/next.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/guard.h"
#include "bounce/guard_state.h"

enum { SIGNAL_MAX = 64 };

struct slot {
    _Atomic uintptr_t handler;
    _Atomic unsigned long flags;
    _Atomic uintptr_t restorer;
    _Atomic uint64_t mask;
};

static struct {
    _Atomic unsigned version;
    _Atomic unsigned spent; /* the version that SA_RESETHAND has reset; 0 none */
    struct slot slot[2];
} actions[GUARDED_COUNT];

/* For every other signal: which of the two its handler's mask named when the program installed it. */
static _Atomic unsigned char masked[SIGNAL_MAX + 1];

unsigned guard_action_get(enum guarded which, struct kernel_action *action)
{
    for (;;) {
        /* Acquire: partner of the release in guard_action_put. */
        unsigned version = atomic_load_explicit(&actions[which].version, memory_order_acquire);
        const struct slot *slot = &actions[which].slot[version & 1];
        action->handler = atomic_load_explicit(&slot->handler, memory_order_relaxed);
        action->flags = atomic_load_explicit(&slot->flags, memory_order_relaxed);
        action->restorer = atomic_load_explicit(&slot->restorer, memory_order_relaxed);
        action->mask = atomic_load_explicit(&slot->mask, memory_order_relaxed);
        /* Relaxed: whether the handler is spent is decided by guard_action_spend's exchange. */
        if (atomic_load_explicit(&actions[which].spent, memory_order_relaxed) == version && version != 0)
            action->handler = (uintptr_t)SIG_DFL;
        /* The loads above stay above; partner of the fence in guard_action_put. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&actions[which].version, memory_order_relaxed) == version)
            return version;
    }
}

void guard_action_put(enum guarded which, const struct kernel_action *action)
{
    unsigned version = atomic_load_explicit(&actions[which].version, memory_order_relaxed) + 1;
    struct slot *slot = &actions[which].slot[version & 1];
    /* The previous version is seen before its predecessor's slot changes; partner of the fence in guard_action_get. */
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&slot->handler, action->handler, memory_order_relaxed);
    atomic_store_explicit(&slot->flags, action->flags, memory_order_relaxed);
    atomic_store_explicit(&slot->restorer, action->restorer, memory_order_relaxed);
    atomic_store_explicit(&slot->mask, action->mask, memory_order_relaxed);
    /* Release: partner of the acquire in guard_action_get. */
    atomic_store_explicit(&actions[which].version, version, memory_order_release);
}

bool guard_action_spend(enum guarded which, unsigned version)
{
    unsigned spent = atomic_load_explicit(&actions[which].spent, memory_order_relaxed);
    while ((int)(version - spent) > 0) {
        /* Relaxed: only the exchange itself decides, and it publishes nothing. */
        if (atomic_compare_exchange_weak_explicit(&actions[which].spent, &spent, version, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static void to_program(const struct kernel_action *kernel, struct sigaction *action)
{
    memset(action, 0, sizeof(*action));
    action->sa_handler = (sighandler_t)kernel->handler;
    action->sa_flags = (int)kernel->flags;
    action->sa_restorer = (void (*)(void))kernel->restorer;
    signals_into(&action->sa_mask, kernel->mask);
}

/* What the kernel would have kept of it (do_sigaction): no flags it does not know, no mask of what cannot be masked. */
static struct kernel_action from_program(const struct sigaction *action, uintptr_t restorer)
{
    const unsigned long known = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER |
                                SA_RESETHAND | 0x800 /* SA_EXPOSE_TAGBITS */;
    return (struct kernel_action){
        .handler = (uintptr_t)action->sa_handler,
        .flags = ((unsigned)action->sa_flags & known) | KERNEL_SA_RESTORER,
        .restorer = restorer,
        .mask = signals_of(&action->sa_mask) & ~(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP)),
    };
}

static void keep(enum guarded which, const struct sigaction *action)
{
    struct kernel_action armed;
    raw(SYS_rt_sigaction, guarded_signal(which), NULL, &armed, sizeof(armed.mask));
    struct kernel_action kept = from_program(action, armed.restorer);
    guard_action_put(which, &kept);
    guard_arm(which, &kept);
}

/* A child of vfork has actions of its own but shares our memory: its changes go to the kernel and are not remembered. */
static bool remembers(void)
{
    return process_owns_tables();
}

static int next_sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    int saved = errno;
    int result = next.sigaction(number, action, old) == 0 ? 0 : -errno;
    errno = saved;
    return result;
}

static int guarded_sigaction(enum guarded which, const struct sigaction *action, struct sigaction *old)
{
    struct kernel_action previous;
    struct sigaction asked;
    uint64_t saved;

    if (action != NULL)
        asked = *action; /* may be the same memory as `old` */
    process_lock(&saved);
    if (guard_phase_now() != GUARD_UP) {
        process_unlock(&saved);
        return next_sigaction(guarded_signal(which), action, old);
    }
    guard_action_get(which, &previous);
    int result = 0;
    if (action != NULL && !remembers())
        result = next_sigaction(guarded_signal(which), &asked, NULL);
    else if (action != NULL)
        keep(which, &asked);
    process_unlock(&saved);
    if (result == 0 && old != NULL)
        to_program(&previous, old);
    return result;
}

/* Another signal's handler, installed without the two in its mask. The caller holds process_lock. */
static int stripped_sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    struct sigaction stripped;
    const struct sigaction *install = action;
    unsigned asked = 0;
    bool remember = action != NULL && remembers();

    if (remember) {
        stripped = *action;
        asked = guarded_bits(signals_of(&action->sa_mask));
        signals_into(&stripped.sa_mask, signals_of(&action->sa_mask) & ~GUARDED_SIGNALS);
        install = &stripped;
    }
    int result = next_sigaction(number, install, old);
    if (result < 0)
        return result;
    /* Relaxed: the lock orders these; the first reader is the next sigaction. */
    unsigned before = atomic_load_explicit(&masked[number], memory_order_relaxed);
    if (old != NULL)
        signals_into(&old->sa_mask, signals_of(&old->sa_mask) | guarded_signals(before));
    if (remember)
        atomic_store_explicit(&masked[number], (unsigned char)asked, memory_order_relaxed);
    return 0;
}

int guard_sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
    enum guarded which = guarded_of(signal);
    struct sigaction asked;
    uint64_t saved;

    if (which != NOT_GUARDED)
        return guarded_sigaction(which, action, old);
    if (action != NULL)
        asked = *action;
    if (guard_phase_now() == GUARD_DOWN) {
        int result = next_sigaction(signal, action, old);
        if (result < 0 || action == NULL || guard_phase_now() == GUARD_DOWN)
            return result;
        /* The guard came up meanwhile and may or may not have seen this handler: install it again, its way. */
        old = NULL;
    }
    process_lock(&saved);
    int result = stripped_sigaction(signal, action != NULL ? &asked : NULL, old);
    process_unlock(&saved);
    return result;
}

void guard_actions_strip(void)
{
    for (int number = 1; number <= SIGNAL_MAX; number++) {
        struct kernel_action action;
        if (guarded_of(number) != NOT_GUARDED || number == SIGKILL || number == SIGSTOP ||
            raw_failed(raw(SYS_rt_sigaction, number, NULL, &action, sizeof(action.mask))))
            continue;
        unsigned asked = guarded_bits(action.mask);
        if (asked == 0)
            continue;
        action.mask &= ~GUARDED_SIGNALS;
        raw(SYS_rt_sigaction, number, &action, NULL, sizeof(action.mask));
        atomic_store_explicit(&masked[number], (unsigned char)asked, memory_order_relaxed);
    }
}
