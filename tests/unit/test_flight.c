/* The tables of requests in flight: what they say of every block, whoever asks. */
#include <check.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/process.h"
#include "checksum/session_peers.h"
#include "support/session_fixture.h"
#include "support/support.h"

START_TEST(a_request_covers_its_blocks_and_no_others)
{
    session_fixture_open();
    int entry = enter(10, 5, FLIGHT_WRITE);
    ck_assert(!others_over(9, FLIGHT_BEYOND));
    ck_assert(others_over(10, FLIGHT_BEYOND));
    ck_assert(others_over(14, FLIGHT_BEYOND));
    ck_assert(!others_over(15, FLIGHT_BEYOND));
    ck_assert(!flight_others_over(OTHER_MAP, 12, FLIGHT_BEYOND, false));
    flight_leave(entry);
    ck_assert(!others_over(12, FLIGHT_BEYOND));
}
END_TEST

START_TEST(a_request_to_the_end_covers_everything_from_its_first_block_on)
{
    session_fixture_open();
    int entry = enter(10, FLIGHT_TO_END, FLIGHT_MUTATOR);
    ck_assert(!others_over(9, FLIGHT_BEYOND));
    ck_assert(others_over(MAP_BLOCKS_MAX, FLIGHT_BEYOND));
    flight_leave(entry);
}
END_TEST

START_TEST(a_request_is_no_other_to_itself)
{
    session_fixture_open();
    int first = enter(10, 5, FLIGHT_WRITE);
    ck_assert(!others_over(12, first));
    int second = enter(12, 5, FLIGHT_WRITE);
    ck_assert(others_over(12, first));
    ck_assert(others_over(12, second));
    ck_assert(!others_over(10, first));
    flight_leave(first);
    flight_leave(second);
}
END_TEST

START_TEST(every_kind_of_request_is_seen_by_those_it_concerns)
{
    static const struct {
        enum flight_kind kind;
        bool mutates, writes;
    } kinds[] = {{FLIGHT_WRITE, false, true},
                 {FLIGHT_QUESTION, false, false},
                 {FLIGHT_MUTATOR, true, true},
                 {FLIGHT_ADOPTION, false, false},
                 {FLIGHT_SETTLER, false, false}};
    session_fixture_open();
    for (int i = 0; i < 5; i++) {
        int entry = enter(10, 5, kinds[i].kind);
        ck_assert(others_over(12, FLIGHT_BEYOND));
        ck_assert_int_eq(flight_mutator_covers(MAP_ID, 12, false), kinds[i].mutates);
        ck_assert(!flight_mutator_covers(MAP_ID, 15, false));
        ck_assert_int_eq(flight_writers_of(MAP_ID, FLIGHT_BEYOND), kinds[i].writes);
        ck_assert(!flight_writers_of(MAP_ID, entry));
        ck_assert(!flight_writers_of(OTHER_MAP, FLIGHT_BEYOND));
        flight_leave(entry);
    }
}
END_TEST

START_TEST(left_entries_are_used_again)
{
    session_fixture_open();
    for (int i = 0; i < 10 * SESSION_FLIGHTS; i++) {
        int entry = enter(10, 5, FLIGHT_WRITE);
        ck_assert_int_ne(entry, FLIGHT_BEYOND);
        flight_leave(entry);
    }
}
END_TEST

static void *leave_entry(void *entry)
{
    flight_leave(*(const int *)entry);
    return NULL;
}

/* One thread submits, another sees completions: every look at the table walks over all that were ever used. */
START_TEST(entries_that_another_thread_leaves_are_used_again_before_new_ones)
{
    enum { DEPTH = 16, ROUNDS = 1500 };
    int entries[DEPTH];
    session_fixture_open();
    for (int i = 0; i < DEPTH; i++)
        entries[i] = enter((uint64_t)i, 1, FLIGHT_WRITE);
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, leave_entry, &entries[i % DEPTH]), 0);
        pthread_join(thread, NULL);
        entries[i % DEPTH] = enter(0, 1, FLIGHT_WRITE);
    }
    ck_assert_uint_le(atomic_load(&session_state->self)->flights_high, 64 + 3 * DEPTH);
}
END_TEST

START_TEST(all_entries_of_the_table_are_seen)
{
    session_fixture_open();
    for (uint64_t i = 0; i < SESSION_FLIGHTS; i++)
        ck_assert_int_ne(enter(i * 10, 1, FLIGHT_WRITE), FLIGHT_BEYOND);
    for (uint64_t i = 0; i < SESSION_FLIGHTS; i++)
        ck_assert(others_over(i * 10, FLIGHT_BEYOND) && !others_over(i * 10 + 1, FLIGHT_BEYOND));
}
END_TEST

