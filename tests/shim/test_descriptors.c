/*
 * The descriptor table: whatever a program does to a number (closes it behind the C library's back, duplicates it, reuses
 * it for a socket, switches O_DIRECT on and off), direct requests are bounced and all others are left alone.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { FILE_BYTES = 16 * BLOCK, SEED = 11, OTHER_SEED = 12 };

/* A direct descriptor on a new file that holds the pattern SEED. */
static int direct_new(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, SEED, 0, FILE_BYTES);
    return fd;
}

/* Direct requests on `fd` are bounced and carry the right data. */
static void is_direct(int fd)
{
    struct bounceio_stats before = counters();

    direct_check(fd, SEED, 0, FILE_BYTES);
    direct_write(fd, SEED, 0, FILE_BYTES);
    direct_check(fd, SEED, 0, FILE_BYTES);
    if (counting()) {
        struct bounceio_stats after = counters();

        ck_assert_uint_eq(after.direct_writes - before.direct_writes, 1);
        ck_assert_uint_eq(after.direct_reads - before.direct_reads, 2);
        ck_assert_uint_ge(after.blocks_verified - before.blocks_verified, FILE_BYTES / BLOCK);
    }
}

/* Bytes of an odd count go through two stream descriptors, and nobody takes them for direct requests. */
static void is_plain_stream(int in, int out)
{
    char received[64] = "";
    struct bounceio_stats before = counters();

    ck_assert_int_eq(write(in, "thirteen byte", 13), 13);
    ck_assert_int_eq(read(out, received, sizeof(received)), 13);
    ck_assert_str_eq(received, "thirteen byte");
    struct bounceio_stats after = counters();

    ck_assert_uint_eq(after.direct_writes, before.direct_writes);
    ck_assert_uint_eq(after.direct_reads, before.direct_reads);
    ck_assert_uint_eq(after.passed_through, before.passed_through);
}

/* --- Closing without close ---------------------------------------------------------------------------------------- */

static void by_close(int fd)
{
    ck_assert_int_eq(close(fd), 0);
}

static void by_fclose(int fd)
{
    FILE *stream = fdopen(fd, "r+");

    ck_assert_ptr_nonnull(stream);
    ck_assert_int_eq(fclose(stream), 0);
}

static void by_freopen(int fd)
{
    FILE *stream = fdopen(fd, "r+");

    ck_assert_ptr_nonnull(stream);
    stream = freopen("/dev/null", "r", stream);
    ck_assert_ptr_nonnull(stream);
    ck_assert_int_eq(fclose(stream), 0);
}

static void by_close_range(int fd)
{
    ck_assert_int_eq(close_range((unsigned)fd, (unsigned)fd, 0), 0);
}

static void by_closefrom(int fd)
{
    closefrom(fd);
}

static void by_system_call(int fd)
{
    ck_assert_int_eq((int)syscall(SYS_close, fd), 0);
}

static void by_dup2_over(int fd)
{
    int null = open("/dev/null", O_RDWR);

    ck_assert_int_eq(dup2(null, fd), fd);
    ck_assert_int_eq(close(null), 0);
    ck_assert_int_eq(close(fd), 0);
}

static void by_dup3_over(int fd)
{
    int null = open("/dev/null", O_RDWR);

    ck_assert_int_eq(dup3(null, fd, O_CLOEXEC), fd);
    ck_assert_int_eq(write(fd, "odd", 3), 3);
    ck_assert_int_eq(close(null), 0);
    ck_assert_int_eq(close(fd), 0);
}

static void (*const closers[])(int) = {by_close,     by_fclose,      by_freopen,   by_close_range,
                                       by_closefrom, by_system_call, by_dup2_over, by_dup3_over};

enum { CLOSERS = sizeof(closers) / sizeof(closers[0]) };

START_TEST(a_socket_that_reuses_a_closed_number_is_left_alone)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count * CLOSERS; i++) {
        const char *path = path_in(fs[i / CLOSERS].path, "file");
        int fd = direct_new(path);
        int pair[2];

        is_direct(fd);
        closers[i % CLOSERS](fd);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        ck_assert_msg(pair[0] == fd || pair[1] == fd, "the number was not reused");
        is_plain_stream(pair[0], pair[1]);
        is_plain_stream(pair[1], pair[0]);
        close(pair[0]);
        close(pair[1]);

        int again = direct_open(path, O_RDWR);

        is_direct(again);
        close(again);
        ck_assert(content_is(path, SEED, FILE_BYTES));
    }
}
END_TEST

