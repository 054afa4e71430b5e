/*
 * Copies of whole blocks between the caller's memory and ours that sum them on the way.
 *
 * Measured (AMD EPYC with AVX-512, 1 MiB from 4 KiB pages to a huge page): `rep movsb` 22 us, XXH3 of what was copied 20 us; both in one pass 26 us. The
 * processor waits for memory in the one, and multiplies in the other.
 *
 * The caller's bytes are loaded once: what is stored is what was summed, whatever he does to them meanwhile.
 *
 * Thread-safe, async-signal-safe, no allocation, no lock. No shim lock may be held by the caller.
 */
#ifndef BOUNCEIO_CHECKSUM_SUM_COPY_H
#define BOUNCEIO_CHECKSUM_SUM_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bounce/copy.h"

struct sum_copy {
    void *to;         /* ours, when gathering */
    const void *from; /* ours, when scattering */
    size_t blocks;    /* of BLOCK_SIZE */
    uint64_t first;   /* index of the first block in its file */
    uint64_t *sums;   /* one for each block, as of block_sums */
    bool
        streams; /* past the cache, which cannot hold all that is on its way, where the memory that is written allows it */
};

/*
 * Gather blocks from the cursor into work->to, or scatter those at work->from to the cursor. @return blocks copied and summed, by which the cursor has
 * moved; fewer than work->blocks when the next ones are to be copied and summed apart: the caller's memory is bad somewhere, a block is in two
 * segments, the vector ends, the processor has nothing that is faster, or BOUNCEIO_COPY=kernel. Some of those may have been copied.
 */
size_t sum_copy_gather(const struct sum_copy *work, struct cursor *cursor);
size_t sum_copy_scatter(const struct sum_copy *work, struct cursor *cursor);

#endif
