/*
 * Chains that do not go to their end, or wait, or say nothing: what is not cancelled when its predecessor fails writes rubbish.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/chains.h"

/* --- Chains that break ------------------------------------------------------------------------------------------------ */

/* The head of a chain fails with `error`; behind it a write and a read, which must not happen. */
static void expect_broken(struct scene *scene, int result)
{
    unsigned char before[BLOCK];

    queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, 2 * BLOCK, 0);
    queue_read(scene, 2, 0, scene->source, scene->memory + 4 * BLOCK, BLOCK, 0);
    memcpy(before, scene->memory + 4 * BLOCK, BLOCK);
    submit(scene, 3);
    reap(scene, 3);
    expect(scene, 0, result);
    expect(scene, 1, -ECANCELED);
    expect(scene, 2, -ECANCELED);
    expect_order(scene);
    scene_that(scene, memcmp(before, scene->memory + 4 * BLOCK, BLOCK) == 0, "a cancelled read has read");
    expect_silence(scene);
    expect_target(scene, 0, 0);
    scene_forget(scene);
}

static void broken(struct scene *scene)
{
    queue_read(scene, 0, IOSQE_IO_LINK, -1, scene->memory, 2 * BLOCK, 0);
    expect_broken(scene, -EBADF);
    queue_read(scene, 0, IOSQE_IO_LINK, scene->source, NULL, 2 * BLOCK, 0);
    expect_broken(scene, -EFAULT);
    queue_write(scene, 0, IOSQE_IO_LINK, scene->target, NULL, 2 * BLOCK, 0);
    expect_broken(scene, -EFAULT);
    /* Short: the file ends in the middle of it. */
    queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, 4 * BLOCK, SIZE - 2 * BLOCK);
    expect_broken(scene, 2 * BLOCK);
    queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, BLOCK, SIZE);
    expect_broken(scene, 0);
}

START_TEST(a_chain_whose_head_fails_is_cancelled)
{
    on_each_filesystem(broken);
}
END_TEST

static void broken_late(struct scene *scene)
{
    queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, BLOCK, 0);
    queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 0);
    queue_write(scene, 2, IOSQE_IO_LINK, -1, scene->memory, BLOCK, 0);
    queue_write(scene, 3, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 8 * BLOCK);
    queue_nop(scene, 4, 0);
    submit(scene, 5);
    reap(scene, 5);
    expect(scene, 0, BLOCK);
    expect(scene, 1, BLOCK);
    expect(scene, 2, -EBADF);
    expect(scene, 3, -ECANCELED);
    expect(scene, 4, -ECANCELED);
    expect_silence(scene);
    expect_target(scene, 0, BLOCK);
}

START_TEST(a_chain_that_fails_in_the_middle_is_cancelled_from_there)
{
    on_each_filesystem(broken_late);
}
END_TEST

static void hard(struct scene *scene)
{
    pattern_fill(scene->memory, 2 * BLOCK, SOURCE, 0);
    queue_read(scene, 0, IOSQE_IO_HARDLINK, -1, scene->memory, BLOCK, 0);
    queue_write(scene, 1, IOSQE_IO_HARDLINK, scene->target, scene->memory, 2 * BLOCK, 0);
    queue_read(scene, 2, IOSQE_IO_HARDLINK, scene->source, scene->memory + 4 * BLOCK, 4 * BLOCK, SIZE - BLOCK);
    queue_nop(scene, 3, 0);
    submit(scene, 4);
    reap(scene, 4);
    expect(scene, 0, -EBADF);
    expect(scene, 1, 2 * BLOCK);
    expect(scene, 2, BLOCK);
    expect(scene, 3, 0);
    expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(a_hard_link_goes_on_after_a_failure)
{
    on_each_filesystem(hard);
}
END_TEST

/* --- Timeouts, cancellation, drains ----------------------------------------------------------------------------------- */

static void queue_link_timeout(struct scene *scene, unsigned tag, unsigned flags, struct __kernel_timespec *after)
{
    struct io_uring_sqe *sqe = next(scene, tag, flags);

    io_uring_prep_link_timeout(sqe, after, 0);
    dress(sqe, tag, flags);
}

static void timeouts(struct scene *scene)
{
    struct __kernel_timespec soon = {.tv_nsec = 20000000}, late = {.tv_sec = 3600};

    /* In time: the timeout is cancelled, the chain goes on. */
    queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, 2 * BLOCK, 0);
    queue_link_timeout(scene, 1, IOSQE_IO_LINK, &late);
    queue_write(scene, 2, IOSQE_IO_LINK, scene->target, scene->memory, 2 * BLOCK, 0);
    queue_link_timeout(scene, 3, 0, &late);
    submit(scene, 4);
    reap(scene, 4);
    expect(scene, 0, 2 * BLOCK);
    expect(scene, 1, -ECANCELED);
    expect(scene, 2, 2 * BLOCK);
    expect(scene, 3, -ECANCELED);
    expect_target(scene, 0, 2 * BLOCK);

    /* Too late: what waits behind is cancelled. */
    scene_forget(scene);
    queue_receive(scene, 4, IOSQE_IO_LINK, scene->memory, BLOCK);
    queue_link_timeout(scene, 5, IOSQE_IO_LINK, &soon);
    queue_write(scene, 6, 0, scene->target, scene->memory, BLOCK, 8 * BLOCK);
    submit(scene, 3);
    reap(scene, 3);
    expect(scene, 4, -ECANCELED);
    expect(scene, 5, -ETIME);
    expect(scene, 6, -ECANCELED);
    expect_silence(scene);
    expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(link_timeouts_end_what_takes_too_long)
{
    on_each_filesystem(timeouts);
}
END_TEST

static void cancelled(struct scene *scene)
{
    queue_receive(scene, 0, IOSQE_IO_LINK, scene->memory, BLOCK);
    queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 0);
    queue_nop(scene, 2, 0);
    submit(scene, 3);
    expect_silence(scene);
    struct io_uring_sqe *sqe = next(scene, 3, 0);

    io_uring_prep_cancel64(sqe, 0, 0);
    dress(sqe, 3, 0);
    submit(scene, 1);
    reap(scene, 4);
    expect(scene, 0, -ECANCELED);
    expect(scene, 1, -ECANCELED);
    expect(scene, 2, -ECANCELED);
    expect(scene, 3, 0);
    expect_silence(scene);
    expect_target(scene, 0, 0);
}

