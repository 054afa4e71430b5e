/*
 * Settling: what becomes of the requests of sessions that died. MAP.md §9.
 *
 * Until then their in-flight entries count as live. Whoever meets one may settle it, in blocking paths only, while others work; nobody
 * waits for anybody. A block whose content is what was being written takes that checksum; one whose content is as recorded keeps it;
 * anything else is unknown (torn). A dead mutator's range becomes unknown.
 *
 * The file is read by the caller, through `struct settle_file`: this floor never touches the program's files.
 */
#ifndef BOUNCEIO_CHECKSUM_SETTLE_H
#define BOUNCEIO_CHECKSUM_SETTLE_H

#include "checksum/map.h"

/* How to reach the file whose map is being settled. */
struct settle_file {
    /* Checksum of the block's present content; WORD_UNKNOWN when it cannot be read. */
    uint64_t (*sum)(const struct settle_file *file, uint64_t block);
    /* Wait until no direct I/O on the range is under way, whoever started it. @return false when that cannot be done here. */
    bool (*barrier)(const struct settle_file *file, uint64_t first, uint64_t blocks);
    /* The file's mtime, nanoseconds of CLOCK_REALTIME, or WINDOW_CANNOT_TELL. */
    int64_t (*modified)(const struct settle_file *file);
};

/* Has a dead session left requests on this map? A look at every session: for map_open, and for who met an orphan. */
bool settle_is_due(const struct map *map);

/*
 * Settle what dead sessions have left on this map. Does what it can: requests whose end cannot be known, blocks that a live request is
 * over, and everything while another process is settling this map, are left for later. Takes no lock of the process.
 * @return blocks that were found torn.
 */
uint64_t settle_map(struct map *map, const struct settle_file *file);

#endif
