/*
 * Bounce pages in a ring's table of registered buffers: there where memory may be locked, gone before the program touches the table, and never
 * another process's. What is in the table is read from /proc/self/fdinfo.
 */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum {
    DEPTH = 16,
    ENOUGH = 256, /* blocks, written one by one: more than a ring must have seen */
    LONG = 64 * BLOCK,
    FEATURE_RW_ATTR = 1 << 16, /* Linux 6.14 */
    CLONE_BUFFERS = 30,
    SETUP_DEFER_TASKRUN = 1 << 13, /* Linux 6.1 */
};

/* A file and a ring. */
struct bed {
    struct io_uring ring;
    const char *path;
    int fd;
    unsigned char *memory; /* DEPTH * LONG bytes */
};

static void bed_open(struct bed *bed, const struct test_fs *fs, unsigned flags)
{
    bed->path = path_in(fs->path, "file");
    bed->fd = direct_open(bed->path, O_RDWR | O_CREAT);
    bed->memory = buffer_new(DEPTH * LONG);
    check_that(io_uring_queue_init(4 * DEPTH, &bed->ring, flags) == 0, "no ring");
}

static void bed_close(struct bed *bed)
{
    io_uring_queue_exit(&bed->ring);
    close(bed->fd);
    unlink(bed->path);
    buffer_free(bed->memory, DEPTH * LONG);
}

/* DEPTH writes of `length` bytes from `first` on, of the pattern `seed`. */
static void submit_writes(struct bed *bed, uint64_t seed, uint64_t first, unsigned length)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        const uint64_t at = first + (uint64_t)i * length;

        pattern_fill(bed->memory + (size_t)i * length, length, seed, at);
        io_uring_prep_write(io_uring_get_sqe(&bed->ring), bed->fd, bed->memory + (size_t)i * length, length, at);
    }
    check_that(io_uring_submit(&bed->ring) == DEPTH, "submit");
    memset(bed->memory, 0xee, (size_t)DEPTH * length); /* reaches nobody */
}

static void await(struct bed *bed, unsigned count, int result)
{
    struct io_uring_cqe *cqe;

    for (; count > 0; count--) {
        check_that(io_uring_wait_cqe(&bed->ring, &cqe) == 0, "wait");
        check_that(cqe->res == result, "a request of %d gave %d", result, cqe->res);
        io_uring_cqe_seen(&bed->ring, cqe);
    }
}

/* `blocks` of them, from the beginning of the file. */
static void write_blocks(struct bed *bed, uint64_t seed, unsigned blocks)
{
    for (unsigned i = 0; i < blocks; i += DEPTH) {
        submit_writes(bed, seed, (uint64_t)i * BLOCK, BLOCK);
        await(bed, DEPTH, BLOCK);
    }
    direct_check(bed->fd, seed, 0, (size_t)blocks * BLOCK);
    check_that(content_is(bed->path, seed, (size_t)blocks * BLOCK), "the file holds something else");
}

/* Slots of the ring's table. */
static unsigned buffers_of(int ring)
{
    char path[64], line[256];
    unsigned count = 0;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ring);
    FILE *file = fopen(path, "re");

    check_that(file != NULL, "%s", path);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "UserBufs: %u", &count) == 1)
            break;
    fclose(file);
    return count;
}

static int register_with(const struct io_uring *ring, unsigned opcode, void *argument, unsigned count)
{
    int result = (int)syscall(SYS_io_uring_register, ring->ring_fd, opcode, argument, count);

    return result < 0 ? -errno : result;
}

static bool registers(const struct bed *bed)
{
    return counting() && geteuid() == 0 && (bed->ring.features & FEATURE_RW_ATTR);
}

static void each_filesystem(void (*test)(const struct test_fs *fs))
{
    struct test_fs fs[TEST_FS_MAX];

    for (size_t i = 0, count = test_filesystems(fs); i < count; i++)
        test(&fs[i]);
}

/* --- When ------------------------------------------------------------------------------------------------------------------ */

static void register_pages(const struct test_fs *fs)
{
    struct bed bed;

    bed_open(&bed, fs, 0);
    write_blocks(&bed, 1, DEPTH);
    check_that(buffers_of(bed.ring.ring_fd) == 0, "%s: after a few requests already", fs->name);
    write_blocks(&bed, 2, ENOUGH);
    check_that((buffers_of(bed.ring.ring_fd) > 0) == registers(&bed), "%s: %u buffers", fs->name,
               buffers_of(bed.ring.ring_fd));
    write_blocks(&bed, 3, ENOUGH);
    bed_close(&bed);
}

START_TEST(pages_are_registered_with_a_ring_that_is_used)
{
    each_filesystem(register_pages);
}
END_TEST

