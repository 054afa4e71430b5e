#include "support/ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "support/direct.h"

enum { WHOLE = 16 * BLOCK };

static struct io_uring ring;

bool ring_open(unsigned flags)
{
    int error = io_uring_queue_init(32, &ring, flags);
    if (error == -ENOSYS || error == -EPERM || (error == -EINVAL && flags)) {
        test_skip("no io_uring with flags %#x: %s", flags, strerror(-error));
        return false;
    }
    check_that(error == 0, "io_uring_queue_init: %s", strerror(-error));
    return true;
}

void ring_close(void)
{
    io_uring_queue_exit(&ring);
}

struct io_uring *the_ring(void)
{
    return &ring;
}

struct io_uring_sqe *ring_entry(unsigned opcode)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    check_that(sqe != NULL, "no room for an entry");
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (unsigned char)opcode;
    return sqe;
}

void ring_submit(unsigned count)
{
    int taken = io_uring_submit(&ring);
    check_that(taken == (int)count, "%d of %u entries were taken", taken, count);
}

int ring_reap(uint64_t *tag)
{
    struct __kernel_timespec patience = {.tv_sec = 60};
    struct io_uring_cqe *cqe = NULL;
    int error = io_uring_wait_cqe_timeout(&ring, &cqe, &patience);
    check_that(error == 0, "no completion: %s", strerror(-error));
    int result = cqe->res;
    if (tag)
        *tag = cqe->user_data;
    io_uring_cqe_seen(&ring, cqe);
    return result;
}

int ring_do(void)
{
    ring_submit(1);
    return ring_reap(NULL);
}

static int move(unsigned opcode, int fd, unsigned flags, const void *memory, unsigned length, uint64_t offset)
{
    struct io_uring_sqe *sqe = ring_entry(opcode);
    sqe->fd = fd;
    sqe->flags = (unsigned char)flags;
    sqe->addr = (uint64_t)(uintptr_t)memory;
    sqe->len = length;
    sqe->off = offset;
    return ring_do();
}

int ring_write(int fd, unsigned flags, const void *memory, unsigned length, uint64_t offset)
{
    return move(IORING_OP_WRITE, fd, flags, memory, length, offset);
}

int ring_read(int fd, unsigned flags, void *memory, unsigned length, uint64_t offset)
{
    return move(IORING_OP_READ, fd, flags, memory, length, offset);
}

void ring_put(int fd, unsigned flags, uint64_t seed, uint64_t offset, unsigned length)
{
    unsigned char *memory = direct_memory();
    pattern_fill(memory, length, seed, offset);
    int result = ring_write(fd, flags, memory, length, offset);
    check_that(result == (int)length, "a write of %u bytes at %llu: %d", length, (unsigned long long)offset, result);
}

void ring_check(int fd, unsigned flags, uint64_t seed, uint64_t offset, unsigned length)
{
    unsigned char *memory = direct_memory();
    memset(memory, 0xee, length);
    int result = ring_read(fd, flags, memory, length, offset);
    check_that(result == (int)length, "a read of %u bytes at %llu: %d", length, (unsigned long long)offset, result);
    size_t wrong = pattern_check(memory, length, seed, offset);
    check_that(wrong == length, "byte %zu of a read at %llu is wrong", wrong, (unsigned long long)offset);
}

void ring_on_each_filesystem(unsigned flags, void (*test)(struct ring_scene *scene))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        struct ring_scene scene = {.fs = fs[i]};
        char path[4200], other[4200];
        snprintf(path, sizeof path, "%s/file", fs[i].path);
        snprintf(other, sizeof other, "%s/other", fs[i].path);
        scene.path = path;
        scene.other = other;
        if (!ring_open(flags))
            return;
        scene.before = counters();
        test(&scene);
        ring_close();
        unlink(path);
        unlink(other);
    }
}

void ring_bounced(const struct ring_scene *scene, unsigned requests)
{
    if (!counting())
        return;
    struct bounceio_stats now = counters();
    uint64_t made = now.direct_reads + now.direct_writes - scene->before.direct_reads - scene->before.direct_writes;
    ck_assert_msg(made == requests, "%s: %llu direct requests, not %u", scene->fs.name, (unsigned long long)made,
                  requests);
    ck_assert_uint_eq(now.passed_through, scene->before.passed_through);
}

void ring_finds_rot(const struct ring_scene *scene, const char *path, int fd, unsigned flags)
{
    if (!counting())
        return;
    flip_bit_behind(path, 5 * BLOCK + 77, 3);
    int result = ring_read(fd, flags, direct_memory(), WHOLE, 0);
    ck_assert_msg(result == -EIO, "%s: damage was read: %d", scene->fs.name, result);
    flip_bit_behind(path, 5 * BLOCK + 77, 3);
    ck_assert_int_eq(ring_read(fd, flags, direct_memory(), WHOLE, 0), WHOLE);
}
