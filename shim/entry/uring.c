/*
 * liburing's functions, as its inline ones and its programs expect them of versions 2.0 to 2.9: those that make a ring, submit to it, wait for it
 * or end it. They work on whatever memory the program's structure points to, so that one and the same code serves shadow rings and
 * the kernel's own. What the library does beside that (probes, personalities, buffer rings, ...) it does by itself, on the ring's descriptor.
 *
 * All return -errno. None is a cancellation point.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/next.h"
#include "base/process.h"
#include "base/raw.h"
#include "entry/entry.h"
#include "entry/liburing.h"
#include "entry/uring_raw.h"

enum { SIGNALS_SIZE = _NSIG / 8 }; /* of the kernel's signal sets */

/* ---- The calls themselves ---- */

EXPORT int io_uring_setup(unsigned entries, struct io_uring_params *params)
{
    return (int)uring_raw_setup(entries, params, NULL);
}

EXPORT int io_uring_enter2(unsigned fd, unsigned to_submit, unsigned least, unsigned flags, void *argument, size_t size)
{
    return (int)uring_raw_enter(fd, to_submit, least, flags, argument, size);
}

EXPORT int io_uring_enter(unsigned fd, unsigned to_submit, unsigned least, unsigned flags, sigset_t *mask)
{
    return (int)uring_raw_enter(fd, to_submit, least, flags, mask, SIGNALS_SIZE);
}

EXPORT int io_uring_register(unsigned fd, unsigned opcode, void *argument, unsigned count)
{
    return (int)uring_raw_register(fd, opcode, argument, count);
}

/* ---- Set-up ---- */

static void *map_part(int fd, size_t length, uint64_t offset)
{
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    long result;
    if (!uring_raw_map(NULL, length, protection, flags, fd, offset, &result))
        result = raw(SYS_mmap, NULL, length, protection, flags, fd, offset);
    return (void *)result;
}

static void unmap_part(void *address, size_t length)
{
    if (address && !raw_failed((long)address))
        raw(SYS_munmap, address, length);
}

static size_t sqes_size(const struct io_uring *ring)
{
    return ring->sq.ring_entries * ((ring->flags & IORING_SETUP_SQE128) ? 128U : 64U);
}

static void unmap_ring(struct io_uring *ring)
{
    unmap_part(ring->sq.sqes, sqes_size(ring));
    if (ring->cq.ring_ptr != ring->sq.ring_ptr)
        unmap_part(ring->cq.ring_ptr, ring->cq.ring_sz);
    unmap_part(ring->sq.ring_ptr, ring->sq.ring_sz);
}

static void *at(void *base, uint32_t offset)
{
    return (char *)base + offset;
}

static void point_into(struct io_uring *ring, const struct io_uring_params *params)
{
    struct liburing_sq *sq = &ring->sq;
    struct liburing_cq *cq = &ring->cq;
    sq->khead = at(sq->ring_ptr, params->sq_off.head);
    sq->ktail = at(sq->ring_ptr, params->sq_off.tail);
    sq->kring_mask = at(sq->ring_ptr, params->sq_off.ring_mask);
    sq->kring_entries = at(sq->ring_ptr, params->sq_off.ring_entries);
    sq->kflags = at(sq->ring_ptr, params->sq_off.flags);
    sq->kdropped = at(sq->ring_ptr, params->sq_off.dropped);
    sq->ring_mask = *sq->kring_mask;
    if (!(params->flags & URING_SETUP_NO_SQARRAY))
        sq->array = at(sq->ring_ptr, params->sq_off.array);
    cq->khead = at(cq->ring_ptr, params->cq_off.head);
    cq->ktail = at(cq->ring_ptr, params->cq_off.tail);
    cq->kring_mask = at(cq->ring_ptr, params->cq_off.ring_mask);
    cq->kring_entries = at(cq->ring_ptr, params->cq_off.ring_entries);
    cq->koverflow = at(cq->ring_ptr, params->cq_off.overflow);
    cq->cqes = at(cq->ring_ptr, params->cq_off.cqes);
    if (params->cq_off.flags)
        cq->kflags = at(cq->ring_ptr, params->cq_off.flags);
    cq->ring_mask = *cq->kring_mask;
    cq->ring_entries = *cq->kring_entries;
}

