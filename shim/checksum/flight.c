/*
 * The in-flight tables: entering, leaving, looking. An entry is claimed by a compare-and-swap of its state, filled, and made
 * visible by storing its kind. The looks and the compare-and-swaps of the map's words are sequentially consistent, so that of
 * two requests that meet on a block at least one sees the other.
 */
#include "base/stats.h"
#include "base/step.h"
#include "checksum/session_peers.h"
#include "checksum/window.h"

/*
 * Where this thread looks for a free entry, + 1: first of all, and next; 0 before its first. Behind the entry that it took last, so that many
 * in flight are not walked over; where it has left one below, there; and at the end of those that were ever used from the beginning again,
 * because every look walks over all of these.
 */
static _Thread_local unsigned base __attribute__((tls_model("initial-exec")));
static _Thread_local unsigned hint __attribute__((tls_model("initial-exec")));

static unsigned first_choice(const struct session_file *self)
{
    if (base == 0) {
        static _Atomic unsigned threads;
        base = hint = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % 64 + 1;
    }
    if (hint > atomic_load_explicit(&self->flights_high, memory_order_relaxed))
        hint = base;
    return hint - 1;
}

static void left(unsigned index)
{
    if (index + 1 < hint)
        hint = index + 1;
}

static void raise_high(struct session_file *self, uint64_t entries)
{
    uint64_t high = atomic_load_explicit(&self->flights_high, memory_order_relaxed);
    while (high < entries && !atomic_compare_exchange_weak(&self->flights_high, &high, entries))
        ;
}

void flight_enter_as(int *entry, uint64_t *ticket, uint64_t map_id, uint64_t first, uint64_t blocks,
                     enum flight_kind kind, enum flight_transport transport, int64_t now)
{
    struct session_file *self = atomic_load_explicit(&session_state->self, memory_order_acquire);
    unsigned start = first_choice(self);
    *entry = FLIGHT_NONE;
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
        atomic_store_explicit(&flight->issued, now, memory_order_relaxed);
        uint64_t ready = (state & ~UINT64_C(0xffff)) | (uint64_t)transport << 8 | (uint64_t)kind;
        *ticket = ready;
        atomic_signal_fence(memory_order_seq_cst);
        *entry = (int)index;
        atomic_signal_fence(memory_order_seq_cst);
        STEP("enter in-flight");
        /* Sequentially consistent: before any compare-and-swap of a pending word. Pairs with `look`. */
        atomic_store(&flight->state, ready);
        hint = index + 2;
        return;
    }
    atomic_fetch_add(&self->flights_beyond, 1);
    *entry = FLIGHT_BEYOND;
}

int flight_enter(uint64_t map_id, uint64_t first, uint64_t blocks, enum flight_kind kind,
                 enum flight_transport transport)
{
    int entry;
    uint64_t ticket;
    flight_enter_as(&entry, &ticket, map_id, first, blocks, kind, transport, window_now());
    return entry;
}

void flight_issue(int entry, int64_t now)
{
    struct session_file *self = atomic_load_explicit(&session_state->self, memory_order_acquire);
    if (entry != FLIGHT_BEYOND)
        atomic_store_explicit(&self->flights[entry].issued, now, memory_order_relaxed);
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
    left((unsigned)entry);
}

bool flight_leave_once(int entry, uint64_t ticket)
{
    if (entry == FLIGHT_NONE)
        return true;
    if (entry == FLIGHT_BEYOND) {
        flight_leave(entry);
        return true;
    }
    STEP("leave in-flight");
    struct session_file *self = atomic_load_explicit(&session_state->self, memory_order_acquire);
    struct flight *flight = &self->flights[entry];
    uint64_t free = ticket & ~UINT64_C(0xffff), filling = free | FLIGHT_FILLING;
    left((unsigned)entry);
    /* Release: as in flight_leave. */
    return atomic_compare_exchange_strong_explicit(&flight->state, &ticket, free + FLIGHT_SEQUENCE,
                                                   memory_order_release, memory_order_relaxed) ||
           atomic_compare_exchange_strong_explicit(&flight->state, &filling, free + FLIGHT_SEQUENCE,
                                                   memory_order_release, memory_order_relaxed);
}

