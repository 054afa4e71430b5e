/*
 * Reads that go through pages: verified and copied out in one pass as far as everything is as it should be. Whatever is not, wherever it begins, is
 * told as if there were no such pass: damage fails the whole read, bad memory ends it exactly, the file offset says what was read.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/racer.h"
#include "support/support.h"

enum { BLOCKS = 256, BYTES = BLOCKS * BLOCK, SEED = 1, SHIFT = 100 };

/* Positions around the batches that are copied at once, and far from their edges. */
static const size_t places[] = {0, 1, 7, 15, 16, 17, 31, 100, 254, 255};
enum { PLACES = sizeof(places) / sizeof(places[0]) };

struct target {
    const char *name, *path;
    int fd;
};

static void on_every_file_system(void (*behaves)(const struct target *target))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct target target = {.name = fs[i].name, .path = path_in(fs[i].path, "file")};

        target.fd = direct_open(target.path, O_RDWR | O_CREAT | O_TRUNC);
        direct_write(target.fd, SEED, 0, BYTES);
        behaves(&target);
        close(target.fd);
        unlink(target.path);
    }
}

static void expect_content(const struct target *target, const unsigned char *memory, size_t length)
{
    size_t good = pattern_check(memory, length, SEED, 0);

    check_that(good == length, "%s: byte %zu of %zu is not the file's", target->name, good, length);
}

/* By position, and at the file offset, which must end where the bytes do. @return what both said. */
static ssize_t read_both_ways(const struct target *target, unsigned char *memory, size_t length)
{
    ssize_t by_position = pread(target->fd, memory, length, 0);
    int error = errno;

    check_that(lseek(target->fd, 0, SEEK_SET) == 0, "lseek");
    ssize_t at_offset = read(target->fd, memory, length);

    check_that(at_offset == by_position && (at_offset >= 0 || errno == error), "%s: read gave %zd, pread %zd (%d)",
               target->name, at_offset, by_position, error);
    off_t end = lseek(target->fd, 0, SEEK_CUR);
    check_that(end == (at_offset < 0 ? 0 : at_offset), "%s: %zd bytes, and the offset is %lld", target->name, at_offset,
               (long long)end);
    errno = error;
    return by_position;
}

static void each_block_is_verified_once(const struct target *target)
{
    for (size_t shift = 0; shift <= SHIFT; shift += SHIFT) {
        unsigned char *memory = aligned_memory() + shift;
        struct bounceio_stats before = counters();

        memset(memory, 0, BYTES);
        check_that(read_both_ways(target, memory, BYTES) == BYTES, "%s: not all of it", target->name);
        expect_content(target, memory, BYTES);
        struct bounceio_stats after = counters();
        check_that(after.blocks_verified - before.blocks_verified == 2 * BLOCKS, "%s: verified %llu", target->name,
                   (unsigned long long)(after.blocks_verified - before.blocks_verified));
        check_that(after.blocks_unverified == before.blocks_unverified, "%s: unverified", target->name);
        /* What is read by position, into aligned memory, is in place on tmpfs. */
        const bool in_place = shift == 0 && strcmp(target->name, "tmpfs") == 0;
        check_that(after.bytes_bounced - before.bytes_bounced == (in_place ? 1 : 2) * BYTES, "%s: bounced %llu",
                   target->name, (unsigned long long)(after.bytes_bounced - before.bytes_bounced));
        check_that(after.bytes_in_place - before.bytes_in_place == (in_place ? BYTES : 0), "%s: in place %llu",
                   target->name, (unsigned long long)(after.bytes_in_place - before.bytes_in_place));
    }
}

START_TEST(each_block_of_a_large_read_is_verified_once)
{
    on_every_file_system(each_block_is_verified_once);
}
END_TEST

static void damage_is_told(const struct target *target)
{
    for (size_t i = 0; i < PLACES; i++) {
        struct bounceio_stats before = counters();

        flip_bit_behind(target->path, places[i] * BLOCK + 77, 3);
        check_that(read_both_ways(target, direct_memory(), BYTES) == -1 && errno == EIO, "%s: block %zu is damaged",
                   target->name, places[i]);
        struct bounceio_stats after = counters();
        check_that(after.mismatches - before.mismatches == 2, "%s: %llu mismatches", target->name,
                   (unsigned long long)(after.mismatches - before.mismatches));
        flip_bit_behind(target->path, places[i] * BLOCK + 77, 3);
        check_that(read_both_ways(target, direct_memory(), BYTES) == BYTES, "%s: healed", target->name);
    }
}