static long map_ring(int fd, const struct io_uring_params *params, struct io_uring *ring)
{
    struct liburing_sq *sq = &ring->sq;
    struct liburing_cq *cq = &ring->cq;
    const size_t cqe_size = (params->flags & IORING_SETUP_CQE32) ? 32 : 16;
    const bool single = (params->features & IORING_FEAT_SINGLE_MMAP) != 0;
    sq->ring_entries = params->sq_entries;
    sq->ring_sz = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
    cq->ring_sz = params->cq_off.cqes + params->cq_entries * cqe_size;
    if (single)
        sq->ring_sz = cq->ring_sz = sq->ring_sz > cq->ring_sz ? sq->ring_sz : cq->ring_sz;
    sq->ring_ptr = map_part(fd, sq->ring_sz, IORING_OFF_SQ_RING);
    if (raw_failed((long)sq->ring_ptr))
        return (long)sq->ring_ptr;
    cq->ring_ptr = single ? sq->ring_ptr : map_part(fd, cq->ring_sz, IORING_OFF_CQ_RING);
    if (raw_failed((long)cq->ring_ptr))
        return (long)cq->ring_ptr;
    sq->sqes = map_part(fd, sqes_size(ring), IORING_OFF_SQES);
    return raw_failed((long)sq->sqes) ? (long)sq->sqes : 0;
}

EXPORT int io_uring_queue_mmap(int fd, struct io_uring_params *params, struct io_uring *ring)
{
    memset(ring, 0, sizeof *ring);
    ring->flags = params->flags;
    long error = map_ring(fd, params, ring);
    if (error != 0) {
        unmap_ring(ring);
        return (int)error;
    }
    point_into(ring, params);
    ring->ring_fd = ring->enter_ring_fd = fd;
    ring->features = params->features;
    /* Entries stand in the array in their own order, for ever. */
    for (unsigned i = 0; ring->sq.array && i < ring->sq.ring_entries; i++)
        ring->sq.array[i] = i;
    return 0;
}

EXPORT int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    int fd = io_uring_setup(entries, params);
    if (fd < 0)
        return fd;
    int error = io_uring_queue_mmap(fd, params, ring);
    if (error != 0) {
        int before = errno;
        close(fd);
        errno = before;
    }
    return error;
}

EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    struct io_uring_params params = {.flags = flags};
    return io_uring_queue_init_params(entries, ring, &params);
}

/* In memory of the program's: refused, as by a kernel before 6.5. */
EXPORT int io_uring_queue_init_mem(unsigned entries, struct io_uring *ring, struct io_uring_params *params,
                                   void *memory, size_t size)
{
    if (process_start()) {
        params->flags |= URING_SETUP_NO_MMAP;
        return io_uring_setup(entries, params);
    }
    int (*found)(unsigned, struct io_uring *, struct io_uring_params *, void *, size_t) = (int (*)(
        unsigned, struct io_uring *, struct io_uring_params *, void *, size_t))next_find("io_uring_queue_init_mem");
    return found ? found(entries, ring, params, memory, size) : -ENOSYS;
}

/* ---- Submitting ---- */

static unsigned enter_flags(const struct io_uring *ring)
{
    return ((ring->int_flags & LIBURING_REG_RING) ? IORING_ENTER_REGISTERED_RING : 0) |
           ((ring->int_flags & LIBURING_NO_IOWAIT) ? URING_ENTER_NO_IOWAIT : 0);
}

static int enter(const struct io_uring *ring, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                 size_t size)
{
    return (int)uring_raw_enter((unsigned)ring->enter_ring_fd, to_submit, least, flags | enter_flags(ring), argument,
                                size);
}

