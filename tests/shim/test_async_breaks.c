/*
 * Chains that do not go to their end, or wait, or say nothing: what is not cancelled when its predecessor fails writes rubbish.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/chains.h"

/* --- Chains that break ------------------------------------------------------------------------------------------------ */

/* The head of a chain fails with `error`; behind it a write and a read, which must not happen. */
static void expect_broken(struct chain_scene *scene, int result)
{
    unsigned char before[BLOCK];

    chain_queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, 2 * BLOCK, 0);
    chain_queue_read(scene, 2, 0, scene->source, scene->memory + 4 * BLOCK, BLOCK, 0);
    memcpy(before, scene->memory + 4 * BLOCK, BLOCK);
    chain_submit(scene, 3);
    chain_reap(scene, 3);
    chain_expect(scene, 0, result);
    chain_expect(scene, 1, -ECANCELED);
    chain_expect(scene, 2, -ECANCELED);
    chain_expect_order(scene);
    scene_that(scene, memcmp(before, scene->memory + 4 * BLOCK, BLOCK) == 0, "a cancelled read has read");
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, 0);
    chain_forget(scene);
}

static void broken(struct chain_scene *scene)
{
    chain_queue_read(scene, 0, IOSQE_IO_LINK, -1, scene->memory, 2 * BLOCK, 0);
    expect_broken(scene, -EBADF);
    chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, NULL, 2 * BLOCK, 0);
    expect_broken(scene, -EFAULT);
    chain_queue_write(scene, 0, IOSQE_IO_LINK, scene->target, NULL, 2 * BLOCK, 0);
    expect_broken(scene, -EFAULT);
    /* Short: the file ends in the middle of it. */
    chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, 4 * BLOCK, SIZE - 2 * BLOCK);
    expect_broken(scene, 2 * BLOCK);
    chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, BLOCK, SIZE);
    expect_broken(scene, 0);
}

START_TEST(a_chain_whose_head_fails_is_cancelled)
{
    chain_on_each_filesystem(broken);
}
END_TEST

static void broken_late(struct chain_scene *scene)
{
    chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 2, IOSQE_IO_LINK, -1, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 3, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 8 * BLOCK);
    chain_queue_nop(scene, 4, 0);
    chain_submit(scene, 5);
    chain_reap(scene, 5);
    chain_expect(scene, 0, BLOCK);
    chain_expect(scene, 1, BLOCK);
    chain_expect(scene, 2, -EBADF);
    chain_expect(scene, 3, -ECANCELED);
    chain_expect(scene, 4, -ECANCELED);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, BLOCK);
}

START_TEST(a_chain_that_fails_in_the_middle_is_cancelled_from_there)
{
    chain_on_each_filesystem(broken_late);
}
END_TEST

static void hard(struct chain_scene *scene)
{
    pattern_fill(scene->memory, 2 * BLOCK, SOURCE, 0);
    chain_queue_read(scene, 0, IOSQE_IO_HARDLINK, -1, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 1, IOSQE_IO_HARDLINK, scene->target, scene->memory, 2 * BLOCK, 0);
    chain_queue_read(scene, 2, IOSQE_IO_HARDLINK, scene->source, scene->memory + 4 * BLOCK, 4 * BLOCK, SIZE - BLOCK);
    chain_queue_nop(scene, 3, 0);
    chain_submit(scene, 4);
    chain_reap(scene, 4);
    chain_expect(scene, 0, -EBADF);
    chain_expect(scene, 1, 2 * BLOCK);
    chain_expect(scene, 2, BLOCK);
    chain_expect(scene, 3, 0);
    chain_expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(a_hard_link_goes_on_after_a_failure)
{
    chain_on_each_filesystem(hard);
}
END_TEST

/* --- Timeouts, cancellation, drains ----------------------------------------------------------------------------------- */

static void queue_link_timeout(struct chain_scene *scene, unsigned tag, unsigned flags, struct __kernel_timespec *after)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_link_timeout(sqe, after, 0);
    chain_dress(sqe, tag, flags);
}

static void timeouts(struct chain_scene *scene)
{
    struct __kernel_timespec soon = {.tv_nsec = 20000000}, late = {.tv_sec = 3600};

    /* In time: the timeout is cancelled, the chain goes on. */
    chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, 2 * BLOCK, 0);
    queue_link_timeout(scene, 1, IOSQE_IO_LINK, &late);
    chain_queue_write(scene, 2, IOSQE_IO_LINK, scene->target, scene->memory, 2 * BLOCK, 0);
    queue_link_timeout(scene, 3, 0, &late);
    chain_submit(scene, 4);
    chain_reap(scene, 4);
    chain_expect(scene, 0, 2 * BLOCK);
    chain_expect(scene, 1, -ECANCELED);
    chain_expect(scene, 2, 2 * BLOCK);
    chain_expect(scene, 3, -ECANCELED);
    chain_expect_target(scene, 0, 2 * BLOCK);

    /* Too late: what waits behind is cancelled. */
    chain_forget(scene);
    chain_queue_receive(scene, 4, IOSQE_IO_LINK, scene->memory, BLOCK);
    queue_link_timeout(scene, 5, IOSQE_IO_LINK, &soon);
    chain_queue_write(scene, 6, 0, scene->target, scene->memory, BLOCK, 8 * BLOCK);
    chain_submit(scene, 3);
    chain_reap(scene, 3);
    chain_expect(scene, 4, -ECANCELED);
    chain_expect(scene, 5, -ETIME);
    chain_expect(scene, 6, -ECANCELED);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(link_timeouts_end_what_takes_too_long)
{
    chain_on_each_filesystem(timeouts);
}
END_TEST

