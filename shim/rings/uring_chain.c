/*
 * Linked entries, and drained ones.
 *
 * A write that is copied when it is submitted would be copied before the request that it is linked to has filled its buffer (READ linked to
 * WRITE), and what is linked to a bounced read would run before the read's bytes have been copied out. So such a chain is cut into pieces: the
 * kernel gets the first, linked as the program linked it, and the next one when the piece before is over and finished. What a broken link or a
 * completion that is to be skipped means for the rest is then decided here, by the kernel's rules (io_uring/io_uring.c, io_fail_links:
 * the rest is cancelled; silently, if what failed was to skip its completion).
 *
 * A drained entry waits until everything before it is over, and holds up everything behind it until it is over itself. If bounced requests
 * are concerned, that is kept here too: a drained NOP, the gate, tells when the kernel is through with what it got before.
 *
 * Cuts: behind every bounced read; before every bounced write, and before what closes a direct descriptor; behind a bounced request that skips its completion, or of which less could be
 * copied than was asked for. A LINK_TIMEOUT stays with the entry before it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "rings/uring_stage.h"

enum { LINKS = IOSQE_IO_LINK | IOSQE_IO_HARDLINK };

/* Chains change hands under the submission right; a single thread at a time is here. */
static struct uring_chain *first_chain(const struct uring *ring)
{
    return atomic_load_explicit(&ring->chains, memory_order_relaxed);
}

static struct slot *slot_of_chain(struct uring_chain *chain)
{
    return (struct slot *)(void *)((char *)chain - offsetof(struct slot, chain));
}

/* Relaxed: uring_is_holding asks whether, not what. */
static void append(struct uring *ring, struct uring_chain *chain)
{
    struct uring_chain *last = first_chain(ring);
    chain->next = NULL;
    if (!last) {
        atomic_store_explicit(&ring->chains, chain, memory_order_relaxed);
        return;
    }
    while (last->next)
        last = last->next;
    last->next = chain;
}

/* Acquire: pairs with the release in uring_chain_advance. */
static bool is_set(const _Atomic bool *flag)
{
    return atomic_load_explicit(flag, memory_order_acquire);
}

static void set(_Atomic bool *flag, bool value)
{
    atomic_store_explicit(flag, value, memory_order_release);
}

static bool is_over(const struct uring_chain *chain)
{
    return !chain->first && is_set(&chain->over);
}

void uring_chain_sweep(struct uring *ring)
{
    struct uring_chain *before = NULL, *chain = first_chain(ring);
    while (chain) {
        struct uring_chain *next = chain->next;
        if (!is_over(chain)) {
            before = chain;
        } else {
            if (before)
                before->next = next;
            else
                atomic_store_explicit(&ring->chains, next, memory_order_relaxed);
            slot_give(slot_of_chain(chain));
            /* What waited behind it may be its turn now. */
            if (first_chain(ring))
                atomic_store(&ring->due, true);
        }
        chain = next;
    }
}

/* Does a drained chain wait, which holds up what is younger? */
static bool is_behind_drain(const struct uring *ring)
{
    for (const struct uring_chain *chain = first_chain(ring); chain; chain = chain->next)
        if (chain->drain && !is_over(chain))
            return true;
    return false;
}

/* The first bounced request, while the kernel may still have a drained entry: its buffer may not have been filled yet. */
static bool is_first_behind_drain(struct uring *ring, const struct io_uring_sqe *sqe)
{
    return ring->has_drained && !ring->has_bounced && uring_bounces(ring, sqe) != URING_NO_BOUNCE;
}

bool uring_is_plain(struct uring *ring, const struct io_uring_sqe *sqe)
{
    return !(sqe->flags & (LINKS | IOSQE_IO_DRAIN)) && !(first_chain(ring) && is_behind_drain(ring)) &&
           !is_first_behind_drain(ring, sqe);
}

/* ---- pieces ---- */

/* Where the entries of a chain are: in the shadow's SQ, or in slots. */
struct source {
    const struct uring *ring;
    uint32_t position; /* in the shadow's SQ */
    struct slot *held; /* NULL: there */
    uint32_t length;
};

static const struct io_uring_sqe *entry_at(const struct source *source, uint32_t index)
{
    static const struct io_uring_sqe out_of_range = {.opcode = IORING_OP_LAST};
    struct slot *slot = source->held;
    if (!slot) {
        const struct io_uring_sqe *sqe = uring_program_sqe(source->ring, source->position + index);
        return sqe ? sqe : &out_of_range;
    }
    while (index-- > 0)
        slot = slot->next;
    return slot->uring.sqe;
}

static struct slot *slot_at(const struct source *source, uint32_t index)
{
    struct slot *slot = source->held;
    while (slot && index-- > 0)
        slot = slot->next;
    return slot;
}

