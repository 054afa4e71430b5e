/*
 * Growth of maps: windows and units appear where they are wanted, nothing moves, and the disk space is in proportion to what is
 * covered.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "support/map_fixture.h"
#include "support/support.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define TIB (1024 * 1024 * MIB)

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

/* First and last blocks of units, regions and windows, and far out. */
static const uint64_t places[] = {0,
                                  UNIT_BLOCKS - 1,
                                  UNIT_BLOCKS,
                                  REGION_BLOCKS - 1,
                                  REGION_BLOCKS,
                                  3 * REGION_BLOCKS - 1,
                                  3 * REGION_BLOCKS,
                                  7 * REGION_BLOCKS + 5 * UNIT_BLOCKS + 3,
                                  (uint64_t)1 << 22,
                                  TIB / BLOCK_SIZE};
enum { PLACES = sizeof places / sizeof *places };

static bool is_covered(uint64_t block)
{
    uint64_t run;
    return map_words(map, block, &run) != NULL;
}

static uint64_t disk_usage(void)
{
    struct stat status;
    ck_assert_int_eq(stat(map_fixture_map_path(&fixture, map), &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

/* ---- Where words are. ---- */

START_TEST(words_of_all_places_are_kept_apart_and_outlive_closing)
{
    map_fixture_new(&fixture, 0);
    for (uint64_t i = 0; i < PLACES; i++) {
        ck_assert_int_eq(locked_map_cover(map, places[i], 1), 0);
        ck_assert_words(map, places[i], WORD_UNKNOWN, WORD_IDLE);
        words_set(map, places[i], 100 + i, 200 + i);
    }
    for (uint64_t i = 0; i < PLACES; i++)
        ck_assert_words(map, places[i], 100 + i, 200 + i);
    locked_map_close(map, false);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    for (uint64_t i = 0; i < PLACES; i++)
        ck_assert_words(map, places[i], 100 + i, 200 + i);
}
END_TEST

START_TEST(every_block_of_three_windows_has_words_of_its_own)
{
    const uint64_t blocks = 7 * REGION_BLOCKS;
    uint64_t run, wrong = 0;
    map_fixture_new(&fixture, 0);
    ck_assert_int_eq(locked_map_cover(map, 0, blocks), 0);
    for (uint64_t block = 0; block < blocks; block++)
        *map_words(map, block, &run) = (struct block_words){block + 1, block + 2};
    for (uint64_t block = 0; block < blocks; block++) {
        const struct block_words *words = map_words(map, block, &run);
        wrong += words->current != block + 1 || words->pending != block + 2;
    }
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(words_stay_where_they_are_when_the_map_grows)
{
    map_fixture_new(&fixture, 1);
    struct block_words *words = words_of(map, 0);
    ck_assert_int_eq(locked_map_cover(map, TIB / BLOCK_SIZE, 1), 0);
    ck_assert_ptr_eq(words_of(map, 0), words);
}
END_TEST

START_TEST(a_run_reaches_to_the_end_of_its_unit)
{
    uint64_t run;
    map_fixture_new(&fixture, 2 * UNIT_BLOCKS);
    struct block_words *words = map_words(map, 10, &run);
    ck_assert_uint_eq(run, UNIT_BLOCKS - 10);
    ck_assert_ptr_eq(words + run - 1, words_of(map, UNIT_BLOCKS - 1));
    map_words(map, UNIT_BLOCKS, &run);
    ck_assert_uint_eq(run, UNIT_BLOCKS);
    ck_assert_ptr_null(map_words(map, 2 * UNIT_BLOCKS + 3, &run));
    ck_assert_uint_eq(run, UNIT_BLOCKS - 3);
}
END_TEST

START_TEST(regions_belong_to_windows_of_doubling_size)
{
    uint64_t region = 0;
    for (unsigned window = 0; window < 12; window++) {
        ck_assert_uint_eq(window_first_region(window), region);
        for (uint64_t i = 0; i < UINT64_C(1) << window; i++)
            ck_assert_uint_eq(window_of_region(region++), window);
        ck_assert_uint_eq(window_offset(window + 1) - window_offset(window), window_bytes(window));
        ck_assert_uint_ge(window_state_bytes(window), UINT64_C(8) << window);
        ck_assert_uint_eq(window_offset(window) % FORMAT_PAGE, 0);
    }
    ck_assert_uint_eq(window_of_region(MAP_BLOCKS_MAX / REGION_BLOCKS - 1), MAP_WINDOWS - 1);
    ck_assert_uint_eq(window_of_region(MAP_BLOCKS_MAX / REGION_BLOCKS), MAP_WINDOWS);
}
END_TEST

START_TEST(the_header_counts_the_windows_there_are)
{
    map_fixture_new(&fixture, 1);
    ck_assert_uint_eq(map->header->windows, 1);
    ck_assert_int_eq(locked_map_cover(map, REGION_BLOCKS, 1), 0);
    ck_assert_uint_eq(map->header->windows, 2);
    ck_assert_int_eq(locked_map_cover(map, 7 * REGION_BLOCKS, 1), 0);
    ck_assert_uint_eq(map->header->windows, 4);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS, 1), 0);
    ck_assert_uint_eq(map->header->windows, 4);
}
END_TEST

/* ---- What is covered. ---- */

START_TEST(covering_a_range_covers_all_of_it)
{
    const uint64_t first = REGION_BLOCKS - UNIT_BLOCKS - 1, blocks = UNIT_BLOCKS + 2;
    map_fixture_new(&fixture, 0);
    ck_assert(!map_covers(map, first, blocks));
    ck_assert_int_eq(locked_map_cover(map, first, blocks), 0);
    ck_assert(map_covers(map, first, blocks));
    ck_assert(is_covered(first) && is_covered(first + 1) && is_covered(first + blocks - 1));
}
END_TEST

START_TEST(a_range_with_a_hole_is_not_covered)
{
    map_fixture_new(&fixture, UNIT_BLOCKS);
    ck_assert_int_eq(locked_map_cover(map, 2 * UNIT_BLOCKS, UNIT_BLOCKS), 0);
    ck_assert(map_covers(map, 0, UNIT_BLOCKS));
    ck_assert(!map_covers(map, 0, UNIT_BLOCKS + 1));
    ck_assert(!map_covers(map, 0, 3 * UNIT_BLOCKS));
    ck_assert_int_eq(locked_map_cover(map, 0, 3 * UNIT_BLOCKS), 0);
    ck_assert(map_covers(map, 0, 3 * UNIT_BLOCKS));
}
END_TEST

START_TEST(covering_again_keeps_what_is_recorded)
{
    map_fixture_new(&fixture, 8);
    words_set(map, 3, 7, WORD_IDLE);
    ck_assert_int_eq(locked_map_cover(map, 0, 4 * UNIT_BLOCKS), 0);
    ck_assert_words(map, 3, 7, WORD_IDLE);
}
END_TEST

START_TEST(a_gap_before_a_covered_block_is_not_covered_with_it)
{
    map_fixture_new(&fixture, 0);
    ck_assert_int_eq(locked_map_cover(map, 5 * REGION_BLOCKS, 1), 0);
    ck_assert(!is_covered(0));
    ck_assert(!is_covered(5 * REGION_BLOCKS - 1));
}
END_TEST

START_TEST(the_last_block_of_all_can_be_covered_and_the_next_cannot)
{
    map_fixture_new(&fixture, 0);
    int error = locked_map_cover(map, MAP_BLOCKS_MAX - 1, 1);
    if (error == -ENOMEM || (error != 0 && getenv("BOUNCEIO_TEST_VALGRIND"))) {
        test_skip("no room for 2 TiB of addresses (ThreadSanitizer, valgrind)");
        return;
    }
    ck_assert_int_eq(error, 0);
    words_set(map, MAP_BLOCKS_MAX - 1, 1, 2);
    ck_assert_int_eq(locked_map_cover(map, MAP_BLOCKS_MAX - 1, 2), -EFBIG);
    ck_assert_int_eq(locked_map_cover(map, MAP_BLOCKS_MAX, 1), -EFBIG);
    ck_assert(!is_covered(MAP_BLOCKS_MAX));
    ck_assert(!map_covers(map, MAP_BLOCKS_MAX, 1));
    ck_assert(map_is_usable(map));
    ck_assert_words(map, MAP_BLOCKS_MAX - 1, 1, 2);
}
END_TEST

START_TEST(a_block_at_the_end_of_the_largest_file_has_no_words)
{
    map_fixture_new(&fixture, 1);
    ck_assert(!is_covered(INT64_MAX / BLOCK_SIZE));
    ck_assert_int_eq(locked_map_cover(map, INT64_MAX / BLOCK_SIZE, 1), -EFBIG);
}
END_TEST

/* ---- Others grow it, too. ---- */

static bool cover_a_new_window(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS, 1), 0);
    words_set(map, 3 * REGION_BLOCKS, 77, WORD_IDLE);
    return true;
}

