/*
 * Power cuts: while a workload runs, the device is cloned again and again; each clone is mounted as if the machine had come up again
 * (another boot id), and nothing that is read from it fails, every acknowledged block outside the regions that were dirty is there with its
 * checksum, and a bit flipped in one of those is found.
 *
 * The store lies on the same device, or on another one; then the workload is frozen while both are cloned, with no thread in a
 * system call: the two are what one instant left.
 *
 * Some devices have a volatile cache, of which a cut leaves any part (disk.h).
 *
 * TORTURE_CUTS: how many (200). BOUNCEIO_TEST_SEED repeats the choices, though not the moments.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum/format.h"
#include "support/sequence.h"
#include "torture/control.h"
#include "torture/mapfile.h"
#include "torture/medium.h"
#include "torture/worker.h"

enum {
    PROCESSES = 2,
    THREADS = 2,
    CUTS_OF_A_STORY = 10,
    CUTS_OF_A_SLICE = 4,
    REGIONS = 16,
    SWEEP_MS = 60, /* between two sweeps of a file */
    FLIPS = 2,
    DATA_MEGABYTES = 512,
    STORE_MEGABYTES = 320,
};

#define DOUBTFUL (REGION_DIRTY | REGION_SUSPECT)

/* The clones of one instant, and what the ledger said then. */
struct cut {
    char data[MEDIUM_PATH + 16], store[MEDIUM_PATH + 16]; /* images; store empty: it is on the data's device */
    struct ledger *ledger;
    int ledger_fd;
    char ledger_number[16];
    uint64_t regions[REGIONS];
    bool mapped;
    uint64_t actors; /* of the ledger, that were writing */
    /* Region words in memory just before and after. */
    uint64_t before[REGIONS], after[REGIONS];
    uint64_t done[LEDGER_ACTORS]; /* requests, as of `after` */
    const struct cut *previous;   /* of the same writers, or NULL */
};

struct story {
    struct media *media;
    struct medium data, store;
    bool apart; /* the store has a device of its own */
    bool loses; /* what was not flushed */
    struct ledger *ledger;
    int ledger_fd;
    char path[512], store_path[512];
    struct setting setting;
    struct random random;
    unsigned habits, threads, processes;
    struct worker workers[PROCESSES];
    struct cut cuts[CUTS_OF_A_STORY];
    unsigned cut_count;
};

static struct {
    unsigned cuts, flips, image_flips, known, recovered, suspect, recent, lagging, losses, steps, steps_missed;
} total;

#define require(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf(__VA_ARGS__);                                                                                       \
            putchar('\n');                                                                                             \
            return false;                                                                                              \
        }                                                                                                              \
    } while (0)

/* --- The workload, and the cuts ----------------------------------------------------------------------------------- */

static void start_writer(struct story *story, unsigned process, const char *requests)
{
    char ledger[16];

    snprintf(ledger, sizeof(ledger), "%d", story->ledger_fd);
    story->workers[process] =
        worker_start(&story->setting, (const char *const[]){"--write", ledger, story->path, number(process * THREADS),
                                                            number(story->threads), number(random_next(&story->random)),
                                                            number(story->habits), requests, NULL});
}

static bool kill_writers(struct story *story)
{
    bool fine = true;

    for (unsigned i = 0; i < story->processes; i++)
        if (!worker_kill(&story->workers[i]))
            fine = false;
    require(fine, "a writer failed");
    return true;
}

static struct ledger *copy_of(const struct ledger *ledger)
{
    struct ledger *copy = malloc(ledger_bytes(ledger));

    if (!copy)
        support_die("no memory");
    memcpy(copy, ledger, ledger_bytes(ledger));
    return copy;
}

