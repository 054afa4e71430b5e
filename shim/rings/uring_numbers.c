/*
 * The table of rings, and the numbers that lead to them.
 *
 * Neither lies in wiped memory: a forked child inherits the rings' descriptors and memory, and works on with them. What belongs to one process
 * (requests in flight, chains) is begun anew by the child's first look at the ring.
 *
 * A ring's number is looked up by threads that hold nothing, so the places are static, and a ring is held before it is believed: uring_of counts
 * itself in, and looks at the number again.
 */
#include <stddef.h>
#include <string.h>

#include "base/process.h"
#include "base/raw.h"
#include "engine/active.h"
#include "rings/shadow.h"
#include "rings/uring_ring.h"

enum { URING_MAX = 4096, REGISTERED_MAX = 16 /* the kernel's IO_RINGFD_REG_MAX */ };

_Atomic unsigned uring_count;

static struct uring rings[URING_MAX];
static _Atomic unsigned rings_end; /* places from here on were never used */

/* Place of a number's ring + 1; 0: none. */
static _Atomic uint16_t numbers[FD_MAX];
static _Atomic unsigned numbers_end; /* numbers from here on never led to a ring */

/* The same for registered indices of this thread. */
static _Thread_local uint16_t registered[REGISTERED_MAX] __attribute__((tls_model("initial-exec")));

/* In wiped memory: have the local parts of the rings been begun by this process? */
static _Atomic bool *begun;

static void numbers_start(void)
{
    begun = process_arena(URING_MAX * sizeof *begun);
}
PROCESS_INITIALISER(numbers_start);

/* ---- Holding ---- */

static size_t place_of(const struct uring *ring)
{
    return (size_t)(ring - rings);
}

