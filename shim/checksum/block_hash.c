/*
 * XXH3 of blocks, compiled once for each instruction set (BLOCK_HASH_VARIANT: baseline, avx2, avx512) and chosen at run time in
 * block_sum.c. The build renames this object's .text to "guarded_text": these functions may read the caller's memory
 * and be unwound by the fault guard, so they call nothing and hold nothing.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "checksum/block_sum.h"

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

void PASTE(block_sums_, BLOCK_HASH_VARIANT)(void *argument)
{
    struct block_sums *work = argument;
    const unsigned char *data = work->data;
    for (size_t i = 0; i < work->blocks; i++, data += BLOCK_SIZE) {
        uint64_t sum = XXH3_64bits(data, BLOCK_SIZE) ^ ((work->first + i + 1) * UINT64_C(0x9E3779B97F4A7C15));
        sum = (sum ^ (sum >> 62)) & ((UINT64_C(1) << 62) - 1);
        work->sums[i] = sum ? sum : 1;
    }
}
