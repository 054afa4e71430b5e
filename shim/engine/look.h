/*
 * What is to be seen to before a blocking request that changes a file renews the map's time window: requests of the dead, whose writes are
 * not changes from outside, and changes from outside, which the window would cover up.
 *
 * Slow paths but for the question whether there is anything to do. Thread-safe, async-signal-safe, never under NOWAIT.
 */
#ifndef BOUNCEIO_ENGINE_LOOK_H
#define BOUNCEIO_ENGINE_LOOK_H

#include <stdint.h>

#include "files/descriptor.h"

/* The file's mtime in nanoseconds of CLOCK_REALTIME; WINDOW_CANNOT_TELL when the view's number no longer leads there. */
int64_t look_modified(const struct fd_view *view);

/* Before a change of a file that has a map. */
void look_before_change(const struct fd_view *view);

/* Before a direct write: the same, and a sweep when it is time for one. @return window_now(), a moment ago. */
int64_t look_before_write(const struct fd_view *view);

#endif
