/* Mutators: the count, the entry, and what becomes of the blocks. */
#include <check.h>

#include "base/process.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "checksum/window.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCKS = 64, SUM = 1001 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;
static struct mutation mutation;

static void record_all(void)
{
    map_fixture_new(&fixture, BLOCKS);
    for (uint64_t block = 0; block < BLOCKS; block++)
        words_set(map, block, SUM + block, WORD_IDLE);
}

static bool covers(uint64_t block)
{
    return flight_mutator_covers(map->id, block, false);
}

START_TEST(a_mutator_at_work_is_counted_and_in_flight_over_its_range)
{
    record_all();
    mutate_open(&mutation, map, 10, 5, TRANSPORT_BLOCKING, false);
    ck_assert_uint_eq(map->header->unsettled, 1);
    ck_assert(!covers(9) && covers(10) && covers(14) && !covers(15));
    ck_assert(map_mutator_covers(map, 10, false));
    mutate_close(&mutation, 10, 5);
}
END_TEST

START_TEST(a_mutator_to_the_end_covers_every_block_from_its_first_on)
{
    record_all();
    mutate_open(&mutation, map, 10, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    ck_assert(!covers(9) && covers(10) && covers(UINT64_C(1) << 51));
    mutate_close(&mutation, 10, FLIGHT_TO_END);
}
END_TEST

START_TEST(opening_a_mutator_changes_no_block)
{
    record_all();
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    for (uint64_t block = 0; block < BLOCKS; block++)
        ck_assert_words(map, block, SUM + block, WORD_IDLE);
    mutate_close(&mutation, 0, 0);
}
END_TEST

START_TEST(a_closed_mutator_has_left_the_table_and_the_count)
{
    record_all();
    mutate_open(&mutation, map, 10, 5, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 10, 5);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert(!covers(10));
    ck_assert_ptr_null(mutation.map);
}
END_TEST

START_TEST(closing_twice_or_without_a_map_does_nothing)
{
    record_all();
    mutate_open(&mutation, map, 0, 5, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 0, 5);
    mutate_close(&mutation, 5, 5);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert_words(map, 5, SUM + 5, WORD_IDLE);
}
END_TEST

START_TEST(exactly_the_blocks_that_changed_become_unknown)
{
    record_all();
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 20, 10);
    for (uint64_t block = 0; block < BLOCKS; block++)
        ck_assert_words(map, block, block >= 20 && block < 30 ? WORD_UNKNOWN : SUM + block, WORD_IDLE);
}
END_TEST

START_TEST(a_change_to_the_end_makes_every_window_s_blocks_unknown)
{
    const uint64_t blocks[] = {5, UNIT_BLOCKS, REGION_BLOCKS - 1, REGION_BLOCKS, 3 * REGION_BLOCKS};
    map_fixture_new(&fixture, 8);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(locked_map_cover(map, blocks[i], 1), 0);
        words_set(map, blocks[i], SUM, WORD_IDLE);
    }
    words_set(map, 4, SUM, WORD_IDLE);
    mutate_open(&mutation, map, 5, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 5, FLIGHT_TO_END);
    for (int i = 0; i < 5; i++)
        ck_assert_words(map, blocks[i], WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 4, SUM, WORD_IDLE);
}
END_TEST

START_TEST(a_change_of_blocks_without_words_is_no_trouble)
{
    record_all();
    mutate_open(&mutation, map, UNIT_BLOCKS, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, UNIT_BLOCKS, FLIGHT_TO_END);
    mutate_open(&mutation, map, MAP_BLOCKS_MAX + 5, 10, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, MAP_BLOCKS_MAX + 5, 10);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert_words(map, BLOCKS - 1, SUM + BLOCKS - 1, WORD_IDLE);
}
END_TEST

START_TEST(what_is_pending_on_a_changed_block_becomes_contended)
{
    record_all();
    words_set(map, 0, SUM, SUM + 1);
    words_set(map, 1, SUM, WORD_CONTENDED + 3);
    words_set(map, 2, SUM, WORD_CLAIMED);
    words_set(map, 3, SUM, WORD_POISON);
    mutate_open(&mutation, map, 0, 4, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 0, 4);
    ck_assert_words(map, 0, WORD_UNKNOWN, WORD_CONTENDED + 1);
    ck_assert_words(map, 1, WORD_UNKNOWN, WORD_CONTENDED + 3);
    ck_assert_words(map, 2, WORD_UNKNOWN, WORD_CONTENDED + 2);
    ck_assert_words(map, 3, WORD_UNKNOWN, WORD_CONTENDED + 1);
}
END_TEST

