/* Removing maps, against sessions that use them and sessions that open them at that moment. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/map_remove.h"
#include "checksum/map_turn.h"
#include "checksum/session.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { ROUNDS = 3000 };

static struct map_fixture fixture;

static int locked_map_remove(const char *name, uint64_t id)
{
    uint64_t saved;
    process_lock(&saved);
    int error = map_remove(name, id);
    process_unlock(&saved);
    return error;
}

static bool is_there(const struct map *map)
{
    struct stat status;
    return stat(map_fixture_map_path(&fixture, map), &status) == 0 && status.st_ino == map->file_inode;
}

START_TEST(map_that_nobody_uses_is_removed)
{
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    ck_assert(is_there(&was));
    ck_assert_int_eq(locked_map_remove(was.name, was.id), 0);
    ck_assert(!is_there(&was));
    ck_assert_int_eq(locked_map_remove(was.name, was.id), -ENOENT);
}
END_TEST

START_TEST(map_that_this_session_uses_stays)
{
    map_fixture_new(&fixture, 1);
    ck_assert_int_eq(locked_map_remove(fixture.map.name, fixture.map.id), -EBUSY);
    ck_assert(is_there(&fixture.map));
}
END_TEST

static bool use_the_map(struct peer *peer, void *argument)
{
    (void)argument;
    map_fixture_reopen(&fixture);
    peer_pause(peer);
    return is_there(&fixture.map);
}

START_TEST(map_that_another_session_uses_stays)
{
    struct peer peer;
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    peer_start(&peer, use_the_map, NULL);
    peer_reach(&peer);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), -EBUSY);
    peer_continue(&peer);
    peer_end(&peer);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), 0);
}
END_TEST

START_TEST(map_whose_user_died_is_removed)
{
    struct peer peer;
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    peer_start(&peer, use_the_map, NULL);
    peer_reach(&peer);
    peer_kill(&peer);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), 0);
}
END_TEST

START_TEST(newer_map_of_the_same_name_stays)
{
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), 0);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), -ESTALE);
    ck_assert(is_there(&fixture.map));
}
END_TEST

/* The map's turn, kept by somebody who is stopped, or whose disk is slow. */
static bool keep_the_turn(struct peer *peer, void *argument)
{
    uint64_t saved;
    (void)argument;
    map_fixture_reopen(&fixture);
    process_lock(&saved);
    bool good = map_turn_alone(fixture.map.id) == 0;
    peer_pause(peer);
    map_turn_end(fixture.map.id);
    process_unlock(&saved);
    return good;
}

START_TEST(who_goes_on_without_a_map_in_use_tells_its_users)
{
    struct peer peer;
    struct map other = {0};
    map_fixture_new(&fixture, 1);
    peer_start(&peer, keep_the_turn, NULL);
    peer_reach(&peer);
    ck_assert_uint_eq(fixture.map.header->flags, 0);
    ck_assert_int_eq(locked_map_open(&other, &fixture.key, true), -EAGAIN);
    ck_assert_ptr_null(other.header);
    ck_assert_uint_eq(fixture.map.header->flags & MAP_CHANGED_OUTSIDE, MAP_CHANGED_OUTSIDE);
    peer_continue(&peer);
    peer_end(&peer);
}
END_TEST

/* All at once, in each round. */
static struct start {
    _Atomic unsigned round, opened, closed, failed;
} * start;

enum { OPENERS = 2, STARTS = 1500 };

static bool open_when_started(struct peer *peer, void *argument)
{
    struct map map = {0};
    (void)argument;
    ck_assert_int_eq(locked_map_open(&map, &fixture.key, true), 0);
    locked_map_close(&map, false);
    peer_pause(peer);
    for (unsigned round = 1; round <= STARTS; round++) {
        while (atomic_load(&start->round) < round)
            ;
        if (locked_map_open(&map, &fixture.key, true) != 0)
            atomic_fetch_add(&start->failed, 1);
        atomic_fetch_add(&start->opened, 1);
        while (atomic_load(&start->opened) < round * OPENERS)
            sched_yield();
        locked_map_close(&map, false);
        atomic_fetch_add(&start->closed, 1);
    }
    return true;
}

