/*
 * libaio by one script, run without and with the shim on every file system: what each call returns, and every event, must be the same. Contexts'
 * addresses and what the contract exempts are not in the record. The script runs each part by libaio's functions and by system calls.
 */
#include <errno.h>
#include <libaio.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/libaio_calls.h"
#include "support/record.h"
#include "support/support.h"

enum { BLOCKS = 16, SIZE = BLOCKS * BLOCK, IOCBS = 256, SEED = 5, PATIENCE = 20 };

/* --- The scene ------------------------------------------------------------------------------------------------------ */

static struct scene {
    io_context_t context;
    int fd;        /* O_DIRECT, SIZE bytes */
    int read_only; /* the same file */
    int write_only;
    int plain;       /* the same file without O_DIRECT */
    char *memory;    /* 4 * SIZE bytes */
    char *bad;       /* inaccessible */
    char *protected; /* readable */
    struct iocb iocbs[IOCBS];
    struct iocb *list[IOCBS];
} s;

static const char *path_of_file;

static void scene_begin(void)
{
    signal(SIGALRM, SIG_DFL);
    alarm(3 * PATIENCE);
    memset(&s, 0, sizeof s);
    s.fd = open(path_of_file, O_RDWR | O_DIRECT | O_CREAT | O_TRUNC, 0600);
    s.memory = aligned_alloc(BLOCK, 4 * SIZE);
    s.bad = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    s.protected = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pattern_fill(s.memory, SIZE, SEED, 0);
    check_that(pwrite(s.fd, s.memory, SIZE, 0) == SIZE, "cannot write %s", path_of_file);
    s.read_only = open(path_of_file, O_RDONLY | O_DIRECT);
    s.write_only = open(path_of_file, O_WRONLY | O_DIRECT);
    s.plain = open(path_of_file, O_RDWR);
    check_that(libaio_setup(64, &s.context) == 0, "no context");
    for (size_t i = 0; i < IOCBS; i++)
        s.list[i] = &s.iocbs[i];
}

static void scene_end(void)
{
    check_that(libaio_destroy(s.context) == 0, "cannot destroy the context");
    close(s.fd);
    close(s.read_only);
    close(s.write_only);
    close(s.plain);
    munmap(s.bad, SIZE);
    munmap(s.protected, SIZE);
    free(s.memory);
}

/* Number `i` of the iocbs, its data its own. */
static struct iocb *read_of(size_t i, int fd, void *memory, size_t length, long long offset)
{
    io_prep_pread(&s.iocbs[i], fd, memory, length, offset);
    s.iocbs[i].data = (void *)(uintptr_t)(1000 + i);
    return &s.iocbs[i];
}

static struct iocb *write_of(size_t i, int fd, void *memory, size_t length, long long offset)
{
    io_prep_pwrite(&s.iocbs[i], fd, memory, length, offset);
    s.iocbs[i].data = (void *)(uintptr_t)(1000 + i);
    return &s.iocbs[i];
}

static void print_event(const struct io_event *event)
{
    note("  event of %td: data %lu, %ld %ld", event->obj - s.iocbs, (unsigned long)(uintptr_t)event->data,
         (long)event->res, (long)event->res2);
}

static int by_object(const void *a, const void *b)
{
    const struct io_event *one = a, *other = b;
    return one->obj < other->obj ? -1 : one->obj > other->obj;
}

/* Wait for `count` events and print them in the order of their iocbs. */
static void reap_and_print(long count)
{
    struct io_event events[IOCBS];
    struct timespec timeout = {.tv_sec = PATIENCE};
    const long n = libaio_reap(s.context, count, IOCBS, events, &timeout);

    note_result("reaped", n);
    if (n > 0)
        qsort(events, (size_t)n, sizeof *events, by_object);
    for (long i = 0; i < n; i++)
        print_event(&events[i]);
}

/* Submit number 0, and print what comes of it. */
static void one(const char *what)
{
    const long n = libaio_submit(s.context, 1, s.list);

    note(what, n);
    if (n == 1)
        reap_and_print(1);
}

