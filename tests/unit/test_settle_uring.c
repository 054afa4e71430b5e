/*
 * Sequence 6: a process is killed with a write by io_uring on its way to a disk that is stalled. The write lands when the disk goes on,
 * long after the process is gone. Whoever settles what it left waits for that, or leaves it; never is the block taken for what it
 * was, or for damaged.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/config.h"
#include "checksum/announce.h"
#include "checksum/settle.h"
#include "support/map_fixture.h"
#include "support/sequence.h"
#include "support/stall.h"
#include "support/support.h"

enum { BLOCKS = 8, FIRST = 2, COUNT = 2, OLD = 1, NEW = 2 };

/* What the participants share, in memory. */
struct stage {
    volatile bool waiting; /* the settler is in the barrier */
    volatile bool waited;  /* ... and has left it */
    uint64_t torn;
};

static struct stage *stage;
static struct stalled_disk disk;
static struct map_fixture fixture;
static unsigned char *page; /* COUNT blocks, aligned */

static uint64_t sum_of_pattern(uint64_t seed, uint64_t block)
{
    static unsigned char data[BLOCK];

    pattern_fill(data, BLOCK, seed, block * BLOCK);
    return block_sum(data, block);
}

static bool content_is(uint64_t seed, uint64_t block)
{
    ck_assert_int_eq(pread(fixture.fd, page, BLOCK, (off_t)(block * BLOCK)), BLOCK);
    return pattern_check(page, BLOCK, seed, block * BLOCK) == BLOCK;
}

