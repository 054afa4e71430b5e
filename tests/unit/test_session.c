/* Sessions: slots, life and death, forks, and the maps in use. Their tables of requests are in test_flight.c. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/session_peers.h"
#include "checksum/store.h"
#include "support/session_fixture.h"
#include "support/support.h"

/* ---- Slots. ---- */

START_TEST(the_first_session_of_a_store_has_slot_0)
{
    session_fixture_open();
    ck_assert_uint_eq(session_state->slot, 0);
    ck_assert_uint_eq(session_peer_count(), 1);
    struct session_file *self = session_peer(0, true);
    ck_assert_ptr_eq(self, atomic_load(&session_state->self));
    ck_assert_str_eq(self->magic, "BNCESES");
    ck_assert_uint_eq(self->pid, (uint64_t)getpid());
    ck_assert(session_peer_counts(self));
}
END_TEST

START_TEST(opening_again_keeps_the_session)
{
    session_fixture_open();
    ck_assert_int_eq(locked_session_open(), 0);
    ck_assert_uint_eq(session_state->slot, 0);
    ck_assert_uint_eq(session_peer_count(), 1);
}
END_TEST

START_TEST(sessions_that_live_at_once_have_slots_of_their_own)
{
    struct peer first, second;
    session_fixture_open();
    peer_start(&first, session_open_and_pause, NULL);
    peer_reach(&first);
    peer_start(&second, session_open_and_pause, NULL);
    peer_reach(&second);
    ck_assert_uint_eq(session_peer_count(), 3);
    ck_assert_uint_eq(session_peer(1, false)->pid, (uint64_t)first.pid);
    ck_assert_uint_eq(session_peer(2, false)->pid, (uint64_t)second.pid);
    ck_assert(session_peer_is_alive(1) && session_peer_is_alive(2));
    peer_kill(&first);
    ck_assert(!session_peer_is_alive(1));
    ck_assert(session_peer_is_alive(2));
    peer_kill(&second);
    ck_assert(!session_peer_is_alive(2));
}
END_TEST

START_TEST(the_slot_of_a_session_that_ended_is_used_again)
{
    struct peer peer;
    session_fixture_open();
    for (int i = 0; i < 3; i++) {
        peer_start(&peer, session_open_and_pause, NULL);
        peer_reach(&peer);
        peer_continue(&peer);
        peer_end(&peer);
    }
    ck_assert_uint_eq(session_peer_count(), 2);
}
END_TEST

START_TEST(the_slot_of_a_session_that_died_with_requests_in_flight_is_kept)
{
    enum flight_kind kind = FLIGHT_WRITE;
    struct peer peer;
    session_fixture_open();
    peer_run(session_open_enter_and_die, &kind);
    ck_assert(!session_peer_is_alive(1));
    ck_assert(others_over(12, FLIGHT_BEYOND));
    peer_start(&peer, session_open_and_pause, NULL);
    peer_reach(&peer);
    ck_assert_uint_eq(session_peer(2, false)->pid, (uint64_t)peer.pid);
    ck_assert(others_over(12, FLIGHT_BEYOND));
    peer_kill(&peer);
}
END_TEST

static bool fill_the_table_and_die(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    int last = 0;
    for (int i = 0; i <= SESSION_FLIGHTS; i++)
        last = enter(10, 5, FLIGHT_WRITE);
    ck_assert_int_eq(last, FLIGHT_BEYOND);
    for (int i = 0; i < SESSION_FLIGHTS; i++)
        flight_leave(i);
    return true;
}

START_TEST(the_slot_of_a_session_that_died_beyond_its_table_is_kept)
{
    struct peer peer;
    session_fixture_open();
    peer_run(fill_the_table_and_die, NULL);
    peer_start(&peer, session_open_and_pause, NULL);
    peer_reach(&peer);
    ck_assert_uint_eq(session_peer_count(), 3);
    peer_kill(&peer);
}
END_TEST

static bool die_in_boot_1(struct peer *peer, void *argument)
{
    pretend_boot(1);
    return session_open_enter_and_die(peer, argument);
}