/* What two copies agree on, taken before and after the cut: blocks at which nobody was in between. */
static void agree(struct ledger *agreed, const struct ledger *before, const struct ledger *after)
{
    memcpy(agreed->actors, before->actors, sizeof(agreed->actors));
    memcpy((void *)agreed->touched, (const void *)after->touched, sizeof(agreed->touched));
    for (uint64_t block = 0; block < ledger_block_count(agreed); block++) {
        uint64_t state = before->blocks[block].state;
        bool quiet = state == after->blocks[block].state && !(state & LEDGER_PRESENT);

        if ((state | after->blocks[block].state) & LEDGER_WRITING)
            agreed->touched[block / agreed->arena_blocks] = UINT64_MAX;
        agreed->blocks[block].state = quiet ? state & LEDGER_KNOWN : 0;
        for (unsigned s = 0; s < LEDGER_SECTORS; s++)
            agreed->blocks[block].sectors[s] = quiet ? before->blocks[block].sectors[s] : LEDGER_ANY;
    }
}

/* `still`: the writers are stopped where they are to be cut. */
static void cut_power(struct story *story, bool still)
{
    struct cut *cut = &story->cuts[story->cut_count++];
    bool freeze = !still && (story->apart || random_chance(&story->random, 30));
    bool store_first = random_chance(&story->random, 50);

    snprintf(cut->data, sizeof(cut->data), "%s.%u", story->data.image, story->cut_count);
    snprintf(cut->store, sizeof(cut->store), "%s.%u", story->store.image, story->cut_count);
    cut->actors = 0;
    for (unsigned i = 0; i < story->processes; i++)
        cut->actors |= ((UINT64_C(1) << story->threads) - 1) << (i * THREADS);
    cut->ledger =
        ledger_new(&cut->ledger_fd, story->ledger->arenas, story->ledger->arena_blocks, story->ledger->arena_first);
    snprintf(cut->ledger_number, sizeof(cut->ledger_number), "%d", cut->ledger_fd);
    for (unsigned i = 0; freeze && i < story->processes; i++)
        worker_freeze(&story->workers[i]);
    struct ledger *before = copy_of(story->ledger);

    mapfile_regions(story->store_path, cut->before, REGIONS);
    if (story->apart && store_first)
        medium_clone(&story->store, cut->store, &story->random);
    medium_clone(&story->data, cut->data, &story->random);
    if (story->apart && !store_first)
        medium_clone(&story->store, cut->store, &story->random);
    mapfile_regions(story->store_path, cut->after, REGIONS);
    struct ledger *after = copy_of(story->ledger);

    for (unsigned actor = 0; actor < LEDGER_ACTORS; actor++)
        cut->done[actor] = after->actors[actor].done;
    cut->previous = !still && story->cut_count > 1 ? cut - 1 : NULL;
    for (unsigned i = 0; freeze && i < story->processes; i++)
        worker_thaw(&story->workers[i]);
    agree(cut->ledger, before, after);
    free(before);
    free(after);
}

/* --- After the power is back -------------------------------------------------------------------------------------- */

static uint64_t region_of(const struct ledger *ledger, uint64_t block)
{
    return ledger_offset(ledger, block * LEDGER_SECTORS) / BLOCK / REGION_BLOCKS;
}

/* The border between two regions may run through an arena. */
static bool arena_is_in(const struct ledger *ledger, unsigned arena, uint64_t region)
{
    uint64_t first = (uint64_t)arena * ledger->arena_blocks;

    return region_of(ledger, first) <= region && region_of(ledger, first + ledger->arena_blocks - 1) >= region;
}

/* May the region be dirty? If it has been written recently, or one from which it can have been marked ahead. */
static bool may_be_dirty(const struct cut *cut, uint64_t region)
{
    for (unsigned arena = 0; arena < cut->ledger->arenas; arena++)
        for (uint64_t back = 0; back <= region && window_of_region(region - back) == window_of_region(region); back++)
            if (arena_is_in(cut->ledger, arena, region - back) && !ledger_left_alone(cut->ledger, arena, cut->actors))
                return true;
    return false;
}

/*
 * Was the region clean, as it is, at the cut before? Whoever cleared it then has made other requests since, and so has seen to it that the
 * device knows.
 */
static bool is_clean_for_long(const struct cut *cut, uint64_t region)
{
    uint64_t word = cut->before[region];

    if (!cut->previous || (word & REGION_DIRTY) || word != cut->after[region] || word != cut->previous->after[region])
        return false;
    for (unsigned actor = 0; actor < LEDGER_READER; actor++)
        if ((cut->actors & LEDGER_ACTOR(actor)) && cut->ledger->actors[actor].done < cut->previous->done[actor] + 2)
            return false;
    return true;
}