/* Must what follows entry `index` wait until it is over? */
static bool cuts_after(struct uring *ring, const struct source *source, uint32_t index)
{
    if (index + 1 >= source->length)
        return false;
    const struct io_uring_sqe *sqe = entry_at(source, index), *next = entry_at(source, index + 1);
    enum uring_bounce bounce = uring_bounces(ring, sqe);
    if (bounce == URING_BOUNCED_READ || uring_is_awaited(sqe) ||
        (bounce != URING_NO_BOUNCE && (sqe->flags & IOSQE_CQE_SKIP_SUCCESS)))
        return true;
    if (next->opcode == IORING_OP_LINK_TIMEOUT)
        return index + 2 < source->length && uring_bounces(ring, entry_at(source, index + 2)) == URING_BOUNCED_WRITE;
    return uring_bounces(ring, next) == URING_BOUNCED_WRITE || uring_closes_direct(next);
}

/* Take the last `count` entries out of the batch again. */
static void unstage_last(struct uring_batch *batch, uint32_t count, bool keep)
{
    while (count-- > 0) {
        struct uring_staged *staged = &batch->staged[--batch->count];
        batch->real -= staged->is_real;
        if (!staged->slot)
            continue;
        batch->requests -= staged->slot->request.kind != REQUEST_NONE;
        uring_unstage(staged->slot, keep);
    }
}

/* The last entry of the kernel's that was filled ends its piece after all: less of it could be copied than was asked for. */
static void unlink_last(struct uring_batch *batch)
{
    const struct uring *ring = batch->ring;
    uint32_t tail = atomic_load_explicit(ring->real_sq.tail, memory_order_relaxed);
    struct io_uring_sqe *real =
        uring_sqe(ring->real_sqes, ring->sqe_size, (tail + batch->real - 1) & ring->real_sq.mask);
    real->flags &= (uint8_t)~LINKS;
}

struct piece {
    uint32_t length;           /* entries of the source that were staged */
    struct uring_staged *gate; /* whose end decides about the rest */
};

/* Where entry `index` stands in its piece. */
struct place {
    bool is_timeout; /* a LINK_TIMEOUT, which belongs to the entry before */
    bool keeps_next; /* a LINK_TIMEOUT follows */
    bool ends;       /* nothing follows, or only that */
    bool cut;        /* what follows has to wait */
};

static struct place place_of(struct uring *ring, const struct source *source, uint32_t index, bool gated)
{
    struct place place = {.is_timeout = index > 0 && entry_at(source, index)->opcode == IORING_OP_LINK_TIMEOUT,
                          .keeps_next = index + 1 < source->length &&
                                        entry_at(source, index + 1)->opcode == IORING_OP_LINK_TIMEOUT};
    place.ends = index + (place.keeps_next ? 2 : 1) == source->length;
    place.cut = place.is_timeout ? gated : cuts_after(ring, source, index);
    return place;
}

static struct uring_staged *stage_at(struct uring_batch *batch, const struct source *source, uint32_t index,
                                     const struct place *place, bool drains)
{
    const struct io_uring_sqe *sqe = entry_at(source, index);
    const bool last = index + 1 == source->length;
    return uring_stage(
        batch, &(struct uring_entry){.sqe = sqe,
                                     .slot = slot_at(source, index),
                                     .links = last || (place->cut && !place->keeps_next) ? 0 : sqe->flags & LINKS,
                                     .drain = drains,
                                     .heads_piece = index == 0,
                                     .is_gate = !place->is_timeout && (place->cut || (source->held && place->ends)),
                                     .in_piece = index > 0 || !last});
}

/* Stage entries of the source up to the first cut. @return false when there was no room: nothing was staged. */
static bool stage_piece(struct uring_batch *batch, const struct source *source, bool drains, struct piece *piece)
{
    bool is_cut = false;
    *piece = (struct piece){0};
    while (piece->length < source->length && !is_cut) {
        struct place place = place_of(batch->ring, source, piece->length, piece->gate != NULL);
        struct uring_staged *staged = stage_at(batch, source, piece->length, &place, drains);
        if (!staged) {
            unstage_last(batch, piece->length, source->held != NULL);
            return false;
        }
        if (staged->slot && staged->slot->uring.is_short && !place.cut && !place.ends) {
            if (!place.keeps_next)
                unlink_last(batch);
            place.cut = true;
        }
        if (!place.is_timeout && (place.cut || place.ends))
            piece->gate = staged;
        is_cut = place.cut && !place.keeps_next;
        piece->length++;
    }
    return true;
}

/* ---- keeping back ---- */

static void free_entries(struct uring_chain *chain)
{
    while (chain->first) {
        struct slot *slot = chain->first;
        chain->first = slot->next;
        slot_give(slot);
    }
    chain->length = 0;
}

