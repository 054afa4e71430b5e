/*
 * A progress bar on stderr, with rate and time left: only when stderr is a terminal, and drawn at most ten times a second.
 *
 * The cursor rests at the beginning of the bar's line, so that a message that comes from elsewhere writes over it.
 */
#ifndef BOUNCEIO_CLI_PROGRESS_H
#define BOUNCEIO_CLI_PROGRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "scrub" */
    bool shown;
    uint64_t begun;               /* nanoseconds of CLOCK_MONOTONIC */
    _Atomic uint64_t total, done; /* bytes; the total may grow */
    _Atomic uint64_t next;        /* when the bar is drawn again */
};

/* `quiet`: never shown. */
void progress_open(struct progress *progress, const char *what, uint64_t total, bool quiet);

/* So many bytes more are done; any thread. */
void progress_add(struct progress *progress, uint64_t bytes);

/* Erase the bar before something is printed; it comes back with the next progress_add. Any thread. */
void progress_hide(struct progress *progress);

/* Erase the bar for good. */
void progress_close(struct progress *progress);

/* Nanoseconds since progress_open, shown or not. */
uint64_t progress_elapsed(const struct progress *progress);

/* "12.3 GiB", for bars and summaries. @return buffer */
enum { SIZE_TEXT = 16 };
const char *size_text(char buffer[SIZE_TEXT], double bytes);

#endif