START_TEST(damage_anywhere_fails_a_large_read)
{
    on_every_file_system(damage_is_told);
}
END_TEST

static void bad_memory_ends_it(const struct target *target)
{
    for (size_t shift = 0; shift <= SHIFT; shift += SHIFT)
        for (size_t i = 0; i < PLACES; i++) {
            unsigned char *buffer = buffer_new(BYTES + BLOCK), *memory = buffer + shift;
            const size_t good = places[i] * BLOCK > shift ? places[i] * BLOCK - shift : 0;

            check_that(mprotect(buffer + places[i] * BLOCK, BLOCK, PROT_NONE) == 0, "mprotect");
            ssize_t moved = read_both_ways(target, memory, BYTES);
            check_that(moved < 0 ? errno == EFAULT && good < BLOCK
                                 : (size_t)moved <= good && good - (size_t)moved < BLOCK,
                       "%s: page %zu is bad, shift %zu: read %zd", target->name, places[i], shift, moved);
            expect_content(target, memory, moved < 0 ? 0 : (size_t)moved);
            buffer_free(buffer, BYTES + BLOCK);
        }
}

START_TEST(bad_memory_ends_a_large_read_exactly)
{
    on_every_file_system(bad_memory_ends_it);
}
END_TEST

static void damage_counts_behind_bad_memory(const struct target *target)
{
    unsigned char *buffer = buffer_new(BYTES + BLOCK);

    check_that(mprotect(buffer + 100 * BLOCK, BLOCK, PROT_NONE) == 0, "mprotect");
    flip_bit_behind(target->path, 200 * BLOCK, 0);
    /* Not in place, where the kernel stops at the bad page. */
    check_that(read_both_ways(target, buffer + SHIFT, BYTES) == -1 && errno == EIO, "%s: block 200 is damaged",
               target->name);
    buffer_free(buffer, BYTES + BLOCK);
}

START_TEST(damage_behind_bad_memory_fails_the_read_all_the_same)
{
    on_every_file_system(damage_counts_behind_bad_memory);
}
END_TEST

/* A file that ends after `length` bytes, read from a place where more could be. */
static void end_is_seen(const struct target *target)
{
    static const size_t ends[] = {SECTOR, BLOCK, 16 * BLOCK, 16 * BLOCK + SECTOR, 40 * BLOCK - SECTOR, BYTES - SECTOR};

    for (size_t i = sizeof(ends) / sizeof(ends[0]); i-- > 0;) {
        check_that(ftruncate(target->fd, (off_t)ends[i]) == 0, "ftruncate");
        ssize_t moved = read_both_ways(target, direct_memory(), BYTES);

        check_that(moved == (ssize_t)ends[i], "%s: %zd of %zu bytes", target->name, moved, ends[i]);
        expect_content(target, direct_memory(), ends[i]);
        truncate_behind(target->path, ends[i] / 2 / SECTOR * SECTOR);
        if (ends[i] > BLOCK)
            check_that(read_both_ways(target, direct_memory(), BYTES) == -1 && errno == EIO, "%s: cut off at %zu",
                       target->name, ends[i] / 2);
        check_that(ftruncate(target->fd, 0) == 0, "ftruncate");
        direct_write(target->fd, SEED, 0, BYTES);
    }
}

START_TEST(the_end_of_the_file_inside_a_large_read_is_seen)
{
    on_every_file_system(end_is_seen);
}
END_TEST

/* Of its last block only a part is asked for; the rest of it must be read to verify it. */
static void part_of_a_block_is_verified(const struct target *target)
{
    static const size_t lengths[] = {BYTES - SECTOR, 16 * BLOCK + SECTOR, 17 * BLOCK - SECTOR, 40 * BLOCK + SECTOR};
    struct statx status;

    if (statx(target->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0 || status.stx_dio_offset_align != SECTOR)
        return;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const size_t last = lengths[i] / BLOCK;
        struct bounceio_stats before = counters();

        check_that(read_both_ways(target, direct_memory(), lengths[i]) == (ssize_t)lengths[i], "%s: %zu bytes",
                   target->name, lengths[i]);
        expect_content(target, direct_memory(), lengths[i]);
        struct bounceio_stats after = counters();
        check_that(after.blocks_verified - before.blocks_verified == 2 * (last + 1), "%s: %zu bytes, %llu verified",
                   target->name, lengths[i], (unsigned long long)(after.blocks_verified - before.blocks_verified));
        /* In the part that was not asked for. */
        flip_bit_behind(target->path, last * BLOCK + BLOCK - 1, 0);
        check_that(read_both_ways(target, direct_memory(), lengths[i]) == -1 && errno == EIO, "%s: %zu bytes, damaged",
                   target->name, lengths[i]);
        flip_bit_behind(target->path, last * BLOCK + BLOCK - 1, 0);
    }
}

