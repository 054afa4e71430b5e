/*
 * kill -9: writers are killed at random moments, and every acknowledged block is there, with its checksum.
 *
 * A run is a file with a store and a ledger; a round of it kills one or more of up to three processes of up to three threads,
 * while the others write on, stand still, or are not there. After each round a fresh reader sees every block; sometimes one or two
 * readers are killed before, in the middle of recovery. When nobody else is alive a fresh writer writes over what the dead left, which must
 * verify as well, and a bit flipped in an acknowledged block must be found.
 *
 * TORTURE_KILLS: how many rounds (500). BOUNCEIO_TEST_SEED repeats the choices, though not the moments.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/sequence.h"
#include "torture/control.h"
#include "torture/mapfile.h"
#include "torture/worker.h"

enum { PROCESSES = 3, THREADS = 3, ROUNDS_OF_A_RUN = 12, SESSIONS_MAX = 16, PATIENCE_MS = 300 };

struct run {
    struct ledger *ledger;
    int ledger_fd;
    char ledger_number[16];
    char path[512], store[512];
    struct setting setting;
    struct random random;
    unsigned habits, threads;
    struct worker workers[PROCESSES];
    unsigned doomed; /* bit per process: kills itself at a step of the protocol */
};

static struct {
    unsigned kills, at_steps, recoveries_killed, flips, known, dead_blocks;
} total;

#define require(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf(__VA_ARGS__);                                                                                       \
            putchar('\n');                                                                                             \
            return false;                                                                                              \
        }                                                                                                              \
    } while (0)

/* Processes that are there, a bit for each. */
static unsigned alive(const struct run *run)
{
    unsigned mask = 0;

    for (unsigned i = 0; i < PROCESSES; i++)
        mask |= run->workers[i].pid ? 1U << i : 0;
    return mask;
}

static uint64_t actors_of(const struct run *run, unsigned process)
{
    return ((UINT64_C(1) << run->threads) - 1) << (process * THREADS);
}

/* The same as usual, but in the build with steps one in three is killed before the so-manieth step it comes to, whichever that is. */
static bool doom(struct run *run, const char **environment, char *stop, size_t room, unsigned longest)
{
    bool doomed = run->setting.steps && getenv("BOUNCEIO_SHIM_STEPS") && random_chance(&run->random, 33);

    environment[0] = run->setting.environment[0];
    environment[1] = doomed ? stop : NULL;
    environment[2] = NULL;
    snprintf(stop, room, "BOUNCEIO_TEST_STOP=*#%llu:kill",
             (unsigned long long)(1 + random_below(&run->random, UINT64_C(1) << random_below(&run->random, longest))));
    return doomed;
}

static void start_writer(struct run *run, unsigned process)
{
    char stop[64];
    const char *environment[3];
    struct setting setting = run->setting;

    setting.environment = environment;
    if (doom(run, environment, stop, sizeof(stop), 16))
        run->doomed |= 1U << process;
    run->workers[process] = worker_start(
        &setting,
        (const char *const[]){"--write", run->ledger_number, run->path, number(process * THREADS), number(run->threads),
                              number(random_next(&run->random)), number(run->habits), "0", NULL});
}

static bool read_all(struct run *run)
{
    char said[512];
    unsigned long long known = 0;

    require(worker_run(&run->setting, said,
                       (const char *const[]){"--read", run->ledger_number, run->path, number(LEDGER_READER), NULL}),
            "a fresh reader failed");
    sscanf(said, "known %llu", &known);
    total.known += (unsigned)known;
    return true;
}

/* A reader that is killed while it opens the map, settles what the dead left, or reads. */
static bool kill_recovery(struct run *run)
{
    const unsigned actor = LEDGER_READER + 1;
    struct worker reader = worker_start(
        &run->setting, (const char *const[]){"--read", run->ledger_number, run->path, number(actor), NULL});

    sleep_us(UINT64_C(200) << random_below(&run->random, 7));
    bool fine = worker_kill(&reader);

    ledger_bury(run->ledger, LEDGER_ACTOR(actor));
    total.recoveries_killed++;
    require(fine, "a reader that was to be killed failed");
    return true;
}

/* A random block whose checksum must be recorded and that nobody is at; false when there is none. */
static bool choose_known(struct run *run, uint64_t *block)
{
    uint64_t count = ledger_block_count(run->ledger);
    uint64_t start = random_below(&run->random, count);
    uint64_t size = size_behind(run->path);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t state = atomic_load(&run->ledger->blocks[(start + i) % count].state);

        *block = (start + i) % count;
        if ((state & LEDGER_KNOWN) && !(state & (LEDGER_PRESENT | LEDGER_DOUBT)) &&
            ledger_offset(run->ledger, (*block + 1) * LEDGER_SECTORS - 1) + SECTOR <= size)
            return true;
    }
    return false;
}

