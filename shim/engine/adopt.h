/*
 * Adoption: blocks take the checksum of the content that they have. MAP.md §5, for many blocks at once.
 *
 * The checksums are announced like those of a write, the blocks are read again, and what still is the same is published. Whoever
 * writes or mutates a block meanwhile is seen: such a block stays, or becomes, unknown. Never a checksum that is not the content's.
 */
#ifndef BOUNCEIO_ENGINE_ADOPT_H
#define BOUNCEIO_ENGINE_ADOPT_H

#include <stdbool.h>
#include <stdint.h>

#include "files/descriptor.h"

enum { ADOPT_MOST = 64 }; /* blocks at once */

struct adoption {
    const struct fd_view *view;
    char *room;       /* in our memory, for as many blocks */
    bool trust;       /* blocks with another checksum, or known to be damaged, take the present content's as well */
    uint64_t adopted; /* raised by the number of blocks that took a checksum */
};

/*
 * Blocks [first, first + blocks), at most ADOPT_MOST, of which `sums` were read a moment ago. The map is made to cover them. Those
 * that somebody is writing are left to him.
 * @return 0; -errno when the map cannot cover them, or they cannot be read again.
 * Slow path: may take the process lock. Thread-safe, async-signal-safe.
 */
int adopt_blocks(struct adoption *adoption, uint64_t first, uint64_t blocks, const uint64_t *sums);

#endif
