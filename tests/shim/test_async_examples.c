/*
 * The examples that use liburing and libaio as their manual pages do, unchanged: their result is the same, every direct request was bounced, and
 * damage is found.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/command.h"
#include "support/direct.h"

enum { SEED = 1, SIZE = (5 << 20) + 12345, DIRECT = SIZE / BLOCK * BLOCK };

static const char *example(const char *name)
{
    const char *build = getenv("BOUNCEIO_TEST_BUILD");

    return path_in(path_in(build ? build : "build", "examples"), name);
}

/* Run it under the shim, with a report of its counters in `report`. */
static struct child run(const char *report, const char *const *argv)
{
    char statistics[4200];

    unlink(report);
    snprintf(statistics, sizeof(statistics), "BOUNCEIO_STATS=%s", report);
    return child_run(WITH_SHIM, (const char *const[]){statistics, NULL}, argv);
}

static void runs(const char *report, const char *const *argv)
{
    struct child child = run(report, argv);

    ck_assert_msg(child_succeeded(&child), "%s: %s", argv[0], child.errors);
    child_free(&child);
    ck_assert_int_eq(stats_read(report, "passed_through"), 0);
    ck_assert_int_eq(stats_read(report, "mismatches"), 0);
}

/* It fails, and the shim has said why. */
static void fails(const char *report, const char *const *argv, const char *path, uint64_t offset)
{
    struct child child = run(report, argv);
    char line[4300];

    snprintf(line, sizeof(line), "checksum mismatch: path=\"%s\" offset=%llu length=4096", path,
             (unsigned long long)offset);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 1, "status %x", (unsigned)child.status);
    ck_assert_msg(strstr(child.errors, line) && strstr(child.errors, "Input/output error"), "%s", child.errors);
    child_free(&child);
}

static void write_source(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    for (size_t at = 0; at < DIRECT; at += 64 * BLOCK)
        direct_write(fd, SEED, (off_t)at, DIRECT - at < 64 * BLOCK ? DIRECT - at : 64 * BLOCK);
    close(fd);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    pattern_fill(direct_memory(), SIZE - DIRECT, SEED, DIRECT);
    ck_assert_int_eq(pwrite(fd, direct_memory(), SIZE - DIRECT, DIRECT), SIZE - DIRECT);
    close(fd);
}

START_TEST(a_liburing_program_copies)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *from = path_in(fs[i].path, "from"), *to = path_in(fs[i].path, "to");
        const char *report = path_in(fs[i].path, "report");
        const char *const argv[] = {example("uring_copy"), from, to, NULL};

        write_source(from);
        runs(report, argv);
        ck_assert_msg(content_is(to, SEED, SIZE), "%s: the copy", fs[i].name);
        ck_assert_int_eq(stats_read(report, "bytes_read"), DIRECT);
        ck_assert_int_eq(stats_read(report, "bytes_written"), DIRECT);
        ck_assert_int_eq(stats_read(report, "blocks_verified"), DIRECT / BLOCK);
        ck_assert_uint_eq(command_counts(0, NULL, "scrub", to, "mismatches"), 0);
        flip_bit_behind(from, 300 * BLOCK + 5, 1);
        fails(report, argv, from, 300 * BLOCK);
        flip_bit_behind(from, 300 * BLOCK + 5, 1);
    }
}
END_TEST

START_TEST(a_libaio_program_writes_and_reads)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "blocks"), *report = path_in(fs[i].path, "report");

        runs(report, (const char *const[]){example("aio_blocks"), path, "4", NULL});
        ck_assert_int_eq(stats_read(report, "direct_writes"), 256);
        ck_assert_int_eq(stats_read(report, "direct_reads"), 256);
        ck_assert_int_eq(stats_read(report, "blocks_summed"), 1024);
        ck_assert_int_eq(stats_read(report, "blocks_verified"), 1024);
        ck_assert_uint_eq(command_counts(0, NULL, "scrub", path, "mismatches"), 0);
        flip_bit_behind(path, 77 * BLOCK, 7);
        ck_assert_uint_eq(command_counts(1, NULL, "scrub", path, "mismatches"), 1);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_liburing_program_copies, a_libaio_program_writes_and_reads, NULL};

    return support_main(argc, argv, "examples", 120, NULL, tests);
}
