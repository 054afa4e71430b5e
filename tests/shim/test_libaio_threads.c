/*
 * Shadow contexts left by jumps, and shared by threads that sleep, poll and submit. Every wait is bounded.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/libaio_setting.h"

static bool under_tsan(void)
{
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");

    return sanitizer && strcmp(sanitizer, "tsan") == 0;
}

/* ThreadSanitizer has handlers run inside atomic operations, which no signal interrupts. */
static bool has_real_signals(void)
{
    if (under_tsan())
        test_skip("ThreadSanitizer has signal handling of its own");
    return !under_tsan();
}

/* --- Jumps ---------------------------------------------------------------------------------------------------------- */

static sigjmp_buf target;

static void jump(int number)
{
    (void)number;
    siglongjmp(target, 1);
}

static void ring_the_bell(long microseconds)
{
    const struct itimerval time = {.it_value = {.tv_usec = microseconds}};

    setitimer(ITIMER_REAL, &time, NULL);
}

static void play_jumps(void)
{
    struct io_event events[DEPTH];
    struct timespec time = {.tv_sec = PATIENCE};
    const struct sigaction action = {.sa_handler = jump};

    for (int i = 0; i < 20; i++) {
        sigaction(SIGALRM, &action, NULL);
        if (sigsetjmp(target, 1) == 0) {
            ring_the_bell(3000);
            int n = io_getevents(setting.context, 1, DEPTH, events, &time);
            check_failed(__FILE__, __LINE__, "came back with %d", n);
        }
        /* Nobody sleeps in there any more: the pump works again. */
        submit_read(i % DEPTH, (uint64_t)i, true);
        wait_by((enum wait)(i % WAITS));
        drain_eventfd();
        check_that(reap_from_memory() == 1, "nothing is pumped after a jump");
    }
}

START_TEST(a_jump_out_of_io_getevents_leaves_nothing_behind)
{
    if (has_real_signals())
        on_two(play_jumps, DEPTH);
}
END_TEST

static _Atomic uint64_t jumps;

/* Jumps at any moment, out of submissions and reaping, while events come. */
static void play_storm(void)
{
    struct io_event events[DEPTH];
    struct timespec time = {.tv_nsec = 2000000};
    const struct sigaction action = {.sa_handler = jump};
    const struct bounceio_stats before = counters();
    volatile uint64_t i = 0;

    sigaction(SIGALRM, &action, NULL);
    while (i < rounds(2000, 50000)) {
        if (sigsetjmp(target, 1) != 0)
            atomic_fetch_add(&jumps, 1);
        const uint64_t turn = i;

        i = turn + 1;
        ring_the_bell(1 + (long)(turn % 300));
        io_prep_pwrite(&setting.iocbs[turn % DEPTH], setting.fd, place((int)(turn % DEPTH)), BLOCK,
                       (long long)(turn % BLOCKS * BLOCK));
        io_submit(setting.context, 1, &setting.list[turn % DEPTH]);
        io_getevents(setting.context, 1, DEPTH, events, &time);
        if (turn % 8 == 0)
            poll(&(struct pollfd){.fd = setting.event, .events = POLLIN}, 1, 1);
    }
    ring_the_bell(0);
    signal(SIGALRM, SIG_DFL);
    alarm(100);
    check_that(atomic_load(&jumps) > 0, "nothing was jumped out of");
    /* The context is as good as before, once the last of them has come. */
    time.tv_nsec = 300000000;
    while (io_getevents(setting.context, 1, DEPTH, events, &time) > 0)
        ;
    direct_write(setting.fd, SEED, 0, SIZE);
    submit_read(0, 0, true);
    time.tv_sec = PATIENCE;
    check_that(io_getevents(setting.context, 1, 1, events, &time) == 1, "nothing comes");
    check_read(events);
    direct_check(setting.fd, SEED, 0, SIZE);
    if (counting())
        check_that(counters().mismatches == before.mismatches, "mismatches");
}

START_TEST(jumps_at_any_moment_leave_a_context_that_works)
{
    if (has_real_signals())
        on_two(play_storm, 4 * DEPTH);
}
END_TEST

/* --- Threads -------------------------------------------------------------------------------------------------------- */

struct waiter {
    pthread_t thread;
    long least;
    long got;
};

static void *wait_for_least(void *argument)
{
    struct waiter *waiter = argument;
    struct timespec time = {.tv_sec = PATIENCE};
    struct io_event events[DEPTH];

    waiter->got = io_getevents(setting.context, waiter->least, waiter->least, events, &time);
    for (long i = 0; i < waiter->got; i++)
        check_read(&events[i]);
    return NULL;
}

static void play_minima(void)
{
    for (size_t round = 0; round < rounds(30, 2000); round++) {
        struct waiter waiters[4] = {{.least = 1}, {.least = 2}, {.least = 4}, {.least = 1}};

        for (int i = 0; i < 4; i++)
            check_that(pthread_create(&waiters[i].thread, NULL, wait_for_least, &waiters[i]) == 0, "no thread");
        if (round % 2)
            usleep(2000);
        for (int i = 0; i < 8; i++)
            submit_read(i, (uint64_t)i, true);
        /* A pump beside them must not take what they sleep for. */
        drain_eventfd();
        for (int i = 0; i < 4; i++) {
            pthread_join(waiters[i].thread, NULL);
            check_that(waiters[i].got == waiters[i].least, "who waited for %ld got %ld", waiters[i].least,
                       waiters[i].got);
        }
    }
}

START_TEST(threads_that_wait_for_different_numbers_all_get_theirs)
{
    on_two(play_minima, DEPTH);
}
END_TEST

