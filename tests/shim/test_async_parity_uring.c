/*
 * io_uring by liburing, without the shim and with it: the same script sees the same completions, return values and readiness; with several
 * kinds of rings.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/record.h"

#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

enum { BLOCKS = 16, SIZE = BLOCKS * BLOCK, SEED = 1, PLACES = 16, ENTRIES = 8 };

struct scene {
    struct io_uring ring;
    struct io_uring_params params;
    const char *path;
    int direct, plain, read_only, append;
    int pipe[2], sockets[2];
    int event;             /* registered, or -1 */
    unsigned char *memory; /* PLACES blocks */
};

static void scene_begin(struct scene *scene, const char *directory, unsigned flags)
{
    *scene = (struct scene){.path = path_in(directory, "file"),
                            .memory = buffer_new(PLACES * BLOCK),
                            .params = {.flags = flags},
                            .event = -1};
    make_file_behind(scene->path, SEED, SIZE);
    scene->direct = open(scene->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    scene->plain = open(scene->path, O_RDWR | O_CLOEXEC);
    scene->read_only = open(scene->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    scene->append = open(scene->path, O_RDWR | O_DIRECT | O_APPEND | O_CLOEXEC);
    if (pipe2(scene->pipe, O_CLOEXEC) != 0 || scene->append < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, scene->sockets) != 0)
        support_die("the scene");
    note_result("io_uring_queue_init_params", io_uring_queue_init_params(ENTRIES, &scene->ring, &scene->params));
    note("entries %u and %u", scene->params.sq_entries, scene->params.cq_entries);
}

static void scene_end(struct scene *scene)
{
    io_uring_queue_exit(&scene->ring);
    if (scene->event >= 0)
        close(scene->event);
    for (int i = 0; i < 2; i++) {
        close(scene->pipe[i]);
        close(scene->sockets[i]);
    }
    close(scene->direct);
    close(scene->plain);
    close(scene->read_only);
    close(scene->append);
    buffer_free(scene->memory, PLACES * BLOCK);
}

static unsigned char *place(const struct scene *scene, unsigned i)
{
    return scene->memory + (size_t)i * BLOCK;
}

static struct io_uring_sqe *next_sqe(struct scene *scene)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&scene->ring);

    if (!sqe)
        support_die("the queue is full");
    return sqe;
}

/* What can be seen of the ring without changing it. */
static void note_state(const struct scene *scene)
{
    struct pollfd fd = {scene->ring.ring_fd, POLLIN | POLLOUT, 0};
    int ready = poll(&fd, 1, 0);

    /* Deferred work makes a ring ready before it has a completion: when, is a matter of time. */
    if (scene->params.flags & IORING_SETUP_DEFER_TASKRUN && io_uring_cq_ready(&scene->ring) == 0)
        fd.revents &= (short)~POLLIN;
    note("  queued %u, room %u, ready %u, overflow %d, poll %d %x", io_uring_sq_ready(&scene->ring),
         io_uring_sq_space_left(&scene->ring), io_uring_cq_ready(&scene->ring), io_uring_cq_has_overflow(&scene->ring),
         ready, (unsigned)fd.revents);
}

static void note_cqe(const struct io_uring_cqe *cqe)
{
    note("  %llu: %s %lld flags %x", (unsigned long long)cqe->user_data, cqe->res < 0 ? "error" : "result",
         (long long)cqe->res, cqe->flags);
}

/* Take one completion, within ten seconds. @return false when there is none. */
static bool take(struct scene *scene)
{
    struct __kernel_timespec timeout = {.tv_sec = 10};
    struct io_uring_cqe *cqe;
    int result = io_uring_wait_cqe_timeout(&scene->ring, &cqe, &timeout);

    if (result != 0) {
        note_result("  waiting", result);
        return false;
    }
    note_cqe(cqe);
    io_uring_cqe_seen(&scene->ring, cqe);
    return true;
}

static void take_all(struct scene *scene, unsigned count)
{
    while (count-- > 0 && take(scene))
        ;
}

