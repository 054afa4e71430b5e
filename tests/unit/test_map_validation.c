/*
 * What another process may write into a map, a session or the shared page while they are used: nothing of it is believed beyond what the
 * files hold. (What is wrong when a map is opened is in test_map_damage.c; what nobody has thought of, in tests/fuzz.)
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/mutate.h"
#include "checksum/question.h"
#include "checksum/region.h"
#include "checksum/session_peers.h"
#include "checksum/settle.h"
#include "checksum/store.h"
#include "checksum/window.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { SUM = 1001, PEER = 1 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

static uint64_t size_of_map(void)
{
    struct stat status;
    ck_assert_int_eq(stat(map_fixture_map_path(&fixture, map), &status), 0);
    return (uint64_t)status.st_size;
}

/* ---- counts of windows ---- */

START_TEST(a_count_of_windows_that_the_file_does_not_hold_does_not_keep_the_map_from_growing)
{
    const uint64_t second_region = REGION_BLOCKS;
    map_fixture_new(&fixture, 1);
    atomic_store(&map->header->windows, MAP_WINDOWS);
    ck_assert_int_eq(locked_map_cover(map, second_region, 1), 0);
    ck_assert_uint_ge(size_of_map(), window_offset(1) + window_state_bytes(1));
    words_set(map, second_region, SUM, WORD_IDLE);
    ck_assert_words(map, second_region, SUM, WORD_IDLE);
}
END_TEST

START_TEST(a_count_of_windows_beyond_all_bounds_is_the_largest_there_can_be)
{
    map_fixture_new(&fixture, 1);
    atomic_store(&map->header->windows, UINT64_MAX);
    ck_assert_uint_eq(map_window_count(map), MAP_WINDOWS);
    map_refresh(map); /* maps what there is */
    ck_assert_words(map, 0, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_count_of_no_windows_is_one)
{
    map_fixture_new(&fixture, 1);
    atomic_store(&map->header->windows, 0);
    ck_assert_uint_eq(map_window_count(map), 1);
    ck_assert(!map_is_behind(map));
}
END_TEST

START_TEST(a_mutation_of_everything_ends_where_the_windows_do)
{
    struct mutation mutation;
    map_fixture_new(&fixture, 1);
    words_set(map, 0, SUM, WORD_IDLE);
    atomic_store(&map->header->windows, MAP_WINDOWS);
    ck_assert_int_eq(mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false), 0);
    mutate_close(&mutation, 0, FLIGHT_TO_END);
    ck_assert_words(map, 0, WORD_UNKNOWN, WORD_IDLE);
    ck_assert(atomic_load(&map->header->flags) & MAP_CHANGED_OUTSIDE); /* windows that could not be reached */
}
END_TEST

/* ---- ranges ---- */

START_TEST(a_range_ends_where_the_windows_do_whatever_its_numbers)
{
    map_fixture_new(&fixture, 1);
    ck_assert_uint_eq(map_range_end(map, 5, 3), 8);
    ck_assert_uint_eq(map_range_end(map, 0, FLIGHT_TO_END), REGION_BLOCKS);
    ck_assert_uint_eq(map_range_end(map, UINT64_MAX, UINT64_MAX), REGION_BLOCKS);
    ck_assert_uint_eq(map_range_end(map, 1, UINT64_MAX), REGION_BLOCKS);
}
END_TEST

/* ---- units ---- */

START_TEST(a_unit_that_vanishes_under_a_request_takes_its_words_along_and_no_more)
{
    struct announcement announcement;
    struct edge edge;
    const uint64_t sum = SUM;
    map_fixture_new(&fixture, 2);
    announce_open(&announcement, map, 0, 2, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, 0, 1, &sum);
    atomic_store(map_region_word(map, 0), 0);
    edge_announce(&announcement, &edge, 1);
    ck_assert_uint_eq(edge.base, WORD_UNKNOWN);
    ck_assert_int_eq(edge_check(&announcement, &edge, SUM), EDGE_UNKNOWN);
    edge_publish(&announcement, &edge, SUM);
    announce_publish(&announcement, 0, 1);
    announce_close(&announcement);
    ck_assert_int_eq(map_verify(map, 0, SUM), VERDICT_UNVERIFIED);
    ck_assert(!flight_any_in(map->id, 0, FLIGHT_TO_END));
}
END_TEST

