/*
 * Links and drains: a request that waits for another one uses memory that the other one fills. What is copied too early is stale.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/chains.h"

/* --- READ linked to WRITE -------------------------------------------------------------------------------------------- */

/* Copy by pairs of a read and a write of what it brings; each of eight places in memory belongs to one pair at a time. */
static void copy_by_pairs(struct chain_scene *scene, unsigned read_flags, unsigned write_flags)
{
    enum { PAIRS = 8, LENGTH = SIZE / 2 / PAIRS };
    struct bounceio_stats before = counters();

    direct_write(scene->target, TARGET, 0, SIZE);
    for (unsigned half = 0; half < 2; half++) {
        chain_forget(scene);
        for (unsigned i = 0; i < PAIRS; i++) {
            unsigned char *place = scene->memory + (size_t)i * LENGTH;
            uint64_t at = (half * PAIRS + i) * LENGTH;

            chain_queue_read(scene, 2 * i, read_flags, scene->source, place, LENGTH, at);
            chain_queue_write(scene, 2 * i + 1, write_flags, scene->target, place, LENGTH, at);
        }
        chain_submit(scene, 2 * PAIRS);
        chain_reap(scene, 2 * PAIRS);
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            chain_expect(scene, i, LENGTH);
    }
    chain_expect_silence(scene);
    chain_expect_target(scene, 0, SIZE);
    if (counting())
        scene_that(scene, counters().passed_through == before.passed_through, "requests passed through");
}

static void copied(struct chain_scene *scene)
{
    for (size_t turn = 0; turn < rounds(5, 100); turn++) {
        copy_by_pairs(scene, IOSQE_IO_LINK, 0);
        copy_by_pairs(scene, IOSQE_IO_HARDLINK, 0);
        copy_by_pairs(scene, 0, IOSQE_IO_DRAIN);
        copy_by_pairs(scene, IOSQE_IO_LINK | IOSQE_ASYNC, IOSQE_ASYNC);
    }
}

START_TEST(a_read_linked_to_a_write_copies)
{
    chain_on_each_filesystem(copied);
}
END_TEST

/* The same with registered files and buffers. */
static void copied_registered(struct chain_scene *scene)
{
    enum { LENGTH = 4 * BLOCK };
    const int files[] = {scene->source, scene->target};
    struct iovec buffer = {scene->memory, SIZE};

    check_that(io_uring_register_files(&scene->ring, files, 2) == 0, "register files");
    check_that(io_uring_register_buffers(&scene->ring, &buffer, 1) == 0, "register buffers");
    for (unsigned i = 0; i < 16; i++) {
        unsigned char *place = scene->memory + (size_t)i * LENGTH;
        struct io_uring_sqe *sqe = chain_next(scene, 2 * i, 0);

        io_uring_prep_read_fixed(sqe, 0, place, LENGTH, i * LENGTH, 0);
        chain_dress(sqe, 2 * i, IOSQE_IO_LINK | IOSQE_FIXED_FILE);
        sqe = chain_next(scene, 2 * i + 1, 0);
        io_uring_prep_write_fixed(sqe, 1, place, LENGTH, i * LENGTH, 0);
        chain_dress(sqe, 2 * i + 1, IOSQE_FIXED_FILE);
    }
    chain_submit(scene, 32);
    chain_reap(scene, 32);
    for (unsigned i = 0; i < 32; i++)
        chain_expect(scene, i, LENGTH);
    chain_expect_target(scene, 0, SIZE);
}

START_TEST(a_registered_read_linked_to_a_write_copies)
{
    chain_on_each_filesystem(copied_registered);
}
END_TEST

/* --- READ linked to SEND, RECV to WRITE -------------------------------------------------------------------------------- */

static void sent(struct chain_scene *scene)
{
    for (unsigned i = 0; i < 16; i++) {
        chain_forget(scene);
        chain_queue_read(scene, 0, IOSQE_IO_LINK, scene->source, scene->memory, 4 * BLOCK, i * 4 * BLOCK);
        chain_queue_send(scene, 1, 0, scene->memory, 4 * BLOCK);
        chain_submit(scene, 2);
        chain_reap(scene, 2);
        chain_expect(scene, 0, 4 * BLOCK);
        chain_expect(scene, 1, 4 * BLOCK);
        chain_expect_received(scene, 4 * BLOCK, i * 4 * BLOCK);
    }
}

START_TEST(a_read_linked_to_a_send_sends_what_was_read)
{
    chain_on_each_filesystem(sent);
}
END_TEST

static void received(struct chain_scene *scene)
{
    chain_queue_receive(scene, 0, IOSQE_IO_LINK, scene->memory, 4 * BLOCK);
    chain_queue_write(scene, 1, 0, scene->target, scene->memory, 4 * BLOCK, 8 * BLOCK);
    chain_submit(scene, 2);
    chain_expect_silence(scene);

    /* Others do not wait for them. */
    chain_queue_read(scene, 2, 0, scene->source, scene->memory + 8 * BLOCK, BLOCK, 0);
    chain_queue_nop(scene, 3, 0);
    chain_submit(scene, 2);
    chain_reap(scene, 2);
    chain_expect(scene, 2, BLOCK);
    chain_expect(scene, 3, 0);
    chain_expect_target(scene, 8 * BLOCK, 8 * BLOCK);

    chain_send_pattern(scene, 4 * BLOCK, 8 * BLOCK);
    chain_reap(scene, 2);
    chain_expect(scene, 0, 4 * BLOCK);
    chain_expect(scene, 1, 4 * BLOCK);
    chain_expect_target(scene, 8 * BLOCK, 12 * BLOCK);
}

