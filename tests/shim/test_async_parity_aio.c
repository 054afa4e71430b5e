/*
 * libaio, without the shim and with it: the same script sees the same results, events and readiness.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/record.h"

enum { BLOCKS = 16, SIZE = BLOCKS * BLOCK, SEED = 1, PLACES = 16 };

struct scene {
    io_context_t context;
    const char *path;
    int direct, plain, read_only, append;
    int pipe[2];
    int event;
    unsigned char *memory; /* PLACES blocks */
    struct iocb iocbs[PLACES];
};

static void scene_begin(struct scene *scene, const char *directory)
{
    *scene = (struct scene){.path = path_in(directory, "file"), .memory = buffer_new(PLACES * BLOCK)};
    make_file_behind(scene->path, SEED, SIZE);
    scene->direct = open(scene->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    scene->plain = open(scene->path, O_RDWR | O_CLOEXEC);
    scene->read_only = open(scene->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    scene->append = open(scene->path, O_RDWR | O_DIRECT | O_APPEND | O_CLOEXEC);
    scene->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (pipe2(scene->pipe, O_NONBLOCK | O_CLOEXEC) != 0 || scene->append < 0)
        support_die("the scene");
    note_result("io_setup", io_setup(8, &scene->context));
}

/* Who they are, what they say. */
static void note_events(const struct scene *scene, const struct io_event *events, int count)
{
    note("events: %d", count);
    for (int i = 0; i < count; i++)
        note("  iocb %ld data %p res %ld res2 %ld", (long)(events[i].obj - scene->iocbs), events[i].data,
             (long)events[i].res, (long)events[i].res2);
}

static int by_iocb(const void *a, const void *b)
{
    const struct io_event *one = a, *other = b;

    return one->obj < other->obj ? -1 : one->obj > other->obj;
}

/* Wait for `least`, within a second or at once; in the order of the iocbs, where the kernel promises none. */
static void reap(struct scene *scene, long least, long most, bool wait)
{
    struct io_event events[PLACES];
    struct timespec timeout = {wait ? 10 : 0, 0};
    int n = io_getevents(scene->context, least, most, events, &timeout);

    if (n < 0) {
        note_result("io_getevents", n);
        return;
    }
    qsort(events, (size_t)n, sizeof(events[0]), by_iocb);
    note_events(scene, events, n);
}

static struct iocb *prepare(struct scene *scene, unsigned place, short opcode, int fd, size_t length, long long offset)
{
    struct iocb *iocb = &scene->iocbs[place];

    memset(iocb, 0, sizeof(*iocb));
    iocb->aio_fildes = fd;
    iocb->aio_lio_opcode = opcode;
    iocb->u.c.buf = scene->memory + (size_t)place * BLOCK;
    iocb->u.c.nbytes = length;
    iocb->u.c.offset = offset;
    iocb->data = (void *)(uintptr_t)(1000 + place);
    return iocb;
}

static void one(struct scene *scene, const char *what, short opcode, int fd, size_t length, long long offset)
{
    struct iocb *iocb = prepare(scene, 1, opcode, fd, length, offset);
    int n = io_submit(scene->context, 1, &iocb);

    note_result(what, n);
    if (n == 1)
        reap(scene, 1, 1, true);
    note("  memory %016llx", (unsigned long long)hash_bytes(HASH_START, scene->memory, 4 * BLOCK));
}

static void single_requests(struct scene *scene)
{
    one(scene, "read", IO_CMD_PREAD, scene->direct, BLOCK, 0);
    one(scene, "read two blocks", IO_CMD_PREAD, scene->direct, 2 * BLOCK, 3 * BLOCK);
    one(scene, "read across the end", IO_CMD_PREAD, scene->direct, 2 * BLOCK, SIZE - BLOCK);
    one(scene, "read at the end", IO_CMD_PREAD, scene->direct, BLOCK, SIZE);
    one(scene, "read beyond the end", IO_CMD_PREAD, scene->direct, BLOCK, 10 * SIZE);
    one(scene, "read nothing", IO_CMD_PREAD, scene->direct, 0, 0);
    one(scene, "read at an odd offset", IO_CMD_PREAD, scene->direct, BLOCK, 7);
    one(scene, "read an odd length", IO_CMD_PREAD, scene->direct, 1000, 0);
    one(scene, "read at a negative offset", IO_CMD_PREAD, scene->direct, BLOCK, -BLOCK);
    one(scene, "write", IO_CMD_PWRITE, scene->direct, BLOCK, BLOCK);
    one(scene, "write beyond the end", IO_CMD_PWRITE, scene->direct, BLOCK, SIZE + BLOCK);
    one(scene, "write at an odd offset", IO_CMD_PWRITE, scene->direct, BLOCK, 7);
    one(scene, "write nothing", IO_CMD_PWRITE, scene->direct, 0, 0);
    one(scene, "write what is for reading", IO_CMD_PWRITE, scene->read_only, BLOCK, 0);
    one(scene, "append", IO_CMD_PWRITE, scene->append, BLOCK, 0);
    one(scene, "buffered read", IO_CMD_PREAD, scene->plain, 1000, 100);
    one(scene, "buffered write", IO_CMD_PWRITE, scene->plain, 1000, 100);
    one(scene, "fsync", IO_CMD_FSYNC, scene->direct, 0, 0);
    one(scene, "fdsync", IO_CMD_FDSYNC, scene->direct, 0, 0);
    one(scene, "read from a pipe", IO_CMD_PREAD, scene->pipe[0], 10, 0);
    one(scene, "bad descriptor", IO_CMD_PREAD, 999, BLOCK, 0);
    one(scene, "bad opcode", 77, scene->direct, BLOCK, 0);
    one(scene, "no operation", IO_CMD_NOOP, scene->direct, BLOCK, 0);
    note("size %llu", (unsigned long long)size_behind(scene->path));
    note("content %016llx", (unsigned long long)hash_behind(scene->path));
}

static void vectors(struct scene *scene)
{
    struct iovec good[2] = {{scene->memory + 4 * BLOCK, BLOCK}, {scene->memory, 2 * BLOCK}};
    struct iovec bad[2] = {{scene->memory, BLOCK}, {scene->memory, (size_t)-1}};
    struct iocb *iocb = &scene->iocbs[2];

    io_prep_preadv(iocb, scene->direct, good, 2, 0);
    note_result("preadv", io_submit(scene->context, 1, &iocb));
    reap(scene, 1, 1, true);
    io_prep_pwritev(iocb, scene->direct, good, 2, BLOCK);
    note_result("pwritev", io_submit(scene->context, 1, &iocb));
    reap(scene, 1, 1, true);
    io_prep_preadv(iocb, scene->direct, bad, 2, 0);
    note_result("preadv, bad length", io_submit(scene->context, 1, &iocb));
    io_prep_preadv(iocb, scene->direct, (struct iovec *)16, 2, 0);
    note_result("preadv, bad segments", io_submit(scene->context, 1, &iocb));
    io_prep_pwritev(iocb, scene->direct, good, 5000, 0);
    note_result("pwritev, too many segments", io_submit(scene->context, 1, &iocb));
    io_prep_pwritev(iocb, scene->direct, good, 0, 0);
    note_result("pwritev, no segments", io_submit(scene->context, 1, &iocb));
    reap(scene, 0, 1, true);
    note("memory %016llx", (unsigned long long)hash_bytes(HASH_START, scene->memory, 8 * BLOCK));
}

static void batches(struct scene *scene)
{
    struct iocb *list[PLACES];

    for (unsigned i = 0; i < 6; i++)
        list[i] = prepare(scene, i, IO_CMD_PREAD, scene->direct, BLOCK, i * BLOCK);
    note_result("six", io_submit(scene->context, 6, list));
    reap(scene, 6, 6, true);
    note("memory %016llx", (unsigned long long)hash_bytes(HASH_START, scene->memory, PLACES * BLOCK));
    for (unsigned i = 0; i < 6; i++)
        list[i] = prepare(scene, i, IO_CMD_PWRITE, i == 3 ? 999 : scene->direct, BLOCK, i * BLOCK);
    note_result("the fourth is bad", io_submit(scene->context, 6, list));
    reap(scene, 3, 6, true);
    list[0] = NULL;
    note_result("no iocb", io_submit(scene->context, 1, list));
    list[0] = (struct iocb *)16;
    note_result("bad iocb", io_submit(scene->context, 1, list));
    note_result("no list", io_submit(scene->context, 1, NULL));
    note_result("none", io_submit(scene->context, 0, list));
    note_result("fewer than none", io_submit(scene->context, -1, list));
    list[0] = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);
    list[0]->u.c.flags = 1 << 8;
    note_result("unknown flag", io_submit(scene->context, 1, list));
    reap(scene, 1, 1, true);
    list[0] = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);
    list[0]->aio_rw_flags = 1U << 30;
    note_result("unknown rw flag", io_submit(scene->context, 1, list));
    reap(scene, 0, 1, true);
}

