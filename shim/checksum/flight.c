/*
 * The in-flight tables: entering, leaving, looking. An entry is claimed by a compare-and-swap of its state, filled, and made
 * visible by storing its kind. The looks and the compare-and-swaps of the map's words are sequentially consistent, so that of
 * two requests that meet on a block at least one sees the other.
 */
#include "base/stats.h"
#include "base/step.h"
#include "checksum/session_peers.h"

static _Thread_local unsigned hint __attribute__((tls_model("initial-exec")));

static unsigned first_choice(void)
{
    if (hint == 0) {
        static _Atomic unsigned threads;
        hint = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % 64 + 1;
    }
    return hint - 1;
}

static void raise_high(struct session_file *self, uint64_t entries)
{
    uint64_t high = atomic_load_explicit(&self->flights_high, memory_order_relaxed);
    while (high < entries && !atomic_compare_exchange_weak(&self->flights_high, &high, entries))
        ;
}

int flight_enter(uint64_t map_id, uint64_t first, uint64_t blocks, enum flight_kind kind,
                 enum flight_transport transport)
{
    struct session_file *self = atomic_load_explicit(&session_state->self, memory_order_acquire);
    unsigned start = first_choice();
    for (unsigned i = 0; i < SESSION_FLIGHTS; i++) {
        unsigned index = (start + i) % SESSION_FLIGHTS;
        struct flight *flight = &self->flights[index];
        uint64_t state = atomic_load_explicit(&flight->state, memory_order_relaxed);
        if ((state & 0xff) != FLIGHT_FREE)
            continue;
        /* Acquire: pairs with the release in flight_leave. */
        if (!atomic_compare_exchange_strong_explicit(&flight->state, &state, state | FLIGHT_FILLING,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        raise_high(self, index + 1);
        atomic_store_explicit(&flight->map_id, map_id, memory_order_relaxed);
        atomic_store_explicit(&flight->first, first, memory_order_relaxed);
        atomic_store_explicit(&flight->blocks, blocks, memory_order_relaxed);
        uint64_t ready = (state & ~UINT64_C(0xffff)) | (uint64_t)transport << 8 | (uint64_t)kind;
        /* Sequentially consistent: before any compare-and-swap of a pending word. Pairs with `look`. */
        atomic_store(&flight->state, ready);
        STEP("enter in-flight");
        return (int)index;
    }
    atomic_fetch_add(&self->flights_beyond, 1);
    return FLIGHT_BEYOND;
}

void flight_leave(int entry)
{
    STEP("leave in-flight");
    struct session_file *self = atomic_load_explicit(&session_state->self, memory_order_acquire);
    if (entry == FLIGHT_BEYOND) {
        atomic_fetch_sub(&self->flights_beyond, 1);
        return;
    }
    struct flight *flight = &self->flights[entry];
    uint64_t state = atomic_load_explicit(&flight->state, memory_order_relaxed);
    /* Release: the words were released before. */
    atomic_store_explicit(&flight->state, ((state & ~UINT64_C(0xffff)) + FLIGHT_SEQUENCE), memory_order_release);
}

/* What a look wants to find. */
struct look {
    uint64_t map_id;
    uint64_t block;
    bool any_block;
    unsigned kinds; /* bit mask of flight_kind */
    const struct flight *except;
};

static bool entry_matches(const struct flight *flight, const struct look *look)
{
    if (flight == look->except)
        return false;
    uint64_t state = atomic_load(&flight->state);
    for (;;) {
        unsigned kind = state & 0xff;
        if (kind > FLIGHT_SETTLER || !(look->kinds >> kind & 1))
            return false;
        uint64_t map_id = atomic_load_explicit(&flight->map_id, memory_order_acquire);
        uint64_t first = atomic_load_explicit(&flight->first, memory_order_acquire);
        uint64_t blocks = atomic_load_explicit(&flight->blocks, memory_order_acquire);
        uint64_t again = atomic_load(&flight->state);
        if (again == state)
            return map_id == look->map_id &&
                   (look->any_block || (look->block >= first && look->block - first < blocks));
        state = again;
    }
}

static bool look(const struct look *look, bool nowait)
{
    unsigned count = session_peer_count();
    for (unsigned slot = 0; slot < count; slot++) {
        const struct session_file *file = session_peer(slot, nowait);
        if (!file) {
            if (nowait || session_peer_is_alive(slot))
                return true;
            continue;
        }
        if (!session_peer_counts(file))
            continue;
        if (atomic_load(&file->flights_beyond) > 0)
            return true;
        uint64_t high = atomic_load(&file->flights_high);
        for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
            if (entry_matches(&file->flights[i], look))
                return true;
    }
    return false;
}

enum {
    KINDS_ALL =
        1 << FLIGHT_WRITE | 1 << FLIGHT_QUESTION | 1 << FLIGHT_MUTATOR | 1 << FLIGHT_ADOPTION | 1 << FLIGHT_SETTLER,
    KINDS_WRITING = 1 << FLIGHT_WRITE | 1 << FLIGHT_MUTATOR,
};

static const struct flight *own_entry(int entry)
{
    return entry == FLIGHT_BEYOND ? NULL : &atomic_load(&session_state->self)->flights[entry];
}

bool flight_others_over(uint64_t map_id, uint64_t block, int self, bool nowait)
{
    return look(&(struct look){.map_id = map_id, .block = block, .kinds = KINDS_ALL, .except = own_entry(self)},
                nowait);
}

bool flight_mutator_covers(uint64_t map_id, uint64_t block, bool nowait)
{
    return look(&(struct look){.map_id = map_id, .block = block, .kinds = 1 << FLIGHT_MUTATOR}, nowait);
}

bool flight_writers_of(uint64_t map_id, int self)
{
    return look(&(struct look){.map_id = map_id, .any_block = true, .kinds = KINDS_WRITING, .except = own_entry(self)},
                false);
}