/* What a look wants to find: a request over some block of a range. */
struct look {
    uint64_t map_id;
    uint64_t first, blocks;
    unsigned kinds; /* bit mask of flight_kind */
    const struct flight *except;
    const struct flight_dead *dead; /* sessions whose requests do not count, or NULL */
};

static bool ranges_meet(uint64_t first, uint64_t blocks, uint64_t other_first, uint64_t other_blocks)
{
    return first < other_first ? other_first - first < blocks : first - other_first < other_blocks;
}

static bool entry_matches(const struct flight *flight, const struct look *look, bool ignore_blocking)
{
    if (flight == look->except)
        return false;
    struct flight_seen seen;
    return flight_read(flight, &seen) && (look->kinds >> seen.kind & 1) && seen.map_id == look->map_id &&
           ranges_meet(look->first, look->blocks, seen.first, seen.blocks) &&
           !(ignore_blocking && (seen.transport != TRANSPORT_URING || look->dead->uring_is_over));
}

bool flight_read(const struct flight *flight, struct flight_seen *seen)
{
    uint64_t state = atomic_load(&flight->state);
    for (;;) {
        unsigned kind = state & 0xff;
        if (kind <= FLIGHT_FILLING || kind > FLIGHT_SETTLER)
            return false;
        *seen = (struct flight_seen){
            .state = state,
            .kind = (enum flight_kind)kind,
            .transport = (enum flight_transport)(state >> 8 & 0xff),
            /* Acquire: before the second load of the state. */
            .map_id = atomic_load_explicit(&flight->map_id, memory_order_acquire),
            .first = atomic_load_explicit(&flight->first, memory_order_acquire),
            .blocks = atomic_load_explicit(&flight->blocks, memory_order_acquire),
            .issued = atomic_load_explicit(&flight->issued, memory_order_acquire),
        };
        uint64_t again = atomic_load(&flight->state);
        if (again == state)
            return true;
        state = again;
    }
}

static bool is_dead(const struct flight_dead *dead, unsigned slot)
{
    return dead && (dead->slots[slot / 64] >> slot % 64 & 1);
}

static bool look(const struct look *look, bool nowait)
{
    unsigned count = session_peer_count();
    for (unsigned slot = 0; slot < count; slot++) {
        const struct session_file *file = session_peer(slot, nowait);
        if (!file) {
            if (nowait || session_peer_is_alive(slot) || session_peer_is_hidden(slot))
                return true;
            continue;
        }
        if (!session_peer_counts(file))
            continue;
        bool ignore = is_dead(look->dead, slot);
        STEP("look at a session");
        if (!ignore && atomic_load(&file->flights_beyond) > 0 && session_lists_map(file, look->map_id))
            return true;
        uint64_t high = atomic_load(&file->flights_high);
        for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
            if (entry_matches(&file->flights[i], look, ignore))
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
    const struct look all = {
        .map_id = map_id, .first = block, .blocks = 1, .kinds = KINDS_ALL, .except = own_entry(self)};
    return look(&all, nowait);
}

bool flight_living_over(uint64_t map_id, uint64_t block, int self, const struct flight_dead *dead)
{
    const struct look living = {
        .map_id = map_id, .first = block, .blocks = 1, .kinds = KINDS_ALL, .except = own_entry(self), .dead = dead};
    return look(&living, false);
}

bool flight_mutator_covers(uint64_t map_id, uint64_t block, bool nowait)
{
    return look(&(struct look){.map_id = map_id, .first = block, .blocks = 1, .kinds = 1 << FLIGHT_MUTATOR}, nowait);
}

bool flight_any_in(uint64_t map_id, uint64_t first, uint64_t blocks)
{
    return look(&(struct look){.map_id = map_id, .first = first, .blocks = blocks, .kinds = KINDS_ALL}, false);
}

bool flight_living_writers_of(uint64_t map_id, int self, const struct flight_dead *dead)
{
    return look(
        &(struct look){
            .map_id = map_id, .blocks = UINT64_MAX, .kinds = KINDS_WRITING, .except = own_entry(self), .dead = dead},
        false);
}

bool flight_writers_of(uint64_t map_id, int self)
{
    return flight_living_writers_of(map_id, self, NULL);
}
