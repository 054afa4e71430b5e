/*
 * What opening a large file costs: a sparse file of 1 TiB with checksums all over it, opened and read from for the first time by a fresh
 * process, with the shim and without. Cleanly closed, in another boot of the machine, and after a crash with writes in flight.
 *
 * The best of some runs counts, and the processor's time: whatever else goes on in the machine makes a run longer. The bounce pages, which a process pays for once and
 * for all its files, are kept to what a small request needs.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum {
    SEED = 17,
    REGIONS = 16384, /* 1 TiB */
    RUNS = 12,       /* of which the best counts */
    CRASHES = 3,
    THREADS = 8,              /* that write when the process is killed */
    REQUEST = 64 << 10,       /* bytes of theirs */
    LIMIT = 2000,             /* microseconds that the shim may add */
    LIMIT_FOR_REQUEST = 2000, /* for each request that was in flight: 16 blocks to read */
};

#define REGION_BYTES ((off_t)64 << 20)

static double microseconds(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* --- What the measured processes do ------------------------------------------------------------------------------- */

/* --spread FILE EVERY: one block in every EVERYth region of 1 TiB. */
static int spread(int argc, char **argv)
{
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    off_t every = atol(argv[argc - 1]);

    for (off_t region = 0; region < REGIONS; region += every)
        direct_write(fd, SEED, region * REGION_BYTES, BLOCK);
    direct_write(fd, SEED, REGIONS * REGION_BYTES - BLOCK, BLOCK);
    close(fd);
    return 0;
}

/* --open FILE: microseconds that the first read takes, on the clock and of the processor, and how many blocks were verified by it. */
static int open_and_read(int argc, char **argv)
{
    void *memory;
    (void)argc;
    if (posix_memalign(&memory, BLOCK, BLOCK) != 0)
        return 1;
    memset(memory, 0, BLOCK);
    double begin = microseconds(CLOCK_MONOTONIC), processor = microseconds(CLOCK_PROCESS_CPUTIME_ID);
    int fd = open(argv[0], O_RDWR | O_DIRECT);
    ssize_t length = pread(fd, memory, BLOCK, 0);
    double end = microseconds(CLOCK_MONOTONIC), processor_end = microseconds(CLOCK_PROCESS_CPUTIME_ID);
    check_that(length == BLOCK, "pread gave %zd", length);
    printf("%.0f %.0f %d\n", end - begin, processor_end - processor,
           shim_is_loaded() ? (int)counters().blocks_verified : 0);
    return 0;
}

static int target;

static void *write_for_ever(void *which)
{
    off_t place = (1 + (off_t)(uintptr_t)which * 100) * REGION_BYTES;

    for (uint64_t round = 0;; round++)
        direct_write(target, round, place, REQUEST);
    return NULL;
}

/* --die FILE: THREADS writers, and SIGKILL. */
static int die(int argc, char **argv)
{
    pthread_t thread;
    (void)argc;
    target = direct_open(argv[0], O_RDWR);
    for (uintptr_t i = 0; i < THREADS; i++)
        check_that(pthread_create(&thread, NULL, write_for_ever, (void *)i) == 0, "pthread_create");
    nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
    raise(SIGKILL);
    return 1;
}

static const struct support_mode modes[] = {
    {"--spread", spread},
    {"--open", open_and_read},
    {"--die", die},
    {NULL, NULL},
};

/* --- Measuring ---------------------------------------------------------------------------------------------------- */

/* A large file with a map, closed cleanly. @return false when this run has no file system for it. */
static bool make_large_file(const char *kind, char *path, size_t room)
{
    struct test_fs fs;

    if (!test_filesystem(kind, &fs))
        return false;
    snprintf(path, room, "%s", path_in(fs.path, "large"));
    char every[16];
    snprintf(every, sizeof every, "%zu", rounds(256, 1));
    struct child child = child_run_self(WITH_SHIM, NULL, (const char *[]){"--spread", path, every, NULL});
    ck_assert(child_succeeded(&child));
    child_free(&child);
    return true;
}

struct cost {
    double time, processor; /* microseconds */
};

static struct cost measure_once(enum preload preload, const char *path, const char *boot)
{
    const char *environment[] = {"BOUNCEIO_POOL=2M", boot, NULL};
    struct cost cost = {0};
    int verified = 0;
    struct child child = child_run_self(preload, environment, (const char *[]){"--open", path, NULL});
    ck_assert(child_succeeded(&child));
    ck_assert_int_eq(sscanf(child.output, "%lf %lf %d", &cost.time, &cost.processor, &verified), 3);
    if (preload == WITH_SHIM)
        ck_assert_int_eq(verified, 1);
    child_free(&child);
    return cost;
}

static struct cost smaller(struct cost a, struct cost b)
{
    return (struct cost){.time = a.time < b.time ? a.time : b.time,
                         .processor = a.processor < b.processor ? a.processor : b.processor};
}

enum boots { SAME_BOOT, ANOTHER_BOOT_EACH };

/* What the shim adds to the first open and read of a process. */
static struct cost added_cost(const char *path, enum boots boots)
{
    static unsigned number = 0x1000;
    struct cost with = {1e9, 1e9}, without = {1e9, 1e9};

    for (int run = 0; run < RUNS; run++) {
        char boot[64];
        snprintf(boot, sizeof boot, "BOUNCEIO_TEST_BOOT_ID=%032x", number++);
        without = smaller(without, measure_once(WITHOUT_SHIM, path, NULL));
        with = smaller(with, measure_once(WITH_SHIM, path, boots == ANOTHER_BOOT_EACH ? boot : NULL));
    }
    return (struct cost){with.time - without.time, with.processor - without.processor};
}

/* --- The tests ---------------------------------------------------------------------------------------------------- */

/* Is the time that it takes the shim's? */
static bool is_measured(void)
{
    return !test_skipped_under("tsan", "most of the time is ThreadSanitizer's own");
}

static void assert_cheap_to_open(const char *kind, enum boots boots)
{
    char path[4096];

    if (!make_large_file(kind, path, sizeof path))
        return;
    struct cost added = added_cost(path, boots);
    printf("%s: a file of 1 TiB%s: %.0f us more, %.0f of the processor\n", kind,
           boots == SAME_BOOT ? "" : " in another boot", added.time, added.processor);
    if (is_measured())
        ck_assert_msg(added.processor <= LIMIT, "%s: opening adds %.0f us", kind, added.processor);
}

START_TEST(opening_a_large_sparse_file_that_was_closed_cleanly_costs_at_most_2_ms)
{
    assert_cheap_to_open("xfs", SAME_BOOT);
    assert_cheap_to_open("btrfs-nocow", SAME_BOOT);
    assert_cheap_to_open("ext4", SAME_BOOT);
}
END_TEST

START_TEST(opening_it_in_another_boot_costs_at_most_2_ms)
{
    assert_cheap_to_open("xfs", ANOTHER_BOOT_EACH);
}
END_TEST

START_TEST(opening_it_after_a_crash_costs_as_much_as_there_was_in_flight)
{
    char path[4096];

    if (!make_large_file("xfs", path, sizeof path))
        return;
    struct cost after_crash = {1e9, 1e9};
    for (int attempt = 0; attempt < CRASHES; attempt++) {
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *[]){"--die", path, NULL});
        ck_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGKILL);
        child_free(&child);
        after_crash = smaller(after_crash, measure_once(WITH_SHIM, path, NULL));
    }
    printf("xfs: a file of 1 TiB after a crash: %.0f us, %.0f of the processor\n", after_crash.time,
           after_crash.processor);
    if (is_measured())
        ck_assert_msg(after_crash.processor <= LIMIT + THREADS * LIMIT_FOR_REQUEST, "opening takes %.0f us",
                      after_crash.processor);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        opening_a_large_sparse_file_that_was_closed_cleanly_costs_at_most_2_ms,
        opening_it_in_another_boot_costs_at_most_2_ms,
        opening_it_after_a_crash_costs_as_much_as_there_was_in_flight,
        NULL,
    };
    return support_main(argc, argv, "open_cost", 120, modes, tests);
}