START_TEST(a_closed_number_gives_ebadf)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (size_t i = 0; i < CLOSERS; i++) {
        int fd = direct_new(path_in(fs[0].path, "file"));

        closers[i](fd);
        ck_assert_int_eq(pwrite(fd, direct_memory(), BLOCK, 0), -1);
        ck_assert_int_eq(errno, EBADF);
        ck_assert_int_eq(pread(fd, direct_memory(), BLOCK, 0), -1);
        ck_assert_int_eq(errno, EBADF);
    }
}
END_TEST

/* --- Duplicates and F_SETFL --------------------------------------------------------------------------------------- */

START_TEST(every_kind_of_duplicate_is_direct)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        int fd = direct_new(path);
        int numbers[] = {dup(fd),
                         dup2(fd, 300),
                         dup3(fd, 301, O_CLOEXEC),
                         fcntl(fd, F_DUPFD, 302),
                         fcntl(fd, F_DUPFD_CLOEXEC, 303),
                         (int)syscall(SYS_dup, fd),
                         (int)syscall(SYS_fcntl, fd, F_DUPFD, 310)};

        for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
            ck_assert_int_ge(numbers[n], 0);
            is_direct(numbers[n]);
        }
        close(fd);
        for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
            is_direct(numbers[n]);
            close(numbers[n]);
        }
        ck_assert(content_is(path, SEED, FILE_BYTES));
    }
}
END_TEST

START_TEST(a_plain_file_over_a_direct_number_is_plain)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    int direct = direct_new(path_in(fs[0].path, "direct"));
    int plain = open(path_in(fs[0].path, "plain"), O_RDWR | O_CREAT, 0600);
    struct bounceio_stats before = counters();

    ck_assert_int_eq(dup2(plain, direct), direct);
    ck_assert_int_eq(pwrite(direct, "odd", 3, 1), 3);
    ck_assert_uint_eq(counters().direct_writes, before.direct_writes);
    ck_assert_uint_eq(size_behind(path_in(fs[0].path, "plain")), 4);
    ck_assert(content_is(path_in(fs[0].path, "direct"), SEED, FILE_BYTES));
}
END_TEST

START_TEST(dup2_onto_itself_keeps_the_number_direct)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    int fd = direct_new(path_in(fs[0].path, "file"));

    ck_assert_int_eq(dup2(fd, fd), fd);
    is_direct(fd);
    ck_assert_int_eq(dup2(1000, fd), -1);
    is_direct(fd);
}
END_TEST

START_TEST(setfl_on_one_number_is_seen_through_its_duplicates)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");

        make_file_behind(path, SEED, FILE_BYTES);
        int fd = open(path, O_RDWR);
        int copy = dup(fd);

        for (int round = 0; round < 3; round++) {
            unsigned char odd[100];

            ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
            direct_write(copy, SEED, 0, FILE_BYTES);
            is_direct(copy);
            is_direct(fd);

            ck_assert_int_eq(fcntl(copy, F_SETFL, 0), 0);
            struct bounceio_stats before = counters();

            pattern_fill(odd, sizeof(odd), SEED, 5001);
            ck_assert_int_eq(pwrite(fd, odd, sizeof(odd), 5001), sizeof(odd));
            ck_assert_int_eq(pread(copy, odd, sizeof(odd), 777), sizeof(odd));
            ck_assert_uint_eq(pattern_check(odd, sizeof(odd), SEED, 777), sizeof(odd));
            ck_assert_uint_eq(counters().direct_writes, before.direct_writes);
            ck_assert_uint_eq(counters().direct_reads, before.direct_reads);
        }
        close(fd);
        close(copy);
        ck_assert(content_is(path, SEED, FILE_BYTES));
    }
}
END_TEST

START_TEST(setfl_by_system_call_counts_as_well)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");

    make_file_behind(path, SEED, FILE_BYTES);
    int fd = open(path, O_RDWR);

    ck_assert_int_eq(syscall(SYS_fcntl, fd, F_SETFL, O_DIRECT), 0);
    direct_write(fd, SEED, 0, FILE_BYTES);
    is_direct(fd);
    ck_assert_int_eq(syscall(SYS_fcntl, fd, F_SETFL, 0), 0);
    ck_assert_int_eq(pwrite(fd, "", 1, FILE_BYTES), 1);
}
END_TEST