START_TEST(a_chain_whose_head_is_cancelled_is_cancelled)
{
    on_each_filesystem(cancelled);
}
END_TEST

static void drained(struct scene *scene)
{
    queue_receive(scene, 0, 0, scene->memory, 2 * BLOCK);
    queue_write(scene, 1, IOSQE_IO_DRAIN, scene->target, scene->memory, 2 * BLOCK, 4 * BLOCK);
    queue_read(scene, 2, IOSQE_IO_DRAIN, scene->target, scene->memory + 8 * BLOCK, 2 * BLOCK, 4 * BLOCK);
    queue_nop(scene, 3, 0);
    submit(scene, 4);
    expect_silence(scene);
    send_pattern(scene, 2 * BLOCK, 4 * BLOCK);
    reap(scene, 4);
    expect(scene, 0, 2 * BLOCK);
    expect(scene, 1, 2 * BLOCK);
    expect(scene, 2, 2 * BLOCK);
    expect(scene, 3, 0);
    expect_order(scene);
    scene_that(scene, pattern_check(scene->memory + 8 * BLOCK, 2 * BLOCK, SOURCE, 4 * BLOCK) == 2 * BLOCK,
               "the drained read has read something else");
    expect_target(scene, 4 * BLOCK, 6 * BLOCK);
}

START_TEST(drained_requests_wait_for_all_before_them)
{
    on_each_filesystem(drained);
}
END_TEST

/* --- Completions that nobody wants -------------------------------------------------------------------------------------- */

static void skipped(struct scene *scene)
{
    unsigned silent = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;

    queue_read(scene, 0, silent, scene->source, scene->memory, BLOCK, 0);
    queue_write(scene, 1, silent, scene->target, scene->memory, BLOCK, 0);
    queue_read(scene, 2, 0, scene->source, scene->memory, BLOCK, BLOCK);
    submit(scene, 3);
    reap(scene, 1);
    expect(scene, 2, BLOCK);
    expect_silence(scene);
    expect_target(scene, 0, BLOCK);

    /* All of it silent: only the file tells. */
    scene_forget(scene);
    queue_read(scene, 0, silent, scene->source, scene->memory, BLOCK, BLOCK);
    queue_write(scene, 1, IOSQE_CQE_SKIP_SUCCESS, scene->target, scene->memory, BLOCK, BLOCK);
    submit(scene, 2);
    expect_silence(scene);
    expect_target(scene, 0, 2 * BLOCK);

    /* The failure of a silent request is told, and the rest of its chain says nothing. */
    scene_forget(scene);
    queue_read(scene, 3, silent, -1, scene->memory, BLOCK, 0);
    queue_write(scene, 4, silent, scene->target, scene->memory, BLOCK, 16 * BLOCK);
    queue_nop(scene, 5, 0);
    submit(scene, 3);
    reap(scene, 1);
    expect(scene, 3, -EBADF);
    expect_silence(scene);
    expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(silent_requests_are_silent_until_they_fail)
{
    on_each_filesystem(skipped);
}
END_TEST

/* --- Leaving ------------------------------------------------------------------------------------------------------------ */

static void left_waiting(struct scene *scene)
{
    int64_t begin = async_now();

    queue_receive(scene, 0, IOSQE_IO_LINK, scene->memory, BLOCK);
    queue_write(scene, 1, 0, scene->target, scene->memory, BLOCK, 0);
    submit(scene, 2);
    io_uring_queue_exit(&scene->ring);
    scene_that(scene, async_now() - begin < ASYNC_PATIENCE, "leaving takes too long");
    expect_target(scene, 0, 0);
    check_that(io_uring_queue_init(DEPTH, &scene->ring, 0) == 0, "no ring");
}

START_TEST(a_ring_is_left_with_a_chain_waiting)
{
    on_each_filesystem(left_waiting);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_chain_whose_head_fails_is_cancelled,
                                  a_chain_that_fails_in_the_middle_is_cancelled_from_there,
                                  a_hard_link_goes_on_after_a_failure,
                                  link_timeouts_end_what_takes_too_long,
                                  a_chain_whose_head_is_cancelled_is_cancelled,
                                  drained_requests_wait_for_all_before_them,
                                  silent_requests_are_silent_until_they_fail,
                                  a_ring_is_left_with_a_chain_waiting,
                                  NULL};

    return support_main(argc, argv, "chains that break", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, NULL, tests);
}