START_TEST(mutators_count_each_for_itself)
{
    struct mutation second;
    record_all();
    mutate_open(&mutation, map, 0, 4, TRANSPORT_BLOCKING, false);
    mutate_open(&second, map, 2, 4, TRANSPORT_BLOCKING, false);
    ck_assert_uint_eq(map->header->unsettled, 2);
    mutate_close(&mutation, 0, 4);
    ck_assert_uint_eq(map->header->unsettled, 1);
    ck_assert(!covers(1) && covers(3));
    mutate_close(&second, 2, 4);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert(!covers(3));
}
END_TEST

START_TEST(every_mutator_raises_the_generation)
{
    record_all();
    uint64_t before = map->header->unsettled_generation;
    for (int i = 0; i < 3; i++) {
        mutate_open(&mutation, map, 0, 4, TRANSPORT_BLOCKING, false);
        mutate_close(&mutation, 0, 4);
    }
    ck_assert_uint_eq(map->header->unsettled_generation - before, 3);
}
END_TEST

START_TEST(a_change_renews_the_time_window)
{
    record_all();
    map->header->window_issue = map->header->window_completion = 0;
    mutate_open(&mutation, map, 0, 4, TRANSPORT_BLOCKING, false);
    int64_t opened = window_now();
    mutate_close(&mutation, 0, 4);
    ck_assert_int_gt(map->header->window_issue, 0);
    ck_assert_int_le(map->header->window_issue, opened);
    ck_assert_int_ge(map->header->window_completion, opened);
}
END_TEST

START_TEST(a_mutator_that_changed_nothing_leaves_the_blocks_and_makes_the_window_longer_not_later)
{
    record_all();
    map->header->window_issue = map->header->window_completion = 7;
    mutate_open(&mutation, map, 0, 4, TRANSPORT_BLOCKING, false);
    int64_t opened = window_now();
    mutate_close(&mutation, 0, 0);
    ck_assert_int_eq(map->header->window_issue, 7);
    ck_assert_int_ge(map->header->window_completion, opened);
    ck_assert_words(map, 0, SUM, WORD_IDLE);
    ck_assert_uint_eq(map->header->unsettled, 0);
}
END_TEST

static bool record_in_a_new_window(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS, 1), 0);
    words_set(map, 3 * REGION_BLOCKS, SUM, WORD_IDLE);
    return true;
}

START_TEST(blocks_in_windows_that_another_session_added_become_unknown_too)
{
    record_all();
    peer_run(record_in_a_new_window, NULL);
    ck_assert(map_is_behind(map));
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 0, FLIGHT_TO_END);
    ck_assert_words(map, 3 * REGION_BLOCKS, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_window_that_another_session_adds_during_the_change_is_reached_too)
{
    record_all();
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    peer_run(record_in_a_new_window, NULL);
    mutate_close(&mutation, 0, FLIGHT_TO_END);
    ck_assert_words(map, 3 * REGION_BLOCKS, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

static bool mutate_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    map_fixture_reopen(&fixture);
    mutate_open(&mutation, map, 10, 5, TRANSPORT_BLOCKING, false);
    peer_pause(peer);
    mutate_close(&mutation, 10, 5);
    return true;
}

START_TEST(a_mutator_in_another_process_is_seen_here)
{
    struct peer peer;
    record_all();
    peer_start(&peer, mutate_and_pause, NULL);
    peer_reach(&peer);
    ck_assert(map_mutator_covers(map, 12, false));
    peer_continue(&peer);
    peer_end(&peer);
    ck_assert(!map_mutator_covers(map, 12, false));
    ck_assert_words(map, 12, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mutator_that_died_at_work_still_covers_its_range)
{
    struct peer peer;
    record_all();
    peer_start(&peer, mutate_and_pause, NULL);
    peer_reach(&peer);
    peer_kill(&peer);
    ck_assert(map_mutator_covers(map, 12, false));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_mutator_at_work_is_counted_and_in_flight_over_its_range,
        a_mutator_to_the_end_covers_every_block_from_its_first_on,
        opening_a_mutator_changes_no_block,
        a_closed_mutator_has_left_the_table_and_the_count,
        closing_twice_or_without_a_map_does_nothing,
        exactly_the_blocks_that_changed_become_unknown,
        a_change_to_the_end_makes_every_window_s_blocks_unknown,
        a_change_of_blocks_without_words_is_no_trouble,
        what_is_pending_on_a_changed_block_becomes_contended,
        mutators_count_each_for_itself,
        every_mutator_raises_the_generation,
        a_change_renews_the_time_window,
        a_mutator_that_changed_nothing_leaves_the_blocks_and_makes_the_window_longer_not_later,
        blocks_in_windows_that_another_session_added_become_unknown_too,
        a_window_that_another_session_adds_during_the_change_is_reached_too,
        a_mutator_in_another_process_is_seen_here,
        a_mutator_that_died_at_work_still_covers_its_range,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "mutate", 20, NULL, tests);
}