START_TEST(a_request_beyond_the_table_counts_for_every_block_of_the_session_s_maps)
{
    session_fixture_open();
    for (int i = 0; i < SESSION_FLIGHTS; i++)
        ck_assert_int_ne(enter(10, 1, FLIGHT_WRITE), FLIGHT_BEYOND);
    ck_assert(!others_over(1000, FLIGHT_BEYOND));
    ck_assert_int_eq(enter(10, 1, FLIGHT_WRITE), FLIGHT_BEYOND);
    ck_assert(!others_over(1000, FLIGHT_BEYOND));
    session_use_map(MAP_ID);
    ck_assert(others_over(1000, FLIGHT_BEYOND));
    ck_assert(!flight_others_over(OTHER_MAP, 1000, FLIGHT_BEYOND, true));
    session_use_map(OTHER_MAP);
    ck_assert(flight_others_over(OTHER_MAP, 1000, FLIGHT_BEYOND, true));
    ck_assert(flight_mutator_covers(OTHER_MAP, 1000, false));
    ck_assert(flight_writers_of(OTHER_MAP, FLIGHT_BEYOND));
    flight_leave(FLIGHT_BEYOND);
    ck_assert(!others_over(1000, FLIGHT_BEYOND));
    ck_assert(!flight_writers_of(OTHER_MAP, FLIGHT_BEYOND));
}
END_TEST

static bool enter_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    int entry = enter(10, 5, FLIGHT_MUTATOR);
    peer_pause(peer);
    flight_leave(entry);
    peer_pause(peer);
    return true;
}

START_TEST(requests_of_another_process_are_seen_until_they_leave)
{
    struct peer peer;
    session_fixture_open();
    peer_start(&peer, enter_and_pause, NULL);
    peer_reach(&peer);
    ck_assert(others_over(12, FLIGHT_BEYOND) && !others_over(15, FLIGHT_BEYOND));
    ck_assert(flight_mutator_covers(MAP_ID, 12, false));
    ck_assert(flight_writers_of(MAP_ID, FLIGHT_BEYOND));
    peer_continue(&peer);
    peer_reach(&peer);
    ck_assert(!others_over(12, FLIGHT_BEYOND));
    ck_assert(!flight_mutator_covers(MAP_ID, 12, false));
    ck_assert(!flight_writers_of(MAP_ID, FLIGHT_BEYOND));
    peer_continue(&peer);
    peer_end(&peer);
}
END_TEST

/* Dead or alive: finding out takes system calls. */
START_TEST(a_session_not_looked_at_before_counts_as_a_request_for_those_who_must_not_wait)
{
    struct peer peer;
    session_fixture_open();
    peer_start(&peer, session_open_and_pause, NULL);
    peer_reach(&peer);
    ck_assert(flight_others_over(MAP_ID, 12, FLIGHT_BEYOND, true));
    peer_kill(&peer);
    ck_assert(flight_others_over(MAP_ID, 12, FLIGHT_BEYOND, true));
    ck_assert(!flight_others_over(MAP_ID, 12, FLIGHT_BEYOND, false));
    ck_assert(!flight_others_over(MAP_ID, 12, FLIGHT_BEYOND, true)); /* it has been mapped meanwhile */
}
END_TEST

/* Dead or alive: a process that may open nothing more has no look at it. */
START_TEST(a_session_that_cannot_be_looked_at_now_counts_as_a_request)
{
    const struct rlimit nothing = {.rlim_max = 1024}, enough = {1024, 1024};
    enum flight_kind kind = FLIGHT_MUTATOR;
    session_fixture_open();
    peer_run(session_open_enter_and_die, &kind);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &nothing), 0);
    bool covers = flight_mutator_covers(MAP_ID, 12, false), covers_more = flight_mutator_covers(MAP_ID, 15, false);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &enough), 0);
    ck_assert(covers && covers_more);
    ck_assert(flight_mutator_covers(MAP_ID, 12, false) && !flight_mutator_covers(MAP_ID, 15, false));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_request_covers_its_blocks_and_no_others,
        a_request_to_the_end_covers_everything_from_its_first_block_on,
        a_request_is_no_other_to_itself,
        every_kind_of_request_is_seen_by_those_it_concerns,
        left_entries_are_used_again,
        entries_that_another_thread_leaves_are_used_again_before_new_ones,
        all_entries_of_the_table_are_seen,
        a_request_beyond_the_table_counts_for_every_block_of_the_session_s_maps,
        requests_of_another_process_are_seen_until_they_leave,
        a_session_not_looked_at_before_counts_as_a_request_for_those_who_must_not_wait,
        a_session_that_cannot_be_looked_at_now_counts_as_a_request,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "flight", 20, NULL, tests);
}
