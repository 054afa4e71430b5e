/*
 * The program's own faults and its own SIGSEGV and SIGBUS handlers, with the guard above them: everything is as without
 * the shim, to the last flag, and so is dying.
 */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "support/scenario.h"
#include "support/support.h"

enum { PAGE = 4096, BAD_ADDRESS = 0x2a000 };

static sigjmp_buf back;
static volatile int times;

/* Read one byte there; a call of its own, so that handlers may skip or leave it. */
static __attribute__((noinline)) unsigned char read_byte(uintptr_t address)
{
    return *(volatile unsigned char *)address;
}

static __attribute__((noinline)) unsigned char read_byte_deep_down(int depth)
{
    volatile unsigned char room[2000] = {0};
    return depth == 0 ? read_byte(BAD_ADDRESS) : (unsigned char)(read_byte_deep_down(depth - 1) + room[depth]);
}

/* An address in a mapping whose file has shrunk: SIGBUS. */
static uintptr_t beyond;

static uintptr_t beyond_file(void)
{
    int fd = memfd_create("shrunk", MFD_CLOEXEC);
    char *file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED || ftruncate(fd, PAGE) != 0)
        support_die("no mapping");
    close(fd);
    beyond = (uintptr_t)file + PAGE;
    return beyond;
}

static void handle_with(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaddset(&action.sa_mask, SIGUSR1);
    if (sigaction(number, &action, NULL) != 0)
        support_die("sigaction");
}

static void say_mask(const char *what, const sigset_t *set)
{
    say("%s: SEGV %d BUS %d USR1 %d USR2 %d", what, sigismember(set, SIGSEGV), sigismember(set, SIGBUS),
        sigismember(set, SIGUSR1), sigismember(set, SIGUSR2));
}

static void say_own_mask(const char *what)
{
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    say_mask(what, &mask);
}

static void describe_and_leave(int number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    if (beyond != 0 && info->si_addr == (void *)beyond)
        say("signal %d code %d beyond the file", number, info->si_code);
    else
        say("signal %d code %d address %p", number, info->si_code, info->si_addr);
    say_own_mask("mask in the handler");
    say_mask("mask to return to", &interrupted->uc_sigmask);
    siglongjmp(back, ++times);
}

SCENARIO(a_handler_learns_all_about_its_fault)
{
    handle_with(SIGSEGV, describe_and_leave, 0);
    handle_with(SIGBUS, describe_and_leave, SA_NODEFER);
    guard_may_rise();
    if (sigsetjmp(back, 1) == 0)
        read_byte(BAD_ADDRESS);
    if (sigsetjmp(back, 1) == 0)
        read_byte(beyond_file());
    if (sigsetjmp(back, 1) == 0)
        read_byte(0x8000000000000000);
    direct_write_from_nowhere();
    say_own_mask("mask at the end");
}

SCENARIO(siglongjmp_out_of_a_handler_works_again_and_again)
{
    handle_with(SIGSEGV, describe_and_leave, 0);
    guard_may_rise();
    for (int depth = 0; depth < 6; depth++) {
        if (sigsetjmp(back, 1) == 0)
            read_byte_deep_down(depth % 2 ? 6 - depth : depth);
        direct_write_from_nowhere();
        say_own_mask("mask after the jump");
    }
    say("%d faults", times);
}

static void leave_without_mask(int number)
{
    say("signal %d", number);
    longjmp(back, 1);
}

SCENARIO(longjmp_without_the_mask_leaves_the_signal_blocked_and_the_next_fault_kills)
{
    signal(SIGSEGV, leave_without_mask);
    guard_may_rise();
    if (sigsetjmp(back, 0) == 0)
        read_byte(BAD_ADDRESS);
    say_own_mask("mask after the jump");
    direct_write_from_nowhere();
    if (sigsetjmp(back, 0) == 0)
        read_byte(BAD_ADDRESS);
    say("alive");
}

