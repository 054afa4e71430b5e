/*
 * Changes of a file that go through a ring without being writes: truncation, allocation, splices, and syncs. The checksums stay exact: what was
 * changed is never called damaged, and what was not is found when it rots.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/command.h"
#include "support/ring.h"

enum { ONE = 1, TWO = 2, SIZE = 16 * BLOCK, FIXED = IOSQE_FIXED_FILE, SWEEP_MS = 20 };

/* How the ring knows the file: each way is tried with every change. */
struct way {
    int fd;         /* number, or index of the registered file */
    unsigned flags; /* of entries */
    int watching;   /* another direct number of it, by which it is read */
};

typedef void change_function(const struct ring_scene *scene, struct way *way);

static change_function *the_change; /* of the test that is running */

static void close_way(struct way *way)
{
    if (way->flags & FIXED)
        ck_assert_int_eq(io_uring_unregister_files(the_ring()), 0);
    else
        close(way->fd);
    close(way->watching);
}

/* A file full of the pattern ONE, as a direct number, a plain one, a registered file whose number is closed, and a plain one of those. */
static void each_way(struct ring_scene *scene)
{
    for (unsigned i = 0; i < 4; i++) {
        struct way way = {.watching = direct_open(scene->path, O_RDWR | O_CREAT | O_TRUNC)};
        direct_write(way.watching, ONE, 0, SIZE);
        way.fd = i % 2 ? open(scene->path, O_RDWR | O_CLOEXEC) : direct_open(scene->path, O_RDWR);
        ck_assert_int_ge(way.fd, 0);
        if (i >= 2) {
            ck_assert_int_eq(io_uring_register_files(the_ring(), &way.fd, 1), 0);
            close(way.fd);
            way.fd = 0;
            way.flags = FIXED;
        }
        the_change(scene, &way);
        close_way(&way);
    }
}

/* On each file system. */
static void in_each_way(change_function *change)
{
    the_change = change;
    ring_on_each_filesystem(0, each_way);
}

static struct io_uring_sqe *entry(unsigned opcode, const struct way *way)
{
    struct io_uring_sqe *sqe = ring_entry(opcode);
    sqe->fd = way->fd;
    sqe->flags = (unsigned char)way->flags;
    return sqe;
}

static void is_zero(const struct way *way, uint64_t offset, size_t length)
{
    unsigned char *memory = direct_memory();
    ssize_t got = pread(way->watching, memory, length, (off_t)offset);
    ck_assert_msg(got == (ssize_t)length, "zeros at %llu: %zd %s", (unsigned long long)offset, got, strerror(errno));
    for (size_t i = 0; i < length; i++)
        ck_assert_msg(memory[i] == 0, "byte %zu is not zero", i);
}

/* Damage in this block is found. */
static void rots(const struct ring_scene *scene, const struct way *way, uint64_t block)
{
    if (!counting())
        return;
    flip_bit_behind(scene->path, block * BLOCK + 11, 5);
    errno = 0;
    ssize_t got = pread(way->watching, direct_memory(), BLOCK, (off_t)(block * BLOCK));
    ck_assert_msg(got == -1 && errno == EIO, "%s: damage in block %llu was read: %zd", scene->fs.name,
                  (unsigned long long)block, got);
    flip_bit_behind(scene->path, block * BLOCK + 11, 5);
}

static void is_clean(const struct ring_scene *scene)
{
    if (counting())
        ck_assert_uint_eq(command_counts(0, NULL, "scrub", scene->path, "mismatches"), 0);
}

/* Longer than it takes for the shim to look whether somebody else was at the file. */
static void pause_a_while(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
}

/* ---- Truncation. ---- */

static int ring_truncate(const struct way *way, uint64_t length)
{
    entry(OP_FTRUNCATE, way)->off = length;
    return ring_do();
}

static void cut(const struct ring_scene *scene, struct way *way)
{
    int result = ring_truncate(way, 5 * BLOCK + 1000);
    if (result == -EINVAL) /* Linux before 6.9 */
        return;
    ck_assert_int_eq(result, 0);
    ck_assert_uint_eq(size_behind(scene->path), 5 * BLOCK + 1000);
    direct_check(way->watching, ONE, 0, 5 * BLOCK);
    is_clean(scene);
    rots(scene, way, 4);
    ck_assert_int_eq(ring_truncate(way, SIZE), 0);
    is_zero(way, 6 * BLOCK, SIZE - 6 * BLOCK);
    direct_check(way->watching, ONE, 0, 5 * BLOCK);
    direct_write(way->watching, TWO, 0, SIZE);
    rots(scene, way, 12);
    is_clean(scene);
    ck_assert_int_eq(ring_truncate(way, 0), 0);
    ck_assert_int_eq(pread(way->watching, direct_memory(), BLOCK, 0), 0);
    ck_assert_int_eq(ring_truncate(way, UINT64_MAX), -EINVAL);
}

