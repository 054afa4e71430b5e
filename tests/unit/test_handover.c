/*
 * What a read brought into pages, handed over to the program in one pass as far as it agrees with the map, block for block after that: told as if
 * there were one way only, whoever made the system call, wherever the one way ends and the other begins, and within the pages it was given.
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
#include "engine/handover.h"
#include "engine/report.h"
#include "engine/request.h"
#include "support/request_fixture.h"
#include "support/support.h"

enum { BLOCKS = 40, LENGTH = BLOCKS * BLOCK, SEED = 5 };

/* Around the batches of 16 blocks that go at once. */
static const uint64_t places[] = {0, 1, 15, 16, 17, 31, 32, 38, 39};
enum { PLACES = sizeof(places) / sizeof(places[0]) };

static struct scene scene;
static struct request request;
static char *memory;

static void open_scene(void)
{
    config.read = READ_BOUNCE;
    scene_open(&scene, O_RDWR);
    scene_fill(&scene, SEED, BLOCKS);
    memory = buffer_new(LENGTH);
}

static size_t good_bytes(void)
{
    return pattern_check(memory, LENGTH, SEED, 0);
}

/* ---- asynchronous reads ---- */

START_TEST(unknown_blocks_are_handed_over_among_known_ones)
{
    open_scene();
    const struct request_call call = reading(memory, LENGTH, 0);
    for (size_t i = 0; i < PLACES; i++) {
        const uint64_t verified = stats_get(STAT_blocks_verified), unverified = stats_get(STAT_blocks_unverified);
        const uint64_t bounced = stats_get(STAT_bytes_bounced);
        memset(memory, 0, LENGTH);
        words_set(scene.map, places[i], WORD_UNKNOWN, WORD_IDLE);
        ck_assert_int_eq(request_whole(scene.fd, &call), LENGTH);
        ck_assert_uint_eq(good_bytes(), LENGTH);
        ck_assert_uint_eq(stats_get(STAT_blocks_unverified) - unverified, 1);
        ck_assert_uint_eq(stats_get(STAT_blocks_verified) - verified, BLOCKS - 1);
        ck_assert_uint_eq(stats_get(STAT_bytes_bounced) - bounced, LENGTH);
        words_set(scene.map, places[i], pattern_sum(SEED, places[i]), WORD_IDLE);
    }
}
END_TEST

START_TEST(damage_anywhere_fails_all_of_it_once)
{
    open_scene();
    const struct request_call call = reading(memory, LENGTH, 0);
    const struct holdings before = holdings_of(&scene);
    for (size_t i = 0; i < PLACES; i++) {
        const uint64_t mismatches = stats_get(STAT_mismatches), read = stats_get(STAT_bytes_read);
        flip_bit_behind(scene.fixture.path, places[i] * BLOCK + 77, 3);
        ck_assert_int_eq(request_whole(scene.fd, &call), -EIO);
        ck_assert_uint_eq(stats_get(STAT_mismatches) - mismatches, 1);
        ck_assert_uint_eq(stats_get(STAT_bytes_read), read);
        flip_bit_behind(scene.fixture.path, places[i] * BLOCK + 77, 3);
        ck_assert_int_eq(request_whole(scene.fd, &call), LENGTH);
        holdings_check(&scene, &before);
    }
}
END_TEST

START_TEST(bad_memory_ends_it_exactly_wherever_it_begins)
{
    open_scene();
    for (size_t shift = 0; shift <= 100; shift += 100)
        for (size_t i = 0; i < PLACES; i++) {
            char *buffer = buffer_new(LENGTH + BLOCK), *bad = buffer + places[i] * BLOCK;
            const size_t good = bad > buffer + shift ? (size_t)(bad - buffer) - shift : 0;
            const struct request_call call = reading(buffer + shift, LENGTH, 0);
            ck_assert_int_eq(mprotect(bad, BLOCK, PROT_NONE), 0);
            const int64_t told = request_whole(scene.fd, &call);
            if (good < scene.file->offset_align)
                ck_assert_int_eq(told, -EFAULT);
            else
                ck_assert_int_eq(told, (int64_t)(good - good % scene.file->offset_align));
            if (told > 0)
                ck_assert_uint_eq(pattern_check(buffer + shift, (size_t)told, SEED, 0), (size_t)told);
            buffer_free(buffer, LENGTH + BLOCK);
        }
}
END_TEST

