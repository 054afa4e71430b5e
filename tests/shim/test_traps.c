/*
 * Where the caller's memory is somebody's page cache: the traps that the kernel's own bounce buffers had to get around.
 *
 * A buffer may be an untouched mapping of another file (fstests generic/708: a copy that stops early must not leave garbage
 * behind), or a mapping of the very file that is read or written (the fault must not meet a lock that the request holds).
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { K = 1024, M = 1024 * 1024, SOURCE = 1, BEFORE = 2 };

/* Map a file that nobody has in memory: the first touch of each page is a fault that reads the disk. */
static unsigned char *map_untouched(const char *path, size_t length, int sharing)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    check_that(fd >= 0 && fdatasync(fd) == 0, "cannot flush %s", path);
    check_that(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "cannot evict %s", path);
    unsigned char *map = mmap(NULL, length, PROT_READ | PROT_WRITE, sharing, fd, 0);

    check_that(map != MAP_FAILED, "cannot map %s", path);
    close(fd);
    return map;
}

/* Is the file `copied` bytes of the source, of which those past `kept` are zero, then what was there before? */
static void check_target(const struct test_fs *fs, const char *path, size_t copied, size_t kept, size_t size)
{
    unsigned char *content = buffer_new(size);

    check_that(size_behind(path) == size, "%s: the size has become %llu", fs->name,
               (unsigned long long)size_behind(path));
    read_behind(path, content, size, 0);
    size_t from_source = copied < kept ? copied : kept;

    check_that(pattern_check(content, from_source, SOURCE, 0) == from_source, "%s: not the source's bytes", fs->name);
    for (size_t i = from_source; i < copied; i++)
        check_that(content[i] == 0, "%s: byte %zu is behind the source's end, but %02x", fs->name, i, content[i]);
    check_that(pattern_check(content + copied, size - copied, BEFORE, copied) == size - copied,
               "%s: garbage behind the copied bytes", fs->name);
    buffer_free(content, size);
}

/* Write `length` bytes of an untouched mapping of a file of `kept` bytes. */
static void write_mapping(const struct test_fs *fs, size_t length, size_t kept, int sharing)
{
    const char *source = path_in(fs->path, "source");
    const char *target = path_in(fs->path, "target");
    size_t size = length + 64 * K;
    size_t readable = (kept + BLOCK - 1) / BLOCK * BLOCK;

    if (readable > length)
        readable = length;
    /* New files: changed behind the shim's back, the old ones would be suspect. */
    unlink(source);
    unlink(target);
    make_file_behind(source, SOURCE, kept);
    make_file_behind(target, BEFORE, size);
    unsigned char *map = map_untouched(source, length, sharing);
    int fd = direct_open(target, O_RDWR);
    ssize_t n = pwrite(fd, map, length, 0);

    check_that(n == (ssize_t)readable, "%s: pwrite of %zu bytes, %zu of them in the file, gave %zd", fs->name, length,
               kept, n);
    munmap(map, length);
    check_target(fs, target, readable, kept, size);
    unsigned char *again = direct_memory();

    check_that(readable > DIRECT_MAX || pread(fd, again, readable, 0) == (ssize_t)readable, "%s: not readable",
               fs->name);
    close(fd);
}

static void write_mappings(size_t (*kept_of)(size_t length))
{
    static const size_t lengths[] = {8 * K, 64 * K, M, 3 * M + 8 * K, 9 * M};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            write_mapping(&fs[i], lengths[j], kept_of(lengths[j]), MAP_SHARED);
            write_mapping(&fs[i], lengths[j], kept_of(lengths[j]), MAP_PRIVATE);
        }
    }
    ck_assert_uint_eq(counters().mismatches, 0);
}

static size_t all_of_it(size_t length)
{
    return length;
}

static size_t half_of_it(size_t length)
{
    return length / 2 / BLOCK * BLOCK;
}

static size_t half_and_a_bit(size_t length)
{
    return length / 2 / BLOCK * BLOCK + 100;
}

START_TEST(write_from_an_untouched_mapping_copies_the_file)
{
    write_mappings(all_of_it);
}
END_TEST

START_TEST(write_from_a_mapping_past_its_end_copies_what_there_is_and_no_garbage)
{
    write_mappings(half_of_it);
}
END_TEST

START_TEST(write_from_a_mapping_that_ends_inside_a_page_copies_zeros_after_it)
{
    write_mappings(half_and_a_bit);
}
END_TEST

START_TEST(short_copies_are_counted)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    uint64_t before = counters().short_copies;

    write_mapping(&fs[0], 64 * K, 32 * K, MAP_SHARED);
    ck_assert_uint_eq(counters().short_copies, before + 1);
}
END_TEST

/* Without the shim, ext4 and tmpfs leave the file longer, and ext4 with stale blocks of the disk in it (Linux 6.18). */
START_TEST(write_from_nowhere_beyond_the_end_leaves_the_file_as_it_was)
{
    static const off_t offsets[] = {16 * K, 64 * K, 64 * K + SECTOR, M};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    unsigned char *nowhere = (unsigned char *)buffer_new(BLOCK) + BLOCK;

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "beyond");

        make_file_behind(path, BEFORE, 16 * K);
        int fd = direct_open(path, O_RDWR);

        for (size_t j = 0; j < sizeof(offsets) / sizeof(offsets[0]); j++) {
            /* Less than a sector can be read: too little to be written. */
            ssize_t n = pwrite(fd, nowhere - (j % 2 ? 100 : 0), 8 * BLOCK, offsets[j]);

            ck_assert_msg(n == -1 && errno == EFAULT, "%s: pwrite at %jd gave %zd", fs[i].name, (intmax_t)offsets[j],
                          n);
            ck_assert_msg(content_is(path, BEFORE, 16 * K), "%s: pwrite at %jd", fs[i].name, (intmax_t)offsets[j]);
        }
        close(fd);
    }
}
END_TEST

