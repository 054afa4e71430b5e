/*
 * The fault guard by itself: guarded calls, repairs, installation, and actions that change under fire. What programs see of
 * it is in shim/test_signals.c and shim/test_signal_calls.c.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "bounce/guard_state.h"
#include "support/support.h"

enum { PAGE = 4096 };

#define NOWHERE ((unsigned char *)0x2a000)

static void install_guard(void)
{
    ck_assert(process_start());
    guard_install();
    guard_thread();
    ck_assert(guard_is_up());
}

/* --- Guarded calls ------------------------------------------------------------------------------------------------ */

/* In the section that the handler knows, calling nothing outside of it. */
#define GUARDED __attribute__((section("guarded_text"), noinline))

struct sum {
    const volatile unsigned char *from;
    size_t length;
    unsigned long sum;
};

GUARDED static void add_bytes(void *argument)
{
    struct sum *sum = argument;
    for (size_t i = 0; i < sum->length; i++)
        sum->sum += sum->from[i];
}

START_TEST(a_guarded_call_runs_to_its_end)
{
    install_guard();
    const unsigned char bytes[] = {1, 2, 3};
    struct sum sum = {bytes, sizeof(bytes), 0};
    ck_assert_int_eq(copy_guarded_call(add_bytes, &sum), 0);
    ck_assert_uint_eq(sum.sum, 6);
}
END_TEST

START_TEST(a_guarded_call_that_faults_says_so_every_time)
{
    install_guard();
    struct sum bad = {NOWHERE, 1, 0}, good = {(const unsigned char *)"a", 1, 0};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(copy_guarded_call(add_bytes, &bad), -EFAULT);
    ck_assert_int_eq(copy_guarded_call(add_bytes, &good), 0);
}
END_TEST

/* Overwrites every register that functions preserve, moves the stack, turns the direction round, and faults. */
void overwrite_and_fault(void *argument);
/* Calls copy_guarded_call with known registers and leaves in `preserved` what they are afterwards. */
int call_with_known_registers(void (*function)(void *argument), void *argument);
long preserved[7];

__asm__(".pushsection guarded_text, \"ax\", @progbits\n"
        ".type overwrite_and_fault, @function\n"
        "overwrite_and_fault:\n"
        "    sub $1000, %rsp\n"
        "    xor %ebx, %ebx\n"
        "    xor %ebp, %ebp\n"
        "    xor %r12d, %r12d\n"
        "    xor %r13d, %r13d\n"
        "    xor %r14d, %r14d\n"
        "    xor %r15d, %r15d\n"
        "    std\n"
        "    mov 0x2a000, %al\n"
        "    ud2\n"
        ".size overwrite_and_fault, . - overwrite_and_fault\n"
        ".popsection\n"
        "call_with_known_registers:\n"
        "    push %rbx\n"
        "    push %rbp\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    sub $8, %rsp\n"
        "    mov $10, %ebx\n"
        "    mov $11, %ebp\n"
        "    mov $12, %r12d\n"
        "    mov $13, %r13d\n"
        "    mov $14, %r14d\n"
        "    mov $15, %r15d\n"
        "    call copy_guarded_call\n"
        "    mov %rbx, preserved(%rip)\n"
        "    mov %rbp, preserved+8(%rip)\n"
        "    mov %r12, preserved+16(%rip)\n"
        "    mov %r13, preserved+24(%rip)\n"
        "    mov %r14, preserved+32(%rip)\n"
        "    mov %r15, preserved+40(%rip)\n"
        "    pushf\n"
        "    pop %rdx\n"
        "    cld\n"
        "    and $0x400, %rdx\n"
        "    mov %rdx, preserved+48(%rip)\n"
        "    add $8, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbp\n"
        "    pop %rbx\n"
        "    ret\n");

START_TEST(a_guarded_call_that_faults_restores_its_callers_registers)
{
    install_guard();
    static const long expected[7] = {10, 11, 12, 13, 14, 15, 0};
    ck_assert_int_eq(call_with_known_registers(overwrite_and_fault, NULL), -EFAULT);
    ck_assert_mem_eq(preserved, expected, sizeof(expected));
}
END_TEST

static volatile int interruptions, wrong;

static void fault_in_guarded_calls(int number)
{
    (void)number;
    struct sum bad = {NOWHERE, 1, 0}, good = {(const unsigned char *)"\1\2", 2, 0};
    if (copy_guarded_call(add_bytes, &bad) != -EFAULT || copy_guarded_call(add_bytes, &good) != 0 || good.sum != 3)
        wrong++;
    interruptions++;
}

