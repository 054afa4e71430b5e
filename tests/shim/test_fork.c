/*
 * fork in every form, and threads cancelled in the middle of direct I/O: nothing hangs, no page is lost, and what parent and
 * child wrote verifies.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/raw.h"
#include "support/direct.h"
#include "support/support.h"

enum { SEED = 41, WRITERS = 3, SHARE = 64 * BLOCK, ROUNDS = 150, CANCELLATIONS = 1000 };

/* WRITERS shares for threads of the parent, and one more for each child. */
enum { CHILD_OFFSET = WRITERS * SHARE, FILE_BYTES = (WRITERS + 1) * SHARE };

static int shared_fd;
static atomic_bool stopping;

/* Overwrite a share of the file for ever, and verify it. */
static void *write_share(void *argument)
{
    off_t start = (off_t)(uintptr_t)argument * SHARE;
    struct random random = {random_run_seed() + (uintptr_t)argument};

    while (!atomic_load(&stopping)) {
        size_t length = (1 + random_below(&random, 16)) * BLOCK;
        off_t offset = start + (off_t)random_below(&random, 64 - length / BLOCK) * BLOCK;

        direct_write(shared_fd, SEED, offset, length);
        direct_check(shared_fd, SEED, start, SHARE);
    }
    return NULL;
}

/* What a child does at once: write its share, read it, read ours. */
static void child_does_direct_io(void)
{
    alarm(20);
    direct_write(shared_fd, SEED, CHILD_OFFSET, SHARE);
    direct_check(shared_fd, SEED, CHILD_OFFSET, SHARE);
    direct_check(shared_fd, SEED, 0, SHARE);
}

static pid_t by_fork(void)
{
    return fork();
}

static pid_t by_underscore_fork(void)
{
    return _Fork();
}

static pid_t by_raw_clone(void)
{
    return (pid_t)raw(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static pid_t by_syscall(void)
{
    return (pid_t)syscall(SYS_fork);
}

static pid_t (*const forks[])(void) = {by_fork, by_underscore_fork, by_raw_clone, by_syscall};

enum { FORKS = sizeof(forks) / sizeof(forks[0]) };

static void exited_well(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "the child ended with status %#x", (unsigned)status);
}

/* No page was lost and nothing was found wrong since `before`. */
static void all_is_well(const struct bounceio_stats *before)
{
    struct bounceio_stats now = counters();

    ck_assert_uint_eq(now.pages_leaked, before->pages_leaked);
    ck_assert_uint_eq(now.mismatches, before->mismatches);
    ck_assert_uint_eq(now.changed_outside, before->changed_outside);
    ck_assert_uint_eq(now.passed_through, before->passed_through);
}

START_TEST(a_child_does_direct_io_at_once_while_threads_of_its_parent_do)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    if (test_skipped_under(
            "tsan", "ThreadSanitizer takes wiped memory for the parent's, and the parent's threads for the child's"))
        return;
    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        struct bounceio_stats before = counters();
        pthread_t threads[WRITERS];

        atomic_store(&stopping, false);
        shared_fd = direct_open(path, O_RDWR | O_CREAT);
        direct_write(shared_fd, SEED, 0, FILE_BYTES);
        for (uintptr_t n = 0; n < WRITERS; n++)
            ck_assert_int_eq(pthread_create(&threads[n], NULL, write_share, (void *)n), 0);
        for (size_t n = 0; n < rounds(ROUNDS / 5, ROUNDS); n++) {
            pid_t pid = forks[n % FORKS]();

            ck_assert_int_ge(pid, 0);
            if (pid == 0) {
                child_does_direct_io();
                _exit(0);
            }
            exited_well(pid);
        }
        atomic_store(&stopping, true);
        for (size_t n = 0; n < WRITERS; n++)
            ck_assert_int_eq(pthread_join(threads[n], NULL), 0);
        direct_check(shared_fd, SEED, 0, FILE_BYTES);
        close(shared_fd);
        all_is_well(&before);
        ck_assert(content_is(path, SEED, FILE_BYTES));
    }
}
END_TEST

