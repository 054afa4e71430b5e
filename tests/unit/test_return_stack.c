/* Filling the processor's return stack changes nothing that a program can see but time. */
#include <check.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>

#include "base/process.h"
#include "base/return_stack.h"
#include "support/support.h"

#if defined(__x86_64__)

/* Returns at every level what only its own stack frame knows. */
static __attribute__((noinline)) uint64_t sum_to(uint64_t number)
{
    volatile uint64_t mine = number;
    uint64_t below = 0;
    if (number > 0)
        below = sum_to(number - 1);
    else
        return_stack_fill();
    return mine + below;
}

START_TEST(every_return_finds_its_way)
{
    for (uint64_t depth = 0; depth < 100; depth++)
        ck_assert_uint_eq(sum_to(depth), depth * (depth + 1) / 2);
}
END_TEST

static __attribute__((noinline)) uint64_t keep_below_the_stack_pointer(uint64_t value)
{
    uint64_t kept;
    __asm__ volatile("movq %0, -128(%%rsp)" ::"r"(value) : "memory");
    return_stack_fill();
    __asm__ volatile("movq -128(%%rsp), %0" : "=r"(kept)::"memory");
    return kept;
}

START_TEST(the_red_zone_is_left_alone)
{
    ck_assert_uint_eq(keep_below_the_stack_pointer(0x5a5a123456785a5a), 0x5a5a123456785a5a);
}
END_TEST

static volatile unsigned interruptions;

static void interrupt(int signal)
{
    (void)signal;
    interruptions++;
    return_stack_fill();
}

START_TEST(a_handler_may_interrupt_it_anywhere)
{
    const struct itimerval often = {.it_interval = {.tv_usec = 50}, .it_value = {.tv_usec = 50}}, never = {0};
    struct sigaction action = {.sa_handler = interrupt};
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (interruptions < 200)
        for (int i = 0; i < 100; i++)
            ck_assert_uint_eq(sum_to(10), 55);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
}
END_TEST

START_TEST(measuring_is_done_once)
{
    return_stack_measure();
    return_stack_is_spoilt = !return_stack_is_spoilt;
    const bool found = return_stack_is_spoilt;
    return_stack_measure();
    ck_assert_int_eq(return_stack_is_spoilt, found);
    return_stack_repair();
}
END_TEST

#else

START_TEST(there_is_nothing_to_repair)
{
    return_stack_measure();
    return_stack_repair();
}
END_TEST

#endif

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
#if defined(__x86_64__)
        every_return_finds_its_way,
        the_red_zone_is_left_alone,
        a_handler_may_interrupt_it_anywhere,
        measuring_is_done_once,
#else
        there_is_nothing_to_repair,
#endif
        NULL,
    };
    process_start();
    return support_main(argc, argv, "return_stack", 20, NULL, tests);
}
