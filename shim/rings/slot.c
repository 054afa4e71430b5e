/*
 * The table of slots: one reservation of address space, made when the first slot is taken, at the same address for the rest of the life of
 * this process and its forked children, who find it zeroed.
 *
 *   | head: free list, high-water mark | links[] | slots[] |
 *
 * The free list is a stack of slots that were given back (Treiber 1986), linked through links[], which nobody else uses: a late reader of a
 * link finds a number, whatever has become of the slot meanwhile. Its head counts the changes in its upper half, so that a
 * compare-and-swap by somebody who was held up in between fails, even if the same slot is on top again (ABA). When the list is empty a
 * slot is cut off from those never used.
 *
 * `in_use` is the only word of a slot that may be looked at by whoever holds nothing but a tag; taking a slot leaves it for last.
 */
#include "rings/slot.h"

#include <pthread.h>
#include <sys/mman.h>

#include "base/clear.h"
#include "base/process.h"
#include "base/raw.h"

#define CACHE_LINE 64

/* Above the addresses of memory that was not asked for beyond 47 bits. */
#define TAG_SHIFT 48
#define TAG_ADDRESS ((UINT64_C(1) << TAG_SHIFT) - 1)

/* A slot, in whole cache lines of its own. */
union place {
    struct slot slot;
    char room[(sizeof(struct slot) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE];
};

/* In wiped memory: all zero in a new process. */
struct slot_table {
    _Atomic uint64_t free; /* upper half: changes so far; lower: number of the slot on top + 1, or 0 */
    char apart[CACHE_LINE - sizeof(uint64_t)];
    _Atomic uint32_t used;    /* slots ever taken */
    _Atomic uint32_t process; /* upper bits of this process's tags; 0: not known yet */
    char apart_too[CACHE_LINE - 2 * sizeof(uint32_t)];
    _Atomic uint32_t links[SLOT_MAX]; /* of free ones: the next one + 1, or 0 */
    union place places[SLOT_MAX] __attribute__((aligned(CACHE_LINE)));
};

/* Not wiped: children find the table where their parent had it. */
static _Atomic(struct slot_table *) table;

/* For kernels that cannot wipe on fork (before 4.14). */
static bool replace_after_fork;

/* Acquire: pairs with the release in map_table. */
static struct slot_table *table_now(void)
{
    return atomic_load_explicit(&table, memory_order_acquire);
}

static void replace_table(void)
{
    struct slot_table *now = table_now();
    if (replace_after_fork && now)
        raw(SYS_mmap, now, sizeof *now, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
            -1, 0);
}

static void slot_start(void)
{
    pthread_atfork(NULL, NULL, replace_table);
}
PROCESS_INITIALISER(slot_start);

/* Make the table, or take the one that somebody else has made meanwhile. @return NULL when there is no address space. */
static __attribute__((noinline)) struct slot_table *map_table(void)
{
    long address = raw(SYS_mmap, NULL, sizeof(struct slot_table), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_failed(address))
        return NULL;
    raw(SYS_madvise, address, sizeof(struct slot_table), MADV_NOHUGEPAGE);
    raw(SYS_madvise, address, sizeof(struct slot_table), MADV_DONTDUMP);
    if (raw_failed(raw(SYS_madvise, address, sizeof(struct slot_table), MADV_WIPEONFORK)))
        replace_after_fork = true;
    struct slot_table *made = (struct slot_table *)address, *there = NULL;
    /* Release: pairs with table_now. */
    if (atomic_compare_exchange_strong_explicit(&table, &there, made, memory_order_acq_rel, memory_order_acquire))
        return made;
    raw(SYS_munmap, address, sizeof(struct slot_table));
    return there;
}

/* ---- Taking and giving back. ---- */

static uint64_t next_change(uint64_t head, uint32_t top)
{
    return ((head >> 32) + 1) << 32 | top;
}

/* @return number + 1, or 0 when none has been given back. */
static uint32_t pop(struct slot_table *slots)
{
    /* Acquire: the links, and what the last holder wrote; pairs with the release in push. */
    uint64_t head = atomic_load_explicit(&slots->free, memory_order_acquire);
    while ((uint32_t)head != 0) {
        uint32_t top = (uint32_t)head;
        uint32_t below = atomic_load_explicit(&slots->links[top - 1], memory_order_relaxed);
        if (atomic_compare_exchange_weak_explicit(&slots->free, &head, next_change(head, below), memory_order_acquire,
                                                  memory_order_acquire))
            return top;
    }
    return 0;
}

static void push(struct slot_table *slots, uint32_t top)
{
    uint64_t head = atomic_load_explicit(&slots->free, memory_order_relaxed);
    do
        atomic_store_explicit(&slots->links[top - 1], (uint32_t)head, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&slots->free, &head, next_change(head, top), memory_order_release,
                                                  memory_order_relaxed));
}

