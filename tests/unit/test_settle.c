/* Settling: what becomes of the requests of a session that died between any two of its steps. */
#include <check.h>
#include <unistd.h>

#include "base/process.h"
#include "bounce/guard.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "checksum/question.h"
#include "checksum/region.h"
#include "checksum/session_peers.h"
#include "checksum/settle.h"
#include "checksum/window.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCKS = 64, OLD = 1001, NEW = 2001, TORN = 3001 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

/* ---- A file of which only the checksums matter. ---- */

static uint64_t content[BLOCKS];
static int64_t modified = WINDOW_CANNOT_TELL;
static bool barrier_works;
static uint64_t barrier_first, barrier_blocks;

static uint64_t sum_of(const struct settle_file *file, uint64_t block)
{
    (void)file;
    return content[block];
}

static bool wait_in_barrier(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file;
    barrier_first = first;
    barrier_blocks = blocks;
    return barrier_works;
}

static int64_t modified_of(const struct settle_file *file)
{
    (void)file;
    return modified;
}

static uint64_t settle(void)
{
    static const struct settle_file file = {.sum = sum_of, .barrier = wait_in_barrier, .modified = modified_of};
    return settle_map(map, &file);
}

static bool is_in_flight(uint64_t block)
{
    return flight_others_over(map->id, block, FLIGHT_BEYOND, false);
}

/* ---- Sessions that die. ---- */

static void new_map(void)
{
    map_fixture_new(&fixture, BLOCKS);
    for (uint64_t block = 0; block < BLOCKS; block++) {
        words_set(map, block, OLD + block, WORD_IDLE);
        content[block] = OLD + block;
    }
}

/* A write of blocks 10 to 14, announced and no more. */
static bool announce_and_die(struct peer *peer, void *argument)
{
    struct announcement announcement;
    const enum flight_transport *transport = argument;
    uint64_t sums[5];
    (void)peer;
    map_fixture_reopen(&fixture);
    for (uint64_t i = 0; i < 5; i++)
        sums[i] = NEW + 10 + i;
    announce_open(&announcement, map, 10, 5, FLIGHT_WRITE, transport ? *transport : TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, 10, 5, sums);
    return true;
}

static void leave_a_dead_write(void)
{
    new_map();
    peer_run(announce_and_die, NULL);
}

/* A page that cannot be read any more. A fault whose signal is blocked would kill. */
START_TEST(memory_of_the_map_that_fails_meanwhile_is_repaired)
{
    ck_assert(process_start());
    guard_install();
    leave_a_dead_write();
    ck_assert_int_eq(truncate(map_fixture_map_path(&fixture, map), 2 * FORMAT_PAGE), 0);
    settle();
    ck_assert(!map_is_usable(map));
}
END_TEST

START_TEST(a_dead_session_s_requests_count_until_they_are_settled)
{
    leave_a_dead_write();
    ck_assert(is_in_flight(10) && settle_is_due(map));
    settle();
    ck_assert(!is_in_flight(10) && !settle_is_due(map));
}
END_TEST

static bool announce_and_pause(struct peer *peer, void *argument)
{
    announce_and_die(peer, argument);
    peer_pause(peer);
    return true;
}

START_TEST(a_living_session_s_requests_are_left_alone)
{
    struct peer peer;
    new_map();
    peer_start(&peer, announce_and_pause, NULL);
    peer_reach(&peer);
    content[11] = NEW + 11;
    ck_assert(!settle_is_due(map));
    settle();
    ck_assert_words(map, 11, OLD + 11, NEW + 11);
    ck_assert(is_in_flight(10));
    peer_kill(&peer);
    ck_assert(settle_is_due(map));
}
END_TEST

START_TEST(a_block_that_was_written_takes_the_new_checksum)
{
    leave_a_dead_write();
    content[11] = NEW + 11;
    ck_assert_uint_eq(settle(), 0);
    ck_assert_words(map, 11, NEW + 11, WORD_IDLE);
}
END_TEST