/* Dirty on the device; or the device knows of no checksums there yet. */
static bool is_doubtful(const struct cut *cut, uint64_t region)
{
    uint64_t there = cut->regions[region];

    return (there & DOUBTFUL) || (!(there & REGION_UNITS) && !is_clean_for_long(cut, region));
}

/* Nothing is promised of regions that were dirty. */
static void forget_doubtful(struct cut *cut)
{
    for (uint64_t block = 0; block < ledger_block_count(cut->ledger); block++) {
        if (cut->mapped && !is_doubtful(cut, region_of(cut->ledger, block)))
            continue;
        atomic_fetch_and(&cut->ledger->blocks[block].state, ~LEDGER_KNOWN);
        for (unsigned s = 0; s < LEDGER_SECTORS; s++)
            atomic_store(&cut->ledger->blocks[block].sectors[s], LEDGER_ANY);
    }
}

static bool read_all(const struct setting *setting, const struct story *story, const struct cut *cut, bool first)
{
    char said[512];
    unsigned long long known = 0, blocks = 0, verified = 0, recovered = 0;

    require(worker_run(setting, said,
                       (const char *const[]){"--read", cut->ledger_number, story->path, number(LEDGER_READER), NULL}),
            "reading after the cut failed");
    sscanf(said, "known %llu read %llu verified %llu recovered %llu", &known, &blocks, &verified, &recovered);
    if (first) {
        total.known += (unsigned)known;
        total.recovered += (unsigned)recovered;
    }
    return true;
}

/*
 * On the device DIRTY is what had been written recently, or has just become clean in memory. And what was durable in memory must be
 * dirty there. Several writers may keep each other's sweeps from their end, when the machine is slower than their interval.
 */
static bool dirty_is_recent(const struct cut *cut)
{
    bool sole = (cut->actors & (cut->actors - 1)) == 0;

    for (unsigned region = 0; cut->mapped && region < REGIONS; region++) {
        bool may = may_be_dirty(cut, region);
        bool lags = !(cut->before[region] & cut->after[region] & REGION_DIRTY) && !is_clean_for_long(cut, region);
        uint64_t there = cut->regions[region];

        require(may || lags || !sole || !(there & REGION_DIRTY), "region %u is %llx, and was not written recently",
                region, (unsigned long long)there);
        require(!(there & REGION_DIRTY) || !is_clean_for_long(cut, region), "region %u is %llx, and was clean", region,
                (unsigned long long)there);
        /* A region of which the device knows no unit has no checksums there. */
        require((there & REGION_DIRTY) || !(there & REGION_UNITS) || !(cut->before[region] & REGION_DURABLE) ||
                    cut->before[region] != cut->after[region],
                "region %u was durable (%llx), and is %llx on the device", region,
                (unsigned long long)cut->before[region], (unsigned long long)there);
        total.recent += may;
        total.lagging += lags && (there & REGION_DIRTY);
    }
    return true;
}

/* Suspect is what was dirty, no less and no more. */
static bool suspects_are_right(const struct story *story, const struct cut *cut)
{
    uint64_t now[REGIONS];

    if (!cut->mapped)
        return true;
    require(mapfile_regions(story->store_path, now, REGIONS) == 0, "the map has gone");
    for (unsigned region = 0; region < REGIONS; region++) {
        bool doubtful = cut->regions[region] & DOUBTFUL;

        require(doubtful == ((now[region] & REGION_SUSPECT) != 0),
                "region %u was %llx when the power failed, and is %llx now", region,
                (unsigned long long)cut->regions[region], (unsigned long long)now[region]);
        total.suspect += doubtful;
    }
    return true;
}

static bool choose_known(struct story *story, const struct cut *cut, uint64_t *offset)
{
    uint64_t count = ledger_block_count(cut->ledger);
    uint64_t start = random_below(&story->random, count);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t block = (start + i) % count;

        *offset = ledger_offset(cut->ledger, block * LEDGER_SECTORS);
        if ((cut->ledger->blocks[block].state & LEDGER_KNOWN) && *offset + BLOCK <= size_behind(story->path))
            return true;
    }
    return false;
}

