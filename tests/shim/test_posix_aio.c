/*
 * POSIX AIO on direct files: stable and checked. What it has in common with the C library's is in test_posix_aio_parity*.c.
 */
#include <aio.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/posix_aio.h"
#include "support/racer.h"
#include "support/sequence.h"
#include "support/support.h"

enum { DEPTH = 32, LENGTH = 16 * BLOCK, SIZE = DEPTH * LENGTH, OLD = 1, NEW = 2, RUBBISH = 0xee };

/* --- Stable ------------------------------------------------------------------------------------------------------- */

/* Submit DEPTH writes of the pattern NEW, and overwrite the buffer at once. */
static void overwrite_after_submission(const char *path)
{
    struct aiocb controls[DEPTH];
    unsigned char *memory = buffer_new(SIZE);
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    pattern_fill(memory, SIZE, NEW, 0);
    for (size_t i = 0; i < DEPTH; i++) {
        controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
        check_that(aio_write(&controls[i]) == 0, "aio_write");
        memset(memory + i * LENGTH, RUBBISH, LENGTH);
    }
    for (size_t i = 0; i < DEPTH; i++)
        check_that(end_of(&controls[i]) == LENGTH, "write %zu gave %zd", i, end_of(&controls[i]));
    buffer_free(memory, SIZE);
    close(fd);
}

static void overwritten(const char *path)
{
    overwrite_after_submission(path);
    ck_assert(content_is(path, NEW, SIZE));
    direct_check(direct_open(path, O_RDONLY), NEW, 0, SIZE);
}

START_TEST(buffers_overwritten_right_after_submission_do_not_reach_the_file)
{
    posix_on_every_file_system(overwritten);
}
END_TEST

/* arguments: file. Exits with 0 when the file is not what was submitted. */
static int overwrite_control(int argc, char **argv)
{
    check_that(argc == 1, "usage: --overwrite FILE");
    for (int attempt = 0; attempt < 1000; attempt++) {
        overwrite_after_submission(argv[0]);
        if (!content_is(argv[0], NEW, SIZE))
            return 0;
    }
    return 1;
}

START_TEST(without_the_shim_they_do)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    struct child child =
        child_run_self(WITHOUT_SHIM, NULL, (const char *const[]){"--overwrite", path_in(fs[0].path, "file"), NULL});
    ck_assert(child_succeeded(&child));
    child_free(&child);
}
END_TEST

/* All of the file is written again and again while the buffers change. */
static void race(int fd, size_t length, size_t turns)
{
    struct aiocb controls[DEPTH];
    unsigned char *buffer = buffer_new(DEPTH * length);
    struct racer racer;
    racer_start(&racer, buffer, DEPTH * length);
    for (size_t turn = 0; turn < turns; turn++) {
        for (size_t i = 0; i < DEPTH; i++) {
            controls[i] = control_of(fd, buffer + i * length, length, i * length);
            check_that(aio_write(&controls[i]) == 0, "aio_write");
        }
        for (size_t i = 0; i < DEPTH; i++)
            check_that(end_of(&controls[i]) == (ssize_t)length, "write gave %zd", end_of(&controls[i]));
    }
    racer_stop(&racer);
    buffer_free(buffer, DEPTH * length);
}

static void racing(const char *path)
{
    static const size_t lengths[] = {BLOCK, LENGTH};
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    for (int i = 0; i < 2; i++) {
        race(fd, lengths[i], rounds(10, 500));
        struct bounceio_stats before = counters();
        for (size_t k = 0; k < DEPTH; k++)
            ck_assert_int_eq(posix_read(fd, direct_memory(), lengths[i], k * lengths[i]), (ssize_t)lengths[i]);
        if (counting())
            ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, DEPTH * lengths[i] / BLOCK);
    }
    close(fd);
}

