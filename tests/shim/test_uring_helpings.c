/*
 * What a program submits by one call goes to the kernel in helpings (engine/helping.h), which nobody is to notice but by the time: not who counts
 * completions, nor who is refused, nor another call of the same thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { WRITES = 16, LENGTH = 16 << 10, APART = 4 * LENGTH, SIZE = WRITES * APART, TIMEOUT = 99 };

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

/* Work of the ring's that waits for the thread's next call would cut that call short. */
static void write_to_pipe(struct bed *bed)
{
    enum { TRIES = 40, ALLOWED = 12 }; /* natively a completion that comes in the middle does so, too */
    int ends[2], status;
    unsigned cut = 0;

    check_that(pipe(ends) == 0, "no pipe");
    pid_t child = fork();

    if (child == 0) {
        static char bytes[1 << 16];

        close(ends[1]);
        while (read(ends[0], bytes, sizeof bytes) > 0)
            ;
        _exit(0);
    }
    close(ends[0]);
    for (unsigned i = 0; i < TRIES; i++) {
        struct timespec begin, now;

        add_write(bed, i % WRITES);
        check_that(io_uring_submit(&bed->ring) == 1, "submit");
        clock_gettime(CLOCK_MONOTONIC, &begin);
        do
            clock_gettime(CLOCK_MONOTONIC, &now);
        while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 1000000);
        cut += write(ends[1], bed->memory, SIZE) != SIZE;
        await(bed, 1, TIMEOUT);
    }
    close(ends[1]);
    check_that(waitpid(child, &status, 0) == child && status == 0, "the reader");
    check_that(cut <= ALLOWED, "%u of %u writes to a pipe were cut short", cut, TRIES);
}

START_TEST(completions_do_not_cut_other_calls_short)
{
    each_filesystem(write_to_pipe);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "io_uring in helpings", 60, NULL,
                        (const TTest *const[]){timeouts_count_all_that_was_submitted_with_them,
                                               nothing_is_taken_behind_an_entry_that_is_refused,
                                               completions_do_not_cut_other_calls_short, NULL});
}
