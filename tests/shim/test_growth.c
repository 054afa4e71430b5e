/*
 * Files and maps that grow under several hands at once: blocks beyond the end written in parts, maps opened while others extend
 * them, regions that another process has added; and what a refused write leaves behind.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { SEED = 81 };

static const off_t FAR = 100 << 20; /* in the second region, which needs more of the map than the first blocks do */

/* A new path on a file system without checksums of its own. */
static const char *plain_path(const char *name)
{
    static struct test_fs fs[TEST_FS_MAX];
    static size_t count;

    if (count == 0)
        count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++)
        if (strcmp(fs[i].name, "btrfs") != 0 && strcmp(fs[i].name, "tmpfs") != 0)
            return path_in(fs[i].path, name);
    return path_in(fs[0].path, name);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- Two writers of one block beyond the end ---------------------------------------------------------------------- */

enum { HALVES = 1000 };

static int shared;
static pthread_barrier_t barrier;

static void *write_sectors(void *which)
{
    unsigned sector = (unsigned)(uintptr_t)which, state = sector + 7;
    unsigned char *memory = direct_memory();

    memset(memory, 'A' + (int)sector, SECTOR);
    for (int i = 0; i < HALVES; i++) {
        pthread_barrier_wait(&barrier);
        nanosleep(&(struct timespec){.tv_nsec = rand_r(&state) % 400 * 1000}, NULL);
        ssize_t n = pwrite(shared, memory, SECTOR, (off_t)i * BLOCK + (off_t)sector * SECTOR);

        check_that(n == SECTOR, "pwrite gave %zd", n);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

START_TEST(two_writers_of_parts_of_a_new_block_leave_no_stale_checksum)
{
    pthread_t threads[2];

    shared = direct_open(plain_path("file"), O_RDWR | O_CREAT);
    pthread_barrier_init(&barrier, NULL, 2);
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_sectors, (void *)i), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < HALVES; i++) {
        unsigned char *memory = direct_memory();
        ssize_t n = pread(shared, memory, BLOCK, (off_t)i * BLOCK);

        ck_assert_msg(n == (i < HALVES - 1 ? BLOCK : 2 * SECTOR), "reading block %d gave %zd: %s", i, n,
                      strerror(errno));
        ck_assert_int_eq(memory[0], 'A');
        ck_assert_int_eq(memory[SECTOR], 'B');
    }
}
END_TEST

/* --- A map that grows while it is opened -------------------------------------------------------------------------- */

enum { GROWTHS = 400 };

static _Noreturn void open_and_close(const char *path)
{
    for (;;) {
        int fd = open(path, O_RDONLY | O_DIRECT);

        if (fd >= 0)
            close(fd);
    }
}

START_TEST(a_map_may_be_opened_while_another_process_extends_it)
{
    const char *path = plain_path("file");
    pid_t opener = fork();
    int status;

    if (opener == 0)
        open_and_close(path);
    pid_t grower = fork();

    if (grower == 0) {
        for (double end = now() + 1.5; now() < end;) {
            unlink(path);
            int fd = direct_open(path, O_RDWR | O_CREAT);

            for (off_t i = 0; i < GROWTHS && now() < end; i++)
                direct_write(fd, SEED, i * (20 << 20), BLOCK);
            close(fd);
        }
        _exit(0);
    }
    ck_assert_int_eq(waitpid(grower, &status, 0), grower);
    ck_assert_msg(status == 0, "the grower ended with status %#x", (unsigned)status);
    ck_assert_int_eq(waitpid(opener, &status, WNOHANG), 0);
    kill(opener, SIGKILL);
    waitpid(opener, &status, 0);
}
END_TEST

/* --- Regions that another process has added ----------------------------------------------------------------------- */

/* Two processes in turn: each waits for a byte, and sends one. */
static int turns[2][2];

static void give_turn(int who)
{
    check_that(write(turns[who][1], "", 1) == 1, "cannot give the turn");
}

static void await_turn(int who)
{
    char byte;

    check_that(read(turns[who][0], &byte, 1) == 1, "the other process is gone");
}

static pid_t fork_in_turns(void)
{
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pipe(turns[i]), 0);
    return fork();
}

static void ended_well(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "the other process ended with status %#x", (unsigned)status);
}