START_TEST(racing_buffers_verify)
{
    posix_on_every_file_system(racing);
}
END_TEST

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static void unaligned(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    unsigned char *memory = direct_memory();
    struct bounceio_stats before = counters();
    pattern_fill(memory, SIZE, NEW, 0);
    ck_assert_int_eq(posix_write(fd, memory, SIZE, 0), SIZE);
    memset(memory, 0, SIZE);
    ck_assert_int_eq(posix_read(fd, memory, SIZE, 0), SIZE);
    ck_assert_uint_eq(pattern_check(memory, SIZE, NEW, 0), SIZE);
    ck_assert(content_is(path, NEW, SIZE));
    if (counting()) {
        ck_assert_uint_eq(counters().direct_writes - before.direct_writes, 1);
        ck_assert_uint_eq(counters().direct_reads - before.direct_reads, 1);
        ck_assert_uint_eq(counters().bytes_bounced - before.bytes_bounced, 2 * SIZE);
    }
    close(fd);
}

START_TEST(unaligned_memory_works)
{
    posix_on_every_file_system(unaligned);
}
END_TEST

static void bad(const char *path)
{
    int fd = posix_file(path, OLD, SIZE);
    unsigned char *memory = buffer_new(SIZE); /* nothing is there behind its end */
    unsigned char *end = memory + SIZE;
    pattern_fill(end - LENGTH, LENGTH, NEW, 0);
    ck_assert_int_eq(posix_write(fd, end, LENGTH, 0), -EFAULT);
    ck_assert_int_eq(posix_read(fd, end, LENGTH, 0), -EFAULT);
    ck_assert_int_eq(posix_write(fd, (void *)(UINTPTR_MAX - LENGTH + 1), LENGTH, 0), -EFAULT);
    ck_assert(content_is(path, OLD, SIZE));
    pattern_fill(end - 3 * BLOCK, 3 * BLOCK, NEW, 0);
    ssize_t n = posix_write(fd, end - 3 * BLOCK, LENGTH, 0);
    ck_assert_msg(n == 3 * BLOCK || n == -EFAULT, "a partly bad buffer gave %zd", n);
    unsigned char found[4 * BLOCK];
    ck_assert_uint_eq(read_behind(path, found, sizeof found, 0), sizeof found);
    ck_assert_uint_eq(pattern_check(found, 3 * BLOCK, n > 0 ? NEW : OLD, 0), 3 * BLOCK);
    ck_assert_uint_eq(pattern_check(found + 3 * BLOCK, BLOCK, OLD, 3 * BLOCK), BLOCK);
    n = posix_read(fd, end - 3 * BLOCK, LENGTH, 8 * BLOCK);
    ck_assert_msg(n == 3 * BLOCK || n == -EFAULT, "a partly bad buffer gave %zd", n);
    direct_check(fd, OLD, 3 * BLOCK, SIZE - 3 * BLOCK);
    buffer_free(memory, SIZE);
    close(fd);
}

START_TEST(bad_pointers_are_refused_or_cut_short)
{
    posix_on_every_file_system(bad);
}
END_TEST

/* --- Checked ------------------------------------------------------------------------------------------------------ */

/* arguments: file. Its third block is damaged: a read of it fails, one beside it does not. */
static int read_damaged(int argc, char **argv)
{
    check_that(argc == 1, "usage: --damaged FILE");
    int fd = posix_file(argv[0], OLD, SIZE);
    flip_bit_behind(argv[0], 2 * BLOCK + 77, 3);
    check_that(posix_read(fd, aligned_memory(), BLOCK, 2 * BLOCK) == -EIO, "in place");
    check_that(posix_read(fd, direct_memory(), LENGTH, 0) == -EIO, "through pages");
    check_that(posix_read(fd, direct_memory(), LENGTH, 3 * BLOCK) == LENGTH, "beside it");
    struct aiocb controls[2] = {control_of(fd, aligned_memory(), BLOCK, 2 * BLOCK),
                                control_of(fd, aligned_memory() + BLOCK, BLOCK, 0)};
    struct aiocb *list[] = {&controls[0], &controls[1]};
    controls[0].aio_lio_opcode = controls[1].aio_lio_opcode = LIO_READ;
    check_that(lio_listio(LIO_WAIT, list, 2, NULL) == -1 && errno == EIO, "in a list");
    check_that(end_of(&controls[0]) == -EIO && end_of(&controls[1]) == BLOCK, "in a list");
    check_that(counters().mismatches >= 3, "not counted");
    return 0;
}