/* The order in which these come is nobody's business. */
static void take_sorted(struct scene *scene, unsigned count)
{
    long long results[PLACES] = {0};

    for (unsigned i = 0; i < count; i++) {
        struct __kernel_timespec timeout = {.tv_sec = 10};
        struct io_uring_cqe *cqe;

        if (io_uring_wait_cqe_timeout(&scene->ring, &cqe, &timeout) != 0) {
            note("  %u are missing", count - i);
            return;
        }
        results[cqe->user_data % PLACES] = cqe->res;
        io_uring_cqe_seen(&scene->ring, cqe);
    }
    for (unsigned i = 0; i < PLACES; i++)
        if (results[i])
            note("  %u: %lld", i, results[i]);
}

static void go(struct scene *scene, const char *what, unsigned completions)
{
    note_result(what, io_uring_submit(&scene->ring));
    take_all(scene, completions);
    note_state(scene);
}

static void note_memory(const struct scene *scene)
{
    note("  memory %016llx", (unsigned long long)hash_bytes(HASH_START, scene->memory, PLACES * BLOCK));
}

static void one_read(struct scene *scene, const char *what, int fd, unsigned length, uint64_t offset, unsigned flags)
{
    struct io_uring_sqe *sqe = next_sqe(scene);

    io_uring_prep_read(sqe, fd, place(scene, 0), length, offset);
    io_uring_sqe_set_flags(sqe, flags);
    io_uring_sqe_set_data64(sqe, 41);
    go(scene, what, 1);
    note_memory(scene);
}

static void one_write(struct scene *scene, const char *what, int fd, unsigned length, uint64_t offset, unsigned flags)
{
    struct io_uring_sqe *sqe = next_sqe(scene);

    io_uring_prep_write(sqe, fd, place(scene, 1), length, offset);
    io_uring_sqe_set_flags(sqe, flags);
    io_uring_sqe_set_data64(sqe, 42);
    go(scene, what, 1);
    note("  size %llu", (unsigned long long)size_behind(scene->path));
}

static void single_requests(struct scene *scene)
{
    one_read(scene, "read", scene->direct, BLOCK, 0, 0);
    one_read(scene, "read two blocks", scene->direct, 2 * BLOCK, 3 * BLOCK, 0);
    one_read(scene, "read by a worker", scene->direct, 2 * BLOCK, 3 * BLOCK, IOSQE_ASYNC);
    one_read(scene, "read across the end", scene->direct, 2 * BLOCK, SIZE - BLOCK, 0);
    one_read(scene, "read at the end", scene->direct, BLOCK, SIZE, 0);
    one_read(scene, "read beyond the end", scene->direct, BLOCK, 10 * SIZE, 0);
    one_read(scene, "read nothing", scene->direct, 0, 0, 0);
    one_read(scene, "read at an odd offset", scene->direct, BLOCK, 7, 0);
    one_read(scene, "read an odd length", scene->direct, 1000, 0, 0);
    one_read(scene, "read where the file stands", scene->direct, BLOCK, (uint64_t)-1, 0);
    note("stands at %lld", (long long)lseek(scene->direct, 0, SEEK_CUR));
    one_write(scene, "write where the file stands", scene->direct, BLOCK, (uint64_t)-1, 0);
    note("stands at %lld", (long long)lseek(scene->direct, 0, SEEK_CUR));
    one_write(scene, "write", scene->direct, BLOCK, BLOCK, 0);
    one_write(scene, "write by a worker", scene->direct, BLOCK, 2 * BLOCK, IOSQE_ASYNC);
    one_write(scene, "write beyond the end", scene->direct, BLOCK, SIZE + BLOCK, 0);
    one_write(scene, "write at an odd offset", scene->direct, BLOCK, 7, 0);
    one_write(scene, "write nothing", scene->direct, 0, 0, 0);
    one_write(scene, "write what is for reading", scene->read_only, BLOCK, 0, 0);
    one_write(scene, "append", scene->append, BLOCK, 0, 0);
    one_write(scene, "buffered write", scene->plain, 1000, 100, 0);
    one_read(scene, "buffered read", scene->plain, 1000, 100, 0);
    one_read(scene, "bad descriptor", 999, BLOCK, 0, 0);
    one_read(scene, "descriptor -1", -1, BLOCK, 0, 0);
    one_read(scene, "no registered file", 0, BLOCK, 0, IOSQE_FIXED_FILE);
    one_read(scene, "no buffer group", scene->direct, BLOCK, 0, IOSQE_BUFFER_SELECT);
    one_write(scene, "write to a pipe", scene->pipe[1], 100, 0, 0);
    one_read(scene, "read from a pipe", scene->pipe[0], 100, 0, 0);
    one_write(scene, "write to a socket", scene->sockets[0], 100, 0, 0);
    one_read(scene, "read from a socket", scene->sockets[1], 100, 0, 0);
}

