/*
 * What the experiments hand to the report: one JSON object in a line of standard output for each result; and a line of progress on
 * standard error.
 */
#ifndef BOUNCEIO_BENCH_RECORD_H
#define BOUNCEIO_BENCH_RECORD_H

#include "bench/contest.h"

/* Time for all of an experiment's results: each gets an equal share of what is left. */
struct agenda {
    const char *experiment;
    const char *filesystem;
    double end;    /* clock_now */
    unsigned left; /* results to come */
    unsigned all;
};

struct agenda agenda_begin(const char *experiment, const char *filesystem, unsigned results, double seconds);

/* Seconds for the next result, and the line of progress that says what it is. */
double agenda_next(struct agenda *agenda, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The line of progress goes away. */
void agenda_finish(const struct agenda *agenda);

/* One contest that was run; `door` names the way all its sides go. */
void record_contest(const struct agenda *agenda, const char *door, const struct contest *contest);

/* One number: {"experiment":...,"name":...,"value":...,"unit":...}. */
void record_value(const struct agenda *agenda, const char *name, double value, const char *unit);

/* "4K", "1M": in one of 4 rotating buffers. */
const char *size_name(uint64_t bytes);

#endif
