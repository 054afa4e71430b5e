/*
 * Verification of what was read, before the program sees it.
 */
#ifndef BOUNCEIO_ENGINE_VERIFY_H
#define BOUNCEIO_ENGINE_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#include "engine/decide.h"
#include "files/descriptor.h"

/* Bytes that were read from a file into our memory. */
struct readout {
    const struct fd_view *view;
    char *data;
    int64_t offset; /* in the file */
    size_t length;
    bool at_end;  /* the file ended there: the read was short */
    bool certain; /* the offset is known; if not, a difference proves nothing */
    bool nowait;
    char *scratch;  /* one page, if offset or length is not a multiple of BLOCK_SIZE, or the read was short */
    uint64_t *sums; /* NULL, or room for one for each block that the bytes touch: their checksums as they were read */
};

/* What became of the blocks that were looked at. */
struct tally {
    uint64_t verified;
    uint64_t unverified;
    uint64_t recovered; /* adopted: what was recorded did not survive an unclean stop */
    uint64_t outside;   /* adopted: the file was changed without the shim */
    uint64_t damaged;
    bool later; /* under NOWAIT: some block could not be decided without a wait */
    int error;  /* -EIO: some block differed, and could not be read again to find out why */
};

/* Count what was decided about one block. */
void tally_decision(struct tally *tally, enum decision decision);

/* Verify as verify_readout does, and only count: every damaged block is reported, nothing fails. Adds to *tally. */
void verify_and_count(const struct readout *readout, struct tally *tally);

/*
 * Verify every block that the bytes touch; blocks of which only a part was read are read whole to verify them. Blocks that had to be read
 * again replace their bytes. @return 0; -EIO: some block is damaged (all of them are reported) and
 * BOUNCEIO_ON_MISMATCH says so; -EAGAIN under NOWAIT.
 */
int verify_readout(const struct readout *readout);

/*
 * Verify whole blocks lying in the caller's own memory; with BOUNCEIO_ADOPT, and not `nowait`, those of unknown checksum are
 * adopted. @return 0; -EAGAIN: a block differs, and the request is to be made again through
 * pages before anybody is told.
 */
int verify_in_place(const struct fd_view *view, const void *data, int64_t offset, size_t length, bool nowait);

#endif
