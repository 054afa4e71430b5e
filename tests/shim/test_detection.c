/*
 * Detection: bits flipped, blocks swapped and blocks replaced by an older version of themselves, behind the shim's back and with
 * the file's times restored. Each is reported by the next read, at its exact place; healthy traffic is never reported.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { FILE_BLOCKS = 512, FILE_BYTES = FILE_BLOCKS * BLOCK, REQUEST_BLOCKS = 32 };

extern __typeof__(bounceio_on_mismatch) bounceio_on_mismatch __attribute__((weak));
extern __typeof__(bounceio_verify_range) bounceio_verify_range __attribute__((weak));

/* One damaged file, and what the shim has said about it. */
struct scene {
    const char *path;
    const char *log; /* BOUNCEIO_LOG_FILE */
    int fd;
    struct random random;
    uint64_t seeds[FILE_BLOCKS]; /* pattern of each block as the program knows it */
    uint64_t log_read;           /* bytes of the log that were looked at */
    uint64_t called_back;        /* mismatches reported to the callback */
    uint64_t last_offset;        /* of the last of them */
};

static void called_back(const struct bounceio_mismatch *mismatch, void *argument)
{
    struct scene *scene = argument;

    check_that(strcmp(mismatch->path, scene->path) == 0, "the callback was told %s", mismatch->path);
    check_that(mismatch->length == BLOCK && mismatch->expected != mismatch->found, "callback");
    scene->called_back++;
    scene->last_offset = mismatch->offset;
}

/* --- The program's side ------------------------------------------------------------------------------------------- */

static void write_block(struct scene *scene, size_t block)
{
    scene->seeds[block] = random_next(&scene->random);
    direct_write(scene->fd, scene->seeds[block], (off_t)block * BLOCK, BLOCK);
}

/* A read of 1 to REQUEST_BLOCKS blocks around `block`, in one of the ways programs read. @return what it returned. */
static ssize_t read_around(struct scene *scene, size_t block, size_t *first, size_t *blocks, unsigned char **memory)
{
    size_t before = random_below(&scene->random, block < REQUEST_BLOCKS / 2 ? block + 1 : REQUEST_BLOCKS / 2);
    size_t after = random_below(&scene->random, REQUEST_BLOCKS / 2);

    *first = block - before;
    *blocks = before + 1 + after;
    if (*first + *blocks > FILE_BLOCKS)
        *blocks = FILE_BLOCKS - *first;
    /* Aligned memory may be read in place, odd memory is always bounced. */
    *memory = random_chance(&scene->random, 50) ? aligned_memory() : direct_memory();
    off_t offset = (off_t)*first * BLOCK;
    struct iovec vector[2] = {{*memory, BLOCK}, {*memory + BLOCK, (*blocks - 1) * BLOCK}};

    switch (random_below(&scene->random, 3)) {
    case 0:
        return preadv(scene->fd, vector, 2, offset);
    case 1:
        check_that(lseek(scene->fd, offset, SEEK_SET) == offset, "lseek");
        return read(scene->fd, *memory, *blocks * BLOCK);
    default:
        return pread(scene->fd, *memory, *blocks * BLOCK, offset);
    }
}

static void expect_healthy(struct scene *scene, size_t block)
{
    size_t first, blocks;
    unsigned char *memory;
    ssize_t n = read_around(scene, block, &first, &blocks, &memory);

    check_that(n == (ssize_t)(blocks * BLOCK), "a healthy read at block %zu gave %zd", first, n);
    for (size_t i = 0; i < blocks; i++)
        check_that(pattern_check(memory + i * BLOCK, BLOCK, scene->seeds[first + i], (first + i) * BLOCK) == BLOCK,
                   "block %zu is wrong", first + i);
}

