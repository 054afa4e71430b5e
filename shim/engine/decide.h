/*
 * Suspicions: a block differs from its recorded checksum. Read it again under an announcement, and find out whether it is damaged,
 * was being written, was changed outside, or is in a file whose checksums an unclean stop has made doubtful.
 *
 * Slow paths. Thread-safe, async-signal-safe; bounce pages are the only memory taken.
 */
#ifndef BOUNCEIO_ENGINE_DECIDE_H
#define BOUNCEIO_ENGINE_DECIDE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "checksum/announce.h"
#include "files/descriptor.h"

/*
 * Read blocks of the view's file into `data`, padded with zeros beyond the end of the file. For a write-only descriptor there is
 * another one to read by, where that is permitted (never under NOWAIT). @return bytes read before the padding, or -errno (-EAGAIN under NOWAIT).
 */
ssize_t decide_read_blocks(const struct fd_view *view, uint64_t first, uint64_t blocks, char *data, bool nowait);
ssize_t decide_read_block(const struct fd_view *view, uint64_t block, char *page, bool nowait);

/* The part of a block that a reader is about to hand to the program. */
struct block_part {
    uint64_t block;
    char *bytes; /* in our memory: [begin, begin + length) of the block */
    size_t begin;
    size_t length;
};

enum decision {
    DECIDED_GOOD,
    DECIDED_UNVERIFIED, /* nothing usable is recorded */
    DECIDED_RECOVERED,  /* what was recorded did not survive an unclean stop; what is there has been adopted */
    DECIDED_OUTSIDE,    /* likewise, of a file that was changed without the shim */
    DECIDED_DAMAGED,    /* reported */
    DECIDED_LATER,      /* under NOWAIT: it would take a wait */
    DECIDED_UNREADABLE, /* it could not be read again: what was read first differs from what is recorded */
};

/* Decide a suspicion. What was read again replaces the part's bytes. */
enum decision decide_block(const struct fd_view *view, const struct block_part *part, bool nowait);

/*
 * Read the block of an edge into `page` and check it. edge->base is WORD_UNKNOWN afterwards if it cannot be vouched for; a mismatch is
 * reported and poisons the block. @return 0, or -EAGAIN under NOWAIT.
 */
int decide_edge(const struct fd_view *view, const struct announcement *announcement, struct edge *edge, char *page,
                bool nowait);

#endif
