/*
 * Handlers that leave a direct request by siglongjmp, at any moment: what the request held is given back, its blocks are as unknown as a
 * dead process's, and everything works as before once they have been rewritten.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "checksum/format.h"
#include "support/direct.h"
#include "support/support.h"

enum {
    SEED = 23,
    FILE_BYTES = 8 << 20,
    BUFFER = 1 << 20,
    WORKERS = 2,
    LARGE = 2 << 20 /* a quarter of all the bounce pages that there are */
};

static const char *const small_pool[] = {"BOUNCEIO_POOL=8M", "BOUNCEIO_POOL_MAX=8M", NULL};

/* --- Workers that are interrupted --------------------------------------------------------------------------------- */

static _Thread_local sigjmp_buf back;
static _Thread_local volatile sig_atomic_t armed;
static _Atomic size_t jumps;
static _Atomic bool done;
static bool leaves_thread;
static int target;

static void jump(int number)
{
    (void)number;
    if (!armed)
        return;
    armed = 0;
    atomic_fetch_add(&jumps, 1);
    if (leaves_thread)
        pthread_exit(NULL);
    siglongjmp(back, 1);
}

static void handle_with(int flags)
{
    struct sigaction action = {.sa_handler = jump, .sa_flags = flags};
    sigaction(SIGUSR1, &action, NULL);
}