static void vectors(struct scene *scene)
{
    struct iovec good[2] = {{place(scene, 4), BLOCK}, {place(scene, 0), 2 * BLOCK}};
    struct iovec bad[2] = {{place(scene, 4), BLOCK}, {place(scene, 0), (size_t)-1}};

    io_uring_prep_readv(next_sqe(scene), scene->direct, good, 2, 0);
    go(scene, "readv", 1);
    io_uring_prep_writev(next_sqe(scene), scene->direct, good, 2, BLOCK);
    go(scene, "writev", 1);
    io_uring_prep_readv2(next_sqe(scene), scene->direct, good, 2, 0, RWF_HIPRI);
    go(scene, "readv, high priority", 1);
    io_uring_prep_writev2(next_sqe(scene), scene->direct, good, 2, 0, RWF_DSYNC);
    go(scene, "writev, synchronous", 1);
    io_uring_prep_readv2(next_sqe(scene), scene->direct, good, 2, 0, 1 << 30);
    go(scene, "readv, unknown flag", 1);
    io_uring_prep_readv(next_sqe(scene), scene->direct, bad, 2, 0);
    go(scene, "readv, bad length", 1);
    io_uring_prep_readv(next_sqe(scene), scene->direct, (struct iovec *)16, 2, 0);
    go(scene, "readv, bad segments", 1);
    io_uring_prep_writev(next_sqe(scene), scene->direct, good, 5000, 0);
    go(scene, "writev, too many segments", 1);
    io_uring_prep_writev(next_sqe(scene), scene->direct, good, 0, 0);
    go(scene, "writev, no segments", 1);
    note_memory(scene);
}

static void other_operations(struct scene *scene)
{
    struct __kernel_timespec soon = {.tv_nsec = 2000000};
    struct io_uring_sqe *sqe;

    for (unsigned i = 0; i < 3; i++) {
        sqe = next_sqe(scene);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, i);
    }
    go(scene, "three of nothing", 3);
    io_uring_prep_fsync(next_sqe(scene), scene->direct, 0);
    go(scene, "fsync", 1);
    io_uring_prep_fsync(next_sqe(scene), scene->direct, IORING_FSYNC_DATASYNC);
    go(scene, "fdatasync", 1);
    io_uring_prep_fallocate(next_sqe(scene), scene->direct, 0, 0, 4 * SIZE);
    go(scene, "fallocate", 1);
    note("size %llu", (unsigned long long)size_behind(scene->path));
    io_uring_prep_timeout(next_sqe(scene), &soon, 0, 0);
    go(scene, "timeout", 1);
    io_uring_prep_poll_add(next_sqe(scene), scene->pipe[0], POLLIN);
    go(scene, "poll", 0);
    note_errno("write", write(scene->pipe[1], "x", 1));
    take_all(scene, 1);
    sqe = next_sqe(scene);
    io_uring_prep_poll_add(sqe, scene->sockets[0], POLLIN);
    io_uring_sqe_set_data64(sqe, 77);
    go(scene, "poll", 0);
    io_uring_prep_poll_remove(next_sqe(scene), 77);
    note_result("poll removed", io_uring_submit(&scene->ring));
    take_sorted(scene, 2);
    io_uring_prep_poll_remove(next_sqe(scene), 77);
    go(scene, "removed again", 1);
    io_uring_prep_cancel64(next_sqe(scene), 12345, 0);
    go(scene, "cancel what is not there", 1);
    io_uring_prep_timeout_remove(next_sqe(scene), 12345, 0);
    go(scene, "timeout that is not there", 1);
    sqe = next_sqe(scene);
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = 250;
    go(scene, "unknown operation", 1);
    io_uring_prep_openat(next_sqe(scene), AT_FDCWD, "/nowhere/at/all", O_RDONLY, 0);
    go(scene, "open what is not there", 1);
    io_uring_prep_close(next_sqe(scene), 999);
    go(scene, "close what is not open", 1);
}

