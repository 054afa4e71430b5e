/*
 * One file by every road at once: blocking calls, POSIX AIO, and each front door of libaio and io_uring, a thread each. Whoever keeps to blocks
 * of his own finds all of them verified; where they meet, nothing is called damaged that is not.
 */
#include <aio.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/async.h"
#include "support/direct.h"

enum { ROADS_MAX = 12, DEPTH = 8, OWN = 16 /* blocks of each road */, PIECE = 4 * BLOCK };

/* What one thread does with a batch of requests: all of them are over when it returns. */
struct road {
    const char *name;
    void (*batch)(struct road *road, const struct async_request *list, unsigned count, int64_t *results);
    const struct async_door *door;
    struct async async;
    int fd;
    unsigned number, of; /* its blocks are those with block % of == number */
    struct random random;
    unsigned rounds;
    char *memory; /* DEPTH pieces */
    pthread_t thread;
};

/* --- Roads -------------------------------------------------------------------------------------------------------- */

static void batch_blocking(struct road *road, const struct async_request *list, unsigned count, int64_t *results)
{
    (void)road;
    for (unsigned i = 0; i < count; i++) {
        const struct async_request *request = &list[i];
        ssize_t done = request->is_write ? pwrite(request->fd, request->memory, request->length, request->offset)
                                         : pread(request->fd, request->memory, request->length, request->offset);
        results[i] = done < 0 ? -errno : done;
    }
}

static void batch_posix(struct road *road, const struct async_request *list, unsigned count, int64_t *results)
{
    struct aiocb blocks[DEPTH];

    memset(blocks, 0, sizeof blocks);
    for (unsigned i = 0; i < count; i++) {
        blocks[i].aio_fildes = list[i].fd;
        blocks[i].aio_buf = list[i].memory;
        blocks[i].aio_nbytes = list[i].length;
        blocks[i].aio_offset = list[i].offset;
        check_that((list[i].is_write ? aio_write(&blocks[i]) : aio_read(&blocks[i])) == 0, "%s: not taken", road->name);
    }
    for (unsigned i = 0; i < count; i++) {
        const struct aiocb *const one[] = {&blocks[i]};
        const struct timespec patience = {.tv_sec = ASYNC_PATIENCE / 1000};

        while (aio_error(&blocks[i]) == EINPROGRESS)
            check_that(aio_suspend(one, 1, &patience) == 0 || errno == EINTR, "%s: nothing comes", road->name);
        int error = aio_error(&blocks[i]);
        ssize_t done = aio_return(&blocks[i]);

        results[i] = error != 0 ? -error : done;
    }
}

static void batch_async(struct road *road, const struct async_request *list, unsigned count, int64_t *results)
{
    struct async_result reaped[DEPTH];
    unsigned submitted = 0, finished = 0;

    while (finished < count) {
        if (submitted < count) {
            int taken = async_submit(&road->async, list + submitted, count - submitted);

            check_that(taken > 0, "%s: submitting gave %d", road->name, taken);
            submitted += (unsigned)taken;
        }
        int came = async_reap(&road->async, reaped, 1, DEPTH, ASYNC_PATIENCE);

        check_that(came > 0, "%s: nothing comes: %d", road->name, came);
        for (int i = 0; i < came; i++)
            results[reaped[i].tag] = reaped[i].result;
        finished += (unsigned)came;
    }
}

static void open_road(struct road *road)
{
    road->memory = aligned_alloc(BLOCK, DEPTH * PIECE + BLOCK);
    check_that(road->memory, "no memory");
    memset(road->memory, 0, DEPTH * PIECE + BLOCK);
    if (road->door)
        async_use(&road->async, road->fd, road->memory, DEPTH * PIECE + BLOCK);
}

static void close_roads(struct road *roads, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (roads[i].door)
            async_close(&roads[i].async);
        free(roads[i].memory);
    }
}

/* @return how many there are. */
static unsigned open_roads(struct road *roads, int fd, uint64_t seed)
{
    unsigned count = 0;

    roads[count++] = (struct road){.name = "blocking", .batch = batch_blocking};
    roads[count++] = (struct road){.name = "POSIX AIO", .batch = batch_posix};
    for (const struct async_door *door = async_doors; door->name && count < ROADS_MAX; door++) {
        if (door->setup & IORING_SETUP_SINGLE_ISSUER)
            continue; /* its ring would belong to this thread */
        roads[count] = (struct road){.name = door->name, .batch = batch_async, .door = door};
        count += async_open(&roads[count].async, door, DEPTH);
    }
    for (unsigned i = 0; i < count; i++) {
        roads[i].fd = fd;
        roads[i].number = i;
        roads[i].of = count;
        roads[i].random.state = seed + i;
        open_road(&roads[i]);
    }
    return count;
}