/* A buffer whose end is inaccessible, and which has to be faulted in anew each time. */
static unsigned char *slow_buffer(void)
{
    unsigned char *memory = mmap(NULL, BUFFER + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check_that(memory != MAP_FAILED, "mmap");
    check_that(mprotect(memory + BUFFER, BLOCK, PROT_NONE) == 0, "mprotect");
    return memory;
}

static void request(unsigned char *memory, struct random *random)
{
    off_t sector = (off_t)random_below(random, FILE_BYTES / SECTOR - BUFFER / SECTOR);
    size_t length = (1 + random_below(random, random_chance(random, 50) ? 16 : BUFFER / SECTOR)) * SECTOR;
    unsigned char *from = memory + (random_chance(random, 20) ? BUFFER - length / 2 : BUFFER - length);
    ssize_t result;

    if (random_chance(random, 50))
        sector -= sector % (BLOCK / SECTOR);
    if (random_chance(random, 30))
        madvise(memory, BUFFER, MADV_DONTNEED);
    armed = 1;
    switch (random_below(random, 4)) {
    case 0:
        result = pread(target, from, length, sector * SECTOR);
        break;
    case 1:
        result = pwritev(target, (struct iovec[]){{from, length / 2}, {from, length / 2}}, 2, sector * SECTOR);
        break;
    case 2:
        lseek(target, sector * SECTOR, SEEK_SET);
        result = write(target, from, length);
        break;
    default:
        result = pwrite(target, from, length, sector * SECTOR);
        break;
    }
    armed = 0;
    check_that(result >= 0 || errno == EFAULT || errno == EINVAL, "a request gave %zd", result);
}

static void *work(void *which)
{
    struct random random = {.state = random_run_seed() + (uintptr_t)which};
    unsigned char *memory = slow_buffer();
    sigaltstack(&(stack_t){.ss_sp = slow_buffer(), .ss_size = BUFFER}, NULL);

    while (!atomic_load(&done)) {
        if (sigsetjmp(back, 1) == 0)
            request(memory, &random);
    }
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    return NULL;
}

static void pause_for(long microseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
}

/* Interrupt the workers at random moments until they have jumped that often. */
static void interrupt(const pthread_t *workers, size_t times)
{
    struct random random = {.state = random_run_seed()};

    for (size_t next = 0; atomic_load(&jumps) < times; next++) {
        pthread_kill(workers[next % WORKERS], SIGUSR1);
        pause_for((long)random_below(&random, 300));
    }
    atomic_store(&done, true);
}

/* --- What is left of it ------------------------------------------------------------------------------------------- */

static struct session_file session;

/* The file of this process's session. */
static void read_session(void)
{
    char path[4096];
    for (int slot = 0; slot < STORE_SLOTS; slot++) {
        snprintf(path, sizeof path, "%s/sessions/%d", getenv("BOUNCEIO_STORE"), slot);
        if (access(path, F_OK) != 0)
            break;
        check_that(read_behind(path, &session, sizeof session, 0) == sizeof session, "%s", path);
        if (session.pid == (uint64_t)getpid())
            return;
    }
    check_failed(__FILE__, __LINE__, "no session of this process");
}

static void nothing_is_in_flight(void)
{
    read_session();
    check_that(session.flights_beyond == 0, "%llu requests beyond the table",
               (unsigned long long)session.flights_beyond);
    for (unsigned i = 0; i < SESSION_FLIGHTS; i++)
        check_that((session.flights[i].state & 0xff) <= FLIGHT_FILLING, "entry %u is in flight: %llx", i,
                   (unsigned long long)session.flights[i].state);
}

/* A large request finds its pages in one piece, which one page in a hundred jumps would not leave. */
static void pages_are_given_back(void)
{
    uint64_t overflows = counters().pool_overflows;
    direct_write(target, SEED, 0, LARGE);
    check_that(counters().pool_overflows == overflows, "pages are missing from the pool");
}

static void everything_works_again(void)
{
    for (off_t offset = 0; offset < FILE_BYTES; offset += DIRECT_MAX / 4)
        direct_write(target, SEED, offset, DIRECT_MAX / 4);
    struct bounceio_stats before = counters();
    for (off_t offset = 0; offset < FILE_BYTES; offset += DIRECT_MAX / 4)
        direct_check(target, SEED, offset, DIRECT_MAX / 4);
    struct bounceio_stats after = counters();
    check_that(after.blocks_verified - before.blocks_verified == FILE_BYTES / BLOCK, "only %llu blocks are verified",
               (unsigned long long)(after.blocks_verified - before.blocks_verified));
    check_that(after.mismatches == 0, "%llu mismatches", (unsigned long long)after.mismatches);
}

static void open_target(const char *path)
{
    target = direct_open(path, O_RDWR | O_CREAT);
    for (off_t offset = 0; offset < FILE_BYTES; offset += DIRECT_MAX / 4)
        direct_write(target, SEED, offset, DIRECT_MAX / 4);
}

/* --jump FILE FLAGS */
static int jump_out(int argc, char **argv)
{
    pthread_t workers[WORKERS];
    sigset_t signals;

    open_target(argv[0]);
    handle_with(atoi(argv[argc - 1]));
    for (uintptr_t i = 0; i < WORKERS; i++)
        check_that(pthread_create(&workers[i], NULL, work, (void *)i) == 0, "pthread_create");
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    interrupt(workers, rounds(1000, 20000));
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    nothing_is_in_flight();
    pages_are_given_back();
    everything_works_again();
    return 0;
}

static _Noreturn void *work_until_left(void *which)
{
    struct random random = {.state = random_run_seed() + (uintptr_t)which};
    unsigned char *memory = slow_buffer();
    for (;;)
        request(memory, &random);
}

/* --exit FILE: handlers that end their thread. */
static int exit_from_requests(int argc, char **argv)
{
    (void)argc;
    open_target(argv[0]);
    leaves_thread = true;
    handle_with(0);
    for (size_t i = 0; i < rounds(200, 5000); i++) {
        pthread_t worker;
        size_t before = atomic_load(&jumps);
        check_that(pthread_create(&worker, NULL, work_until_left, (void *)i) == 0, "pthread_create");
        while (atomic_load(&jumps) == before) {
            pause_for(200);
            pthread_kill(worker, SIGUSR1);
        }
        pthread_join(worker, NULL);
    }
    nothing_is_in_flight();
    pages_are_given_back();
    everything_works_again();
    return 0;
}

/* --- The tests ---------------------------------------------------------------------------------------------------- */

static void run(const char *mode, const char *flags)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    if (test_skipped_under("tsan",
                           "ThreadSanitizer has handlers run inside atomic operations, which no signal interrupts"))
        return;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fs[i].name, "xfs") != 0 && strcmp(fs[i].name, "ext4") != 0 && count > 1)
            continue;
        struct child child =
            child_run_self(WITH_SHIM, small_pool, (const char *[]){mode, path_in(fs[i].path, "file"), flags, NULL});
        ck_assert_msg(child_succeeded(&child), "%s on %s", mode, fs[i].name);
        child_free(&child);
    }
}

START_TEST(jumping_out_of_requests_leaves_nothing_behind)
{
    run("--jump", "0");
}
END_TEST

START_TEST(jumping_from_an_alternate_stack_leaves_nothing_behind)
{
    char flags[16];
    snprintf(flags, sizeof flags, "%d", SA_ONSTACK);
    run("--jump", flags);
}
END_TEST

START_TEST(ending_the_thread_in_a_request_leaves_nothing_behind)
{
    run("--exit", NULL);
}
END_TEST

static const struct support_mode modes[] = {
    {"--jump", jump_out},
    {"--exit", exit_from_requests},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        jumping_out_of_requests_leaves_nothing_behind,
        jumping_from_an_alternate_stack_leaves_nothing_behind,
        ending_the_thread_in_a_request_leaves_nothing_behind,
        NULL,
    };
    return support_main(argc, argv, "jumps", 60, modes, tests);
}
