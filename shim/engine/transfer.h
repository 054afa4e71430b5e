/*
 * One read or write as the program asked for it, and the two calls that carry it out.
 *
 * The life of a request, blocking or not:
 *
 *   write: chunk_prepare (take pages, copy in, sum, announce) -> issue_write -> chunk_complete (publish, withdraw or forget; give the pages
 *          back)
 *   read:  take pages -> issue_read -> part_finish (verify, copy out) -> give the pages back
 *
 * Everything here is thread-safe and async-signal-safe, allocates nothing but pool pages, takes no lock on its fast path, and holds none
 * while the caller's memory is touched.
 */
#ifndef BOUNCEIO_ENGINE_TRANSFER_H
#define BOUNCEIO_ENGINE_TRANSFER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "files/descriptor.h"

/* Offset of a transfer that uses and moves the descriptor's own file offset. */
#define TRANSFER_FILE_OFFSET INT64_C(-1)

struct transfer {
    const struct iovec *vector; /* readable without faults: the caller's stack or a private copy */
    size_t segments;
    size_t length;  /* sum of the segments, 1 .. 0x7ffff000 */
    int64_t offset; /* bytes, or TRANSFER_FILE_OFFSET */
    int flags;      /* RWF_* of pwritev2(2) */
};

/*
 * Write, or read, on a FD_DIRECT view.
 * @return bytes transferred, or -errno: what the kernel says for the same call, but for the exceptions of the contract.
 */
ssize_t transfer_write(const struct fd_view *view, const struct transfer *transfer);
ssize_t transfer_read(const struct fd_view *view, const struct transfer *transfer);

/* Most bytes one system call transfers for us, unless the request must not be split. */
enum { TRANSFER_CHUNK = 4 << 20 };

#endif