/* The same in the image: what a bad device does. */
static bool image_flip_is_found(struct story *story, const struct cut *cut, const struct setting *setting,
                                uint64_t offset)
{
    const char *environment[] = {"BOUNCEIO_LOG_FILE=/dev/null", NULL};
    struct setting quiet = *setting;
    uint64_t address;
    unsigned bit = (unsigned)random_below(&story->random, 8);

    if (!medium_address(&story->data, story->path, offset, &address))
        return true;
    quiet.environment = environment;
    address += random_below(&story->random, BLOCK);
    medium_unmount(&story->data);
    flip_bit_behind(cut->data, address, bit);
    require(medium_mount(&story->data, cut->data), "cannot mount the image again");
    bool found = worker_run(&quiet, NULL, (const char *const[]){"--damaged", story->path, number(offset), NULL});

    medium_unmount(&story->data);
    flip_bit_behind(cut->data, address, bit);
    require(medium_mount(&story->data, cut->data), "cannot mount the image again");
    require(found, "a bit flipped in the image, at %llu of the file, was not found", (unsigned long long)offset);
    total.image_flips++;
    return true;
}

static bool flips_are_found(struct story *story, const struct cut *cut, const struct setting *setting)
{
    uint64_t offset;

    for (unsigned i = 0; i < FLIPS && choose_known(story, cut, &offset); i++, total.flips++)
        if (!flip_is_found(setting, story->path, offset, &story->random))
            return false;
    return !story->apart || !choose_known(story, cut, &offset) || image_flip_is_found(story, cut, setting, offset);
}

/* The file can be written again, under checksums. */
static bool work_goes_on(struct story *story, const struct cut *cut, const struct setting *setting)
{
    unsigned habits = HABIT_FSYNC | HABIT_SMALL | (story->habits & (HABIT_RESIZE | HABIT_PARTIAL));

    require(worker_run(setting, NULL,
                       (const char *const[]){"--write", cut->ledger_number, story->path, "1", "1",
                                             number(random_next(&story->random)), number(habits), "40", NULL}),
            "writing after the cut failed");
    return read_all(setting, story, cut, false);
}

static bool check_mounted(struct story *story, struct cut *cut)
{
    char boot_id[40];
    struct setting setting = {.store = story->store_path, .boot_id = boot_id};

    snprintf(boot_id, sizeof(boot_id), "%032x", 0xb0070000 + total.cuts);
    cut->mapped = mapfile_regions(story->store_path, cut->regions, REGIONS) == 0;
    forget_doubtful(cut);
    if (!dirty_is_recent(cut))
        return false;
    if (random_chance(&story->random, 25)) {
        struct worker reader = worker_start(
            &setting, (const char *const[]){"--read", cut->ledger_number, story->path, number(LEDGER_READER), NULL});

        sleep_us(UINT64_C(500) << random_below(&story->random, 6));
        require(worker_kill(&reader), "a reader that was to be killed failed");
        ledger_bury(cut->ledger, LEDGER_ACTOR(LEDGER_READER));
        ledger_settled(cut->ledger);
    }
    return read_all(&setting, story, cut, true) && suspects_are_right(story, cut) &&
           flips_are_found(story, cut, &setting) && work_goes_on(story, cut, &setting);
}

static bool check_cut(struct story *story, struct cut *cut)
{
    total.cuts++;
    total.losses += story->loses;
    require(medium_mount(&story->data, cut->data), "cannot mount the clone");
    require(!story->apart || medium_mount(&story->store, cut->store), "cannot mount the store's clone");
    bool fine = check_mounted(story, cut);

    if (!fine) {
        for (unsigned region = 0; cut->mapped && region < REGIONS; region++)
            printf("region %u: %llx; in memory %llx before and %llx after\n", region,
                   (unsigned long long)cut->regions[region], (unsigned long long)cut->before[region],
                   (unsigned long long)cut->after[region]);
    }
    medium_unmount(&story->data);
    if (story->apart)
        medium_unmount(&story->store);
    return fine;
}

