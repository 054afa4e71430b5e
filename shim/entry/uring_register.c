/*
 * liburing's functions that register something which the shim must know of (files, buffers, ring descriptors), name a request by its
 * user_data, or end a ring. See uring.c.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/raw.h"
#include "entry/entry.h"
#include "entry/liburing.h"
#include "entry/uring_raw.h"

/* The library's own would close the descriptor, and change the structure, behind us. */
static const unsigned feat_reg_reg_ring = 1U << 13;

static int do_register(const struct io_uring *ring, unsigned opcode, const void *argument, unsigned count)
{
    if (ring->int_flags & LIBURING_REG_REG_RING)
        return (int)uring_raw_register((unsigned)ring->enter_ring_fd, opcode | URING_REGISTER_USE_REGISTERED_RING,
                                       (void *)argument, count);
    return (int)uring_raw_register((unsigned)ring->ring_fd, opcode, (void *)argument, count);
}

/* ---- Ring descriptors ---- */

EXPORT int io_uring_register_ring_fd(struct io_uring *ring)
{
    struct io_uring_rsrc_update update = {.offset = ~0U, .data = (unsigned)ring->ring_fd};
    if (ring->int_flags & LIBURING_REG_RING)
        return -EEXIST;
    int done = do_register(ring, IORING_REGISTER_RING_FDS, &update, 1);
    if (done != 1)
        return done;
    ring->enter_ring_fd = (int)update.offset;
    ring->int_flags |= LIBURING_REG_RING;
    if (ring->features & feat_reg_reg_ring)
        ring->int_flags |= LIBURING_REG_REG_RING;
    return done;
}

EXPORT int io_uring_unregister_ring_fd(struct io_uring *ring)
{
    struct io_uring_rsrc_update update = {.offset = (uint32_t)ring->enter_ring_fd};
    if (!(ring->int_flags & LIBURING_REG_RING))
        return -EINVAL;
    int done = do_register(ring, IORING_UNREGISTER_RING_FDS, &update, 1);
    if (done != 1)
        return done;
    ring->enter_ring_fd = ring->ring_fd;
    ring->int_flags &= (uint8_t) ~(LIBURING_REG_RING | LIBURING_REG_REG_RING);
    return done;
}

static void close_quietly(int fd)
{
    int before = errno;
    close(fd);
    errno = before;
}

EXPORT int io_uring_close_ring_fd(struct io_uring *ring)
{
    if (!(ring->features & feat_reg_reg_ring))
        return -EOPNOTSUPP;
    if (!(ring->int_flags & LIBURING_REG_RING))
        return -EINVAL;
    if (ring->ring_fd == -1)
        return -EBADF;
    close_quietly(ring->ring_fd);
    ring->ring_fd = -1;
    return 1;
}

/* First the descriptor, whose close reaps what is in flight, then the program's view of the memory. */
EXPORT void io_uring_queue_exit(struct io_uring *ring)
{
    const size_t sqes = *ring->sq.kring_entries * ((ring->flags & IORING_SETUP_SQE128) ? 128UL : 64UL);
    if (ring->ring_fd != -1)
        close_quietly(ring->ring_fd);
    if (ring->int_flags & LIBURING_REG_RING)
        io_uring_unregister_ring_fd(ring);
    raw(SYS_munmap, ring->sq.sqes, sqes);
    if (ring->cq.ring_ptr != ring->sq.ring_ptr)
        raw(SYS_munmap, ring->cq.ring_ptr, ring->cq.ring_sz);
    raw(SYS_munmap, ring->sq.ring_ptr, ring->sq.ring_sz);
}

/* ---- Files ---- */

