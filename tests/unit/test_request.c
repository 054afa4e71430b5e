/*
 * Asynchronous requests: what is issued, what the program is told, what the map says afterwards, and that nothing stays held. The test is the
 * front: it makes the system calls.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "bounce/pool.h"
#include "engine/request.h"
#include "support/request_fixture.h"
#include "support/support.h"

enum { BLOCKS = 16, LENGTH = BLOCKS * BLOCK };

static struct scene scene;
static struct request request;
static char *memory;

static void open_scene(int flags)
{
    scene_open(&scene, flags);
    memory = buffer_new(LENGTH);
}

/* ---- writes ---- */

START_TEST(a_write_lands_as_it_was_when_it_was_prepared)
{
    open_scene(O_RDWR);
    const struct holdings before = holdings_of(&scene);
    pattern_fill(memory, LENGTH, 1, 0);
    struct request_call call = writing(memory, LENGTH, 0);
    request_ready(&request, scene.fd, &call);
    memset(memory, 'x', LENGTH); /* the program uses its buffer for something else */
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), LENGTH);
    holdings_check(&scene, &before);
    ck_assert_uint_eq(read_behind(scene.fixture.path, memory, LENGTH, 0), LENGTH);
    ck_assert_uint_eq(pattern_check(memory, LENGTH, 1, 0), LENGTH);
    for (uint64_t block = 0; block < BLOCKS; block++)
        ck_assert_words(scene.map, block, pattern_sum(1, block), WORD_IDLE);
}
END_TEST

START_TEST(until_it_is_complete_others_see_a_write_in_flight)
{
    open_scene(O_RDWR);
    const struct holdings before = holdings_of(&scene);
    pattern_fill(memory, BLOCK, 1, 0);
    struct request_call call = writing(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_words(scene.map, 0, WORD_UNKNOWN, pattern_sum(1, 0));
    ck_assert_uint_eq(holdings_of(&scene).flights, before.flights + 1);
    ck_assert(flight_any_in(scene.map->id, 0, 1));
    request_cancel(&request);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(a_write_is_one_request_whatever_its_length)
{
    const size_t length = 9 << 20; /* more than the largest extent of the pool */
    open_scene(O_RDWR);
    const struct holdings before = holdings_of(&scene);
    char *large = buffer_new(length);
    pattern_fill(large, length, 2, 0);
    struct request_call call = writing(large, length, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_uint_eq(request.length, length);
    ssize_t result = request_carry_out(&request, scene.fd);
    ck_assert_int_eq(request_complete(&request, result), (int64_t)length);
    holdings_check(&scene, &before);
    for (uint64_t block = 0; block < length / BLOCK; block += 100)
        ck_assert_words(scene.map, block, pattern_sum(2, block), WORD_IDLE);
    call.flags = RWF_NOWAIT;
    ck_assert_int_eq(request_ask(&request, scene.fd, &call), -EAGAIN);
    holdings_check(&scene, &before);
    buffer_free(large, length);
}
END_TEST

START_TEST(a_write_that_is_refused_leaves_the_checksums_standing)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 3, 2);
    const struct holdings before = holdings_of(&scene);
    pattern_fill(memory, 2 * BLOCK, 4, 0);
    struct request_call call = writing(memory, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_int_eq(request_complete(&request, -EINVAL), -EINVAL);
    request_ready(&request, scene.fd, &call);
    request_cancel(&request);
    holdings_check(&scene, &before);
    ck_assert_words(scene.map, 0, pattern_sum(3, 0), WORD_IDLE);
    ck_assert_words(scene.map, 1, pattern_sum(3, 1), WORD_IDLE);
}
END_TEST

START_TEST(a_write_that_fails_or_ends_early_is_unknown_from_there_on)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 3, 4);
    pattern_fill(memory, 4 * BLOCK, 4, 0);
    struct request_call call = writing(memory, 4 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, 2 * BLOCK), 2 * BLOCK);
    ck_assert_words(scene.map, 1, pattern_sum(4, 1), WORD_IDLE);
    ck_assert_words(scene.map, 2, WORD_UNKNOWN, WORD_IDLE);
    request_ready(&request, scene.fd, &call);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, -ENOSPC), -ENOSPC);
    for (uint64_t block = 0; block < 4; block++)
        ck_assert_words(scene.map, block, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

/* ---- reads ---- */

START_TEST(a_large_read_goes_through_pages_and_is_verified)
{
    open_scene(O_RDWR);
    scene.file->is_in_memory = false;
    scene_fill(&scene, 5, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    const uint64_t verified = stats_get(STAT_blocks_verified), bounced = stats_get(STAT_bytes_bounced);
    struct request_call call = reading(memory, LENGTH, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert(!request.in_place && request.data != memory);
    ssize_t result = request_carry_out(&request, scene.fd);
    ck_assert_uint_ne(pattern_check(memory, LENGTH, 5, 0), LENGTH); /* nothing before it is complete */
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), LENGTH);
    ck_assert_uint_eq(pattern_check(memory, LENGTH, 5, 0), LENGTH);
    ck_assert_uint_eq(stats_get(STAT_blocks_verified), verified + BLOCKS);
    ck_assert_uint_eq(stats_get(STAT_bytes_bounced), bounced + LENGTH);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(a_small_aligned_read_goes_in_place_and_is_verified)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 5, 4);
    scene.file->is_in_memory = false;
    const uint64_t verified = stats_get(STAT_blocks_verified), in_place = stats_get(STAT_bytes_in_place);
    struct request_call call = reading(memory, 2 * BLOCK, 2 * BLOCK);
    request_ready(&request, scene.fd, &call);
    ck_assert(request.in_place && request.data == memory);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, request_carry_out(&request, scene.fd)), 2 * BLOCK);
    ck_assert_uint_eq(stats_get(STAT_blocks_verified), verified + 2);
    ck_assert_uint_eq(stats_get(STAT_bytes_in_place), in_place + 2 * BLOCK);
    call = reading(memory, 3 * BLOCK, BLOCK);
    request_ready(&request, scene.fd, &call);
    ck_assert(!request.in_place);
    request_cancel(&request);
}
END_TEST

