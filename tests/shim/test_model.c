/*
 * A randomized run against a plain in-memory model: two processes of three threads do whatever programs do to files,
 * directly and behind a direct descriptor's back, and every byte read must be the model's (support/model.h).
 *
 * BOUNCEIO_TEST_OPS: operations per file system (100,000). BOUNCEIO_TEST_SEED repeats a run: each worker's sequence is its own.
 */
#include "support/model.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { PROCESSES = 2, THREADS = WORKERS / PROCESSES };

struct run {
    const char *directory;
    uint64_t seed, count;
};

/* One process: THREADS workers, and what they left of the shared file. */
static void run_process(unsigned process, void *argument)
{
    const struct run *run = argument;
    const char *shared = path_in(run->directory, "shared");
    struct worker *workers[THREADS];
    pthread_t threads[THREADS];
    uint8_t *content = malloc(SHARED_SIZE);
    int fd = open(shared, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0 || !content)
        support_die("cannot open %s", shared);
    for (unsigned i = 0; i < THREADS; i++) {
        /* Neighbours in the shared file belong to different processes. */
        workers[i] = worker_new(run->directory, i * PROCESSES + process, run->seed, run->count / WORKERS, fd);
        if (pthread_create(&threads[i], NULL, worker_run, workers[i]) != 0)
            support_die("cannot make a thread");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    read_behind(shared, content, SHARED_SIZE, 0);
    for (unsigned i = 0; i < THREADS; i++)
        worker_check_shared(workers[i], content);
    close(fd);
}

/* --run DIRECTORY SEED COUNT */
static int run_mode(int argc, char **argv)
{
    if (argc != 3)
        return EXIT_FAILURE;
    struct run run = {argv[0], strtoull(argv[1], NULL, 0), strtoull(argv[2], NULL, 0)};

    make_file_behind(path_in(run.directory, "shared"), run.seed, SHARED_SIZE);
    return in_processes(PROCESSES, run_process, &run) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- The tests ---------------------------------------------------------------------------------------------------- */

static uint64_t operations_wanted(void)
{
    const char *value = getenv("BOUNCEIO_TEST_OPS");

    return value ? strtoull(value, NULL, 0) : 100000;
}

static struct child run_on(const struct test_fs *fs, enum preload preload, const char *report, uint64_t count)
{
    char seed[32], number[32], statistics[4200];

    snprintf(seed, sizeof(seed), "%" PRIu64, random_run_seed());
    snprintf(number, sizeof(number), "%" PRIu64, count);
    snprintf(statistics, sizeof(statistics), "BOUNCEIO_STATS=%s", report);
    const char *const environment[] = {statistics, NULL};
    const char *const arguments[] = {"--run", fs->path, seed, number, NULL};

    return child_run_self(preload, environment, arguments);
}

/* Without the shim: a model that the kernel disagrees with would prove nothing. */
START_TEST(the_kernel_agrees_with_the_model)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct child child = run_on(&fs[i], WITHOUT_SHIM, "stderr", operations_wanted() / 20);

        ck_assert_msg(child_succeeded(&child), "%s: seed %" PRIu64, fs[i].name, random_run_seed());
        child_free(&child);
    }
}
END_TEST

START_TEST(random_operations_leave_what_the_model_says)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *report = path_in(fs[0].path, "report.json");
        struct child child = run_on(&fs[i], WITH_SHIM, report, operations_wanted());

        ck_assert_msg(child_succeeded(&child), "%s: seed %" PRIu64, fs[i].name, random_run_seed());
        printf("%s: %" PRIu64 " operations in %.1f s; blocks verified %" PRId64 ", unverified %" PRId64 "\n",
               fs[i].name, operations_wanted(), child.seconds, stats_read(report, "blocks_verified"),
               stats_read(report, "blocks_unverified"));
        ck_assert_int_eq(stats_read(report, "mismatches"), 0);
        ck_assert_int_eq(stats_read(report, "changed_outside"), 0);
        ck_assert_int_gt(stats_read(report, "blocks_verified"), 0);
        child_free(&child);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--run", run_mode}, {NULL, NULL}};

    setvbuf(stdout, NULL, _IOLBF, 0);
    return support_main(
        argc, argv, "a randomized run against a model", 280 + (double)operations_wanted() / 100, modes,
        (const TTest *const[]){the_kernel_agrees_with_the_model, random_operations_leave_what_the_model_says, NULL});
}