static void links(struct scene *scene)
{
    for (unsigned i = 0; i < 3; i++) {
        struct io_uring_sqe *sqe = next_sqe(scene);

        io_uring_prep_read(sqe, i == 1 ? -1 : scene->direct, place(scene, i), BLOCK, 0);
        io_uring_sqe_set_flags(sqe, i < 2 ? IOSQE_IO_LINK : 0);
        io_uring_sqe_set_data64(sqe, i);
    }
    go(scene, "a chain that breaks", 3);
    for (unsigned i = 0; i < 4; i++) {
        struct io_uring_sqe *sqe = next_sqe(scene);

        if (i % 2)
            io_uring_prep_write(sqe, scene->direct, place(scene, 0), BLOCK, i * BLOCK);
        else
            io_uring_prep_read(sqe, scene->direct, place(scene, 0), BLOCK, i * BLOCK);
        io_uring_sqe_set_flags(sqe, i < 3 ? IOSQE_IO_LINK : 0);
        io_uring_sqe_set_data64(sqe, i);
    }
    go(scene, "a chain", 4);
    for (unsigned i = 0; i < 3; i++) {
        struct io_uring_sqe *sqe = next_sqe(scene);

        io_uring_prep_write(sqe, scene->direct, place(scene, i), BLOCK, i * BLOCK);
        io_uring_sqe_set_flags(sqe, IOSQE_IO_DRAIN);
        io_uring_sqe_set_data64(sqe, i);
    }
    go(scene, "drains", 3);
    for (unsigned i = 0; i < 3; i++) {
        struct io_uring_sqe *sqe = next_sqe(scene);

        /* When work that nobody hears of is done is a matter of time: the silent one has none. */
        if (i == 2)
            io_uring_prep_nop(sqe);
        else
            io_uring_prep_read(sqe, i == 0 ? -1 : scene->direct, place(scene, i), BLOCK, 0);
        io_uring_sqe_set_flags(sqe, (i < 2 ? IOSQE_IO_HARDLINK : 0) | (i == 2 ? IOSQE_CQE_SKIP_SUCCESS : 0));
        io_uring_sqe_set_data64(sqe, i);
    }
    note_result("a hard chain, the last one silent", io_uring_submit(&scene->ring));
    take_all(scene, 2);
    /* Which the kernel refuses from now on. */
    one_write(scene, "drain after silence", scene->direct, BLOCK, 0, IOSQE_IO_DRAIN);
}

/* More completions than the queue holds. */
static void overflow(struct scene *scene)
{
    unsigned wanted = scene->params.cq_entries + 4, submitted = 0;

    while (submitted < wanted) {
        unsigned batch = 0;

        for (; batch < ENTRIES && submitted < wanted; batch++, submitted++) {
            struct io_uring_sqe *sqe = next_sqe(scene);

            io_uring_prep_nop(sqe);
            io_uring_sqe_set_data64(sqe, submitted);
        }
        note_result("nothing", io_uring_submit(&scene->ring));
    }
    note_state(scene);
    take_all(scene, wanted);
    note_state(scene);
}

static void registered(struct scene *scene)
{
    int files[3] = {scene->direct, -1, scene->plain};
    struct iovec buffers[2] = {{place(scene, 0), 4 * BLOCK}, {place(scene, 8), 4 * BLOCK}};
    struct io_uring_sqe *sqe;

    note_result("unregister files too early", io_uring_unregister_files(&scene->ring));
    note_result("register files", io_uring_register_files(&scene->ring, files, 3));
    note_result("register files again", io_uring_register_files(&scene->ring, files, 3));
    note_result("register buffers", io_uring_register_buffers(&scene->ring, buffers, 2));
    one_read(scene, "registered file", 0, BLOCK, BLOCK, IOSQE_FIXED_FILE);
    one_read(scene, "registered gap", 1, BLOCK, BLOCK, IOSQE_FIXED_FILE);
    one_read(scene, "registered plain file", 2, BLOCK, BLOCK, IOSQE_FIXED_FILE);
    one_read(scene, "beyond the table", 3, BLOCK, BLOCK, IOSQE_FIXED_FILE);
    note_result("update", io_uring_register_files_update(&scene->ring, 1, &scene->direct, 1));
    one_write(scene, "updated gap", 1, BLOCK, BLOCK, IOSQE_FIXED_FILE);
    note_result("update beyond", io_uring_register_files_update(&scene->ring, 3, &scene->direct, 1));
    sqe = next_sqe(scene);
    io_uring_prep_read_fixed(sqe, scene->direct, place(scene, 1), 2 * BLOCK, 0, 0);
    go(scene, "registered buffer", 1);
    sqe = next_sqe(scene);
    io_uring_prep_write_fixed(sqe, 0, place(scene, 9), BLOCK, 0, 1);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    go(scene, "registered buffer and file", 1);
    io_uring_prep_write_fixed(next_sqe(scene), scene->direct, place(scene, 6), BLOCK, 0, 1);
    go(scene, "outside of the buffer", 1);
    io_uring_prep_read_fixed(next_sqe(scene), scene->direct, place(scene, 3), 2 * BLOCK, 0, 0);
    go(scene, "over the end of the buffer", 1);
    io_uring_prep_read_fixed(next_sqe(scene), scene->direct, place(scene, 0), BLOCK, 0, 7);
    go(scene, "no such buffer", 1);
    note_result("unregister files", io_uring_unregister_files(&scene->ring));
    note_result("unregister buffers", io_uring_unregister_buffers(&scene->ring));
    note_result("unregister buffers again", io_uring_unregister_buffers(&scene->ring));
    note_memory(scene);
}

