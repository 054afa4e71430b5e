/* See chains.h. */
#include "support/chains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/command.h"

void chain_forget(struct chain_scene *scene)
{
    for (unsigned i = 0; i < TAGS; i++)
        scene->results[i] = NOTHING;
    scene->came = 0;
    memset(scene->memory, 0xDB, SIZE);
}

static void scene_begin(struct chain_scene *scene, const struct test_fs *fs)
{
    *scene = (struct chain_scene){.fs = fs->name,
                                  .source_path = path_in(fs->path, "source"),
                                  .target_path = path_in(fs->path, "target"),
                                  .memory = buffer_new(SIZE)};
    scene->source = direct_open(scene->source_path, O_RDWR | O_CREAT | O_TRUNC);
    scene->target = direct_open(scene->target_path, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(scene->source, SOURCE, 0, SIZE);
    direct_write(scene->target, TARGET, 0, SIZE);
    check_that(io_uring_queue_init(DEPTH, &scene->ring, 0) == 0, "no ring");
    check_that(socketpair(AF_UNIX, SOCK_STREAM, 0, scene->sockets) == 0, "no sockets");
    chain_forget(scene);
}

static void scene_end(struct chain_scene *scene)
{
    io_uring_queue_exit(&scene->ring);
    close(scene->source);
    close(scene->target);
    close(scene->sockets[0]);
    close(scene->sockets[1]);
    buffer_free(scene->memory, SIZE);
}

void chain_on_each_filesystem(void (*play)(struct chain_scene *scene))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct chain_scene scene;

        scene_begin(&scene, &fs[i]);
        play(&scene);
        scene_end(&scene);
    }
}

struct io_uring_sqe *chain_next(struct chain_scene *scene, unsigned tag, unsigned flags)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&scene->ring);

    check_that(sqe, "the queue is full");
    memset(sqe, 0, sizeof(*sqe));
    sqe->flags = (__u8)flags;
    sqe->user_data = tag;
    return sqe;
}

void chain_dress(struct io_uring_sqe *sqe, unsigned tag, unsigned flags)
{
    sqe->flags = (__u8)flags;
    sqe->user_data = tag;
}

void chain_queue_read(struct chain_scene *scene, unsigned tag, unsigned flags, int fd, void *memory, unsigned length,
                      uint64_t offset)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_read(sqe, fd, memory, length, offset);
    chain_dress(sqe, tag, flags);
}

void chain_queue_write(struct chain_scene *scene, unsigned tag, unsigned flags, int fd, const void *memory,
                       unsigned length, uint64_t offset)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_write(sqe, fd, memory, length, offset);
    chain_dress(sqe, tag, flags);
}

void chain_queue_receive(struct chain_scene *scene, unsigned tag, unsigned flags, void *memory, size_t length)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_recv(sqe, scene->sockets[0], memory, length, MSG_WAITALL);
    chain_dress(sqe, tag, flags);
}

void chain_queue_send(struct chain_scene *scene, unsigned tag, unsigned flags, const void *memory, size_t length)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_send(sqe, scene->sockets[0], memory, length, MSG_WAITALL);
    chain_dress(sqe, tag, flags);
}

void chain_queue_nop(struct chain_scene *scene, unsigned tag, unsigned flags)
{
    struct io_uring_sqe *sqe = chain_next(scene, tag, flags);

    io_uring_prep_nop(sqe);
    chain_dress(sqe, tag, flags);
}

void chain_submit(struct chain_scene *scene, int count)
{
    int n = io_uring_submit(&scene->ring);

    scene_that(scene, n == count, "submitting %d gave %d", count, n);
}

static bool reap_one(struct chain_scene *scene, int milliseconds)
{
    struct __kernel_timespec timeout = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    struct io_uring_cqe *cqe;
    int result = io_uring_wait_cqe_timeout(&scene->ring, &cqe, &timeout);

    if (result == -ETIME)
        return false;
    scene_that(scene, result == 0, "waiting gave %d", result);
    unsigned tag = (unsigned)cqe->user_data;

    scene_that(scene, tag < TAGS && scene->results[tag] == NOTHING, "unexpected completion of %llu: %d",
               (unsigned long long)cqe->user_data, cqe->res);
    scene_that(scene, cqe->flags == 0, "flags %x of %u", cqe->flags, tag);
    scene->results[tag] = cqe->res;
    scene->order[scene->came++] = tag;
    io_uring_cqe_seen(&scene->ring, cqe);
    return true;
}

void chain_reap(struct chain_scene *scene, unsigned count)
{
    unsigned until = scene->came + count;

    while (scene->came < until)
        scene_that(scene, reap_one(scene, ASYNC_PATIENCE), "%u completions are missing", until - scene->came);
}

void chain_expect_silence(struct chain_scene *scene)
{
    scene_that(scene, !reap_one(scene, 30), "one completion too many: of %u", scene->order[scene->came - 1]);
}

void chain_expect(const struct chain_scene *scene, unsigned tag, int result)
{
    scene_that(scene, scene->results[tag] == result, "request %u gave %d, not %d", tag, scene->results[tag], result);
}

void chain_expect_order(const struct chain_scene *scene)
{
    for (unsigned i = 0; i < scene->came; i++)
        scene_that(scene, scene->order[i] == i, "completion %u is of request %u", i, scene->order[i]);
}

void chain_expect_target(struct chain_scene *scene, size_t from, size_t to)
{
    static unsigned char content[SIZE + 1];

    check_that(read_behind(scene->target_path, content, sizeof(content), 0) == SIZE, "the target's size");
    scene_that(scene, pattern_check(content, from, TARGET, 0) == from, "the target before %zu", from);
    size_t good = pattern_check(content + from, to - from, SOURCE, from);

    scene_that(scene, good == to - from, "byte %zu of the target is not what was read", from + good);
    scene_that(scene, pattern_check(content + to, SIZE - to, TARGET, to) == SIZE - to, "the target behind %zu", to);
    for (uint64_t at = 0; at < SIZE; at += 16 * BLOCK)
        scene_that(scene, pread(scene->target, aligned_memory(), 16 * BLOCK, (off_t)at) == 16 * BLOCK, "at %llu",
                   (unsigned long long)at);
    if (!counting())
        return;
    scene_that(scene, counters().changed_outside == 0, "the shim has not seen who wrote");
    scene_that(scene, counters().passed_through == 0, "requests passed through");
    scene_that(scene, command_counts(0, NULL, "scrub", scene->target_path, "mismatches") == 0, "scrub");
}

void chain_send_pattern(struct chain_scene *scene, size_t length, uint64_t offset)
{
    unsigned char *data = malloc(length);

    pattern_fill(data, length, SOURCE, offset);
    check_that(write(scene->sockets[1], data, length) == (ssize_t)length, "send");
    free(data);
}

void chain_expect_received(struct chain_scene *scene, size_t length, uint64_t offset)
{
    unsigned char *data = malloc(length);

    scene_that(scene, recv(scene->sockets[1], data, length, MSG_WAITALL) == (ssize_t)length, "receive");
    size_t good = pattern_check(data, length, SOURCE, offset);

    scene_that(scene, good == length, "byte %zu that was sent is not the file's", good);
    free(data);
}
