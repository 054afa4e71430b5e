/*
 * A randomized run of blocking calls, libaio and io_uring at once against a plain in-memory model: two processes of three threads, each
 * with a front door of its own and many requests in flight.
 *
 * Each worker has a file of its own, of which it knows every byte, and part of a file that all share: cells of seven sectors, so that nearly
 * every block belongs to two workers. Beside the cells lie blocks that all write over each other, and a tail that is cut off, extended and
 * written through the page cache: of those only the map is checked. Requests in flight of one worker do not overlap.
 *
 * BOUNCEIO_TEST_OPS: operations over all file systems. BOUNCEIO_TEST_SEED repeats a run.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/async.h"
#include "support/command.h"
#include "support/direct.h"

enum {
    PROCESSES = 2,
    THREADS = 3,
    WORKERS = PROCESSES * THREADS,
    DEPTH = 16,
    REQUEST_MAX = 32 << 10,
    OWN_MAX = 512 << 10,
    CELL = 7 * SECTOR,
    CELLS = WORKERS * 32 * CELL,
    CROWD = (CELLS + BLOCK - 1) / BLOCK * BLOCK, /* where all write */
    CROWD_LENGTH = 64 * BLOCK,
    TAIL = CROWD + CROWD_LENGTH,
    TAIL_LENGTH = 32 * BLOCK
};

enum whose { OWN, SHARED };

struct job {
    bool busy;
    bool is_write;
    bool counts; /* its bytes are the model's */
    enum whose whose;
    uint64_t offset;
    size_t length;
    uint8_t *memory;
};

struct worker {
    struct random random;
    unsigned id;
    const struct async_door *door; /* NULL: blocking calls */
    struct async async;
    uint64_t operations;
    char own_path[4200];
    int own, own_plain, shared, shared_plain;
    uint64_t size; /* of the own file */
    uint8_t *model, *shared_model;
    uint8_t *memory; /* DEPTH times REQUEST_MAX and a page */
    struct job jobs[DEPTH];
    unsigned in_flight;
};

#define worker_that(w, condition, format, ...)                                                                         \
    check_that(condition, "worker %u by %s, seed %" PRIu64 ": " format, (w)->id,                                       \
               (w)->door ? (w)->door->name : "blocking calls", random_run_seed() __VA_OPT__(, ) __VA_ARGS__)

/* --- Requests and their ends ------------------------------------------------------------------------------------------ */

static uint8_t *model_of(const struct worker *w, const struct job *job)
{
    return (job->whose == OWN ? w->model : w->shared_model) + job->offset;
}

static void finish(struct worker *w, struct job *job, int64_t result)
{
    const char *what = job->is_write ? "write" : "read";

    worker_that(w, job->busy, "a result of no request");
    worker_that(w, result == (int64_t)job->length, "%s of %zu at %" PRIu64 " of %s gave %" PRId64, what, job->length,
                job->offset, job->whose == OWN ? "its own file" : "the shared file", result);
    job->busy = false;
    if (!job->counts)
        return;
    uint8_t *model = model_of(w, job);

    if (job->is_write) {
        memcpy(model, job->memory, job->length);
        if (job->whose == OWN && job->offset + job->length > w->size)
            w->size = job->offset + job->length;
        return;
    }
    for (size_t i = 0; i < job->length; i++)
        worker_that(w, job->memory[i] == model[i], "byte %" PRIu64 " of %s is %02x, not %02x", job->offset + i,
                    job->whose == OWN ? "its own file" : "the shared file", job->memory[i], model[i]);
}

/* Until no more than `most` are in flight. */
static void reap(struct worker *w, unsigned most)
{
    struct async_result results[DEPTH];

    while (w->in_flight > most) {
        int n = async_reap(&w->async, results, 1, DEPTH, ASYNC_PATIENCE);

        worker_that(w, n > 0, "%u in flight, and %d reaped", w->in_flight, n);
        for (int i = 0; i < n; i++)
            finish(w, &w->jobs[results[i].tag], results[i].result);
        w->in_flight -= (unsigned)n;
    }
}

