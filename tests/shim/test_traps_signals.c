/*
 * Direct I/O where a program may do little else: in a signal handler that interrupts direct I/O, and with an allocator that
 * fails. read, write, pread, pwrite, open and close are async-signal-safe; so must their wrappers be.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { K = 1024, SEED = 1, HANDLER_SEED = 2, HANDLER_BLOCKS = 64, WATCHDOG_SECONDS = 60 };

/* --- A handler that writes ---------------------------------------------------------------------------------------- */

/* What the handler works with: it may not allocate, and it may not fail in silence. */
static struct {
    const char *path;
    int fd;
    unsigned char *memory; /* its own: the interrupted code uses the other */
    unsigned runs;
    const char *failure;
} handler;

static void direct_io_in_a_handler(int signal)
{
    int error = errno;
    unsigned block = handler.runs++ % HANDLER_BLOCKS;
    off_t at = (off_t)block * BLOCK;
    int fd = handler.fd;

    (void)signal;
    /* Now and then through a descriptor of its own, so that opening and closing are interrupted and interrupt as well. */
    if (handler.runs % 8 == 0)
        fd = open(handler.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    pattern_fill(handler.memory, BLOCK, HANDLER_SEED, (uint64_t)at);
    if (fd < 0 || pwrite(fd, handler.memory, BLOCK, at) != BLOCK)
        handler.failure = "pwrite in the handler";
    memset(handler.memory, 0, BLOCK);
    if (pread(fd, handler.memory, BLOCK, at) != BLOCK)
        handler.failure = "pread in the handler";
    else if (pattern_check(handler.memory, BLOCK, HANDLER_SEED, (uint64_t)at) != BLOCK)
        handler.failure = "the content that the handler reads";
    if (fd != handler.fd)
        close(fd);
    errno = error;
}

static timer_t start_timer(void)
{
    struct sigaction action = {.sa_handler = direct_io_in_a_handler, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec every_millisecond = {{0, 1000000}, {0, 1000000}};
    timer_t timer;

    ck_assert_int_eq(sigaction(SIGRTMIN, &action, NULL), 0);
    ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    ck_assert_int_eq(timer_settime(timer, 0, &every_millisecond, NULL), 0);
    return timer;
}

/* Write, read back, open and close, for as long as the handler has not run often enough. */
static void be_interrupted(const char *path, unsigned runs)
{
    static const size_t lengths[] = {BLOCK, 64 * K, SECTOR, 1024 * K, 12 * K};
    int fd = direct_open(path, O_RDWR | O_CREAT);
    struct random random = {random_run_seed()};

    for (unsigned round = 0; handler.runs < runs && !handler.failure; round++) {
        size_t length = lengths[round % (sizeof(lengths) / sizeof(lengths[0]))];
        off_t at = (off_t)(random_below(&random, 16) * 64 * K);

        direct_write(fd, SEED, at, length);
        direct_check(fd, SEED, at, length);
        if (round % 16 == 0) {
            close(fd);
            fd = direct_open(path, O_RDWR);
        }
    }
    close(fd);
}

START_TEST(handler_does_direct_io_while_the_program_does)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    handler.memory = (unsigned char *)buffer_new(2 * BLOCK) + (counting() ? 1 : 0);
    for (size_t i = 0; i < count; i++) {
        handler.path = path_in(fs[i].path, "handler");
        handler.fd = direct_open(handler.path, O_RDWR | O_CREAT);
        handler.runs = 0;
        /* A lock that the interrupted code holds would never be had: the alarm's default action ends it. */
        alarm(WATCHDOG_SECONDS);
        timer_t timer = start_timer();

        be_interrupted(path_in(fs[i].path, "interrupted"), 1000);
        timer_delete(timer);
        signal(SIGRTMIN, SIG_IGN);
        alarm(0);
        ck_assert_msg(!handler.failure, "%s: %s", fs[i].name, handler.failure);
        ck_assert_msg(content_is(handler.path, HANDLER_SEED, HANDLER_BLOCKS * BLOCK), "%s: what the handler wrote",
                      fs[i].name);
        close(handler.fd);
    }
    ck_assert_uint_eq(counters().mismatches, 0);
    ck_assert_uint_eq(counters().pages_leaked, 0);
}
END_TEST

/* --- An allocator that fails -------------------------------------------------------------------------------------- */

static void (*forbid_allocation)(bool forbid);
static unsigned (*allocations_refused)(void);

/* Everything from opening to closing, by every call. */
static void do_direct_io(const char *path, unsigned char *memory)
{
    struct iovec vector[2] = {{memory, BLOCK}, {memory + BLOCK, 3 * BLOCK}};
    int fd = open(path, O_RDWR | O_DIRECT | O_CREAT | O_CLOEXEC, 0600);
    int copy = dup(fd);
    void *volatile nowhere = NULL;
    bool good = fd >= 0 && copy >= 0;

    good &= pwrite(fd, memory, 4 * BLOCK, 0) == 4 * BLOCK;
    good &= pwritev(fd, vector, 2, 4 * BLOCK) == 4 * BLOCK;
    good &= pwritev2(fd, vector, 2, 8 * BLOCK, RWF_DSYNC) == 4 * BLOCK;
    good &= write(copy, memory, BLOCK) == BLOCK;
    good &= writev(fd, vector, 2) == 4 * BLOCK;
    good &= pwrite(fd, memory, SECTOR, SECTOR) == SECTOR;
    good &= lseek(fd, 0, SEEK_SET) == 0;
    good &= read(fd, memory, BLOCK) == BLOCK;
    good &= readv(copy, vector, 2) == 4 * BLOCK;
    good &= pread(fd, memory, 4 * BLOCK, 0) == 4 * BLOCK;
    good &= preadv(fd, vector, 2, 0) == 4 * BLOCK;
    good &= preadv2(fd, vector, 2, 0, 0) == 4 * BLOCK;
    good &= ftruncate(fd, 5000) == 0;
    good &= pread(fd, memory, 2 * BLOCK, 0) == 5000;
    /* More than the pool holds at first. */
    good &= pwrite(fd, memory, 32 * 1024 * K, 0) == 32 * 1024 * K;
    good &= pread(fd, memory, 32 * 1024 * K, 0) == 32 * 1024 * K;
    good &= pwrite(fd, nowhere, BLOCK, 0) == -1 && errno == EFAULT;
    close(copy);
    close(fd);
    check_that(good, "direct I/O without an allocator");
}

/* Run with lib_failing_malloc.so in front. */
static int without_allocator_mode(int argc, char **argv)
{
    size_t length = 32 * 1024 * K + BLOCK;
    unsigned char *memory = (unsigned char *)buffer_new(length) + (counting() ? 1 : 0);

    check_that(argc == 1, "--without-allocator DIRECTORY");
    *(void **)&forbid_allocation = dlsym(RTLD_DEFAULT, "failing_malloc_forbid");
    *(void **)&allocations_refused = dlsym(RTLD_DEFAULT, "failing_malloc_refused");
    check_that(forbid_allocation && allocations_refused, "lib_failing_malloc.so is not loaded");
    const char *path = path_in(argv[0], "file");

    /* From the very first descriptor on: a handler may be the first to open one. */
    forbid_allocation(true);
    void *volatile proof = malloc(1);

    do_direct_io(path, memory);
    forbid_allocation(false);
    check_that(!proof && allocations_refused() == 1, "%u allocations, one of them the proof that they are seen",
               allocations_refused());
    return EXIT_SUCCESS;
}

START_TEST(direct_io_allocates_nothing)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    const char *shim = getenv("BOUNCEIO_SHIM");
    char self[4096], preload[3 * 4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    ck_assert(n > 0 && shim);
    if (getenv("BOUNCEIO_TEST_SANITIZER")) {
        test_skip("the sanitizers bring an allocator of their own");
        return;
    }
    self[n] = 0;
    *strrchr(self, '/') = 0;
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s/lib_failing_malloc.so:%s", self, counting() ? shim : "");
    for (size_t i = 0; i < count; i++) {
        struct child child = child_run_self(WITH_SHIM, (const char *const[]){preload, NULL},
                                            (const char *const[]){"--without-allocator", fs[i].path, NULL});

        ck_assert_msg(child_succeeded(&child), "%s", fs[i].name);
        child_free(&child);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--without-allocator", without_allocator_mode}, {NULL, NULL}};

    return support_main(
        argc, argv, "direct I/O in handlers and without an allocator", 280, modes,
        (const TTest *const[]){handler_does_direct_io_while_the_program_does, direct_io_allocates_nothing, NULL});
}
