/*
 * Scaffolding for the tests of maps and of what stands on them: a store and files of a test's own, block words, and a
 * second process with a session of its own.
 *
 * Linked with the shim's objects, so for unit tests only. Each test runs in a child that libcheck forks, and so begins
 * without a session. What fails here ends the test.
 */
#ifndef BOUNCEIO_TESTS_MAP_FIXTURE_H
#define BOUNCEIO_TESTS_MAP_FIXTURE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "checksum/map.h"

enum { FIXTURE_PATH = 4096 };

struct map_fixture {
    char store[FIXTURE_PATH]; /* does not exist until somebody opens it */
    char path[FIXTURE_PATH];  /* an empty file */
    int fd;                   /* of that file, O_RDWR */
    struct map_key key;
    struct map map; /* of that file; after map_fixture_new only */
};

/* Make the file and point config.store to a fresh place. Nothing of the shim is opened. */
void map_fixture_prepare(struct map_fixture *fixture);

/* The same, and open a new map that covers the first `blocks` blocks. */
void map_fixture_new(struct map_fixture *fixture, uint64_t blocks);

/* Another empty file beside the fixture's. @return a descriptor, O_RDWR. */
int map_fixture_file(const struct map_fixture *fixture, const char *name);

/* In a forked child: open the fixture's map, with a session of the child's own. */
void map_fixture_reopen(struct map_fixture *fixture);

/* Path of the map's file in the store. */
const char *map_fixture_map_path(const struct map_fixture *fixture, const struct map *map);

/* map_open, map_close and map_cover, with the process lock. */
int locked_map_open(struct map *map, const struct map_key *key, bool create);
void locked_map_close(struct map *map, bool gone);
int locked_map_cover(struct map *map, uint64_t first, uint64_t blocks);

/* The words of a block that must be covered. */
struct block_words *words_of(const struct map *map, uint64_t block);
void words_set(const struct map *map, uint64_t block, uint64_t current, uint64_t pending);

#define ck_assert_words(map, block, expected_current, expected_pending)                                                \
    do {                                                                                                               \
        struct block_words *words_ = words_of((map), (block));                                                         \
        ck_assert_msg(words_->current == (expected_current), "block %llu: current is %llx, not %llx",                  \
                      (unsigned long long)(block), (unsigned long long)words_->current,                                \
                      (unsigned long long)(expected_current));                                                         \
        ck_assert_msg(words_->pending == (expected_pending), "block %llu: pending is %llx, not %llx",                  \
                      (unsigned long long)(block), (unsigned long long)words_->pending,                                \
                      (unsigned long long)(expected_pending));                                                         \
    } while (0)

/* A forked child that runs `body` and stops where it says. */
struct peer {
    pid_t pid;
    int wire; /* a byte from the child says "I am here", one to it "go on" */
};

/* `body` returns whether all was well. */
void peer_start(struct peer *peer, bool (*body)(struct peer *peer, void *argument), void *argument);

/* In the child: say that this point is reached, and wait for peer_continue. */
void peer_pause(struct peer *peer);

/* In the parent: wait until the child pauses; let it go on; see it end well; kill it where it stands. */
void peer_reach(struct peer *peer);
void peer_continue(struct peer *peer);
void peer_end(struct peer *peer);
void peer_kill(struct peer *peer);

/* End a forked child; valgrind would look for leaks in maps that are longer than their files. */
_Noreturn void peer_leave(bool good);

/* Run `body` in a child from beginning to end, which must be well. */
void peer_run(bool (*body)(struct peer *peer, void *argument), void *argument);

/* Run as another boot of the machine from here on: any number but 0. Before the session is opened. */
void pretend_boot(unsigned number);

#endif
