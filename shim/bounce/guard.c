/*
 * The fault guard: installing the handler, and the handler itself.
 *
 * A fault is ours when the program counter says so; then the copy ends early and nobody learns of it. Everything else is
 * the program's, and is done the way the kernel would have (kernel/signal.c: get_signal, force_sig_info_to_task):
 * a fault whose signal is ignored, or blocked in the program's view, kills; a signal from outside that is blocked waits; a handler
 * runs with its mask, on the stack it asked for. Only raw system calls here: errno is the interrupted code's.
 *
 * The kernel holds our action with SA_NODEFER and an empty mask: a handler of the program's that runs beneath ours must be
 * able to do direct I/O from a bad buffer. Hence what the program's action blocks of the two is blocked virtually.
 */
#include "bounce/guard.h"

#include <ucontext.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy_arch.h"
#include "bounce/guard_state.h"
#include "bounce/trap.h"

_Atomic int guard_phase = GUARD_DOWN;
bool (*guard_repair)(void *address);

bool guard_is_up(void)
{
    return guard_phase_now() == GUARD_UP;
}

#if COPY_ARCH_GUARDED

/* The way back from a handler. Unwinders know a signal frame by exactly these instructions (gdb, libgcc's linux-unwind.h). */
void guard_restorer(void) __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n"
        ".p2align 4\n"
        "    nop\n"
        ".globl guard_restorer\n"
        ".hidden guard_restorer\n"
        ".type guard_restorer, @function\n"
        "guard_restorer:\n"
        "    mov $15, %rax\n" /* SYS_rt_sigreturn */
        "    syscall\n"
        ".size guard_restorer, . - guard_restorer\n"
        ".popsection\n");

static void die_by_default(enum guarded which, siginfo_t *info, bool fault)
{
    struct kernel_action fallback = {.handler = (uintptr_t)SIG_DFL};
    raw(SYS_rt_sigaction, guarded_signal(which), &fallback, NULL, sizeof(uint64_t));
    if (fault)
        return; /* the instruction faults again, and the core dump shows it */
    raw(SYS_rt_tgsigqueueinfo, raw(SYS_getpid), raw(SYS_gettid), guarded_signal(which), info);
    /* Still here: the init process of a container, which signals without a handler do not kill. */
    guard_arm(which, NULL);
}

static void call_program(enum guarded which, const struct kernel_action *action, siginfo_t *info, ucontext_t *context)
{
    struct guard_thread *self = &guard_self;
    unsigned depth = self->calls;

    if (depth < GUARD_CALLS) {
        self->call[depth] = (struct guard_call){(uintptr_t)context, self->blocked};
        self->calls = depth + 1;
    }
    uint64_t interrupted = signals_of(&context->uc_sigmask);
    signals_into(&context->uc_sigmask, interrupted | guarded_signals(self->blocked));
    self->blocked |= guarded_bits(action->mask) | ((action->flags & SA_NODEFER) != 0 ? 0u : GUARDED_BIT(which));
    uint64_t mask = action->mask & ~GUARDED_SIGNALS;
    if (mask != 0)
        raw(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, sizeof(mask));

    /* Three arguments whatever the flags: so does the kernel. */
    ((void (*)(int, siginfo_t *, void *))action->handler)(guarded_signal(which), info, context);

    /* The handler may have edited the mask that returning restores: it is the program's word on both kinds of bits. */
    interrupted = signals_of(&context->uc_sigmask);
    self->blocked = guarded_bits(interrupted);
    self->calls = depth;
    interrupted &= ~GUARDED_SIGNALS;
    signals_into(&context->uc_sigmask, interrupted);
    if ((self->pending & ~self->blocked) != 0) {
        raw(SYS_rt_sigprocmask, SIG_SETMASK, &interrupted, NULL, sizeof(interrupted));
        guard_deliver_postponed();
    }
}

static void pass_on(enum guarded which, siginfo_t *info, ucontext_t *context, bool fault)
{
    struct kernel_action action;
    unsigned version;

    guard_thread();
    bool blocked = (guard_self.blocked & GUARDED_BIT(which)) != 0;
    /* Sent while this thread holds the lock, which the program's handler might want, or has seized the dead. */
    if (!fault && (blocked || process_holds_signals())) {
        guard_postpone(which, info);
        return;
    }
    do {
        version = guard_action_get(which, &action);
        if (!fault && action.handler == (uintptr_t)SIG_IGN)
            return;
        if (blocked || action.handler == (uintptr_t)SIG_IGN || action.handler == (uintptr_t)SIG_DFL) {
            die_by_default(which, info, fault);
            return;
        }
    } while ((action.flags & SA_RESETHAND) != 0 && !guard_action_spend(which, version));
    call_program(which, &action, info, context);
}

static void handle(int number, siginfo_t *info, void *opaque)
{
    ucontext_t *context = opaque;
    /* A fault of this very instruction? Not so when sent by somebody, nor a memory error found by the scrubber of the machine. */
    bool fault = info->si_code > 0 && !(number == SIGBUS && info->si_code == BUS_MCEERR_AO);

    if (fault && (copy_arch_recover(context) || trap_recover(context)))
        return;
    if (fault && guard_repair != NULL && guard_repair(info->si_addr))
        return;
    pass_on(guarded_of(number), info, context, fault);
}

void guard_arm(enum guarded which, const struct kernel_action *program)
{
    struct kernel_action current;
    if (program == NULL) {
        guard_action_get(which, &current);
        program = &current;
    }
    unsigned long flags = program->flags & (SA_ONSTACK | SA_RESTART);
    /* A signal that has no handler does not interrupt system calls. */
    if (program->handler == (uintptr_t)SIG_IGN || program->handler == (uintptr_t)SIG_DFL)
        flags = SA_RESTART;
    struct kernel_action ours = {
        .handler = (uintptr_t)handle,
        .flags = flags | SA_SIGINFO | SA_NODEFER | KERNEL_SA_RESTORER,
        .restorer = (uintptr_t)guard_restorer,
        .mask = 0,
    };
    raw(SYS_rt_sigaction, guarded_signal(which), &ours, NULL, sizeof(ours.mask));
}

/* Nothing may be really blocked that the handler is to see under the lock. */
static uint64_t let_through_lock(void)
{
    guard_thread();
    return guard_is_up() ? GUARDED_SIGNALS : 0;
}

static void install(void)
{
    /* Release: partner of guard_phase_now in wrappers that look again after having passed through. */
    atomic_store_explicit(&guard_phase, GUARD_RISING, memory_order_release);
    for (enum guarded which = GUARDED_SEGV; which < GUARDED_COUNT; which++) {
        struct kernel_action program = {0};
        raw(SYS_rt_sigaction, guarded_signal(which), NULL, &program, sizeof(program.mask));
        guard_action_put(which, &program);
        guard_arm(which, &program);
    }
    guard_actions_strip();
    /* Release: whoever sees UP sees the actions kept above. */
    atomic_store_explicit(&guard_phase, GUARD_UP, memory_order_release);
}

static void guard_start(void)
{
    static const struct process_faults faults = {let_through_lock, guard_deliver_postponed};
    process_faults = &faults;
}
PROCESS_INITIALISER(guard_start);

void guard_install(void)
{
    if (guard_is_up() || config.copy == COPY_KERNEL)
        return;
    uint64_t saved;
    process_lock(&saved);
    if (!guard_is_up())
        install();
    process_unlock(&saved);
}

#else

void guard_install(void)
{
}

void guard_arm(enum guarded which, const struct kernel_action *program)
{
    (void)which, (void)program;
}

#endif