/* Submit a read of the first block, and wait until it is over, without reaping it. */
static void submit_and_wait(size_t i)
{
    struct pollfd poller = {.fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN};

    io_set_eventfd(&s.iocbs[i], poller.fd);
    note_result("submit", libaio_submit(s.context, 1, &s.list[i]));
    check_that(poll(&poller, 1, PATIENCE * 1000) == 1, "it is never over");
    close(poller.fd);
    s.iocbs[i].u.c.flags = 0;
}

/* --- The parts ------------------------------------------------------------------------------------------------------ */

static void setting_up(void)
{
    io_context_t none = NULL, again = s.context;
    unsigned header[8];

    note_result("setup of nothing", libaio_setup(0, &none));
    note_result("setup of less", libaio_setup(-1, &none));
    note_result("setup twice", libaio_setup(8, &again));
    note_result("setup at a bad address", libaio_setup(8, (io_context_t *)(void *)s.bad));
    note_result("setup at protected memory", libaio_setup(8, (io_context_t *)(void *)s.protected));
    note_result("setup of too much", libaio_setup(1 << 30, &none));
    note_result("setup", libaio_setup(8, &none));
    memcpy(header, none, sizeof header);
    note("places %u, head %u, tail %u, header %u", header[1], header[2], header[3], header[7]);
    note_result("destroy", libaio_destroy(none));
    note_result("destroy twice", libaio_destroy(none));
    note_result("destroy nothing", libaio_destroy(NULL));
    note_result("destroy what is none", libaio_destroy((io_context_t)(void *)s.memory));
    note_result("submit to what is none", libaio_submit(none, 1, s.list));
    /* libaio itself looks into contexts, and at timeouts. */
    if (libaio_by_syscall)
        note_result("reap from what is none", libaio_reap(none, 0, 1, NULL, NULL));
    note_result("cancel in what is none", libaio_cancel(none, s.list[0], NULL));
    if (!libaio_by_syscall) {
        io_context_t queue = s.context;
        note_result("queue of nothing", io_queue_init(0, &queue));
        note_result("queue", io_queue_init(8, &queue));
        note_result("queue released", io_queue_release(queue));
    }
}

static void submitting(void)
{
    struct iocb *odd[4] = {read_of(0, s.fd, s.memory, BLOCK, 0), (struct iocb *)(void *)s.bad, s.list[1], s.list[2]};

    read_of(1, s.fd, s.memory + BLOCK, BLOCK, BLOCK);
    read_of(2, -1, s.memory, BLOCK, 0);
    note_result("none", libaio_submit(s.context, 0, s.list));
    note_result("none of a bad list", libaio_submit(s.context, 0, (struct iocb **)(void *)s.bad));
    note_result("fewer than none", libaio_submit(s.context, -1, s.list));
    note_result("a bad list", libaio_submit(s.context, 1, (struct iocb **)(void *)s.bad));
    note_result("a bad iocb", libaio_submit(s.context, 1, odd + 1));
    note_result("a bad second iocb", libaio_submit(s.context, 4, odd));
    reap_and_print(1);
    note_result("a bad third descriptor", libaio_submit(s.context, 3, s.list));
    reap_and_print(2);
    note_result("a bad descriptor", libaio_submit(s.context, 1, s.list + 2));
    read_of(0, s.fd, s.memory, BLOCK, 0)->aio_lio_opcode = 77;
    one("a bad opcode");
    memset(read_of(0, s.fd, s.memory, BLOCK, 0), 0, 8);
    s.iocbs[0].aio_lio_opcode = IO_CMD_NOOP;
    one("no operation");
    read_of(0, s.fd, s.memory, BLOCK, 0)->key = 99;
    one("a key");
    note_result("  the key afterwards", s.iocbs[0].key);
    /* A list that ends in inaccessible memory. */
    struct iocb **edge = (struct iocb **)(void *)buffer_new(BLOCK) + BLOCK / sizeof(void *) - 2;
    edge[0] = read_of(0, s.fd, s.memory, BLOCK, 0);
    edge[1] = read_of(1, s.fd, s.memory + BLOCK, BLOCK, 0);
    note_result("a list that is bad from the third on", libaio_submit(s.context, 5, edge));
    reap_and_print(2);
}

