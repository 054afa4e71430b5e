/*
 * A ring comes and goes: its parameters, its memory, and the program's own mappings of it.
 *
 * Whatever the shim cannot have (memory, a place in its tables) never makes a set-up fail: the ring is then the kernel's own, and direct I/O
 * through it is not bounced. What is refused is what programs do without on older kernels.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "rings/uring_ring.h"

/* What rings are asked for that this shim knows how to shadow; newer flags are refused as an older kernel would. */
#define KNOWN_FLAGS                                                                                                    \
    (IORING_SETUP_IOPOLL | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |      \
     IORING_SETUP_ATTACH_WQ | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |          \
     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER |               \
     IORING_SETUP_DEFER_TASKRUN | URING_SETUP_NO_SQARRAY | URING_SETUP_HYBRID_IOPOLL)

/*
 * Taken away with SQPOLL, whose thread the shim replaces (uring_thread.c). Polling for completions, because nobody would do it between two
 * calls of the program's; SINGLE_ISSUER, because the program's threads wake the kernel's thread, and do not submit.
 */
#define POLLED_FLAGS                                                                                                   \
    (IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_IOPOLL | URING_SETUP_HYBRID_IOPOLL |                     \
     IORING_SETUP_SINGLE_ISSUER)

/* With these the kernel refuses SQPOLL. */
#define UNPOLLED_FLAGS (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_DEFER_TASKRUN)

/* In the shared part of front: the words of both queues, on cache lines of their own, then the array, then the completions. */
struct queue_words {
    _Atomic uint32_t sq_head __attribute__((aligned(64)));
    _Atomic uint32_t sq_tail __attribute__((aligned(64)));
    _Atomic uint32_t cq_head __attribute__((aligned(64)));
    _Atomic uint32_t cq_tail __attribute__((aligned(64)));
    uint32_t sq_mask __attribute__((aligned(64)));
    uint32_t sq_entries, cq_mask, cq_entries;
    _Atomic uint32_t sq_flags; /* SQPOLL */
};

static size_t page_size(void)
{
    return getauxval(AT_PAGESZ);
}

static size_t whole_pages(size_t length)
{
    return (length + page_size() - 1) & ~(page_size() - 1);
}

/* ---- Memory ---- */

static void unmap(void *address, size_t length)
{
    if (address)
        raw(SYS_munmap, address, length);
}

void uring_unmap(struct uring *ring)
{
    unmap(ring->front.queues, ring->memory_length);
    unmap(ring->real_rings, ring->real_length);
    unmap(ring->real_sqes, ring->real_sqes_length);
}

static char *map_real(int fd, size_t length, uint64_t offset)
{
    long address = raw(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    return raw_failed(address) ? NULL : (char *)address;
}

static _Atomic uint32_t *word_at(char *rings, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)(rings + offset);
}

/* Map the kernel's rings and entries for ourselves. `params`: the kernel's answer. */
static bool map_kernel_part(struct uring *ring, int fd, const struct io_uring_params *params)
{
    const size_t array_end = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
    const size_t cqes_end = params->cq_off.cqes + params->cq_entries * ring->cqe_size;
    ring->real_length = whole_pages(array_end > cqes_end ? array_end : cqes_end);
    ring->real_rings = map_real(fd, ring->real_length, IORING_OFF_SQ_RING);
    ring->real_sqes_length = whole_pages(params->sq_entries * ring->sqe_size);
    ring->real_sqes = map_real(fd, ring->real_sqes_length, IORING_OFF_SQES);
    if (!ring->real_rings || !ring->real_sqes)
        return false;
    char *rings = ring->real_rings;
    ring->real_sq = (struct uring_queue){word_at(rings, params->sq_off.head), word_at(rings, params->sq_off.tail),
                                         params->sq_entries - 1, params->sq_entries};
    ring->real_cq = (struct uring_queue){word_at(rings, params->cq_off.head), word_at(rings, params->cq_off.tail),
                                         params->cq_entries - 1, params->cq_entries};
    ring->real_sq_flags = word_at(rings, params->sq_off.flags);
    ring->real_cqes = rings + params->cq_off.cqes;
    if (!(params->flags & URING_SETUP_NO_SQARRAY))
        ring->real_array = (uint32_t *)(void *)(rings + params->sq_off.array);
    return true;
}

/* ---- A live page, and room behind it ---- */

/*
 * The kernel's first page, and behind it `length` in all of address space that is mapped somehow, to be mapped over. Kernels differ in what
 * they let be done with a ring's memory. @return NULL when it cannot be had.
 */

/* From 6.10 on a mapping may be longer than the memory. */
static char *map_long(int fd, size_t length, int protection)
{
    long address = raw(SYS_mmap, NULL, length, protection, MAP_SHARED, fd, IORING_OFF_SQ_RING);
    return raw_failed(address) ? NULL : (char *)address;
}

