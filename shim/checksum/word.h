/*
 * The words of the map: two 64-bit words for each 4 KiB block, and one for each region.
 *
 * A block's words (both little-endian 64-bit, changed only atomically):
 *
 *   current    0                unknown: nothing is known about the block
 *              1 .. 2^62-1      checksum of the block's content
 *              POISON           known to be damaged: never equals a checksum
 *   pending    0                idle: nobody is writing the block
 *              1 .. 2^62-1      checksum being written, by one sole owner
 *              CONTENDED + n    n requests over the block; none of them will publish
 *              CLAIMED          an orphan being taken over; counts as contended(2)
 *
 * See the protocol in announce.h, question.h and mutate.h.
 */
#ifndef BOUNCEIO_CHECKSUM_WORD_H
#define BOUNCEIO_CHECKSUM_WORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define WORD_SUM_MASK ((UINT64_C(1) << 62) - 1)
#define WORD_IDLE UINT64_C(0)
#define WORD_UNKNOWN UINT64_C(0)
#define WORD_CONTENDED (UINT64_C(1) << 62)
#define WORD_CLAIMED (UINT64_C(1) << 63)
#define WORD_POISON (UINT64_C(3) << 62)

struct block_words {
    _Atomic uint64_t current;
    _Atomic uint64_t pending;
};

static inline bool word_is_contended(uint64_t pending)
{
    return (pending & WORD_POISON) == WORD_CONTENDED;
}

/* A checksum, or the poison that a question announces in its place: one sole owner. */
static inline bool word_is_sum(uint64_t word)
{
    return word != 0 && (word <= WORD_SUM_MASK || word == WORD_POISON);
}

/* `pending` with one more request over the block. */
static inline uint64_t word_joined(uint64_t pending)
{
    if (pending == WORD_CLAIMED)
        return WORD_CONTENDED + 3;
    return word_is_contended(pending) ? pending + 1 : WORD_CONTENDED + 2;
}

/* `pending` with one request less; never called with idle. */
static inline uint64_t word_left(uint64_t pending)
{
    if (pending == WORD_CLAIMED)
        return WORD_CONTENDED + 1;
    if (word_is_contended(pending) && pending > WORD_CONTENDED + 1)
        return pending - 1;
    return WORD_IDLE;
}

/* `pending` after a mutator went over the block: whoever owns it will not publish. */
static inline uint64_t word_mutated(uint64_t pending)
{
    if (pending == WORD_CLAIMED)
        return WORD_CONTENDED + 2;
    return word_is_sum(pending) ? WORD_CONTENDED + 1 : pending;
}

#endif
