/* The time window of our last write, and what lies outside of it. */
#include <check.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "checksum/window.h"
#include "support/map_fixture.h"
#include "support/support.h"

#define MILLISECOND INT64_C(1000000)
#define SECOND (1000 * MILLISECOND)

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

/* Not long ago, and no whole second: file systems that cut times to the second are given more tolerance. */
static int64_t issue, completion;

static void set_window(void)
{
    map_fixture_new(&fixture, 8);
    issue = window_now() / SECOND * SECOND - 600 * MILLISECOND;
    completion = issue + 50 * MILLISECOND;
    map->header->window_issue = issue;
    map->header->window_completion = completion;
}

static int64_t tick(void)
{
    struct timespec resolution;
    ck_assert_int_eq(clock_getres(CLOCK_REALTIME_COARSE, &resolution), 0);
    return resolution.tv_nsec;
}

static bool changed(int64_t modified)
{
    bool first;
    return window_changed_outside(map, modified, FLIGHT_BEYOND, &first);
}

static int64_t modified_time(void)
{
    struct stat status;
    ck_assert_int_eq(fstat(fixture.fd, &status), 0);
    return status.st_mtim.tv_sec * SECOND + status.st_mtim.tv_nsec;
}

/* ---- Looking. ---- */

START_TEST(a_time_inside_the_window_is_ours)
{
    set_window();
    ck_assert(!changed(issue) && !changed(issue + MILLISECOND) && !changed(completion));
    ck_assert_uint_eq(map->header->flags, 0);
}
END_TEST

START_TEST(a_newer_time_means_an_edited_file)
{
    set_window();
    ck_assert(changed(completion + 100 * MILLISECOND));
    ck_assert_uint_eq(map->header->flags, MAP_CHANGED_OUTSIDE);
}
END_TEST

START_TEST(an_older_time_means_a_restored_file)
{
    set_window();
    ck_assert(changed(issue - 100 * MILLISECOND));
    ck_assert_uint_eq(map->header->flags, MAP_CHANGED_OUTSIDE);
}
END_TEST

START_TEST(a_tick_of_the_clock_is_tolerated_on_either_side)
{
    set_window();
    ck_assert(!changed(issue - tick()) && !changed(completion + tick()));
    ck_assert(changed(issue - tick() - 1));
    ck_assert(changed(completion + tick() + 1));
}
END_TEST

START_TEST(a_time_cut_to_the_second_may_be_that_much_older)
{
    set_window();
    ck_assert(!changed(issue / SECOND * SECOND));
    ck_assert(changed(issue / SECOND * SECOND - SECOND));
}
END_TEST

START_TEST(a_time_that_cannot_be_had_says_nothing)
{
    bool first = true;
    set_window();
    ck_assert(!window_changed_outside(map, WINDOW_CANNOT_TELL, FLIGHT_BEYOND, &first));
    ck_assert(!first);
    ck_assert_uint_eq(map->header->flags, 0);
}
END_TEST

START_TEST(a_change_is_news_once)
{
    bool first;
    set_window();
    ck_assert(window_changed_outside(map, completion + SECOND + 1, FLIGHT_BEYOND, &first));
    ck_assert(first);
    ck_assert(window_changed_outside(map, completion + SECOND + 1, FLIGHT_BEYOND, &first));
    ck_assert(!first);
}
END_TEST

START_TEST(what_a_broken_map_says_is_no_news)
{
    bool first;
    set_window();
    map->broken = true;
    ck_assert(window_changed_outside(map, completion + SECOND + 1, FLIGHT_BEYOND, &first));
    ck_assert(!first);
}
END_TEST

START_TEST(a_change_leaves_the_map_s_other_flags)
{
    set_window();
    const uint64_t another = MAP_CHANGED_OUTSIDE << 8;
    map->header->flags = another;
    ck_assert(changed(completion + SECOND + 1));
    ck_assert_uint_eq(map->header->flags, another | MAP_CHANGED_OUTSIDE);
}
END_TEST

/* ---- While somebody writes. ---- */

START_TEST(the_window_is_open_ended_while_a_write_or_a_mutator_is_in_flight)
{
    const enum flight_kind kinds[] = {FLIGHT_WRITE, FLIGHT_MUTATOR};
    set_window();
    for (int i = 0; i < 2; i++) {
        int entry = flight_enter(map->id, 0, 1, kinds[i], TRANSPORT_BLOCKING);
        ck_assert(!changed(completion + SECOND + 1));
        flight_leave(entry);
    }
    ck_assert(changed(completion + SECOND + 1));
}
END_TEST

START_TEST(a_question_in_flight_does_not_open_the_window)
{
    set_window();
    int entry = flight_enter(map->id, 0, 1, FLIGHT_QUESTION, TRANSPORT_BLOCKING);
    ck_assert(changed(completion + SECOND + 1));
    flight_leave(entry);
}
END_TEST

START_TEST(a_write_in_flight_on_another_map_does_not_open_the_window)
{
    set_window();
    int entry = flight_enter(map->id + 1, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING);
    ck_assert(changed(completion + SECOND + 1));
    flight_leave(entry);
}
END_TEST

START_TEST(one_s_own_write_does_not_open_the_window)
{
    bool first;
    set_window();
    int own = flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING);
    ck_assert(window_changed_outside(map, completion + SECOND + 1, own, &first));
    int other = flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING);
    ck_assert(!window_changed_outside(map, completion + SECOND + 1, own, &first));
    flight_leave(other);
    flight_leave(own);
}
END_TEST