/* --- Stories ------------------------------------------------------------------------------------------------------ */

/* Several regions with 2 MiB of data in each, some of it across a border; or one arena that can be lengthened and cut. */
static void lay_out(struct story *story)
{
    static const uint64_t together[] = {0};
    uint64_t apart[10];

    for (unsigned i = 0; i < 10; i++)
        apart[i] = (uint64_t)i * REGION_BLOCKS + (i % 3 == 2 ? REGION_BLOCKS - 200 : 777 * i);
    story->ledger = (story->habits & HABIT_RESIZE) ? ledger_new(&story->ledger_fd, 1, 4096, together)
                                                   : ledger_new(&story->ledger_fd, 10, 512, apart);
    story->ledger->interval = 2 * 1000 * SWEEP_MS;
    uint64_t last = ledger_block_count(story->ledger) * LEDGER_SECTORS - 1;

    make_file_behind(story->path, 0, 0);
    if (truncate(story->path, (off_t)(ledger_offset(story->ledger, last) + SECTOR)) != 0)
        support_die("cannot lengthen %s", story->path);
}

static void prepare(struct story *story, struct media *media, unsigned index, uint64_t seed)
{
    static const char *const kinds[] = {"xfs", "ext4", "btrfs-nocow"};
    const char *kind = kinds[index % 3];

    *story = (struct story){.media = media, .random = {seed + index}, .apart = index / 3 % 2 == 1};
    story->habits = (unsigned)random_next(&story->random) &
                    (HABIT_PARTIAL | HABIT_REOPEN | HABIT_SEQUENTIAL | HABIT_SMALL | HABIT_PAUSE | HABIT_SYNC);
    story->habits |= random_chance(&story->random, 75) ? HABIT_STAY : 0;
    story->habits |= random_chance(&story->random, 30) ? HABIT_PUNCH : 0;
    story->habits |= random_chance(&story->random, 15) ? HABIT_RESIZE : 0;
    story->loses = random_chance(&story->random, 60) && access("/dev/fuse", W_OK) == 0;
    story->processes = 1 + (unsigned)random_below(&story->random, PROCESSES);
    story->threads = 1 + (unsigned)random_below(&story->random, THREADS);
    medium_new(&story->data, media, "data", kind, DATA_MEGABYTES, story->habits & HABIT_PARTIAL, story->loses);
    if (story->apart)
        medium_new(&story->store, media, "store", index % 2 ? "xfs" : "ext4", STORE_MEGABYTES,
                   random_chance(&story->random, 50), story->loses);
    snprintf(story->path, sizeof(story->path), "%s/file", story->data.home);
    snprintf(story->store_path, sizeof(story->store_path), "%s/store",
             story->apart ? story->store.home : story->data.home);
}

/* At random moments, while the writers write. */
static bool cut_anywhere(struct story *story, unsigned cuts)
{
    char sweep[64];
    const char *environment[] = {sweep, NULL};

    snprintf(sweep, sizeof(sweep), "BOUNCEIO_TEST_SWEEP_MS=%d", SWEEP_MS);
    story->setting.environment = environment;
    for (unsigned i = 0; i < story->processes; i++)
        start_writer(story, i, "0");
    /* A writer that has not got so far has not written anything either. */
    for (unsigned tries = 0; tries < 2000 && atomic_load(&story->ledger->actors[0].done) == 0; tries++)
        sleep_us(1000);
    for (unsigned i = 0; i < cuts; i++) {
        sleep_us(10000 + random_below(&story->random, 500000));
        cut_power(story, false);
    }
    return kill_writers(story);
}

/*
 * Between two steps of marking and clearing regions: a writer stops itself before the step, the power fails, and so on with the next
 * writer, which is killed as well.
 */