START_TEST(a_truncation_through_the_ring_leaves_exact_checksums)
{
    in_each_way(cut);
}
END_TEST

/* Opened with O_TRUNC: by number, and into a slot. */
static void emptied(struct ring_scene *scene)
{
    ck_assert_int_eq(io_uring_register_files_sparse(the_ring(), 1), 0);
    for (unsigned slot = 0; slot < 2; slot++) {
        struct way way = {.watching = direct_open(scene->path, O_RDWR | O_CREAT)};
        direct_write(way.watching, ONE, 0, SIZE);
        struct io_uring_sqe *sqe = ring_entry(IORING_OP_OPENAT);
        sqe->fd = AT_FDCWD;
        sqe->addr = (uint64_t)(uintptr_t)scene->path;
        sqe->open_flags = O_RDWR | O_TRUNC | (slot ? 0U : O_CLOEXEC);
        sqe->file_index = slot;
        way.fd = ring_do();
        ck_assert_int_ge(way.fd, 0);
        way.flags = slot ? FIXED : 0;
        ck_assert_int_eq(pread(way.watching, direct_memory(), BLOCK, 0), 0);
        /* Buffered, through what was opened: no checksum may outlive it. */
        ck_assert_int_eq(ring_write(way.fd, way.flags, memset(direct_memory(), 7, BLOCK), BLOCK, 8 * BLOCK), BLOCK);
        ck_assert_int_eq(fsync(way.watching), 0);
        is_zero(&way, 0, 8 * BLOCK);
        ck_assert_int_eq(pread(way.watching, direct_memory(), BLOCK, 8 * BLOCK), BLOCK);
        is_clean(scene);
        direct_write(way.watching, TWO, 0, SIZE);
        rots(scene, &way, 3);
        close(way.watching);
        if (!slot)
            close(way.fd);
    }
}

START_TEST(an_open_through_the_ring_that_truncates_leaves_no_old_checksums)
{
    ring_on_each_filesystem(0, emptied);
}
END_TEST

/* It was not opened after all: nothing has changed. */
static void not_emptied(struct ring_scene *scene)
{
    struct way way = {.watching = direct_open(scene->path, O_RDWR | O_CREAT)};
    direct_write(way.watching, ONE, 0, SIZE);
    struct io_uring_sqe *sqe = ring_entry(IORING_OP_OPENAT);
    sqe->fd = AT_FDCWD;
    sqe->addr = (uint64_t)(uintptr_t)scene->path;
    sqe->open_flags = O_RDWR | O_TRUNC | O_CREAT | O_EXCL;
    ck_assert_int_eq(ring_do(), -EEXIST);
    direct_check(way.watching, ONE, 0, SIZE);
    rots(scene, &way, 3);
    is_clean(scene);
    close(way.watching);
}

START_TEST(an_open_that_fails_has_truncated_nothing)
{
    ring_on_each_filesystem(0, not_emptied);
}
END_TEST

/* ---- Allocation. ---- */

static int ring_fallocate(const struct way *way, int mode, uint64_t offset, uint64_t length)
{
    struct io_uring_sqe *sqe = entry(IORING_OP_FALLOCATE, way);
    sqe->len = (unsigned)mode;
    sqe->off = offset;
    sqe->addr = length;
    return ring_do();
}

static void punch(const struct ring_scene *scene, struct way *way)
{
    ck_assert_int_eq(ring_fallocate(way, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * BLOCK, 2 * BLOCK), 0);
    is_zero(way, 3 * BLOCK, 2 * BLOCK);
    direct_check(way->watching, ONE, 0, 3 * BLOCK);
    direct_check(way->watching, ONE, 5 * BLOCK, SIZE - 5 * BLOCK);
    is_clean(scene);
    rots(scene, way, 2);
    rots(scene, way, 5);
}

START_TEST(a_hole_punched_through_the_ring_leaves_exact_checksums)
{
    in_each_way(punch);
}
END_TEST

/* Space alone: content and checksums stay, and the file's new times are the program's own doing. */
static void reserve(const struct ring_scene *scene, struct way *way)
{
    struct bounceio_stats before = counters();
    pause_a_while();
    ck_assert_int_eq(ring_fallocate(way, 0, 0, 2 * SIZE), 0);
    pause_a_while();
    direct_write(way->watching, ONE, 0, BLOCK);
    ck_assert_uint_eq(counters().changed_outside, before.changed_outside);
    rots(scene, way, 9);
    is_clean(scene);
}

