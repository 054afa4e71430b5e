/*
 * The checksum of a block: XXH3_64bits of its 4,096 bytes, combined with the block's index (a block written to the wrong place
 * fails), folded to 62 bits, never 0. The last block of a file is summed as if padded with zeros.
 * Source: XXH3, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
 * Thread-safe, async-signal-safe, no allocation.
 */
#ifndef BOUNCEIO_CHECKSUM_BLOCK_SUM_H
#define BOUNCEIO_CHECKSUM_BLOCK_SUM_H

#include <stddef.h>
#include <stdint.h>

enum { BLOCK_SIZE = 4096, BLOCK_SHIFT = 12 };

struct block_sums {
    const void *data; /* blocks * BLOCK_SIZE bytes */
    size_t blocks;
    uint64_t first; /* index of the first block in its file */
    uint64_t *sums; /* one for each block */
};

/* Sum of one block in our own memory. */
uint64_t block_sum(const void *data, uint64_t index);

/* Sums of consecutive blocks in our own memory. */
void block_sums(struct block_sums *work);

/* Sums of consecutive blocks in the caller's memory. @return 0, or -EFAULT when some of it is not readable. */
int block_sums_of_user(struct block_sums *work);

#endif