START_TEST(a_receive_linked_to_a_write_writes_what_was_received)
{
    chain_on_each_filesystem(received);
}
END_TEST

/* --- What fails, and breaks no link ------------------------------------------------------------------------------------ */

/* A directory that there is. What becomes of a request that touches no file the kernel decides alone. */
static void refused_directory(struct chain_scene *scene)
{
    for (unsigned flags = 0; flags < 2; flags++) {
        for (unsigned i = 0; i < 4; i += 2) {
            struct io_uring_sqe *sqe = chain_next(scene, i, 0);

            io_uring_prep_mkdirat(sqe, AT_FDCWD, "/", 0700);
            chain_dress(sqe, i, IOSQE_IO_LINK | (flags ? IOSQE_ASYNC : 0));
            if (i == 0)
                chain_queue_nop(scene, i + 1, 0);
            else
                chain_queue_write(scene, i + 1, 0, scene->target, scene->memory, BLOCK, 0);
        }
        chain_submit(scene, 4);
        chain_reap(scene, 4);
        scene_that(scene, scene->results[0] == -EEXIST && scene->results[2] == -EEXIST, "the refusal is %d, then %d",
                   scene->results[0], scene->results[2]);
        chain_expect(scene, 3, scene->results[1] < 0 ? scene->results[1] : BLOCK);
        chain_forget(scene);
    }
}

START_TEST(a_link_holds_where_the_kernel_lets_it)
{
    chain_on_each_filesystem(refused_directory);
}
END_TEST

/* Nobody calls anything that submits while the chain goes on. */
static void long_chain(struct chain_scene *scene)
{
    unsigned char *a = scene->memory, *b = a + 8 * BLOCK, *c = b + 8 * BLOCK;

    chain_queue_receive(scene, 0, IOSQE_IO_LINK, a, 2 * BLOCK);
    chain_queue_write(scene, 1, IOSQE_IO_LINK, scene->target, a, 2 * BLOCK, 4 * BLOCK);
    chain_queue_read(scene, 2, IOSQE_IO_LINK, scene->target, b, 2 * BLOCK, 4 * BLOCK);
    chain_queue_write(scene, 3, IOSQE_IO_LINK, scene->source, b, 2 * BLOCK, 4 * BLOCK);
    chain_queue_read(scene, 4, IOSQE_IO_LINK, scene->source, c, 2 * BLOCK, 4 * BLOCK);
    chain_queue_send(scene, 5, 0, c, 2 * BLOCK);
    chain_submit(scene, 6);
    chain_expect_silence(scene);
    chain_send_pattern(scene, 2 * BLOCK, 4 * BLOCK);
    chain_reap(scene, 6);
    for (unsigned i = 0; i < 6; i++)
        chain_expect(scene, i, 2 * BLOCK);
    chain_expect_order(scene);
    chain_expect_received(scene, 2 * BLOCK, 4 * BLOCK);
    chain_expect_target(scene, 4 * BLOCK, 6 * BLOCK);
}

START_TEST(a_long_chain_runs_in_its_order)
{
    chain_on_each_filesystem(long_chain);
}
END_TEST

/* --- Many at once ------------------------------------------------------------------------------------------------------- */

/* Each chain belongs to one piece of the target: read, write, read back elsewhere, then the pieces are compared. */
static void many(struct chain_scene *scene)
{
    enum { CHAINS = 16, LENGTH = SIZE / CHAINS };
    struct random random = {random_run_seed()};
    unsigned char *mirror = buffer_new(SIZE);

    for (size_t turn = 0; turn < rounds(20, 1000); turn++) {
        direct_write(scene->target, TARGET, 0, SIZE);
        chain_forget(scene);
        unsigned queued = 0;

        for (unsigned i = 0; i < CHAINS; i++) {
            unsigned char *place = scene->memory + (size_t)i * LENGTH;
            unsigned link = random_chance(&random, 50) ? IOSQE_IO_LINK : IOSQE_IO_HARDLINK;
            unsigned drain = random_chance(&random, 10) ? IOSQE_IO_DRAIN : 0;
            uint64_t at = i * LENGTH;

            chain_queue_read(scene, 3 * i, link | drain, scene->source, place, LENGTH, at);
            chain_queue_write(scene, 3 * i + 1, link, scene->target, place, LENGTH, at);
            chain_queue_read(scene, 3 * i + 2, 0, scene->target, mirror + at, LENGTH, at);
            queued += 3;
            if (random_chance(&random, 30)) {
                chain_submit(scene, (int)queued);
                queued = 0;
            }
        }
        if (queued)
            chain_submit(scene, (int)queued);
        chain_reap(scene, 3 * CHAINS);
        for (unsigned i = 0; i < 3 * CHAINS; i++)
            chain_expect(scene, i, LENGTH);
        scene_that(scene, pattern_check(mirror, SIZE, SOURCE, 0) == SIZE, "what was read back in turn %zu", turn);
        scene_that(scene, content_is(scene->target_path, SOURCE, SIZE), "the target after turn %zu", turn);
    }
    buffer_free(mirror, SIZE);
    chain_expect_target(scene, 0, SIZE);
}

START_TEST(many_chains_at_once)
{
    chain_on_each_filesystem(many);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_read_linked_to_a_write_copies,
                                  a_registered_read_linked_to_a_write_copies,
                                  a_read_linked_to_a_send_sends_what_was_read,
                                  a_receive_linked_to_a_write_writes_what_was_received,
                                  a_link_holds_where_the_kernel_lets_it,
                                  a_long_chain_runs_in_its_order,
                                  many_chains_at_once,
                                  NULL};

    return support_main(argc, argv, "links", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, NULL, tests);
}