START_TEST(requests_of_another_boot_are_not_in_flight)
{
    enum flight_kind kind = FLIGHT_MUTATOR;
    pretend_boot(2);
    session_fixture_open();
    peer_run(die_in_boot_1, &kind);
    ck_assert_uint_eq(session_peer_count(), 2);
    ck_assert(!others_over(12, FLIGHT_BEYOND));
    ck_assert(!flight_mutator_covers(MAP_ID, 12, false));
    ck_assert(!flight_writers_of(MAP_ID, FLIGHT_BEYOND));
}
END_TEST

START_TEST(the_slot_of_a_session_of_another_boot_is_used_again_and_emptied)
{
    enum flight_kind kind = FLIGHT_WRITE;
    session_fixture_prepare();
    peer_run(die_in_boot_1, &kind);
    pretend_boot(2);
    ck_assert_int_eq(locked_session_open(), 0);
    ck_assert_uint_eq(session_state->slot, 0);
    flight_leave(enter(1000, 1, FLIGHT_WRITE));
    ck_assert(!others_over(12, FLIGHT_BEYOND));
}
END_TEST

START_TEST(a_boot_id_is_read_as_32_hex_digits)
{
    uint64_t boot[2];
    setenv("BOUNCEIO_TEST_BOOT_ID", "01234567-89ab-cdef-FEDC-ba9876543210\n", 1);
    store_boot_id(boot);
    ck_assert_uint_eq(boot[0], 0x0123456789abcdef);
    ck_assert_uint_eq(boot[1], 0xfedcba9876543210);
    unsetenv("BOUNCEIO_TEST_BOOT_ID");
    store_boot_id(boot);
    ck_assert_uint_ne(boot[0], 0);
}
END_TEST

/* ---- Forks. ---- */

static bool wait_quietly(struct peer *peer, void *argument)
{
    (void)argument;
    peer_pause(peer);
    return true;
}

/* A process with a session that forks a child, which does nothing, and dies. */
static bool open_fork_and_pause(struct peer *peer, void *argument)
{
    ck_assert_int_eq(locked_session_open(), 0);
    peer_start(argument, wait_quietly, NULL);
    peer_reach(argument);
    peer_pause(peer);
    return true;
}

START_TEST(a_quiet_child_does_not_keep_its_dead_parent_s_session_alive)
{
    struct peer parent, child;
    session_fixture_open();
    peer_start(&parent, open_fork_and_pause, &child);
    peer_reach(&parent);
    ck_assert(session_peer_is_alive(1));
    peer_kill(&parent);
    ck_assert(!session_peer_is_alive(1));
}
END_TEST

static bool open_a_session_of_its_own(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    ck_assert_ptr_null(atomic_load(&session_state->self));
    ck_assert_int_eq(locked_session_open(), 0);
    return session_state->slot == 1;
}

START_TEST(a_child_has_a_session_of_its_own_and_its_end_leaves_the_parent_s_alone)
{
    struct peer watcher;
    session_fixture_open();
    peer_run(open_a_session_of_its_own, NULL);
    /* Our byte, as another process sees it. */
    peer_start(&watcher, session_open_and_pause, NULL);
    peer_reach(&watcher);
    ck_assert_uint_eq(session_peer(1, false)->pid, (uint64_t)watcher.pid);
    peer_kill(&watcher);
}
END_TEST

/* What fork() does without the C library's knowing. */
static pid_t raw_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static bool child_of_a_raw_clone(void)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(0), .l_len = 1};
    if (locked_session_open() != 0 || session_state->slot != 1)
        return false;
    /* The parent's byte must not be grantable to us. */
    return fcntl(store_lock_file(), F_OFD_SETLK, &byte) == -1;
}

START_TEST(a_child_of_a_raw_clone_is_not_granted_its_parent_s_slot)
{
    session_fixture_open();
    pid_t child = raw_fork();
    if (child == 0)
        peer_leave(child_of_a_raw_clone());
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

static bool open_clone_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    if (raw_fork() == 0) {
        ck_assert_int_eq(locked_session_open(), 0);
        peer_pause(peer);
        peer_leave(true);
    }
    pause();
    return true;
}

START_TEST(a_child_of_a_raw_clone_lets_go_of_its_parent_s_slot_when_it_takes_its_own)
{
    struct peer parent;
    session_fixture_open();
    peer_start(&parent, open_clone_and_pause, NULL);
    peer_reach(&parent);
    ck_assert(session_peer_is_alive(1) && session_peer_is_alive(2));
    peer_kill(&parent);
    ck_assert(!session_peer_is_alive(1));
}
END_TEST

