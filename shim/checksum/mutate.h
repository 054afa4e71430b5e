/*
 * Mutators: whatever changes content without a checksum in hand. MAP.md §6.
 *
 * In this order: raise the header's count, enter the range in the in-flight table, make the regions durable-dirty, the change itself,
 * for each block pending and then current, leave the table, lower the count. While the count is not 0, publishes and mismatches look whether a mutator
 * covers the block. A death can only leave the count too high.
 * Thread-safe, async-signal-safe. mutate_open and mutate_close may map windows that other sessions added.
 */
#ifndef BOUNCEIO_CHECKSUM_MUTATE_H
#define BOUNCEIO_CHECKSUM_MUTATE_H

#include "checksum/map.h"

struct mutation {
    struct map *map; /* NULL: nothing to do */
    int flight;
    uint64_t ticket;
    int64_t issued; /* time, for the window */
    bool
        times_kept; /* set by the caller before mutate_close: the file's mtime is, or may be, that of an earlier write */
};

/*
 * Before the change: everything in [first, first + blocks) may change. FLIGHT_TO_END: from first on. Its regions are durable-dirty
 * when this returns. @return 0; -EAGAIN under `nowait` when that would have to be waited for, with nothing open.
 */
int mutate_open(struct mutation *mutation, struct map *map, uint64_t first, uint64_t blocks,
                enum flight_transport transport, bool nowait);

/* After the change: blocks [first, first + blocks), a part of the range opened, are unknown. 0 blocks: nothing was changed. */
void mutate_close(struct mutation *mutation, uint64_t first, uint64_t blocks);

/* For each block that has words: pending (non-zero becomes contended), then current = unknown. */
void mutate_unknown(struct map *map, uint64_t first, uint64_t blocks);

#endif