static void run(struct road *roads, unsigned count, void *(*work)(void *), unsigned how_often)
{
    for (unsigned i = 0; i < count; i++) {
        roads[i].rounds = how_often;
        check_that(pthread_create(&roads[i].thread, NULL, work, &roads[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(roads[i].thread, NULL);
}

/* --- Blocks of one's own ---------------------------------------------------------------------------------------------- */

static uint64_t own_offset(const struct road *road, unsigned index)
{
    return ((uint64_t)index * road->of + road->number) * BLOCK;
}

/* A batch of DEPTH of one's own blocks, from `first` on. `seed` is that of the content. */
static void own_batch(struct road *road, bool is_write, unsigned first, uint64_t seed, int64_t *results)
{
    struct async_request list[DEPTH];

    for (unsigned i = 0; i < DEPTH; i++) {
        uint64_t offset = own_offset(road, (first + i) % OWN);
        char *memory = road->memory + i * PIECE;

        if (is_write)
            pattern_fill(memory, BLOCK, seed, offset);
        list[i] =
            is_write ? async_write(road->fd, memory, BLOCK, offset, i) : async_read(road->fd, memory, BLOCK, offset, i);
    }
    road->batch(road, list, DEPTH, results);
}

static void *keep_to_own_blocks(void *argument)
{
    struct road *road = argument;
    int64_t results[DEPTH];

    for (unsigned round = 0; round < road->rounds + 2; round++) {
        unsigned first = round * DEPTH % OWN; /* the last two rounds write all of them */
        uint64_t seed = random_next(&road->random);

        own_batch(road, true, first, seed, results);
        for (unsigned i = 0; i < DEPTH; i++)
            check_that(results[i] == BLOCK, "%s: a write gave %lld", road->name, (long long)results[i]);
        own_batch(road, false, first, seed, results);
        for (unsigned i = 0; i < DEPTH; i++) {
            uint64_t offset = own_offset(road, (first + i) % OWN);

            check_that(results[i] == BLOCK, "%s: a read gave %lld", road->name, (long long)results[i]);
            check_that(pattern_check(road->memory + i * PIECE, BLOCK, seed, offset) == BLOCK,
                       "%s: not what was written at %llu", road->name, (unsigned long long)offset);
        }
    }
    return NULL;
}

/* Read the whole file by one road. @return blocks that were not verified, which is none of the shim's business without it. */
static uint64_t read_all(struct road *road, unsigned blocks)
{
    struct bounceio_stats before = counters();

    for (unsigned block = 0; block < blocks; block += DEPTH) {
        struct async_request list[DEPTH];
        int64_t results[DEPTH];
        unsigned count = blocks - block < DEPTH ? blocks - block : DEPTH;

        for (unsigned i = 0; i < count; i++)
            list[i] = async_read(road->fd, road->memory + i * PIECE, BLOCK, (uint64_t)(block + i) * BLOCK, i);
        road->batch(road, list, count, results);
        for (unsigned i = 0; i < count; i++)
            check_that(results[i] == BLOCK, "%s: block %u: %lld", road->name, block + i, (long long)results[i]);
    }
    struct bounceio_stats after = counters();

    return after.blocks_unverified - before.blocks_unverified;
}

START_TEST(whoever_keeps_to_his_own_blocks_finds_all_of_them_verified)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct road roads[ROADS_MAX];
        int fd = direct_open(path_in(fs[i].path, "mixed"), O_RDWR | O_CREAT | O_TRUNC);
        unsigned number = open_roads(roads, fd, random_run_seed());
        struct bounceio_stats before = counters();

        run(roads, number, keep_to_own_blocks, (unsigned)rounds(60, 3000));
        for (unsigned road = 0; road < number; road++)
            check_that(read_all(&roads[road], OWN * number) == 0, "%s, %s: blocks without a checksum", fs[i].name,
                       roads[road].name);
        struct bounceio_stats after = counters();

        check_that(after.mismatches == before.mismatches, "%s: damage where there is none", fs[i].name);
        check_that(after.passed_through == before.passed_through, "%s: not all was bounced", fs[i].name);
        close_roads(roads, number);
        close(fd);
    }
}
END_TEST

/* --- Where they meet --------------------------------------------------------------------------------------------------- */

static void *go_anywhere(void *argument)
{
    struct road *road = argument;
    struct async_request list[DEPTH];
    int64_t results[DEPTH];
    const uint64_t sectors = (uint64_t)OWN * road->of * BLOCK / SECTOR;

    for (unsigned round = 0; round < road->rounds; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            const uint64_t unit = random_chance(&road->random, 70) ? BLOCK / SECTOR : 1;
            const uint64_t length = (1 + random_below(&road->random, PIECE / SECTOR / unit)) * unit;
            const uint64_t offset = random_below(&road->random, (sectors - length) / unit) * unit;
            char *memory = road->memory + i * PIECE;

            list[i] = random_chance(&road->random, 50)
                          ? async_write(road->fd, memory, length * SECTOR, offset * SECTOR, i)
                          : async_read(road->fd, memory, length * SECTOR, offset * SECTOR, i);
            if (list[i].is_write)
                pattern_fill(memory, list[i].length, random_next(&road->random), 0);
        }
        road->batch(road, list, DEPTH, results);
        for (unsigned i = 0; i < DEPTH; i++)
            check_that(results[i] == (int64_t)list[i].length || results[i] == -EINVAL,
                       "%s: %s of %zu at %lld gave %lld", road->name, list[i].is_write ? "writing" : "reading",
                       list[i].length, (long long)list[i].offset, (long long)results[i]);
    }
    return NULL;
}

START_TEST(where_they_meet_nothing_healthy_is_called_damaged)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        struct road roads[ROADS_MAX];
        int fd = direct_open(path_in(fs[i].path, "meeting"), O_RDWR | O_CREAT | O_TRUNC);
        unsigned number = open_roads(roads, fd, random_run_seed());
        const unsigned blocks = OWN * number;

        direct_write(fd, 1, 0, (size_t)blocks * BLOCK);
        struct bounceio_stats before = counters();

        run(roads, number, go_anywhere, (unsigned)rounds(60, 3000));
        for (unsigned road = 0; road < number; road++)
            read_all(&roads[road], blocks);
        check_that(counters().mismatches == before.mismatches, "%s: damage where there is none", fs[i].name);
        /* Nothing of it stays: what is written now is known again. */
        direct_write(fd, 2, 0, (size_t)blocks * BLOCK);
        check_that(read_all(&roads[number - 1], blocks) == 0, "%s: blocks that nobody can know any more", fs[i].name);
        close_roads(roads, number);
        close(fd);
    }
}
END_TEST