SCENARIO(after_longjmp_without_the_mask_unblocking_by_hand_works)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGSEGV);
    signal(SIGSEGV, leave_without_mask);
    guard_may_rise();
    for (int i = 0; i < 20; i++) {
        if (sigsetjmp(back, 0) == 0)
            read_byte_deep_down(i % 5);
        sigprocmask(SIG_UNBLOCK, &one, NULL);
    }
    say_own_mask("mask at the end");
}

static void jump_within(int number)
{
    jmp_buf here;
    if (sigsetjmp(here, 1) == 0)
        siglongjmp(here, 1);
    say_own_mask("mask after a jump within the handler");
    if (number == SIGSEGV)
        siglongjmp(back, 1);
}

SCENARIO(a_jump_within_the_handler_keeps_its_mask)
{
    signal(SIGSEGV, jump_within);
    guard_may_rise();
    if (sigsetjmp(back, 1) == 0)
        read_byte(BAD_ADDRESS);
    say_own_mask("mask at the end");
}

static ucontext_t context_back;

static void leave_by_context(int number)
{
    say("signal %d", number);
    setcontext(&context_back);
}

SCENARIO(setcontext_out_of_a_handler_works_again_and_again)
{
    signal(SIGSEGV, leave_by_context);
    guard_may_rise();
    times = 0;
    getcontext(&context_back);
    say_own_mask("mask");
    if (++times < 4)
        read_byte_deep_down(times);
}

/* What a handler does that repairs: here it makes read_byte's address good. */
static void repair(int number, siginfo_t *info, void *context)
{
    (void)context;
    char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
    say("repairing after signal %d", number);
    if (mmap(page, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page)
        _exit(1);
}

SCENARIO(a_handler_may_repair_the_address_and_return)
{
    handle_with(SIGSEGV, repair, 0);
    guard_may_rise();
    say("read %d", read_byte(BAD_ADDRESS));
    say("read %d", read_byte(BAD_ADDRESS + 3 * PAGE));
    say_own_mask("mask at the end");
}

static void block_on_return(int number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    repair(number, info, context);
    sigaddset(&interrupted->uc_sigmask, SIGBUS);
    sigaddset(&interrupted->uc_sigmask, SIGUSR2);
}

SCENARIO(a_handler_may_edit_the_mask_to_return_to)
{
    handle_with(SIGSEGV, block_on_return, 0);
    guard_may_rise();
    read_byte(BAD_ADDRESS);
    say_own_mask("mask at the end");
    direct_write_from_nowhere();
    read_byte(beyond_file());
    say("alive");
}

static volatile uintptr_t handler_stack;

static void note_stack(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    handler_stack = (uintptr_t)__builtin_frame_address(0);
    siglongjmp(back, 1);
}

static void fault_and_say_stack(const char *what, const char *stack, size_t length)
{
    if (sigsetjmp(back, 1) == 0)
        read_byte(BAD_ADDRESS);
    say("%s: on the alternate stack %d", what, handler_stack - (uintptr_t)stack < length);
}

SCENARIO(handlers_run_on_the_stack_they_asked_for)
{
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&alternate, NULL);
    handle_with(SIGSEGV, note_stack, SA_ONSTACK);
    guard_may_rise();
    fault_and_say_stack("SA_ONSTACK", stack, sizeof(stack));
    handle_with(SIGSEGV, note_stack, 0);
    fault_and_say_stack("none", stack, sizeof(stack));
    handle_with(SIGSEGV, note_stack, SA_ONSTACK);
    fault_and_say_stack("SA_ONSTACK again", stack, sizeof(stack));
}

static __attribute__((noinline)) int recurse(volatile int *depth)
{
    volatile char room[4000];
    room[0] = (char)++*depth;
    return *depth < 0 ? 0 : recurse(depth) + room[0];
}

SCENARIO(a_stack_overflow_is_caught_on_the_alternate_stack_twice)
{
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    volatile int depth = 0;
    sigaltstack(&alternate, NULL);
    handle_with(SIGSEGV, note_stack, SA_ONSTACK);
    guard_may_rise();
    for (int i = 0; i < 2; i++)
        if (sigsetjmp(back, 1) == 0)
            recurse(&depth);
    say("overflowed");
}