START_TEST(a_window_that_another_session_added_is_seen_after_a_refresh)
{
    map_fixture_new(&fixture, 1);
    ck_assert(!map_is_behind(map));
    peer_run(cover_a_new_window, NULL);
    ck_assert(map_is_behind(map));
    ck_assert(!is_covered(3 * REGION_BLOCKS));
    map_refresh(map);
    ck_assert(!map_is_behind(map));
    ck_assert_words(map, 3 * REGION_BLOCKS, 77, WORD_IDLE);
}
END_TEST

START_TEST(covering_what_another_session_covered_keeps_its_words)
{
    map_fixture_new(&fixture, 1);
    peer_run(cover_a_new_window, NULL);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS, 1), 0);
    ck_assert_words(map, 3 * REGION_BLOCKS, 77, WORD_IDLE);
}
END_TEST

static bool cover_a_unit(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    ck_assert_int_eq(locked_map_cover(map, 5 * UNIT_BLOCKS, 1), 0);
    words_set(map, 5 * UNIT_BLOCKS, 77, WORD_IDLE);
    return true;
}

START_TEST(a_unit_that_another_session_added_to_a_known_window_is_seen_at_once)
{
    map_fixture_new(&fixture, 1);
    peer_run(cover_a_unit, NULL);
    ck_assert_words(map, 5 * UNIT_BLOCKS, 77, WORD_IDLE);
}
END_TEST

