/*
 * Words and announcements. An orphan is a pending word without a request in flight, as a process leaves it that died; the
 * races between writers, readers and mutators are in test_protocol.
 */
#include <check.h>

#include "base/process.h"
#include "base/stats.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { OLD = 1001, NEW = 2002, OTHER = 3003 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

static void open_write(struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    announce_open(announcement, map, first, blocks, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
}

/* Announce `blocks` blocks from `first` on with the checksums `sum`, `sum` + 1 ... */
static void announce(struct announcement *announcement, uint64_t first, uint64_t blocks, uint64_t sum)
{
    uint64_t sums[64];
    for (uint64_t i = 0; i < blocks; i++)
        sums[i] = sum + i;
    open_write(announcement, first, blocks);
    announce_sums(announcement, first, blocks, sums);
}

static void publish(struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    announce_publish(announcement, first, blocks);
    announce_close(announcement);
}

static void withdraw(struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    announce_withdraw(announcement, first, blocks);
    announce_close(announcement);
}

static void forget(struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    announce_forget(announcement, first, blocks);
    announce_close(announcement);
}

/* ---- Words. ---- */

/* How many requests a pending word stands for. */
static uint64_t requests_of(uint64_t pending)
{
    if (pending == WORD_IDLE)
        return 0;
    if (pending == WORD_CLAIMED)
        return 2;
    return word_is_contended(pending) ? pending - WORD_CONTENDED : 1;
}

static const uint64_t busy_words[] = {1,
                                      2,
                                      WORD_SUM_MASK - 1,
                                      WORD_SUM_MASK,
                                      WORD_POISON,
                                      WORD_CLAIMED,
                                      WORD_CONTENDED + 1,
                                      WORD_CONTENDED + 2,
                                      WORD_CONTENDED + 3,
                                      WORD_CONTENDED + 1000};
enum { BUSY_WORDS = sizeof busy_words / sizeof *busy_words };

START_TEST(a_word_is_idle_or_a_sum_or_contended_or_claimed)
{
    ck_assert(!word_is_sum(WORD_IDLE) && !word_is_contended(WORD_IDLE));
    for (int i = 0; i < BUSY_WORDS; i++) {
        uint64_t word = busy_words[i];
        ck_assert_int_eq(word_is_sum(word) + word_is_contended(word) + (word == WORD_CLAIMED), 1);
    }
}
END_TEST

START_TEST(joining_adds_one_request_and_leaves_no_sole_owner)
{
    for (int i = 0; i < BUSY_WORDS; i++) {
        uint64_t joined = word_joined(busy_words[i]);
        ck_assert(word_is_contended(joined));
        ck_assert_uint_eq(requests_of(joined), requests_of(busy_words[i]) + 1);
    }
}
END_TEST

START_TEST(leaving_takes_one_request_away_and_the_last_leaves_idle)
{
    for (int i = 0; i < BUSY_WORDS; i++) {
        uint64_t left = word_left(busy_words[i]);
        ck_assert_uint_eq(requests_of(left), requests_of(busy_words[i]) - 1);
        ck_assert(left == WORD_IDLE || word_is_contended(left));
    }
}
END_TEST

START_TEST(a_mutator_keeps_the_count_and_takes_the_sum_away)
{
    ck_assert_uint_eq(word_mutated(WORD_IDLE), WORD_IDLE);
    for (int i = 0; i < BUSY_WORDS; i++) {
        uint64_t mutated = word_mutated(busy_words[i]);
        ck_assert(word_is_contended(mutated));
        ck_assert_uint_eq(requests_of(mutated), requests_of(busy_words[i]));
    }
}
END_TEST

START_TEST(counting_down_stops_at_idle)
{
    _Atomic uint64_t word = WORD_CONTENDED + 3;
    for (uint64_t left = 2; left > 0; left--) {
        word_count_down(&word);
        ck_assert_uint_eq(word, WORD_CONTENDED + left);
    }
    word_count_down(&word);
    ck_assert_uint_eq(word, WORD_IDLE);
    word_count_down(&word);
    ck_assert_uint_eq(word, WORD_IDLE);
}
END_TEST

/* ---- One writer. ---- */

START_TEST(an_announced_block_shows_its_new_sum_as_pending)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    words_set(map, 2, OLD, WORD_IDLE);
    announce(&write, 2, 1, NEW);
    ck_assert_words(map, 2, OLD, NEW);
    withdraw(&write, 2, 1);
}
END_TEST

