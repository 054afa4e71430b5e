/*
 * Regions: which checksums a power cut may have made untrue. MAP.md §7.
 *
 * The words of a region and the data they stand for reach the disk in any order. So before data is issued the region's DIRTY bit is
 * on disk (msync of the page that holds its word), and it is taken off only when data and words have been flushed with nothing in
 * flight. After a power cut a DIRTY region is SUSPECT: a mismatch in it is adopted, and counted as recovered.
 *
 *   write   announce; then look: DURABLE? If not: set DIRTY (sequence + 1), msync, OR in DURABLE; then issue
 *   clear   take DURABLE off (sequence + 1), remember the word; nothing in flight, nothing pending? flush the data; msync the block
 *           words; CAS DIRTY off from exactly the remembered word
 *
 * A region that never had a unit becomes DIRTY in the same store as its first unit's bit, and is DURABLE at once: without the bit there
 * are no checksums on the disk that could be untrue.
 *
 * Regions without a word (no window reaches them) or without a unit have no checksums, and need nothing.
 * Thread-safe; async-signal-safe. region_are_durable is lock-free and makes no system call; the rest are slow paths.
 */
#ifndef BOUNCEIO_CHECKSUM_REGION_H
#define BOUNCEIO_CHECKSUM_REGION_H

#include "checksum/map.h"

/* Is every region of [first, first + blocks) DURABLE (and TOUCHED)? To be asked after the range has been entered into the in-flight
 * table. `blocks` may be FLIGHT_TO_END. */
bool region_are_durable(const struct map *map, uint64_t first, uint64_t blocks);

/*
 * Make them so; sequential writers have regions marked ahead. Waits for the store's disk: never under NOWAIT. When the store
 * fails, the map is broken and said to be changed outside.
 */
void region_make_durable(struct map *map, uint64_t first, uint64_t blocks);

/* Regions on their way to being clean. */
enum { REGION_SWEEP = 64 };
struct region_sweep {
    struct map *map;
    unsigned count;
    struct {
        uint64_t number, word;
    } region[REGION_SWEEP];
};

/*
 * Begin to clear DIRTY regions, from *cursor on, which moves past the last one looked at; regions that were touched since the last sweep
 * are left for the next one, unless `busy_too`. @return how many are on their way; 0 when there is nothing to clear.
 */
unsigned region_sweep_open(struct region_sweep *sweep, struct map *map, uint64_t *cursor, bool busy_too);

/* `flushed`: every write to the file that was complete when the sweep was opened is on disk, by an fsync(2) that was started after that. */
void region_sweep_close(struct region_sweep *sweep, bool flushed);

/* Is any region DIRTY? */
bool region_any_dirty(const struct map *map);

/* Is the block in a SUSPECT region? */
bool region_is_suspect(const struct map *map, uint64_t block);

/* The region was found whole: nothing in it is doubtful any more. */
void region_trust(struct map *map, uint64_t region);

/*
 * Of a map that nobody else has open yet, in another boot than its last: DIRTY regions become SUSPECT, which is on disk when this
 * returns 0. `fd`: of the map's own file; `modified`: mtime of the file that the map is of. @return 0 or -errno.
 */
int region_enter_boot(struct map *map, int fd, int64_t modified);

/* How many regions have a word. */
uint64_t region_count(const struct map *map);

#endif
