/*
 * What a program submits by one call goes to the kernel in helpings (engine/helping.h), which nobody is to notice but by the time: not who counts
 * completions, nor who is refused, nor another call of the same thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { WRITES = 16, LENGTH = 16 << 10, APART = 4 * LENGTH, SIZE = WRITES * APART, TIMEOUT = 99, TRIES = 40 };

struct bed {
    struct io_uring ring;
    int fd;
    unsigned char *memory; /* SIZE */
};

static void bed_open(struct bed *bed, const struct test_fs *fs)
{
    bed->fd = direct_open(path_in(fs->path, "file"), O_RDWR | O_CREAT);
    bed->memory = buffer_new(SIZE);
    check_that(io_uring_queue_init(2 * WRITES, &bed->ring, 0) == 0, "no ring");
    check_that(pwrite(bed->fd, bed->memory, SIZE, 0) == SIZE, "the file");
}

static void bed_close(struct bed *bed)
{
    io_uring_queue_exit(&bed->ring);
    close(bed->fd);
    buffer_free(bed->memory, SIZE);
}

static struct io_uring_sqe *add_write(struct bed *bed, unsigned i)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&bed->ring);

    io_uring_prep_write(sqe, bed->fd, bed->memory + (size_t)i * LENGTH, LENGTH, (uint64_t)(WRITES - 1 - i) * APART);
    io_uring_sqe_set_data64(sqe, i);
    return sqe;
}

/* @return the result of the entry `wanted`; all others are to be whole writes. */
static int await(struct bed *bed, unsigned count, uint64_t wanted)
{
    struct io_uring_cqe *cqe;
    int result = 0;

    for (; count > 0; count--) {
        check_that(io_uring_wait_cqe(&bed->ring, &cqe) == 0, "wait");
        if (cqe->user_data == wanted)
            result = cqe->res;
        else
            check_that(cqe->res == LENGTH, "a write gave %d", cqe->res);
        io_uring_cqe_seen(&bed->ring, cqe);
    }
    return result;
}

static void each_filesystem(void (*test)(struct bed *bed))
{
    struct test_fs fs[TEST_FS_MAX];

    for (size_t i = 0, count = test_filesystems(fs); i < count; i++) {
        struct bed bed;

        bed_open(&bed, &fs[i]);
        test(&bed);
        bed_close(&bed);
    }
}

/*
 * The kernel counts from when it gets the entry: completions before that would not count. Natively, too, a write that must wait goes to the
 * kernel's workers and may be complete before: on tmpfs now and then, on the others as good as never.
 */
static void count_completions(struct bed *bed)
{
    struct __kernel_timespec time = {.tv_sec = 2};
    const size_t turns = rounds(5, 100);
    unsigned missed = 0;

    for (size_t turn = 0; turn < turns; turn++) {
        for (unsigned i = 0; i < WRITES; i++)
            add_write(bed, i);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&bed->ring);

        io_uring_prep_timeout(sqe, &time, WRITES, 0);
        io_uring_sqe_set_data64(sqe, TIMEOUT);
        check_that(io_uring_submit(&bed->ring) == WRITES + 1, "submit");
        int result = await(bed, WRITES + 1, TIMEOUT);

        check_that(result == 0 || result == -ETIME, "the timeout ended with %d", result);
        missed += result != 0;
    }
    check_that(2 * missed < turns, "%u of %zu timeouts of %d completions missed some", missed, turns, WRITES);
}

START_TEST(timeouts_count_all_that_was_submitted_with_them)
{
    each_filesystem(count_completions);
}
END_TEST

/* Behind one that it refuses the kernel takes nothing. */
static void refuse_one(struct bed *bed)
{
    static const struct {
        unsigned flags;
        int result;
    } refused[] = {{IOSQE_IO_DRAIN, -EOPNOTSUPP}, {1U << 7, -EINVAL}};
    struct io_uring_sqe *sqe = io_uring_get_sqe(&bed->ring);

    io_uring_prep_nop(sqe); /* after a silent entry drains are refused */
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    check_that(io_uring_submit(&bed->ring) == 1, "submit nothing");
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        sqe = add_write(bed, 0);
        sqe->flags |= (uint8_t)refused[i].flags;
        add_write(bed, 1);
        int taken = io_uring_submit(&bed->ring);

        check_that(taken == 1, "flags %x: %d were taken", refused[i].flags, taken);
        check_that(io_uring_submit(&bed->ring) == 1, "submit the other");
        int result = await(bed, 2, 0);

        check_that(result == refused[i].result, "flags %x: %d", refused[i].flags, result);
    }
}

