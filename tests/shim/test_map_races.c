/*
 * Requests that race over the same blocks while every step of the map's protocol may be delayed: sectors of one block, a block
 * that toggles, and everything that changes content without a checksum in hand. Never an EIO on healthy data, and at the end no
 * checksum that is idle and wrong.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

/* Threads of one process, or processes on one file. */
enum crew { AS_THREADS, AS_PROCESSES };

struct worker {
    int (*run)(struct worker *worker);
    const char *path;
    unsigned index;
    struct stage *stage;
    pthread_t thread;
    pid_t process;
};

/* What workers share, in memory that processes share too. */
struct stage {
    pthread_barrier_t barrier;
    atomic_bool stop;
    atomic_ullong rounds;
};

static struct stage *stage_new(unsigned workers)
{
    struct stage *stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;

    check_that(stage != MAP_FAILED, "no memory");
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&stage->barrier, &attributes, workers);
    return stage;
}

static void *run_worker(void *worker)
{
    ((struct worker *)worker)->run(worker);
    return NULL;
}

static void start(struct worker *workers, unsigned count, enum crew crew)
{
    for (unsigned i = 0; i < count; i++) {
        workers[i].index = i;
        if (crew == AS_THREADS) {
            check_that(pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]) == 0, "no thread");
            continue;
        }
        fflush(NULL);
        workers[i].process = fork();
        if (workers[i].process == 0)
            _exit(workers[i].run(&workers[i]));
        check_that(workers[i].process > 0, "no process");
    }
}

static void join(struct worker *workers, unsigned count, enum crew crew)
{
    for (unsigned i = 0; i < count; i++) {
        int status = 0;

        if (crew == AS_THREADS)
            check_that(pthread_join(workers[i].thread, NULL) == 0, "join");
        else
            check_that(waitpid(workers[i].process, &status, 0) == workers[i].process && status == 0,
                       "worker %u ended with status %#x", i, (unsigned)status);
    }
}

static void let_run(struct stage *stage, double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    nanosleep(&time, NULL);
    atomic_store(&stage->stop, true);
}

/* No block was found wrong or taken for an outside change, in this process and its children. */
static void all_is_well(void)
{
    struct bounceio_stats stats = counters();

    check_that(stats.mismatches == 0, "%llu mismatches", (unsigned long long)stats.mismatches);
    check_that(stats.changed_outside == 0, "%llu taken for outside changes", (unsigned long long)stats.changed_outside);
    check_that(stats.pages_leaked == 0, "%llu pages leaked", (unsigned long long)stats.pages_leaked);
}

/* --- Different sectors of one block ------------------------------------------------------------------------------- */

enum { SECTORS = BLOCK / SECTOR };

/* Each round both workers write a sector of their own; then one of them reads the block: both sectors must be there. */
static int write_own_sector(struct worker *worker)
{
    size_t count = rounds(1500, 20000);
    int fd = direct_open(worker->path, O_RDWR);
    unsigned char *memory = direct_memory();

    for (size_t round = 1; round <= count; round++) {
        unsigned sector = worker->index * SECTORS / 2 + (unsigned)(round % (SECTORS / 2));

        memset(memory, (int)(round % 251), SECTOR);
        ssize_t n = pwrite(fd, memory, SECTOR, (off_t)sector * SECTOR);

        check_that(n == SECTOR, "round %zu: write gave %zd", round, n);
        pthread_barrier_wait(&worker->stage->barrier);
        if (worker->index == round % 2) {
            n = pread(fd, memory, BLOCK, 0);
            check_that(n == BLOCK, "round %zu: read gave %zd", round, n);
            for (unsigned half = 0; half < 2; half++) {
                size_t at = (half * SECTORS / 2 + round % (SECTORS / 2)) * SECTOR;

                check_that(memory[at] == round % 251 && memory[at + SECTOR - 1] == round % 251,
                           "round %zu: sector of worker %u is lost", round, half);
            }
        }
        pthread_barrier_wait(&worker->stage->barrier);
    }
    close(fd);
    return 0;
}

/* arguments: file, "threads" or "processes". */
static int sectors(int argc, char **argv)
{
    check_that(argc == 2, "usage: --sectors FILE CREW");
    enum crew crew = argv[1][0] == 't' ? AS_THREADS : AS_PROCESSES;
    struct stage *stage = stage_new(2);
    struct worker workers[2] = {{.run = write_own_sector, .path = argv[0], .stage = stage},
                                {.run = write_own_sector, .path = argv[0], .stage = stage}};

    close(direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC));
    direct_write(direct_open(argv[0], O_RDWR), 1, 0, 4 * BLOCK);
    start(workers, 2, crew);
    join(workers, 2, crew);
    all_is_well();
    return 0;
}

static void writers_of_different_sectors(const char *crew)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "sectors");

        sequence_run((const char *const[]){"--sectors", path, crew, NULL});
        /* The three blocks that nobody fought over. */
        sequence_idle_entries_are_true(path, 3);
    }
}