/* Copy entries of the shadow's SQ into slots. @return the chain, not yet in the ring's list; NULL when slots have run out. */
static struct uring_chain *keep_back(struct uring *ring, uint32_t position, uint32_t length, bool drain)
{
    struct slot *holder = slot_take();
    if (!holder)
        return NULL;
    holder->role = SLOT_CHAIN;
    struct uring_chain *chain = &holder->chain;
    *chain = (struct uring_chain){.drain = drain};
    struct slot **end = &chain->first;
    for (uint32_t i = 0; i < length; i++) {
        const struct io_uring_sqe *sqe = uring_program_sqe(ring, position + i);
        struct slot *slot = sqe ? slot_take() : NULL;
        if (!slot) {
            free_entries(chain);
            slot_give(holder);
            return NULL;
        }
        slot->uring.ring = ring;
        slot->uring.user_data = sqe->user_data;
        memcpy(slot->uring.sqe, sqe, ring->sqe_size);
        slot_own(slot, ring);
        *end = slot;
        end = &slot->next;
        chain->length++;
    }
    return chain;
}

/* A chain of which nothing goes to the kernel yet: it is staged without an entry of the kernel's. */
static bool stage_nothing(struct uring_batch *batch, uint32_t length, bool drain)
{
    struct uring_chain *chain = batch->count < batch->room ? keep_back(batch->ring, batch->taken, length, drain) : NULL;
    if (!chain)
        return false;
    append(batch->ring, chain);
    batch->taken += length;
    batch->staged[batch->count++] = (struct uring_staged){.chain = chain, .taken = batch->taken};
    atomic_store(&batch->ring->due, true);
    return true;
}

/* Is there, from here to the end of the program's SQ, a request that is bounced? */
static bool is_before_bounce(struct uring *ring, const struct source *source)
{
    uint32_t head = atomic_load_explicit(ring->sq.head, memory_order_relaxed);
    uint32_t end = atomic_load_explicit(ring->sq.tail, memory_order_acquire) - head;
    for (uint32_t i = source->position; i < end && i < ring->sq.entries; i++) {
        const struct io_uring_sqe *sqe = uring_program_sqe(ring, i);
        if (sqe && uring_bounces(ring, sqe) != URING_NO_BOUNCE)
            return true;
    }
    return false;
}

/*
 * Is a drain the shim's business? Not as long as the ring has no bounced request: then it is all the kernel's. Nor if the kernel is going
 * to refuse it (io_init_req, drain_disabled).
 */
static bool must_hold_drain(struct uring *ring, const struct source *source)
{
    if (ring->has_silenced || (entry_at(source, 0)->flags & IOSQE_CQE_SKIP_SUCCESS))
        return false;
    if (ring->has_bounced || first_chain(ring) || is_before_bounce(ring, source))
        return true;
    ring->has_drained = true;
    return false;
}

static bool is_drained(const struct source *source)
{
    for (uint32_t i = 0; i < source->length; i++)
        if (entry_at(source, i)->flags & IOSQE_IO_DRAIN)
            return true;
    return false;
}

bool uring_stage_chain(struct uring_batch *batch, uint32_t length)
{
    struct uring *ring = batch->ring;
    const struct source source = {.ring = ring, .position = batch->taken, .length = length};
    const uint32_t begin = batch->count;
    struct piece piece;
    bool drained = is_drained(&source) || is_first_behind_drain(ring, entry_at(&source, 0));
    if (is_behind_drain(ring) || (drained && must_hold_drain(ring, &source)))
        return stage_nothing(batch, length, drained);
    if (!stage_piece(batch, &source, true, &piece))
        return false;
    if (piece.length < length) {
        struct uring_chain *rest = keep_back(ring, batch->taken + piece.length, length - piece.length, false);
        if (!rest) {
            unstage_last(batch, piece.length, false);
            return false;
        }
        rest->started = true;
        append(ring, rest);
        assert(piece.gate); /* where a piece is cut, something is waited for */
        piece.gate->chain = rest;
        piece.gate->slot->uring.chain = rest;
    }
    batch->taken += length;
    /* Whoever has taken the gate has taken all of it: the rest is kept here. */
    bool rest_is_taken = false;
    for (uint32_t i = begin; i < batch->count; i++) {
        rest_is_taken = rest_is_taken || (piece.length < length && &batch->staged[i] == piece.gate);
        batch->staged[i].taken = rest_is_taken ? batch->taken : batch->taken - length + (i - begin) + 1;
    }
    return true;
}

/* ---- going on ---- */