SCENARIO(a_stack_overflow_without_an_alternate_stack_kills)
{
    volatile int depth = 0;
    handle_with(SIGSEGV, note_stack, 0);
    guard_may_rise();
    recurse(&depth);
}

static void say_handler(const char *what)
{
    struct sigaction action;
    sigaction(SIGSEGV, NULL, &action);
    say("%s: %s, flags %#x", what, action.sa_handler == SIG_DFL ? "SIG_DFL" : "a handler", (unsigned)action.sa_flags);
}

static void reset_handler(int number, siginfo_t *info, void *context)
{
    say_handler("in the handler");
    repair(number, info, context);
}

SCENARIO(a_one_shot_handler_is_called_once_and_then_the_fault_kills)
{
    handle_with(SIGSEGV, reset_handler, (int)SA_RESETHAND);
    guard_may_rise();
    say_handler("before");
    read_byte(BAD_ADDRESS);
    say_handler("after");
    direct_write_from_nowhere();
    read_byte(BAD_ADDRESS + 2 * PAGE);
    say("alive");
}

SCENARIO(a_one_shot_handler_can_be_installed_again)
{
    guard_may_rise();
    for (int i = 0; i < 3; i++) {
        handle_with(SIGSEGV, reset_handler, (int)SA_RESETHAND);
        read_byte(BAD_ADDRESS + (uintptr_t)i * PAGE);
    }
}

SCENARIO(a_fault_without_a_handler_kills)
{
    guard_may_rise();
    read_byte(BAD_ADDRESS);
}

SCENARIO(a_bus_error_without_a_handler_kills)
{
    guard_may_rise();
    read_byte(beyond_file());
}

SCENARIO(a_fault_whose_signal_is_ignored_kills)
{
    signal(SIGSEGV, SIG_IGN);
    guard_may_rise();
    read_byte(BAD_ADDRESS);
}

SCENARIO(a_fault_whose_signal_is_blocked_kills)
{
    sigset_t all;
    sigfillset(&all);
    handle_with(SIGSEGV, repair, 0);
    sigprocmask(SIG_BLOCK, &all, NULL);
    guard_may_rise();
    direct_write_from_nowhere();
    read_byte(BAD_ADDRESS);
}

static void fault_again(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    say("signal %d, time %d", number, ++times);
    if (times < 3)
        read_byte(BAD_ADDRESS);
    _exit(7);
}

SCENARIO(a_fault_in_its_own_handler_kills)
{
    handle_with(SIGSEGV, fault_again, 0);
    guard_may_rise();
    read_byte(BAD_ADDRESS);
}

SCENARIO(a_fault_in_its_own_handler_that_allows_it_is_handled)
{
    handle_with(SIGSEGV, fault_again, SA_NODEFER);
    guard_may_rise();
    read_byte(BAD_ADDRESS);
}

static void hand_over_to_default(int number)
{
    say("signal %d", number);
    signal(number, SIG_DFL);
}

SCENARIO(a_handler_that_restores_the_default_and_returns_dies_of_the_fault)
{
    signal(SIGSEGV, hand_over_to_default);
    guard_may_rise();
    read_byte(BAD_ADDRESS);
}

static void raise_default(int number)
{
    signal(number, SIG_DFL);
    raise(number);
    say("pending until the handler returns");
}

SCENARIO(a_handler_that_restores_the_default_and_raises_dies_on_return)
{
    signal(SIGBUS, raise_default);
    guard_may_rise();
    read_byte(beyond_file());
}

static void direct_io_and_leave(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    direct_write_from_nowhere();
    direct_write_from_nowhere();
    siglongjmp(back, 1);
}

SCENARIO(direct_io_from_a_bad_pointer_works_inside_the_fault_handler)
{
    struct sigaction action = {.sa_sigaction = direct_io_and_leave, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    guard_may_rise();
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(back, 1) == 0)
            read_byte(BAD_ADDRESS);
    say_own_mask("mask at the end");
}

