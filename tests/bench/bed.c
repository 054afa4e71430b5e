#include "bench/bed.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/contest.h"

const char *bed_path(const char *directory, const char *name)
{
    static char paths[4][4096];
    static unsigned last;
    char *path = paths[++last % 4];

    if (snprintf(path, sizeof(paths[0]), "%s/%s", directory, name) >= (int)sizeof(paths[0]))
        bench_die("%s: too long", directory);
    return path;
}

/* Bytes of one file that are filled at a time, and by one write. */
enum { TURN_MAX = 4 << 20, TURNS_MIN = 16, PIECE_MAX = 1 << 20 };

static void fill(const struct bed *bed, unsigned file, uint64_t from, uint64_t to)
{
    size_t piece = to - from < PIECE_MAX ? to - from : PIECE_MAX;
    const unsigned char *memory = contest_memory(piece);

    for (uint64_t offset = from; offset < to; offset += piece)
        if (pwrite(bed->fds[file], memory, piece, (off_t)offset) != (ssize_t)piece)
            bench_die("%s/%s", bed->directories[file], bed->names[file]);
}

void bed_make(struct bed *bed)
{
    for (unsigned i = 0; i < bed->count; i++) {
        const char *path = bed_path(bed->directories[i], bed->names[i]);

        bed->fds[i] = open(path, O_RDWR | O_DIRECT | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (bed->fds[i] < 0)
            bench_die("%s", path);
    }
    uint64_t length = bed->bytes / TURNS_MIN < TURN_MAX ? bed->bytes / TURNS_MIN : TURN_MAX;

    for (uint64_t turn = 0; turn < bed->bytes / length; turn++)
        for (unsigned i = 0; i < bed->count; i++)
            fill(bed, (unsigned)((i + turn) % bed->count), turn * length, (turn + 1) * length);
    for (unsigned i = 0; i < bed->count; i++)
        if (fsync(bed->fds[i]) != 0)
            bench_die("%s/%s", bed->directories[i], bed->names[i]);
}

void bed_remove(const struct bed *bed)
{
    for (unsigned i = 0; i < bed->count; i++) {
        const char *path = bed_path(bed->directories[i], bed->names[i]);

        if (close(bed->fds[i]) != 0 || unlink(path) != 0)
            bench_die("%s", path);
    }
}
