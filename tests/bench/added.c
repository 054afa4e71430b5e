#include "bench/experiment.h"

#include "bench/bed.h"
#include "bench/record.h"

enum { MIB = 1 << 20, SIZE = 4096 };

static const struct {
    const struct door *door;
    unsigned depth;
} ways[] = {{&door_blocking, 1}, {&door_libaio, 16}, {&door_uring, 16}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

void experiment_added(const struct setting *setting)
{
    uint64_t bytes = 4 * MIB; /* what is measured is the processor's work, so all of it stays in its cache */
    struct agenda agenda = agenda_begin("added", setting->filesystem, 2 * WAYS, setting->seconds);
    const char *directory = setting->directory;
    /* A file of its own for each side: one that two sides use is found in the cache more often. */
    struct bed bed = {bytes, 3, {BED_ZERO_COPY, BED_BOUNCED, BED_TWIN}, {directory, directory, directory}, {0}};

    bed_make(&bed);
    for (int way = 0; way < WAYS; way++) {
        for (int write = 0; write < 2; write++) {
            const struct door *door = ways[way].door;
            /* The third is what a program pays for files that the shim has been told to leave alone. */
            const struct side sides[] = {
                {.name = BED_ZERO_COPY, .door = door, .fd = bed.fds[0]},
                {.name = BED_BOUNCED, .door = door, .fd = bed.fds[1], .through_shim = true, .is_bounced = true},
                {.name = "excluded", .door = door, .fd = bed.fds[2], .through_shim = true},
                {.name = "floor", .door = &door_floor}};
            struct contest contest = {
                .sides = sides,
                .count = 4,
                .pattern = {
                    .is_write = write, .is_random = true, .size = SIZE, .depth = ways[way].depth, .file_bytes = bytes}};
            double seconds =
                agenda_next(&agenda, "%s depth %u, %s", door->name, ways[way].depth, write ? "writes" : "reads");

            contest_run(&contest, seconds);
            record_contest(&agenda, door->name, &contest);
        }
    }
    bed_remove(&bed);
    agenda_finish(&agenda);
}