START_TEST(where_no_device_is_to_reach_memory_every_aligned_read_goes_in_place)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 5, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    const uint64_t verified = stats_get(STAT_blocks_verified);
    struct request_call call = reading(memory, LENGTH, 0);
    scene.file->is_in_memory = true;
    request_ready(&request, scene.fd, &call);
    ck_assert(request.in_place && request.data == memory);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, request_carry_out(&request, scene.fd)), LENGTH);
    ck_assert_uint_eq(pattern_check(memory, LENGTH, 5, 0), LENGTH);
    ck_assert_uint_eq(stats_get(STAT_blocks_verified), verified + BLOCKS);
    call = reading(memory + 1, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert(!request.in_place);
    request_cancel(&request);
    atomic_store(&scene.file->suspicions, 1000);
    call = reading(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert(!request.in_place);
    request_cancel(&request);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(a_buffer_changed_after_a_read_in_place_is_read_again)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 5, 1);
    const uint64_t mismatches = stats_get(STAT_mismatches), suspicions = stats_get(STAT_suspicions);
    struct request_call call = reading(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    memory[77] ^= 1; /* the program does not wait for its completion */
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    ck_assert_uint_eq(pattern_check(memory, BLOCK, 5, 0), BLOCK);
    ck_assert_uint_eq(stats_get(STAT_suspicions), suspicions + 1);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    call.flags = RWF_NOWAIT;
    request_ready(&request, scene.fd, &call);
    result = request_carry_out(&request, scene.fd);
    ck_assert(result == BLOCK || result == -EAGAIN);
    request_cancel(&request);
}
END_TEST

START_TEST(damage_is_told_in_place_and_through_pages)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 5, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    flip_bit_behind(scene.fixture.path, 3 * BLOCK + 100, 3);
    const uint64_t mismatches = stats_get(STAT_mismatches);
    struct request_call small = reading(memory, BLOCK, 3 * BLOCK), large = reading(memory, LENGTH, 0);
    ck_assert_int_eq(request_whole(scene.fd, &small), -EIO);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches + 1);
    ck_assert_int_eq(request_whole(scene.fd, &large), -EIO);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches + 2);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(the_end_of_the_file_ends_a_read_inside_a_block)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 6, 2);
    ck_assert_int_eq(truncate(scene.fixture.path, BLOCK + 1024), 0);
    words_set(scene.map, 1, WORD_UNKNOWN, WORD_IDLE);
    struct request_call call = reading(memory, 4 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), BLOCK + 1024);
    ck_assert_uint_eq(pattern_check(memory, BLOCK + 1024, 6, 0), BLOCK + 1024);
    call = reading(memory + 1, 4 * BLOCK, 0); /* unaligned memory: through pages */
    ck_assert_int_eq(request_whole(scene.fd, &call), BLOCK + 1024);
    call = reading(memory, BLOCK, 4 * BLOCK);
    ck_assert_int_eq(request_whole(scene.fd, &call), 0);
}
END_TEST