/* A flip is let through when the file is taken for changed outside: what its times say. */
static void describe_window(const struct run *run)
{
    int64_t issue, completion;
    struct stat status;

    if (mapfile_window(run->store, &issue, &completion) != 0 || stat(run->path, &status) != 0)
        return;
    int64_t modified = status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec;

    printf("mtime is %.6f s after the issue and %.6f s after the completion of the last write\n",
           (double)(modified - issue) / 1e9, (double)(modified - completion) / 1e9);
}

static bool corruption_is_found(struct run *run)
{
    uint64_t block;

    if (!choose_known(run, &block))
        return true;
    total.flips++;
    if (flip_is_found(&run->setting, run->path, ledger_offset(run->ledger, block * LEDGER_SECTORS), &run->random))
        return true;
    describe_window(run);
    return false;
}

/* Nobody is alive: what the dead left is settled by the next who opens, and the map is as good as new. */
static bool nothing_is_locked(struct run *run)
{
    ledger_settled(run->ledger);
    require(worker_run(&run->setting, NULL,
                       (const char *const[]){"--write", run->ledger_number, run->path, "1", number(2),
                                             number(random_next(&run->random)),
                                             number(run->habits & ~(unsigned)HABIT_PUNCH), "12", NULL}),
            "a fresh writer failed");
    return read_all(run);
}

static bool kill_some(struct run *run)
{
    unsigned there = alive(run), victims = 0;

    while (!(victims &= there))
        victims = (unsigned)random_next(&run->random);
    if (random_chance(&run->random, 40))
        victims = there;
    victims |= run->doomed;
    for (unsigned i = 0; i < PROCESSES; i++)
        if (run->doomed & (1U << i))
            total.at_steps += worker_wait_gone(&run->workers[i], PATIENCE_MS);
    run->doomed = 0;
    for (unsigned i = 0; i < PROCESSES; i++)
        if (victims & (1U << i))
            kill(run->workers[i].pid, SIGKILL);
    for (unsigned i = 0; i < PROCESSES; i++) {
        if (!(victims & (1U << i)))
            continue;
        bool fine = worker_kill(&run->workers[i]);

        total.dead_blocks += (unsigned)ledger_bury(run->ledger, actors_of(run, i));
        require(fine, "a writer failed before it was killed");
    }
    total.kills++;
    return true;
}

/* Those who live end in peace, and have nothing to complain of. */
static bool end_survivors(struct run *run)
{
    bool fine = true;

    atomic_store(&run->ledger->stop, 1);
    for (unsigned i = 0; i < PROCESSES; i++)
        if (run->workers[i].pid && !worker_collect(&run->workers[i]))
            fine = false;
    atomic_store(&run->ledger->stop, 0);
    require(fine, "a writer that was not killed failed");
    require(atomic_load(&run->ledger->leaked) == 0, "pages were leaked");
    return true;
}

static void wait_for_a_moment(struct run *run)
{
    /* One time in eight in the middle of starting; otherwise when the first requests have been made. */
    if (!random_chance(&run->random, 12))
        for (unsigned i = 0; i < PROCESSES; i++) {
            uint64_t done = atomic_load(&run->ledger->actors[i * THREADS].done);

            for (unsigned tries = 0; run->workers[i].pid && !(run->doomed & (1U << i)) && tries < 4000; tries++) {
                if (atomic_load(&run->ledger->actors[i * THREADS].done) != done)
                    break;
                sleep_us(500);
            }
        }
    sleep_us(random_below(&run->random, UINT64_C(1000) << random_below(&run->random, 7)));
}