START_TEST(a_buffer_that_is_gone_by_then_is_told)
{
    open_scene();
    const struct holdings before = holdings_of(&scene);
    const struct request_call call = reading(memory, LENGTH, 0);
    request_ready(&request, scene.fd, &call);
    const ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(munmap(memory, LENGTH), 0);
    ck_assert_int_eq(request_complete(&request, result), -EFAULT);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(damage_behind_bad_memory_is_told_as_damage)
{
    open_scene();
    const struct request_call call = reading(memory, LENGTH, 0);
    flip_bit_behind(scene.fixture.path, 35 * BLOCK, 0);
    ck_assert_int_eq(mprotect(memory + 20 * BLOCK, BLOCK, PROT_NONE), 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), -EIO);
}
END_TEST

START_TEST(vectors_are_filled_wherever_they_are_cut)
{
    static const size_t cuts[] = {1, 512, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 20 * BLOCK, 20 * BLOCK + 512};
    open_scene();
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        const uint64_t verified = stats_get(STAT_blocks_verified);
        const struct iovec vector[] = {{memory, cuts[i]},
                                       {memory, 0},
                                       {memory + cuts[i], 5 * BLOCK},
                                       {memory + cuts[i] + 5 * BLOCK, LENGTH - cuts[i] - 5 * BLOCK}};
        const struct request_call call = {
            .is_vector = true, .address = vector, .length = 4, .transport = TRANSPORT_LIBAIO};
        memset(memory, 0, LENGTH);
        ck_assert_int_eq(request_whole(scene.fd, &call), LENGTH);
        ck_assert_uint_eq(good_bytes(), LENGTH);
        ck_assert_uint_eq(stats_get(STAT_blocks_verified) - verified, BLOCKS);
    }
}
END_TEST

/* Copied past the cache. */
START_TEST(with_much_in_flight_it_is_handed_over_alike)
{
    struct extent others[2];
    open_scene();
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pool_take(&others[i], POOL_EXTENT_MAX, false), 0);
    for (size_t shift = 0; shift < BLOCK; shift += 100) {
        const uint64_t verified = stats_get(STAT_blocks_verified);
        const struct request_call call = reading(memory + shift, LENGTH - BLOCK, BLOCK);
        memset(memory, 0, LENGTH);
        ck_assert_int_eq(request_whole(scene.fd, &call), LENGTH - BLOCK);
        ck_assert_uint_eq(pattern_check(memory + shift, LENGTH - BLOCK, SEED, BLOCK), LENGTH - BLOCK);
        ck_assert_uint_eq(stats_get(STAT_blocks_verified) - verified, BLOCKS - 1);
    }
    const struct request_call call = reading(memory, LENGTH, 0);
    flip_bit_behind(scene.fixture.path, 20 * BLOCK + 77, 3);
    ck_assert_int_eq(request_whole(scene.fd, &call), -EIO);
    flip_bit_behind(scene.fixture.path, 20 * BLOCK + 77, 3);
    ck_assert_int_eq(mprotect(memory + 30 * BLOCK, BLOCK, PROT_NONE), 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), 30 * BLOCK);
    ck_assert_uint_eq(pattern_check(memory, 30 * BLOCK, SEED, 0), 30 * BLOCK);
}
END_TEST

START_TEST(a_jump_out_of_it_leaves_nothing_behind)
{
    open_scene();
    const struct holdings before = holdings_of(&scene);
    const uint64_t verified = stats_get(STAT_blocks_verified), bounced = stats_get(STAT_bytes_bounced);
    const struct request_call call = reading(memory, LENGTH, 0);
    flip_bit_behind(scene.fixture.path, 20 * BLOCK, 1);
    report_set_callback(scene_jump_out, NULL);
    request_ready(&request, scene.fd, &call);
    const ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    if (setjmp(scene_way_out) == 0) {
        request_complete(&request, result);
        ck_abort_msg("the damage was not met");
    }
    ck_assert_int_eq(request.kind, REQUEST_NONE);
    ck_assert_int_eq(request.told, -EINTR);
    const struct holdings after = holdings_of(&scene);
    ck_assert_uint_eq(after.references, before.references);
    ck_assert_uint_eq(after.flights, before.flights);
    ck_assert_uint_le(after.pages, before.pages + 1); /* the report's own page, in which it was interrupted */
    ck_assert_uint_le(stats_get(STAT_blocks_verified) - verified, 20);
    ck_assert_uint_le(stats_get(STAT_bytes_bounced) - bounced, 20 * BLOCK);
}
END_TEST

/* ---- within its pages ---- */

enum { CANARIES = (BLOCKS + 4) * BLOCK, CANARY = 0xc5 };

/* Pages as a read has filled them, between bytes that are somebody else's. */
struct enclosure {
    char *all;
    struct extent pages;
};