static void positions(void)
{
    static const struct {
        long long offset;
        size_t length;
    } cases[] = {{0, 0},
                 {-1, BLOCK},
                 {-4096, BLOCK},
                 {INT64_MAX, BLOCK},
                 {INT64_MAX - 4095, BLOCK},
                 {100, BLOCK},
                 {0, 100},
                 {SIZE - BLOCK, 2 * BLOCK},
                 {SIZE, BLOCK},
                 {SIZE + BLOCK, BLOCK},
                 {0, SIZE_MAX},

                 {0, SIZE}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        note("%zu bytes at %lld", cases[i].length, cases[i].offset);
        read_of(0, s.fd, s.memory, cases[i].length, cases[i].offset);
        one(" read");
        read_of(0, s.write_only, s.memory, cases[i].length, cases[i].offset);
        one(" read of a descriptor for writing");
        write_of(0, s.read_only, s.memory, cases[i].length, cases[i].offset);
        one(" write to a descriptor for reading");
        if (cases[i].length >= SIZE_MAX / 2 || cases[i].offset >= SIZE)
            continue;
        write_of(0, s.fd, s.memory, cases[i].length, cases[i].offset);
        one(" write");
        note(" size %lld", (long long)lseek(s.fd, 0, SEEK_END));
        check_that(ftruncate(s.fd, SIZE) == 0, "cannot truncate");
    }
}

static void memories(void)
{
    write_of(0, s.fd, s.bad, BLOCK, 0);
    one("write from bad memory");
    write_of(0, s.fd, s.bad, BLOCK, SIZE);
    one("write from bad memory beyond the end");
    note_result(" size", lseek(s.fd, 0, SEEK_END));
    read_of(0, s.fd, s.bad, BLOCK, 0);
    one("read into bad memory");
    read_of(0, s.fd, s.protected, BLOCK, 0);
    one("read into protected memory");
    read_of(0, s.fd, s.bad, BLOCK, SIZE);
    one("read into bad memory at the end");
    write_of(0, s.fd, (void *)(uintptr_t)UINT64_C(0xffff888000000000), BLOCK, 0);
    one("write from the kernel's memory");
    read_of(0, s.fd, (void *)(uintptr_t)UINT64_C(0xffff888000000000), BLOCK, 0);
    one("read into the kernel's memory");
}

static void vectors(void)
{
    struct iovec parts[3] = {{s.memory, BLOCK}, {s.memory + 2 * BLOCK, BLOCK}, {s.memory + 5 * BLOCK, 2 * BLOCK}};
    struct iovec *many = calloc(2000, sizeof *many);

    io_prep_pwritev(s.list[0], s.fd, parts, 3, BLOCK);
    one("gathered");
    io_prep_preadv(s.list[0], s.fd, parts, 3, BLOCK);
    one("scattered");
    io_prep_preadv(s.list[0], s.fd, parts, 0, 0);
    one("no segments");
    io_prep_preadv(s.list[0], s.fd, (struct iovec *)(void *)s.bad, 2, 0);
    one("bad segments");
    io_prep_preadv(s.list[0], s.fd, many, 2000, 0);
    one("too many segments");
    io_prep_preadv(s.list[0], s.fd, many, 1000, 0);
    one("empty segments");
    parts[1].iov_len = SIZE_MAX;
    io_prep_pwritev(s.list[0], s.fd, parts, 3, 0);
    one("a segment of too much");
    free(many);
}

