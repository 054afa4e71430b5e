/*
 * Handlers that leave a program's wait for completions, by siglongjmp or by ending the program, just when the shim finishes a request: each
 * completion is told, once, and nothing that the requests held is lost.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum {
    SEED = 29,
    DEPTH = 16,
    HALF = 4 << 20,     /* bytes of the file that are read; as many behind them are written */
    LONGEST = 64 << 10, /* bytes of a request */
    LARGE = 2 << 20,    /* a quarter of all the bounce pages that there are */
};

/* Seconds: the shim gives a ring up that does not come to rest after 10. */
static const double stalled = 5;

static const char *const small_pool[] = {"BOUNCEIO_POOL=8M", "BOUNCEIO_POOL_MAX=8M", NULL};

/* --- Requests ----------------------------------------------------------------------------------------------------- */

struct asked {
    bool is_write;
    bool seen;
    uint64_t offset;
    size_t length;
    unsigned char *memory;
};

static struct io_uring ring;
static struct asked asked[DEPTH];
static int target;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void prepare(struct random *random)
{
    target = direct_open("file", O_RDWR | O_CREAT);
    for (off_t offset = 0; offset < 2 * HALF; offset += DIRECT_MAX / 4)
        direct_write(target, SEED, offset, DIRECT_MAX / 4);
    for (int i = 0; i < DEPTH; i++) {
        void *memory;
        check_that(posix_memalign(&memory, BLOCK, LONGEST + BLOCK) == 0, "memory");
        asked[i].memory = memory;
    }
    random->state = random_run_seed();
    check_that(io_uring_queue_init(DEPTH, &ring, 0) == 0, "io_uring_queue_init");
}

/* Half of them are reads of what stays as it is, half of those in place. */
static void submit(struct random *random)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        struct asked *request = &asked[i];
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
        const size_t blocks = 1 + random_below(random, random_chance(random, 50) ? 1 : LONGEST / BLOCK);
        const size_t odd = random_chance(random, 50) && counting() ? 1 : 0;
        request->is_write = random_chance(random, 50);
        request->seen = false;
        request->length = blocks * BLOCK;
        request->offset = random_below(random, (HALF - LONGEST) / BLOCK) * BLOCK + (request->is_write ? HALF : 0);
        if (request->is_write) {
            pattern_fill(request->memory + odd, request->length, SEED, request->offset);
            io_uring_prep_write(sqe, target, request->memory + odd, (unsigned)request->length, request->offset);
        } else {
            memset(request->memory, 0, LONGEST);
            io_uring_prep_read(sqe, target, request->memory, (unsigned)request->length, request->offset);
        }
        io_uring_sqe_set_data64(sqe, i);
    }
    check_that(io_uring_submit(&ring) == DEPTH, "io_uring_submit");
}

/* @return how many there were. */
static unsigned take(void)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring, head, cqe)
    {
        const uint64_t number = cqe->user_data;
        check_that(number < DEPTH && !asked[number].seen, "completion %llx is told twice, or nobody's",
                   (unsigned long long)number);
        struct asked *request = &asked[number];
        request->seen = true;
        /* Signals may also keep the kernel from making a worker: io_wq_create_worker gives up after three, and what was queued is cancelled. */
        check_that(cqe->res == (int)request->length || cqe->res == -ECANCELED ||
                       (!request->is_write && cqe->res == -EINTR),
                   "%s told %d", request->is_write ? "a write is" : "a read is", cqe->res);
        if (!request->is_write && cqe->res > 0)
            check_that(pattern_check(request->memory, request->length, SEED, request->offset) == request->length,
                       "other bytes are read");
        count++;
    }
    io_uring_cq_advance(&ring, count);
    return count;
}

/* --- Jumps -------------------------------------------------------------------------------------------------------- */

static sigjmp_buf back;
static volatile sig_atomic_t armed;
static _Atomic size_t jumps;
static _Atomic bool done;

static void jump(int number)
{
    (void)number;
    if (!armed)
        return;
    armed = 0;
    atomic_fetch_add(&jumps, 1);
    siglongjmp(back, 1);
}

static void *interrupt(void *thread)
{
    struct random random = {.state = random_run_seed()};
    while (!atomic_load(&done)) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        nanosleep(&(struct timespec){.tv_nsec = (long)random_below(&random, 30000)}, NULL);
    }
    return NULL;
}

