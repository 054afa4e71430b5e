/*
 * Sweeping: taking DIRTY off regions that nobody writes any more (checksum/region.h), so that a power cut makes only doubtful what was
 * written recently.
 *
 * It takes a flush of the file. Where the program makes one itself, the sweep goes along with it; where it never does, one of ours is made
 * in a blocking request, twice a minute at most, and before the last descriptor of the file is closed.
 * Slow paths, never under NOWAIT. Thread-safe, async-signal-safe.
 */
#ifndef BOUNCEIO_ENGINE_SWEEP_H
#define BOUNCEIO_ENGINE_SWEEP_H

#include "checksum/region.h"
#include "files/descriptor.h"

/* Around the program's fsync or fdatasync of `fd`. */
struct sweep {
    struct fd_view view; /* file NULL: nothing to sweep */
    uint64_t cursor;
    bool all;
    struct region_sweep regions;
};
void sweep_open(struct sweep *sweep, int fd);

/* The same of a view, whose references move to the sweep; or are released, when there is nothing to sweep. */
void sweep_open_view(struct sweep *sweep, struct fd_view *view);

/* Is there something to sweep? Then the sync must take the file's times along: fsync, not fdatasync. */
static inline bool sweep_is_open(const struct sweep *sweep)
{
    return sweep->view.file != NULL;
}
void sweep_close(struct sweep *sweep, bool synced);

/* The same without flushes of our own: what a sync is too short for is left to the next one. */
void sweep_close_briefly(struct sweep *sweep, bool synced);

/* The error of a flush of ours that the program has not been told of, once; 0: none. Its next fsync of the file fails with it. */
int sweep_unsaid(int fd);
int sweep_unsaid_of(struct file *file);

/* In a blocking request, at `now` (window_now): is it time for a sweep of our own? One load unless anything is DIRTY. */
bool sweep_is_due(const struct file *file, int64_t now);
void sweep_file(const struct fd_view *view, bool all);

/* `fd` is about to be closed. */
void sweep_at_close(int fd);

#endif