START_TEST(blocks_cut_off_behind_the_shim_s_back_are_missed)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 6, 4);
    truncate_behind(scene.fixture.path, 2 * BLOCK);
    struct request_call call = reading(memory, 4 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), -EIO);
}
END_TEST

/* ---- bad memory ---- */

START_TEST(a_write_from_bad_memory_fails_and_leaves_the_file_alone)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 7, 2);
    const struct holdings before = holdings_of(&scene);
    char *bad = memory + LENGTH; /* the inaccessible page behind it */
    struct request_call call = writing(bad, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert(request.bad_memory && request.data != bad && (request.flags & RWF_NOWAIT));
    ck_assert_int_eq(request_complete(&request, request_carry_out(&request, scene.fd)), -EFAULT);
    ck_assert_words(scene.map, 0, pattern_sum(7, 0), WORD_IDLE);
    call = writing(bad, BLOCK, 64 * BLOCK); /* beyond the end: ext4 would make the file longer */
    ck_assert_int_eq(request_whole(scene.fd, &call), -EFAULT);
    ck_assert_uint_eq(size_behind(scene.fixture.path), 2 * BLOCK);
    call.flags = RWF_DSYNC;
    ck_assert_int_eq(request_whole(scene.fd, &call), -EFAULT);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(a_write_from_partly_bad_memory_writes_what_lies_before)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 7, 4);
    char *edge = memory + LENGTH - 2 * BLOCK - 100; /* two blocks and a bit can be read */
    pattern_fill(edge, 2 * BLOCK + 100, 8, 0);
    struct request_call call = writing(edge, 4 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_uint_eq(request.length, 2 * BLOCK);
    ck_assert_uint_eq(request.asked, 4 * BLOCK);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK);
    ck_assert_words(scene.map, 1, pattern_sum(8, 1), WORD_IDLE);
    ck_assert_words(scene.map, 2, pattern_sum(7, 2), WORD_IDLE);
}
END_TEST

START_TEST(a_read_into_bad_memory_is_cut_where_it_becomes_bad)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 7, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    struct request_call call = reading(memory + LENGTH - BLOCK - 100, 4 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), BLOCK);
    call = reading(memory + LENGTH, 8 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), -EFAULT);
    holdings_check(&scene, &before);
}
END_TEST

/* ---- what passes ---- */

static void passes(int fd, const struct request_call *call)
{
    struct fd_view view; /* what is learned of the number now is kept */
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    fd_view_close(&view);
    const struct holdings before = holdings_of(&scene);
    ck_assert_int_eq(request_ask(&request, fd, call), REQUEST_PASSES);
    ck_assert_int_eq(request.kind, REQUEST_NONE);
    holdings_check(&scene, &before);
}

START_TEST(what_the_kernel_is_to_judge_passes)
{
    open_scene(O_RDWR);
    const struct iovec good[] = {{memory, BLOCK}}, negative[] = {{memory, (size_t)-1}}, none[] = {{memory, 0}};
    struct request_call calls[] = {
        writing(memory, 0, 0),
        reading(memory, 0, 0),
        writing(memory, BLOCK, -2),
        reading(memory, BLOCK, INT64_MIN),
        writing(memory, BLOCK, INT64_MAX - 1),
        writing(memory, (size_t)-1, 0),
        reading((void *)(uintptr_t)(UINTPTR_MAX - 10), BLOCK, 0),
        {.is_vector = true, .address = negative, .length = 1, .transport = TRANSPORT_URING},
        {.is_vector = true, .address = none, .length = 1, .transport = TRANSPORT_URING},
        {.is_vector = true, .address = good, .length = 1025, .transport = TRANSPORT_URING},
        {.is_vector = true, .address = good, .length = UINT64_C(1) << 40, .transport = TRANSPORT_URING},
        {.is_vector = true, .address = memory + LENGTH, .length = 1, .transport = TRANSPORT_URING},
        {.address = memory, .length = BLOCK, .offset = -1, .transport = TRANSPORT_LIBAIO},
        {.is_write = true, .address = memory, .length = BLOCK, .offset = -1, .transport = TRANSPORT_LIBAIO},
    };
    const uint64_t counted = stats_get(STAT_direct_reads) + stats_get(STAT_direct_writes);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        passes(scene.fd, &calls[i]);
    ck_assert_uint_eq(stats_get(STAT_direct_reads) + stats_get(STAT_direct_writes), counted);
}
END_TEST