static void trace(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    void *frames[64];
    int count = backtrace(frames, 64);
    bool found = false;
    for (int i = 0; i < count; i++)
        found |= (uintptr_t)frames[i] - (uintptr_t)read_byte < 64;
    say("the faulting function is in the backtrace: %d", found);
    siglongjmp(back, 1);
}

SCENARIO(a_handler_can_trace_back_to_the_fault)
{
    handle_with(SIGSEGV, trace, 0);
    guard_may_rise();
    if (sigsetjmp(back, 1) == 0)
        read_byte(BAD_ADDRESS);
}

/* As the Java virtual machine does it: implicit null checks and polling pages, resolved by moving the program counter. */
static void skip_instruction(int number, siginfo_t *info, void *context)
{
    (void)number;
    ucontext_t *interrupted = context;
    if (info->si_addr != (void *)BAD_ADDRESS)
        _exit(3);
    interrupted->uc_mcontext.gregs[REG_RIP] = interrupted->uc_mcontext.gregs[REG_R11];
    interrupted->uc_mcontext.gregs[REG_RAX] = 42;
}

static long null_check(uintptr_t address)
{
    long result;
    __asm__ volatile("lea 1f(%%rip), %%r11\n"
                     "mov (%1), %0\n"
                     "1:\n"
                     : "=a"(result)
                     : "r"(address)
                     : "r11", "memory");
    return result;
}

static void *check_nulls(void *sum)
{
    for (int i = 0; i < 2000; i++) {
        atomic_fetch_add((_Atomic long *)sum, null_check(BAD_ADDRESS));
        if (i % 16 == 0)
            direct_write_from_nowhere();
    }
    return NULL;
}

SCENARIO(four_threads_with_null_checks_by_fault_and_direct_io)
{
    static _Atomic long sum;
    pthread_t threads[4];
    struct sigaction action = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    guard_may_rise();
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, check_nulls, &sum);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    say("sum %ld", (long)sum);
}

SCENARIO(a_forked_child_has_the_handlers_and_its_faults)
{
    int status = 0;
    handle_with(SIGSEGV, describe_and_leave, 0);
    guard_may_rise();
    pid_t child = fork();
    if (child != 0)
        waitpid(child, &status, 0);
    if (sigsetjmp(back, 1) == 0)
        read_byte(child == 0 ? BAD_ADDRESS : BAD_ADDRESS + PAGE);
    if (child == 0) {
        direct_write_from_nowhere();
        signal(SIGSEGV, SIG_DFL);
        read_byte(BAD_ADDRESS);
    }
    say("the child's wait status %#x", (unsigned)status);
}