START_TEST(a_part_of_a_block_beyond_the_end_survives_the_loss_of_its_unit)
{
    struct announcement announcement;
    struct edge edge;
    map_fixture_new(&fixture, 1);
    announce_open(&announcement, map, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    atomic_store(map_region_word(map, 0), 0);
    edge_announce_whole(&announcement, &edge, 0, SUM);
    edge_downgrade(&edge, SUM);
    edge_forget(&announcement, &edge);
    edge_withdraw(&announcement, &edge);
    announce_close(&announcement);
}
END_TEST

START_TEST(blocks_of_a_region_without_units_are_passed_over_at_once)
{
    uint64_t run;
    map_fixture_new(&fixture, 1);
    atomic_store(map_region_word(map, 0), 0);
    ck_assert_ptr_null(map_words(map, 100, &run));
    ck_assert_uint_eq(run, REGION_BLOCKS - 100);
}
END_TEST

/* ---- stamps ---- */

START_TEST(times_beyond_all_bounds_are_compared_without_overflow)
{
    const int64_t times[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
    const size_t count = sizeof times / sizeof times[0];
    bool first;
    map_fixture_new(&fixture, 1);
    for (size_t i = 0; i < count * count; i++) {
        atomic_store(&map->header->window_issue, times[i / count]);
        atomic_store(&map->header->window_completion, times[i % count]);
        window_is_stale(map, window_now());
        window_bridge(map, times[i % count]);
        atomic_store(&map->header->window_issue, times[i / count]);
        atomic_store(&map->header->window_completion, times[i % count]);
        for (size_t j = 1; j < count; j++) {
            bool within = times[j] >= times[i / count] && times[j] <= times[i % count];
            if (within)
                ck_assert(!window_changed_outside(map, times[j], FLIGHT_BEYOND, &first));
            else
                window_changed_outside(map, times[j], FLIGHT_BEYOND, &first);
        }
    }
}
END_TEST

/* ---- other sessions ---- */

/* The file of another session, which is dead: nobody holds its byte. */
static struct session_file *dead_session(void)
{
    char path[FIXTURE_PATH + 32];
    snprintf(path, sizeof path, "%s/sessions/%d", fixture.store, PEER);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, sizeof(struct session_file)), 0);
    ck_assert_int_eq(pwrite(fd, session_state->self, FORMAT_PAGE, 0), FORMAT_PAGE);
    close(fd);
    atomic_store(&store_shared()->slots_high, PEER + 1);
    struct session_file *file = session_peer(PEER, false);
    ck_assert_ptr_nonnull(file);
    file->slot = PEER;
    return file;
}

static void leave_entry(struct session_file *file, enum flight_kind kind, uint64_t first, uint64_t blocks)
{
    file->flights[0].map_id = map->id;
    file->flights[0].first = first;
    file->flights[0].blocks = blocks;
    atomic_store(&file->flights[0].state, kind);
    file->flights_high = 1;
}

static uint64_t cannot_read(const struct settle_file *file, uint64_t block)
{
    (void)file;
    (void)block;
    return WORD_UNKNOWN;
}

static bool no_barrier(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file;
    (void)first;
    (void)blocks;
    return false;
}

static int64_t no_time(const struct settle_file *file)
{
    (void)file;
    return WINDOW_CANNOT_TELL;
}

static const struct settle_file unreadable = {.sum = cannot_read, .barrier = no_barrier, .modified = no_time};

static void assert_settled(enum flight_kind kind, uint64_t first, uint64_t blocks)
{
    map_fixture_new(&fixture, 1);
    struct session_file *dead = dead_session();
    leave_entry(dead, kind, first, blocks);
    ck_assert(settle_is_due(map));
    settle_map(map, &unreadable);
    ck_assert_uint_eq(dead->flights[0].state & 0xff, FLIGHT_FREE);
    ck_assert(!settle_is_due(map));
}

START_TEST(a_dead_write_of_more_blocks_than_there_can_be_is_settled_at_once)
{
    assert_settled(FLIGHT_WRITE, 0, UINT64_MAX);
}
END_TEST

