/*
 * io_uring_register(2): what is registered with a shadow ring. Most of it is the kernel's alone.
 */
#include <errno.h>
#include <stddef.h>

#include "base/raw.h"
#include "bounce/copy.h"
#include "rings/uring_ring.h"

static long register_real(int fd, unsigned opcode, const void *argument, unsigned count)
{
    return raw(SYS_io_uring_register, fd, opcode, argument, count);
}

/* Ring descriptors, of the calling thread: the kernel has written the indices that it chose. */
static long register_rings(int fd, unsigned opcode, void *argument, unsigned count)
{
    const struct io_uring_rsrc_update *updates = argument;
    long done = register_real(fd, opcode, argument, count);
    for (long i = 0; i < done; i++) {
        struct io_uring_rsrc_update update;
        if (copy_from_user(&update, &updates[i], sizeof update) != sizeof update)
            break;
        struct uring *ring = (opcode & ~URING_REGISTER_USE_REGISTERED_RING) == IORING_REGISTER_RING_FDS
                                 ? uring_of((int)update.data)
                                 : NULL;
        uring_registered_ring(update.offset, ring);
        if (ring)
            uring_drop(ring);
    }
    return done;
}

/* Cancels a request by its user_data, which the kernel may know it by another of. */
static long cancel(const struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count)
{
    enum { BY_FD = 1U << 1, BY_ANY = 1U << 2, BY_USER_DATA = 1U << 4 };
    struct io_uring_sync_cancel_reg wanted;
    if (copy_from_user(&wanted, argument, sizeof wanted) != sizeof wanted ||
        ((wanted.flags & (BY_FD | BY_ANY)) && !(wanted.flags & BY_USER_DATA)))
        return register_real(fd, opcode, argument, count);
    wanted.addr = uring_name_in_kernel(ring, wanted.addr);
    return register_real(fd, opcode, &wanted, count);
}

long uring_register(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count)
{
    switch (opcode & ~URING_REGISTER_USE_REGISTERED_RING) {
    case IORING_REGISTER_FILES:
    case IORING_UNREGISTER_FILES:
    case IORING_REGISTER_FILES_UPDATE:
    case IORING_REGISTER_FILES2:
    case IORING_REGISTER_FILES_UPDATE2:
        return uring_register_files(ring, fd, opcode, argument, count);
    case IORING_REGISTER_BUFFERS:
    case IORING_UNREGISTER_BUFFERS:
    case IORING_REGISTER_BUFFERS2:
    case IORING_REGISTER_BUFFERS_UPDATE:
    case URING_REGISTER_CLONE_BUFFERS:
        return uring_register_buffers(ring, fd, opcode, argument, count);
    case IORING_REGISTER_RING_FDS:
    case IORING_UNREGISTER_RING_FDS:
        return register_rings(fd, opcode, argument, count);
    case IORING_REGISTER_SYNC_CANCEL:
        return cancel(ring, fd, opcode, argument, count);
    case IORING_REGISTER_RESTRICTIONS:
        uring_fixed_end(ring, fd, opcode);
        return register_real(fd, opcode, argument, count);
    case URING_REGISTER_RESIZE_RINGS: /* as a kernel before 6.13 */
        return -EINVAL;
    default:
        return register_real(fd, opcode, argument, count);
    }
}