START_TEST(a_request_is_in_flight_from_open_to_close)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    ck_assert(!flight_others_over(map->id, 3, FLIGHT_BEYOND, false));
    open_write(&write, 3, 1);
    ck_assert(flight_others_over(map->id, 3, FLIGHT_BEYOND, false));
    announce_close(&write);
    ck_assert(!flight_others_over(map->id, 3, FLIGHT_BEYOND, false));
}
END_TEST

START_TEST(published_sums_are_recorded_and_idle)
{
    struct announcement write;
    map_fixture_new(&fixture, 64);
    announce(&write, 10, 50, NEW);
    publish(&write, 10, 50);
    for (uint64_t block = 10; block < 60; block++)
        ck_assert_words(map, block, NEW + block - 10, WORD_IDLE);
    ck_assert_words(map, 9, WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 60, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_range_across_units_and_windows_is_published_whole)
{
    const uint64_t first = REGION_BLOCKS - 20;
    struct announcement write;
    map_fixture_new(&fixture, 0);
    ck_assert_int_eq(locked_map_cover(map, first, 40), 0);
    announce(&write, first, 40, NEW);
    publish(&write, first, 40);
    for (uint64_t i = 0; i < 40; i++)
        ck_assert_words(map, first + i, NEW + i, WORD_IDLE);
}
END_TEST

START_TEST(one_write_may_publish_withdraw_and_forget_parts_of_its_range)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    for (uint64_t block = 0; block < 6; block++)
        words_set(map, block, OLD + block, WORD_IDLE);
    announce(&write, 0, 6, NEW);
    announce_publish(&write, 0, 2);
    announce_forget(&write, 2, 2);
    announce_withdraw(&write, 4, 2);
    announce_close(&write);
    ck_assert_words(map, 1, NEW + 1, WORD_IDLE);
    ck_assert_words(map, 2, WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 5, OLD + 5, WORD_IDLE);
}
END_TEST

START_TEST(withdrawn_sums_leave_what_was_recorded)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    words_set(map, 1, OLD, WORD_IDLE);
    announce(&write, 1, 1, NEW);
    withdraw(&write, 1, 1);
    ck_assert_words(map, 1, OLD, WORD_IDLE);
}
END_TEST

START_TEST(forgotten_blocks_are_unknown)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    words_set(map, 1, OLD, WORD_IDLE);
    announce(&write, 1, 1, NEW);
    forget(&write, 1, 1);
    ck_assert_words(map, 1, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_whole_write_cures_a_poisoned_block)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    words_set(map, 1, WORD_POISON, WORD_IDLE);
    announce(&write, 1, 1, NEW);
    publish(&write, 1, 1);
    ck_assert_words(map, 1, NEW, WORD_IDLE);
}
END_TEST

START_TEST(published_blocks_are_counted)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    uint64_t before = stats_get(STAT_blocks_summed);
    announce(&write, 0, 5, NEW);
    announce_publish(&write, 0, 3);
    announce_withdraw(&write, 3, 2);
    announce_close(&write);
    ck_assert_uint_eq(stats_get(STAT_blocks_summed) - before, 3);
}
END_TEST

/* ---- Two and more. ---- */

START_TEST(two_writers_leave_their_common_block_unknown_whoever_ends_first)
{
    map_fixture_new(&fixture, 8);
    for (int first_ends_first = 0; first_ends_first < 2; first_ends_first++) {
        struct announcement first, second;
        words_set(map, 4, OLD, WORD_IDLE);
        announce(&first, 4, 1, NEW);
        announce(&second, 4, 1, OTHER);
        ck_assert_words(map, 4, OLD, WORD_CONTENDED + 2);
        publish(first_ends_first ? &first : &second, 4, 1);
        ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 1);
        publish(first_ends_first ? &second : &first, 4, 1);
        ck_assert_words(map, 4, WORD_UNKNOWN, WORD_IDLE);
    }
}
END_TEST

START_TEST(writers_of_neighbouring_blocks_do_not_disturb_each_other)
{
    struct announcement left, right;
    map_fixture_new(&fixture, 8);
    announce(&left, 0, 2, NEW);
    announce(&right, 2, 2, OTHER);
    publish(&left, 0, 2);
    publish(&right, 2, 2);
    ck_assert_words(map, 1, NEW + 1, WORD_IDLE);
    ck_assert_words(map, 2, OTHER, WORD_IDLE);
}
END_TEST

