/*
 * One system call's worth of a direct read: where it may go, and what is done with what it brought. Blocking reads (read.c) and asynchronous ones
 * (request.c) differ only in who makes the call.
 *
 * Thread-safe, async-signal-safe; takes no lock on its fast path, and holds none while the caller's memory is touched.
 */
#ifndef BOUNCEIO_ENGINE_PART_H
#define BOUNCEIO_ENGINE_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bounce/copy.h"
#include "bounce/pool.h"
#include "engine/transfer.h"
#include "files/descriptor.h"

struct part {
    const struct fd_view *view;
    const struct transfer *transfer;
    struct cursor *cursor;
    const struct offset_use *use; /* of the file offset, by reads that use it; NULL: others may move it unseen */
    int64_t offset;               /* as asked: in the file, or TRANSFER_FILE_OFFSET */
    size_t length;
    bool certain; /* the bytes come from the view's file; else a difference proves nothing */
};

/* May it be read straight into the caller's memory? Whole blocks of one aligned segment only. */
bool part_fits_in_place(const struct part *part);

/* Bytes of pages that it takes otherwise: one page beyond the data, where blocks are read of which only a part is asked for. */
size_t part_pages(const struct part *part);

/*
 * `result` bytes (> 0) were read into the caller's memory. @return true with *told; false: a suspicion, or the end of the file inside a block:
 * it is to be read again, through pages.
 */
bool part_finish_in_place(const struct part *part, ssize_t result, ssize_t *told);

/* `result` bytes (> 0) were read into the pages: verify, copy out. @return bytes or -errno. */
ssize_t part_finish(const struct part *part, struct extent *pages, ssize_t result);

/* What the program is told after `told` bytes: if the file ended there, should it have, by its checksums? */
ssize_t part_verify_end(const struct part *part, ssize_t told);

/*
 * All of it once more, blocking: read through pages, verify, copy out; after a read that was made before, by a number that is not held meanwhile.
 * *told: bytes or -errno. @return false when the number was closed, and may have led to another file: the caller's memory is as it was.
 */
bool part_read_again(const struct part *part, ssize_t *told);

#endif
