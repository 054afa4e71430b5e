#include "bench/experiment.h"

#include <stdio.h>

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

/* --- What is compared --------------------------------------------------------------------------------------------- */

struct cell {
    const struct door *door;
    struct pattern pattern;
    char name[64];
};

struct cells {
    unsigned count;
    struct cell list[WAYS * SIZES * 4];
};

static void add_cell(struct cells *cells, const struct setting *setting, const struct way *way, size_t size,
                     bool random, bool write)
{
    struct cell *cell = &cells->list[cells->count];

    *cell = (struct cell){.door = way->door,
                          .pattern = {.is_write = write,
                                      .is_random = random,
                                      .size = size,
                                      .depth = way->depth,
                                      .file_bytes = file_bytes(setting)}};
    snprintf(cell->name, sizeof(cell->name), "%s QD%u %s %s %s", way->door->name, way->depth,
             random ? "random" : "sequential", size_name(size), write ? "write" : "read");
    cells->count += setting_wants(setting, cell->name);
}

/* Sequential and random, or one of them; reads and writes. */
static void add_cells(struct cells *cells, const struct setting *setting, const struct way *way, size_t size,
                      bool sequential, bool random)
{
    for (int order = !sequential; order < 1 + random; order++)
        for (int write = 0; write < 2; write++)
            add_cell(cells, setting, way, size, order, write);
}

static void run_cells(const struct cells *cells, const struct setting *setting, const char *experiment,
                      struct side *sides, unsigned count)
{
    struct agenda agenda = agenda_begin(experiment, setting->filesystem, cells->count, setting->seconds);

    for (unsigned i = 0; i < cells->count; i++) {
        const struct cell *cell = &cells->list[i];
        struct contest contest = {.sides = sides, .count = count, .pattern = cell->pattern};
        double seconds = agenda_next(&agenda, "%s", cell->name);

        for (unsigned side = 0; side < count; side++)
            sides[side].door = cell->door;
        contest_run(&contest, seconds);
        record_contest(&agenda, cell->door->name, &contest);
    }
    agenda_finish(&agenda);
}

/* --- The experiments ---------------------------------------------------------------------------------------------- */

void experiment_matrix(const struct setting *setting)
{
    static struct cells cells;
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting), 2, {BED_ZERO_COPY, BED_BOUNCED}, {directory, directory}, {0}};

    for (int way = 0; way < WAYS; way++)
        for (int size = 0; size < SIZES; size++)
            if (!setting->is_quick || (ways[way].is_quick && sizes[size].is_quick))
                add_cells(&cells, setting, &ways[way], sizes[size].bytes, !setting->is_quick, true);
    bed_make(&bed);
    struct side sides[] = {{.name = BED_ZERO_COPY, .fd = bed.fds[0]},
                           {.name = BED_BOUNCED, .fd = bed.fds[1], .through_shim = true, .is_bounced = true}};

    run_cells(&cells, setting, "matrix", sides, 2);
    bed_remove(&bed);
}

void experiment_control(const struct setting *setting)
{
    static const struct way control_ways[] = {{&door_blocking, 1, true}, {&door_uring, 16, true}};
    static const size_t control_sizes[] = {4 * KIB, 1 * MIB};
    static struct cells cells;
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting), 2, {BED_ZERO_COPY, BED_TWIN}, {directory, directory}, {0}};

    for (int way = 0; way < 2; way++)
        for (int size = 0; size < 2; size++)
            add_cells(&cells, setting, &control_ways[way], control_sizes[size], false, true);
    bed_make(&bed);
    struct side sides[] = {{.name = BED_ZERO_COPY, .fd = bed.fds[0]}, {.name = BED_TWIN, .fd = bed.fds[1]}};

    run_cells(&cells, setting, "control", sides, 2);
    bed_remove(&bed);
}

void experiment_buffered(const struct setting *setting)
{
    static struct cells cells;
    const char *directory = setting->directory;
    struct bed bed = {file_bytes(setting),
                      3,
                      {BED_BUFFERED, BED_ZERO_COPY, BED_BOUNCED},
                      {setting->second, directory, directory},
                      {0}};

    for (int size = 0; size < SIZES; size++)
        if (!setting->is_quick || sizes[size].is_quick)
            add_cells(&cells, setting, &ways[0], sizes[size].bytes, true, false);
    bed_make(&bed);
    struct side sides[] = {{.name = BED_BUFFERED, .fd = bed.fds[0]},
                           {.name = BED_ZERO_COPY, .fd = bed.fds[1]},
                           {.name = BED_BOUNCED, .fd = bed.fds[2], .through_shim = true, .is_bounced = true}};

    run_cells(&cells, setting, "buffered", sides, 3);
    bed_remove(&bed);
}
