/*
 * The program's iovec array, copied before it is believed: it is user memory like any other.
 */
#ifndef BOUNCEIO_ENGINE_VECTOR_H
#define BOUNCEIO_ENGINE_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "bounce/pool.h"

enum { VECTOR_INLINE = 8 };

/* The largest transfer of one call; longer ones are cut there. Source: MAX_RW_COUNT, include/linux/fs.h. */
#define TRANSFER_MOST ((size_t)0x7ffff000)

struct vector {
    struct iovec *segments;
    size_t count;
    size_t length; /* sum, at most TRANSFER_MOST */
    struct iovec few[VECTOR_INLINE];
    struct extent pages; /* when there are more */
};

/*
 * Copy and check `count` segments. @return 0; -EINVAL when the kernel is to judge the call as it stands (bad array, bad count, bad
 * lengths, addresses no process has); -EAGAIN, -ENOMEM as pool_take. vector_end is needed only after 0.
 */
int vector_begin(struct vector *vector, const struct iovec *user, int count, bool nowait);
void vector_end(struct vector *vector);

/* Can [base, base + length) be user memory at all? Else the kernel refuses the whole call. */
bool vector_is_addressable(const void *base, size_t length);

#endif