static void cancelled(struct chain_scene *scene)
{
    chain_queue_receive(scene, 0, IOSQE_IO_LINK, scene->memory, BLOCK);
    chain_queue_write(scene, 1, IOSQE_IO_LINK, scene->target, scene->memory, BLOCK, 0);
    chain_queue_nop(scene, 2, 0);
    chain_submit(scene, 3);
    chain_expect_silence(scene);
    struct io_uring_sqe *sqe = chain_next(scene, 3, 0);

    io_uring_prep_cancel64(sqe, 0, 0);
    chain_dress(sqe, 3, 0);
    chain_submit(scene, 1);
    chain_reap(scene, 4);
    chain_expect(scene, 0, -ECANCELED);
    chain_expect(scene, 1, -ECANCELED);
    chain_expect(scene, 2, -ECANCELED);
    chain_expect(scene, 3, 0);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, 0);
}

START_TEST(a_chain_whose_head_is_cancelled_is_cancelled)
{
    chain_on_each_filesystem(cancelled);
}
END_TEST

static void drained(struct chain_scene *scene)
{
    chain_queue_receive(scene, 0, 0, scene->memory, 2 * BLOCK);
    chain_queue_write(scene, 1, IOSQE_IO_DRAIN, scene->target, scene->memory, 2 * BLOCK, 4 * BLOCK);
    chain_queue_read(scene, 2, IOSQE_IO_DRAIN, scene->target, scene->memory + 8 * BLOCK, 2 * BLOCK, 4 * BLOCK);
    chain_queue_nop(scene, 3, 0);
    chain_submit(scene, 4);
    chain_expect_silence(scene);
    chain_send_pattern(scene, 2 * BLOCK, 4 * BLOCK);
    chain_reap(scene, 4);
    chain_expect(scene, 0, 2 * BLOCK);
    chain_expect(scene, 1, 2 * BLOCK);
    chain_expect(scene, 2, 2 * BLOCK);
    chain_expect(scene, 3, 0);
    chain_expect_order(scene);
    scene_that(scene, pattern_check(scene->memory + 8 * BLOCK, 2 * BLOCK, SOURCE, 4 * BLOCK) == 2 * BLOCK,
               "the drained read has read something else");
    chain_expect_target(scene, 4 * BLOCK, 6 * BLOCK);
}

START_TEST(drained_requests_wait_for_all_before_them)
{
    chain_on_each_filesystem(drained);
}
END_TEST

/* --- Completions that nobody wants -------------------------------------------------------------------------------------- */

static void skipped(struct chain_scene *scene)
{
    unsigned silent = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;

    chain_queue_read(scene, 0, silent, scene->source, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 1, silent, scene->target, scene->memory, BLOCK, 0);
    chain_queue_read(scene, 2, 0, scene->source, scene->memory, BLOCK, BLOCK);
    chain_submit(scene, 3);
    chain_reap(scene, 1);
    chain_expect(scene, 2, BLOCK);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, BLOCK);

    /* All of it silent: only the file tells. */
    chain_forget(scene);
    chain_queue_read(scene, 0, silent, scene->source, scene->memory, BLOCK, BLOCK);
    chain_queue_write(scene, 1, IOSQE_CQE_SKIP_SUCCESS, scene->target, scene->memory, BLOCK, BLOCK);
    chain_submit(scene, 2);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, 2 * BLOCK);

    /* The failure of a silent request is told, and the rest of its chain says nothing. */
    chain_forget(scene);
    chain_queue_read(scene, 3, silent, -1, scene->memory, BLOCK, 0);
    chain_queue_write(scene, 4, silent, scene->target, scene->memory, BLOCK, 16 * BLOCK);
    chain_queue_nop(scene, 5, 0);
    chain_submit(scene, 3);
    chain_reap(scene, 1);
    chain_expect(scene, 3, -EBADF);
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, 2 * BLOCK);
}

START_TEST(silent_requests_are_silent_until_they_fail)
{
    chain_on_each_filesystem(skipped);
}
END_TEST

/* --- Leaving ------------------------------------------------------------------------------------------------------------ */

static void left_waiting(struct chain_scene *scene)
{
    int64_t begin = async_now();

    chain_queue_receive(scene, 0, IOSQE_IO_LINK, scene->memory, BLOCK);
    chain_queue_write(scene, 1, 0, scene->target, scene->memory, BLOCK, 0);
    chain_submit(scene, 2);
    io_uring_queue_exit(&scene->ring);
    scene_that(scene, async_now() - begin < ASYNC_PATIENCE, "leaving takes too long");
    chain_expect_target(scene, 0, 0);
    check_that(io_uring_queue_init(DEPTH, &scene->ring, 0) == 0, "no ring");
}

START_TEST(a_ring_is_left_with_a_chain_waiting)
{
    chain_on_each_filesystem(left_waiting);
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
