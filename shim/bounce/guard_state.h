/*
 * What the three files of the guard share: the program's actions (guard_actions.c), what each thread believes about its
 * signal mask (guard_mask.c), and the handler between them (guard.c). Private to bounce/.
 */
#ifndef BOUNCEIO_BOUNCE_GUARD_STATE_H
#define BOUNCEIO_BOUNCE_GUARD_STATE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

/* The two signals that the guard keeps for itself, in every table and every set of bits below. */
enum guarded { GUARDED_SEGV, GUARDED_BUS, GUARDED_COUNT, NOT_GUARDED };

#define GUARDED_BIT(which) (1u << (which))

static inline enum guarded guarded_of(int number)
{
    return number == SIGSEGV ? GUARDED_SEGV : number == SIGBUS ? GUARDED_BUS : NOT_GUARDED;
}

static inline int guarded_signal(enum guarded which)
{
    return which == GUARDED_SEGV ? SIGSEGV : SIGBUS;
}

/* Signal sets as the kernel has them: 64 bits, the first 8 bytes of a sigset_t. Bit n is signal n + 1. */
#define SIGNAL_BIT(number) (1ULL << ((number)-1))
#define GUARDED_SIGNALS (SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGBUS))

static inline uint64_t signals_of(const sigset_t *set)
{
    uint64_t signals;
    memcpy(&signals, set, sizeof(signals));
    return signals;
}

static inline void signals_into(sigset_t *set, uint64_t signals)
{
    memcpy(set, &signals, sizeof(signals));
}

/* Bits of the two within a kernel set, and back. */
static inline unsigned guarded_bits(uint64_t signals)
{
    return ((signals & SIGNAL_BIT(SIGSEGV)) != 0 ? GUARDED_BIT(GUARDED_SEGV) : 0u) |
           ((signals & SIGNAL_BIT(SIGBUS)) != 0 ? GUARDED_BIT(GUARDED_BUS) : 0u);
}

static inline uint64_t guarded_signals(unsigned bits)
{
    return ((bits & GUARDED_BIT(GUARDED_SEGV)) != 0 ? SIGNAL_BIT(SIGSEGV) : 0u) |
           ((bits & GUARDED_BIT(GUARDED_BUS)) != 0 ? SIGNAL_BIT(SIGBUS) : 0u);
}

/* struct sigaction as rt_sigaction(2) has it; the same on x86-64 and aarch64. */
struct kernel_action {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

enum { KERNEL_SA_RESTORER = 0x04000000 };

/*
 * DOWN: every wrapper passes through. RISING: set before the handlers that are already installed are looked at, so that a
 * wrapper which passed through and then still sees DOWN knows that they will be. UP: our handler is in place.
 */
enum guard_phase { GUARD_DOWN, GUARD_RISING, GUARD_UP };
extern _Atomic int guard_phase;

static inline enum guard_phase guard_phase_now(void)
{
    /* Acquire: partner of the release stores in guard_install. */
    return (enum guard_phase)atomic_load_explicit(&guard_phase, memory_order_acquire);
}

/* guard.c: put our handler into the kernel, with the flags that go with the program's action; `program` may be NULL (none). */
void guard_arm(enum guarded which, const struct kernel_action *program);

/* guard_actions.c */

/* The program's action at this moment. @return its version, for guard_action_spend. Lock-free, async-signal-safe. */
unsigned guard_action_get(enum guarded which, struct kernel_action *action);
/* Replace it. The caller holds process_lock. */
void guard_action_put(enum guarded which, const struct kernel_action *action);
/*
 * SA_RESETHAND: the action of that version becomes SIG_DFL. @return true for the one caller who did it; false when it
 * had happened, or the action is another by now (the caller looks again). Lock-free, async-signal-safe.
 */
bool guard_action_spend(enum guarded which, unsigned version);
/* Take the two out of the masks of all other handlers, remembering who had asked. The caller holds process_lock. */
void guard_actions_strip(void);

/* guard_mask.c: one thread's view. Written by its thread and by handlers that interrupt it, hence volatile. */

/* A handler of the program's that we called and that has not returned: leaving it by siglongjmp restores `outer`. */
struct guard_call {
    uintptr_t stack; /* address of its signal frame: the handler runs below it */
    unsigned outer;  /* `blocked` when it was called */
};

enum { GUARD_CALLS = 8 };

struct guard_thread {
    volatile bool known;       /* neither of the two is really blocked */
    volatile unsigned blocked; /* the two, as the program believes them to be */
    volatile unsigned pending; /* arrived from outside while so blocked; siginfo below */
    volatile unsigned calls;   /* used entries of call[] */
    pid_t owner;               /* thread that `pending` belongs to: a forked child inherits none */
    struct guard_call call[GUARD_CALLS];
    siginfo_t arrived[GUARDED_COUNT];
};

extern _Thread_local struct guard_thread guard_self __attribute__((tls_model("initial-exec")));

/* Keep a signal that arrived while virtually blocked; further ones of its kind are lost, as with any plain signal. */
void guard_postpone(enum guarded which, const siginfo_t *info);
/* Send what is pending and no longer blocked to ourselves. No system call when there is nothing. */
void guard_deliver_postponed(void);

#endif