START_TEST(space_allocated_through_the_ring_is_no_change_from_outside)
{
    in_each_way(reserve);
}
END_TEST

static void refuse(const struct ring_scene *scene, struct way *way)
{
    ck_assert_int_eq(ring_fallocate(way, FALLOC_FL_PUNCH_HOLE, 0, BLOCK), -EOPNOTSUPP);
    ck_assert_int_eq(ring_fallocate(way, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 0), -EINVAL);
    direct_check(way->watching, ONE, 0, SIZE);
    rots(scene, way, 0);
}

START_TEST(an_allocation_that_is_refused_has_changed_nothing)
{
    in_each_way(refuse);
}
END_TEST

/* ---- Splices. ---- */

static void splice_in(const struct ring_scene *scene, struct way *way)
{
    static unsigned char content[2 * BLOCK];
    int pipes[2];
    pattern_fill(content, sizeof content, TWO, 6 * BLOCK);
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    for (size_t done = 0; done < sizeof content;) {
        ssize_t put = write(pipes[1], content + done, sizeof content - done);
        ck_assert_int_gt(put, 0);
        struct io_uring_sqe *sqe = entry(IORING_OP_SPLICE, way);
        sqe->splice_fd_in = pipes[0];
        sqe->splice_off_in = UINT64_MAX;
        sqe->off = 6 * BLOCK + done;
        sqe->len = (unsigned)put;
        int moved = ring_do();
        /* A direct target is the file system's business. */
        if (moved == -EINVAL)
            break;
        ck_assert_int_eq(moved, put);
        done += (size_t)moved;
    }
    close(pipes[0]);
    close(pipes[1]);
    ck_assert_int_eq(fsync(way->watching), 0);
    ck_assert_int_eq(pread(way->watching, direct_memory(), SIZE, 0), SIZE);
    is_clean(scene);
    rots(scene, way, 3);
    rots(scene, way, 8);
}

START_TEST(what_is_spliced_into_a_file_through_the_ring_is_not_called_damaged)
{
    in_each_way(splice_in);
}
END_TEST

/* ---- Syncs. ---- */

/* --sync FILE FLAGS: write, and sync through the ring only, until the regions can be clean. No number is closed. */
static int sync_through_ring(int argc, char **argv)
{
    int fd = argc > 1 ? direct_open(argv[0], O_RDWR | O_CREAT) : -1;
    if (fd < 0 || !ring_open(0))
        return 1;
    ring_put(fd, 0, ONE, 0, SIZE);
    for (int i = 0; i < 4; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2 * SWEEP_MS * 1000000L}, NULL);
        struct io_uring_sqe *sqe = ring_entry(IORING_OP_FSYNC);
        sqe->fd = fd;
        sqe->fsync_flags = (unsigned)atoi(argv[1]);
        int result = ring_do();
        if (result != 0)
            return 2;
    }
    _exit(0);
}

START_TEST(a_sync_through_the_ring_makes_regions_clean)
{
    struct test_fs fs[TEST_FS_MAX];
    if (!counting()) {
        test_skip("no shim");
        return;
    }
    test_filesystems(fs);
    for (unsigned datasync = 0; datasync < 2; datasync++) {
        const char *path = path_in(fs[0].path, datasync ? "datasync" : "sync");
        struct child child = child_run_self(WITH_SHIM, (const char *const[]){"BOUNCEIO_TEST_SWEEP_MS=20", NULL},
                                            (const char *const[]){"--sync", path, datasync ? "1" : "0", NULL});
        ck_assert(child_succeeded(&child));
        child_free(&child);
        child = command_ends(0, NULL, (const char *const[]){"stat", "--json", path, NULL});
        ck_assert_msg(strstr(child.output, "\"regions_dirty\": 0") || strstr(child.output, "\"regions_dirty\":0"), "%s",
                      child.output);
        child_free(&child);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--sync", sync_through_ring}, {NULL, NULL}};
    const TTest *const tests[] = {
        a_truncation_through_the_ring_leaves_exact_checksums,
        an_open_through_the_ring_that_truncates_leaves_no_old_checksums,
        an_open_that_fails_has_truncated_nothing,
        a_hole_punched_through_the_ring_leaves_exact_checksums,
        space_allocated_through_the_ring_is_no_change_from_outside,
        an_allocation_that_is_refused_has_changed_nothing,
        what_is_spliced_into_a_file_through_the_ring_is_not_called_damaged,
        a_sync_through_the_ring_makes_regions_clean,
        NULL,
    };
    return support_main(argc, argv, "uring changes", 120, modes, tests);
}
