/*
 * Stable pages: a thread rewrites the buffer for as long as direct writes of it are in flight. With the shim every block on
 * the file agrees with its checksum; without it, what was hashed before the write is not what landed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/racer.h"
#include "support/support.h"

enum { EXTENTS = 16 };

/* Write the racing buffer `writes` times, to EXTENTS places in turn. `hashes`, if any, receives what a caller's own hash of the
 * block says just before the write: one hash per block of the file. */
static void race(int fd, size_t length, size_t writes, uint64_t *hashes)
{
    struct racer racer;
    unsigned char *buffer = aligned_alloc(BLOCK, length);

    check_that(buffer, "no memory");
    memset(buffer, 0, length);
    racer_start(&racer, buffer, length);
    for (size_t i = 0; i < writes; i++) {
        size_t extent = i % EXTENTS;

        for (size_t block = 0; hashes && block < length / BLOCK; block++)
            hashes[extent * (length / BLOCK) + block] = hash_bytes(HASH_START, buffer + block * BLOCK, BLOCK);
        ssize_t n = pwrite(fd, buffer, length, (off_t)(extent * length));

        check_that(n == (ssize_t)length, "write %zu gave %zd", i, n);
    }
    racer_stop(&racer);
    free(buffer);
}

static void racing_writes_verify(size_t length, size_t writes)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
        struct bounceio_stats before = counters();

        race(fd, length, writes, NULL);
        struct bounceio_stats written = counters();

        for (size_t at = 0; at < EXTENTS * length; at += length) {
            ssize_t n = pread(fd, direct_memory(), length, (off_t)at);

            ck_assert_msg(n == (ssize_t)length, "%s: read at %zu gave %zd: %m", fs[i].name, at, n);
        }
        if (counting()) {
            struct bounceio_stats after = counters();

            ck_assert_uint_eq(written.blocks_summed - before.blocks_summed, writes * (length / BLOCK));
            ck_assert_uint_eq(after.blocks_verified - written.blocks_verified, EXTENTS * (length / BLOCK));
            ck_assert_uint_eq(after.blocks_unverified, written.blocks_unverified);
            ck_assert_uint_eq(after.mismatches, before.mismatches);
            ck_assert_uint_eq(after.passed_through, before.passed_through);
        }
        close(fd);
        unlink(path);
    }
}

START_TEST(racing_writes_of_4_kib_verify)
{
    racing_writes_verify(BLOCK, rounds(2000, 20000));
}
END_TEST

START_TEST(racing_writes_of_64_kib_verify)
{
    racing_writes_verify(16 * BLOCK, rounds(1000, 20000));
}
END_TEST

START_TEST(racing_writes_of_1_mib_verify)
{
    racing_writes_verify(256 * BLOCK, rounds(200, 20000));
}
END_TEST

/* arguments: file. Prints how many blocks of the file are not what was hashed before they were written. */
static int control(int argc, char **argv)
{
    enum { LENGTH = 16 * BLOCK, PER_EXTENT = LENGTH / BLOCK };
    static uint64_t hashes[EXTENTS * PER_EXTENT];
    static unsigned char block[BLOCK];
    size_t different = 0;

    check_that(argc == 1, "usage: --control FILE");
    int fd = open(argv[0], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);

    /* On a busy machine the racer may not get its turn at once. */
    for (int attempt = 0; attempt < 200 && different == 0; attempt++) {
        race(fd, LENGTH, 50L * EXTENTS, hashes);
        for (size_t i = 0; i < EXTENTS * PER_EXTENT; i++) {
            check_that(read_behind(argv[0], block, BLOCK, i * BLOCK) == BLOCK, "short file");
            different += hash_bytes(HASH_START, block, BLOCK) != hashes[i];
        }
    }
    printf("%zu\n", different);
    return 0;
}

START_TEST(without_the_shim_the_same_race_tears_blocks)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    struct child child =
        child_run_self(WITHOUT_SHIM, NULL, (const char *const[]){"--control", path_in(fs[0].path, "file"), NULL});

    ck_assert(child_succeeded(&child));
    ck_assert_int_gt(atoi(child.output), 0);
    child_free(&child);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--control", control}, {NULL, NULL}};
    const TTest *const tests[] = {racing_writes_of_4_kib_verify, racing_writes_of_64_kib_verify,
                                  racing_writes_of_1_mib_verify, without_the_shim_the_same_race_tears_blocks, NULL};

    return support_main(argc, argv, "stable", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