/* The number of a device may be another one after a restart. */
static void bind_to_another_device(void)
{
    const uint64_t other = 0xdead;
    int fd = open(map_fixture_map_path(&fixture, &fixture.map), O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(pwrite(fd, &other, sizeof other, offsetof(struct map_header, bound_device)), sizeof other);
    close(fd);
}

START_TEST(who_open_a_map_together_on_a_new_device_all_get_it)
{
    struct peer peers[OPENERS];
    start = mmap(NULL, sizeof *start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(start != MAP_FAILED);
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    fixture.map = was;
    for (int i = 0; i < OPENERS; i++) {
        peer_start(&peers[i], open_when_started, NULL);
        peer_reach(&peers[i]);
        peer_continue(&peers[i]);
    }
    for (unsigned round = 1; round <= STARTS; round++) {
        while (atomic_load(&start->closed) < (round - 1) * OPENERS)
            usleep(20);
        bind_to_another_device();
        atomic_store(&start->round, round);
    }
    for (int i = 0; i < OPENERS; i++)
        peer_end(&peers[i]);
    ck_assert_uint_eq(start->failed, 0);
}
END_TEST

/* Open, look whether the name leads to what was opened, close: as fast as it goes. */
static bool open_again_and_again(struct peer *peer, void *argument)
{
    (void)argument;
    (void)peer;
    for (int i = 0; i < ROUNDS; i++) {
        struct map map = {0};
        int error = locked_map_open(&map, &fixture.key, true);
        if (error == -ESTALE || error == -EAGAIN)
            continue; /* removed ten times in a row, or the turn was not to be had: no map is not a wrong one */
        bool good = error == 0 && is_there(&map);
        locked_map_close(&map, false);
        if (!good)
            return false;
    }
    return true;
}

static uint64_t id_now(const char *name)
{
    struct map_identity identity = {.map_id = 0};
    int fd = open(path_in(path_in(fixture.store, "maps"), name), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ck_assert_int_eq(pread(fd, &identity, sizeof identity, 0), sizeof identity);
        close(fd);
    }
    return identity.map_id;
}

START_TEST(map_is_never_removed_under_who_opens_it)
{
    struct peer peers[2];
    unsigned removed = 0;
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
    char name[MAP_NAME_BYTES];
    strcpy(name, fixture.map.name);
    locked_map_close(&fixture.map, false);
    for (int i = 0; i < 2; i++)
        peer_start(&peers[i], open_again_and_again, NULL);
    const struct timespec begin = {.tv_sec = time(NULL)};
    while (removed < 300 && time(NULL) < begin.tv_sec + 3) {
        removed += locked_map_remove(name, id_now(name)) == 0;
    }
    for (int i = 0; i < 2; i++)
        peer_end(&peers[i]);
    ck_assert_uint_gt(removed, 0);
}
END_TEST

static bool hold_the_turn(struct peer *peer, void *argument)
{
    uint64_t saved;
    process_lock(&saved);
    bool taken = session_open() == 0 && map_turn_try(*(uint64_t *)argument) == 0;
    process_unlock(&saved);
    peer_pause(peer);
    return taken;
}

START_TEST(stopped_remover_costs_others_a_moment_and_their_checksums)
{
    struct peer peer;
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    peer_start(&peer, hold_the_turn, &was.id);
    peer_reach(&peer);
    ck_assert_int_eq(locked_map_remove(was.name, was.id), -EAGAIN);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), -EAGAIN);
    peer_kill(&peer);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
    ck_assert_uint_eq(fixture.map.id, was.id);
}
END_TEST

START_TEST(who_finds_a_map_on_its_way_out_again_and_again_says_that_there_is_none)
{
    struct peer peer;
    uint64_t no_id = 0; /* under whose turn unfinished maps are removed */
    int messages[2];
    char line[1024] = "";
    map_fixture_new(&fixture, 1);
    struct map was = fixture.map;
    locked_map_close(&fixture.map, false);
    ck_assert_int_eq(truncate(map_fixture_map_path(&fixture, &was), 0), 0);
    peer_start(&peer, hold_the_turn, &no_id);
    peer_reach(&peer);
    ck_assert_int_eq(pipe2(messages, O_NONBLOCK), 0);
    ck_assert_int_eq(dup2(messages[1], STDERR_FILENO), STDERR_FILENO);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), -ESTALE);
    ck_assert_ptr_null(fixture.map.header);
    ck_assert_int_gt(read(messages[0], line, sizeof line - 1), 0);
    ck_assert_msg(strstr(line, "cannot open a map: ESTALE"), "%s", line);
    peer_kill(&peer);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {map_that_nobody_uses_is_removed,
                                  map_that_this_session_uses_stays,
                                  map_that_another_session_uses_stays,
                                  map_whose_user_died_is_removed,
                                  newer_map_of_the_same_name_stays,
                                  who_goes_on_without_a_map_in_use_tells_its_users,
                                  who_open_a_map_together_on_a_new_device_all_get_it,
                                  map_is_never_removed_under_who_opens_it,
                                  stopped_remover_costs_others_a_moment_and_their_checksums,
                                  who_finds_a_map_on_its_way_out_again_and_again_says_that_there_is_none,
                                  NULL};
    return support_main(argc, argv, "map_remove", 30, NULL, tests);
}
