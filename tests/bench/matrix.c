#include "bench/experiment.h"

#include "bench/bed.h"
#include "bench/record.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

struct way {
    const struct door *door;
    unsigned depth;
    bool is_quick; /* part of the short form too */
};

static const struct way ways[] = {{&door_blocking, 1, true}, {&door_libaio, 1, false}, {&door_libaio, 16, false},
                                  {&door_libaio, 64, false}, {&door_uring, 1, false},  {&door_uring, 16, true},
                                  {&door_uring, 64, false}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static const struct size {
    size_t bytes;
    bool is_quick;
} sizes[] = {{4 * KIB, true}, {16 * KIB, false}, {64 * KIB, true}, {1 * MIB, true}, {4 * MIB, false}};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* Large enough that requests in flight never meet: the longest form has 64 of 4 MiB. */
static uint64_t file_bytes(const struct setting *setting)
{
    return setting->is_quick ? 64 * MIB : 256 * MIB;
}

static unsigned count_ways(bool is_quick)
{
    unsigned count = 0;

    for (int i = 0; i < WAYS; i++)
        count += !is_quick || ways[i].is_quick;
    return count;
}

static unsigned count_sizes(bool is_quick)
{
    unsigned count = 0;

    for (int i = 0; i < SIZES; i++)
        count += !is_quick || sizes[i].is_quick;
    return count;
}

/* One result. `sides` have their names, files and roles; the way in is set here. */
static void run_one(struct agenda *agenda, const struct way *way, struct side *sides, unsigned count,
                    const struct pattern *pattern)
{
    struct contest contest = {.sides = sides, .count = count, .pattern = *pattern};

    contest.pattern.depth = way->depth;
    for (unsigned i = 0; i < count; i++)
        sides[i].door = way->door;
    double seconds = agenda_next(agenda, "%s depth %u, %s %s %s", way->door->name, way->depth,
                                 pattern->is_random ? "random" : "sequential", size_name(pattern->size),
                                 pattern->is_write ? "writes" : "reads");

    contest_run(&contest, seconds);
    record_contest(agenda, way->door->name, &contest);
}

/* Both orders (the short form: random alone) and both operations of one size. */
static void run_size(struct agenda *agenda, const struct setting *setting, size_t size, const struct way *way,
                     struct side *sides, unsigned count)
{
    for (int order = setting->is_quick; order < 2; order++) {
        for (int write = 0; write < 2; write++) {
            struct pattern pattern = {
                .is_write = write, .is_random = order, .size = size, .file_bytes = file_bytes(setting)};

            run_one(agenda, way, sides, count, &pattern);
        }
    }
}

void experiment_matrix(const struct setting *setting)
{
    unsigned results = count_ways(setting->is_quick) * count_sizes(setting->is_quick) * (setting->is_quick ? 2 : 4);
    struct agenda agenda = agenda_begin("matrix", setting->filesystem, results, setting->seconds);
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting), 2, {BED_ZERO_COPY, BED_BOUNCED}, {directory, directory}, {0}};

    bed_make(&bed);
    struct side sides[] = {{.name = BED_ZERO_COPY, .fd = bed.fds[0]},
                           {.name = BED_BOUNCED, .fd = bed.fds[1], .through_shim = true, .is_bounced = true}};

    for (int way = 0; way < WAYS; way++)
        for (int size = 0; size < SIZES; size++)
            if (!setting->is_quick || (ways[way].is_quick && sizes[size].is_quick))
                run_size(&agenda, setting, sizes[size].bytes, &ways[way], sides, 2);
    bed_remove(&bed);
    agenda_finish(&agenda);
}

void experiment_control(const struct setting *setting)
{
    static const struct way control_ways[] = {{&door_blocking, 1, true}, {&door_uring, 16, true}};
    static const size_t control_sizes[] = {4 * KIB, 1 * MIB};
    struct agenda agenda = agenda_begin("control", setting->filesystem, 8, setting->seconds);
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting), 2, {BED_ZERO_COPY, BED_TWIN}, {directory, directory}, {0}};

    bed_make(&bed);
    struct side sides[] = {{.name = BED_ZERO_COPY, .fd = bed.fds[0]}, {.name = BED_TWIN, .fd = bed.fds[1]}};

    for (int way = 0; way < 2; way++) {
        for (int size = 0; size < 2; size++) {
            for (int write = 0; write < 2; write++) {
                struct pattern pattern = {.is_write = write,
                                          .is_random = true,
                                          .size = control_sizes[size],
                                          .file_bytes = file_bytes(setting)};

                run_one(&agenda, &control_ways[way], sides, 2, &pattern);
            }
        }
    }
    bed_remove(&bed);
    agenda_finish(&agenda);
}

void experiment_buffered(const struct setting *setting)
{
    unsigned results = 2 * count_sizes(setting->is_quick);
    struct agenda agenda = agenda_begin("buffered", setting->filesystem, results, setting->seconds);
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting),
                      3,
                      {BED_BUFFERED, BED_ZERO_COPY, BED_BOUNCED},
                      {setting->second, directory, directory},
                      {0}};

    bed_make(&bed);
    struct side sides[] = {{.name = BED_BUFFERED, .fd = bed.fds[0]},
                           {.name = BED_ZERO_COPY, .fd = bed.fds[1]},
                           {.name = BED_BOUNCED, .fd = bed.fds[2], .through_shim = true, .is_bounced = true}};

    for (int size = 0; size < SIZES; size++) {
        for (int write = 0; write < 2; write++) {
            struct pattern pattern = {.is_write = write, .size = sizes[size].bytes, .file_bytes = file_bytes(setting)};

            if (!setting->is_quick || sizes[size].is_quick)
                run_one(&agenda, &ways[0], sides, 3, &pattern);
        }
    }
    bed_remove(&bed);
    agenda_finish(&agenda);
}