/* The log's new lines: exactly one mismatch, naming path and offset. */
static void expect_log_line(struct scene *scene, uint64_t offset)
{
    char text[8192], wanted[4300];
    size_t n = read_behind(scene->log, text, sizeof(text) - 1, scene->log_read);

    text[n] = 0;
    scene->log_read += n;
    snprintf(wanted, sizeof(wanted),
             "bounceio: checksum mismatch: path=\"%s\" offset=%llu length=4096 expected=", scene->path,
             (unsigned long long)offset);
    char *line = strstr(text, "bounceio: checksum mismatch:");

    check_that(line && strncmp(line, wanted, strlen(wanted)) == 0, "wanted '%s', the log says '%s'", wanted, text);
    check_that(strstr(line, " found=") && !strstr(line + 1, "bounceio: checksum mismatch:"), "the log says '%s'", text);
}

/* Whichever request comes next over `block`, it fails as a whole and says where. */
static void expect_detected(struct scene *scene, size_t block)
{
    size_t first, blocks;
    unsigned char *memory;
    uint64_t already = scene->called_back;
    uint64_t counted = counters().mismatches;
    ssize_t n = read_around(scene, block, &first, &blocks, &memory);

    check_that(n == -1 && errno == EIO, "block %zu is damaged, the read of %zu blocks from %zu gave %zd", block, blocks,
               first, n);
    check_that(scene->called_back == already + 1 && scene->last_offset == block * BLOCK,
               "damage at block %zu was called back %llu times, last at %llu", block,
               (unsigned long long)(scene->called_back - already), (unsigned long long)scene->last_offset);
    check_that(counters().mismatches == counted + 1, "the mismatch was not counted once");
    expect_log_line(scene, block * BLOCK);
}

/* --- The disk's side ---------------------------------------------------------------------------------------------- */

static void restore_block(struct scene *scene, size_t block)
{
    unsigned char data[BLOCK];

    pattern_fill(data, BLOCK, scene->seeds[block], block * BLOCK);
    write_behind(scene->path, data, BLOCK, block * BLOCK);
    expect_healthy(scene, block);
}

static void flip(struct scene *scene, size_t block)
{
    flip_bit_behind(scene->path, block * BLOCK + random_below(&scene->random, BLOCK),
                    (unsigned)random_below(&scene->random, 8));
    expect_detected(scene, block);
    restore_block(scene, block);
}

static void swap(struct scene *scene, size_t block)
{
    unsigned char data[BLOCK];
    size_t other =
        (block + REQUEST_BLOCKS + random_below(&scene->random, FILE_BLOCKS - 2 * REQUEST_BLOCKS)) % FILE_BLOCKS;

    pattern_fill(data, BLOCK, scene->seeds[other], other * BLOCK);
    write_behind(scene->path, data, BLOCK, block * BLOCK);
    pattern_fill(data, BLOCK, scene->seeds[block], block * BLOCK);
    write_behind(scene->path, data, BLOCK, other * BLOCK);
    expect_detected(scene, block);
    expect_detected(scene, other);
    restore_block(scene, block);
    restore_block(scene, other);
}

static void replace_by_older_version(struct scene *scene, size_t block)
{
    unsigned char older[BLOCK];

    pattern_fill(older, BLOCK, scene->seeds[block], block * BLOCK);
    write_block(scene, block);
    write_behind(scene->path, older, BLOCK, block * BLOCK);
    expect_detected(scene, block);
    /* Heal it as programs do: by writing it again. */
    write_block(scene, block);
    expect_healthy(scene, block);
}

/* arguments: file, log, kind of damage, how often. */
static int damage(int argc, char **argv)
{
    static struct scene scene;

    check_that(argc == 4, "usage: --damage FILE LOG KIND COUNT");
    if (!counting())
        return 0;
    scene.path = argv[0];
    scene.log = argv[1];
    scene.random.state = random_run_seed();
    scene.fd = direct_open(scene.path, O_RDWR | O_CREAT | O_TRUNC);
    make_file_behind(scene.log, 0, 0);
    bounceio_on_mismatch(called_back, &scene);
    for (size_t block = 0; block < FILE_BLOCKS; block++)
        write_block(&scene, block);
    for (long i = 0, count = atol(argv[3]); i < count; i++) {
        size_t block = random_below(&scene.random, FILE_BLOCKS);

        switch (argv[2][0]) {
        case 'f':
            flip(&scene, block);
            break;
        case 's':
            swap(&scene, block);
            break;
        default:
            replace_by_older_version(&scene, block);
        }
    }
    check_that(counters().changed_outside == 0 && counters().blocks_unverified == 0, "something was not verified");
    return 0;
}

