/*
 * POSIX AIO's threads, and the program's own among them: waiting, being interrupted and cancelled, many descriptors, aiocbs used again and again.
 */
#include <aio.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/posix_aio.h"
#include "support/support.h"

enum { LENGTH = 4 * BLOCK };

static int scene_file(const char *name)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    return direct_open(path_in(fs[0].path, name), O_RDWR | O_CREAT | O_TRUNC);
}

static unsigned threads(void)
{
    char status[8192] = {0};
    read_behind("/proc/self/status", status, sizeof status - 1, 0);
    const char *line = strstr(status, "\nThreads:");
    check_that(line, "/proc/self/status");
    return (unsigned)strtoul(line + 9, NULL, 10);
}

static void *do_nothing(void *argument)
{
    return argument;
}

/* Threads there are without the helpers. A sanitizer starts one of its own with the first. */
static unsigned other_threads(void)
{
    pthread_t thread;
    check_that(pthread_create(&thread, NULL, do_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0, "thread");
    usleep(20000);
    return threads();
}

/* A read that does not end before something is written to the other end. */
struct stuck {
    int ends[2];
    char text;
    struct aiocb control;
};

static void get_stuck(struct stuck *stuck)
{
    check_that(pipe(stuck->ends) == 0, "pipe");
    stuck->control = control_of(stuck->ends[0], &stuck->text, 1, 0);
    check_that(aio_read(&stuck->control) == 0, "aio_read");
}

static void get_loose(struct stuck *stuck)
{
    check_that(write(stuck->ends[1], "x", 1) == 1, "write");
    check_that(end_of(&stuck->control) == 1, "a stuck read gave %zd", end_of(&stuck->control));
    close(stuck->ends[0]);
    close(stuck->ends[1]);
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

START_TEST(helpers_end_when_there_is_nothing_to_do)
{
    int fd = scene_file("file");
    unsigned before = other_threads();
    struct aiocb control = control_of(fd, direct_memory(), LENGTH, 0);
    ck_assert_int_eq(aio_write(&control), 0);
    ck_assert_int_eq(end_of(&control), LENGTH);
    ck_assert_uint_eq(threads(), before + 1);
    /* Used again while it is there, without another. */
    for (int i = 0; i < 20; i++) {
        usleep(2000);
        ck_assert_int_eq(aio_write(&control), 0);
        ck_assert_int_eq(end_of(&control), LENGTH);
        ck_assert_uint_eq(threads(), before + 1);
    }
    for (int i = 0; threads() > before; i++) {
        ck_assert_msg(i < POSIX_PATIENCE * 100, "it stays");
        usleep(10000);
    }
    ck_assert_int_eq(aio_write(&control), 0);
    ck_assert_int_eq(end_of(&control), LENGTH);
    close(fd);
}
END_TEST

START_TEST(more_descriptors_than_helpers)
{
    enum { FILES = 48 };
    static struct aiocb controls[FILES];
    int fds[FILES];
    unsigned before = other_threads();
    for (int i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof name, "file %d", i);
        fds[i] = scene_file(name);
    }
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < FILES; i++) {
            pattern_fill(direct_memory(), LENGTH, (uint64_t)i, 0);
            controls[i] = control_of(fds[i], direct_memory(), LENGTH, 0);
            ck_assert_int_eq(aio_write(&controls[i]), 0);
        }
        ck_assert_uint_le(threads(), before + 20);
        for (int i = 0; i < FILES; i++)
            ck_assert_int_eq(end_of(&controls[i]), LENGTH);
    }
    for (int i = 0; i < FILES; i++) {
        direct_check(fds[i], (uint64_t)i, 0, LENGTH);
        close(fds[i]);
    }
}
END_TEST

/* All helpers hang in pipes; what comes then waits, and goes on when one is free. */
START_TEST(all_helpers_are_busy)
{
    static struct stuck stuck[20];
    int fd = scene_file("file");
    for (int i = 0; i < 20; i++)
        get_stuck(&stuck[i]);
    struct aiocb control = control_of(fd, direct_memory(), LENGTH, 0);
    const struct aiocb *list[] = {&control};
    ck_assert_int_eq(aio_write(&control), 0);
    ck_assert_int_eq(aio_suspend(list, 1, &(struct timespec){.tv_nsec = 50000000}), -1);
    ck_assert_int_eq(errno, EAGAIN);
    get_loose(&stuck[0]);
    ck_assert_int_eq(end_of(&control), LENGTH);
    for (int i = 1; i < 20; i++)
        get_loose(&stuck[i]);
    close(fd);
}
END_TEST

