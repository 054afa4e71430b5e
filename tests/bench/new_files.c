/*
 * What a new file costs from open to close: creating it, the first write of every block, fsync, close. Under the shim that includes its
 * map, which grows with it, and flushing what says that the file's regions are clean.
 *
 * Each life begins with the file system idle: what the one before it has left to be written, and the removal of its file, is waited for where no
 * clock runs. Otherwise a journal would make one side pay for the other. The first lives warm up, and count for nothing.
 */
#include "bench/experiment.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/bed.h"
#include "bench/record.h"

enum { KIB = 1 << 10, MIB = 1 << 20, ROUNDS_LEAST = 3 };

static const struct {
    size_t size, bytes;
} files[] = {{4 * KIB, 4 * MIB}, {64 * KIB, 32 * MIB}, {1 * MIB, 128 * MIB}};
enum { FILES = sizeof(files) / sizeof(files[0]) };

/* @return nanoseconds for each write. The shim sees all of it; the file's name says whether it bounces. */
static double write_file(const char *path, size_t size, size_t bytes, double *processor)
{
    const unsigned char *memory = contest_memory(size);
    double processor_before = clock_processor(), begin = clock_now();
    int fd = open(path, O_WRONLY | O_DIRECT | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        bench_die("%s", path);
    for (size_t offset = 0; offset < bytes; offset += size)
        if (pwrite(fd, memory, size, (off_t)offset) != (ssize_t)size)
            bench_die("%s", path);
    if (fsync(fd) != 0 || close(fd) != 0)
        bench_die("%s", path);
    double writes = (double)(bytes / size), end = clock_now();

    *processor = (clock_processor() - processor_before) / writes;
    if (unlink(path) != 0)
        bench_die("%s", path);
    return (end - begin) / writes;
}

/* A life on an idle file system. `life`: a number that none had before; the map of a name that was unlinked is not opened again. */
static double live(const struct setting *setting, const struct contest *contest, unsigned side, unsigned life,
                   double *processor)
{
    const struct pattern *pattern = &contest->pattern;
    char name[64];

    snprintf(name, sizeof(name), "%s.%zu.%u", contest->sides[side].name, pattern->size, life);
    int directory = open(setting->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0 || syncfs(directory) != 0 || close(directory) != 0)
        bench_die("%s", setting->directory);
    return write_file(bed_path(setting->directory, name), pattern->size, pattern->file_bytes, processor);
}

/* The sides in turns until the time is over. */
static unsigned run_rounds(const struct setting *setting, double seconds, struct contest *contest)
{
    static double times[2][ROUNDS_MAX], values[ROUNDS_MAX];
    double end = clock_now() + seconds * 1e9, processor;
    struct outcome *outcomes = contest->outcomes;
    unsigned rounds = 0, life = 0;

    for (; life < 2; life++)
        live(setting, contest, life, life, &processor);
    for (; rounds < ROUNDS_LEAST || (rounds < ROUNDS_MAX && clock_now() < end); rounds++) {
        for (unsigned turn = 0; turn < 2; turn++) {
            unsigned side = (turn + rounds) % 2;

            times[side][rounds] = live(setting, contest, side, life++, &processor);
            outcomes[side].processor += processor;
        }
    }
    for (unsigned round = 0; round < rounds; round++)
        values[round] = times[0][round] / times[1][round];
    outcomes[1].ratio = list_at(values, rounds, 0.5);
    outcomes[1].ratio_low = list_at(values, rounds, 0.25);
    outcomes[1].ratio_high = list_at(values, rounds, 0.75);
    for (unsigned round = 0; round < rounds; round++)
        values[round] = times[1][round] - times[0][round];
    outcomes[1].added = list_at(values, rounds, 0.5);
    for (int side = 0; side < 2; side++) {
        outcomes[side].processor /= rounds;
        outcomes[side].time = list_at(times[side], rounds, 0.5);
    }
    outcomes[0].ratio = outcomes[0].ratio_low = outcomes[0].ratio_high = 1;
    return rounds;
}

void experiment_new_files(const struct setting *setting)
{
    static const struct side sides[] = {{.name = BED_ZERO_COPY}, {.name = BED_BOUNCED, .is_bounced = true}};
    struct agenda agenda = agenda_begin("new files", setting->filesystem, FILES, setting->seconds);

    for (int i = 0; i < FILES; i++) {
        size_t size = files[i].size, bytes = setting->is_quick ? files[i].bytes / 4 : files[i].bytes;
        struct contest contest = {
            .sides = sides, .count = 2, .pattern = {.is_write = true, .size = size, .depth = 1, .file_bytes = bytes}};
        double seconds = agenda_next(&agenda, "files of %s by %s", size_name(bytes), size_name(size));
        uint64_t covered = contest_covered_blocks(true);

        contest.rounds = run_rounds(setting, seconds, &contest);
        contest.requests = (unsigned)(bytes / size);
        covered = contest_covered_blocks(true) - covered;
        contest.covered = (double)covered * 4 * KIB / ((double)bytes * (contest.rounds + 1));
        record_contest(&agenda, "blocking", &contest);
    }
    agenda_finish(&agenda);
}