/* Written at places apart; one is bad, wherever among them it is. */
static void batches_apart(struct scene *scene)
{
    struct iocb *list[8];

    for (unsigned bad = 0; bad <= 8; bad++) {
        for (unsigned i = 0; i < 8; i++)
            list[i] = prepare(scene, i, IO_CMD_PWRITE, i == bad ? 999 : scene->direct, BLOCK,
                              (8 - (long long)i) * 2 % BLOCKS * BLOCK);
        int taken = io_submit(scene->context, 8, list);

        note_result("one is bad", taken);
        reap(scene, taken > 0 ? taken : 0, 8, true);
    }
}

/* Only as many as the context has room for, reaped or not. */
static void fullness(struct scene *scene)
{
    unsigned taken = 0;
    struct io_event event;
    struct timespec timeout = {10, 0};

    for (int result = 1; result == 1 && taken < 100000; taken++) {
        struct iocb *iocb = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);

        result = io_submit(scene->context, 1, &iocb);
        if (result != 1)
            note_result("when it is full", result);
    }
    /* How many that is depends on processors and luck. */
    note("room for all that was asked for: %d", taken - 1 >= 8 && taken < 10000);
    for (unsigned i = 0; i < taken - 1; i++)
        if (io_getevents(scene->context, 1, 1, &event, &timeout) != 1 || event.res != BLOCK)
            note("event %u is missing", i);
    reap(scene, 0, 1, false);
}