START_TEST(a_childs_child_verifies_what_its_grandparent_wrote)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    shared_fd = direct_open(path_in(fs[0].path, "file"), O_RDWR | O_CREAT);
    direct_write(shared_fd, SEED, 0, FILE_BYTES);
    struct bounceio_stats before = counters();
    pid_t pid = fork();

    if (pid == 0) {
        pid_t inner = fork();

        if (inner == 0) {
            child_does_direct_io();
            _exit(0);
        }
        int status;

        _exit(waitpid(inner, &status, 0) != inner || status != 0);
    }
    exited_well(pid);
    direct_check(shared_fd, SEED, 0, FILE_BYTES);
    all_is_well(&before);
    if (counting())
        ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, (FILE_BYTES + 2 * SHARE) / BLOCK);
}
END_TEST

START_TEST(checksums_written_by_a_child_that_was_killed_afterwards_hold)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");
    pid_t pid = fork();

    if (pid == 0) {
        direct_write(direct_open(path, O_RDWR | O_CREAT), SEED, 0, FILE_BYTES);
        raise(SIGKILL);
    }
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    shared_fd = direct_open(path, O_RDONLY);
    struct bounceio_stats before = counters();

    direct_check(shared_fd, SEED, 0, FILE_BYTES);
    if (counting())
        ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, FILE_BYTES / BLOCK);
}
END_TEST

/* --- Offsets shared by dup and fork -------------------------------------------------------------------------------- */

enum { APPENDS = 200 };

/* Whoever holds a number of the description writes whole blocks of one letter wherever the offset happens to be. */
static void write_letters(int fd, char letter)
{
    unsigned char *memory = direct_memory();

    memset(memory, letter, 2 * BLOCK);
    for (int i = 0; i < APPENDS; i++)
        check_that(write(fd, memory, (size_t)(1 + i % 2) * BLOCK) == (1 + i % 2) * BLOCK, "write by %c", letter);
}

static void *write_letter_b(void *fd)
{
    write_letters((int)(intptr_t)fd, 'b');
    return NULL;
}

START_TEST(an_offset_shared_by_threads_duplicates_and_a_child_loses_no_write)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        int fd = direct_open(path_in(fs[i].path, "letters"), O_RDWR | O_CREAT);
        int copy = dup(fd);
        size_t blocks[3] = {0};
        pthread_t thread;
        struct bounceio_stats before = counters();

        ck_assert_int_eq(pthread_create(&thread, NULL, write_letter_b, (void *)(intptr_t)copy), 0);
        pid_t pid = fork();

        if (pid == 0) {
            write_letters(fd, 'c');
            _exit(0);
        }
        write_letters(fd, 'a');
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        exited_well(pid);

        ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
        for (;;) {
            ssize_t n = read(copy, direct_memory(), BLOCK);

            ck_assert_msg(n >= 0, "read: %m");
            if (n == 0)
                break;
            unsigned char letter = direct_memory()[0];

            ck_assert_int_eq(n, BLOCK);
            ck_assert(letter >= 'a' && letter <= 'c');
            ck_assert_int_eq(memcmp(direct_memory(), direct_memory() + 1, BLOCK - 1), 0);
            blocks[letter - 'a']++;
        }
        for (int letter = 0; letter < 3; letter++)
            ck_assert_uint_eq(blocks[letter], APPENDS * 3 / 2);
        all_is_well(&before);
        close(fd);
        close(copy);
    }
}
END_TEST

/* --- Cancellation -------------------------------------------------------------------------------------------------- */

struct victim {
    int fd;
    int type; /* PTHREAD_CANCEL_DEFERRED or PTHREAD_CANCEL_ASYNCHRONOUS */
    off_t offset;
    unsigned char *memory;
    atomic_int started;
};

