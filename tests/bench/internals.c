/*
 * Two pieces of every bounced request, by themselves: taking pages from the pool and giving them back, and announcing a write in the map
 * and publishing it. Linked with the floors below the wrappers; nothing is preloaded.
 *
 *   internals DIRECTORY     an empty one, on a file system that maps may be on
 *
 * Lines of JSON for the benchmark's report: nanoseconds for each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/pool.h"
#include "checksum/announce.h"

enum { RUNS = 301, CALLS = 1000, BLOCKS = 1 << 14, KIB = 1 << 10 };

static struct map map;

static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "internals: %s: %s\n", what, strerror(error));
    exit(2);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* --- Pieces ------------------------------------------------------------------------------------------------------- */

static void take_and_give(size_t bytes, unsigned number)
{
    struct extent extent;
    int error = pool_take(&extent, bytes, false);

    (void)number;
    if (error)
        die("pool_take", -error);
    pool_give(&extent);
}

static void announce_and_publish(size_t bytes, unsigned number)
{
    static uint64_t sums[BLOCKS];
    struct announcement announcement;
    uint64_t blocks = bytes / POOL_PAGE, first = number * blocks * 7 % (BLOCKS - blocks);

    /* Never the sum that is there: that would be another way through the code. */
    for (uint64_t i = 0; i < blocks; i++)
        sums[i] = number + 1;
    announce_open(&announcement, &map, first, blocks, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, first, blocks, sums);
    announce_publish(&announcement, first, blocks);
    announce_close(&announcement);
}

static const struct piece {
    const char *name;
    void (*run)(size_t bytes, unsigned number);
    size_t bytes;
} pieces[] = {{"pool take and give, 4K", take_and_give, 4 * KIB},
              {"pool take and give, 64K", take_and_give, 64 * KIB},
              {"pool take and give, 1M", take_and_give, 1024 * KIB},
              {"announce and publish, 4K", announce_and_publish, 4 * KIB},
              {"announce and publish, 64K", announce_and_publish, 64 * KIB},
              {"announce and publish, 1M", announce_and_publish, 1024 * KIB}};

/* @return nanoseconds for each call: the median over the runs. */
static double measure(const struct piece *piece)
{
    static double runs[RUNS];
    unsigned number = 0;

    for (int run = 0; run < RUNS; run++) {
        unsigned calls = piece->bytes > 64 * KIB ? CALLS / 20 : CALLS;
        double begin = now();

        for (unsigned call = 0; call < calls; call++)
            piece->run(piece->bytes, number++);
        runs[run] = (now() - begin) / calls;
    }
    qsort(runs, RUNS, sizeof(*runs), by_value);
    return runs[RUNS / 2];
}

/* A map for a file of BLOCKS blocks. */
static void make_map(const char *directory)
{
    static char store[4096], path[4096];
    struct map_key key;
    uint64_t saved;

    if (snprintf(store, sizeof(store), "%s/store", directory) >= (int)sizeof(store) ||
        snprintf(path, sizeof(path), "%s/file", directory) >= (int)sizeof(path))
        die(directory, ENAMETOOLONG);
    config.store = store;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        die(path, errno);
    int error = map_key_of(fd, &key);

    process_lock(&saved);
    if (!error)
        error = map_open(&map, &key, true);
    if (!error)
        error = map_cover(&map, 0, BLOCKS);
    process_unlock(&saved);
    if (error)
        die("map", -error);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: internals DIRECTORY\n", stderr);
        return 2;
    }
    if (pool_prepare() != 0)
        die("pool_prepare", ENOMEM);
    make_map(argv[1]);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        printf("{\"experiment\": \"internals\", \"name\": \"%s\", \"value\": %.1f, \"unit\": \"ns\"}\n", pieces[i].name,
               measure(&pieces[i]));
    return 0;
}