static void getting(struct scene *scene)
{
    struct io_event event;
    struct timespec soon = {0, 5000000};

    note_result("nothing there", io_getevents(scene->context, 1, 1, &event, &soon));
    note_result("none wanted", io_getevents(scene->context, 0, 0, &event, &soon));
    note_result("more than room", io_getevents(scene->context, 2, 1, &event, &soon));
    note_result("negative", io_getevents(scene->context, -1, 1, &event, &soon));
    note_errno("bad context", syscall(SYS_io_getevents, 16, 1, 1, &event, &soon));
    note_errno("bad context, submit", syscall(SYS_io_submit, 16, 1, NULL));
    note_errno("bad context, destroy", syscall(SYS_io_destroy, 16));
    note_errno("bad time", syscall(SYS_io_getevents, scene->context, 1, 1, &event, 16));
    struct iocb *iocb = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);

    note_result("one", io_submit(scene->context, 1, &iocb));
    note_errno("bad room", syscall(SYS_io_getevents, scene->context, 1, 1, 16, &(struct timespec){10, 0}));
    reap(scene, 1, 1, true);
    note_result("one", io_submit(scene->context, 1, &iocb));
    sigset_t mask;

    sigfillset(&mask);
    note_result("io_pgetevents", io_pgetevents(scene->context, 1, 1, &event, &(struct timespec){10, 0}, &mask));
}

