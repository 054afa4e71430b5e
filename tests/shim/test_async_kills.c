/*
 * kill -9 with requests in flight, by every front door: whoever opens the file next settles what the dead one left. No healthy block is called
 * damaged, every block is one that somebody wrote, and from then on all is as it was: what is written is known, and a bit that flips is
 * found.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/async.h"
#include "support/command.h"
#include "support/direct.h"

enum { DEPTH = 16, LENGTH = 8 * BLOCK, PLACES = 32, SIZE = PLACES * LENGTH, FIRST = 1, PATIENCE = 20000 };

/* What the victim has done, in memory that outlives it. */
struct diary {
    _Atomic uint64_t begun[PLACES];        /* the last version that was submitted for each place */
    _Atomic uint64_t acknowledged[PLACES]; /* the last whose completion has come */
    _Atomic uint64_t completions;
};

/* Each place has one request in flight at most; versions count up. */
static uint64_t version_of(uint64_t seed, uint64_t turn)
{
    return seed * 1000000 + turn;
}

static void submit_next(struct async *async, int fd, unsigned char *memory, struct diary *diary, uint64_t seed,
                        uint64_t turn)
{
    unsigned place = (unsigned)(turn % PLACES), slot = (unsigned)(turn % DEPTH);
    unsigned char *data = memory + (size_t)slot * LENGTH;

    pattern_fill(data, LENGTH, version_of(seed, turn), place * LENGTH);
    struct async_request write = async_write(fd, data, LENGTH, place * LENGTH, turn);

    atomic_store(&diary->begun[place], version_of(seed, turn));
    check_that(async_submit(async, &write, 1) == 1, "submit");
    /* What it does to its memory now reaches nobody: with the shim, that is. */
    if (counting())
        memset(data, 0xEE, LENGTH);
}

/* Writes until it is killed; the file exists. */
static _Noreturn void victim(const struct async_door *door, const char *path, struct diary *diary, uint64_t seed)
{
    unsigned char *memory = buffer_new((size_t)DEPTH * LENGTH);
    struct async_result results[DEPTH];
    bool done[2 * PLACES] = {false};
    struct async async;

    check_that(async_open(&async, door, DEPTH), "no %s", door->name);
    int fd = direct_open(path, O_RDWR);

    async_use(&async, fd, memory, (size_t)DEPTH * LENGTH);
    uint64_t oldest = 0, next = 0;

    for (;;) {
        /* Slots and places are taken in turn: the oldest request must have ended before its slot is used again. */
        for (; next < oldest + DEPTH; next++)
            submit_next(&async, fd, memory, diary, seed, next);
        int n = async_reap(&async, results, 1, DEPTH, PATIENCE);

        check_that(n > 0, "reaping gave %d", n);
        for (int i = 0; i < n; i++) {
            check_that(results[i].result == LENGTH, "write gave %lld", (long long)results[i].result);
            atomic_store(&diary->acknowledged[results[i].tag % PLACES], version_of(seed, results[i].tag));
            done[results[i].tag % (2 * PLACES)] = true;
        }
        atomic_fetch_add(&diary->completions, (uint64_t)n);
        for (; oldest < next && done[oldest % (2 * PLACES)]; oldest++)
            done[oldest % (2 * PLACES)] = false;
    }
}

static void kill_in_flight(const struct async_door *door, const char *path, struct diary *diary, uint64_t seed,
                           unsigned microseconds)
{
    uint64_t before = atomic_load(&diary->completions);
    int64_t deadline = async_now() + PATIENCE;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        victim(door, path, diary, seed);
    while (atomic_load(&diary->completions) < before + 2 * PLACES) {
        check_that(async_now() < deadline, "%s: the victim does nothing", door->name);
        check_that(waitpid(pid, &status, WNOHANG) == 0, "%s: the victim died of itself", door->name);
        usleep(500);
    }
    usleep(microseconds);
    kill(pid, SIGKILL);
    check_that(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "%s: the victim", door->name);
}