START_TEST(threads_writing_different_sectors_of_one_block)
{
    writers_of_different_sectors("threads");
}
END_TEST

START_TEST(processes_writing_different_sectors_of_one_block)
{
    writers_of_different_sectors("processes");
}
END_TEST

/* --- A block that toggles ----------------------------------------------------------------------------------------- */

enum { TOGGLED = 4 };

static int toggle(struct worker *worker)
{
    int fd = direct_open(worker->path, O_RDWR);

    for (uint64_t n = 0; !atomic_load(&worker->stage->stop); n++)
        direct_write(fd, 1 + n / TOGGLED % 2, (off_t)(n % TOGGLED) * BLOCK, BLOCK);
    return 0;
}

static int read_toggled(struct worker *worker)
{
    int fd = direct_open(worker->path, O_RDONLY);

    for (uint64_t n = 0; !atomic_load(&worker->stage->stop); n++) {
        unsigned char *memory = n % 2 ? aligned_memory() : direct_memory();
        size_t blocks = 1 + n % TOGGLED;
        ssize_t got = pread(fd, memory, blocks * BLOCK, 0);

        check_that(got == (ssize_t)(blocks * BLOCK), "read gave %zd", got);
        atomic_fetch_add(&worker->stage->rounds, 1);
    }
    return 0;
}

static int toggling(int argc, char **argv)
{
    check_that(argc == 2, "usage: --toggling FILE CREW");
    enum crew crew = argv[1][0] == 't' ? AS_THREADS : AS_PROCESSES;
    struct stage *stage = stage_new(3);
    struct worker workers[3] = {{.run = toggle, .path = argv[0], .stage = stage},
                                {.run = read_toggled, .path = argv[0], .stage = stage},
                                {.run = read_toggled, .path = argv[0], .stage = stage}};

    direct_write(direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC), 1, 0, TOGGLED * BLOCK);
    start(workers, 3, crew);
    let_run(stage, (double)rounds(15, 200) / 10);
    join(workers, 3, crew);
    all_is_well();
    check_that(atomic_load(&stage->rounds) > 100, "hardly anything was read");
    /* A reader's question may have met the last round, whose blocks are unknown then. */
    direct_write(direct_open(argv[0], O_RDWR), 1, 0, TOGGLED * BLOCK);
    return 0;
}

START_TEST(readers_of_a_block_that_toggles_between_two_contents)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "toggled");

        sequence_run((const char *const[]){"--toggling", path, "threads", NULL});
        sequence_idle_entries_are_true(path, TOGGLED);
        sequence_run((const char *const[]){"--toggling", path, "processes", NULL});
        sequence_idle_entries_are_true(path, TOGGLED);
    }
}
END_TEST

/* --- Everything that changes content without a checksum in hand ---------------------------------------------------- */

enum { ARENA = 64 };

/*
 * The kernel's own EIO: iomap fails direct I/O that meets an extent dirtied through the page cache meanwhile ("Direct I/O collision
 * with buffered writes" in fs/iomap/direct-io.c). Seen without the shim as well; the shim's own are counted as mismatches.
 */
static bool collided(ssize_t n)
{
    return n < 0 && errno == EIO;
}

static int write_arena(struct worker *worker)
{
    struct random random = {random_run_seed() + worker->index};
    int fd = direct_open(worker->path, O_RDWR);

    while (!atomic_load(&worker->stage->stop)) {
        bool small = random_chance(&random, 20);
        size_t unit = small ? SECTOR : BLOCK;
        size_t length = unit * (1 + random_below(&random, 8));
        off_t offset = (off_t)(unit * random_below(&random, ARENA * BLOCK / unit - 8));

        pattern_fill(direct_memory(), length, random_next(&random), 0);
        ssize_t n = pwrite(fd, direct_memory(), length, offset);

        check_that(n == (ssize_t)length || collided(n), "write of %zu at %lld gave %zd", length, (long long)offset, n);
        atomic_fetch_add(&worker->stage->rounds, 1);
    }
    return 0;
}

static int read_arena(struct worker *worker)
{
    struct random random = {random_run_seed() + worker->index};
    int fd = direct_open(worker->path, O_RDONLY);

    while (!atomic_load(&worker->stage->stop)) {
        unsigned char *memory = random_chance(&random, 50) ? aligned_memory() : direct_memory();
        size_t length = BLOCK * (1 + random_below(&random, 16));
        off_t offset = (off_t)(BLOCK * random_below(&random, ARENA));
        ssize_t n = pread(fd, memory, length, offset);

        /* Short at the end of the file, which moves. */
        check_that(n >= 0 || collided(n), "read of %zu at %lld gave %zd", length, (long long)offset, n);
        atomic_fetch_add(&worker->stage->rounds, 1);
    }
    return 0;
}