START_TEST(a_writer_that_joins_and_withdraws_still_costs_the_other_its_sum)
{
    struct announcement first, second;
    map_fixture_new(&fixture, 8);
    announce(&first, 4, 1, NEW);
    announce(&second, 4, 1, OTHER);
    withdraw(&second, 4, 1);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 1);
    publish(&first, 4, 1);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(writers_that_all_withdraw_leave_what_was_recorded)
{
    struct announcement writers[3];
    map_fixture_new(&fixture, 8);
    words_set(map, 4, OLD, WORD_IDLE);
    for (int i = 0; i < 3; i++)
        announce(&writers[i], 4, 1, NEW);
    ck_assert_words(map, 4, OLD, WORD_CONTENDED + 3);
    for (int i = 0; i < 3; i++)
        withdraw(&writers[i], 4, 1);
    ck_assert_words(map, 4, OLD, WORD_IDLE);
}
END_TEST

START_TEST(the_next_writer_after_a_contention_is_sole_owner_again)
{
    struct announcement first, second;
    map_fixture_new(&fixture, 8);
    announce(&first, 4, 1, NEW);
    announce(&second, 4, 1, OTHER);
    publish(&first, 4, 1);
    publish(&second, 4, 1);
    announce(&first, 4, 1, NEW);
    publish(&first, 4, 1);
    ck_assert_words(map, 4, NEW, WORD_IDLE);
}
END_TEST

START_TEST(contended_blocks_are_counted)
{
    struct announcement first, second;
    map_fixture_new(&fixture, 8);
    uint64_t before = stats_get(STAT_contended_blocks);
    announce(&first, 0, 4, NEW);
    announce(&second, 2, 4, OTHER);
    ck_assert_uint_eq(stats_get(STAT_contended_blocks) - before, 2);
    publish(&first, 0, 4);
    publish(&second, 2, 4);
}
END_TEST

static bool announce_and_pause(struct peer *peer, void *argument)
{
    struct announcement write;
    (void)argument;
    map_fixture_reopen(&fixture);
    announce(&write, 4, 1, OTHER);
    peer_pause(peer);
    publish(&write, 4, 1);
    return true;
}

START_TEST(a_writer_in_another_process_is_met_like_one_in_this)
{
    struct peer peer;
    struct announcement write;
    map_fixture_new(&fixture, 8);
    peer_start(&peer, announce_and_pause, NULL);
    peer_reach(&peer);
    announce(&write, 4, 1, NEW);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 2);
    publish(&write, 4, 1);
    peer_continue(&peer);
    peer_end(&peer);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(what_another_process_publishes_is_seen_here)
{
    struct peer peer;
    map_fixture_new(&fixture, 8);
    peer_start(&peer, announce_and_pause, NULL);
    peer_reach(&peer);
    ck_assert_words(map, 4, WORD_UNKNOWN, OTHER);
    peer_continue(&peer);
    peer_end(&peer);
    ck_assert_words(map, 4, OTHER, WORD_IDLE);
}
END_TEST

/* ---- Orphans. ---- */

START_TEST(an_orphan_of_any_kind_is_taken_over)
{
    map_fixture_new(&fixture, 8);
    for (int i = 0; i < BUSY_WORDS; i++) {
        struct announcement write;
        words_set(map, 4, OLD, busy_words[i]);
        announce(&write, 4, 1, NEW);
        ck_assert_words(map, 4, OLD, NEW);
        publish(&write, 4, 1);
        ck_assert_words(map, 4, NEW, WORD_IDLE);
    }
}
END_TEST

START_TEST(a_live_request_over_another_block_does_not_keep_an_orphan_alive)
{
    struct announcement elsewhere, write;
    map_fixture_new(&fixture, 8);
    open_write(&elsewhere, 5, 3);
    words_set(map, 4, OLD, OTHER);
    announce(&write, 4, 1, NEW);
    publish(&write, 4, 1);
    ck_assert_words(map, 4, NEW, WORD_IDLE);
    announce_close(&elsewhere);
}
END_TEST

START_TEST(a_live_request_over_the_block_keeps_a_word_from_being_taken_over)
{
    struct announcement entering, write;
    map_fixture_new(&fixture, 8);
    open_write(&entering, 4, 1);
    words_set(map, 4, OLD, OTHER);
    announce(&write, 4, 1, NEW);
    ck_assert_words(map, 4, OLD, WORD_CONTENDED + 2);
    publish(&write, 4, 1);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 1);
    announce_close(&entering);
}
END_TEST