/* A file on the disk, its content known to its map, on the disk as well. @return false when the run cannot have it. */
static bool prepare(const char *kind)
{
    static struct test_fs fs;
    static char base[FIXTURE_PATH];
    const char *directory = getenv("BOUNCEIO_TEST_FS") ? "ext4" : "none";

    /* A mount is private to the run only where the run has file systems of its own. */
    if (!test_filesystem(directory, &fs)) {
        test_skip("no file systems of the run's own");
        return false;
    }
    snprintf(base, sizeof(base), "%s", fs.path);
    snprintf(fixture.store, sizeof(fixture.store), "%s", path_in(base, "store"));
    if (!stalled_disk_new(&disk, kind, base)) {
        test_skip("no disk of kind %s to stall", kind);
        return false;
    }
    snprintf(fixture.path, sizeof(fixture.path), "%s", path_in(disk.directory, "file"));
    config.store = fixture.store;
    fixture.fd = open(fixture.path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    page = mmap(NULL, BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(fixture.fd >= 0 && stage != MAP_FAILED && page != MAP_FAILED);
    pattern_fill(page, BLOCKS * BLOCK, OLD, 0);
    ck_assert_int_eq(pwrite(fixture.fd, page, BLOCKS * BLOCK, 0), BLOCKS * BLOCK);
    ck_assert_int_eq(fsync(fixture.fd), 0);
    ck_assert_int_eq(map_key_of(fixture.fd, &fixture.key), 0);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
    ck_assert_int_eq(locked_map_cover(&fixture.map, 0, BLOCKS), 0);
    for (uint64_t block = 0; block < BLOCKS; block++)
        words_set(&fixture.map, block, sum_of_pattern(OLD, block), WORD_IDLE);
    return true;
}

static bool announce_send_and_wait(struct peer *peer, void *argument)
{
    struct announcement announcement;
    uint64_t sums[COUNT];

    (void)argument;
    map_fixture_reopen(&fixture);
    for (uint64_t i = 0; i < COUNT; i++)
        sums[i] = sum_of_pattern(NEW, FIRST + i);
    announce_open(&announcement, &fixture.map, FIRST, COUNT, FLIGHT_WRITE, TRANSPORT_URING, false);
    announce_sums(&announcement, FIRST, COUNT, sums);
    pattern_fill(page, COUNT * BLOCK, NEW, FIRST * BLOCK);
    if (!uring_write(fixture.fd, page, COUNT * BLOCK, FIRST * BLOCK))
        return false;
    peer_pause(peer);
    return true;
}

/* The write is on its way, and its process gone. @return false when there is no io_uring. */
static bool kill_who_has_sent(void)
{
    struct peer writer;
    char byte;

    disk_stall(&disk);
    peer_start(&writer, announce_send_and_wait, NULL);
    if (recv(writer.wire, &byte, 1, 0) != 1) {
        test_skip("no io_uring");
        disk_go_on(&disk);
        return false;
    }
    for (int i = 0; disk_writes_under_way(&disk) == 0; i++) {
        ck_assert_msg(i < 1000, "the write never reached the disk");
        usleep(1000);
    }
    peer_kill(&writer);
    ck_assert(settle_is_due(&fixture.map));
    return true;
}

static uint64_t read_sum(const struct settle_file *file, uint64_t block)
{
    (void)file;
    return pread(fixture.fd, page, BLOCK, (off_t)(block * BLOCK)) == BLOCK ? block_sum(page, block) : WORD_UNKNOWN;
}

static bool wait_for_direct_io(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file;
    stage->waiting = true;
    bool done = fallocate(fixture.fd, FALLOC_FL_KEEP_SIZE, (off_t)(first * BLOCK), (off_t)(blocks * BLOCK)) == 0;

    stage->waited = true;
    return done;
}

static bool cannot_wait(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file, (void)first, (void)blocks;
    return false;
}

static int64_t modified(const struct settle_file *file)
{
    struct map_key key;

    (void)file;
    return map_key_of(fixture.fd, &key) == 0 ? key.modified : INT64_MIN;
}

static bool settle_by(bool (*barrier)(const struct settle_file *file, uint64_t first, uint64_t blocks))
{
    const struct settle_file file = {.sum = read_sum, .barrier = barrier, .modified = modified};

    map_fixture_reopen(&fixture);
    stage->torn = settle_map(&fixture.map, &file);
    return true;
}

static bool settle_with_a_barrier(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    return settle_by(wait_for_direct_io);
}

static bool settle_without(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    return settle_by(cannot_wait);
}

static void expect_still_announced(void)
{
    for (uint64_t block = FIRST; block < FIRST + COUNT; block++)
        ck_assert_words(&fixture.map, block, sum_of_pattern(OLD, block), sum_of_pattern(NEW, block));
}

static void waits_until_it_has_landed(const char *kind)
{
    struct peer settler;

    if (!prepare(kind))
        return;
    if (kill_who_has_sent()) {
        peer_start(&settler, settle_with_a_barrier, NULL);
        for (int i = 0; i < 3000 && !stage->waiting; i++)
            usleep(1000);
        ck_assert(stage->waiting);
        usleep(200 * 1000);
        ck_assert_msg(!stage->waited, "on %s, the barrier does not wait for the write", kind);
        expect_still_announced();
        disk_go_on(&disk);
        peer_end(&settler);
        ck_assert_uint_eq(stage->torn, 0);
        for (uint64_t block = FIRST; block < FIRST + COUNT; block++) {
            ck_assert(content_is(NEW, block));
            ck_assert_words(&fixture.map, block, sum_of_pattern(NEW, block), WORD_IDLE);
        }
        ck_assert(!settle_is_due(&fixture.map));
    }
    locked_map_close(&fixture.map, false);
    close(fixture.fd);
    stalled_disk_free(&disk);
}

START_TEST(a_settler_waits_until_the_write_has_landed_on_xfs)
{
    waits_until_it_has_landed("xfs");
}
END_TEST

START_TEST(a_settler_waits_until_the_write_has_landed_on_ext4)
{
    waits_until_it_has_landed("ext4");
}
END_TEST

START_TEST(a_settler_waits_until_the_write_has_landed_on_btrfs)
{
    waits_until_it_has_landed("btrfs-nocow");
}
END_TEST

START_TEST(where_nobody_can_wait_the_request_stays_live)
{
    if (!prepare("xfs"))
        return;
    if (kill_who_has_sent()) {
        peer_run(settle_without, NULL);
        expect_still_announced();
        ck_assert(settle_is_due(&fixture.map));
        disk_go_on(&disk);
        /* Landed or not: it cannot be known. The words agree with either. */
        peer_run(settle_without, NULL);
        expect_still_announced();
        ck_assert(flight_others_over(fixture.map.id, FIRST, FLIGHT_BEYOND, false));
        ck_assert(!flight_others_over(fixture.map.id, FIRST + COUNT, FLIGHT_BEYOND, false));
    }
    locked_map_close(&fixture.map, false);
    close(fixture.fd);
    stalled_disk_free(&disk);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_settler_waits_until_the_write_has_landed_on_xfs, a_settler_waits_until_the_write_has_landed_on_ext4,
        a_settler_waits_until_the_write_has_landed_on_btrfs, where_nobody_can_wait_the_request_stays_live, NULL};

    return support_main(argc, argv, "settling io_uring", 60, NULL, tests);
}
