/*
 * Completions do not interrupt a thread that uses its ring alone, and are found by it all the same as soon as it looks. What interrupts nobody
 * shows in the ring's flags until it is taken (IORING_SQ_TASKRUN).
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

/* Times in microseconds. */
enum { TRIES = 200, SPIN = 2000, LATE = 400, SHORT = 500000, LONG = 20000000 };

static char memory[1 << 20];

/* A kernel that knows of it, and a processor for the worker beside ours. */
static bool can_tell(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG};
    cpu_set_t processors;
    long fd = syscall(SYS_io_uring_setup, 1, &params);

    if (fd >= 0)
        close((int)fd);
    return fd >= 0 && sched_getaffinity(0, sizeof processors, &processors) == 0 && CPU_COUNT(&processors) > 1;
}

static void ring_open(struct io_uring *ring, unsigned flags)
{
    struct io_uring_params params = {.flags = flags};

    check_that(io_uring_queue_init_params(8, ring, &params) == 0, "no ring");
    check_that(params.flags == flags && ring->flags == flags, "the ring says that it was asked for %x", params.flags);
}

static int64_t now_microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

/* A MiB of zeros. */
static int file_open(void)
{
    int fd = memfd_create("zeros", 0);

    check_that(fd >= 0 && ftruncate(fd, sizeof memory) == 0, "no file");
    return fd;
}

/* What a worker of the kernel's completes on another processor, some tens of microseconds after the call. */
static void submit_one(struct io_uring *ring, int fd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    io_uring_prep_read(sqe, fd, memory, sizeof memory, 0);
    sqe->flags |= IOSQE_ASYNC;
    check_that(io_uring_submit(ring) == 1, "submit");
}

static void take_one(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;

    check_that(io_uring_wait_cqe(ring, &cqe) == 0 && cqe->res == sizeof memory, "wait");
    io_uring_cqe_seen(ring, cqe);
}

/*
 * Has a thread that computes ever seen that a completion was waiting for it? On a busy machine the worker takes its place instead; so it tries
 * until it has, for so long.
 */
static bool completions_wait(unsigned flags, int64_t patience)
{
    const int64_t over = now_microseconds() + patience;
    struct io_uring ring;
    bool waiting = false;
    int fd = file_open();

    ring_open(&ring, flags);
    while (!waiting && now_microseconds() < over) {
        submit_one(&ring, fd);
        for (int64_t end = now_microseconds() + SPIN; !waiting && now_microseconds() < end;)
            waiting = *(volatile unsigned *)ring.sq.kflags & IORING_SQ_TASKRUN;
        take_one(&ring);
    }
    io_uring_queue_exit(&ring);
    close(fd);
    return waiting;
}

START_TEST(a_thread_alone_is_not_interrupted)
{
    if (can_tell())
        check_that(completions_wait(0, LONG), "completions have interrupted it");
}
END_TEST

static void *sleep_long(void *over)
{
    while (!atomic_load((atomic_bool *)over))
        usleep(10000);
    return NULL;
}

START_TEST(a_ring_that_others_may_wait_for_is_as_the_kernel_makes_it)
{
    atomic_bool over = false;
    pthread_t thread;

    if (!can_tell())
        return;
    check_that(pthread_create(&thread, NULL, sleep_long, &over) == 0, "no thread");
    check_that(!completions_wait(0, SHORT), "completions wait, and another thread may wait for them");
    check_that(completions_wait(IORING_SETUP_SINGLE_ISSUER, LONG), "a ring of one thread's is interrupted");
    atomic_store(&over, true);
    pthread_join(thread, NULL);
}
END_TEST

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Another process: for each byte that it is sent it says, some time later, what time it is. */
static void tell_times(int from, int to)
{
    char byte;

    while (read(from, &byte, 1) == 1) {
        usleep(300);
        const int64_t now = now_microseconds();

        check_that(write(to, &now, sizeof now) == sizeof now, "write");
    }
}

/* Until it is told that there is something to be read this looks for completions, and makes no call of its own. @return how late it was told. */
static int64_t look_for_one(struct io_uring *ring, int from)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    int64_t told;

    io_uring_prep_poll_add(sqe, from, POLLIN);
    check_that(io_uring_submit(ring) == 1, "submit");
    while (io_uring_peek_cqe(ring, &cqe) == -EAGAIN)
        ;
    const int64_t now = now_microseconds();

    check_that(cqe->res == POLLIN && read(from, &told, sizeof told) == sizeof told, "poll");
    io_uring_cqe_seen(ring, cqe);
    return now - told;
}

/* The timer's tick would come to its help within milliseconds. */
START_TEST(who_looks_finds_them_soon)
{
    struct io_uring ring;
    int64_t times[TRIES];
    int to[2], from[2];

    if (!can_tell())
        return;
    check_that(pipe(to) == 0 && pipe(from) == 0, "pipe");
    pid_t other = fork();

    if (other == 0) {
        close(to[1]);
        tell_times(to[0], from[1]);
        _exit(0);
    }
    ring_open(&ring, 0);
    for (unsigned i = 0; i < TRIES; i++) {
        check_that(write(to[1], "", 1) == 1, "write");
        times[i] = look_for_one(&ring, from[0]);
    }
    io_uring_queue_exit(&ring);
    close(to[1]);
    check_that(waitpid(other, NULL, 0) == other, "wait");
    qsort(times, TRIES, sizeof *times, by_value);
    check_that(times[TRIES / 2] < LATE, "it took %lld us to find a completion", (long long)times[TRIES / 2]);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "io_uring of one thread", 60, NULL,
                        (const TTest *const[]){a_thread_alone_is_not_interrupted,
                                               a_ring_that_others_may_wait_for_is_as_the_kernel_makes_it,
                                               who_looks_finds_them_soon, NULL});
}