/* ---- Disk space. ---- */

START_TEST(the_map_of_a_small_file_takes_at_most_64_kib)
{
    map_fixture_new(&fixture, 100 * KIB / BLOCK_SIZE);
    ck_assert_uint_le(disk_usage(), 64 * KIB);
}
END_TEST

START_TEST(the_map_of_a_dense_file_takes_at_most_0_45_percent)
{
    const uint64_t sizes[] = {64 * MIB, 1024 * MIB};
    map_fixture_new(&fixture, 0);
    uint64_t block = 0;
    for (int i = 0; i < 2; i++) {
        /* As a sequential writer grows it. */
        for (; block < sizes[i] / BLOCK_SIZE; block += 64)
            ck_assert_int_eq(locked_map_cover(map, block, 64), 0);
        ck_assert_uint_le(disk_usage(), sizes[i] / 1000 * 9 / 2 + 64 * KIB + (i ? MIB : 0));
    }
}
END_TEST

START_TEST(the_map_of_a_write_at_1_tib_takes_little)
{
    map_fixture_new(&fixture, 0);
    ck_assert_int_eq(locked_map_cover(map, TIB / BLOCK_SIZE, 1), 0);
    ck_assert_uint_le(disk_usage(), 384 * KIB);
}
END_TEST

START_TEST(a_random_writer_pays_for_the_units_it_touches_only)
{
    enum { UNITS = 100 };
    map_fixture_new(&fixture, 0);
    for (uint64_t i = 0; i < UNITS; i++)
        ck_assert_int_eq(locked_map_cover(map, i * 37 % UNITS * 3 * UNIT_BLOCKS, 1), 0);
    ck_assert_uint_le(disk_usage(), UNITS * UNIT_BYTES + 64 * KIB);
}
END_TEST

START_TEST(a_sequential_writer_of_a_region_extends_its_map_six_times)
{
    map_fixture_new(&fixture, 0);
    unsigned times = 0;
    uint64_t before = disk_usage();
    for (uint64_t block = 0; block < REGION_BLOCKS; block += 64) {
        ck_assert_int_eq(locked_map_cover(map, block, 64), 0);
        times += disk_usage() > before;
        before = disk_usage();
    }
    ck_assert_uint_le(times, 6);
}
END_TEST

