/* Stores, maps and second processes for unit tests. */
#include "support/map_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "support/support.h"

static struct map_fixture *prepared;

/* Before valgrind looks for leaks in all that is mapped: a map of a sparse file is long. */
static void close_map(void)
{
    if (prepared->map.header)
        locked_map_close(&prepared->map, false);
}

void map_fixture_prepare(struct map_fixture *fixture)
{
    static struct test_fs fs[TEST_FS_MAX];
    unsetenv("BOUNCEIO_TEST_FS"); /* what is tested here does not depend on the file system: $TMPDIR will do */
    test_filesystems(fs);
    snprintf(fixture->store, sizeof fixture->store, "%s", path_in(fs->path, "store"));
    snprintf(fixture->path, sizeof fixture->path, "%s", path_in(fs->path, "file"));
    fixture->fd = open(fixture->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fixture->fd, 0);
    ck_assert_int_eq(map_key_of(fixture->fd, &fixture->key), 0);
    fixture->map = (struct map){0};
    config.store = fixture->store;
    if (!prepared)
        atexit(close_map);
    prepared = fixture;
}

void map_fixture_new(struct map_fixture *fixture, uint64_t blocks)
{
    map_fixture_prepare(fixture);
    ck_assert_int_eq(locked_map_open(&fixture->map, &fixture->key, true), 0);
    if (blocks > 0)
        ck_assert_int_eq(locked_map_cover(&fixture->map, 0, blocks), 0);
}

int map_fixture_file(const struct map_fixture *fixture, const char *name)
{
    char path[FIXTURE_PATH + 64];
    snprintf(path, sizeof path, "%s.%s", fixture->path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    return fd;
}

void map_fixture_reopen(struct map_fixture *fixture)
{
    fixture->map = (struct map){0}; /* what it led to was not inherited */
    ck_assert_int_eq(locked_map_open(&fixture->map, &fixture->key, false), 0);
}

const char *map_fixture_map_path(const struct map_fixture *fixture, const struct map *map)
{
    return path_in(path_in(fixture->store, "maps"), map->name);
}

int locked_map_open(struct map *map, const struct map_key *key, bool create)
{
    uint64_t saved;
    process_lock(&saved);
    int error = map_open(map, key, create);
    process_unlock(&saved);
    return error;
}

void locked_map_close(struct map *map, bool gone)
{
    uint64_t saved;
    process_lock(&saved);
    map_close(map, gone);
    process_unlock(&saved);
}

int locked_map_cover(struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t saved;
    process_lock(&saved);
    int error = map_cover(map, first, blocks);
    process_unlock(&saved);
    return error;
}

struct block_words *words_of(const struct map *map, uint64_t block)
{
    uint64_t run;
    struct block_words *words = map_words(map, block, &run);
    ck_assert_msg(words, "block %llu is not covered", (unsigned long long)block);
    return words;
}

void words_set(const struct map *map, uint64_t block, uint64_t current, uint64_t pending)
{
    struct block_words *words = words_of(map, block);
    atomic_store(&words->current, current);
    atomic_store(&words->pending, pending);
}

_Noreturn void peer_leave(bool good)
{
    if (getenv("BOUNCEIO_TEST_VALGRIND"))
        execl("/bin/sh", "sh", "-c", good ? "exit 0" : "exit 1", NULL);
    _exit(good ? 0 : 1);
}

void peer_start(struct peer *peer, bool (*body)(struct peer *peer, void *argument), void *argument)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    peer->pid = fork();
    ck_assert_int_ge(peer->pid, 0);
    peer->wire = ends[peer->pid == 0];
    close(ends[peer->pid != 0]);
    if (peer->pid == 0)
        peer_leave(body(peer, argument));
}

void peer_pause(struct peer *peer)
{
    char byte = 0;
    if (write(peer->wire, &byte, 1) != 1 || read(peer->wire, &byte, 1) != 1)
        _exit(2); /* the test is over */
}

void peer_reach(struct peer *peer)
{
    char byte;
    ck_assert_msg(read(peer->wire, &byte, 1) == 1, "the other process ended too early");
}

void peer_continue(struct peer *peer)
{
    char byte = 0;
    ck_assert_int_eq(write(peer->wire, &byte, 1), 1);
}

void peer_end(struct peer *peer)
{
    int status;
    ck_assert_int_eq(waitpid(peer->pid, &status, 0), peer->pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other process ended with status %#x",
                  (unsigned)status);
    close(peer->wire);
}

void peer_kill(struct peer *peer)
{
    int status;
    ck_assert_int_eq(kill(peer->pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(peer->pid, &status, 0), peer->pid);
    close(peer->wire);
}

void peer_run(bool (*body)(struct peer *peer, void *argument), void *argument)
{
    struct peer peer;
    peer_start(&peer, body, argument);
    peer_end(&peer);
}

void pretend_boot(unsigned number)
{
    char text[33];
    snprintf(text, sizeof text, "%032x", number);
    setenv("BOUNCEIO_TEST_BOOT_ID", text, 1);
}