START_TEST(guarded_calls_nest_in_signal_handlers)
{
    if (test_skipped_under("tsan", "ThreadSanitizer blocks every signal in handlers"))
        return;
    install_guard();
    enum { LENGTH = 1 << 20 };
    unsigned char *bytes = mmap(NULL, LENGTH + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = fault_in_guarded_calls};
    memset(bytes, 1, LENGTH);
    mprotect(bytes + LENGTH, PAGE, PROT_NONE);
    guard_sigaction(SIGALRM, &action, NULL);

    setitimer(ITIMER_REAL, &every, NULL);
    do {
        struct sum whole = {bytes, LENGTH, 0}, too_long = {bytes, LENGTH + 1, 0};
        ck_assert_int_eq(copy_guarded_call(add_bytes, &whole), 0);
        ck_assert_uint_eq(whole.sum, LENGTH);
        ck_assert_int_eq(copy_guarded_call(add_bytes, &too_long), -EFAULT);
    } while (interruptions < 100);
    setitimer(ITIMER_REAL, &never, NULL);

    ck_assert_int_eq(wrong, 0);
}
END_TEST

START_TEST(no_guarded_call_is_made_where_the_kernel_copies)
{
    install_guard();
    struct sum sum = {(const unsigned char *)"a", 1, 0};
    config.copy = COPY_KERNEL;
    ck_assert_int_eq(copy_guarded_call(add_bytes, &sum), -EFAULT);
    ck_assert_uint_eq(sum.sum, 0);
}
END_TEST

static void do_nothing(int number)
{
    (void)number;
}

/* --- Repairs ------------------------------------------------------------------------------------------------------ */

static int repairs;