static bool write_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    map_fixture_reopen(&fixture);
    flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING);
    peer_pause(peer);
    return true;
}

START_TEST(a_write_of_another_process_opens_the_window_even_if_it_died)
{
    struct peer peer;
    set_window();
    peer_start(&peer, write_and_pause, NULL);
    peer_reach(&peer);
    ck_assert(!changed(completion + SECOND + 1));
    peer_kill(&peer);
    ck_assert(!changed(completion + SECOND + 1));
}
END_TEST

/* ---- Stamping. ---- */

START_TEST(a_renewed_window_reaches_from_issue_to_now)
{
    set_window();
    int64_t issued = window_now();
    window_renew(map, issued);
    ck_assert_int_eq(map->header->window_issue, issued);
    ck_assert_int_ge(map->header->window_completion, issued);
    ck_assert_int_lt(map->header->window_completion, window_now() + 100 * MILLISECOND);
}
END_TEST

START_TEST(the_times_of_real_writes_are_inside_their_windows)
{
    set_window();
    for (int i = 0; i < 300; i++) {
        int64_t issued = window_now();
        modified_time(); /* makes some file systems use their fine clock for the next write */
        ck_assert_int_eq(pwrite(fixture.fd, "x", 1, i), 1);
        window_renew(map, issued);
        ck_assert(!changed(modified_time()));
        if (i % 10 == 0)
            usleep(1000);
    }
}
END_TEST

START_TEST(a_renewed_window_does_not_end_before_the_last_one)
{
    set_window();
    int64_t end = window_now() + 500 * MILLISECOND; /* of a thread that stamped between our clock and our store */
    map->header->window_completion = end;
    window_renew(map, window_now());
    ck_assert_int_eq(map->header->window_completion, end);
}
END_TEST

START_TEST(a_window_of_a_clock_that_was_stepped_back_is_given_up)
{
    set_window();
    map->header->window_completion = window_now() + 3600 * SECOND;
    window_renew(map, window_now());
    ck_assert_int_lt(map->header->window_completion, window_now() + SECOND);
}
END_TEST

START_TEST(an_extended_window_keeps_its_beginning)
{
    set_window();
    map->header->window_issue = issue = window_now() - 3600 * SECOND;
    map->header->window_completion = issue;
    int64_t before = window_now();
    window_extend(map);
    ck_assert_int_eq(map->header->window_issue, issue);
    ck_assert_int_ge(map->header->window_completion, before);
}
END_TEST

START_TEST(a_window_moves_to_the_time_that_the_program_sets)
{
    set_window();
    const int64_t set = 86400 * SECOND + 5;
    window_move(map, set);
    ck_assert(!changed(set));
    ck_assert(changed(set + 100 * MILLISECOND) && changed(set - 100 * MILLISECOND));
}
END_TEST

START_TEST(a_window_reaches_to_when_the_write_is_known_to_be_over)
{
    set_window();
    int64_t issued = window_now(), over = window_fine_now() + 5 * MILLISECOND;
    window_renew_to(map, issued, over);
    ck_assert_int_eq(map->header->window_issue, issued);
    int64_t end = map->header->window_completion;
    ck_assert(end > over && end <= over + MILLISECOND);
    window_extend_to(map, over - 3 * MILLISECOND);
    ck_assert_int_eq(map->header->window_completion, end);
}
END_TEST

START_TEST(a_window_is_stale_100_ms_after_its_last_write)
{
    map_fixture_new(&fixture, 1);
    window_renew(map, window_now());
    ck_assert(!window_is_stale(map, window_now()));
    map->header->window_completion = window_now() - 50 * MILLISECOND;
    ck_assert(!window_is_stale(map, window_now()));
    map->header->window_completion = window_now() - 101 * MILLISECOND;
    ck_assert(window_is_stale(map, window_now()));
    map->header->window_completion = window_now() + 3600 * SECOND;
    ck_assert(window_is_stale(map, window_now()));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_time_inside_the_window_is_ours,
        a_newer_time_means_an_edited_file,
        an_older_time_means_a_restored_file,
        a_tick_of_the_clock_is_tolerated_on_either_side,
        a_time_cut_to_the_second_may_be_that_much_older,
        a_time_that_cannot_be_had_says_nothing,
        a_change_is_news_once,
        what_a_broken_map_says_is_no_news,
        a_change_leaves_the_map_s_other_flags,
        the_window_is_open_ended_while_a_write_or_a_mutator_is_in_flight,
        a_question_in_flight_does_not_open_the_window,
        a_write_in_flight_on_another_map_does_not_open_the_window,
        one_s_own_write_does_not_open_the_window,
        a_write_of_another_process_opens_the_window_even_if_it_died,
        a_renewed_window_reaches_from_issue_to_now,
        the_times_of_real_writes_are_inside_their_windows,
        a_renewed_window_does_not_end_before_the_last_one,
        a_window_of_a_clock_that_was_stepped_back_is_given_up,
        an_extended_window_keeps_its_beginning,
        a_window_moves_to_the_time_that_the_program_sets,
        a_window_reaches_to_when_the_write_is_known_to_be_over,
        a_window_is_stale_100_ms_after_its_last_write,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "window", 20, NULL, tests);
}