static void flags(void)
{
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t count = 0;

    for (int flag = 0; flag < 32; flag++) {
        if ((1U << flag) == 0x8 || (1U << flag) == 0x40 || (1U << flag) == 0x10) /* NOWAIT, ATOMIC, APPEND */
            continue;
        note("flag %d", flag);
        read_of(0, s.fd, s.memory, BLOCK, 0)->aio_rw_flags = 1 << flag;
        one(" read");
        write_of(0, s.fd, s.memory, BLOCK, 0)->aio_rw_flags = 1 << flag;
        one(" write");
    }
    io_set_eventfd(read_of(0, s.fd, s.memory, BLOCK, 0), s.fd);
    one("an eventfd that is none");
    io_set_eventfd(read_of(0, s.fd, s.memory, BLOCK, 0), -1);
    one("no eventfd");
    for (size_t i = 0; i < 3; i++)
        io_set_eventfd(write_of(i, s.fd, s.memory, BLOCK, (long long)i * BLOCK), event);
    note_result("with an eventfd", libaio_submit(s.context, 3, s.list));
    reap_and_print(3);
    note_result(" which was read", read(event, &count, sizeof count));
    note_result(" and says", (long)count);
    read_of(0, s.fd, s.memory, BLOCK, 0)->u.c.flags = 1 << 1;
    s.iocbs[0].aio_reqprio = (2 << 13) | 4;
    one("a priority");
    s.iocbs[0].aio_reqprio = (3 << 13) | 4096;
    one("a bad priority");
    close(event);
}