START_TEST(a_block_that_was_not_written_keeps_its_checksum)
{
    leave_a_dead_write();
    ck_assert_uint_eq(settle(), 0);
    ck_assert_words(map, 11, OLD + 11, WORD_IDLE);
}
END_TEST

START_TEST(a_torn_block_is_unknown_and_counted)
{
    leave_a_dead_write();
    content[11] = TORN;
    ck_assert_uint_eq(settle(), 1);
    ck_assert_words(map, 11, WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 12, OLD + 12, WORD_IDLE);
}
END_TEST

START_TEST(a_block_that_cannot_be_read_is_unknown)
{
    leave_a_dead_write();
    content[11] = WORD_UNKNOWN;
    settle();
    ck_assert_words(map, 11, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(settling_leaves_other_blocks_alone)
{
    leave_a_dead_write();
    content[9] = content[15] = TORN;
    settle();
    ck_assert_words(map, 9, OLD + 9, WORD_IDLE);
    ck_assert_words(map, 15, OLD + 15, WORD_IDLE);
}
END_TEST

START_TEST(what_is_settled_is_in_a_durable_region)
{
    leave_a_dead_write();
    content[11] = NEW + 11;
    settle();
    ck_assert(region_are_durable(map, 11, 1));
}
END_TEST

static bool ask_and_die(struct peer *peer, void *argument)
{
    struct question question;
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    return question_open(&question, map, 10, false) == VERDICT_SUSPECT;
}

START_TEST(a_dead_question_leaves_its_answer_to_the_next_reader)
{
    new_map();
    content[10] = TORN; /* damaged: that must not be forgotten */
    peer_run(ask_and_die, NULL);
    settle();
    ck_assert_words(map, 10, OLD + 10, WORD_IDLE);
}
END_TEST

static bool write_an_edge_and_die(struct peer *peer, void *argument)
{
    struct announcement announcement;
    struct edge edge;
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    announce_open(&announcement, map, 10, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce(&announcement, &edge, 10);
    return true;
}

START_TEST(a_dead_partial_write_that_did_not_land_leaves_the_checksum)
{
    new_map();
    peer_run(write_an_edge_and_die, NULL);
    ck_assert_uint_eq(settle(), 0);
    ck_assert_words(map, 10, OLD + 10, WORD_IDLE);
}
END_TEST

START_TEST(a_dead_partial_write_that_landed_makes_the_block_unknown)
{
    new_map();
    peer_run(write_an_edge_and_die, NULL);
    content[10] = TORN;
    ck_assert_uint_eq(settle(), 1);
    ck_assert_words(map, 10, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(two_dead_sessions_over_one_block_are_settled_together)
{
    new_map();
    peer_run(announce_and_die, NULL);
    peer_run(announce_and_die, NULL);
    settle();
    ck_assert(!is_in_flight(10));
    ck_assert_words(map, 10, OLD + 10, WORD_IDLE);
}
END_TEST

static bool mutate_and_die(struct peer *peer, void *argument)
{
    struct mutation mutation;
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    return mutate_open(&mutation, map, 20, 4, TRANSPORT_BLOCKING, false) == 0;
}

START_TEST(a_dead_mutator_s_range_is_unknown_and_it_is_no_longer_counted)
{
    new_map();
    peer_run(mutate_and_die, NULL);
    ck_assert_uint_eq(map->header->unsettled, 1);
    settle();
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert_words(map, 19, OLD + 19, WORD_IDLE);
    ck_assert_words(map, 20, WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 23, WORD_UNKNOWN, WORD_IDLE);
    ck_assert_words(map, 24, OLD + 24, WORD_IDLE);
}
END_TEST

START_TEST(a_block_that_somebody_else_is_writing_is_left_for_later)
{
    struct announcement announcement;
    leave_a_dead_write();
    announce_open(&announcement, map, 12, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    settle();
    ck_assert_words(map, 12, OLD + 12, NEW + 12);
    ck_assert_msg(is_in_flight(10), "the dead entry was dropped with a block unsettled");
    ck_assert_words(map, 11, OLD + 11, WORD_IDLE);
    announce_close(&announcement);
    settle();
    ck_assert(!is_in_flight(10));
    ck_assert_words(map, 12, OLD + 12, WORD_IDLE);
}
END_TEST

START_TEST(a_settled_session_s_slot_is_used_again)
{
    leave_a_dead_write();
    settle();
    unsigned count = session_peer_count();
    peer_run(announce_and_die, NULL);
    ck_assert_uint_eq(session_peer_count(), count);
}
END_TEST

START_TEST(an_unsettled_session_s_slot_is_not_used_again)
{
    leave_a_dead_write();
    unsigned count = session_peer_count();
    peer_run(announce_and_die, NULL);
    ck_assert_uint_eq(session_peer_count(), count + 1);
}
END_TEST

/* ---- io_uring. ---- */

static const enum flight_transport uring = TRANSPORT_URING;

START_TEST(requests_of_io_uring_are_settled_behind_a_barrier)
{
    new_map();
    peer_run(announce_and_die, (void *)(uintptr_t)&uring);
    barrier_works = true;
    content[11] = NEW + 11;
    settle();
    ck_assert_uint_eq(barrier_first, 10);
    ck_assert_uint_eq(barrier_blocks, 5);
    ck_assert_words(map, 11, NEW + 11, WORD_IDLE);
    ck_assert(!is_in_flight(10));
}
END_TEST

START_TEST(without_a_barrier_requests_of_io_uring_stay_live)
{
    new_map();
    peer_run(announce_and_die, (void *)(uintptr_t)&uring);
    peer_run(mutate_and_die, NULL);
    barrier_works = false;
    settle();
    ck_assert(is_in_flight(10));
    ck_assert_words(map, 11, OLD + 11, NEW + 11);
    ck_assert_msg(map->header->unsettled == 0, "a blocking request was not settled because of another one");
}
END_TEST

/* ---- Who settles. ---- */

static bool settle_in_a_peer(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    settle();
    return true;
}

START_TEST(one_settler_at_a_time)
{
    leave_a_dead_write();
    uint64_t token = atomic_load(&session_state->self)->started << 13 | (session_state->slot + 1);
    map->header->settle_lock = token;
    peer_run(settle_in_a_peer, NULL);
    ck_assert(is_in_flight(10));
    map->header->settle_lock = 0;
    peer_run(settle_in_a_peer, NULL);
    ck_assert(!is_in_flight(10));
}
END_TEST

static bool lock_and_die(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    map->header->settle_lock = atomic_load(&session_state->self)->started << 13 | (session_state->slot + 1);
    return true;
}

START_TEST(a_dead_settler_s_lock_is_taken_over)
{
    leave_a_dead_write();
    peer_run(lock_and_die, NULL);
    settle();
    ck_assert(!is_in_flight(10));
    ck_assert_uint_eq(map->header->settle_lock, 0);
}
END_TEST

START_TEST(a_lock_of_nobody_is_taken_over)
{
    leave_a_dead_write();
    map->header->settle_lock = UINT64_MAX;
    settle();
    ck_assert(!is_in_flight(10));
}
END_TEST

/* ---- Time. ---- */

START_TEST(a_dead_write_is_no_change_from_outside)
{
    bool first;
    leave_a_dead_write();
    modified = window_now() + INT64_C(100000000);
    map->header->window_issue = map->header->window_completion = modified - INT64_C(5000000000);
    settle();
    ck_assert(!window_changed_outside(map, modified, FLIGHT_BEYOND, &first));
}
END_TEST

START_TEST(times_from_before_the_dead_write_are_a_backups)
{
    bool first;
    leave_a_dead_write();
    int64_t created = window_now() - INT64_C(5000000000);
    map->header->window_issue = map->header->window_completion = created;
    modified = window_now();
    settle();
    ck_assert(window_changed_outside(map, created, FLIGHT_BEYOND, &first));
}
END_TEST

START_TEST(an_edit_before_the_dead_request_was_issued_is_a_change_from_outside)
{
    bool first;
    leave_a_dead_write();
    modified = window_now() - INT64_C(5000000000);
    map->header->window_issue = map->header->window_completion = modified - INT64_C(5000000000);
    settle();
    ck_assert(window_changed_outside(map, modified, FLIGHT_BEYOND, &first));
}
END_TEST

static bool map_shared_and_die(struct peer *peer, void *argument)
{
    struct mutation mutation;
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    return mutate_open(&mutation, map, 20, FLIGHT_TO_END, TRANSPORT_MEMORY, false) == 0;
}

START_TEST(an_edit_after_the_death_of_a_shared_mapping_is_a_change_from_outside)
{
    bool first;
    new_map();
    peer_run(map_shared_and_die, NULL);
    map->header->window_issue = map->header->window_completion = window_now();
    modified = window_now() + INT64_C(60000000000);
    settle();
    ck_assert(window_changed_outside(map, modified, FLIGHT_BEYOND, &first));
}
END_TEST

START_TEST(an_edit_seconds_after_the_death_is_a_change_from_outside)
{
    bool first;
    leave_a_dead_write();
    map->header->window_issue = map->header->window_completion = window_now();
    modified = window_now() + INT64_C(2000000000);
    settle();
    ck_assert(window_changed_outside(map, modified, FLIGHT_BEYOND, &first));
}
END_TEST

START_TEST(a_request_beyond_a_dead_session_s_table_makes_its_maps_unknown)
{
    leave_a_dead_write();
    atomic_store(&session_peer(session_state->slot + 1, false)->flights_beyond, 1);
    settle();
    ck_assert_words(map, 40, WORD_UNKNOWN, WORD_IDLE);
    ck_assert(!settle_is_due(map));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_dead_session_s_requests_count_until_they_are_settled,
        memory_of_the_map_that_fails_meanwhile_is_repaired,
        a_living_session_s_requests_are_left_alone,
        a_block_that_was_written_takes_the_new_checksum,
        a_block_that_was_not_written_keeps_its_checksum,
        a_torn_block_is_unknown_and_counted,
        a_block_that_cannot_be_read_is_unknown,
        settling_leaves_other_blocks_alone,
        what_is_settled_is_in_a_durable_region,
        a_dead_question_leaves_its_answer_to_the_next_reader,
        a_dead_partial_write_that_did_not_land_leaves_the_checksum,
        a_dead_partial_write_that_landed_makes_the_block_unknown,
        two_dead_sessions_over_one_block_are_settled_together,
        a_dead_mutator_s_range_is_unknown_and_it_is_no_longer_counted,
        a_block_that_somebody_else_is_writing_is_left_for_later,
        a_settled_session_s_slot_is_used_again,
        an_unsettled_session_s_slot_is_not_used_again,
        requests_of_io_uring_are_settled_behind_a_barrier,
        without_a_barrier_requests_of_io_uring_stay_live,
        one_settler_at_a_time,
        a_dead_settler_s_lock_is_taken_over,
        a_lock_of_nobody_is_taken_over,
        a_dead_write_is_no_change_from_outside,
        times_from_before_the_dead_write_are_a_backups,
        an_edit_before_the_dead_request_was_issued_is_a_change_from_outside,
        an_edit_after_the_death_of_a_shared_mapping_is_a_change_from_outside,
        an_edit_seconds_after_the_death_is_a_change_from_outside,
        a_request_beyond_a_dead_session_s_table_makes_its_maps_unknown,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "settle", 20, NULL, tests);
}
