/*
 * Bounce pages as registered buffers of a ring: the kernel pins and looks up nothing for a request in them (READ_FIXED, WRITE_FIXED).
 *
 * The table of buffers is the program's, and as long as the program registers nothing there, ours may be in it: one slot for each slab of the
 * pool, filled when the first request in that slab is submitted. Before whatever the program does to the table ours is taken out, for good. Both, and
 * the use of it, happen with the submission right, and only entries that the kernel starts within the call use it (none behind a drain, ours
 * included): the kernel looks a buffer up when it starts a request, which keeps it from then on. (Before 6.13 taking a table out would have waited for requests of the program's.)
 *
 * Addresses in the table are those of the process that has registered them. No other one uses it, nor this one when they share the ring.
 *
 * Registered memory is locked memory, and charged to the user, whose other processes may have a limit: only for who has CAP_IPC_LOCK, to whom it
 * is not charged.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/raw.h"
#include "bounce/copy.h"
#include "rings/uring_ring.h"

enum {
    FIXED_SLABS = 64, /* of the pool: bits of a word */
    FIXED_ENOUGH =
        64, /* requests of a ring before it is worth its while: to register a slab costs what 100 requests gain */
};

/* ---- May we? ---- */

/* Does CAP_IPC_LOCK count? The kernel asks for it in the first user namespace. */
static bool is_first_namespace(void)
{
    const uint32_t first = 0xEFFFFFFD; /* PROC_USER_INIT_INO, include/linux/proc_ns.h */
    struct stat space;
    return !raw_failed(raw(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/user", &space, 0)) && space.st_ino == first;
}

static bool may_lock_memory(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    return !raw_failed(raw(SYS_capget, &header, sets)) && (sets[0].effective & 1U << CAP_IPC_LOCK) &&
           is_first_namespace();
}

/* ---- The table ---- */

static long call_kernel(const struct uring *ring, unsigned opcode, const void *argument, size_t size)
{
    return raw(SYS_io_uring_register, atomic_load(&ring->fd), opcode, argument, size);
}

/* @return false: not yet, or never: the program has one there already, or whatever other reason. */
static __attribute__((noinline)) bool make_table(struct uring *ring, bool nowait)
{
    const struct io_uring_rsrc_register empty = {.nr = FIXED_SLABS, .flags = IORING_RSRC_REGISTER_SPARSE};
    if (nowait || ring->fixed_requests == FIXED_ENOUGH || ++ring->fixed_requests < FIXED_ENOUGH)
        return false;
    if (!(ring->features & URING_FEAT_RW_ATTR) || atomic_load(&ring->control->fixed) != 0 || !may_lock_memory() ||
        call_kernel(ring, IORING_REGISTER_BUFFERS2, &empty, sizeof empty) != 0)
        return false;
    atomic_store(&ring->control->fixed, ring->pid);
    return true;
}

static __attribute__((noinline)) bool add_slab(struct uring *ring, int slab, bool nowait)
{
    const struct iovec pages = {.iov_base = pool_slab(slab), .iov_len = POOL_SLAB};
    const struct io_uring_rsrc_update2 update = {
        .offset = (uint32_t)slab, .data = (uint64_t)(uintptr_t)&pages, .nr = 1};
    if (nowait || (ring->fixed_tried >> slab & 1))
        return false;
    ring->fixed_tried |= UINT64_C(1) << slab;
    if (call_kernel(ring, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update) != 1)
        return false;
    ring->fixed_slabs |= UINT64_C(1) << slab;
    return true;
}

int uring_fixed_buffer(struct uring *ring, const void *data, size_t length, bool nowait)
{
    const struct uring_control *control = ring->control;
    const int slab = pool_slab_of(data, length); /* none: a read in place, or more than a slab holds */
    if (slab < 0 || slab >= FIXED_SLABS)
        return -1;
    /* The kernel would start it later than it is submitted; or another process may be at the table. */
    if (ring->has_drained || atomic_load_explicit(&control->shared, memory_order_relaxed))
        return -1;
    if (atomic_load_explicit(&control->fixed, memory_order_relaxed) != ring->pid && !make_table(ring, nowait))
        return -1;
    return (ring->fixed_slabs >> slab & 1) || add_slab(ring, slab, nowait) ? slab : -1;
}

/* With the submission right. Who may not do that may not do what it is for either, and will be told so. */
static void remove_table(struct uring *ring, int fd, unsigned by_index)
{
    const int owner = atomic_load(&ring->control->fixed);
    if (owner <= 0 || raw(SYS_io_uring_register, fd, IORING_UNREGISTER_BUFFERS | by_index, NULL, 0) == 0)
        atomic_store(&ring->control->fixed, URING_FIXED_NEVER);
}

void uring_fixed_end(struct uring *ring, int fd, unsigned opcode)
{
    struct active active;
    if (atomic_load(&ring->control->fixed) == URING_FIXED_NEVER)
        return;
    /* A handler that has interrupted the thread's own submission is refused by the kernel: entries are on their way that use the table. */
    if (!uring_claim(ring, &active, true))
        return;
    remove_table(ring, fd, opcode & URING_REGISTER_USE_REGISTERED_RING);
    uring_disclaim(ring, &active);
}

/* Source: struct io_uring_clone_buffers of Linux 6.12. */
struct clone_buffers {
    uint32_t source, flags, source_offset, target_offset, count, pad[3];
};

void uring_fixed_end_source(const void *argument)
{
    enum { SOURCE_REGISTERED = 1 };
    struct clone_buffers wish;
    if (copy_from_user(&wish, argument, sizeof wish) != sizeof wish)
        return;
    const bool by_index = wish.flags & SOURCE_REGISTERED;
    struct uring *source = by_index ? uring_of_registered(wish.source) : uring_of((int)wish.source);
    if (!source)
        return;
    uring_fixed_end(source, (int)wish.source, by_index ? URING_REGISTER_USE_REGISTERED_RING : 0);
    uring_drop(source);
}