static bool round_of(struct run *run)
{
    unsigned processes = 1 + (unsigned)random_below(&run->random, PROCESSES);

    for (unsigned i = 0; i < processes; i++)
        if (!run->workers[i].pid)
            start_writer(run, i);
    wait_for_a_moment(run);
    if (!kill_some(run))
        return false;
    bool frozen = random_chance(&run->random, 30);

    for (unsigned i = 0; frozen && i < PROCESSES; i++)
        if (run->workers[i].pid)
            worker_freeze(&run->workers[i]);
    for (unsigned i = 0; random_chance(&run->random, 30) && i < 2; i++)
        if (!kill_recovery(run))
            return false;
    bool fine = read_all(run) && ((alive(run) && !frozen) || corruption_is_found(run));

    for (unsigned i = 0; frozen && i < PROCESSES; i++)
        if (run->workers[i].pid)
            worker_thaw(&run->workers[i]);
    if (!fine)
        return false;
    if (alive(run) && random_chance(&run->random, 30) && !(end_survivors(run) && read_all(run)))
        return false;
    if (!alive(run) && !(nothing_is_locked(run) && corruption_is_found(run)))
        return false;
    unsigned sessions = directory_count(path_in(run->store, "sessions"));

    require(sessions <= SESSIONS_MAX, "%u session files: the slots of the dead are not used again", sessions);
    return true;
}

/* Either one arena, so that it can be lengthened and cut, or several, some across the border of two regions. */
static void lay_out(struct run *run)
{
    static const uint64_t together[] = {0};
    static const uint64_t apart[] = {0, 16384 - 512, 3 * 16384, 9 * 16384 - 17};

    if (run->habits & HABIT_RESIZE)
        run->ledger = ledger_new(&run->ledger_fd, 1, 4096, together);
    else
        run->ledger = ledger_new(&run->ledger_fd, 4, 1024, apart);
    snprintf(run->ledger_number, sizeof(run->ledger_number), "%d", run->ledger_fd);
    make_file_behind(run->path, 0, 0);
    uint64_t end = ledger_offset(run->ledger, ledger_block_count(run->ledger) * LEDGER_SECTORS - 1) + SECTOR;

    if (truncate(run->path, (off_t)end) != 0)
        support_die("cannot lengthen %s", run->path);
}

static bool run_file(const struct test_fs *fs, unsigned index, unsigned kills, uint64_t seed)
{
    static const char *const reads[] = {"BOUNCEIO_READ=auto", "BOUNCEIO_READ=bounce", "BOUNCEIO_READ=inplace"};
    struct run run = {.random = {seed + index}};
    const char *environment[] = {reads[random_below(&run.random, 3)], NULL};

    run.habits = (unsigned)random_next(&run.random) &
                 (HABIT_PARTIAL | HABIT_FSYNC | HABIT_REOPEN | HABIT_SEQUENTIAL | HABIT_STAY | HABIT_SMALL);
    run.habits |= random_chance(&run.random, 30) ? HABIT_PUNCH : 0;
    run.habits |= random_chance(&run.random, 30) ? HABIT_RESIZE : 0;
    run.threads = 1 + (unsigned)random_below(&run.random, THREADS);
    snprintf(run.path, sizeof(run.path), "%s/file%u", fs->path, index);
    snprintf(run.store, sizeof(run.store), "%s/store%u", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", index);
    run.setting = (struct setting){.store = run.store, .steps = index % 2 == 1, .environment = environment};
    lay_out(&run);
    bool fine = true;

    for (unsigned round = 0; fine && round < kills; round++)
        fine = round_of(&run);
    fine = end_survivors(&run) && fine;
    fine = fine && read_all(&run) && nothing_is_locked(&run);
    if (!fine)
        printf("file %u on %s: habits %x, %u threads, %s, %s\n", index, fs->name, run.habits, run.threads,
               run.setting.steps ? "steps" : "release", environment[0]);
    ledger_free(run.ledger, run.ledger_fd);
    unlink(run.path);
    return fine;
}

static int torture(void)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);
    unsigned kills = torture_count("TORTURE_KILLS", 500);
    uint64_t seed = random_run_seed();
    double begin = seconds_now();

    for (unsigned index = 0; total.kills < kills; index++) {
        unsigned left = kills - total.kills;

        if (!run_file(&fs[index % count], index, left < ROUNDS_OF_A_RUN ? left : ROUNDS_OF_A_RUN, seed))
            return EXIT_FAILURE;
    }
    printf("%u kills in %.0f s, %u processes at a step of the protocol: %u blocks had a request in flight, %u readings "
           "of acknowledged blocks verified, %u "
           "recoveries "
           "killed, %u flips found\n",
           total.kills, seconds_now() - begin, total.at_steps, total.dead_blocks, total.known, total.recoveries_killed,
           total.flips);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {WORKER_MODES, {NULL, NULL}};

    for (const struct support_mode *mode = modes; argc > 1 && mode->name; mode++)
        if (strcmp(argv[1], mode->name) == 0)
            return mode->run(argc - 2, argv + 2);
    return torture();
}