/* --- Damage ------------------------------------------------------------------------------------------------------------ */

/* What one road has written is verified by every other. */
START_TEST(damage_is_met_by_every_road)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; counting() && i < count; i++) {
        struct road roads[ROADS_MAX];
        const char *path = path_in(fs[i].path, "damaged");
        int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
        unsigned number = open_roads(roads, fd, random_run_seed());

        run(roads, number, keep_to_own_blocks, 0);
        for (unsigned writer = 0; writer < number; writer++)
            flip_bit_behind(path, own_offset(&roads[writer], 3) + 77, writer % 8);
        for (unsigned reader = 0; reader < number; reader++)
            for (unsigned writer = 0; writer < number; writer++) {
                struct async_request list[] = {
                    async_read(fd, roads[reader].memory, BLOCK, own_offset(&roads[writer], 3), 0),
                    async_read(fd, roads[reader].memory + PIECE, BLOCK, own_offset(&roads[writer], 4), 1)};
                int64_t results[2];

                roads[reader].batch(&roads[reader], list, 2, results);
                check_that(results[0] == -EIO && results[1] == BLOCK, "%s: %s reads what %s wrote: %lld, %lld",
                           fs[i].name, roads[reader].name, roads[writer].name, (long long)results[0],
                           (long long)results[1]);
            }
        close_roads(roads, number);
        close(fd);
    }
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {whoever_keeps_to_his_own_blocks_finds_all_of_them_verified,
                                  where_they_meet_nothing_healthy_is_called_damaged, damage_is_met_by_every_road, NULL};

    return support_main(argc, argv, "one file by every road", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 240, NULL, tests);
}