/* --- The page cache of the same file ------------------------------------------------------------------------------ */

enum { PAGES = 64, ROUNDS = 10000, WATCHDOG_SECONDS = 60 };

struct same_file {
    const char *fs;
    const char *path;
    int fd;
    unsigned char *map;   /* the whole file, shared */
    unsigned char *model; /* what the file holds */
    struct random random;
};

static void same_file_open(struct same_file *f, const struct test_fs *fs)
{
    f->fs = fs->name;
    f->path = path_in(fs->path, "same");
    make_file_behind(f->path, SOURCE, PAGES * BLOCK);
    f->map = map_untouched(f->path, PAGES * BLOCK, MAP_SHARED);
    f->fd = direct_open(f->path, O_RDWR);
    f->model = buffer_new(PAGES * BLOCK);
    f->random.state = random_run_seed();
    pattern_fill(f->model, PAGES * BLOCK, SOURCE, 0);
    /* A request that waits for itself would wait for ever: the alarm's default action ends it. */
    alarm(WATCHDOG_SECONDS);
}

static void same_file_close(struct same_file *f)
{
    unsigned char *content = buffer_new(PAGES * BLOCK);

    alarm(0);
    munmap(f->map, PAGES * BLOCK);
    read_behind(f->path, content, PAGES * BLOCK, 0);
    ck_assert_msg(memcmp(content, f->model, PAGES * BLOCK) == 0, "%s: not the content that was written", f->fs);
    ck_assert_int_eq(pread(f->fd, direct_memory(), PAGES * BLOCK, 0), PAGES * BLOCK);
    ck_assert_mem_eq(direct_memory(), f->model, PAGES * BLOCK);
    close(f->fd);
    buffer_free(content, PAGES * BLOCK);
    buffer_free(f->model, PAGES * BLOCK);
}

/* Do two ranges share some bytes, but not all? */
static bool overlap_partly(size_t from, size_t to, size_t length)
{
    return from != to && from < to + length && to < from + length;
}

/* One to four pages somewhere, and a mapping of them without page table entries. */
static size_t choose_pages(struct same_file *f, size_t *from, size_t *to)
{
    size_t pages = 1 + random_below(&f->random, 4);

    *from = random_below(&f->random, PAGES - pages + 1) * BLOCK;
    *to = random_below(&f->random, PAGES - pages + 1) * BLOCK;
    if (random_chance(&f->random, 10))
        *to = *from;
    madvise(f->map, PAGES * BLOCK, MADV_DONTNEED);
    return pages * BLOCK;
}

START_TEST(write_from_a_mapping_of_the_same_file_never_waits_for_itself)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct same_file f;

        same_file_open(&f, &fs[i]);
        for (int round = 0; round < ROUNDS; round++) {
            size_t from, to;
            size_t length = choose_pages(&f, &from, &to);

            /* Without the shim, a file system that copies page by page may copy what it has just written. */
            if (overlap_partly(from, to, length) && !counting())
                continue;
            ssize_t n = pwrite(f.fd, f.map + from, length, (off_t)to);

            ck_assert_msg(n == (ssize_t)length, "%s: pwrite %zu to %zu gave %zd", f.fs, from, to, n);
            /* The source may be part of the target: what was copied is the source as it was. */
            memmove(f.model + to, f.model + from, length);
        }
        same_file_close(&f);
    }
}
END_TEST

START_TEST(read_into_a_mapping_of_the_same_file_never_waits_for_itself)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct same_file f;

        same_file_open(&f, &fs[i]);
        for (int round = 0; round < ROUNDS; round++) {
            size_t from, to;
            size_t length = choose_pages(&f, &from, &to);

            /* Ranges that overlap partly have no defined result: the read may see what it has just stored. */
            if (overlap_partly(from, to, length))
                continue;
            ssize_t n = pread(f.fd, f.map + to, length, (off_t)from);

            ck_assert_msg(n == (ssize_t)length, "%s: pread %zu into %zu gave %zd", f.fs, from, to, n);
            memmove(f.model + to, f.model + from, length);
        }
        same_file_close(&f);
    }
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "buffers that are page cache", 290, NULL,
                        (const TTest *const[]){write_from_an_untouched_mapping_copies_the_file,
                                               write_from_a_mapping_past_its_end_copies_what_there_is_and_no_garbage,
                                               write_from_a_mapping_that_ends_inside_a_page_copies_zeros_after_it,
                                               write_from_nowhere_beyond_the_end_leaves_the_file_as_it_was,
                                               short_copies_are_counted,
                                               write_from_a_mapping_of_the_same_file_never_waits_for_itself,
                                               read_into_a_mapping_of_the_same_file_never_waits_for_itself, NULL});
}
