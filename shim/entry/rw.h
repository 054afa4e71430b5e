/*
 * A read or write as it came in, for the wrappers and for the raw syscall() road.
 */
#ifndef BOUNCEIO_ENTRY_RW_H
#define BOUNCEIO_ENTRY_RW_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

enum rw_form {
    RW_READ,
    RW_WRITE,
    RW_READV,
    RW_WRITEV,
    RW_PREAD,
    RW_PWRITE,
    RW_PREADV,
    RW_PWRITEV,
    RW_PREADV2,
    RW_PWRITEV2,
};

struct rw_call {
    enum rw_form form;
    bool is_write;
    bool buffer_is_vector;
    int fd;
    const void *buffer;
    size_t length;
    const struct iovec *vector;
    int count;
    off_t offset;
    int flags; /* RWF_* */
};

/* Everything but the look that lets other descriptors pass. @return as the call itself, with errno. */
ssize_t rw_slow(const struct rw_call *call);

#endif