static int run_scenario(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"a_handler_learns_all_about_its_fault", scenario_a_handler_learns_all_about_its_fault},
        {"siglongjmp_out_of_a_handler_works_again_and_again",
         scenario_siglongjmp_out_of_a_handler_works_again_and_again},
        {"longjmp_without_the_mask_leaves_the_signal_blocked_and_the_next_fault_kills",
         scenario_longjmp_without_the_mask_leaves_the_signal_blocked_and_the_next_fault_kills},
        {"after_longjmp_without_the_mask_unblocking_by_hand_works",
         scenario_after_longjmp_without_the_mask_unblocking_by_hand_works},
        {"a_jump_within_the_handler_keeps_its_mask", scenario_a_jump_within_the_handler_keeps_its_mask},
        {"setcontext_out_of_a_handler_works_again_and_again",
         scenario_setcontext_out_of_a_handler_works_again_and_again},
        {"a_handler_may_repair_the_address_and_return", scenario_a_handler_may_repair_the_address_and_return},
        {"a_handler_may_edit_the_mask_to_return_to", scenario_a_handler_may_edit_the_mask_to_return_to},
        {"handlers_run_on_the_stack_they_asked_for", scenario_handlers_run_on_the_stack_they_asked_for},
        {"a_stack_overflow_is_caught_on_the_alternate_stack_twice",
         scenario_a_stack_overflow_is_caught_on_the_alternate_stack_twice},
        {"a_stack_overflow_without_an_alternate_stack_kills",
         scenario_a_stack_overflow_without_an_alternate_stack_kills},
        {"a_one_shot_handler_is_called_once_and_then_the_fault_kills",
         scenario_a_one_shot_handler_is_called_once_and_then_the_fault_kills},
        {"a_one_shot_handler_can_be_installed_again", scenario_a_one_shot_handler_can_be_installed_again},
        {"a_fault_without_a_handler_kills", scenario_a_fault_without_a_handler_kills},
        {"a_bus_error_without_a_handler_kills", scenario_a_bus_error_without_a_handler_kills},
        {"a_fault_whose_signal_is_ignored_kills", scenario_a_fault_whose_signal_is_ignored_kills},
        {"a_fault_whose_signal_is_blocked_kills", scenario_a_fault_whose_signal_is_blocked_kills},
        {"a_fault_in_its_own_handler_kills", scenario_a_fault_in_its_own_handler_kills},
        {"a_fault_in_its_own_handler_that_allows_it_is_handled",
         scenario_a_fault_in_its_own_handler_that_allows_it_is_handled},
        {"a_handler_that_restores_the_default_and_returns_dies_of_the_fault",
         scenario_a_handler_that_restores_the_default_and_returns_dies_of_the_fault},
        {"a_handler_that_restores_the_default_and_raises_dies_on_return",
         scenario_a_handler_that_restores_the_default_and_raises_dies_on_return},
        {"direct_io_from_a_bad_pointer_works_inside_the_fault_handler",
         scenario_direct_io_from_a_bad_pointer_works_inside_the_fault_handler},
        {"a_handler_can_trace_back_to_the_fault", scenario_a_handler_can_trace_back_to_the_fault},
        {"four_threads_with_null_checks_by_fault_and_direct_io",
         scenario_four_threads_with_null_checks_by_fault_and_direct_io},
        {"a_forked_child_has_the_handlers_and_its_faults", scenario_a_forked_child_has_the_handlers_and_its_faults},
        {NULL, NULL},
    };
    return scenario_run(scenarios, argc, argv);
}

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--scenario", run_scenario}, {NULL, NULL}};
    const TTest *const tests[] = {
        a_handler_learns_all_about_its_fault,
        siglongjmp_out_of_a_handler_works_again_and_again,
        longjmp_without_the_mask_leaves_the_signal_blocked_and_the_next_fault_kills,
        after_longjmp_without_the_mask_unblocking_by_hand_works,
        a_jump_within_the_handler_keeps_its_mask,
        setcontext_out_of_a_handler_works_again_and_again,
        a_handler_may_repair_the_address_and_return,
        a_handler_may_edit_the_mask_to_return_to,
        handlers_run_on_the_stack_they_asked_for,
        a_stack_overflow_is_caught_on_the_alternate_stack_twice,
        a_stack_overflow_without_an_alternate_stack_kills,
        a_one_shot_handler_is_called_once_and_then_the_fault_kills,
        a_one_shot_handler_can_be_installed_again,
        a_fault_without_a_handler_kills,
        a_bus_error_without_a_handler_kills,
        a_fault_whose_signal_is_ignored_kills,
        a_fault_whose_signal_is_blocked_kills,
        a_fault_in_its_own_handler_kills,
        a_fault_in_its_own_handler_that_allows_it_is_handled,
        a_handler_that_restores_the_default_and_returns_dies_of_the_fault,
        a_handler_that_restores_the_default_and_raises_dies_on_return,
        direct_io_from_a_bad_pointer_works_inside_the_fault_handler,
        a_handler_can_trace_back_to_the_fault,
        four_threads_with_null_checks_by_fault_and_direct_io,
        a_forked_child_has_the_handlers_and_its_faults,
        NULL,
    };
    return support_main(argc, argv, "signals", 30, modes, tests);
}