/* --- Many at once ------------------------------------------------------------------------------------------------- */

enum { CHURNERS = 8, CHURN = 100000 / CHURNERS };

static char churn_directory[4096];

/* Open, use and close numbers of every kind that other threads have just given up. */
static void *churn(void *argument)
{
    size_t id = (size_t)(uintptr_t)argument;
    struct random random = {random_run_seed() + id};
    char path[4200];
    unsigned char *memory = direct_memory();

    snprintf(path, sizeof(path), "%s/churn-%zu", churn_directory, id);
    for (size_t i = 0; i < CHURN; i++) {
        uint64_t seed = SEED + id * 1000 + i % 7;
        off_t offset = (off_t)random_below(&random, 8) * BLOCK;
        int pair[2];

        switch (random_below(&random, 8)) {
        case 0: {
            int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);

            pattern_fill(memory, BLOCK, seed, (uint64_t)offset);
            ck_assert_int_eq(pwrite(fd, memory, BLOCK, offset), BLOCK);
            memset(memory, 0, BLOCK);
            ck_assert_int_eq(pread(fd, memory, BLOCK, offset), BLOCK);
            ck_assert_uint_eq(pattern_check(memory, BLOCK, seed, (uint64_t)offset), BLOCK);
            ck_assert_int_eq(close(fd), 0);
            break;
        }
        case 1:
            ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
            ck_assert_int_eq(write(pair[0], &i, sizeof(i)), sizeof(i));
            ck_assert_int_eq(read(pair[1], memory, 99), sizeof(i));
            ck_assert_int_eq(memcmp(memory, &i, sizeof(i)), 0);
            close(pair[0]);
            close(pair[1]);
            break;
        default: {
            int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

            memset(memory, 1, 7);
            ck_assert_int_eq(read(fd, memory, 7), 7);
            ck_assert_int_eq(memory[6], 0);
            ck_assert_int_eq(close(fd), 0);
        }
        }
    }
    return NULL;
}

START_TEST(a_hundred_thousand_opens_and_closes_by_eight_threads)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    pthread_t threads[CHURNERS];

    snprintf(churn_directory, sizeof(churn_directory), "%s", fs[count > 1 ? 1 : 0].path);
    struct bounceio_stats before = counters();

    for (size_t i = 0; i < CHURNERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)i), 0);
    for (size_t i = 0; i < CHURNERS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    if (counting()) {
        struct bounceio_stats after = counters();

        ck_assert_uint_gt(after.direct_writes, before.direct_writes);
        ck_assert_uint_eq(after.direct_writes - before.direct_writes, after.direct_reads - before.direct_reads);
        ck_assert_uint_eq(after.mismatches, before.mismatches);
        ck_assert_uint_eq(after.passed_through, before.passed_through);
        ck_assert_uint_eq(after.pages_leaked, before.pages_leaked);
    }
}
END_TEST

START_TEST(ten_thousand_files_leave_no_descriptor_behind)
{
    struct test_fs fs[TEST_FS_MAX];
    char path[4200];

    test_filesystems(fs);
    int low = open("/dev/null", O_RDONLY);

    close(low);
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof(path), "%s/many-%d", fs[0].path, i % 500);
        int fd = direct_open(path, O_RDWR | O_CREAT);

        direct_write(fd, SEED, 0, BLOCK);
        ck_assert_int_eq(fd, low);
        close(fd);
    }
    DIR *open_now = opendir("/proc/self/fd");
    int entries = 0;

    while (readdir(open_now))
        entries++;
    closedir(open_now);
    ck_assert_int_lt(entries, 40);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_socket_that_reuses_a_closed_number_is_left_alone,
                                  a_closed_number_gives_ebadf,
                                  every_kind_of_duplicate_is_direct,
                                  a_plain_file_over_a_direct_number_is_plain,
                                  dup2_onto_itself_keeps_the_number_direct,
                                  setfl_on_one_number_is_seen_through_its_duplicates,
                                  setfl_by_system_call_counts_as_well,
                                  a_hundred_thousand_opens_and_closes_by_eight_threads,
                                  ten_thousand_files_leave_no_descriptor_behind,
                                  NULL};

    return support_main(argc, argv, "descriptors", 120, NULL, tests);
}