/* Show the kernel what was queued. @return entries that it has not taken yet. */
static unsigned flush_sq(struct io_uring *ring)
{
    struct liburing_sq *sq = &ring->sq;
    if (sq->sqe_head != sq->sqe_tail) {
        sq->sqe_head = sq->sqe_tail;
        /* Release: the entries. */
        atomic_store_explicit(sq->ktail, sq->sqe_tail, memory_order_release);
    }
    return sq->sqe_tail - atomic_load_explicit(sq->khead, memory_order_acquire);
}

static bool needs_flush(const struct io_uring *ring)
{
    return atomic_load_explicit(ring->sq.kflags, memory_order_relaxed) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

static bool cq_needs_enter(const struct io_uring *ring)
{
    return (ring->flags & IORING_SETUP_IOPOLL) || needs_flush(ring);
}

static bool sq_needs_enter(const struct io_uring *ring, unsigned to_submit, unsigned *flags)
{
    if (to_submit == 0 || !(ring->flags & IORING_SETUP_SQPOLL))
        return to_submit != 0;
    /* The thread must see the tail before we see whether it sleeps: a full barrier (the thread sanitizer knows no fences). */
    if (!(atomic_fetch_or(ring->sq.kflags, 0) & IORING_SQ_NEED_WAKEUP))
        return false;
    *flags |= IORING_ENTER_SQ_WAKEUP;
    return true;
}

static int submit(struct io_uring *ring, unsigned to_submit, unsigned least, bool gets_events)
{
    unsigned flags = 0;
    const bool looks = gets_events || least > 0 || cq_needs_enter(ring);
    if (!sq_needs_enter(ring, to_submit, &flags) && !looks)
        return (int)to_submit;
    return enter(ring, to_submit, least, flags | (looks ? IORING_ENTER_GETEVENTS : 0), NULL, 0);
}

EXPORT int io_uring_submit(struct io_uring *ring)
{
    return submit(ring, flush_sq(ring), 0, false);
}

EXPORT int io_uring_submit_and_wait(struct io_uring *ring, unsigned least)
{
    return submit(ring, flush_sq(ring), least, false);
}

EXPORT int io_uring_submit_and_get_events(struct io_uring *ring)
{
    return submit(ring, flush_sq(ring), 0, true);
}

EXPORT int io_uring_get_events(struct io_uring *ring)
{
    return enter(ring, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
}

/* SQPOLL: wait for room in the SQ. */
EXPORT int __io_uring_sqring_wait(struct io_uring *ring)
{
    return enter(ring, 0, 0, IORING_ENTER_SQ_WAIT, NULL, 0);
}

/* ---- Completions ---- */

static unsigned ready(const struct io_uring *ring)
{
    return atomic_load_explicit(ring->cq.ktail, memory_order_acquire) -
           atomic_load_explicit(ring->cq.khead, memory_order_relaxed);
}

/* Have in the queue what has completed, if there is not `least` yet. @return how many there are. */
static unsigned pumped_ready(const struct io_uring *ring, unsigned least)
{
    unsigned there = ready(ring);
    if (there > 0 && there >= least)
        return there;
    uring_raw_pump((unsigned)ring->enter_ring_fd, (ring->int_flags & LIBURING_REG_RING) != 0);
    return ready(ring);
}

static struct io_uring_cqe *completion(const struct io_uring *ring, unsigned index)
{
    const unsigned wide = (ring->flags & IORING_SETUP_CQE32) ? 1 : 0;
    return &ring->cq.cqes[(index & *ring->cq.kring_mask) << wide];
}

static void advance(const struct io_uring *ring)
{
    /* Release: the entry has been read. */
    atomic_store_explicit(ring->cq.khead, atomic_load_explicit(ring->cq.khead, memory_order_relaxed) + 1,
                          memory_order_release);
}

/* The first completion, or NULL; *error is that of a time-out of submit_timeout's, which is passed over. */
static struct io_uring_cqe *peek(const struct io_uring *ring, unsigned least, unsigned *there, int *error)
{
    for (;;) {
        *there = pumped_ready(ring, least);
        if (*there == 0)
            return NULL;
        struct io_uring_cqe *cqe = completion(ring, atomic_load_explicit(ring->cq.khead, memory_order_relaxed));
        if ((ring->features & IORING_FEAT_EXT_ARG) || cqe->user_data != LIBURING_UDATA_TIMEOUT)
            return cqe;
        if (cqe->res < 0)
            *error = cqe->res;
        advance(ring);
        if (*error != 0)
            return NULL;
    }
}

/* One wait: what is submitted with it, for how many, how long. */
struct wish {
    unsigned to_submit, least, flags;
    const void *argument;
    size_t size;
    bool is_limited; /* by a time in `argument` */
};

static int get_cqe(struct io_uring *ring, struct io_uring_cqe **result, struct wish *wish)
{
    struct io_uring_cqe *cqe = NULL;
    bool looped = false;
    int error = 0;
    for (;;) {
        unsigned there, flags = 0;
        int late = 0;
        bool enters = false;
        cqe = peek(ring, wish->least, &there, &late);
        if (late != 0) {
            error = error != 0 ? error : late;
            break;
        }
        if (!cqe && wish->least == 0 && wish->to_submit == 0) {
            /* Once the kernel has been asked there is nothing more to be had. */
            if (looped || !cq_needs_enter(ring)) {
                error = error != 0 ? error : -EAGAIN;
                break;
            }
            enters = true;
        }
        if (wish->least > there || enters) {
            flags = IORING_ENTER_GETEVENTS | wish->flags;
            enters = true;
        }
        if (sq_needs_enter(ring, wish->to_submit, &flags))
            enters = true;
        if (!enters)
            break;
        if (looped && wish->is_limited) {
            if (!cqe && error == 0)
                error = -ETIME;
            break;
        }
        int done = enter(ring, wish->to_submit, wish->least, flags, wish->argument, wish->size);
        if (done < 0) {
            error = error != 0 ? error : done;
            break;
        }
        wish->to_submit -= (unsigned)done;
        if (cqe)
            break;
        if (!looped) {
            looped = true;
            error = done;
        }
    }
    *result = cqe;
    return error;
}

EXPORT int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **result, unsigned to_submit, unsigned least,
                              sigset_t *mask)
{
    struct wish wish = {.to_submit = to_submit, .least = least, .argument = mask, .size = SIGNALS_SIZE};
    return get_cqe(ring, result, &wish);
}

static unsigned fill(const struct io_uring *ring, struct io_uring_cqe **cqes, unsigned there, unsigned most)
{
    const unsigned head = atomic_load_explicit(ring->cq.khead, memory_order_relaxed);
    const unsigned count = there < most ? there : most;
    for (unsigned i = 0; i < count; i++)
        cqes[i] = completion(ring, head + i);
    return count;
}

EXPORT unsigned io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes, unsigned most)
{
    unsigned there = pumped_ready(ring, most);
    if (there == 0 && needs_flush(ring)) {
        io_uring_get_events(ring);
        there = ready(ring);
    }
    return fill(ring, cqes, there, most);
}