/* Opens the file twice, takes all the descriptors there are, and writes "HELLO" where there was no map at the beginning. */
static _Noreturn void write_without_descriptors(const char *path)
{
    int direct = direct_open(path, O_RDWR);
    int plain = open(path, O_RDWR);

    direct_write(direct, SEED, 0, BLOCK);
    check_that(pwrite(plain, "HELLO", 5, BLOCK) == 5, "cannot write");
    give_turn(1);
    await_turn(0);
    struct rlimit limit = {128, 128};

    setrlimit(RLIMIT_NOFILE, &limit);
    while (dup(plain) >= 0)
        ;
    check_that(errno == EMFILE, "there are more descriptors");
    check_that(pwrite(plain, "HELLO", 5, FAR) == 5, "cannot write at the limit");
    give_turn(1);
    await_turn(0);
    _exit(0);
}

START_TEST(a_change_at_the_descriptor_limit_reaches_the_map_that_another_extended)
{
    const char *path = plain_path("file");

    close(open(path, O_RDWR | O_CREAT, 0600));
    pid_t pid = fork_in_turns();

    if (pid == 0)
        write_without_descriptors(path);
    await_turn(1);
    int fd = direct_open(path, O_RDWR);

    direct_write(fd, SEED, FAR, BLOCK);
    give_turn(0);
    await_turn(1);
    unsigned char *memory = direct_memory();

    ck_assert_int_eq(pread(fd, memory, BLOCK, FAR), BLOCK);
    ck_assert_int_eq(memcmp(memory, "HELLO", 5), 0);
    ck_assert_uint_eq(pattern_check(memory + 5, BLOCK - 5, SEED, (uint64_t)FAR + 5), BLOCK - 5);
    give_turn(0);
    ended_well(pid);
}
END_TEST

START_TEST(a_read_in_place_is_verified_by_the_map_that_another_extended)
{
    const char *path = plain_path("file");

    if (!counting())
        return;
    close(open(path, O_RDWR | O_CREAT, 0600));
    pid_t pid = fork_in_turns();

    if (pid == 0) {
        int fd = direct_open(path, O_RDONLY);

        give_turn(1);
        await_turn(0);
        ssize_t n = pread(fd, aligned_memory(), BLOCK, FAR);

        check_that(n == -1 && errno == EIO, "reading a damaged block in place gave %zd", n);
        n = pread(fd, direct_memory(), BLOCK, FAR);
        check_that(n == -1 && errno == EIO, "reading a damaged block gave %zd", n);
        _exit(0);
    }
    await_turn(1);
    int fd = direct_open(path, O_RDWR);

    direct_write(fd, SEED, FAR, BLOCK);
    direct_write(fd, SEED, 0, BLOCK);
    flip_bit_behind(path, (uint64_t)FAR + 17, 5);
    give_turn(0);
    ended_well(pid);
}
END_TEST

/* --- A refused write ---------------------------------------------------------------------------------------------- */

START_TEST(a_refused_write_and_a_pause_are_no_change_from_outside)
{
    const char *path = plain_path("file");
    int fd = direct_open(path, O_RDWR | O_CREAT);
    void *volatile nowhere = (void *)16;

    direct_write(fd, SEED, 0, 2 * BLOCK);
    usleep(100000);
    ck_assert_int_eq(pwrite(fd, nowhere, BLOCK, 0), -1);
    ck_assert_int_eq(errno, EFAULT);
    usleep(100000);
    direct_write(fd, SEED, 0, BLOCK);
    struct bounceio_stats before = counters();

    /* Nothing has happened for which damage might be forgiven. */
    flip_bit_behind(path, BLOCK + 17, 3);
    if (counting()) {
        ck_assert_int_eq(pread(fd, direct_memory(), 2 * BLOCK, 0), -1);
        ck_assert_int_eq(errno, EIO);
        ck_assert_uint_eq(counters().changed_outside, before.changed_outside);
        ck_assert_uint_eq(counters().mismatches, before.mismatches + 1);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {two_writers_of_parts_of_a_new_block_leave_no_stale_checksum,
                                  a_map_may_be_opened_while_another_process_extends_it,
                                  a_change_at_the_descriptor_limit_reaches_the_map_that_another_extended,
                                  a_read_in_place_is_verified_by_the_map_that_another_extended,
                                  a_refused_write_and_a_pause_are_no_change_from_outside,
                                  NULL};

    return support_main(argc, argv, "growth", 60, NULL, tests);
}