START_TEST(what_is_allocated_ahead_is_no_more_than_what_was_there)
{
    map_fixture_new(&fixture, 0);
    for (uint64_t unit = 0; unit <= 4; unit++)
        ck_assert_int_eq(locked_map_cover(map, unit * UNIT_BLOCKS, 1), 0);
    ck_assert(is_covered(7 * UNIT_BLOCKS - 1));
    ck_assert(!is_covered(9 * UNIT_BLOCKS));
    ck_assert_int_eq(locked_map_cover(map, 15 * UNIT_BLOCKS, 1), 0);
    ck_assert(!is_covered(REGION_BLOCKS));
}
END_TEST

/* ---- No space. ---- */

/* A file system of 512 KiB in the place of the store, seen by this process only. <sys/mount.h> has a BLOCK_SIZE of its own. */
static bool mount_small_store(void)
{
    return unshare(CLONE_NEWNS) == 0 && syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mkdir(fixture.store, 0700) == 0 &&
           syscall(SYS_mount, "store", fixture.store, "tmpfs", 0, "size=512k,mode=0700") == 0;
}

START_TEST(a_full_store_leaves_the_other_blocks_unknown)
{
    map_fixture_prepare(&fixture);
    if (!mount_small_store()) {
        test_skip("a file system of its own needs root");
        return;
    }
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_int_eq(locked_map_cover(map, 0, 8), 0);
    ck_assert_int_eq(locked_map_cover(map, 0, 4 * REGION_BLOCKS), -ENOSPC);
    ck_assert(map->cannot_grow);
    ck_assert(map_is_usable(map));
    ck_assert(!is_covered(4 * REGION_BLOCKS - 1));
    words_set(map, 7, 1, 2);
    ck_assert_words(map, 7, 1, 2);
}
END_TEST

START_TEST(a_limit_on_file_sizes_stops_the_map_and_not_the_program)
{
    map_fixture_new(&fixture, 1);
    struct rlimit limit = {64 * KIB, 64 * KIB};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_lt(locked_map_cover(map, 0, REGION_BLOCKS), 0);
    words_set(map, 0, 1, 2);
    ck_assert_words(map, 0, 1, 2);
}
END_TEST

START_TEST(what_does_not_fit_ahead_is_done_without)
{
    map_fixture_new(&fixture, 4 * UNIT_BLOCKS);
    const uint64_t bytes = 2 * FORMAT_PAGE + 5 * UNIT_BYTES;
    struct rlimit limit = {bytes, bytes};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(locked_map_cover(map, 4 * UNIT_BLOCKS, 8), 0);
    ck_assert(is_covered(5 * UNIT_BLOCKS - 1));
    ck_assert(!map->cannot_grow);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        words_of_all_places_are_kept_apart_and_outlive_closing,
        every_block_of_three_windows_has_words_of_its_own,
        words_stay_where_they_are_when_the_map_grows,
        a_run_reaches_to_the_end_of_its_unit,
        regions_belong_to_windows_of_doubling_size,
        the_header_counts_the_windows_there_are,
        covering_a_range_covers_all_of_it,
        a_range_with_a_hole_is_not_covered,
        covering_again_keeps_what_is_recorded,
        a_gap_before_a_covered_block_is_not_covered_with_it,
        the_last_block_of_all_can_be_covered_and_the_next_cannot,
        a_block_at_the_end_of_the_largest_file_has_no_words,
        a_window_that_another_session_added_is_seen_after_a_refresh,
        covering_what_another_session_covered_keeps_its_words,
        a_unit_that_another_session_added_to_a_known_window_is_seen_at_once,
        the_map_of_a_small_file_takes_at_most_64_kib,
        the_map_of_a_dense_file_takes_at_most_0_45_percent,
        the_map_of_a_write_at_1_tib_takes_little,
        a_random_writer_pays_for_the_units_it_touches_only,
        a_sequential_writer_of_a_region_extends_its_map_six_times,
        what_is_allocated_ahead_is_no_more_than_what_was_there,
        a_full_store_leaves_the_other_blocks_unknown,
        a_limit_on_file_sizes_stops_the_map_and_not_the_program,
        what_does_not_fit_ahead_is_done_without,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "map_grow", 20, NULL, tests);
}