struct traffic {
    atomic_bool busy[DEPTH];
    _Atomic uint64_t reaped;
    uint64_t requests;
};

static void *reap_all(void *argument)
{
    struct traffic *traffic = argument;
    struct io_event events[3];

    while (atomic_load(&traffic->reaped) < traffic->requests) {
        struct timespec time = {.tv_nsec = 100000000};
        int n = io_getevents(setting.context, 1, 3, events, &time);

        check_that(n >= 0, "reaping gave %d", n);
        for (int i = 0; i < n; i++) {
            const ptrdiff_t number = events[i].obj - setting.iocbs;

            check_read(&events[i]);
            /* Recycled at once, by whoever submits: the submission may not even have returned. */
            memset(events[i].obj, 0xff, sizeof *events[i].obj);
            atomic_store(&traffic->busy[number], false);
            atomic_fetch_add(&traffic->reaped, 1);
        }
    }
    return NULL;
}

/* One thread submits, and looks at the eventfd between; others reap by call. */
static void play_traffic(void)
{
    struct traffic traffic = {.requests = rounds(20000, 500000)};
    pthread_t reapers[3];
    uint64_t submitted = 0;

    alarm(100);
    for (int i = 0; i < 3; i++)
        check_that(pthread_create(&reapers[i], NULL, reap_all, &traffic) == 0, "no thread");
    while (submitted < traffic.requests) {
        for (int i = 0; i < DEPTH && submitted < traffic.requests; i++)
            if (!atomic_load(&traffic.busy[i])) {
                atomic_store(&traffic.busy[i], true);
                submit_read(i, submitted++ % BLOCKS, true);
            }
        /* ThreadSanitizer does not follow what is ordered inside of its poll(). */
        if (!under_tsan())
            poll(&(struct pollfd){.fd = setting.event, .events = POLLIN}, 1, 0);
        drain_eventfd();
    }
    for (int i = 0; i < 3; i++)
        pthread_join(reapers[i], NULL);
    check_that(atomic_load(&traffic.reaped) == traffic.requests, "%llu of %llu", (unsigned long long)traffic.reaped,
               (unsigned long long)traffic.requests);
}

START_TEST(one_submits_and_polls_while_others_reap)
{
    on_two(play_traffic, DEPTH);
}
END_TEST

/* Each submits its own requests and reaps whatever comes. */
static void *submit_and_reap(void *argument)
{
    struct traffic *traffic = argument;
    struct io_event event;

    while (atomic_load(&traffic->reaped) < traffic->requests) {
        struct timespec time = {.tv_nsec = 20000000};

        for (int i = 0; i < DEPTH; i++) {
            bool free = false;

            if (!atomic_compare_exchange_strong(&traffic->busy[i], &free, true))
                continue;
            submit_read(i, (uint64_t)i, i % 2);
            break;
        }
        if (io_getevents(setting.context, 1, 1, &event, &time) != 1)
            continue;
        check_read(&event);
        atomic_fetch_add(&traffic->reaped, 1);
        atomic_store(&traffic->busy[event.obj - setting.iocbs], false);
    }
    return NULL;
}

static void play_crowd(void)
{
    struct traffic traffic = {.requests = rounds(20000, 500000)};
    pthread_t threads[4];

    alarm(100);
    for (int i = 0; i < 4; i++)
        check_that(pthread_create(&threads[i], NULL, submit_and_reap, &traffic) == 0, "no thread");
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

START_TEST(threads_share_a_context)
{
    on_two(play_crowd, 2 * DEPTH);
}
END_TEST

/* Contexts come and go while every read() of another thread pumps them all. */
static void *make_and_destroy(void *argument)
{
    for (size_t i = 0; i < rounds(60, 20000); i++) {
        io_context_t context = NULL;
        struct iocb iocb, *list = &iocb;
        struct io_event event;

        check_that(io_setup(4, &context) == 0, "no context");
        io_prep_pread(&iocb, setting.fd, argument, BLOCK, 0);
        io_set_eventfd(&iocb, setting.event);
        check_that(io_submit(context, 1, &list) == 1, "cannot submit");
        if (i % 2)
            check_that(io_getevents(context, 1, 1, &event, NULL) == 1 && event.obj == &iocb, "cannot reap");
        check_that(io_destroy(context) == 0, "cannot destroy");
        check_that(pattern_check(argument, BLOCK, SEED, 0) == BLOCK, "not read when destroyed");
        memset(argument, 0, BLOCK);
    }
    return NULL;
}

static void play_comings(void)
{
    pthread_t threads[2];
    atomic_bool over = false;

    alarm(100);
    for (int i = 0; i < 2; i++)
        check_that(pthread_create(&threads[i], NULL, make_and_destroy, place(i)) == 0, "no thread");
    while (!atomic_load(&over)) {
        drain_eventfd();
        /* Neither blocks: joined as soon as both are over. */
        atomic_store(&over, pthread_tryjoin_np(threads[0], NULL) == 0);
    }
    pthread_join(threads[1], NULL);
}

START_TEST(contexts_come_and_go_under_the_pump)
{
    if (test_skipped_under("tsan", "ThreadSanitizer does not see memory unmapped by system calls of our own"))
        return;
    on_two(play_comings, DEPTH);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_jump_out_of_io_getevents_leaves_nothing_behind,
                                  jumps_at_any_moment_leave_a_context_that_works,
                                  threads_that_wait_for_different_numbers_all_get_theirs,
                                  one_submits_and_polls_while_others_reap,
                                  threads_share_a_context,
                                  contexts_come_and_go_under_the_pump,
                                  NULL};

    return support_main(argc, argv, "threads on a context", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, NULL, tests);
}