/* One change of content by a road that carries no checksum. */
static void mutate(struct random *random, int buffered, int source, const char *path)
{
    off_t at = (off_t)(SECTOR * random_below(random, ARENA * SECTORS));
    off_t length = (off_t)(SECTOR * (1 + random_below(random, 4 * SECTORS)));
    unsigned char data[4 * BLOCK];
    off_t from = 0;

    pattern_fill(data, sizeof(data), random_next(random), 0);
    switch (random_below(random, 10)) {
    case 0:
        fallocate(buffered, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length);
        break;
    case 1:
        fallocate(buffered, FALLOC_FL_ZERO_RANGE, at, length);
        break;
    case 2:
        check_that(ftruncate(buffered, at + 1) == 0, "ftruncate");
        break;
    case 3:
        check_that(truncate(path, ARENA * BLOCK + (off_t)random_below(random, BLOCK)) == 0, "truncate");
        break;
    case 4:
        check_that(posix_fallocate(buffered, at, length) == 0, "posix_fallocate");
        break;
    case 5:
        check_that(copy_file_range(source, &from, buffered, &at, (size_t)length, 0) >= 0, "copy_file_range");
        break;
    case 6:
        check_that(lseek(buffered, at, SEEK_SET) == at && lseek(source, 0, SEEK_SET) == 0, "lseek");
        check_that(sendfile(buffered, source, NULL, (size_t)length) >= 0, "sendfile");
        break;
    case 7: {
        FILE *stream = fopen(path, "r+");

        check_that(stream && fseek(stream, (long)at, SEEK_SET) == 0, "fopen");
        check_that(fwrite(data, 1, (size_t)length, stream) == (size_t)length && fclose(stream) == 0, "fwrite");
        break;
    }
    case 8: {
        off_t page = at / BLOCK * BLOCK;
        char *map = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, buffered, page);

        check_that(map != MAP_FAILED, "mmap");
        /* Another worker may truncate under the mapping, but never to nothing: the first page can be touched. */
        if (page == 0)
            memcpy(map, data, BLOCK);
        munmap(map, BLOCK);
        break;
    }
    default:
        check_that(pwrite(buffered, data, (size_t)length, at) == length, "buffered write");
    }
}

static int mutate_arena(struct worker *worker)
{
    struct random random = {random_run_seed() + worker->index};
    int buffered = open(worker->path, O_RDWR | O_CLOEXEC);
    char other[4200];

    snprintf(other, sizeof(other), "%s.source", worker->path);
    int source = open(other, O_RDONLY | O_CLOEXEC);

    check_that(buffered >= 0 && source >= 0, "cannot open %s", other);
    while (!atomic_load(&worker->stage->stop)) {
        mutate(&random, buffered, source, worker->path);
        atomic_fetch_add(&worker->stage->rounds, 1);
        usleep((useconds_t)random_below(&random, 500));
    }
    return 0;
}

static int mutating(int argc, char **argv)
{
    check_that(argc == 2, "usage: --mutating FILE CREW");
    enum crew crew = argv[1][0] == 't' ? AS_THREADS : AS_PROCESSES;
    struct stage *stage = stage_new(5);
    struct worker workers[] = {
        {.run = write_arena}, {.run = write_arena}, {.run = read_arena}, {.run = read_arena}, {.run = mutate_arena}};
    char source[4200];

    snprintf(source, sizeof(source), "%s.source", argv[0]);
    make_file_behind(source, 9, 16 * BLOCK);
    direct_write(direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC), 1, 0, ARENA * BLOCK);
    for (size_t i = 0; i < 5; i++) {
        workers[i].path = argv[0];
        workers[i].stage = stage;
    }
    start(workers, 5, crew);
    let_run(stage, (double)rounds(20, 300) / 10);
    join(workers, 5, crew);
    all_is_well();
    check_that(atomic_load(&stage->rounds) > 100, "hardly anything happened");
    /* Now that nobody races, what is written is known. */
    direct_write(direct_open(argv[0], O_RDWR), 5, 0, ARENA / 2 * BLOCK);
    return 0;
}

START_TEST(mutators_racing_with_direct_readers_and_writers)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "arena");

        sequence_run((const char *const[]){"--mutating", path, "threads", NULL});
        sequence_idle_entries_are_true(path, ARENA / 2);
        sequence_run((const char *const[]){"--mutating", path, "processes", NULL});
        sequence_idle_entries_are_true(path, ARENA / 2);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {
        SEQUENCE_MODES, {"--sectors", sectors}, {"--toggling", toggling}, {"--mutating", mutating}, {NULL, NULL}};
    const TTest *const tests[] = {
        threads_writing_different_sectors_of_one_block, processes_writing_different_sectors_of_one_block,
        readers_of_a_block_that_toggles_between_two_contents, mutators_racing_with_direct_readers_and_writers, NULL};

    return support_main(argc, argv, "map races", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 180, modes, tests);
}