/* One that was never used. @return number + 1, or 0. */
static uint32_t cut(struct slot_table *slots)
{
    uint32_t used = atomic_load_explicit(&slots->used, memory_order_relaxed);
    while (used < SLOT_MAX)
        /* Relaxed: the memory is as the kernel gave it. */
        if (atomic_compare_exchange_weak_explicit(&slots->used, &used, used + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return used + 1;
    return 0;
}

static uint32_t bits_of(int pid)
{
    return ((uint32_t)pid & 0x7fff) | 0x8000;
}

/* What tells this process's tags from those of its parent and children, whose slots lie at the same addresses. Never 0. */
static uint32_t process_bits(struct slot_table *slots)
{
    uint32_t bits = atomic_load_explicit(&slots->process, memory_order_relaxed);
    if (bits == 0) {
        bits = bits_of((int)raw(SYS_getpid));
        atomic_store_explicit(&slots->process, bits, memory_order_relaxed);
    }
    return bits;
}

bool slots_prepare(void)
{
    return table_now() || map_table();
}

struct slot *slot_take(void)
{
    struct slot_table *slots = table_now();
    if (!slots && !(slots = map_table()))
        return NULL;
    uint32_t number = pop(slots);
    if (number == 0)
        number = cut(slots);
    if (number == 0)
        return NULL;
    struct slot *slot = &slots->places[number - 1].slot;
    atomic_store_explicit(&slot->owner, NULL, memory_order_relaxed);
    slot->role = SLOT_REQUEST;
    slot->refusal = SLOT_NO_REFUSAL;
    slot->next = NULL;
    request_clear(&slot->request);
    slot->uring.ring = NULL;
    slot->uring.user_data = 0;
    slot->uring.chain = NULL;
    slot->uring.heads_piece = slot->uring.is_short = false;
    slot->uring.follow.done = NULL;
    clear(slot->uring.sqe, sizeof *slot->uring.sqe);
    slot->tag = (uint64_t)process_bits(slots) << TAG_SHIFT | (uint64_t)(uintptr_t)slot;
    /* Release: whoever finds it by its tag finds it zeroed; pairs with slot_of. */
    atomic_store_explicit(&slot->in_use, 1, memory_order_release);
    return slot;
}

void slot_give(struct slot *slot)
{
    struct slot_table *slots = table_now();
    size_t offset = (size_t)((char *)slot - (char *)slots->places);
    atomic_store_explicit(&slot->in_use, 0, memory_order_relaxed);
    push(slots, (uint32_t)(offset / sizeof(union place)) + 1);
}

/* ---- Looking. ---- */

/* The place that a tag points into; *within: how far. NULL: none. */
static union place *place_of(uint64_t tag, size_t *within)
{
    struct slot_table *slots = table_now();
    /* An address below wraps around. */
    uint64_t offset = (tag & TAG_ADDRESS) - (uint64_t)(uintptr_t)(slots ? slots->places : NULL);
    if (!slots || offset >= sizeof slots->places)
        return NULL;
    *within = offset % sizeof(union place);
    return &slots->places[offset / sizeof(union place)];
}

struct slot *slot_of(uint64_t tag)
{
    size_t within;
    union place *place = place_of(tag, &within);
    /* Acquire: pairs with slot_take. */
    if (!place || within != 0 || !atomic_load_explicit(&place->slot.in_use, memory_order_acquire))
        return NULL;
    /* Without: an address (libaio). */
    if (tag >> TAG_SHIFT != 0 && tag >> TAG_SHIFT != atomic_load_explicit(&table_now()->process, memory_order_relaxed))
        return NULL;
    return &place->slot;
}

bool slot_is_tag(uint64_t tag)
{
    size_t within;
    return place_of(tag, &within) && within == 0;
}

bool slot_is_of(uint64_t tag, int pid)
{
    return tag >> TAG_SHIFT == bits_of(pid);
}

static uint32_t slots_used(const struct slot_table *slots)
{
    return slots ? atomic_load_explicit(&slots->used, memory_order_relaxed) : 0;
}

void slots_each(const void *owner, void (*visit)(struct slot *slot, void *argument), void *argument)
{
    struct slot_table *slots = table_now();
    for (uint32_t i = 0; i < slots_used(slots); i++) {
        struct slot *slot = &slots->places[i].slot;
        if (atomic_load_explicit(&slot->in_use, memory_order_acquire) &&
            atomic_load_explicit(&slot->owner, memory_order_acquire) == owner)
            visit(slot, argument);
    }
}

unsigned slots_taken(void)
{
    struct slot_table *slots = table_now();
    unsigned taken = 0;
    for (uint32_t i = 0; i < slots_used(slots); i++)
        taken += atomic_load_explicit(&slots->places[i].slot.in_use, memory_order_acquire);
    return taken;
}

/* ---- Handing over. In slot->handed: how often it was, for ever, and what became of the last time. ---- */

enum { NOT_IN_KERNEL = 0, HANDED = 1, LEFT_CURRENT = 2, LEFT_STALE = 3, STATE = 3, ONCE_MORE = 4 };

/* Acquire: all that was written before it was handed over; pairs with the release in slot_hand_over. */
static uint64_t state_of(const struct slot *slot)
{
    return atomic_load_explicit(&slot->handed, memory_order_acquire) & STATE;
}

static uint64_t with_state(uint64_t handed, uint64_t state)
{
    return (handed & ~(uint64_t)STATE) | state;
}

uint64_t slot_hand_over(struct slot *slot)
{
    /* No more than a store: the slot is ours, and a word that is left late, of a time before, may be lost. */
    const uint64_t before = atomic_load_explicit(&slot->handed, memory_order_relaxed);
    const uint64_t handed = with_state(before + ONCE_MORE, HANDED);
    /* Release: whoever completes it sees all of it; pairs with state_of. */
    atomic_store_explicit(&slot->handed, handed, memory_order_release);
    return handed;
}

void slot_take_back(struct slot *slot)
{
    const uint64_t before = atomic_load_explicit(&slot->handed, memory_order_relaxed);
    atomic_store_explicit(&slot->handed, with_state(before, NOT_IN_KERNEL), memory_order_relaxed);
}

bool slot_is_handed(const struct slot *slot, uint64_t handed)
{
    return atomic_load_explicit(&slot->handed, memory_order_relaxed) == handed;
}

void slot_leave_word(struct slot *slot, uint64_t handed, bool current)
{
    atomic_compare_exchange_strong_explicit(&slot->handed, &handed,
                                            with_state(handed, current ? LEFT_CURRENT : LEFT_STALE),
                                            memory_order_acq_rel, memory_order_relaxed);
}

enum slot_word slot_word(const struct slot *slot)
{
    const uint64_t state = state_of(slot);
    return state == LEFT_CURRENT ? SLOT_CURRENT : state == LEFT_STALE ? SLOT_STALE : SLOT_NO_WORD;
}

bool slot_is_in_kernel(const struct slot *slot)
{
    return state_of(slot) != NOT_IN_KERNEL;
}