static void enclose(struct enclosure *enclosure, const struct part *part, size_t result)
{
    const size_t bytes = part_pages(part), all = 2 * (size_t)CANARIES + bytes;
    enclosure->all = buffer_new(all);
    memset(enclosure->all, CANARY, all);
    enclosure->pages =
        (struct extent){.base = enclosure->all + CANARIES, .pages = (uint32_t)(bytes / POOL_PAGE), .first = -1};
    ck_assert_uint_eq(read_behind(scene.fixture.path, enclosure->pages.base, result, (uint64_t)part->offset), result);
}

static bool is_untouched(const char *canaries)
{
    return canaries[0] == (char)CANARY && memcmp(canaries, canaries + 1, CANARIES - 1) == 0;
}

static void check_canaries(const struct enclosure *enclosure)
{
    const char *behind = (char *)enclosure->pages.base + enclosure->pages.pages * (size_t)POOL_PAGE;
    ck_assert_msg(is_untouched(enclosure->all), "bytes before the pages were written");
    ck_assert_msg(is_untouched(behind), "bytes behind the pages were written");
}

/* `asked` bytes from `offset` on, of which the file has `result`. */
static void hand_over_enclosed(int64_t offset, size_t asked, size_t result)
{
    const struct iovec segment = {memory, LENGTH};
    const struct transfer transfer = {.vector = &segment, .segments = 1, .length = asked, .offset = offset};
    struct cursor cursor = {.vector = &segment, .segments = 1};
    struct enclosure enclosure;
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0);
    const struct part part = {
        .view = &view, .transfer = &transfer, .cursor = &cursor, .offset = offset, .length = asked, .certain = true};
    enclose(&enclosure, &part, result);
    memset(memory, 0, LENGTH);
    ck_assert_int_eq(handover(&part, &enclosure.pages, (ssize_t)result), (ssize_t)result);
    ck_assert_uint_eq(pattern_check(memory, result, SEED, (uint64_t)offset), result);
    check_canaries(&enclosure);
    buffer_free(enclosure.all, 2 * (size_t)CANARIES + part_pages(&part));
    fd_view_close(&view);
}

START_TEST(a_last_block_asked_for_in_part_is_verified_within_the_pages)
{
    open_scene();
    for (size_t i = 0; i < PLACES; i++) {
        const uint64_t verified = stats_get(STAT_blocks_verified);
        const size_t length = (places[i] + 1) * BLOCK - SECTOR;
        hand_over_enclosed(0, length, length);
        ck_assert_uint_eq(stats_get(STAT_blocks_verified) - verified, places[i] + 1);
    }
}
END_TEST

START_TEST(blocks_asked_for_in_part_are_verified_within_the_pages)
{
    open_scene();
    for (size_t i = 0; i < PLACES; i++) {
        const uint64_t unknown = places[i];
        words_set(scene.map, unknown, WORD_UNKNOWN, WORD_IDLE);
        hand_over_enclosed(SECTOR, LENGTH - 2 * SECTOR, LENGTH - 2 * SECTOR);
        hand_over_enclosed(0, LENGTH - SECTOR, LENGTH - SECTOR);
        words_set(scene.map, unknown, pattern_sum(SEED, unknown), WORD_IDLE);
    }
}
END_TEST

START_TEST(the_end_of_the_file_inside_a_block_is_summed_within_the_pages)
{
    open_scene();
    for (size_t i = PLACES; i-- > 0;) {
        const size_t end = places[i] * BLOCK + SECTOR;
        ck_assert_int_eq(truncate(scene.fixture.path, (off_t)end), 0);
        words_set(scene.map, places[i], WORD_UNKNOWN, WORD_IDLE);
        hand_over_enclosed(0, LENGTH, end);
        hand_over_enclosed(0, LENGTH - SECTOR, end);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        unknown_blocks_are_handed_over_among_known_ones,
        damage_anywhere_fails_all_of_it_once,
        bad_memory_ends_it_exactly_wherever_it_begins,
        a_buffer_that_is_gone_by_then_is_told,
        damage_behind_bad_memory_is_told_as_damage,
        vectors_are_filled_wherever_they_are_cut,
        with_much_in_flight_it_is_handed_over_alike,
        a_jump_out_of_it_leaves_nothing_behind,
        a_last_block_asked_for_in_part_is_verified_within_the_pages,
        blocks_asked_for_in_part_are_verified_within_the_pages,
        the_end_of_the_file_inside_a_block_is_summed_within_the_pages,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "handover", 20, NULL, tests);
}
