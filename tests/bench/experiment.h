/*
 * The experiments. Each takes about the seconds that it is given, and hands its results to record.h.
 */
#ifndef BOUNCEIO_BENCH_EXPERIMENT_H
#define BOUNCEIO_BENCH_EXPERIMENT_H

#include <stdbool.h>

struct setting {
    const char *filesystem; /* its name, for the report */
    const char *directory;  /* an empty one on it */
    const char *second;     /* "buffered" only: another directory on it, where files have data checksums */
    double seconds;
    bool is_quick; /* fewer results, smaller files */
    const char
        *only; /* words, or NULL: of the matrix and its like only the results that have all of them in their names */
};

/* Is it to be measured? `name`: words, as in "blocking QD1 random 4K write". */
bool setting_wants(const struct setting *setting, const char *name);

/* Zero-copy against bounced: every way in, depth, size, order, operation. */
void experiment_matrix(const struct setting *setting);

/* Zero-copy against zero-copy: how far from 1 a ratio is by chance, and by where the files happen to lie. */
void experiment_control(const struct setting *setting);

/* btrfs: the kernel's own answer to unstable buffers (through the page cache) against zero-copy, and bounced. */
void experiment_buffered(const struct setting *setting);

/* Files that are made, written once, flushed and closed; the map grows with them. */
void experiment_new_files(const struct setting *setting);

/* Threads that write one file at random places: how much faster are more of them? */
void experiment_threads(const struct setting *setting);

/* What a request of 4 KiB costs more than zero-copy, beside the least that copying and hashing cost. */
void experiment_added(const struct setting *setting);

#endif
