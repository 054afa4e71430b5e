/* Filling the processor's return stack changes nothing that a program can see but time. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
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

static _Atomic unsigned repairs;
static _Atomic bool is_over;

static void *repair(void *nothing)
{
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        return_stack_repair();
        atomic_fetch_add_explicit(&repairs, 1, memory_order_relaxed);
    }
    return nothing;
}

/* Another thread may have a ring without direct I/O while the first direct descriptor is being classified. For ThreadSanitizer. */
START_TEST(measuring_and_repairing_may_meet)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, repair, NULL), 0);
    while (atomic_load_explicit(&repairs, memory_order_relaxed) < 100)
        sched_yield();
    return_stack_measure();
    const unsigned before = atomic_load_explicit(&repairs, memory_order_relaxed);
    while (atomic_load_explicit(&repairs, memory_order_relaxed) < before + 100)
        sched_yield();
    atomic_store_explicit(&is_over, true, memory_order_relaxed);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
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
        measuring_and_repairing_may_meet,
        measuring_is_done_once,
#else
        there_is_nothing_to_repair,
#endif
        NULL,
    };
    process_start();
    return support_main(argc, argv, "return_stack", 20, NULL, tests);
}