START_TEST(what_is_not_ours_passes)
{
    int ends[2];
    open_scene(O_RDWR);
    scene_fill(&scene, 9, 1);
    ck_assert_int_eq(pipe(ends), 0);
    struct request_call write_call = writing(memory, BLOCK, 0), read_call = reading(memory, BLOCK, 0);
    passes(ends[1], &write_call);
    passes(-1, &write_call);
    const uint64_t passed = stats_get(STAT_passed_through);
    passes(number_open(scene.fixture.path, O_RDWR), &read_call);
    ck_assert_uint_eq(stats_get(STAT_passed_through), passed);
    config.exclude = "*file*";
    int excluded = number_open(scene.fixture.path, O_RDWR | O_DIRECT);
    passes(excluded, &write_call);
    passes(excluded, &read_call);
    ck_assert_uint_eq(stats_get(STAT_passed_through), passed + 2);
}
END_TEST

START_TEST(vectors_are_gathered_and_scattered)
{
    open_scene(O_RDWR);
    scene_fill(&scene, 9, 1);
    const struct holdings before = holdings_of(&scene);
    struct iovec vector[40];
    pattern_fill(memory, LENGTH, 10, 0);
    for (int i = 0; i < 40; i++)
        vector[i] = (struct iovec){memory + i * 512, 512};
    struct request_call call = {
        .is_write = true, .is_vector = true, .address = vector, .length = 40, .transport = TRANSPORT_URING};
    ck_assert_int_eq(request_whole(scene.fd, &call), 5 * BLOCK);
    ck_assert_words(scene.map, 4, pattern_sum(10, 4), WORD_IDLE);
    memset(memory, 0, LENGTH);
    call.is_write = false;
    ck_assert_int_eq(request_whole(scene.fd, &call), 5 * BLOCK);
    ck_assert_uint_eq(pattern_check(memory, 5 * BLOCK, 10, 0), 5 * BLOCK);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(requests_are_counted_once_however_often_they_are_tried)
{
    static const enum stat_counter counters[] = {STAT_direct_writes, STAT_bytes_written, STAT_direct_reads,
                                                 STAT_bytes_read,    STAT_blocks_summed, STAT_bytes_bounced};
    static const uint64_t expected[] = {1, BLOCK, 1, BLOCK, 1, BLOCK};
    uint64_t before[6];
    open_scene(O_RDWR);
    for (int i = 0; i < 6; i++)
        before[i] = stats_get(counters[i]);
    struct request_call call = writing(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    request_cancel(&request);
    ck_assert_int_eq(request_whole(scene.fd, &call), BLOCK);
    call = reading(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    request_cancel(&request);
    ck_assert_int_eq(request_whole(scene.fd, &call), BLOCK);
    for (int i = 0; i < 6; i++)
        ck_assert_uint_eq(stats_get(counters[i]) - before[i], expected[i]);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_write_lands_as_it_was_when_it_was_prepared,
        until_it_is_complete_others_see_a_write_in_flight,
        a_write_is_one_request_whatever_its_length,
        a_write_that_is_refused_leaves_the_checksums_standing,
        a_write_that_fails_or_ends_early_is_unknown_from_there_on,
        a_large_read_goes_through_pages_and_is_verified,
        a_small_aligned_read_goes_in_place_and_is_verified,
        where_no_device_is_to_reach_memory_every_aligned_read_goes_in_place,
        a_buffer_changed_after_a_read_in_place_is_read_again,
        damage_is_told_in_place_and_through_pages,
        the_end_of_the_file_ends_a_read_inside_a_block,
        blocks_cut_off_behind_the_shim_s_back_are_missed,
        a_write_from_bad_memory_fails_and_leaves_the_file_alone,
        a_write_from_partly_bad_memory_writes_what_lies_before,
        a_read_into_bad_memory_is_cut_where_it_becomes_bad,
        what_the_kernel_is_to_judge_passes,
        what_is_not_ours_passes,
        vectors_are_gathered_and_scattered,
        requests_are_counted_once_however_often_they_are_tried,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "request", 20, NULL, tests);
}