/* One may be enough: pipes hang one behind the other then. */
START_TEST(aio_init_limits_the_helpers)
{
    struct stuck first, second;
    aio_init(&(struct aioinit){.aio_threads = 1, .aio_num = 1, .aio_idle_time = 30});
    unsigned before = other_threads();
    get_stuck(&first);
    usleep(20000);
    get_stuck(&second);
    ck_assert_uint_eq(threads(), before + 1);
    ck_assert_int_eq(write(second.ends[1], "x", 1), 1);
    usleep(20000);
    ck_assert_int_eq(aio_error(&second.control), EINPROGRESS);
    get_loose(&first);
    ck_assert_int_eq(end_of(&second.control), 1);
    usleep(1500000);
    ck_assert_uint_eq(threads(), before + 1);
}
END_TEST

/* --- Waits -------------------------------------------------------------------------------------------------------- */

static _Atomic int handled;

static void count_alarm(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

/* The C library's own writes into a stack frame that is gone when the list ends (2.36). */
START_TEST(a_wait_for_a_list_is_interrupted)
{
    struct stuck stuck;
    int fd = scene_file("file");
    struct sigaction action = {.sa_handler = count_alarm};
    sigaction(SIGALRM, &action, NULL);
    for (int turn = 0; turn < 20; turn++) {
        get_stuck(&stuck);
        struct aiocb first = control_of(fd, direct_memory(), LENGTH, 0),
                     behind = control_of(stuck.ends[0], &stuck.text, 1, 0);
        struct aiocb *list[] = {&first, &behind};
        first.aio_lio_opcode = LIO_WRITE;
        behind.aio_lio_opcode = LIO_READ;
        ualarm(20000, 20000);
        errno = 0;
        ck_assert(lio_listio(LIO_WAIT, list, 2, NULL) == -1 && errno == EINTR);
        ualarm(0, 0);
        ck_assert_int_eq(end_of(&first), LENGTH);
        ck_assert_int_eq(aio_error(&behind), EINPROGRESS);
        ck_assert_int_eq(write(stuck.ends[1], "xx", 2), 2);
        ck_assert_int_eq(end_of(&behind), 1);
        get_loose(&stuck);
    }
    ck_assert_int_ge(atomic_load(&handled), 20);
    close(fd);
}
END_TEST

static void *suspend_for_ever(void *control)
{
    const struct aiocb *list[] = {control};
    aio_suspend(list, 1, NULL);
    return NULL;
}

START_TEST(a_thread_is_cancelled_in_aio_suspend)
{
    struct stuck stuck;
    if (test_skipped_under("asan",
                           "AddressSanitizer takes the stack frames that a cancellation leaves for still there"))
        return;
    get_stuck(&stuck);
    for (int turn = 0; turn < 50; turn++) {
        pthread_t thread;
        void *result;
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += POSIX_PATIENCE;
        ck_assert_int_eq(pthread_create(&thread, NULL, suspend_for_ever, &stuck.control), 0);
        usleep(turn % 2 ? 2000 : 0);
        ck_assert_int_eq(pthread_cancel(thread), 0);
        ck_assert_int_eq(pthread_timedjoin_np(thread, &result, &limit), 0);
        ck_assert_ptr_eq(result, PTHREAD_CANCELED);
    }
    get_loose(&stuck);
}
END_TEST

/* POSIX lists the three among the functions that a handler may call. */
static struct aiocb *_Atomic in_flight;
static _Atomic int overtaken;

static void ask_in_handler(int number)
{
    (void)number;
    int error = errno;
    struct aiocb *control = atomic_load(&in_flight);
    if (control) {
        const struct aiocb *list[] = {control};
        aio_suspend(list, 1, NULL);
        if (aio_error(control) != 0 || aio_return(control) != LENGTH)
            atomic_fetch_add(&overtaken, 1);
        atomic_fetch_add(&handled, 1);
    }
    errno = error;
}

START_TEST(a_handler_waits_for_a_request)
{
    static struct aiocb controls[2];
    int fd = scene_file("file");
    struct sigaction action = {.sa_handler = ask_in_handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    timer_t timer;
    struct itimerspec often = {{0, 200000}, {0, 200000}};
    ck_assert(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
    unsigned char *memory = buffer_new(2 * LENGTH);
    /* While the second is being submitted, or waited for, a handler waits for the first. */
    for (size_t i = 0; i < rounds(5000, 100000); i++) {
        for (int k = 0; k < 2; k++) {
            controls[k] = control_of(fd, memory + k * LENGTH, LENGTH, (size_t)k * LENGTH);
            ck_assert_int_eq(aio_write(&controls[k]), 0);
            atomic_store(&in_flight, &controls[0]);
        }
        ck_assert_int_eq(end_of(&controls[1]), LENGTH);
        ck_assert_int_eq(end_of(&controls[0]), LENGTH);
        atomic_store(&in_flight, NULL);
    }
    timer_delete(timer);
    ck_assert_int_gt(atomic_load(&handled), 0);
    ck_assert_int_eq(atomic_load(&overtaken), 0);
    buffer_free(memory, 2 * LENGTH);
    close(fd);
}
END_TEST

/* --- Many at once ------------------------------------------------------------------------------------------------- */

enum { THREADS = 6, OWN = 8 };

struct worker {
    pthread_t thread;
    int fd;
    size_t number;
};

/* The number of the turn in which an extent was last written, for its content. */
static uint64_t seed_of(size_t worker, size_t extent, size_t turn)
{
    return (worker << 40) + (extent << 32) + turn;
}

static void *work(void *argument)
{
    const struct worker *worker = argument;
    struct aiocb controls[OWN];
    const struct aiocb *list[OWN];
    size_t last[OWN] = {0};
    struct random random = {.state = worker->number};
    unsigned char *memory = buffer_new(OWN * LENGTH);
    for (size_t i = 0; i < OWN; i++) {
        list[i] = NULL;
        controls[i].aio_fildes = -1;
    }
    for (size_t turn = 1; turn <= rounds(2000, 50000); turn++) {
        size_t i = random_below(&random, OWN);
        size_t at = (worker->number * OWN + i) * LENGTH;
        unsigned char *own = memory + i * LENGTH;
        if (list[i]) {
            check_that(aio_suspend(list, OWN, &(struct timespec){.tv_sec = POSIX_PATIENCE}) == 0, "aio_suspend");
            ssize_t n = end_of(&controls[i]);
            check_that(n == LENGTH, "worker %zu, extent %zu: %zd", worker->number, i, n);
            if (controls[i].aio_lio_opcode == LIO_READ)
                check_that(pattern_check(own, LENGTH, seed_of(worker->number, i, last[i]), at) == LENGTH, "content");
        }
        controls[i] = control_of(worker->fd, own, LENGTH, at);
        list[i] = &controls[i];
        if (last[i] && random_chance(&random, 50)) {
            check_that(aio_read(&controls[i]) == 0, "aio_read");
        } else {
            last[i] = turn;
            pattern_fill(own, LENGTH, seed_of(worker->number, i, turn), at);
            check_that(aio_write(&controls[i]) == 0, "aio_write");
        }
    }
    for (size_t i = 0; i < OWN; i++)
        check_that(!list[i] || end_of(&controls[i]) == LENGTH, "the last of extent %zu", i);
    for (size_t i = 0; i < OWN; i++)
        if (last[i])
            direct_check(worker->fd, seed_of(worker->number, i, last[i]), (off_t)((worker->number * OWN + i) * LENGTH),
                         LENGTH);
    buffer_free(memory, OWN * LENGTH);
    return NULL;
}

/* Half of them share a descriptor, the others have one each, all of one file. */
START_TEST(many_threads_submit_and_wait)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        struct worker workers[THREADS];
        const char *path = path_in(fs[i].path, "file");
        int shared = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
        struct bounceio_stats before = counters();
        for (size_t k = 0; k < THREADS; k++) {
            workers[k] = (struct worker){.fd = k % 2 ? shared : direct_open(path, O_RDWR), .number = k};
            ck_assert_int_eq(pthread_create(&workers[k].thread, NULL, work, &workers[k]), 0);
        }
        for (size_t k = 0; k < THREADS; k++) {
            pthread_join(workers[k].thread, NULL);
            if (k % 2 == 0)
                close(workers[k].fd);
        }
        close(shared);
        ck_assert_uint_eq(counters().mismatches, before.mismatches);
        ck_assert_uint_eq(counters().passed_through, before.passed_through);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {helpers_end_when_there_is_nothing_to_do,
                                  more_descriptors_than_helpers,
                                  all_helpers_are_busy,
                                  aio_init_limits_the_helpers,
                                  a_wait_for_a_list_is_interrupted,
                                  a_thread_is_cancelled_in_aio_suspend,
                                  a_handler_waits_for_a_request,
                                  many_threads_submit_and_wait,
                                  NULL};

    return support_main(argc, argv, "posix_aio_threads", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, NULL, tests);
}