static char *reserve(size_t length)
{
    long address = raw(SYS_mmap, NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return raw_failed(address) ? NULL : (char *)address;
}

/* Until 6.3 it may be put at a given address. */
static char *map_fixed(int fd, size_t length, int protection)
{
    char *address = reserve(length);
    if (!address ||
        !raw_failed(raw(SYS_mmap, address, page_size(), protection, MAP_SHARED | MAP_FIXED, fd, IORING_OFF_SQ_RING)))
        return address;
    unmap(address, length);
    return NULL;
}

/* Between them the kernel chooses the address: have it choose until it finds the hole that was made for it. */
static char *map_hole(int fd, size_t length, int protection)
{
    enum { TRIES = 256 };
    char *tried[TRIES], *address = reserve(length);
    size_t tries = 0;
    bool found = false;
    if (!address)
        return NULL;
    unmap(address, page_size());
    while (!found && tries < TRIES) {
        long page = raw(SYS_mmap, NULL, page_size(), protection, MAP_SHARED, fd, IORING_OFF_SQ_RING);
        if (raw_failed(page))
            break;
        found = (char *)page == address;
        if (!found)
            tried[tries++] = (char *)page;
    }
    while (tries > 0)
        unmap(tried[--tries], page_size());
    if (!found)
        unmap(address + page_size(), length - page_size());
    return found ? address : NULL;
}

static char *map_live(int fd, size_t length, int protection)
{
    char *address = map_long(fd, length, protection);
    if (!address)
        address = map_fixed(fd, length, protection);
    return address ? address : map_hole(fd, length, protection);
}

/* ---- The shadow ---- */

/* Where the program finds what: in the live page what the kernel alone writes, behind it what is ours. */
static void describe(struct io_uring_params *params, const struct io_uring_params *real, size_t words, size_t array,
                     size_t cqes)
{
    params->sq_off.head = (uint32_t)(words + offsetof(struct queue_words, sq_head));
    params->sq_off.tail = (uint32_t)(words + offsetof(struct queue_words, sq_tail));
    params->sq_off.ring_mask = (uint32_t)(words + offsetof(struct queue_words, sq_mask));
    params->sq_off.ring_entries = (uint32_t)(words + offsetof(struct queue_words, sq_entries));
    params->sq_off.flags = params->flags & IORING_SETUP_SQPOLL
                               ? (uint32_t)(words + offsetof(struct queue_words, sq_flags))
                               : real->sq_off.flags;
    params->sq_off.array = params->flags & URING_SETUP_NO_SQARRAY ? 0 : (uint32_t)array;
    params->cq_off.head = (uint32_t)(words + offsetof(struct queue_words, cq_head));
    params->cq_off.tail = (uint32_t)(words + offsetof(struct queue_words, cq_tail));
    params->cq_off.ring_mask = (uint32_t)(words + offsetof(struct queue_words, cq_mask));
    params->cq_off.ring_entries = (uint32_t)(words + offsetof(struct queue_words, cq_entries));
    params->cq_off.cqes = (uint32_t)cqes;
}

static void fill_words(struct uring *ring, struct queue_words *words)
{
    const struct io_uring_params *params = &ring->front.params;
    words->sq_mask = params->sq_entries - 1;
    words->sq_entries = params->sq_entries;
    words->cq_mask = params->cq_entries - 1;
    words->cq_entries = params->cq_entries;
    atomic_store(&words->sq_flags, IORING_SQ_NEED_WAKEUP);
    ring->sq = (struct uring_queue){&words->sq_head, &words->sq_tail, words->sq_mask, words->sq_entries};
    ring->cq = (struct uring_queue){&words->cq_head, &words->cq_tail, words->cq_mask, words->cq_entries};
}

/* Make the shadow: the live page, and behind it one mapping that forked children share. */
static bool map_shadow(struct uring *ring, int fd, const struct io_uring_params *real)
{
    struct io_uring_params *params = &ring->front.params;
    const size_t words = page_size();
    const size_t array = words + sizeof(struct queue_words);
    const size_t array_length = ring->real_array ? real->sq_entries * sizeof(uint32_t) : 0;
    const size_t cqes = (array + array_length + 63) & ~(size_t)63;
    const size_t queues = whole_pages(cqes + real->cq_entries * ring->cqe_size);
    const size_t sqes = whole_pages(real->sq_entries * ring->sqe_size);
    const size_t control = whole_pages(sizeof(struct uring_control) + 2 * real->cq_entries * sizeof(_Atomic uint32_t));
    char *address = map_live(fd, queues + sqes + control, PROT_READ | PROT_WRITE);
    if (!address)
        return false;
    ring->memory_length = queues + sqes + control;
    ring->front.queues = address;
    if (raw_failed(raw(SYS_mmap, address + words, ring->memory_length - words, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)))
        return false;
    ring->front.queues_length = queues;
    ring->front.sqes = (struct io_uring_sqe *)(void *)(ring->front.queues + queues);
    ring->front.sqes_length = sqes;
    ring->control = (struct uring_control *)(void *)(ring->front.queues + queues + sqes);
    ring->cqes = ring->front.queues + cqes;
    describe(params, real, words, array, cqes);
    fill_words(ring, (struct queue_words *)(void *)(ring->front.queues + words));
    if (ring->real_array)
        ring->sq_array = (uint32_t *)(void *)(ring->front.queues + array);
    return true;
}

/* ---- Set-up ---- */

/* Is the set-up one that the shim cannot shadow, and that programs can do without? */
static bool is_refused(unsigned flags)
{
    static _Atomic bool said;
    unsigned unknown = flags & ~KNOWN_FLAGS;
    if (unknown && !atomic_exchange(&said, true))
        log_warn("io_uring_setup: flags %x are not supported under the shim; refused with EINVAL", unknown);
    return unknown != 0;
}

/* Make a shadow of the ring `fd`. `asked`: as the program did; `real`: as the kernel answered. @return NULL when that cannot be had. */
static struct uring *shadow(int fd, const struct io_uring_params *asked, const struct io_uring_params *real)
{
    struct uring *ring = (real->features & IORING_FEAT_SINGLE_MMAP) && slots_prepare() ? uring_new() : NULL;
    if (!ring)
        return NULL;
    ring->flags = asked->flags;
    ring->features = real->features;
    ring->sqe_size = (asked->flags & IORING_SETUP_SQE128) ? 128 : 64;
    ring->cqe_size = (asked->flags & IORING_SETUP_CQE32) ? 32 : 16;
    ring->front.params = *real;
    ring->front.params.flags |= asked->flags;
    ring->front.params.sq_thread_cpu = asked->sq_thread_cpu;
    ring->front.params.sq_thread_idle = asked->sq_thread_idle;
    if (map_kernel_part(ring, fd, real) && map_shadow(ring, fd, real) && uring_publish(ring, fd))
        return ring;
    uring_unmap(ring);
    uring_discard(ring);
    return NULL;
}

/* The kernel's own ring, for want of ours. */
static long setup_native(unsigned entries, struct io_uring_params *params)
{
    static _Atomic bool said;
    if (!atomic_exchange(&said, true))
        log_warn("io_uring: no memory for a shadow ring; direct I/O through this ring is not bounced");
    return raw(SYS_io_uring_setup, entries, params);
}

long uring_setup(unsigned entries, struct io_uring_params *params)
{
    struct io_uring_params asked, real;
    if (copy_from_user(&asked, params, sizeof asked) != sizeof asked || !process_owns_tables())
        return raw(SYS_io_uring_setup, entries, params);
    if (is_refused(asked.flags))
        return -EINVAL;
    const bool polled = (asked.flags & IORING_SETUP_SQPOLL) && !(asked.flags & UNPOLLED_FLAGS);
    real = asked;
    if (polled)
        real.flags &= ~(uint32_t)POLLED_FLAGS;
    long fd = raw(SYS_io_uring_setup, entries, &real);
    if (raw_failed(fd))
        return fd;
    struct uring *ring = shadow((int)fd, &asked, &real);
    if (!ring || (polled && uring_thread_serve(ring) != 0)) {
        if (ring)
            uring_closing((int)fd);
        raw(SYS_close, fd);
        return setup_native(entries, params);
    }
    if (copy_to_user(params, &ring->front.params, sizeof *params) == sizeof *params)
        return fd;
    uring_closing((int)fd);
    raw(SYS_close, fd);
    return -EFAULT;
}

/* ---- The program's mappings ---- */

/* Map `length` bytes of ours from `source` on a second time, over what is at `address`. */
static bool duplicate(char *address, char *source, size_t length, int protection)
{
    /* An old size of 0 leaves the old mapping there: mremap(2), for shared mappings. */
    if (raw_failed(raw(SYS_mremap, source, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, address)))
        return false;
    return protection == (PROT_READ | PROT_WRITE) || !raw_failed(raw(SYS_mprotect, address, length, protection));
}

long uring_map(struct uring *ring, void *address, size_t length, int protection, int flags, uint64_t offset)
{
    const bool is_sqes = offset == IORING_OFF_SQES;
    const size_t there = is_sqes ? ring->front.sqes_length : ring->front.queues_length;
    const size_t live = is_sqes ? 0 : page_size();
    const size_t wanted = whole_pages(length);
    /* No kernel since 6.4 lets a program say where. */
    if (length == 0 || length > there || address || (flags & MAP_FIXED))
        return -EINVAL;
    char *mapped = is_sqes ? reserve(wanted) : map_live(atomic_load(&ring->fd), wanted, protection);
    char *source = is_sqes ? (char *)ring->front.sqes : ring->front.queues + live;
    if (!mapped)
        return -ENOMEM;
    if (wanted <= live || duplicate(mapped + live, source, wanted - live, protection))
        return (long)mapped;
    unmap(mapped, wanted);
    return -ENOMEM;
}