/* ---- Waiting with a time limit ---- */

/* For kernels before 5.11: a request that ends after that time, or after `least` others. @return entries to be submitted, or -errno. */
static int submit_timeout(struct io_uring *ring, unsigned least, const struct __kernel_timespec *limit)
{
    struct liburing_sq *sq = &ring->sq;
    if (sq->sqe_tail + 1 - atomic_load_explicit(sq->khead, memory_order_acquire) > *sq->kring_entries) {
        int done = io_uring_submit(ring);
        if (done < 0)
            return done;
        if (sq->sqe_tail + 1 - atomic_load_explicit(sq->khead, memory_order_acquire) > *sq->kring_entries)
            return -EAGAIN;
    }
    const unsigned wide = (ring->flags & IORING_SETUP_SQE128) ? 1 : 0;
    struct io_uring_sqe *sqe = &sq->sqes[(sq->sqe_tail & *sq->kring_mask) << wide];
    sq->sqe_tail++;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_TIMEOUT;
    sqe->addr = (uint64_t)(uintptr_t)limit;
    sqe->len = 1;
    sqe->off = least;
    sqe->user_data = LIBURING_UDATA_TIMEOUT;
    return (int)flush_sq(ring);
}

/* `submits`: what was queued too. `at_least`: microseconds for which several are waited for (Linux 6.12). */
static int wait_limited(struct io_uring *ring, struct io_uring_cqe **result, unsigned least,
                        struct __kernel_timespec *limit, unsigned at_least, sigset_t *mask, bool submits)
{
    if (limit && !(ring->features & IORING_FEAT_EXT_ARG)) {
        int to_submit = submit_timeout(ring, least, limit);
        return to_submit < 0 ? to_submit : __io_uring_get_cqe(ring, result, (unsigned)to_submit, least, mask);
    }
    if (!limit && at_least == 0)
        return __io_uring_get_cqe(ring, result, submits ? flush_sq(ring) : 0, least, mask);
    const struct io_uring_getevents_arg extended = {.sigmask = (uint64_t)(uintptr_t)mask,
                                                    .sigmask_sz = SIGNALS_SIZE,
                                                    .pad = at_least,
                                                    .ts = (uint64_t)(uintptr_t)limit};
    struct wish wish = {.to_submit = submits ? flush_sq(ring) : 0,
                        .least = least,
                        .flags = IORING_ENTER_EXT_ARG,
                        .argument = &extended,
                        .size = sizeof extended,
                        .is_limited = limit != NULL};
    return get_cqe(ring, result, &wish);
}

