/*
 * Writing under checksums: announce, then publish, withdraw or forget. MAP.md §§3 and 4.
 *
 *   announce   the range is in this session's in-flight table; each block's pending word holds the new checksum, or says that
 *              several requests meet there
 *   publish    the bytes are known to be written: current = the new checksum, for a sole owner over whom no mutator went
 *   withdraw   nothing can have been written: current stands
 *   forget     anything may have been written: current = unknown
 *
 * A pending word that holds a checksum while one of our announcements covers the block is ours: whoever joins turns it into
 * "contended", and a checksum is entered only into a word that was idle, or claimed from an orphan when no live request was over
 * the block. So nothing need be remembered between announcing and publishing but the range.
 *
 * All of it is thread-safe, async-signal-safe, lock-free, allocates nothing. The map must cover the range (map_covers).
 */
#ifndef BOUNCEIO_CHECKSUM_ANNOUNCE_H
#define BOUNCEIO_CHECKSUM_ANNOUNCE_H

#include "base/step.h"
#include "checksum/map.h"
#include "checksum/session.h"

struct announcement {
    struct map *map;
    struct block_words *words; /* of the first blocks of the range, which lie in one unit */
    uint64_t first, run;       /* which, and how many; 0: they have none */
    int flight;
    uint64_t ticket;
    bool nowait; /* never map another session's table: count it as live instead */
};

/* Enter [first, first + blocks) into the in-flight table. Before any word is touched. */
void announce_open(struct announcement *announcement, struct map *map, uint64_t first, uint64_t blocks,
                   enum flight_kind kind, enum flight_transport transport, bool nowait);

/* The same by somebody who has just looked at the clock: `now` is what window_now() said. */
void announce_open_at(struct announcement *announcement, struct map *map, uint64_t first, uint64_t blocks,
                      enum flight_kind kind, enum flight_transport transport, bool nowait, int64_t now);

/* Announce whole blocks with their new checksums. */
void announce_sums(const struct announcement *announcement, uint64_t first, uint64_t blocks, const uint64_t *sums);

/* One of these for every block announced, before announce_close. */
void announce_publish(const struct announcement *announcement, uint64_t first, uint64_t blocks);
void announce_withdraw(const struct announcement *announcement, uint64_t first, uint64_t blocks);
void announce_forget(const struct announcement *announcement, uint64_t first, uint64_t blocks);

/* Leave the in-flight table. */
void announce_close(struct announcement *announcement);

/*
 * A request was jumped out of, at any point after *announcement was all zero: its blocks become unknown (0 blocks: what is recorded of them
 * stands), and it leaves the table. Pending words stay, as orphans: which of them are still ours cannot be told.
 */
void announce_abandon(struct announcement *announcement, uint64_t first, uint64_t blocks);

/*
 * Nobody will ever know how the request ends, nor when: its blocks become unknown, and stay announced for as long as this process lives, so
 * that no other request takes them for its own. It never leaves the table.
 */
void announce_lose(const struct announcement *announcement, uint64_t first, uint64_t blocks);

/* A block of which only a part is written. */
struct edge {
    uint64_t block;
    struct block_words *words; /* NULL: the unit is gone, which a damaged map can do at any time; nothing is recorded */
    uint64_t
        base; /* current as it was when the announcement stood; WORD_UNKNOWN: the rest of the block is not vouched for */
    bool sole;  /* nobody else was over the block when it was announced */
    bool whole; /* announced with its new checksum, like a whole block: the rest of it is beyond the end of the file */
    bool poisoned;
};

enum edge_verdict { EDGE_AS_RECORDED, EDGE_UNKNOWN, EDGE_MISMATCH };

/* Announce as contended(1), load current. */
void edge_announce(const struct announcement *announcement, struct edge *edge, uint64_t block);

/*
 * The rest of the block lies beyond the end of the file, where zeros are, and `sum` is its checksum with the new bytes: announce that, as for
 * a whole block. The caller then looks at the size again: if the file has grown, edge_downgrade makes it a part of a block after all.
 */
void edge_announce_whole(const struct announcement *announcement, struct edge *edge, uint64_t block, uint64_t sum);
void edge_downgrade(struct edge *edge, uint64_t sum);

/*
 * The block as read has checksum `sum`: does it agree with what is recorded? On EDGE_MISMATCH the caller either reports it
 * (edge_poison, which fails when the block has been repaired meanwhile: it counts as unknown then) or lets it count as unknown
 * (edge->base = WORD_UNKNOWN).
 */
enum edge_verdict edge_check(const struct announcement *announcement, struct edge *edge, uint64_t sum);
bool edge_poison(struct edge *edge);

/* The whole block now has checksum `sum`, if the rest of it was vouched for. */
void edge_publish(const struct announcement *announcement, struct edge *edge, uint64_t sum);
void edge_withdraw(const struct announcement *announcement, struct edge *edge);
void edge_forget(const struct announcement *announcement, struct edge *edge);

/* Count a request out of a pending word. Shared with the questions. */
void word_count_down(_Atomic uint64_t *pending);

/* Does a mutator cover the block? One load when no mutator is at work on the map. It may be a dead one: the next blocking request looks. */
static inline bool map_mutator_covers(struct map *map, uint64_t block, bool nowait)
{
    STEP("check mutators");
    /* Sequentially consistent: pairs with mutate_open, which raises the count before it enters. */
    bool covers = atomic_load(&map->header->unsettled) != 0 && flight_mutator_covers(map->id, block, nowait);
    if (covers)
        atomic_store_explicit(&map->met, true, memory_order_relaxed);
    return covers;
}

#endif
