#include "bench/experiment.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "bench/bed.h"
#include "bench/record.h"

enum { MIB = 1 << 20, SIZE = 4096, THREADS_MAX = 8, ROUNDS_LEAST = 5, ROUND_REQUESTS = 8192 };

static const unsigned crowds[] = {1, 2, 4, 8};
enum { CROWDS = sizeof(crowds) / sizeof(crowds[0]) };

struct writer {
    pthread_t thread;
    void *door_state;
    struct work work;
    struct histogram latencies;
    unsigned requests;
    pthread_barrier_t *barrier;
};

static void *write_some(void *argument)
{
    struct writer *writer = argument;

    pthread_barrier_wait(writer->barrier);
    door_blocking.run(writer->door_state, &writer->work, writer->requests);
    pthread_barrier_wait(writer->barrier);
    return NULL;
}

/* `crowd` threads write ROUND_REQUESTS blocks together. @return nanoseconds for each. */
static double run_crowd(const struct side *side, unsigned crowd, uint64_t slots, unsigned round)
{
    static struct writer writers[THREADS_MAX];
    pthread_barrier_t barrier;

    memset(writers, 0, sizeof(writers));
    pthread_barrier_init(&barrier, NULL, crowd + 1);
    for (unsigned i = 0; i < crowd; i++) {
        struct writer *writer = &writers[i];

        writer->door_state = door_blocking.open(side->through_shim, 1);
        writer->barrier = &barrier;
        writer->requests = ROUND_REQUESTS / crowd;
        /* They begin far from one another in the same sequence of all slots: no two write the same block at once. */
        writer->work = (struct work){.fd = side->fd,
                                     .is_write = true,
                                     .is_random = true,
                                     .size = SIZE,
                                     .depth = 1,
                                     .slots = slots,
                                     .next = slots / crowd * i + (uint64_t)round * writer->requests,
                                     .memory = contest_memory(THREADS_MAX * SIZE) + (size_t)i * SIZE,
                                     .latencies = &writer->latencies};
        if (pthread_create(&writer->thread, NULL, write_some, writer) != 0)
            bench_die("pthread_create");
    }
    pthread_barrier_wait(&barrier);
    double begin = clock_now();

    pthread_barrier_wait(&barrier);
    double end = clock_now();

    for (unsigned i = 0; i < crowd; i++) {
        pthread_join(writers[i].thread, NULL);
        door_blocking.close(writers[i].door_state);
    }
    pthread_barrier_destroy(&barrier);
    return (end - begin) / (double)(ROUND_REQUESTS / crowd * crowd);
}

static double times[2][CROWDS][ROUNDS_MAX];

/* How many times faster `crowds[last]` threads are than one. */
static double scaling(unsigned side, unsigned last, unsigned rounds)
{
    static double values[ROUNDS_MAX];

    for (unsigned round = 0; round < rounds; round++)
        values[round] = times[side][0][round] / times[side][last][round];
    return list_at(values, rounds, 0.5);
}

static void record_scaling(const struct agenda *agenda, unsigned rounds)
{
    static const char *const names[] = {"zero-copy", "bounced"};
    static double values[ROUNDS_MAX];
    char name[64];

    for (unsigned crowd = 1; crowd < CROWDS; crowd++) {
        for (unsigned side = 0; side < 2; side++) {
            snprintf(name, sizeof(name), "%s, %u threads", names[side], crowds[crowd]);
            record_value(agenda, name, scaling(side, crowd, rounds), "times one thread");
        }
        /* The ratio of the two within each round. */
        for (unsigned round = 0; round < rounds; round++)
            values[round] = times[1][0][round] / times[1][crowd][round] * times[0][crowd][round] / times[0][0][round];
        snprintf(name, sizeof(name), "scaling ratio, %u threads", crowds[crowd]);
        record_value(agenda, name, list_at(values, rounds, 0.5), "");
    }
    for (unsigned crowd = 0; crowd < CROWDS; crowd++) {
        for (unsigned side = 0; side < 2; side++) {
            snprintf(name, sizeof(name), "%s, %u thread%s, time", names[side], crowds[crowd], crowd ? "s" : "");
            record_value(agenda, name, list_at(times[side][crowd], rounds, 0.5), "ns");
        }
    }
}

void experiment_threads(const struct setting *setting)
{
    uint64_t bytes = 64 * MIB;
    struct agenda agenda = agenda_begin("threads", setting->filesystem, 1, setting->seconds);
    const char *directory = setting->directory;
    struct bed bed = {bytes, 2, {BED_ZERO_COPY, BED_BOUNCED}, {directory, directory}, {0}};

    bed_make(&bed);
    struct side sides[] = {{.name = BED_ZERO_COPY, .fd = bed.fds[0]},
                           {.name = BED_BOUNCED, .fd = bed.fds[1], .through_shim = true, .is_bounced = true}};
    double end = clock_now() + agenda_next(&agenda, "1 to 8 threads write 4K") * 1e9;
    unsigned rounds = 0;

    for (; rounds < ROUNDS_LEAST || (rounds < ROUNDS_MAX && clock_now() < end); rounds++)
        for (unsigned crowd = 0; crowd < CROWDS; crowd++)
            for (unsigned turn = 0; turn < 2; turn++) {
                unsigned side = (turn + rounds) % 2;

                times[side][crowd][rounds] = run_crowd(&sides[side], crowds[crowd], bytes / SIZE, rounds);
            }
    record_scaling(&agenda, rounds);
    bed_remove(&bed);
    agenda_finish(&agenda);
}
