/*
 * Writes without a checksum in hand, on a file that has a map: buffered ones, appends, and those at a file offset that others
 * move as well. A mutator over where they may land, and afterwards over where they did.
 */
#ifndef BOUNCEIO_ENGINE_LANDING_H
#define BOUNCEIO_ENGINE_LANDING_H

#include <errno.h>
#include <sys/types.h>

#include "checksum/mutate.h"
#include "files/descriptor.h"

struct landing {
    struct mutation mutation;     /* map NULL: nothing to do */
    const struct offset_use *use; /* of the file offset; NULL: others may move it unseen */
    int fd;
    bool append;
    enum flight_transport transport;
    int64_t offset; /* bytes; where the caller says, where the file ends, or where the file offset stands */
    int64_t asked;  /* as asked for: an offset or TRANSFER_FILE_OFFSET */
    size_t length;
};

/* What is about to be written. */
struct landing_plan {
    int64_t offset; /* bytes, or TRANSFER_FILE_OFFSET */
    size_t length;
    bool append; /* it goes to the end of the file, wherever that is */
    bool nowait;
    enum flight_transport transport;
    const struct offset_use *use; /* as in struct landing */
};

/* Before the write. @return 0; -EAGAIN, with nothing open, when the map is not ready and `nowait`. */
int landing_open(struct landing *landing, const struct fd_view *view, const struct landing_plan *plan);

/* What landing_close is told of a write that was not made. */
#define LANDING_CANCELLED (-EBADF)

/*
 * After it, with what it returned: bytes, or -errno. `flags`: RWF_*. landing->fd is a number of the file's, or -1 when none is left; at
 * TRANSFER_FILE_OFFSET, of the same description.
 */
void landing_close(struct landing *landing, ssize_t result, int flags);

/* Does a write on this view append, whatever its offset? */
bool landing_appends(const struct fd_view *view, int flags);

/* Blocks that the bytes [begin, end) touch: first, and how many. */
static inline uint64_t blocks_first(int64_t begin)
{
    return (uint64_t)begin / BLOCK_SIZE;
}

static inline uint64_t blocks_count(int64_t begin, int64_t end)
{
    return end <= begin ? 0 : ((uint64_t)end + BLOCK_SIZE - 1) / BLOCK_SIZE - blocks_first(begin);
}

#endif