static bool repair_nowhere(void *address)
{
    repairs++;
    unsigned char *page = (unsigned char *)((uintptr_t)address & ~(uintptr_t)(PAGE - 1));
    if (page != NOWHERE)
        return false;
    return mmap(page, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page;
}

START_TEST(a_fault_elsewhere_is_offered_for_repair_and_goes_on)
{
    install_guard();
    guard_repair = repair_nowhere;
    ck_assert_int_eq(*(volatile unsigned char *)NOWHERE, 0);
    ck_assert_int_eq(repairs, 1);
}
END_TEST

START_TEST(a_fault_of_a_copy_is_not_repaired)
{
    install_guard();
    unsigned char byte;
    guard_repair = repair_nowhere;
    ck_assert_uint_eq(copy_from_user(&byte, NOWHERE, 1), 0);
    ck_assert_int_eq(repairs, 0);
}
END_TEST

START_TEST(a_signal_that_is_sent_is_not_repaired)
{
    struct sigaction action = {.sa_handler = do_nothing};
    install_guard();
    guard_repair = repair_nowhere;
    guard_sigaction(SIGSEGV, &action, NULL);
    raise(SIGSEGV);
    ck_assert_int_eq(repairs, 0);
}
END_TEST

START_TEST(a_recovery_leaves_errno_alone)
{
    install_guard();
    unsigned char byte;
    errno = 12345;
    copy_from_user(&byte, NOWHERE, 1);
    ck_assert_int_eq(errno, 12345);
}
END_TEST

/* --- Installation ------------------------------------------------------------------------------------------------- */

/* What the kernel has; a sanitizer's sigaction would answer for itself. */
static struct kernel_action kernel_action_of(int number)
{
    struct kernel_action action;
    raw(SYS_rt_sigaction, number, NULL, &action, sizeof(action.mask));
    return action;
}

START_TEST(handlers_installed_before_lose_the_two_from_their_masks)
{
    struct sigaction action = {.sa_handler = do_nothing}, reported;
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    ck_assert((kernel_action_of(SIGUSR1).mask & GUARDED_SIGNALS) == GUARDED_SIGNALS);

    install_guard();

    ck_assert((kernel_action_of(SIGUSR1).mask & GUARDED_SIGNALS) == 0);
    ck_assert_int_eq(guard_sigaction(SIGUSR1, NULL, &reported), 0);
    ck_assert((signals_of(&reported.sa_mask) & GUARDED_SIGNALS) == GUARDED_SIGNALS);
}
END_TEST

static void *install(void *unused)
{
    guard_install();
    return guard_is_up() ? NULL : unused;
}

START_TEST(eight_threads_install_once)
{
    pthread_t threads[8];
    struct sigaction action = {.sa_handler = do_nothing}, reported;
    ck_assert(process_start());
    sigaction(SIGBUS, &action, NULL);
    uintptr_t before = kernel_action_of(SIGBUS).handler;
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, install, &action);
    for (int i = 0; i < 8; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    ck_assert_int_eq(guard_sigaction(SIGBUS, NULL, &reported), 0);
    ck_assert_uint_eq((uintptr_t)reported.sa_handler, before);
    ck_assert_uint_ne(kernel_action_of(SIGBUS).handler, before);
}
END_TEST

START_TEST(nothing_is_installed_where_the_kernel_copies)
{
    ck_assert(process_start());
    uintptr_t before = kernel_action_of(SIGSEGV).handler;
    config.copy = COPY_KERNEL;
    guard_install();
    ck_assert(!guard_is_up());
    ck_assert_uint_eq(kernel_action_of(SIGSEGV).handler, before);
}
END_TEST

/* --- Masks for waits ---------------------------------------------------------------------------------------------- */

START_TEST(a_mask_for_a_wait_loses_the_two_and_nothing_else)
{
    sigset_t all, storage;
    sigfillset(&all);
    install_guard();
    const sigset_t *stripped = guard_strip(&all, &storage);
    ck_assert_ptr_eq(stripped, &storage);
    ck_assert_uint_eq(signals_of(stripped), signals_of(&all) & ~GUARDED_SIGNALS);
}
END_TEST

START_TEST(a_mask_at_a_bad_address_is_left_to_the_kernel)
{
    sigset_t storage;
    install_guard();
    ck_assert_ptr_null(guard_strip(NULL, &storage));
    ck_assert_ptr_eq(guard_strip((const sigset_t *)NOWHERE, &storage), NOWHERE);
}
END_TEST

/* --- Actions under fire ------------------------------------------------------------------------------------------- */

static atomic_bool stop;
static atomic_int mixed, faults;

/* The two actions differ in handler and mask; a handler that runs with the other's mask saw half an update. */
static void resume(void *opaque, int masked, int unmasked)
{
    ucontext_t *context = opaque;
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    if (!sigismember(&mask, masked) || sigismember(&mask, unmasked))
        mixed++;
    faults++;
    context->uc_mcontext.gregs[REG_RIP] = context->uc_mcontext.gregs[REG_R11];
}

static void first_handler(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    resume(context, SIGUSR1, SIGUSR2);
}

static void second_handler(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    resume(context, SIGUSR2, SIGUSR1);
}

static void *fault_until_stopped(void *unused)
{
    while (!stop)
        __asm__ volatile("lea 1f(%%rip), %%r11\n mov 0x2a000, %%al\n 1:\n" ::: "r11", "rax", "memory");
    return unused;
}

START_TEST(a_fault_never_sees_half_an_action)
{
    struct sigaction first = {.sa_sigaction = first_handler, .sa_flags = SA_SIGINFO};
    struct sigaction second = {.sa_sigaction = second_handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    pthread_t thread;
    sigaddset(&first.sa_mask, SIGUSR1);
    sigaddset(&second.sa_mask, SIGUSR2);
    install_guard();
    ck_assert_int_eq(guard_sigaction(SIGSEGV, &first, NULL), 0);
    pthread_create(&thread, NULL, fault_until_stopped, NULL);
    for (int i = 0; i < 20000 || faults < 2000; i++)
        guard_sigaction(SIGSEGV, i % 2 ? &first : &second, NULL);
    stop = true;
    pthread_join(thread, NULL);
    ck_assert_int_eq(mixed, 0);
}
END_TEST

static atomic_int spent;

static void *spend(void *version)
{
    if (guard_action_spend(GUARDED_BUS, *(unsigned *)version))
        spent++;
    return NULL;
}

START_TEST(a_one_shot_action_is_spent_by_one_thread)
{
    pthread_t threads[8];
    struct sigaction action = {.sa_handler = do_nothing, .sa_flags = (int)SA_RESETHAND};
    struct kernel_action kept;
    install_guard();
    for (int round = 1; round <= 100; round++) {
        guard_sigaction(SIGBUS, &action, NULL);
        unsigned version = guard_action_get(GUARDED_BUS, &kept);
        ck_assert_uint_eq(kept.handler, (uintptr_t)do_nothing);
        for (int i = 0; i < 8; i++)
            pthread_create(&threads[i], NULL, spend, &version);
        for (int i = 0; i < 8; i++)
            pthread_join(threads[i], NULL);
        ck_assert_int_eq(spent, round);
        guard_action_get(GUARDED_BUS, &kept);
        ck_assert_uint_eq(kept.handler, (uintptr_t)SIG_DFL);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_guarded_call_runs_to_its_end,
        a_guarded_call_that_faults_says_so_every_time,
        a_guarded_call_that_faults_restores_its_callers_registers,
        guarded_calls_nest_in_signal_handlers,
        no_guarded_call_is_made_where_the_kernel_copies,
        a_fault_elsewhere_is_offered_for_repair_and_goes_on,
        a_fault_of_a_copy_is_not_repaired,
        a_signal_that_is_sent_is_not_repaired,
        a_recovery_leaves_errno_alone,
        handlers_installed_before_lose_the_two_from_their_masks,
        eight_threads_install_once,
        nothing_is_installed_where_the_kernel_copies,
        a_mask_for_a_wait_loses_the_two_and_nothing_else,
        a_mask_at_a_bad_address_is_left_to_the_kernel,
        a_fault_never_sees_half_an_action,
        a_one_shot_action_is_spent_by_one_thread,
        NULL,
    };
    return support_main(argc, argv, "guard", 60, NULL, tests);
}