static bool overlaps(const struct job *a, const struct job *b)
{
    return a->whose == b->whose && a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static void make_way(struct worker *w, const struct job *wanted)
{
    for (unsigned i = 0; i < DEPTH; i++)
        while (w->jobs[i].busy && overlaps(&w->jobs[i], wanted))
            reap(w, w->in_flight - 1);
    while (w->in_flight == DEPTH)
        reap(w, DEPTH / 2);
}

static void start(struct worker *w, struct job wanted)
{
    unsigned i = 0;

    make_way(w, &wanted);
    while (w->jobs[i].busy)
        i++;
    struct job *job = &w->jobs[i];
    bool odd = counting() && random_chance(&w->random, 30);
    int fd = wanted.whose == OWN ? w->own : w->shared;

    *job = wanted;
    job->busy = true;
    job->memory = w->memory + (size_t)i * (REQUEST_MAX + BLOCK) + (odd ? random_below(&w->random, BLOCK) : 0);
    if (job->is_write)
        pattern_fill(job->memory, job->length, random_next(&w->random), 0);
    else
        memset(job->memory, 0xEE, job->length);
    if (!w->door) {
        ssize_t n = job->is_write ? pwrite(fd, job->memory, job->length, (off_t)job->offset)
                                  : pread(fd, job->memory, job->length, (off_t)job->offset);

        finish(w, job, n < 0 ? -errno : n);
        return;
    }
    struct async_request request = async_write(fd, job->memory, job->length, job->offset, i);

    request.is_write = job->is_write;
    int n = async_submit(&w->async, &request, 1);

    worker_that(w, n == 1, "submitting gave %d", n);
    w->in_flight++;
}

/* --- What workers do ---------------------------------------------------------------------------------------------------- */

static size_t some_sectors(struct worker *w, size_t most)
{
    if (random_chance(&w->random, 50) && most >= BLOCK)
        return BLOCK * (1 + random_below(&w->random, most / BLOCK));
    return SECTOR * (1 + random_below(&w->random, most / SECTOR));
}

static uint64_t some_place(struct worker *w, uint64_t room)
{
    uint64_t unit = random_chance(&w->random, 50) ? BLOCK : SECTOR;

    return unit * random_below(&w->random, room / unit + 1);
}

static void own_request(struct worker *w)
{
    size_t length = some_sectors(w, random_chance(&w->random, 10) ? REQUEST_MAX : 4 * BLOCK);
    struct job job = {.is_write = random_chance(&w->random, 50),
                      .counts = true,
                      .whose = OWN,
                      .offset = some_place(w, OWN_MAX - length),
                      .length = length};

    /* Where the file ends is known when nothing is in flight. */
    if (job.offset + length > w->size)
        reap(w, 0);
    if (!job.is_write && job.offset + length > w->size)
        job.is_write = true;
    start(w, job);
}

static void cell_request(struct worker *w)
{
    size_t first = random_below(&w->random, 7), sectors = 1 + random_below(&w->random, 7 - first);
    uint64_t cell = random_below(&w->random, CELLS / CELL / WORKERS) * WORKERS + w->id;

    start(w, (struct job){.is_write = random_chance(&w->random, 50),
                          .counts = true,
                          .whose = SHARED,
                          .offset = cell * CELL + first * SECTOR,
                          .length = sectors * SECTOR});
}

static void crowd_request(struct worker *w)
{
    size_t length = some_sectors(w, 4 * BLOCK);

    start(w, (struct job){.is_write = random_chance(&w->random, 70),
                          .whose = SHARED,
                          .offset = CROWD + some_place(w, CROWD_LENGTH - length),
                          .length = length});
}

/* The tail comes and goes under the others' hands. */
static void tail_change(struct worker *w)
{
    size_t length = some_sectors(w, 4 * BLOCK);
    uint64_t place = TAIL + some_place(w, TAIL_LENGTH - length);
    uint8_t bytes[1000];

    switch (random_below(&w->random, 3)) {
    case 0:
        worker_that(w, ftruncate(w->shared, (off_t)(TAIL + random_below(&w->random, TAIL_LENGTH))) == 0, "ftruncate");
        break;
    case 1:
        pattern_fill(bytes, sizeof(bytes), w->id, place);
        worker_that(w, pwrite(w->shared_plain, bytes, sizeof(bytes), (off_t)place) == sizeof(bytes), "buffered write");
        break;
    default:
        start(w, (struct job){.is_write = true, .whose = SHARED, .offset = place, .length = length});
    }
}

static void own_truncate(struct worker *w)
{
    uint64_t size = random_below(&w->random, OWN_MAX);

    reap(w, 0);
    worker_that(w, ftruncate(w->own, (off_t)size) == 0, "ftruncate");
    if (size < w->size)
        memset(w->model + size, 0, w->size - size);
    w->size = size;
}

static void own_buffered(struct worker *w)
{
    uint8_t bytes[3000];
    size_t length = 1 + random_below(&w->random, sizeof(bytes));
    struct job page = {.whose = OWN};

    if (w->size < length)
        return;
    uint64_t offset = random_below(&w->random, w->size - length + 1);

    /* The page cache works in pages. */
    page.offset = offset / BLOCK * BLOCK;
    page.length = (offset + length + BLOCK - 1) / BLOCK * BLOCK - page.offset;
    make_way(w, &page);
    if (random_chance(&w->random, 30)) {
        worker_that(w, pread(w->own_plain, bytes, length, (off_t)offset) == (ssize_t)length, "buffered read");
        worker_that(w, memcmp(bytes, w->model + offset, length) == 0, "buffered read at %" PRIu64, offset);
        return;
    }
    pattern_fill(bytes, length, random_next(&w->random), 0);
    worker_that(w, pwrite(w->own_plain, bytes, length, (off_t)offset) == (ssize_t)length, "buffered write");
    memcpy(w->model + offset, bytes, length);
}

static void operate(struct worker *w)
{
    uint64_t dice = random_below(&w->random, 1000);

    if (dice < 500)
        own_request(w);
    else if (dice < 780)
        cell_request(w);
    else if (dice < 950)
        crowd_request(w);
    else if (dice < 970)
        tail_change(w);
    else if (dice < 990)
        own_buffered(w);
    else if (dice < 995)
        own_truncate(w);
    else
        reap(w, (unsigned)random_below(&w->random, DEPTH));
}

/* --- Workers -------------------------------------------------------------------------------------------------------------- */

static void worker_open(struct worker *w, const char *directory)
{
    const char *shared = path_in(directory, "shared");

    snprintf(w->own_path, sizeof(w->own_path), "%s/own-%u", directory, w->id);
    w->own = direct_open(w->own_path, O_RDWR | O_CREAT | O_TRUNC);
    w->own_plain = open(w->own_path, O_RDWR | O_CLOEXEC);
    w->shared = direct_open(shared, O_RDWR);
    w->shared_plain = open(shared, O_RDWR | O_CLOEXEC);
    w->model = calloc(1, OWN_MAX);
    w->shared_model = malloc(CELLS);
    w->memory = buffer_new((size_t)DEPTH * (REQUEST_MAX + BLOCK));
    check_that(w->own_plain >= 0 && w->shared_plain >= 0 && w->model && w->shared_model, "a worker's beginning");
    pattern_fill(w->shared_model, CELLS, 1, 0);
    if (!w->door)
        return;
    check_that(async_open(&w->async, w->door, DEPTH), "no %s", w->door->name);
    async_use(&w->async, w->own, w->memory, (size_t)DEPTH * (REQUEST_MAX + BLOCK));
}

static void worker_close(struct worker *w)
{
    reap(w, 0);
    if (w->door)
        async_close(&w->async);
    close(w->own);
    close(w->own_plain);
    close(w->shared);
    close(w->shared_plain);
}

static void compare_own(struct worker *w)
{
    uint8_t *content = malloc(OWN_MAX);

    worker_that(w, size_behind(w->own_path) == w->size, "at the end the size is %" PRIu64 ", not %" PRIu64,
                size_behind(w->own_path), w->size);
    read_behind(w->own_path, content, w->size, 0);
    for (uint64_t i = 0; i < w->size; i++)
        worker_that(w, content[i] == w->model[i], "at the end byte %" PRIu64 " is %02x, not %02x", i, content[i],
                    w->model[i]);
    free(content);
}

static void compare_cells(struct worker *w, const char *directory)
{
    uint8_t *content = malloc(CELLS);

    read_behind(path_in(directory, "shared"), content, CELLS, 0);
    for (uint64_t i = 0; i < CELLS; i++)
        worker_that(w, i / CELL % WORKERS != w->id || content[i] == w->shared_model[i],
                    "at the end byte %" PRIu64 " of the shared file", i);
    free(content);
}

struct start {
    const char *directory;
    unsigned id, doors;
    uint64_t seed, operations;
};

/* Blocking calls, and all of async_doors, in turn. */
static const struct async_door *some_door(unsigned turn)
{
    unsigned doors = 0;

    while (async_doors[doors].name)
        doors++;
    turn %= doors + 1;
    return turn == 0 ? NULL : &async_doors[turn - 1];
}

/* A ring may belong to the thread that has made it. */
static void *work(void *argument)
{
    const struct start *start = argument;
    struct worker *w = calloc(1, sizeof(*w));

    check_that(w, "no memory");
    w->id = start->id;
    w->random.state = start->seed * WORKERS + start->id;
    w->door = some_door(start->id + start->doors);
    worker_open(w, start->directory);
    for (uint64_t i = 0; i < start->operations; i++)
        operate(w);
    worker_close(w);
    compare_own(w);
    compare_cells(w, start->directory);
    return NULL;
}

/* One process: THREADS workers. */
static void run_process(unsigned process, void *argument)
{
    const struct start *start = argument;
    struct start starts[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        starts[i] = *start;
        /* Neighbours in the shared file belong to different processes. */
        starts[i].id = i * PROCESSES + process;
        check_that(pthread_create(&threads[i], NULL, work, &starts[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* --run DIRECTORY SEED OPERATIONS DOORS */
static int run_mode(int argc, char **argv)
{
    if (argc != 4)
        return EXIT_FAILURE;
    struct start start = {.directory = argv[0],
                          .doors = (unsigned)strtoul(argv[3], NULL, 0),
                          .seed = strtoull(argv[1], NULL, 0),
                          .operations = strtoull(argv[2], NULL, 0) / WORKERS};

    make_file_behind(path_in(argv[0], "shared"), 1, TAIL);
    return in_processes(PROCESSES, run_process, &start) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- The tests ------------------------------------------------------------------------------------------------------------ */

static uint64_t operations_wanted(void)
{
    const char *value = getenv("BOUNCEIO_TEST_OPS");

    return value ? strtoull(value, NULL, 0) : getenv("BOUNCEIO_TEST_FULL") ? 10000000 : 100000;
}

static struct child run_on(const struct test_fs *fs, enum preload preload, const char *report, uint64_t count,
                           size_t doors)
{
    char seed[32], number[32], rotation[32], statistics[4200];

    snprintf(seed, sizeof(seed), "%" PRIu64, random_run_seed());
    snprintf(number, sizeof(number), "%" PRIu64, count);
    snprintf(rotation, sizeof(rotation), "%zu", doors);
    snprintf(statistics, sizeof(statistics), "BOUNCEIO_STATS=%s", report);
    return child_run_self(preload, (const char *const[]){statistics, "BOUNCEIO_TEST_NATIVE=1", NULL},
                          (const char *const[]){"--run", fs->path, seed, number, rotation, NULL});
}

/* Without the shim: a model that the kernel disagrees with would prove nothing. */
START_TEST(the_kernel_agrees_with_the_model)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct child child = run_on(&fs[i], WITHOUT_SHIM, "stderr", operations_wanted() / count / 20, i);

        ck_assert_msg(child_succeeded(&child), "%s: seed %" PRIu64, fs[i].name, random_run_seed());
        child_free(&child);
    }
}
END_TEST

/* Every block with a checksum is healthy, and with a bit flipped in every block, every one of them is found. */
static void map_is_exact(const char *path, const char *fs)
{
    uint64_t size = size_behind(path), blocks = (size + BLOCK - 1) / BLOCK;
    struct child child = command_ends(0, NULL, (const char *const[]){"scrub", "--json", path, NULL});
    uint64_t verified = command_total(&child, "blocks_verified");

    ck_assert_uint_eq(command_total(&child, "mismatches"), 0);
    ck_assert_uint_eq(command_total(&child, "changed_outside"), 0);
    child_free(&child);
    printf("%s: %s: %" PRIu64 " of %" PRIu64 " blocks have a checksum\n", fs, strrchr(path, '/') + 1, verified, blocks);
    if (verified == 0)
        return;
    uint8_t *content = malloc(size);

    read_behind(path, content, size, 0);
    for (uint64_t at = 0; at < size; at += BLOCK)
        content[at] ^= 1;
    write_behind(path, content, size, 0);
    child = command_ends(1, NULL, (const char *const[]){"scrub", "--json", path, NULL});
    ck_assert_msg(command_total(&child, "mismatches") == verified,
                  "%s: of %" PRIu64 " damaged blocks %" PRIu64 " found", fs, verified,
                  command_total(&child, "mismatches"));
    child_free(&child);
    free(content);
}

START_TEST(mixed_requests_leave_what_the_model_says)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *report = path_in(fs[0].path, "report.json");
        struct child child = run_on(&fs[i], WITH_SHIM, report, operations_wanted() / count, i);

        ck_assert_msg(child_succeeded(&child), "%s: seed %" PRIu64, fs[i].name, random_run_seed());
        printf("%s: %" PRIu64 " operations in %.1f s; blocks verified %" PRId64 ", unverified %" PRId64
               ", contended %" PRId64 "\n",
               fs[i].name, operations_wanted() / count, child.seconds, stats_read(report, "blocks_verified"),
               stats_read(report, "blocks_unverified"), stats_read(report, "contended_blocks"));
        ck_assert_int_eq(stats_read(report, "mismatches"), 0);
        ck_assert_int_eq(stats_read(report, "changed_outside"), 0);
        ck_assert_int_eq(stats_read(report, "passed_through"), 0);
        ck_assert_int_eq(stats_read(report, "pages_leaked"), 0);
        ck_assert_int_gt(stats_read(report, "blocks_verified"), 0);
        child_free(&child);
        map_is_exact(path_in(fs[i].path, "shared"), fs[i].name);
        for (unsigned id = 0; id < WORKERS; id++) {
            char name[16];

            snprintf(name, sizeof(name), "own-%u", id);
            map_is_exact(path_in(fs[i].path, name), fs[i].name);
        }
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--run", run_mode}, {NULL, NULL}};

    setvbuf(stdout, NULL, _IOLBF, 0);
    return support_main(
        argc, argv, "mixed requests against a model", 280 + (double)operations_wanted() / 100, modes,
        (const TTest *const[]){the_kernel_agrees_with_the_model, mixed_requests_leave_what_the_model_says, NULL});
}