START_TEST(the_last_block_is_verified_where_only_a_part_is_asked_for)
{
    on_every_file_system(part_of_a_block_is_verified);
}
END_TEST

static void vector_is_filled(const struct target *target)
{
    static const size_t cuts[] = {1, 512, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 20 * BLOCK, 20 * BLOCK + 512};
    unsigned char *memory = aligned_memory();

    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        const struct iovec vector[] = {{memory, cuts[i]},
                                       {memory, 0},
                                       {memory + cuts[i], 5 * BLOCK},
                                       {memory + cuts[i] + 5 * BLOCK, BYTES - cuts[i] - 5 * BLOCK}};
        struct bounceio_stats before = counters();

        memset(memory, 0, BYTES);
        check_that(preadv(target->fd, vector, 4, 0) == BYTES, "%s: cut at %zu", target->name, cuts[i]);
        expect_content(target, memory, BYTES);
        check_that(counters().blocks_verified - before.blocks_verified == BLOCKS, "%s: verified once", target->name);
    }
}

START_TEST(vectors_are_filled_wherever_they_are_cut)
{
    on_every_file_system(vector_is_filled);
}
END_TEST

static void unknown_blocks_are_read(const struct target *target)
{
    unsigned char *memory = direct_memory();
    int plain = open(target->path, O_RDWR | O_CLOEXEC);

    check_that(plain >= 0, "open");
    for (size_t i = 0; i < PLACES; i++) {
        pattern_fill(memory, BLOCK, SEED, places[i] * BLOCK);
        check_that(pwrite(plain, memory, BLOCK, (off_t)(places[i] * BLOCK)) == BLOCK, "pwrite");
        check_that(fsync(plain) == 0, "fsync");
        struct bounceio_stats before = counters();

        check_that(pread(target->fd, memory, BYTES, 0) == BYTES, "%s: not all of it", target->name);
        expect_content(target, memory, BYTES);
        struct bounceio_stats after = counters();
        check_that(after.blocks_unverified - before.blocks_unverified == i + 1, "%s: %llu unverified, not %zu",
                   target->name, (unsigned long long)(after.blocks_unverified - before.blocks_unverified), i + 1);
        check_that(after.blocks_verified - before.blocks_verified == BLOCKS - i - 1, "%s: the others are verified",
                   target->name);
    }
    close(plain);
}

START_TEST(unknown_blocks_among_others_are_read_unverified)
{
    on_every_file_system(unknown_blocks_are_read);
}
END_TEST

static void racing_reader_is_believed(const struct target *target)
{
    unsigned char *memory = aligned_memory() + SHIFT; /* never in place */
    struct bounceio_stats before = counters();
    struct racer racer;

    racer_start(&racer, memory, BYTES);
    for (size_t i = 0; i < rounds(100, 2000); i++)
        check_that(pread(target->fd, memory, BYTES, 0) == BYTES, "%s: read %zu", target->name, i);
    racer_stop(&racer);
    struct bounceio_stats after = counters();
    check_that(after.mismatches == before.mismatches && after.suspicions == before.suspicions,
               "%s: what the caller does to his buffer proves nothing", target->name);
    check_that(after.blocks_unverified == before.blocks_unverified, "%s: unverified", target->name);
}

START_TEST(a_caller_who_changes_the_buffer_during_the_read_raises_no_suspicion)
{
    on_every_file_system(racing_reader_is_believed);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        each_block_of_a_large_read_is_verified_once,
        damage_anywhere_fails_a_large_read,
        bad_memory_ends_a_large_read_exactly,
        damage_behind_bad_memory_fails_the_read_all_the_same,
        the_end_of_the_file_inside_a_large_read_is_seen,
        the_last_block_is_verified_where_only_a_part_is_asked_for,
        vectors_are_filled_wherever_they_are_cut,
        unknown_blocks_among_others_are_read_unverified,
        a_caller_who_changes_the_buffer_during_the_read_raises_no_suspicion,
        NULL,
    };

    return support_main(argc, argv, "large_reads", 60, NULL, tests);
}