EXPORT int io_uring_wait_cqes(struct io_uring *ring, struct io_uring_cqe **result, unsigned least,
                              struct __kernel_timespec *limit, sigset_t *mask)
{
    return wait_limited(ring, result, least, limit, 0, mask, false);
}

EXPORT int io_uring_wait_cqes_min_timeout(struct io_uring *ring, struct io_uring_cqe **result, unsigned least,
                                          struct __kernel_timespec *limit, unsigned at_least, sigset_t *mask)
{
    return wait_limited(ring, result, least, limit, at_least, mask, false);
}

EXPORT int io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **result,
                                     struct __kernel_timespec *limit)
{
    return wait_limited(ring, result, 1, limit, 0, NULL, false);
}

EXPORT int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **result, unsigned least,
                                            struct __kernel_timespec *limit, sigset_t *mask)
{
    return wait_limited(ring, result, least, limit, 0, mask, true);
}

EXPORT int io_uring_submit_and_wait_min_timeout(struct io_uring *ring, struct io_uring_cqe **result, unsigned least,
                                                struct __kernel_timespec *limit, unsigned at_least, sigset_t *mask)
{
    return wait_limited(ring, result, least, limit, at_least, mask, true);
}

/* The argument lies in memory that was registered for it (Linux 6.13). */
EXPORT int io_uring_submit_and_wait_reg(struct io_uring *ring, struct io_uring_cqe **result, unsigned least, int index)
{
    enum { REGISTERED_WAIT_SIZE = 64 };
    struct wish wish = {.to_submit = flush_sq(ring),
                        .least = least,
                        .flags = IORING_ENTER_EXT_ARG | URING_ENTER_EXT_ARG_REG,
                        .argument = (const void *)(uintptr_t)((unsigned)index * REGISTERED_WAIT_SIZE), /* NOLINT */
                        .size = REGISTERED_WAIT_SIZE,
                        .is_limited = true};
    return get_cqe(ring, result, &wish);
}