static void every_damage_is_detected(const char *kind)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        char log[4200], times[16], seed[64];
        const char *path = path_in(fs[i].path, kind);

        snprintf(log, sizeof(log), "BOUNCEIO_LOG_FILE=%s.log", path);
        snprintf(times, sizeof(times), "%zu", rounds(200, 10000));
        snprintf(seed, sizeof(seed), "BOUNCEIO_TEST_SEED=%llu", (unsigned long long)random_run_seed() + i);
        struct child child =
            child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, (const char *const[]){log, seed, NULL},
                           (const char *const[]){"--damage", path, strchr(log, '=') + 1, kind, times, NULL});

        ck_assert_msg(child_succeeded(&child), "on %s", fs[i].name);
        child_free(&child);
    }
}

START_TEST(every_flipped_bit_is_detected)
{
    every_damage_is_detected("flip");
}
END_TEST

START_TEST(every_swapped_block_is_detected)
{
    every_damage_is_detected("swap");
}
END_TEST

START_TEST(every_older_version_is_detected)
{
    every_damage_is_detected("older");
}
END_TEST

/* --- Small reads and writes --------------------------------------------------------------------------------------- */

START_TEST(a_read_of_one_sector_notices_damage_elsewhere_in_its_block)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; counting() && i < count; i++) {
        const char *path = path_in(fs[i].path, "sectors");
        int fd = direct_open(path, O_RDWR | O_CREAT);

        direct_write(fd, 1, 0, 8 * BLOCK);
        direct_check(fd, 1, 3 * BLOCK + SECTOR, SECTOR);
        flip_bit_behind(path, 3 * BLOCK + 7 * SECTOR, 0);
        ck_assert_int_eq(pread(fd, direct_memory(), SECTOR, 3 * BLOCK + SECTOR), -1);
        ck_assert_int_eq(errno, EIO);
        direct_check(fd, 1, 4 * BLOCK, SECTOR);
        close(fd);
    }
}
END_TEST

START_TEST(a_partial_write_does_not_bless_a_damaged_block)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; counting() && i < count; i++) {
        const char *path = path_in(fs[i].path, "partial");
        int fd = direct_open(path, O_RDWR | O_CREAT);

        direct_write(fd, 1, 0, 8 * BLOCK);
        flip_bit_behind(path, 3 * BLOCK + 7 * SECTOR, 0);
        pattern_fill(direct_memory(), SECTOR, 2, 0);
        (void)!pwrite(fd, direct_memory(), SECTOR, 3 * BLOCK);
        ck_assert_int_eq(pread(fd, direct_memory(), BLOCK, 3 * BLOCK), -1);
        ck_assert_int_eq(errno, EIO);
        direct_write(fd, 1, 3 * BLOCK, BLOCK);
        direct_check(fd, 1, 0, 8 * BLOCK);
        close(fd);
    }
}
END_TEST

START_TEST(verify_range_names_exactly_the_damaged_blocks)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; counting() && i < count; i++) {
        const char *path = path_in(fs[i].path, "range");
        struct bounceio_verify_result result;
        int fd = direct_open(path, O_RDWR | O_CREAT);

        direct_write(fd, 1, 0, 64 * BLOCK);
        flip_bit_behind(path, 3 * BLOCK, 0);
        flip_bit_behind(path, 40 * BLOCK + 4095, 7);
        ck_assert_int_eq(bounceio_verify_range(fd, 0, 0, &result), 0);
        ck_assert_uint_eq(result.blocks, 64);
        ck_assert_uint_eq(result.verified, 62);
        ck_assert_uint_eq(result.mismatched, 2);
        ck_assert_uint_eq(result.unverified, 0);
        ck_assert_int_eq(bounceio_verify_range(fd, 4 * BLOCK, 36 * BLOCK, &result), 0);
        ck_assert_uint_eq(result.verified, 36);
        ck_assert_uint_eq(result.mismatched, 0);
        close(fd);
    }
}
END_TEST