static void polled(struct scene *scene)
{
    struct iocb *iocb = &scene->iocbs[5];
    struct io_event event;

    io_prep_poll(iocb, scene->pipe[0], POLLIN);
    note_result("poll", io_submit(scene->context, 1, &iocb));
    reap(scene, 0, 1, false);
    note_errno("write", write(scene->pipe[1], "x", 1));
    reap(scene, 1, 1, true);
    char byte;

    note_errno("read", read(scene->pipe[0], &byte, 1));
    note_result("poll", io_submit(scene->context, 1, &iocb));
    note_result("cancel", io_cancel(scene->context, iocb, &event));
    reap(scene, 1, 1, true);
    note_result("cancel what is over", io_cancel(scene->context, iocb, &event));
    iocb = prepare(scene, 1, IO_CMD_PREAD, scene->direct, BLOCK, 0);
    note_result("read", io_submit(scene->context, 1, &iocb));
    reap(scene, 1, 1, true);
    note_result("cancel a read that is over", io_cancel(scene->context, iocb, &event));
}

static void told_by_eventfd(struct scene *scene)
{
    struct iocb *list[3];
    struct pollfd ready = {scene->event, POLLIN, 0};
    eventfd_t value = 0;

    note("ready before: %d", poll(&ready, 1, 0));
    for (unsigned i = 0; i < 3; i++) {
        list[i] = prepare(scene, i, IO_CMD_PREAD, scene->direct, BLOCK, 0);
        io_set_eventfd(list[i], scene->event);
    }
    note_result("three", io_submit(scene->context, 3, list));
    for (unsigned told = 0; told < 3; told += (unsigned)value) {
        poll(&ready, 1, 10000);
        if (eventfd_read(scene->event, &value) != 0)
            note("the eventfd has nothing to read");
    }
    reap(scene, 3, 3, false);
    note("ready after: %d", poll(&ready, 1, 0));
    list[0] = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);
    io_set_eventfd(list[0], scene->pipe[0]);
    note_result("not an eventfd", io_submit(scene->context, 1, list));
    io_set_eventfd(list[0], 999);
    note_result("bad eventfd", io_submit(scene->context, 1, list));
}

static void setting_up(struct scene *scene)
{
    io_context_t context = NULL;

    note_result("for nothing", io_setup(0, &context));
    note_result("for too many", io_setup(1 << 30, &context));
    note_errno("nowhere", syscall(SYS_io_setup, 1, NULL));
    context = (io_context_t)16;
    note_result("over another", io_setup(1, &context));
    context = NULL;
    note_result("second", io_setup(1, &context));
    note_result("destroyed", io_destroy(context));
    note_errno("destroyed again", syscall(SYS_io_destroy, context));
    note_errno("used then", syscall(SYS_io_submit, context, 0, NULL));
    context = NULL;
    note_result("queue_init", io_queue_init(4, &context));
    note_result("queue_release", io_queue_release(context));
    pid_t pid = fork();

    if (pid == 0) {
        struct iocb *iocb = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);

        note_errno("child submits", syscall(SYS_io_submit, scene->context, 1, &iocb));
        note_errno("child destroys", syscall(SYS_io_destroy, scene->context));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    struct iocb *iocb = prepare(scene, 0, IO_CMD_PREAD, scene->direct, BLOCK, 0);

    note_result("parent submits", io_submit(scene->context, 1, &iocb));
    reap(scene, 1, 1, true);
    io_prep_poll(&scene->iocbs[1], scene->pipe[0], POLLIN);
    iocb = &scene->iocbs[1];
    note_result("poll", io_submit(scene->context, 1, &iocb));
    note_result("destroyed with a poll waiting", io_destroy(scene->context));
}

static void play(const char *directory)
{
    struct scene scene;

    scene_begin(&scene, directory);
    single_requests(&scene);
    vectors(&scene);
    batches(&scene);
    batches_apart(&scene);
    fullness(&scene);
    getting(&scene);
    polled(&scene);
    told_by_eventfd(&scene);
    setting_up(&scene);
    note("content %016llx", (unsigned long long)hash_behind(scene.path));
}

static const struct record_script scripts[] = {{"libaio", play}, {NULL, NULL}};

static int record(int argc, char **argv)
{
    return record_main(scripts, argc, argv);
}

START_TEST(libaio_looks_the_same)
{
    record_and_compare(&scripts[0]);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};

    return support_main(argc, argv, "parity of libaio", 120, modes,
                        (const TTest *const[]){libaio_looks_the_same, NULL});
}