void uring_chain_advance(struct uring *ring, const struct slot *slot, bool failed, int64_t result)
{
    struct uring_chain *chain = slot->uring.chain;
    const struct io_uring_sqe *sqe = slot->uring.sqe;
    /* A hard link holds whatever became of the entry itself; not when it was cancelled because of one before it. */
    const bool hard = (sqe->flags & IOSQE_IO_HARDLINK) && !(result == -ECANCELED && !slot->uring.heads_piece);
    if (slot->role != SLOT_GATE && failed && !hard) {
        set(&chain->silent, (sqe->flags & IOSQE_CQE_SKIP_SUCCESS) != 0);
        set(&chain->broken, true);
    }
    const bool over = slot->role != SLOT_GATE && chain->length == 0;
    set(&chain->due, true);
    /* Last: whoever submits may give the chain's slot back from here on. */
    if (over)
        set(&chain->over, true);
    atomic_store(&ring->due, true);
}

/* The rest of a broken chain: completions that say so, or none. @return false when there was no room. */
static bool stage_cancelled(struct uring_batch *batch, struct uring_chain *chain)
{
    if (is_set(&chain->silent))
        free_entries(chain);
    while (chain->first) {
        struct slot *slot = chain->first, *rest = slot->next;
        struct uring_staged *staged = uring_stage_voice(batch, slot, -ECANCELED);
        if (!staged)
            return false;
        staged->chain = chain;
        staged->was_held = true;
        chain->first = rest;
        chain->length--;
    }
    set(&chain->over, true);
    return true;
}

/* The next piece of a chain. @return false when there was no room. */
static bool stage_next(struct uring_batch *batch, struct uring_chain *chain)
{
    const uint32_t begin = batch->count;
    const struct source source = {.ring = batch->ring, .held = chain->first, .length = chain->length};
    struct piece piece;
    if (!chain->first)
        return true;
    if (is_set(&chain->broken))
        return stage_cancelled(batch, chain);
    if (!stage_piece(batch, &source, false, &piece))
        return false;
    for (uint32_t i = begin; i < batch->count; i++) {
        batch->staged[i].chain = chain;
        batch->staged[i].was_held = true;
        chain->first = chain->first->next;
    }
    chain->length -= piece.length;
    chain->started = true;
    set(&chain->due, false);
    /* A drained chain is there until its last entry is over: others wait for that. */
    assert(piece.gate && piece.gate->slot); /* every piece of what was kept back ends with one */
    if (chain->first || chain->drain)
        piece.gate->slot->uring.chain = chain;
    else
        set(&chain->over, true);
    return true;
}

bool uring_stage_due(struct uring_batch *batch)
{
    struct uring *ring = batch->ring;
    if (!atomic_load(&ring->due) || !atomic_exchange(&ring->due, false))
        return true;
    uring_chain_sweep(ring);
    for (struct uring_chain *chain = first_chain(ring); chain; chain = chain->next) {
        bool there = true;
        if (chain->drain && !chain->started && !is_set(&chain->due)) {
            /* Everything older is with the kernel by now. */
            if (chain == first_chain(ring) && !chain->gated)
                there = chain->gated = uring_stage_gate(batch, chain) != NULL;
        } else if (!chain->started || is_set(&chain->due)) {
            there = stage_next(batch, chain);
        }
        if (!there) {
            atomic_store(&ring->due, true);
            return false;
        }
        if (chain->drain && !is_over(chain))
            break;
    }
    return true;
}

void uring_chain_undo(struct uring *ring, struct uring_staged *staged)
{
    struct uring_chain *chain = staged->chain;
    struct slot *slot = staged->slot;
    if (slot && slot->request.kind != REQUEST_NONE)
        atomic_fetch_sub_explicit(&ring->in_flight, 1, memory_order_relaxed);
    if (slot && staged->was_held) { /* what was held back has one */
        uring_unstage(slot, true);
        slot->next = chain->first;
        chain->first = slot;
        chain->length++;
        set(&chain->over, false);
        set(&chain->due, true);
        atomic_store(&ring->due, true);
        return;
    }
    if (chain) { /* what follows it was kept back: the program still has it in its SQ */
        free_entries(chain);
        set(&chain->over, true);
        atomic_store(&ring->due, true);
    }
    if (slot && slot->role == SLOT_GATE) {
        slot->uring.chain->gated = false;
        atomic_store(&ring->due, true);
    }
    if (slot)
        uring_unstage(slot, false);
}

void uring_chain_empty(struct uring *ring)
{
    for (struct uring_chain *chain = first_chain(ring); chain; chain = chain->next)
        free_entries(chain);
}

void uring_chain_drop(struct uring *ring)
{
    for (struct uring_chain *chain = first_chain(ring), *next; chain; chain = next) {
        next = chain->next;
        free_entries(chain);
        slot_give(slot_of_chain(chain));
    }
    atomic_store(&ring->chains, NULL);
}
