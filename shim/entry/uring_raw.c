/*
 * io_uring by system calls: the shadow ring behind a descriptor or a registered index, or else the kernel's own.
 */
#include "entry/uring_raw.h"

#include <errno.h>

#include "base/process.h"
#include "base/raw.h"
#include "engine/active.h"
#include "entry/entry.h"
#include "entry/syscall.h"
#include "entry/uring_inline.h"
#include "rings/uring.h"

long uring_raw_setup(unsigned entries, struct io_uring_params *params, const void *caller)
{
    if (!process_start() || (caller && !uring_inline_catch(caller)))
        return raw(SYS_io_uring_setup, entries, params);
    return uring_setup(entries, params);
}

static struct uring *ring_of(unsigned fd, bool is_index)
{
    if (!uring_any())
        return NULL;
    return is_index ? uring_of_registered(fd) : uring_of((int)fd);
}

long uring_raw_enter(unsigned fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument, size_t size)
{
    struct uring *ring = ring_of(fd, flags & IORING_ENTER_REGISTERED_RING);
    if (!ring)
        return raw(SYS_io_uring_enter, fd, to_submit, least, flags, argument, size);
    long result = uring_enter(ring, (int)fd, to_submit, least, flags, argument, size);
    uring_drop(ring);
    return result;
}

long uring_raw_register(unsigned fd, unsigned opcode, void *argument, unsigned count)
{
    struct uring *ring = ring_of(fd, opcode & URING_REGISTER_USE_REGISTERED_RING);
    if (!ring)
        return raw(SYS_io_uring_register, fd, opcode, argument, count);
    long result = uring_register(ring, (int)fd, opcode, argument, count);
    uring_drop(ring);
    return result;
}

static void drop(void *ring)
{
    uring_drop(ring);
}

void uring_raw_pump(unsigned fd, bool is_index)
{
    struct uring *ring = ring_of(fd, is_index);
    struct active active;
    if (!ring)
        return;
    active_open(&active, drop, ring);
    uring_pump(ring);
    active_close(&active);
    uring_drop(ring);
}

bool uring_raw_map(void *address, size_t length, int protection, int flags, int fd, uint64_t offset, long *result)
{
    if (!uring_any() || (offset != IORING_OFF_SQ_RING && offset != IORING_OFF_CQ_RING && offset != IORING_OFF_SQES))
        return false;
    struct uring *ring = uring_of(fd);
    if (!ring)
        return false;
    *result = uring_map(ring, address, length, protection, flags, offset);
    uring_drop(ring);
    return true;
}

bool syscall_uring(long number, const struct arguments *x, long *result)
{
    switch (number) {
    case SYS_io_uring_setup:
        *result = with_errno(uring_raw_setup((unsigned)x->a, (struct io_uring_params *)x->b, x->caller));
        return true;
    case SYS_io_uring_enter:
        *result = with_errno(uring_raw_enter((unsigned)x->a, (unsigned)x->b, (unsigned)x->c, (unsigned)x->d,
                                             (const void *)x->e, (size_t)x->f));
        return true;
    case SYS_io_uring_register:
        *result = with_errno(uring_raw_register((unsigned)x->a, (unsigned)x->b, (void *)x->c, (unsigned)x->d));
        return true;
    default:
        return false;
    }
}