static void told_by_eventfd(struct scene *scene)
{
    eventfd_t value;

    scene->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    note_result("register eventfd", io_uring_register_eventfd(&scene->ring, scene->event));
    note_result("and again", io_uring_register_eventfd(&scene->ring, scene->event));
    for (unsigned i = 0; i < 3; i++) {
        io_uring_prep_nop(next_sqe(scene));
        note_result("nothing", io_uring_submit_and_wait(&scene->ring, 1));
        note("told: %d", eventfd_read(scene->event, &value) == 0);
        take_all(scene, 1);
    }
    note_result("unregister eventfd", io_uring_unregister_eventfd(&scene->ring));
}

static void waiting(struct scene *scene)
{
    struct __kernel_timespec soon = {.tv_nsec = 2000000};
    struct io_uring_cqe *cqe, *cqes[4];

    note_result("peek at nothing", io_uring_peek_cqe(&scene->ring, &cqe));
    note("batch of nothing: %u", io_uring_peek_batch_cqe(&scene->ring, cqes, 4));
    note_result("wait for nothing", io_uring_wait_cqe_timeout(&scene->ring, &cqe, &soon));
    note_result("wait for nothing, several", io_uring_wait_cqes(&scene->ring, &cqe, 3, &soon, NULL));
    note_result("submit nothing", io_uring_submit(&scene->ring));
    note_result("submit nothing and wait a little",
                io_uring_submit_and_wait_timeout(&scene->ring, &cqe, 1, &soon, NULL));
    for (unsigned i = 0; i < 4; i++) {
        struct io_uring_sqe *sqe = next_sqe(scene);

        io_uring_prep_read(sqe, scene->direct, place(scene, i), BLOCK, i * BLOCK);
        io_uring_sqe_set_data64(sqe, 8);
    }
    note_state(scene);
    note_result("four and wait for them", io_uring_submit_and_wait(&scene->ring, 4));
    note_state(scene);
    note("batch: %u", io_uring_peek_batch_cqe(&scene->ring, cqes, 3));
    for (unsigned i = 0; i < 3; i++)
        note_cqe(cqes[i]);
    io_uring_cq_advance(&scene->ring, 2);
    note_state(scene);
    take_all(scene, 2);
    note_state(scene);
    note_result("get events", io_uring_get_events(&scene->ring));
}

static void two_rings(struct scene *scene)
{
    struct io_uring other;
    struct io_uring_cqe *cqe;

    note_result("second ring", io_uring_queue_init(4, &other, 0));
    io_uring_prep_msg_ring(next_sqe(scene), other.ring_fd, 55, 66, 0);
    go(scene, "message", 1);
    struct __kernel_timespec timeout = {.tv_sec = 10};

    if (io_uring_wait_cqe_timeout(&other, &cqe, &timeout) == 0) {
        note_cqe(cqe);
        io_uring_cqe_seen(&other, cqe);
    }
    io_uring_prep_msg_ring(next_sqe(scene), scene->direct, 55, 66, 0);
    go(scene, "message to a file", 1);
    io_uring_prep_poll_add(next_sqe(scene), other.ring_fd, POLLIN);
    go(scene, "poll the other ring", 0);
    io_uring_prep_nop(io_uring_get_sqe(&other));
    note_result("nothing in the other", io_uring_submit(&other));
    take_all(scene, 1);
    io_uring_queue_exit(&other);
}