static void *write_until_cancelled(void *argument)
{
    struct victim *victim = argument;

    pthread_setcanceltype(victim->type, NULL);
    atomic_store(&victim->started, 1);
    for (;;)
        if (pwrite(victim->fd, victim->memory, 16 * BLOCK, victim->offset) != 16 * BLOCK)
            abort();
}

static void cancel_many(const char *directory, int type, size_t cancellations)
{
    struct victim victim = {.fd = direct_open(path_in(directory, "file"), O_RDWR | O_CREAT), .type = type};
    struct random random = {random_run_seed()};
    void *result;

    shared_fd = victim.fd;
    pattern_fill(direct_memory(), 16 * BLOCK, SEED, 0);
    victim.memory = direct_memory();
    for (size_t i = 0; i < cancellations; i++) {
        pthread_t thread;

        atomic_store(&victim.started, 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, write_until_cancelled, &victim), 0);
        while (!atomic_load(&victim.started))
            sched_yield();
        usleep((useconds_t)random_below(&random, 200));
        ck_assert_int_eq(pthread_cancel(thread), 0);
        ck_assert_int_eq(pthread_join(thread, &result), 0);
        ck_assert_ptr_eq(result, PTHREAD_CANCELED);
    }
    direct_write(victim.fd, SEED, 0, FILE_BYTES);
    direct_check(victim.fd, SEED, 0, FILE_BYTES);
    close(victim.fd);
}

START_TEST(a_thousand_deferred_cancellations_lose_no_page)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    struct bounceio_stats before = counters();

    cancel_many(fs[0].path, PTHREAD_CANCEL_DEFERRED, CANCELLATIONS);
    all_is_well(&before);
    ck_assert_uint_eq(counters().pool_grows, before.pool_grows);
    ck_assert_uint_eq(counters().pool_overflows, before.pool_overflows);
}
END_TEST

START_TEST(a_thousand_asynchronous_cancellations_lose_no_page)
{
    struct test_fs fs[TEST_FS_MAX];

    if (test_skipped_under("tsan", "a thread that is cancelled inside ThreadSanitizer leaves its locks taken"))
        return;
    test_filesystems(fs);
    struct bounceio_stats before = counters();

    cancel_many(fs[0].path, PTHREAD_CANCEL_ASYNCHRONOUS, CANCELLATIONS);
    all_is_well(&before);
    ck_assert_uint_eq(counters().pool_grows, before.pool_grows);
    ck_assert_uint_eq(counters().pool_overflows, before.pool_overflows);
}
END_TEST

static void *write_once(void *argument)
{
    struct victim *victim = argument;

    while (!atomic_load(&victim->started))
        sched_yield();
    (void)!pwrite(victim->fd, victim->memory, BLOCK, 0);
    return NULL;
}

START_TEST(a_pending_cancellation_acts_at_the_entry_and_writes_nothing)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");
    struct victim victim = {.fd = direct_open(path, O_RDWR | O_CREAT), .memory = direct_memory()};
    pthread_t thread;
    void *result;

    direct_write(victim.fd, SEED, 0, BLOCK);
    memset(victim.memory, 'x', BLOCK);
    ck_assert_int_eq(pthread_create(&thread, NULL, write_once, &victim), 0);
    ck_assert_int_eq(pthread_cancel(thread), 0);
    atomic_store(&victim.started, 1);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_eq(result, PTHREAD_CANCELED);
    ck_assert(content_is(path, SEED, BLOCK));
    direct_check(victim.fd, SEED, 0, BLOCK);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_child_does_direct_io_at_once_while_threads_of_its_parent_do,
                                  a_childs_child_verifies_what_its_grandparent_wrote,
                                  checksums_written_by_a_child_that_was_killed_afterwards_hold,
                                  an_offset_shared_by_threads_duplicates_and_a_child_loses_no_write,
                                  a_thousand_deferred_cancellations_lose_no_page,
                                  a_thousand_asynchronous_cancellations_lose_no_page,
                                  a_pending_cancellation_acts_at_the_entry_and_writes_nothing,
                                  NULL};

    return support_main(argc, argv, "fork", 90, NULL, tests);
}