/*
 * A file that was looked at before a write is stamped with a finer clock than others (multigrain timestamps, Linux 6.13): that must
 * not pass for a change from outside, for from then on damage would be adopted.
 */
START_TEST(damage_is_noticed_in_files_that_were_looked_at_while_written)
{
    enum { FILES = 60 };
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; counting() && i < count * FILES; i++) {
        char name[32];
        struct stat st;

        snprintf(name, sizeof(name), "looked-at-%zu", i);
        int fd = direct_open(path_in(fs[i / FILES].path, name), O_RDWR | O_CREAT);

        for (int round = 0; round < 3; round++) {
            direct_write(fd, 1, 0, 2 * BLOCK);
            ck_assert_int_eq(fstat(fd, &st), 0);
        }
        close(fd);
    }
    /* A pause after which the next write compares the times first. */
    usleep(150000);
    for (size_t i = 0; counting() && i < count * FILES; i++) {
        char name[32];

        snprintf(name, sizeof(name), "looked-at-%zu", i);
        const char *path = path_in(fs[i / FILES].path, name);
        int fd = direct_open(path, O_RDWR);

        direct_write(fd, 1, BLOCK, BLOCK);
        flip_bit_behind(path, 100, 0);
        ck_assert_msg(pread(fd, direct_memory(), BLOCK, 0) == -1 && errno == EIO, "%s: not noticed", path);
        close(fd);
    }
}
END_TEST

/* --- BOUNCEIO_ON_MISMATCH ----------------------------------------------------------------------------------------- */

/* arguments: file. Reads a file with one flipped bit; returns 0 when the read gave the data as it is on the disk. */
static int read_damaged(int argc, char **argv)
{
    check_that(argc == 1, "usage: --read-damaged FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, 1, 0, 8 * BLOCK);
    flip_bit_behind(argv[0], 2 * BLOCK + 9, 0);
    ssize_t n = pread(fd, direct_memory(), 8 * BLOCK, 0);

    check_that(n == 8 * BLOCK, "read gave %zd", n);
    direct_memory()[2 * BLOCK + 9] ^= 1;
    check_that(pattern_check(direct_memory(), 8 * BLOCK, 1, 0) == 8 * BLOCK, "the data is not what is on the disk");
    check_that(counters().mismatches == 1, "not counted");
    return 0;
}

static struct child read_damaged_with(const char *policy)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    return child_run_self(WITH_SHIM, (const char *const[]){policy, "BOUNCEIO_LOG_FILE", NULL},
                          (const char *const[]){"--read-damaged", path_in(fs[0].path, "damaged"), NULL});
}

START_TEST(warn_logs_counts_and_returns_the_data)
{
    if (!counting())
        return;
    struct child child = read_damaged_with("BOUNCEIO_ON_MISMATCH=warn");

    ck_assert(child_succeeded(&child));
    ck_assert_ptr_nonnull(strstr(child.errors, "bounceio: checksum mismatch: path="));
    ck_assert_ptr_nonnull(strstr(child.errors, "offset=8192 length=4096"));
    child_free(&child);
}
END_TEST

START_TEST(abort_logs_and_aborts)
{
    if (!counting())
        return;
    struct child child = read_damaged_with("BOUNCEIO_ON_MISMATCH=abort");

    ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT, "status %#x", (unsigned)child.status);
    ck_assert_ptr_nonnull(strstr(child.errors, "offset=8192 length=4096"));
    child_free(&child);
}
END_TEST