static int write_as_nobody(const struct test_fs *fs)
{
    const struct rlimit limit = {8 << 20, 8 << 20};
    struct bed bed;

    bed_open(&bed, fs, 0); /* the file */
    write_blocks(&bed, 1, DEPTH);
    io_uring_queue_exit(&bed.ring);
    check_that(setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && setresuid(65534, 65534, 65534) == 0, "not nobody");
    check_that(io_uring_queue_init(DEPTH, &bed.ring, 0) == 0, "no ring");
    for (unsigned i = 0; i < ENOUGH; i += DEPTH) {
        submit_writes(&bed, 2, (uint64_t)i * BLOCK, BLOCK);
        await(&bed, DEPTH, BLOCK);
    }
    direct_check(bed.fd, 2, 0, ENOUGH * BLOCK);
    return (int)buffers_of(bed.ring.ring_fd);
}

START_TEST(memory_that_may_not_be_locked_is_not)
{
    struct test_fs fs[TEST_FS_MAX];
    int status;

    if (geteuid() != 0 || test_filesystems(fs) == 0)
        return;
    pid_t child = fork();

    if (child == 0)
        _exit(write_as_nobody(&fs[0]));
    check_that(waitpid(child, &status, 0) == child && WIFEXITED(status), "the child");
    check_that(WEXITSTATUS(status) == 0, "%d buffers of nobody's", WEXITSTATUS(status));
}
END_TEST

/* --- The program's table --------------------------------------------------------------------------------------------------- */

/* The ring, with our pages in its table. */
static void bed_open_used(struct bed *bed, const struct test_fs *fs)
{
    bed_open(bed, fs, 0);
    write_blocks(bed, 1, ENOUGH);
    check_that(!registers(bed) || buffers_of(bed->ring.ring_fd) > 0, "%s: no buffers", fs->name);
}

/* Source: struct io_uring_clone_buffers of Linux 6.12. */
static int clone_from(const struct bed *bed)
{
    struct {
        uint32_t source, flags, offsets[2], count, pad[3];
    } wish = {.source = (uint32_t)bed->ring.ring_fd};
    struct io_uring ring;

    check_that(io_uring_queue_init(1, &ring, 0) == 0, "no ring");
    int result = register_with(&ring, CLONE_BUFFERS, &wish, 1);

    io_uring_queue_exit(&ring);
    return result;
}

static void find_nothing(const struct test_fs *fs)
{
    struct bed bed;
    int result;

    bed_open_used(&bed, fs);
    check_that((result = io_uring_unregister_buffers(&bed.ring)) == -ENXIO, "unregistering gave %d", result);
    check_that(buffers_of(bed.ring.ring_fd) == 0, "%s: something is left", fs->name);
    write_blocks(&bed, 2, ENOUGH);
    check_that(buffers_of(bed.ring.ring_fd) == 0, "%s: it has come again", fs->name);
    bed_close(&bed);

    struct iovec memory;

    bed_open_used(&bed, fs);
    memory = (struct iovec){bed.memory, BLOCK};
    result = io_uring_register_buffers_update_tag(&bed.ring, 0, &memory, NULL, 1);
    check_that(result == -ENXIO, "updating gave %d", result);
    write_blocks(&bed, 3, ENOUGH);
    bed_close(&bed);

    bed_open_used(&bed, fs);
    result = clone_from(&bed);
    check_that(result == -ENXIO || result == -EINVAL, "cloning gave %d", result);
    write_blocks(&bed, 4, ENOUGH);
    bed_close(&bed);
}

START_TEST(the_program_finds_its_table_empty)
{
    each_filesystem(find_nothing);
}
END_TEST

static void use_own(struct bed *bed, uint64_t seed)
{
    const struct iovec memory = {bed->memory, BLOCK};
    int result = io_uring_register_buffers(&bed->ring, &memory, 1);

    check_that(result == 0, "registering gave %d", result);
    check_that(buffers_of(bed->ring.ring_fd) == 1, "more than the program's");
    pattern_fill(bed->memory, BLOCK, seed, 0);
    io_uring_prep_write_fixed(io_uring_get_sqe(&bed->ring), bed->fd, bed->memory, BLOCK, 0, 0);
    check_that(io_uring_submit(&bed->ring) == 1, "submit");
    await(bed, 1, BLOCK);
    memset(bed->memory, 0, BLOCK);
    io_uring_prep_read_fixed(io_uring_get_sqe(&bed->ring), bed->fd, bed->memory, BLOCK, 0, 0);
    check_that(io_uring_submit(&bed->ring) == 1, "submit");
    await(bed, 1, BLOCK);
    check_that(pattern_check(bed->memory, BLOCK, seed, 0) == BLOCK, "it reads something else");
}