/*
 * Each block is of the version that was acknowledged last for its place, or of the one begun after it. Requests of a dead process still
 * come to their end: the file is looked at when they have.
 */
static void expect_written(const char *path, const struct diary *diary, const struct async_door *door)
{
    unsigned char block[BLOCK];

    for (unsigned at = 0; at < SIZE; at += BLOCK) {
        uint64_t known = atomic_load(&diary->acknowledged[at / LENGTH]),
                 begun = atomic_load(&diary->begun[at / LENGTH]);

        check_that(read_behind(path, block, BLOCK, at) == BLOCK, "short file");
        check_that(pattern_check(block, BLOCK, begun, at) == BLOCK || pattern_check(block, BLOCK, known, at) == BLOCK,
                   "%s: the block at %u is nobody's: %02x %02x ...", door->name, at, block[0], block[1]);
    }
}

/* A process of its own reads every block. */
static void expect_readable(const char *path, const struct async_door *door)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        int fd = direct_open(path, O_RDONLY);

        for (unsigned at = 0; at < SIZE; at += BLOCK)
            check_that(pread(fd, direct_memory(), BLOCK, at) == BLOCK, "%s: the block at %u", door->name, at);
        _exit(0);
    }
    check_that(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "%s: a healthy block was called damaged", door->name);
    if (counting())
        check_that(command_counts(0, NULL, "scrub", path, "mismatches") == 0, "%s: scrub", door->name);
}

/* All of it written anew is known, and damage is found. */
static void life_goes_on(const char *path, const struct async_door *door)
{
    int fd = direct_open(path, O_RDWR);

    direct_write(fd, FIRST, 0, SIZE);
    close(fd);
    if (!counting())
        return;
    check_that(command_counts(0, NULL, "scrub", path, "blocks_verified") == SIZE / BLOCK, "%s: not all is known",
               door->name);
    flip_bit_behind(path, 17 * BLOCK + 3, 2);
    check_that(command_counts(1, NULL, "scrub", path, "mismatches") == 1, "%s: damage is not found", door->name);
    flip_bit_behind(path, 17 * BLOCK + 3, 2);
}

static void killed(const struct test_fs *fs, const struct async_door *door, struct random *random)
{
    const char *path = path_in(fs->path, "file");
    struct diary *diary = mmap(NULL, sizeof(*diary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct async probe;

    check_that(diary != MAP_FAILED, "no memory");
    if (!async_open(&probe, door, 1))
        return;
    async_close(&probe);
    unlink(path);
    int fd = direct_open(path, O_RDWR | O_CREAT);

    direct_write(fd, FIRST, 0, SIZE);
    close(fd);
    for (unsigned place = 0; place < PLACES; place++) {
        atomic_store(&diary->begun[place], FIRST);
        atomic_store(&diary->acknowledged[place], FIRST);
    }
    for (uint64_t kills = 1; kills <= rounds(3, 50); kills++) {
        kill_in_flight(door, path, diary, kills, (unsigned)random_below(random, 3000));
        expect_readable(path, door);
        expect_written(path, diary, door);
        for (unsigned place = 0; place < PLACES; place++)
            atomic_store(&diary->acknowledged[place], atomic_load(&diary->begun[place]));
        /* What was begun may have arrived or not: the next victim must have written all of it once. */
        fd = direct_open(path, O_RDWR);
        for (unsigned place = 0; place < PLACES; place++)
            direct_write(fd, atomic_load(&diary->begun[place]), place * LENGTH, LENGTH);
        close(fd);
    }
    life_goes_on(path, door);
    munmap(diary, sizeof(*diary));
}

START_TEST(killed_with_requests_in_flight)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    struct random random = {random_run_seed()};

    for (size_t i = 0; i < count; i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            killed(&fs[i], door, &random);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "killed with requests in flight", getenv("BOUNCEIO_TEST_FULL") ? 3000 : 280, NULL,
                        (const TTest *const[]){killed_with_requests_in_flight, NULL});
}