/* Buffers that the kernel chooses; nothing that is read directly may come into one of them out of order. */
static void chosen_buffers(struct scene *scene)
{
    struct io_uring_sqe *sqe;

    io_uring_prep_provide_buffers(next_sqe(scene), place(scene, 8), BLOCK, 2, 3, 0);
    go(scene, "provide buffers", 1);
    for (unsigned i = 0; i < 3; i++) {
        sqe = next_sqe(scene);
        io_uring_prep_read(sqe, i ? scene->direct : scene->plain, NULL, BLOCK, i * BLOCK);
        io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
        sqe->buf_group = 3;
        go(scene, "read into a chosen buffer", 1);
    }
    note_memory(scene);
}

/* Neighbours up to one that the kernel refuses, and takes none behind; then places apart. */
static void one_that_is_refused(struct scene *scene)
{
    for (unsigned bad = 0; bad < ENTRIES; bad++) {
        for (unsigned i = 0; i < ENTRIES; i++) {
            struct io_uring_sqe *sqe = next_sqe(scene);

            io_uring_prep_write(sqe, scene->direct, place(scene, i), BLOCK, (i <= bad ? i : BLOCKS - 1 - i) * BLOCK);
            sqe->ioprio = i == bad ? 0xffff : 0;
            io_uring_sqe_set_data64(sqe, i);
        }
        int taken = io_uring_submit(&scene->ring);

        note_result("one is refused", taken);
        note("  queued %u", io_uring_sq_ready(&scene->ring));
        take_sorted(scene, taken > 0 ? (unsigned)taken : 0);
        if (taken < ENTRIES) {
            taken = io_uring_submit(&scene->ring);
            note_result("the others", taken);
            take_sorted(scene, taken > 0 ? (unsigned)taken : 0);
        }
    }
}

static void play_ring(const char *directory, unsigned flags)
{
    struct scene scene;

    scene_begin(&scene, directory, flags);
    single_requests(&scene);
    vectors(&scene);
    other_operations(&scene);
    one_that_is_refused(&scene);
    links(&scene);
    overflow(&scene);
    registered(&scene);
    told_by_eventfd(&scene);
    waiting(&scene);
    two_rings(&scene);
    chosen_buffers(&scene);
    note("content %016llx", (unsigned long long)hash_behind(scene.path));
    scene_end(&scene);
}

static void play_plain(const char *directory)
{
    play_ring(directory, 0);
}

static void play_wide(const char *directory)
{
    play_ring(directory, IORING_SETUP_SQE128 | IORING_SETUP_CQE32);
}

static void play_deferred(const char *directory)
{
    play_ring(directory, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

static void play_cooperative(const char *directory)
{
    play_ring(directory, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
}

static void play_clamped(const char *directory)
{
    play_ring(directory, IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL);
}

static const struct record_script scripts[] = {{"plain", play_plain},       {"wide", play_wide},
                                               {"deferred", play_deferred}, {"cooperative", play_cooperative},
                                               {"clamped", play_clamped},   {NULL, NULL}};

static int record(int argc, char **argv)
{
    return record_main(scripts, argc, argv);
}

START_TEST(a_plain_ring_looks_the_same)
{
    record_and_compare(&scripts[0]);
}
END_TEST

START_TEST(a_ring_of_wide_entries_looks_the_same)
{
    record_and_compare(&scripts[1]);
}
END_TEST

START_TEST(a_ring_that_defers_its_work_looks_the_same)
{
    record_and_compare(&scripts[2]);
}
END_TEST

START_TEST(a_cooperative_ring_looks_the_same)
{
    record_and_compare(&scripts[3]);
}
END_TEST

START_TEST(a_ring_that_submits_all_looks_the_same)
{
    record_and_compare(&scripts[4]);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};

    return support_main(argc, argv, "parity of io_uring", 120, modes,
                        (const TTest *const[]){a_plain_ring_looks_the_same, a_ring_of_wide_entries_looks_the_same,
                                               a_ring_that_defers_its_work_looks_the_same,
                                               a_cooperative_ring_looks_the_same,
                                               a_ring_that_submits_all_looks_the_same, NULL});
}