START_TEST(nothing_is_taken_behind_an_entry_that_is_refused)
{
    each_filesystem(refuse_one);
}
END_TEST

/* Shared with the processes at the other ends of the pipes. */
struct signs {
    _Atomic unsigned wanted, done;
    cpu_set_t own, other; /* a processor each: whoever shares one is interrupted in any case */
};

/* @return false: we may not run on two. */
static bool choose_processors(struct signs *signs)
{
    cpu_set_t all;
    int chosen = 0;

    check_that(sched_getaffinity(0, sizeof all, &all) == 0, "no processors");
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && chosen < 2)
            CPU_SET(cpu, chosen++ == 0 ? &signs->own : &signs->other);
    return chosen == 2;
}

static void drain(struct signs *signs, int from)
{
    char bytes[1 << 12];

    (void)signs;
    while (read(from, bytes, sizeof bytes) > 0)
        ;
}

/* A byte for each that is wanted; when it is said to be done, the kernel has told the ring's thread of it. */
static void feed(struct signs *signs, int to)
{
    sched_setaffinity(0, sizeof signs->other, &signs->other);
    for (unsigned given = 0; given < TRIES;) {
        if (atomic_load(&signs->wanted) == given) {
            sched_yield();
            continue;
        }
        if (write(to, "", 1) != 1)
            return;
        atomic_store(&signs->done, ++given);
    }
}

static pid_t start(void (*work)(struct signs *signs, int end), struct signs *signs, const int ends[2], int own)
{
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[!own]);
        work(signs, ends[own]);
        _exit(0);
    }
    check_that(child > 0, "no process");
    close(ends[own]);
    return child;
}

static void ended(pid_t child)
{
    int status;

    check_that(waitpid(child, &status, 0) == child && status == 0, "a child ended with %x", (unsigned)status);
}

/* Let the processor take the interruption that it has been sent. */
static void spin(long nanoseconds)
{
    struct timespec begin, now;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < nanoseconds);
}

/*
 * A completion interrupts the thread that has submitted, and is done with before its next call: work that waits for that call would cut it
 * short (rings with COOP_TASKRUN).
 */
START_TEST(completions_do_not_cut_other_calls_short)
{
    struct signs *signs = mmap(NULL, sizeof(*signs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned char *memory = buffer_new(SIZE);
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    int sink[2], source[2];
    unsigned cut = 0;
    char byte;

    check_that(signs != MAP_FAILED && pipe(sink) == 0 && pipe(source) == 0, "no pipes");
    if (!choose_processors(signs)) {
        test_skip("needs two processors");
        return;
    }
    sched_setaffinity(0, sizeof signs->own, &signs->own);
    pid_t drainer = start(drain, signs, sink, 0), feeder = start(feed, signs, source, 1);

    check_that(io_uring_queue_init(1, &ring, 0) == 0, "no ring");
    for (unsigned i = 1; i <= TRIES; i++) {
        io_uring_prep_read(io_uring_get_sqe(&ring), source[0], &byte, 1, 0);
        check_that(io_uring_submit(&ring) == 1, "submit");
        atomic_store(&signs->wanted, i);
        while (atomic_load(&signs->done) < i)
            ;
        spin(20000);
        cut += write(sink[1], memory, SIZE) != SIZE;
        check_that(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == 1, "wait");
        io_uring_cqe_seen(&ring, cqe);
    }
    io_uring_queue_exit(&ring);
    close(sink[1]);
    ended(drainer);
    ended(feeder);
    check_that(cut <= TRIES / 8, "%u of %d writes to a pipe were cut short", cut, TRIES);
    buffer_free(memory, SIZE);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "io_uring in helpings", 60, NULL,
                        (const TTest *const[]){timeouts_count_all_that_was_submitted_with_them,
                                               nothing_is_taken_behind_an_entry_that_is_refused,
                                               completions_do_not_cut_other_calls_short, NULL});
}
