/*
 * The time window of our last write, and what a file's mtime says against it. MAP.md §8.
 *
 * Times are nanoseconds of CLOCK_REALTIME_COARSE, the clock the kernel stamps files with; a tick is its resolution.
 * Thread-safe, async-signal-safe, lock-free; a header's line is written at most twice per tick.
 */
#ifndef BOUNCEIO_CHECKSUM_WINDOW_H
#define BOUNCEIO_CHECKSUM_WINDOW_H

#include "checksum/map.h"

/* Around every write and mutator. */
void window_stamp_issue(struct map *map);
void window_stamp_completion(struct map *map);

/* The program set the file's times itself: `modified` is ours. */
void window_move(struct map *map, int64_t modified);

/* Has there been no write of ours for more than 100 ms? Then the next one looks at mtime before it renews the window. */
bool window_is_stale(const struct map *map);

/*
 * Was the file changed without the shim? `modified` is its mtime now; `self` the caller's own in-flight entry, or
 * FLIGHT_BEYOND for none. When it was, the whole file becomes suspect (MAP_CHANGED_OUTSIDE), which is logged once.
 */
bool window_changed_outside(struct map *map, int64_t modified, int self, const char *path);

#endif