START_TEST(what_was_left_by_a_session_that_died_in_flight_is_not_taken_over)
{
    struct peer peer;
    struct announcement write;
    map_fixture_new(&fixture, 8);
    peer_start(&peer, announce_and_pause, NULL);
    peer_reach(&peer);
    peer_kill(&peer);
    announce(&write, 4, 1, NEW);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 2);
    publish(&write, 4, 1);
    ck_assert_uint_eq(words_of(map, 4)->current, WORD_UNKNOWN);
}
END_TEST

/* ---- Mutators. ---- */

START_TEST(nothing_is_published_under_a_mutator)
{
    struct announcement write;
    struct mutation mutation;
    map_fixture_new(&fixture, 8);
    for (uint64_t block = 0; block < 8; block++)
        words_set(map, block, OLD, WORD_IDLE);
    mutate_open(&mutation, map, 2, 3, TRANSPORT_BLOCKING, false);
    announce(&write, 0, 8, NEW);
    publish(&write, 0, 8);
    for (uint64_t block = 0; block < 8; block++)
        ck_assert_words(map, block, block >= 2 && block < 5 ? WORD_UNKNOWN : NEW + block, WORD_IDLE);
    mutate_close(&mutation, 2, 0);
}
END_TEST

START_TEST(a_mutator_that_came_and_went_during_a_write_leaves_it_unknown)
{
    struct announcement write;
    struct mutation mutation;
    map_fixture_new(&fixture, 8);
    words_set(map, 4, OLD, WORD_IDLE);
    announce(&write, 4, 1, NEW);
    mutate_open(&mutation, map, 4, 1, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 4, 1);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_CONTENDED + 1);
    publish(&write, 4, 1);
    ck_assert_words(map, 4, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_count_left_too_high_by_a_dead_mutator_does_not_hold_up_publishing)
{
    struct announcement write;
    map_fixture_new(&fixture, 8);
    atomic_fetch_add(&map->header->unsettled, 1);
    announce(&write, 4, 1, NEW);
    publish(&write, 4, 1);
    ck_assert_words(map, 4, NEW, WORD_IDLE);
}
END_TEST

START_TEST(nothing_is_left_in_flight_at_the_end)
{
    struct announcement writers[20];
    map_fixture_new(&fixture, 64);
    for (uint64_t i = 0; i < 20; i++)
        announce(&writers[i], i * 3, 4, NEW);
    for (uint64_t i = 0; i < 20; i++)
        publish(&writers[i], i * 3, 4);
    for (uint64_t block = 0; block < 64; block++)
        ck_assert(!flight_others_over(map->id, block, FLIGHT_BEYOND, false));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_word_is_idle_or_a_sum_or_contended_or_claimed,
        joining_adds_one_request_and_leaves_no_sole_owner,
        leaving_takes_one_request_away_and_the_last_leaves_idle,
        a_mutator_keeps_the_count_and_takes_the_sum_away,
        counting_down_stops_at_idle,
        an_announced_block_shows_its_new_sum_as_pending,
        a_request_is_in_flight_from_open_to_close,
        published_sums_are_recorded_and_idle,
        a_range_across_units_and_windows_is_published_whole,
        one_write_may_publish_withdraw_and_forget_parts_of_its_range,
        withdrawn_sums_leave_what_was_recorded,
        forgotten_blocks_are_unknown,
        a_whole_write_cures_a_poisoned_block,
        published_blocks_are_counted,
        two_writers_leave_their_common_block_unknown_whoever_ends_first,
        writers_of_neighbouring_blocks_do_not_disturb_each_other,
        a_writer_that_joins_and_withdraws_still_costs_the_other_its_sum,
        writers_that_all_withdraw_leave_what_was_recorded,
        the_next_writer_after_a_contention_is_sole_owner_again,
        contended_blocks_are_counted,
        a_writer_in_another_process_is_met_like_one_in_this,
        what_another_process_publishes_is_seen_here,
        an_orphan_of_any_kind_is_taken_over,
        a_live_request_over_another_block_does_not_keep_an_orphan_alive,
        a_live_request_over_the_block_keeps_a_word_from_being_taken_over,
        what_was_left_by_a_session_that_died_in_flight_is_not_taken_over,
        nothing_is_published_under_a_mutator,
        a_mutator_that_came_and_went_during_a_write_leaves_it_unknown,
        a_count_left_too_high_by_a_dead_mutator_does_not_hold_up_publishing,
        nothing_is_left_in_flight_at_the_end,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "announce", 20, NULL, tests);
}
