/*
 * Time, and what becomes of many measurements of it: medians and percentiles.
 */
#ifndef BOUNCEIO_BENCH_SAMPLE_H
#define BOUNCEIO_BENCH_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Nanoseconds of a clock that only goes forward, and of processor time that this process has had, in all of its threads. */
double clock_now(void);
double clock_processor(void);

/* What one call of clock_now costs, in nanoseconds: measured when first asked for. */
double clock_cost(void);

/*
 * Any number of durations, each kept to less than 1%: 128 counters for every power of two. It takes what comes without
 * allocating or moving anything, so that taking a sample costs every side of a comparison the same.
 */
enum { HISTOGRAM_STEPS = 128, HISTOGRAM_POWERS = 36 };

struct histogram {
    uint32_t counts[HISTOGRAM_POWERS][HISTOGRAM_STEPS];
    uint64_t total;
};

void histogram_add(struct histogram *histogram, double nanoseconds);

/* The value that `share` (0 to 1) of the samples do not exceed. 0 when there are none. */
double histogram_at(const struct histogram *histogram, double share);

/* The same of a list, exactly; sorts it. 0 when it is empty. */
double list_at(double *values, size_t count, double share);

#endif
