/*
 * The time window of our last write, and what a file's mtime says against it. MAP.md §8.
 *
 * Times are nanoseconds of CLOCK_REALTIME; a tick is the resolution of CLOCK_REALTIME_COARSE, the clock that stamps most files.
 * Thread-safe, async-signal-safe, lock-free; a stamp is stored only when it differs, at most once per millisecond.
 */
#ifndef BOUNCEIO_CHECKSUM_WINDOW_H
#define BOUNCEIO_CHECKSUM_WINDOW_H

#include "checksum/map.h"

/* The time now, as the kernel would stamp a file; taken before a write is issued. */
int64_t window_now(void);

/*
 * A write or mutator issued at `issued` has completed and may have moved mtime: the window becomes [issued, now]. Before its
 * in-flight entry is left (until then the window counts as open-ended). A request that wrote nothing must not call it.
 */
void window_renew(struct map *map, int64_t issued);

/* A write was refused: the kernel may have moved mtime all the same. The window becomes longer, not later. */
void window_extend(struct map *map);

/* Both, by somebody who knows when the write was over: at `over`, by window_fine_now(), at the latest. */
int64_t window_fine_now(void);
void window_renew_to(struct map *map, int64_t issued, int64_t over);
void window_extend_to(struct map *map, int64_t over);

/*
 * After a power cut with writes of ours not yet flushed: neither the header's window nor the file's mtime need be the last ones. The window
 * is made to reach mtime, up to a minute either way: what is dirty longer than that is written back.
 */
void window_bridge(struct map *map, int64_t modified);

/*
 * After a death with a write of ours in flight that was issued at `issued`: the window becomes [issued, modified], unless the file's mtime is
 * older, or so much later that somebody else must have moved it. Before the dead entry is left.
 */
void window_extend_for_dead(struct map *map, int64_t modified, int64_t issued);

/* The program set the file's times itself: `modified` is ours. */
void window_move(struct map *map, int64_t modified);

/* Has there been no write of ours for more than 100 ms at `now`? Then the next one looks at mtime before it renews the window. */
static inline bool window_is_stale(const struct map *map, int64_t now)
{
    const int64_t stale_after = 100 * 1000 * 1000;
    int64_t completion = atomic_load_explicit(&map->header->window_completion, memory_order_relaxed);
    return completion < now - stale_after || completion > now + stale_after;
}

/* `modified` when the file's times cannot be had. */
#define WINDOW_CANNOT_TELL INT64_MIN

/*
 * Was the file changed without the shim? `modified` is its mtime now; `self` the caller's own in-flight entry, or FLIGHT_BEYOND
 * for none. When it was, the whole file becomes suspect (MAP_CHANGED_OUTSIDE), and *first says whether that is news.
 */
bool window_changed_outside(struct map *map, int64_t modified, int self, bool *first);

/* The same, asked by who settles: requests of the dead do not keep the window open. After window_extend_for_dead. */
struct flight_dead;
bool window_changed_since_death(struct map *map, int64_t modified, const struct flight_dead *dead, bool *first);

#endif