START_TEST(a_damaged_block_fails_the_read)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        char line[4300];
        snprintf(line, sizeof line, "bounceio: checksum mismatch: path=\"%s\" offset=%d length=4096", path, 2 * BLOCK);
        if (strcmp(fs[i].name, "btrfs") == 0)
            continue; /* finds it itself */
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--damaged", path, NULL});
        ck_assert_msg(child_succeeded(&child), "%s: %s", fs[i].name, child.errors);
        ck_assert_msg(strstr(child.errors, line), "%s: '%s' is not in '%s'", fs[i].name, line, child.errors);
        child_free(&child);
        unlink(path);
    }
}
END_TEST

/* arguments: directory of a small file system. */
static int no_space(int argc, char **argv)
{
    check_that(argc == 1, "usage: --no-space DIRECTORY");
    const char *path = path_in(argv[0], "file");
    int fd = direct_open(path, O_RDWR | O_CREAT);
    struct aiocb controls[8];
    size_t written = 0, failed = 0;
    unsigned char *memory = buffer_new(8 << 20);
    for (size_t turn = 0; failed == 0; turn++) {
        pattern_fill(memory, 8 << 20, NEW, turn << 23);
        for (size_t i = 0; i < 8; i++) {
            controls[i] = control_of(fd, memory + (i << 20), 1 << 20, (turn << 23) + (i << 20));
            check_that(aio_write(&controls[i]) == 0, "aio_write");
        }
        for (size_t i = 0; i < 8; i++) {
            ssize_t n = end_of(&controls[i]);
            check_that(n > 0 || n == -ENOSPC, "write gave %zd", n);
            if (n < 1 << 20)
                failed++;
            else if (failed == 0)
                written += (size_t)n;
        }
        check_that(turn < 1000, "the file system is never full");
    }
    for (size_t at = 0; at < written; at += 1 << 20)
        direct_check(fd, NEW, (off_t)at, 1 << 20);
    check_that(counters().mismatches == 0 && counters().passed_through == 0, "counters");
    return 0;
}

START_TEST(no_space_left)
{
    static const struct {
        const char *kind;
        unsigned megabytes;
    } small[] = {{"ext4", 64}, {"xfs", 320}, {"btrfs", 160}};
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    for (size_t i = 0; i < 3; i++) {
        const char *image = path_in(fs[0].path, "image"), *directory = path_in(fs[0].path, "small");
        if (!small_filesystem_mount(small[i].kind, image, directory, small[i].megabytes)) {
            test_skip("no small file system of kind %s", small[i].kind);
            continue;
        }
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--no-space", directory, NULL});
        filesystem_unmount(directory);
        ck_assert_msg(child_succeeded(&child), "%s: %s", small[i].kind, child.errors);
        child_free(&child);
    }
}
END_TEST

/* arguments: file. Changes of buffers are to be reported: they must be seen. */
static int detect(int argc, char **argv)
{
    check_that(argc == 1, "usage: --detect FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC);
    for (int attempt = 0; attempt < 500 && counters().unstable_buffers == 0; attempt++)
        race(fd, LENGTH, 10);
    check_that(counters().unstable_buffers > 0, "no change was seen");
    return 0;
}

START_TEST(changes_in_flight_are_reported_where_that_is_asked_for)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    struct child child = child_run_self(WITH_SHIM, (const char *const[]){"BOUNCEIO_DETECT=1", NULL},
                                        (const char *const[]){"--detect", path_in(fs[0].path, "file"), NULL});
    ck_assert_msg(child_succeeded(&child), "%s", child.errors);
    child_free(&child);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--overwrite", overwrite_control},
                                                {"--damaged", read_damaged},
                                                {"--no-space", no_space},
                                                {"--detect", detect},
                                                {NULL, NULL}};
    const TTest *const tests[] = {buffers_overwritten_right_after_submission_do_not_reach_the_file,
                                  without_the_shim_they_do,
                                  racing_buffers_verify,
                                  unaligned_memory_works,
                                  bad_pointers_are_refused_or_cut_short,
                                  a_damaged_block_fails_the_read,
                                  no_space_left,
                                  changes_in_flight_are_reported_where_that_is_asked_for,
                                  NULL};

    return support_main(argc, argv, "posix_aio", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