START_TEST(a_dead_write_that_wraps_around_is_settled_at_once)
{
    assert_settled(FLIGHT_WRITE, UINT64_MAX - 5, 100);
}
END_TEST

START_TEST(a_dead_mutator_of_more_blocks_than_there_can_be_is_settled_at_once)
{
    assert_settled(FLIGHT_MUTATOR, 1, UINT64_MAX);
}
END_TEST

START_TEST(an_entry_of_no_known_kind_is_no_request)
{
    map_fixture_new(&fixture, 1);
    struct session_file *dead = dead_session();
    leave_entry(dead, (enum flight_kind)200, 0, 1);
    ck_assert(!settle_is_due(map));
    ck_assert(!flight_any_in(map->id, 0, 1));
}
END_TEST

START_TEST(more_entries_than_a_table_has_are_not_looked_at)
{
    map_fixture_new(&fixture, 1);
    struct session_file *dead = dead_session();
    leave_entry(dead, FLIGHT_WRITE, 0, 1);
    dead->flights_high = UINT64_MAX;
    ck_assert(flight_any_in(map->id, 0, 1));
    ck_assert(!flight_any_in(map->id, 1, 1));
}
END_TEST

START_TEST(more_slots_than_a_store_has_are_not_looked_at)
{
    map_fixture_new(&fixture, 1);
    atomic_store(&store_shared()->slots_high, UINT64_MAX);
    ck_assert_uint_eq(session_peer_count(), STORE_SLOTS);
    ck_assert(!flight_any_in(map->id, 0, 1));
}
END_TEST

START_TEST(a_map_that_an_impossible_session_settles_is_settled_by_somebody_else)
{
    map_fixture_new(&fixture, 1);
    struct session_file *dead = dead_session();
    leave_entry(dead, FLIGHT_WRITE, 0, 1);
    atomic_store(&map->header->settle_lock, UINT64_MAX);
    settle_map(map, &unreadable);
    ck_assert_uint_eq(dead->flights[0].state & 0xff, FLIGHT_FREE);
}
END_TEST

START_TEST(a_session_whose_file_is_too_short_is_not_mapped)
{
    char path[FIXTURE_PATH + 32];
    map_fixture_new(&fixture, 1);
    snprintf(path, sizeof path, "%s/sessions/%d", fixture.store, PEER);
    make_file_behind(path, 1, sizeof(struct session_file) - 1);
    ck_assert_ptr_null(session_peer(PEER, false));
}
END_TEST

START_TEST(a_session_of_another_format_is_not_mapped)
{
    char path[FIXTURE_PATH + 32];
    map_fixture_new(&fixture, 1);
    snprintf(path, sizeof path, "%s/sessions/%d", fixture.store, PEER);
    make_file_behind(path, 1, sizeof(struct session_file));
    ck_assert_ptr_null(session_peer(PEER, false));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_count_of_windows_that_the_file_does_not_hold_does_not_keep_the_map_from_growing,
        a_count_of_windows_beyond_all_bounds_is_the_largest_there_can_be,
        a_count_of_no_windows_is_one,
        a_mutation_of_everything_ends_where_the_windows_do,
        a_range_ends_where_the_windows_do_whatever_its_numbers,
        a_unit_that_vanishes_under_a_request_takes_its_words_along_and_no_more,
        a_part_of_a_block_beyond_the_end_survives_the_loss_of_its_unit,
        blocks_of_a_region_without_units_are_passed_over_at_once,
        times_beyond_all_bounds_are_compared_without_overflow,
        a_dead_write_of_more_blocks_than_there_can_be_is_settled_at_once,
        a_dead_write_that_wraps_around_is_settled_at_once,
        a_dead_mutator_of_more_blocks_than_there_can_be_is_settled_at_once,
        an_entry_of_no_known_kind_is_no_request,
        more_entries_than_a_table_has_are_not_looked_at,
        more_slots_than_a_store_has_are_not_looked_at,
        a_map_that_an_impossible_session_settles_is_settled_by_somebody_else,
        a_session_whose_file_is_too_short_is_not_mapped,
        a_session_of_another_format_is_not_mapped,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "map_validation", 20, NULL, tests);
}