static bool cut_at_steps(struct story *story, unsigned cuts)
{
    static const char *const steps[] = {
        "enter in-flight",  "DURABLE?",    "set DIRTY",     "msync state",     "OR DURABLE",
        "OR DURABLE ahead", "issue",       "complete",      "current=new",     "CAS pending new->0",
        "DURABLE off",      "msync words", "CAS DIRTY off", "leave in-flight", "nothing in flight?",
        "give DURABLE back"};
    const unsigned count = sizeof(steps) / sizeof(steps[0]);
    bool fine = true;

    story->processes = story->threads = 1;
    story->habits = (story->habits & HABIT_PARTIAL) | HABIT_SMALL | HABIT_STAY | HABIT_SYNC | HABIT_REOPEN;
    for (unsigned i = 0; fine && i < cuts; i++) {
        const char *step = steps[total.steps++ % count];
        char stop[128];
        const char *environment[] = {"BOUNCEIO_TEST_SWEEP_MS=1", stop, NULL};

        snprintf(
            stop, sizeof(stop), "BOUNCEIO_TEST_STOP=%s#%llu:stop", step,
            (unsigned long long)(1 + random_below(&story->random, UINT64_C(1) << random_below(&story->random, 6))));
        story->setting.environment = environment;
        story->setting.steps = true;
        start_writer(story, 0, "100");
        if (worker_wait_stopped(&story->workers[0]))
            cut_power(story, true);
        else
            total.steps_missed++;
        fine = kill_writers(story);
        ledger_bury(story->ledger, LEDGER_WRITING);
        ledger_settled(story->ledger);
    }
    return fine;
}

static bool tell(struct media *media, unsigned index, unsigned cuts, uint64_t seed)
{
    static struct story story;

    prepare(&story, media, index, seed);
    story.setting = (struct setting){
        .store = story.store_path, .boot_id = "0b007000000000000000000000000001", .steps = index % 4 == 3};
    bool at_steps = getenv("BOUNCEIO_SHIM_STEPS") && index % 4 == 1;

    if (at_steps)
        story.habits &= ~(unsigned)HABIT_RESIZE;
    lay_out(&story);
    bool fine = at_steps ? cut_at_steps(&story, cuts) : cut_anywhere(&story, cuts);

    medium_unmount(&story.data);
    if (story.apart)
        medium_unmount(&story.store);
    for (unsigned i = 0; i < story.cut_count; i++) {
        struct cut *cut = &story.cuts[i];

        fine = fine && check_cut(&story, cut);
        ledger_free(cut->ledger, cut->ledger_fd);
        medium_remove(cut->data);
        if (story.apart)
            medium_remove(cut->store);
    }
    if (!fine)
        printf("story %u on %s%s, store %s: habits %x, %u processes of %u threads, %s\n", index, story.data.kind,
               story.loses ? " with a volatile cache" : "", story.apart ? story.store.kind : "on it", story.habits,
               story.processes, story.threads,
               at_steps              ? "cut at steps"
               : story.setting.steps ? "steps"
                                     : "release");
    medium_remove(story.data.image);
    medium_remove(story.store.image);
    ledger_free(story.ledger, story.ledger_fd);
    return fine;
}

static int torture(void)
{
    unsigned cuts = torture_count("TORTURE_CUTS", 200);
    unsigned each = cuts <= 12 * CUTS_OF_A_SLICE ? CUTS_OF_A_SLICE : CUTS_OF_A_STORY;
    uint64_t seed = random_run_seed();
    double begin = seconds_now();
    bool fine = true;
    struct media media;

    if (!media_open(&media))
        return 77;
    for (unsigned index = 0; fine && total.cuts < cuts; index++)
        fine = tell(&media, index, cuts - total.cuts < each ? cuts - total.cuts : each, seed);
    media_close(&media);
    if (!fine)
        return EXIT_FAILURE;
    printf("%u cuts in %.0f s, %u of them at steps, %u of a volatile cache: %u acknowledged blocks outside dirty "
           "regions verified, %u blocks "
           "recovered, "
           "%u suspect regions (%u had been written recently, %u had just become clean), %u flips found, %u in the "
           "image\n",
           total.cuts, seconds_now() - begin, total.steps - total.steps_missed, total.losses, total.known,
           total.recovered, total.suspect, total.recent, total.lagging, total.flips + total.image_flips,
           total.image_flips);
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