static void other_operations(void)
{
    int ends[2];
    char byte = 1;

    check_that(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
    io_prep_fsync(s.list[0], s.fd);
    one("fsync");
    io_prep_fdsync(s.list[0], s.fd);
    one("fdsync");
    io_prep_fsync(s.list[0], ends[1]);
    one("fsync of a pipe");
    io_prep_poll(s.list[0], ends[1], 4);
    one("poll for room");
    io_prep_poll(s.list[0], ends[0], 1);
    note_result("poll for data", libaio_submit(s.context, 1, s.list));
    struct io_event event;
    struct timespec none = {0};
    note_result(" nothing yet", libaio_reap(s.context, 0, 1, &event, &none));
    check_that(write(ends[1], &byte, 1) == 1, "cannot write to a pipe");
    reap_and_print(1);
    io_prep_pread(s.list[0], ends[0], s.memory, 1, 0);
    one("read of a pipe");
    io_prep_pwrite(s.list[0], s.plain, s.memory, 100, 50);
    one("write of a plain file");
    io_prep_pread(s.list[0], s.plain, s.memory, 100, 50);
    one("read of a plain file");
    close(ends[0]);
    close(ends[1]);
}

static void cancelling(void)
{
    int ends[2];
    struct io_event event = {0};

    check_that(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
    io_prep_poll(s.list[0], ends[0], 1);
    note_result("poll", libaio_submit(s.context, 1, s.list));
    note_result(" cancel another", libaio_cancel(s.context, s.list[1], &event));
    note_result(" cancel at a bad address", libaio_cancel(s.context, (struct iocb *)(void *)s.bad, &event));
    note_result(" cancel", libaio_cancel(s.context, s.list[0], &event));
    reap_and_print(1);
    note_result(" cancel again", libaio_cancel(s.context, s.list[0], &event));
    write_of(0, s.fd, s.memory, SIZE, 0);
    note_result("write", libaio_submit(s.context, 1, s.list));
    note_result(" cancel", libaio_cancel(s.context, s.list[0], &event));
    reap_and_print(1);
    s.iocbs[0].key = 5;
    note_result(" cancel with a key", libaio_cancel(s.context, s.list[0], &event));
    close(ends[0]);
    close(ends[1]);
}

static void reaping(void)
{
    struct io_event events[IOCBS];
    struct timespec none = {0}, moment = {.tv_nsec = 30000000}, long_time = {.tv_sec = PATIENCE};

    note_result("nothing there", libaio_reap(s.context, 0, 1, events, NULL));
    note_result("nothing asked for", libaio_reap(s.context, 0, 0, NULL, NULL));
    note_result("more than most", libaio_reap(s.context, 2, 1, events, &none));
    note_result("fewer than none", libaio_reap(s.context, -1, 1, events, &none));
    note_result("most of none", libaio_reap(s.context, -2, -1, events, &none));
    if (libaio_by_syscall)
        note_result("a bad timeout", libaio_reap(s.context, 0, 1, events, (struct timespec *)(void *)s.bad));
    note_result("no time", libaio_reap(s.context, 1, 1, events, &none));
    note_result("a moment", libaio_reap(s.context, 1, 2, events, &moment));
    for (size_t i = 0; i < 3; i++) {
        read_of(0, s.fd, s.memory, BLOCK, 0);
        submit_and_wait(0);
    }
    note_result("more than there will be", libaio_reap(s.context, 4, 8, events, &moment));
    for (size_t i = 0; i < 5; i++)
        read_of(i, s.fd, s.memory + i * BLOCK, BLOCK, (long long)i * BLOCK);
    note_result("five", libaio_submit(s.context, 5, s.list));
    note_result(" to a bad address", libaio_reap(s.context, 5, 5, (struct io_event *)(void *)s.bad, &long_time));
    note_result(" to a protected one",
                libaio_reap(s.context, 5, 5, (struct io_event *)(void *)s.protected, &long_time));
    note_result(" one of them", libaio_reap(s.context, 1, 1, events, &long_time));
    note_result(" two of them", libaio_reap(s.context, 1, 2, events, &long_time));
    note_result(" the rest", libaio_reap(s.context, 2, IOCBS, events, NULL));
}

/* More events than are taken at once, in the order of their submission where that is theirs. */
static void crowds(void)
{
    struct io_event events[IOCBS];
    io_context_t context = NULL;
    long done = 0;

    check_that(libaio_setup(IOCBS, &context) == 0, "no context");
    for (size_t i = 0; i < IOCBS; i++)
        write_of(i, s.fd, s.memory, BLOCK, (long long)(i % BLOCKS) * BLOCK);
    note_result("a crowd", libaio_submit(context, IOCBS, s.list));
    /* The one more than the least may or may not be there. */
    done = libaio_reap(context, 200, 201, events, NULL);
    note_result(" reaped enough", done == 200 || done == 201);
    note_result(" reaped in all", done + libaio_reap(context, IOCBS - done, IOCBS, events, NULL));
    for (size_t i = 0; i < 100; i++) {
        read_of(i, s.fd, s.memory, BLOCK, (long long)(i % BLOCKS) * BLOCK);
        check_that(libaio_submit(context, 1, s.list + i) == 1, "cannot submit");
        check_that(libaio_reap(context, 1, 1, events, NULL) == 1, "cannot reap");
        print_event(events);
    }
    note_result(" destroyed", libaio_destroy(context));
}

static volatile sig_atomic_t handled;

static void handle(int number)
{
    handled = number;
}

static void signals(void)
{
    struct io_event events[4];
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    struct itimerval soon = {.it_value = {.tv_usec = 30000}};
    struct timespec patience = {.tv_sec = PATIENCE}, none = {0};
    sigset_t blocked, open;

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    note_result("interrupted", libaio_reap(s.context, 1, 4, events, &patience));
    read_of(0, s.fd, s.memory, BLOCK, 0);
    submit_and_wait(0);
    setitimer(ITIMER_REAL, &soon, NULL);
    note_result("interrupted with one in hand", libaio_reap(s.context, 2, 4, events, &patience));
    sigemptyset(&open);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaction(SIGUSR1, &action, NULL);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    handled = 0;
    note_result("with a mask, nothing there", io_pgetevents(s.context, 1, 4, events, &patience, &open));
    note_result(" handled", handled);
    raise(SIGUSR1);
    handled = 0;
    note_result("without waiting", io_pgetevents(s.context, 0, 4, events, &none, &open));
    note_result(" handled", handled);
    note_result("submit", libaio_submit(s.context, 1, s.list));
    note_result("with nothing to let through", io_pgetevents(s.context, 1, 4, events, &patience, &blocked));
    note_result("with no mask", io_pgetevents(s.context, 0, 4, events, &none, NULL));
    const struct {
        const void *mask;
        size_t size;
    } odd = {&open, 3};
    note_result("with a mask of odd size",
                libaio_or_errno(syscall(SYS_io_pgetevents, s.context, 0, 4, events, &none, &odd)));
    note_result("with a bad mask", libaio_or_errno(syscall(SYS_io_pgetevents, s.context, 0, 4, events, &none, s.bad)));
    note_result("without one", libaio_or_errno(syscall(SYS_io_pgetevents, s.context, 0, 4, events, &none, NULL)));
    sigprocmask(SIG_UNBLOCK, &blocked, NULL);
}

static void called_back(io_context_t context, struct iocb *iocb, long result, long other)
{
    (void)context;
    note("  called back for %td: %ld %ld", iocb - s.iocbs, result, other);
}

/* Exported, but declared no more. */
int io_queue_wait(io_context_t context, struct timespec *timeout);

static void queues(void)
{
    struct timespec moment = {.tv_nsec = 20000000};

    if (libaio_by_syscall)
        return;
    for (size_t i = 0; i < 2; i++) {
        io_set_callback(read_of(i, s.fd, s.memory, BLOCK, 0), called_back);
        submit_and_wait(i);
    }
    note_result("queue run", io_queue_run(s.context));
    note_result("queue run again", io_queue_run(s.context));
    note_result("queue waited for", io_queue_wait(s.context, &moment));
    note_result("queue of none", io_queue_run(NULL));
}

static void forking(void)
{
    struct io_event events[2];
    struct timespec none = {0};
    io_context_t own = NULL;
    int status;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        read_of(0, s.fd, s.memory, BLOCK, 0);
        note_result("child submits", libaio_submit(s.context, 1, s.list));
        if (libaio_by_syscall) /* libaio itself finds the parent's ring empty */
            note_result("child reaps", libaio_reap(s.context, 0, 2, events, &none));
        note_result("child cancels", libaio_cancel(s.context, s.list[0], events));
        note_result("child destroys", libaio_destroy(s.context));
        note_result("child's own", libaio_setup(8, &own));
        note_result("child submits to its own", libaio_submit(own, 1, s.list));
        note_result("child reaps its own", libaio_reap(own, 1, 2, events, NULL));
        print_event(events);
        fflush(stdout);
        _exit(0);
    }
    check_that(waitpid(child, &status, 0) == child && status == 0, "the child died");
    read_of(0, s.fd, s.memory, BLOCK, 0);
    one("the parent goes on");
}

static void *sleeper(void *result)
{
    struct io_event event;

    *(long *)result = libaio_reap(s.context, 1, 1, &event, NULL);
    return NULL;
}

static void destroying(void)
{
    long result = 0;
    int ends[2];
    pthread_t thread;

    check_that(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
    io_prep_poll(s.list[0], ends[0], 1);
    note_result("poll", libaio_submit(s.context, 1, s.list));
    for (size_t i = 1; i < 9; i++)
        read_of(i, s.fd, s.memory, SIZE, 0);
    note_result("reads", libaio_submit(s.context, 8, s.list + 1));
    note_result("destroyed with all that in flight", libaio_destroy(s.context));
    s.context = NULL;
    check_that(libaio_setup(8, &s.context) == 0, "no context");
    check_that(pthread_create(&thread, NULL, sleeper, &result) == 0, "no thread");
    usleep(100000);
    note_result("destroyed under a sleeper", libaio_destroy(s.context));
    pthread_join(thread, NULL);
    note_result("who was told", result);
    s.context = NULL;
    check_that(libaio_setup(8, &s.context) == 0, "no context");
    close(ends[0]);
    close(ends[1]);
}

static void script(const char *directory)
{
    static void (*const parts[])(void) = {setting_up, submitting,       positions,  memories,  vectors,
                                          flags,      other_operations, cancelling, reaping,   crowds,
                                          signals,    queues,           forking,    destroying};
    path_of_file = path_in(directory, "file");
    for (int way = 0; way < 2; way++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            libaio_by_syscall = way == 1;
            note("--- part %zu by %s", i, libaio_by_syscall ? "system calls" : "functions");
            scene_begin();
            parts[i]();
            scene_end();
        }
}

static const struct record_script scripts[] = {{"libaio", script}, {NULL, NULL}};

START_TEST(everything_is_as_it_is_without_the_shim)
{
    record_and_compare(&scripts[0]);
}
END_TEST

static int record(int argc, char **argv)
{
    return record_main(scripts, argc, argv);
}

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};
    const TTest *const tests[] = {everything_is_as_it_is_without_the_shim, NULL};

    return support_main(argc, argv, "libaio parity", 240, modes, tests);
}
