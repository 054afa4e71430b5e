/*
 * Sides of a comparison take turns in one process: the same requests, a few at a time, to each side's own file. What is compared is
 * what happened within one round, a few milliseconds: drift of the machine and its neighbours meets all sides alike.
 */
#ifndef BOUNCEIO_BENCH_CONTEST_H
#define BOUNCEIO_BENCH_CONTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/door.h"

enum { SIDES_MAX = 4, ROUNDS_MAX = 4096 };

struct side {
    const char *name;
    const struct door *door;
    bool through_shim;
    bool is_bounced; /* its requests are to be bounced, which the shim's counters must show */
    int fd;          /* of a file that is filled from end to end */
};

/* What all sides do. */
struct pattern {
    bool is_write;
    bool is_random;
    size_t size;    /* a power of two, at least 4,096 */
    unsigned depth; /* requests in flight */
    uint64_t file_bytes;
};

/* Nanoseconds for a request. With several in flight, `time` is what each adds to the whole, and latency how long one is under way. */
struct outcome {
    double time;                 /* median over the rounds */
    double latency50, latency99; /* of all requests; 0 where a request has none */
    double processor;            /* of this process, in all of its threads: mean */
    /* Against side 0, within a round: its time / this time, median and quartiles; this time - its time, median. */
    double ratio, ratio_low, ratio_high;
    double added;
};

struct contest {
    const struct side *sides;
    unsigned count;
    struct pattern pattern;
    /* Filled by contest_run: */
    struct outcome outcomes[SIDES_MAX];
    unsigned rounds;
    unsigned requests; /* of each side in a round */
    double
        covered; /* of the blocks that is_bounced sides moved: how many the shim summed (writes) or verified (reads), 0 to 1 */
};

/* Run for about `seconds`, and longer for the sake of nine rounds: up to twice as long, at least three rounds. */
void contest_run(struct contest *contest, double seconds);

/* Memory for the requests of all contests, as a program gets it from the system: `bytes` of random content. */
unsigned char *contest_memory(size_t bytes);

/* The shim's counter of blocks summed or verified. 0 without the shim. */
uint64_t contest_covered_blocks(bool is_write);

#endif
