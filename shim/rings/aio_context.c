/*
 * Shadow contexts: the table of them, who holds one, the turn, and the shadow's memory. See aio_context.h.
 */
#include "rings/aio_context.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/futex.h>

#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "rings/aio.h"
#include "rings/shadow.h"

#define PAGE ((size_t)4096)

/* In wiped memory: a child has no contexts, as it has none of the kernel's. */
static struct aio_table {
    _Atomic uint32_t high;               /* no key from here on has ever been used */
    _Atomic aio_context_t keys[AIO_MAX]; /* what the program knows them by; 0: none */
    struct aio contexts[AIO_MAX];
} * table;

static void aio_start(void)
{
    table = process_arena(sizeof *table);
}
PROCESS_INITIALISER(aio_start);

/* ---- The table. ---- */

/* @return its number, or -1. */
static int find(aio_context_t context)
{
    uint32_t high = table && context ? atomic_load_explicit(&table->high, memory_order_acquire) : 0;
    for (uint32_t i = 0; i < high; i++)
        /* Acquire: pairs with the release in publish. */
        if (atomic_load_explicit(&table->keys[i], memory_order_acquire) == context)
            return (int)i;
    return -1;
}

static bool hold(struct aio *aio)
{
    uint32_t holders = atomic_load_explicit(&aio->holders, memory_order_relaxed);
    while (holders != 0)
        if (atomic_compare_exchange_weak_explicit(&aio->holders, &holders, holders + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* Hold number `i` if it is still the context's. */
static struct aio *hold_as(uint32_t i, aio_context_t context)
{
    struct aio *aio = &table->contexts[i];
    if (!hold(aio))
        return NULL;
    /* It may have become another's before we held it. */
    if (context != 0 && atomic_load_explicit(&table->keys[i], memory_order_acquire) == context)
        return aio;
    aio_release(aio);
    return NULL;
}

struct aio *aio_hold(aio_context_t context)
{
    int i = find(context);
    return i < 0 ? NULL : hold_as((uint32_t)i, context);
}

void aio_release(struct aio *aio)
{
    /* Both: what the holders did comes before the last one's end. */
    if (atomic_fetch_sub_explicit(&aio->holders, 1, memory_order_acq_rel) != 1)
        return;
    /* Release: who gets the same addresses from the kernel next comes after us; pairs with make_shadow. */
    atomic_fetch_sub_explicit(&shadow_count, 1, memory_order_release);
    raw(SYS_munmap, aio->shadow, aio->length);
    atomic_store_explicit(&aio->taken, false, memory_order_release);
}

struct aio *aio_remove(aio_context_t context)
{
    int i = find(context);
    if (i < 0 || !atomic_compare_exchange_strong_explicit(&table->keys[i], &context, 0, memory_order_acq_rel,
                                                          memory_order_relaxed))
        return NULL;
    return &table->contexts[i];
}

void aio_each(void (*visit)(struct aio *aio))
{
    uint32_t high = table ? atomic_load_explicit(&table->high, memory_order_acquire) : 0;
    for (uint32_t i = 0; i < high; i++) {
        struct aio *aio = hold_as(i, atomic_load_explicit(&table->keys[i], memory_order_acquire));
        if (aio) {
            visit(aio);
            aio_release(aio);
        }
    }
}

bool aio_is_shadow(aio_context_t context)
{
    return find(context) >= 0;
}

/* @return a free number, taken, or -1. */
static int take_number(void)
{
    for (uint32_t i = 0; i < AIO_MAX; i++) {
        /* Acquire: its last holder is done with it. */
        if (!atomic_load_explicit(&table->contexts[i].taken, memory_order_relaxed) &&
            !atomic_exchange_explicit(&table->contexts[i].taken, true, memory_order_acquire))
            return (int)i;
    }
    return -1;
}

static void publish(uint32_t i, aio_context_t context)
{
    uint32_t high = atomic_load_explicit(&table->high, memory_order_relaxed);
    while (high <= i && !atomic_compare_exchange_weak_explicit(&table->high, &high, i + 1, memory_order_release,
                                                               memory_order_relaxed))
        ;
    atomic_store_explicit(&table->contexts[i].holders, 1, memory_order_release);
    /* Release: whoever finds it finds it whole; pairs with find. */
    atomic_store_explicit(&table->keys[i], context, memory_order_release);
}

/* ---- Making one. ---- */

/* The shadow of a context of the kernel's. @return 0 or -errno. */
static int make_shadow(struct aio *aio, aio_context_t real)
{
    const struct aio_ring *ring = (const struct aio_ring *)(uintptr_t)real;
    size_t length = (sizeof *ring + ring->nr * sizeof *ring->events + PAGE - 1) & ~(PAGE - 1);
    long address = raw(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (raw_failed(address))
        return (int)address;
    /* Acquire: pairs with aio_release. */
    atomic_fetch_add_explicit(&shadow_count, 1, memory_order_acquire);
    aio->real = real;
    aio->shadow = (struct aio_ring *)address;
    aio->length = length;
    aio->nr = ring->nr;
    aio->shadow->id = ring->id;
    aio->shadow->nr = ring->nr;
    aio->shadow->compat_features = ring->compat_features;
    aio->shadow->incompat_features = 1; /* and no magic: whoever checks does not reap from it */
    aio->shadow->header_length = ring->header_length;
    atomic_store_explicit(&aio->tail, 0, memory_order_relaxed);
    atomic_store_explicit(&aio->sleepers, 0, memory_order_relaxed);
    atomic_store_explicit(&aio->submitters, 0, memory_order_relaxed);
    atomic_store_explicit(&aio->in_kernel, 0, memory_order_relaxed);
    atomic_store_explicit(&aio->ours, 0, memory_order_relaxed);
    atomic_store_explicit(&aio->dead, false, memory_order_relaxed);
    return 0;
}

static long set_up(unsigned events, aio_context_t *context)
{
    aio_context_t real = *context;
    long error = raw(SYS_io_setup, events, &real);
    if (raw_failed(error))
        return error;
    int i = take_number();
    error = i < 0 ? -EAGAIN : make_shadow(&table->contexts[i], real);
    if (raw_failed(error)) {
        if (i >= 0)
            atomic_store_explicit(&table->contexts[i].taken, false, memory_order_release);
        raw(SYS_io_destroy, real);
        return error;
    }
    *context = (aio_context_t)(uintptr_t)table->contexts[i].shadow;
    publish((uint32_t)i, *context);
    return 0;
}

/* The table of slots is not to be made by the first request, which may be one that must not wait. */
static void prepare_slots(void)
{
    struct slot *slot = slot_take();
    if (slot)
        slot_give(slot);
}

long aio_setup(unsigned events, aio_context_t *context)
{
    aio_context_t made;
    guard_install();
    prepare_slots();
    if (copy_from_user(&made, context, sizeof made) != sizeof made)
        return -EFAULT;
    long error = set_up(events, &made);
    if (error != 0 || copy_to_user(context, &made, sizeof made) == sizeof made)
        return error;
    aio_destroy(made);
    return -EFAULT;
}

/* ---- The turn. ---- */

/* As process_lock: the three-state futex lock of "Futexes Are Tricky" (Drepper, 2011). */
void aio_take_turn(struct aio *aio, uint64_t *saved)
{
    process_hold_signals(saved);
    uint32_t seen = 0;
    /* Sequentially consistent: partner of aio_turn_is_taken, and of the release in aio_give_turn. */
    if (atomic_compare_exchange_strong_explicit(&aio->turn, &seen, 1, memory_order_seq_cst, memory_order_relaxed))
        return;
    while (atomic_exchange_explicit(&aio->turn, 2, memory_order_seq_cst) != 0)
        raw(SYS_futex, &aio->turn, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void aio_give_turn(struct aio *aio, const uint64_t *saved)
{
    if (atomic_exchange_explicit(&aio->turn, 0, memory_order_release) == 2)
        raw(SYS_futex, &aio->turn, FUTEX_WAKE_PRIVATE, 1);
    process_release_signals(saved);
}

/* ---- The shadow. ---- */

/* The program may have written anything there; the kernel reduces it likewise. */
static uint32_t shadow_head(const struct aio *aio)
{
    /* Acquire: the program has read the events before it. */
    return atomic_load_explicit(&aio->shadow->head, memory_order_acquire) % aio->nr;
}

static uint32_t shadow_tail(const struct aio *aio)
{
    /* Acquire: pairs with the release in set_tail. */
    return atomic_load_explicit(&aio->tail, memory_order_acquire);
}

uint32_t aio_in_shadow(const struct aio *aio)
{
    return (shadow_tail(aio) + aio->nr - shadow_head(aio)) % aio->nr;
}

unsigned aio_shadow_take(struct aio *aio, struct io_event *events, unsigned most)
{
    uint32_t head = shadow_head(aio), count = aio_in_shadow(aio);
    if (count > most)
        count = most;
    for (uint32_t i = 0; i < count; i++)
        events[i] = aio->shadow->events[(head + i) % aio->nr];
    if (count != 0)
        atomic_store_explicit(&aio->shadow->head, (head + count) % aio->nr, memory_order_release);
    return count;
}

static uint32_t shadow_room(const struct aio *aio, unsigned count)
{
    uint32_t room = aio->nr - 1 - aio_in_shadow(aio);
    return count < room ? count : room;
}

unsigned aio_shadow_put(struct aio *aio, const struct io_event *events, unsigned count)
{
    uint32_t tail = shadow_tail(aio);
    count = shadow_room(aio, count);
    for (uint32_t i = 0; i < count; i++)
        aio->shadow->events[(tail + i) % aio->nr] = events[i];
    tail = (tail + count) % aio->nr;
    /* Release, both: who sees the tail sees the events. */
    atomic_store_explicit(&aio->tail, tail, memory_order_release);
    atomic_store_explicit(&aio->shadow->tail, tail, memory_order_release);
    return count;
}

void aio_shadow_put_back(struct aio *aio, const struct io_event *events, unsigned count)
{
    uint32_t head = shadow_head(aio);
    count = shadow_room(aio, count);
    for (uint32_t i = 1; i <= count; i++)
        aio->shadow->events[(head + aio->nr - i) % aio->nr] = events[count - i];
    atomic_store_explicit(&aio->shadow->head, (head + aio->nr - count) % aio->nr, memory_order_release);
}

/* The kernel's ring goes away with io_destroy, whoever is looking. */
bool aio_has_events(const struct aio *aio)
{
    uint32_t ends[2]; /* head, tail */
    const char *ring = (const char *)(uintptr_t)aio->real;
    return copy_from_user(ends, ring + offsetof(struct aio_ring, head), sizeof ends) != sizeof ends ||
           ends[0] != ends[1];
}
