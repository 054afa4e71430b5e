/*
 * Checks as in the kernel's import_iovec (lib/iov_iter.c): what fails here is handed to the kernel unchanged, for its errno.
 */
#include "engine/vector.h"

#include <errno.h>
#include <stdint.h>

#include "bounce/copy.h"

enum { SEGMENTS_MOST = 1024 };

bool vector_is_addressable(const void *base, size_t length)
{
    uintptr_t end;
    return !__builtin_add_overflow((uintptr_t)base, length, &end) && (intptr_t)end >= 0;
}

static int check(struct vector *vector)
{
    size_t total = 0;
    for (size_t i = 0; i < vector->count; i++) {
        struct iovec *segment = &vector->segments[i];
        if ((ssize_t)segment->iov_len < 0 || !vector_is_addressable(segment->iov_base, segment->iov_len))
            return -EINVAL;
        if (segment->iov_len > TRANSFER_MOST - total)
            segment->iov_len = TRANSFER_MOST - total;
        total += segment->iov_len;
    }
    vector->length = total;
    return 0;
}

int vector_begin(struct vector *vector, const struct iovec *user, int count, bool nowait)
{
    vector->pages.base = NULL;
    vector->segments = vector->few;
    vector->count = (size_t)count;
    if (count < 0 || count > SEGMENTS_MOST)
        return -EINVAL;
    size_t bytes = (size_t)count * sizeof *user;
    if (count > VECTOR_INLINE) {
        int error = pool_take(&vector->pages, bytes, nowait);
        if (error != 0)
            return error;
        vector->segments = vector->pages.base;
    }
    int error = copy_from_user(vector->segments, user, bytes) == bytes ? check(vector) : -EINVAL;
    if (error != 0)
        vector_end(vector);
    return error;
}

void vector_end(struct vector *vector)
{
    pool_give(&vector->pages);
}