static bool hold(struct uring *ring)
{
    uint32_t users = atomic_load_explicit(&ring->users, memory_order_relaxed);
    while (users != 0)
        /* Acquire: what uring_publish wrote. */
        if (atomic_compare_exchange_weak_explicit(&ring->users, &users, users + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

void uring_drop(struct uring *ring)
{
    /* Acquire and release: the memory goes after everybody's last look at it. */
    if (atomic_fetch_sub_explicit(&ring->users, 1, memory_order_acq_rel) != 1)
        return;
    uring_abandon(ring); /* not earlier: somebody could be finishing what it gives up */
    uring_forget_registered(ring);
    uring_unmap(ring);
    uring_discard(ring);
}

/* The next number from `fd` on that leads to the ring, or -1. */
static int next_number(const struct uring *ring, unsigned fd)
{
    unsigned end = atomic_load(&numbers_end);
    for (; fd < end; fd++)
        if (atomic_load_explicit(&numbers[fd], memory_order_relaxed) == place_of(ring) + 1)
            return (int)fd;
    return -1;
}

static uint32_t count_numbers(const struct uring *ring)
{
    uint32_t count = 0;
    for (int fd = -1; (fd = next_number(ring, (unsigned)fd + 1)) >= 0;)
        count++;
    return count;
}

/* A forked child begins: it has nothing in flight or registered, and none of its parent's threads is at work here. */
static __attribute__((noinline)) void begin(struct uring *ring)
{
    uint64_t saved;
    process_lock(&saved);
    if (!atomic_load(&begun[place_of(ring)])) {
        ring->pid = (int)raw(SYS_getpid);
        atomic_store(&ring->numbers, count_numbers(ring));
        ring->has_bounced = ring->has_drained = false;
        ring->fixed_requests = 0;
        ring->fixed_slabs = ring->fixed_tried = 0;
        atomic_store(&ring->users, 1);
        atomic_store(&ring->in_flight, atomic_load(&ring->ended));
        atomic_store(&ring->chains, NULL);
        atomic_store(&ring->due, false);
        atomic_store(&ring->patient, 0);
        atomic_store(&ring->has_pump_thread, false);
        atomic_store(&ring->joined, false);
        /* Release: pairs with the acquire in is_begun. */
        atomic_store_explicit(&begun[place_of(ring)], true, memory_order_release);
    }
    process_unlock(&saved);
}

static bool is_begun(const struct uring *ring)
{
    return atomic_load_explicit(&begun[place_of(ring)], memory_order_acquire);
}

/* Hold the ring of place `place`, if it is there and `word` still says so. */
static struct uring *hold_place(unsigned place, const _Atomic uint16_t *word)
{
    struct uring *ring = &rings[place - 1];
    if (atomic_load_explicit(&ring->users, memory_order_relaxed) != 0 && !is_begun(ring))
        begin(ring);
    if (!hold(ring))
        return NULL;
    if (!word || atomic_load_explicit(word, memory_order_acquire) == place)
        return ring;
    uring_drop(ring);
    return NULL;
}

struct uring *uring_of(int fd)
{
    if ((unsigned)fd >= FD_MAX)
        return NULL;
    unsigned place = atomic_load_explicit(&numbers[fd], memory_order_acquire);
    return __builtin_expect(place != 0, 0) ? hold_place(place, &numbers[fd]) : NULL;
}

struct uring *uring_of_registered(unsigned index)
{
    return index < REGISTERED_MAX && registered[index] ? hold_place(registered[index], NULL) : NULL;
}

/* A handler has jumped out of a visit. */
static void drop(void *ring)
{
    uring_drop(ring);
}

void uring_each(void (*visit)(struct uring *ring))
{
    unsigned end = atomic_load_explicit(&rings_end, memory_order_acquire);
    for (unsigned i = 0; i < end; i++) {
        /* A forked child that has not used its parent's ring has no part in it. */
        if (atomic_load_explicit(&rings[i].users, memory_order_relaxed) == 0 || !is_begun(&rings[i]))
            continue;
        struct uring *ring = hold_place(i + 1, NULL);
        if (!ring)
            continue;
        struct active active;
        active_open(&active, drop, ring);
        visit(ring);
        active_close(&active);
        uring_drop(ring);
    }
}

/* ---- Coming ---- */

/* Make *end at least `least`. */
static void raise_end(_Atomic unsigned *end, unsigned least)
{
    unsigned seen = atomic_load(end);
    while (seen < least && !atomic_compare_exchange_weak(end, &seen, least))
        ;
}

struct uring *uring_new(void)
{
    for (unsigned i = 0; i < URING_MAX; i++) {
        uint32_t taken = 0;
        if (atomic_load_explicit(&rings[i].taken, memory_order_relaxed) ||
            !atomic_compare_exchange_strong(&rings[i].taken, &taken, 1))
            continue;
        raise_end(&rings_end, i + 1);
        return &rings[i];
    }
    return NULL;
}

void uring_discard(struct uring *ring)
{
    const size_t clean = offsetof(struct uring, numbers);
    memset((char *)ring + clean, 0, sizeof *ring - clean);
    /* Release: zeroed, for whoever takes it next. */
    atomic_store_explicit(&ring->taken, 0, memory_order_release);
}

/* Let a number lead to the ring. */
static void lead(int fd, struct uring *ring)
{
    raise_end(&numbers_end, (unsigned)fd + 1);
    atomic_fetch_add(&ring->numbers, 1);
    atomic_store_explicit(&numbers[fd], (uint16_t)(place_of(ring) + 1), memory_order_release);
}

bool uring_publish(struct uring *ring, int fd)
{
    if ((unsigned)fd >= FD_MAX)
        return false;
    ring->pid = (int)raw(SYS_getpid);
    uring_join(ring);
    atomic_store(&ring->fd, fd);
    atomic_store(&begun[place_of(ring)], true);
    atomic_fetch_add(&uring_count, 1);
    atomic_fetch_add(&shadow_count, 1);
    /* Release: everything about the ring; pairs with hold. */
    atomic_store_explicit(&ring->users, 1, memory_order_release);
    lead(fd, ring);
    return true;
}

void uring_duplicated(int fd, int from)
{
    if ((unsigned)fd >= FD_MAX || !process_owns_tables())
        return;
    struct uring *ring = uring_of(from);
    if (!ring)
        return;
    lead(fd, ring);
    uring_drop(ring);
}

/* ---- Going ---- */

/* A number or a registered index less. The last one: reap while there is a descriptor to do it by. */
static void forget_one(struct uring *ring, bool last_descriptor)
{
    if (last_descriptor) {
        uring_thread_forget(ring);
        uring_reap(ring);
        atomic_store(&ring->fd, -1);
    }
    if (atomic_fetch_sub(&ring->numbers, 1) != 1)
        return;
    atomic_fetch_sub(&uring_count, 1);
    atomic_fetch_sub(&shadow_count, 1);
    uring_drop(ring);
}

void uring_closing(int fd)
{
    if ((unsigned)fd >= FD_MAX || atomic_load_explicit(&numbers[fd], memory_order_relaxed) == 0 ||
        !process_owns_tables())
        return;
    struct uring *ring = uring_of(fd);
    if (!ring || atomic_exchange(&numbers[fd], 0) == 0) {
        if (ring)
            uring_drop(ring);
        return;
    }
    int other = next_number(ring, 0);
    if (other >= 0 && atomic_load(&ring->fd) == fd)
        atomic_store(&ring->fd, other);
    forget_one(ring, other < 0);
    uring_drop(ring);
}

void uring_range_closing(unsigned first, unsigned last)
{
    unsigned end = atomic_load(&numbers_end);
    for (unsigned fd = first; fd <= last && fd < end; fd++)
        uring_closing((int)fd);
}

void uring_registered_ring(unsigned index, struct uring *ring)
{
    if (index >= REGISTERED_MAX)
        return;
    struct uring *before = uring_of_registered(index);
    registered[index] = ring ? (uint16_t)(place_of(ring) + 1) : 0;
    if (ring)
        atomic_fetch_add(&ring->numbers, 1);
    if (!before)
        return;
    forget_one(before, false);
    uring_drop(before);
}