static void wait_and_jump(void)
{
    volatile unsigned seen = 0;
    while (seen < DEPTH) {
        struct io_uring_cqe *cqe;
        if (sigsetjmp(back, 1) == 0) {
            armed = 1;
            io_uring_wait_cqe(&ring, &cqe);
            armed = 0;
        }
        seen += take();
    }
}

static void everything_is_as_before(void)
{
    const uint64_t overflows = counters().pool_overflows;
    direct_write(target, SEED, 0, LARGE);
    check_that(counters().pool_overflows == overflows, "pages are missing from the pool");
    for (off_t offset = 0; offset < 2 * HALF; offset += DIRECT_MAX / 4)
        direct_check(target, SEED, offset, DIRECT_MAX / 4);
    check_that(counters().mismatches == 0, "mismatches");
}

/* --jump */
static int jump_out(int argc, char **argv)
{
    struct random random;
    pthread_t self = pthread_self(), interrupter;
    (void)argc;
    check_that(chdir(argv[0]) == 0, "chdir");
    prepare(&random);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = jump}, NULL);
    check_that(pthread_create(&interrupter, NULL, interrupt, &self) == 0, "pthread_create");
    while (atomic_load(&jumps) < rounds(3000, 50000)) {
        submit(&random);
        wait_and_jump();
    }
    atomic_store(&done, true);
    pthread_join(interrupter, NULL);
    everything_is_as_before();
    const double begin = now();
    io_uring_queue_exit(&ring);
    check_that(now() - begin < stalled, "the ring waits for requests that are over");
    return 0;
}

/* --- Ends --------------------------------------------------------------------------------------------------------- */

static void leave(int number)
{
    (void)number;
    exit(0);
}

static _Noreturn void work_until_ended(long microseconds)
{
    struct random random;
    const struct itimerval timer = {.it_value = {.tv_usec = microseconds}};
    prepare(&random);
    random.state += (uint64_t)microseconds;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = leave}, NULL);
    for (;;) {
        sigset_t alarm;
        sigemptyset(&alarm);
        sigaddset(&alarm, SIGALRM);
        /* What is being submitted may have to be waited for: see the README's limits. */
        sigprocmask(SIG_BLOCK, &alarm, NULL);
        submit(&random);
        setitimer(ITIMER_REAL, &timer, NULL);
        sigprocmask(SIG_UNBLOCK, &alarm, NULL);
        for (unsigned seen = 0; seen < DEPTH; seen += take()) {
            struct io_uring_cqe *cqe;
            io_uring_wait_cqe(&ring, &cqe);
        }
    }
}

/* --exit */
static int exit_from_waits(int argc, char **argv)
{
    struct random random = {.state = random_run_seed()};
    (void)argc;
    check_that(chdir(argv[0]) == 0, "chdir");
    for (size_t i = 0; i < rounds(60, 600); i++) {
        const double begin = now();
        const pid_t child = fork();
        int status;
        if (child == 0)
            work_until_ended(1 + (long)random_below(&random, 400));
        check_that(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
                   "the program ended with %x", status);
        check_that(now() - begin < stalled, "the program waits for requests that are over");
    }
    return 0;
}

/* --- The tests ---------------------------------------------------------------------------------------------------- */

static void run(const char *mode)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(fs[i].name, "xfs") != 0 && strcmp(fs[i].name, "tmpfs") != 0 && count > 1)
            continue;
        struct child child = child_run_self(WITH_SHIM, small_pool, (const char *[]){mode, fs[i].path, NULL});
        ck_assert_msg(child_succeeded(&child), "%s on %s", mode, fs[i].name);
        child_free(&child);
    }
}

START_TEST(jumping_out_of_a_wait_loses_no_completion)
{
    if (test_skipped_under("tsan",
                           "ThreadSanitizer has handlers run inside atomic operations, which no signal interrupts"))
        return;
    run("--jump");
}
END_TEST

START_TEST(programs_end_from_handlers_in_a_wait)
{
    run("--exit");
}
END_TEST

static const struct support_mode modes[] = {
    {"--jump", jump_out},
    {"--exit", exit_from_waits},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        jumping_out_of_a_wait_loses_no_completion,
        programs_end_from_handlers_in_a_wait,
        NULL,
    };
    return support_main(argc, argv, "uring_jumps", 60, modes, tests);
}
