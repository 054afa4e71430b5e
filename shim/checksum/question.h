/*
 * Reading under checksums: verify, and the deciding read. MAP.md §5.
 *
 * A block whose sum differs from what is recorded is only a suspicion: the entry may have changed between the read and the
 * look. The question is decided by announcing it like a write, reading the block again, and looking in a fixed order at
 * mutators, current, pending. ("The entry looked the same before and after" is fooled by a block that toggles.)
 *
 * Thread-safe, async-signal-safe, lock-free, allocates nothing.
 */
#ifndef BOUNCEIO_CHECKSUM_QUESTION_H
#define BOUNCEIO_CHECKSUM_QUESTION_H

#include "checksum/announce.h"

enum verdict {
    VERDICT_GOOD,       /* agrees with the recorded checksum, or with the one being written */
    VERDICT_UNVERIFIED, /* nothing usable is recorded */
    VERDICT_SUSPECT,    /* differs: ask */
    VERDICT_MISMATCH,   /* differs, and nobody changed it */
    VERDICT_UNDECIDED,  /* somebody was at the block: ask again */
};

/* A first look: does `sum`, of the block as read before this call, agree with the map? GOOD, UNVERIFIED or SUSPECT. */
enum verdict map_verify(const struct map *map, uint64_t block, uint64_t sum);

struct question {
    struct announcement announcement;
    struct block_words *words;
    uint64_t block;
    uint64_t asked; /* current, as announced in pending */
};

/*
 * Announce the question. @return VERDICT_SUSPECT when the caller is to re-read the block and call question_close; VERDICT_UNVERIFIED
 * or VERDICT_UNDECIDED when there is nothing to close.
 */
enum verdict question_open(struct question *question, struct map *map, uint64_t block, bool nowait);

/* `sum` of the block as re-read since question_open, or 0 when it could not be read. GOOD, UNVERIFIED, UNDECIDED or MISMATCH. */
enum verdict question_close(struct question *question, uint64_t sum);

#endif