/* ---- Maps in use. ---- */

static bool use_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    session_use_map(MAP_ID);
    peer_pause(peer);
    return true;
}

START_TEST(maps_in_use_by_others_are_not_said_to_be_free_by_who_cannot_look)
{
    const struct rlimit nothing = {.rlim_max = 1024}, enough = {1024, 1024};
    struct peer peer;
    session_fixture_open();
    peer_start(&peer, use_and_pause, NULL);
    peer_reach(&peer);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &nothing), 0);
    bool used = session_others_use_map(MAP_ID);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &enough), 0);
    ck_assert(used);
    peer_kill(&peer);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &nothing), 0);
    used = session_others_use_map(MAP_ID);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &enough), 0);
    ck_assert(!used);
}
END_TEST

START_TEST(maps_in_use_by_others_are_known_while_they_live)
{
    struct peer peer;
    session_fixture_open();
    session_use_map(MAP_ID);
    ck_assert(!session_others_use_map(MAP_ID));
    peer_start(&peer, use_and_pause, NULL);
    peer_reach(&peer);
    ck_assert(session_others_use_map(MAP_ID));
    ck_assert(!session_others_use_map(OTHER_MAP));
    peer_kill(&peer);
    ck_assert(!session_others_use_map(MAP_ID));
}
END_TEST

static bool use_twice_and_leave(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    session_use_map(MAP_ID);
    session_use_map(MAP_ID);
    session_leave_map(MAP_ID);
    peer_pause(peer);
    session_leave_map(MAP_ID);
    peer_pause(peer);
    return true;
}

START_TEST(a_map_used_twice_is_in_use_until_it_is_left_twice)
{
    struct peer peer;
    session_fixture_open();
    peer_start(&peer, use_twice_and_leave, NULL);
    peer_reach(&peer);
    ck_assert(session_others_use_map(MAP_ID));
    peer_continue(&peer);
    peer_reach(&peer);
    ck_assert(!session_others_use_map(MAP_ID));
    peer_kill(&peer);
}
END_TEST

static bool use_too_many_maps(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    for (uint64_t id = 1; id <= SESSION_MAPS + 1; id++)
        session_use_map(1000 + id);
    peer_pause(peer);
    session_leave_map(1000 + SESSION_MAPS + 1);
    peer_pause(peer);
    return true;
}

START_TEST(a_session_with_more_maps_than_it_can_list_uses_every_map)
{
    struct peer peer;
    session_fixture_open();
    peer_start(&peer, use_too_many_maps, NULL);
    peer_reach(&peer);
    ck_assert(session_others_use_map(MAP_ID));
    peer_continue(&peer);
    peer_reach(&peer);
    ck_assert(!session_others_use_map(MAP_ID));
    ck_assert(session_others_use_map(1001));
    peer_kill(&peer);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        the_first_session_of_a_store_has_slot_0,
        opening_again_keeps_the_session,
        sessions_that_live_at_once_have_slots_of_their_own,
        the_slot_of_a_session_that_ended_is_used_again,
        the_slot_of_a_session_that_died_with_requests_in_flight_is_kept,
        the_slot_of_a_session_that_died_beyond_its_table_is_kept,
        requests_of_another_boot_are_not_in_flight,
        the_slot_of_a_session_of_another_boot_is_used_again_and_emptied,
        a_boot_id_is_read_as_32_hex_digits,
        a_quiet_child_does_not_keep_its_dead_parent_s_session_alive,
        a_child_has_a_session_of_its_own_and_its_end_leaves_the_parent_s_alone,
        a_child_of_a_raw_clone_is_not_granted_its_parent_s_slot,
        a_child_of_a_raw_clone_lets_go_of_its_parent_s_slot_when_it_takes_its_own,
        maps_in_use_by_others_are_not_said_to_be_free_by_who_cannot_look,
        maps_in_use_by_others_are_known_while_they_live,
        a_map_used_twice_is_in_use_until_it_is_left_twice,
        a_session_with_more_maps_than_it_can_list_uses_every_map,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "session", 20, NULL, tests);
}