/* Requests that use our table are on their way when the program makes its own. */
static void register_in_flight(const struct test_fs *fs)
{
    struct bed bed;

    for (unsigned i = 0; i < rounds(8, 100); i++) {
        bed_open_used(&bed, fs);
        submit_writes(&bed, 100 + i, 0, LONG);
        check_that(io_uring_register_buffers(&bed.ring, &(struct iovec){bed.memory, BLOCK}, 1) == 0, "register");
        await(&bed, DEPTH, LONG);
        direct_check(bed.fd, 100 + i, 0, (size_t)DEPTH * LONG);
        check_that(content_is(bed.path, 100 + i, (size_t)DEPTH * LONG), "%s: the file holds something else", fs->name);
        check_that(io_uring_unregister_buffers(&bed.ring) == 0, "unregister");
        use_own(&bed, 7);
        bed_close(&bed);
    }
}

START_TEST(requests_in_flight_keep_their_pages)
{
    each_filesystem(register_in_flight);
}
END_TEST

/* The kernel starts what is behind a drain when it comes to it: by then the table is the program's. */
static void register_behind_drain(const struct test_fs *fs)
{
    for (unsigned i = 0; i < rounds(10, 100); i++) {
        struct bed bed;

        bed_open(&bed, fs, i % 2 ? IORING_SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN : 0);
        write_blocks(&bed, 1, ENOUGH);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&bed.ring);

        io_uring_prep_write(sqe, bed.fd, bed.memory, BLOCK, 0);
        sqe->flags |= IOSQE_IO_DRAIN;
        check_that(io_uring_submit(&bed.ring) == 1, "submit");
        for (unsigned looks = 0; looks < i % 5; looks++)
            io_uring_get_events(&bed.ring);
        check_that(io_uring_register_buffers(&bed.ring, &(struct iovec){bed.memory, BLOCK}, 1) == 0, "register");
        await(&bed, 1, BLOCK);
        bed_close(&bed);
    }
}

START_TEST(drained_writes_do_not_need_the_table)
{
    each_filesystem(register_behind_drain);
}
END_TEST

/* An entry without a table of the program's, or beyond it, fails as it does natively. */
static void fixed_without_table(const struct test_fs *fs)
{
    struct bed bed;

    for (int with_files = 0; with_files < 2; with_files++) {
        bed_open_used(&bed, fs);
        if (with_files)
            check_that(io_uring_register_files(&bed.ring, &bed.fd, 1) == 0, "register files");
        io_uring_prep_write_fixed(io_uring_get_sqe(&bed.ring), bed.fd, bed.memory, BLOCK, 0, 0);
        check_that(io_uring_submit(&bed.ring) == 1, "submit");
        await(&bed, 1, -EFAULT);
        bed_close(&bed);
    }
}

START_TEST(a_buffer_that_the_program_has_not_registered_is_bad)
{
    each_filesystem(fixed_without_table);
}
END_TEST

/* --- Others ------------------------------------------------------------------------------------------------------------------ */

static void in_child(struct bed *bed, bool registers_own)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        write_blocks(bed, 2, ENOUGH);
        if (registers_own)
            use_own(bed, 3);
        write_blocks(bed, 4, ENOUGH);
        _exit(0);
    }
    check_that(waitpid(child, &status, 0) == child && status == 0, "the child");
}

static void share(const struct test_fs *fs)
{
    struct bed bed;

    for (unsigned i = 0; i < 2; i++) {
        bed_open_used(&bed, fs);
        in_child(&bed, i == 0);
        bed.ring.sq.sqe_head = bed.ring.sq.sqe_tail = *bed.ring.sq.ktail; /* the child has moved it */
        write_blocks(&bed, 5, ENOUGH);
        bed_close(&bed);
    }
}

START_TEST(a_child_writes_its_own_pages)
{
    each_filesystem(share);
}
END_TEST

static void restrict_ring(const struct test_fs *fs)
{
    /* A table may be made, but not used. */
    struct io_uring_restriction restrictions[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_BUFFERS2},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_BUFFERS_UPDATE},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS}};
    struct bed bed;

    bed_open(&bed, fs, IORING_SETUP_R_DISABLED);
    check_that(register_with(&bed.ring, IORING_REGISTER_RESTRICTIONS, restrictions, 6) == 0, "restrict");
    check_that(register_with(&bed.ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0, "enable");
    write_blocks(&bed, 1, ENOUGH);
    check_that(buffers_of(bed.ring.ring_fd) == 0, "%s: a restricted ring has buffers", fs->name);
    bed_close(&bed);
}

START_TEST(restricted_rings_are_left_alone)
{
    each_filesystem(restrict_ring);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(argc, argv, "bounce pages as registered buffers", 120, NULL,
                        (const TTest *const[]){
                            pages_are_registered_with_a_ring_that_is_used, memory_that_may_not_be_locked_is_not,
                            the_program_finds_its_table_empty, requests_in_flight_keep_their_pages,
                            drained_writes_do_not_need_the_table, a_buffer_that_the_program_has_not_registered_is_bad,
                            a_child_writes_its_own_pages, restricted_rings_are_left_alone, NULL});
}