/* --- Healthy traffic ---------------------------------------------------------------------------------------------- */

enum { TRAFFIC_THREADS = 3, TRAFFIC_BLOCKS = 4096 };

struct traffic {
    const char *path; /* one file, written by all */
    uint64_t bytes;   /* to move */
    uint64_t id;
};

/* Reads and writes of all sizes, whole blocks and sectors, over each other's blocks, from memory of both kinds. */
static void *mixed_traffic(void *argument)
{
    struct traffic *traffic = argument;
    struct random random = {random_run_seed() * 31 + traffic->id};
    int fd = direct_open(traffic->path, O_RDWR);

    for (uint64_t moved = 0; moved < traffic->bytes;) {
        uint64_t shape = random_below(&random, 100);
        bool sectors = shape < 10;
        size_t unit = sectors ? SECTOR : BLOCK;
        size_t length = unit * (1 + random_below(&random, sectors ? 20 : shape < 80 ? 16 : 256));
        off_t offset = (off_t)(unit * random_below(&random, (uint64_t)TRAFFIC_BLOCKS * BLOCK / unit - length / unit));
        unsigned char *at = random_chance(&random, 50) ? aligned_memory() : direct_memory();
        bool writes = random_chance(&random, 40);

        if (writes)
            memset(at, (int)(shape + traffic->id), length);
        ssize_t n = writes ? pwrite(fd, at, length, offset) : pread(fd, at, length, offset);

        check_that(n == (ssize_t)length, "%s of %zu at %lld gave %zd", writes ? "write" : "read", length,
                   (long long)offset, n);
        moved += length;
    }
    close(fd);
    return NULL;
}

START_TEST(mixed_traffic_raises_no_false_alarm)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    struct bounceio_stats before = counters();
    uint64_t bytes = rounds(300, 10240) * 1048576ULL;

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "traffic");
        struct traffic traffic[TRAFFIC_THREADS];
        pthread_t threads[TRAFFIC_THREADS];

        make_file_behind(path, 1, (size_t)TRAFFIC_BLOCKS * BLOCK);
        for (uint64_t n = 0; n < TRAFFIC_THREADS; n++) {
            traffic[n] = (struct traffic){path, bytes / count / TRAFFIC_THREADS, i * TRAFFIC_THREADS + n};
            ck_assert_int_eq(pthread_create(&threads[n], NULL, mixed_traffic, &traffic[n]), 0);
        }
        for (size_t n = 0; n < TRAFFIC_THREADS; n++)
            ck_assert_int_eq(pthread_join(threads[n], NULL), 0);
        unlink(path);
    }
    if (counting()) {
        struct bounceio_stats after = counters();

        ck_assert_uint_eq(after.mismatches, before.mismatches);
        ck_assert_uint_eq(after.changed_outside, before.changed_outside);
        ck_assert_uint_eq(after.passed_through, before.passed_through);
        ck_assert_uint_eq(after.pages_leaked, before.pages_leaked);
        ck_assert_uint_gt(after.blocks_verified - before.blocks_verified, bytes / BLOCK / 8);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--damage", damage}, {"--read-damaged", read_damaged}, {NULL, NULL}};
    const TTest *const tests[] = {every_flipped_bit_is_detected,
                                  every_swapped_block_is_detected,
                                  every_older_version_is_detected,
                                  a_read_of_one_sector_notices_damage_elsewhere_in_its_block,
                                  a_partial_write_does_not_bless_a_damaged_block,
                                  verify_range_names_exactly_the_damaged_blocks,
                                  damage_is_noticed_in_files_that_were_looked_at_while_written,
                                  warn_logs_counts_and_returns_the_data,
                                  abort_logs_and_aborts,
                                  mixed_traffic_raises_no_false_alarm,
                                  NULL};

    return support_main(argc, argv, "detection", getenv("BOUNCEIO_TEST_FULL") ? 3600 : 180, modes, tests);
}