static void raise_file_limit(unsigned files)
{
    struct rlimit limit;
    if (raw_failed(raw(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit)) || limit.rlim_cur >= files)
        return;
    limit.rlim_cur += files;
    raw(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
}

/* The kernel counts registered files against the limit of open ones. */
static int register_all_files(const struct io_uring *ring, unsigned opcode, const void *argument, unsigned count,
                              unsigned files)
{
    int done = do_register(ring, opcode, argument, count);
    if (done != -EMFILE)
        return done;
    raise_file_limit(files);
    return do_register(ring, opcode, argument, count);
}

EXPORT int io_uring_register_files(struct io_uring *ring, const int *files, unsigned count)
{
    return register_all_files(ring, IORING_REGISTER_FILES, files, count, count);
}

EXPORT int io_uring_register_files_tags(struct io_uring *ring, const int *files, const uint64_t *tags, unsigned count)
{
    const struct io_uring_rsrc_register wish = {
        .nr = count, .data = (uint64_t)(uintptr_t)files, .tags = (uint64_t)(uintptr_t)tags};
    return register_all_files(ring, IORING_REGISTER_FILES2, &wish, sizeof wish, count);
}

EXPORT int io_uring_register_files_sparse(struct io_uring *ring, unsigned count)
{
    const struct io_uring_rsrc_register wish = {.nr = count, .flags = IORING_RSRC_REGISTER_SPARSE};
    return register_all_files(ring, IORING_REGISTER_FILES2, &wish, sizeof wish, count);
}

EXPORT int io_uring_register_files_update(struct io_uring *ring, unsigned first, const int *files, unsigned count)
{
    const struct io_uring_files_update update = {.offset = first, .fds = (uint64_t)(uintptr_t)files};
    return do_register(ring, IORING_REGISTER_FILES_UPDATE, &update, count);
}

static int update_with_tags(const struct io_uring *ring, unsigned opcode, unsigned first, const void *data,
                            const uint64_t *tags, unsigned count)
{
    const struct io_uring_rsrc_update2 update = {
        .offset = first, .data = (uint64_t)(uintptr_t)data, .tags = (uint64_t)(uintptr_t)tags, .nr = count};
    return do_register(ring, opcode, &update, sizeof update);
}

EXPORT int io_uring_register_files_update_tag(struct io_uring *ring, unsigned first, const int *files,
                                              const uint64_t *tags, unsigned count)
{
    return update_with_tags(ring, IORING_REGISTER_FILES_UPDATE2, first, files, tags, count);
}

EXPORT int io_uring_unregister_files(struct io_uring *ring)
{
    return do_register(ring, IORING_UNREGISTER_FILES, NULL, 0);
}

/* ---- Buffers ---- */

EXPORT int io_uring_register_buffers(struct io_uring *ring, const struct iovec *buffers, unsigned count)
{
    return do_register(ring, IORING_REGISTER_BUFFERS, buffers, count);
}

EXPORT int io_uring_register_buffers_tags(struct io_uring *ring, const struct iovec *buffers, const uint64_t *tags,
                                          unsigned count)
{
    const struct io_uring_rsrc_register wish = {
        .nr = count, .data = (uint64_t)(uintptr_t)buffers, .tags = (uint64_t)(uintptr_t)tags};
    return do_register(ring, IORING_REGISTER_BUFFERS2, &wish, sizeof wish);
}

EXPORT int io_uring_register_buffers_sparse(struct io_uring *ring, unsigned count)
{
    const struct io_uring_rsrc_register wish = {.nr = count, .flags = IORING_RSRC_REGISTER_SPARSE};
    return do_register(ring, IORING_REGISTER_BUFFERS2, &wish, sizeof wish);
}

EXPORT int io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned first, const struct iovec *buffers,
                                                const uint64_t *tags, unsigned count)
{
    return update_with_tags(ring, IORING_REGISTER_BUFFERS_UPDATE, first, buffers, tags, count);
}

EXPORT int io_uring_unregister_buffers(struct io_uring *ring)
{
    return do_register(ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/* Source: struct io_uring_clone_buffers of Linux 6.12. */
struct clone_buffers {
    uint32_t source, flags, source_offset, target_offset, count, pad[3];
};

static int clone(const struct io_uring *target, const struct io_uring *source, struct clone_buffers wish)
{
    enum { SOURCE_REGISTERED = 1 };
    wish.source = (uint32_t)source->ring_fd;
    if (source->int_flags & LIBURING_REG_REG_RING) {
        wish.source = (uint32_t)source->enter_ring_fd;
        wish.flags |= SOURCE_REGISTERED;
    }
    return do_register(target, URING_REGISTER_CLONE_BUFFERS, &wish, 1);
}

EXPORT int __io_uring_clone_buffers_offset(struct io_uring *target, struct io_uring *source, unsigned target_offset,
                                           unsigned source_offset, unsigned count, unsigned flags)
{
    return clone(target, source,
                 (struct clone_buffers){
                     .flags = flags, .source_offset = source_offset, .target_offset = target_offset, .count = count});
}
ALIAS(io_uring_clone_buffers_offset, __io_uring_clone_buffers_offset);

EXPORT int __io_uring_clone_buffers(struct io_uring *target, struct io_uring *source, unsigned flags)
{
    return clone(target, source, (struct clone_buffers){.flags = flags});
}

EXPORT int io_uring_clone_buffers(struct io_uring *target, struct io_uring *source)
{
    return clone(target, source, (struct clone_buffers){0});
}

/* ---- Others ---- */

EXPORT int io_uring_register_sync_cancel(struct io_uring *ring, struct io_uring_sync_cancel_reg *wish)
{
    return do_register(ring, IORING_REGISTER_SYNC_CANCEL, wish, 1);
}

EXPORT int io_uring_resize_rings(struct io_uring *ring, struct io_uring_params *params)
{
    return do_register(ring, URING_REGISTER_RESIZE_RINGS, params, 1);
}
