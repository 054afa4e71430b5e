/*
 * Submission: the right to fill the kernel's SQ, batches, and what the kernel has not taken.
 *
 * Between preparing a request and the kernel's answer another thread may finish it (the pump) and its slot may be used again. So after the real
 * call a slot is touched by slot_leave_word alone.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <time.h>

#include "base/raw.h"
#include "engine/active.h"
#include "rings/uring_stage.h"

/* ---- the right to submit ---- */

/* Has the kernel taken all that the holder of the right gave it? */
static bool all_is_taken(const struct uring *ring)
{
    return atomic_load_explicit(ring->real_sq.head, memory_order_acquire) ==
           atomic_load_explicit(ring->real_sq.tail, memory_order_relaxed);
}

/* The word is taken: sleep until it changes. While its holder is in the real call it may change without a wake-up: look again soon. */
static void wait_for_right(struct uring *ring, uint32_t seen)
{
    _Atomic uint32_t *word = &ring->control->submitting;
    const struct timespec soon = {.tv_nsec = 50000}, later = {.tv_nsec = 10000000};
    uint32_t waited = seen | URING_WAITERS;
    if (seen != waited && !atomic_compare_exchange_strong(word, &seen, waited))
        return;
    raw(SYS_futex, word, FUTEX_WAIT, waited, (waited & URING_ENTERED) ? &soon : &later);
}

static void give_right(struct uring *ring)
{
    _Atomic uint32_t *word = &ring->control->submitting;
    /* Release: what was done to the chains and the kernel's SQ. */
    if (atomic_exchange_explicit(word, 0, memory_order_release) & URING_WAITERS)
        raw(SYS_futex, word, FUTEX_WAKE, INT32_MAX);
}

/*
 * Was the holder killed, with the process that shared the ring? Then the right is free again, and what he had queued for the kernel, and it has
 * not taken, is nobody's.
 */
static bool bury_holder(struct uring *ring, uint32_t seen)
{
    _Atomic uint32_t *word = &ring->control->submitting;
    const uint32_t self = uring_this_thread(), holder = seen & URING_SUBMITTER;
    if (holder == 0 || holder == self || !atomic_load_explicit(&ring->control->shared, memory_order_relaxed) ||
        !uring_is_gone((int)holder))
        return false;
    if (atomic_compare_exchange_strong(word, &seen, self | (seen & URING_WAITERS))) {
        atomic_store_explicit(ring->real_sq.tail, atomic_load(ring->real_sq.head), memory_order_release);
        give_right(ring);
    }
    return true;
}

/* @return false when this very thread has it already: a handler has interrupted a submission, and submits itself. */
static bool take_right(struct uring *ring, bool waits)
{
    _Atomic uint32_t *word = &ring->control->submitting;
    const uint32_t self = uring_this_thread();
    for (;;) {
        uint32_t seen = 0;
        /* Acquire: pairs with the release in give_right. */
        if (atomic_compare_exchange_strong_explicit(word, &seen, self, memory_order_acquire, memory_order_acquire))
            return true;
        const bool may_take_over = (seen & URING_ENTERED) && all_is_taken(ring);
        if (may_take_over && atomic_compare_exchange_strong(word, &seen, self | (seen & URING_WAITERS)))
            return true;
        if (may_take_over || bury_holder(ring, seen))
            continue;
        if (!waits || (seen & URING_SUBMITTER) == self)
            return false;
        wait_for_right(ring, seen);
    }
}

/* The real call is about to be made: from here on others may take the right over, once the kernel has taken all. */
static void lend_right(struct uring *ring)
{
    atomic_fetch_or(&ring->control->submitting, URING_ENTERED);
}

/* @return false when it has been taken over. */
static bool reclaim_right(struct uring *ring)
{
    _Atomic uint32_t *word = &ring->control->submitting;
    const uint32_t lent = uring_this_thread() | URING_ENTERED;
    uint32_t seen = atomic_load(word);
    while ((seen & ~URING_WAITERS) == lent)
        if (atomic_compare_exchange_strong(word, &seen, seen & ~URING_ENTERED))
            return true;
    return false;
}

/* A handler has jumped out of a submission. */
static void clean_up_right(void *argument)
{
    struct uring *ring = argument;
    if ((atomic_load(&ring->control->submitting) & URING_SUBMITTER) == uring_this_thread())
        give_right(ring);
}

/* ---- the program's SQ ---- */

const struct io_uring_sqe *uring_program_sqe(const struct uring *ring, uint32_t position)
{
    uint32_t index = (atomic_load_explicit(ring->sq.head, memory_order_relaxed) + position) & ring->sq.mask;
    if (ring->sq_array)
        index = ring->sq_array[index];
    return index < ring->sq.entries ? uring_sqe((char *)ring->front.sqes, ring->sqe_size, index) : NULL;
}

static uint32_t program_entries(const struct uring *ring, unsigned to_submit)
{
    /* Acquire: pairs with the program's release of the tail. */
    uint32_t there = atomic_load_explicit(ring->sq.tail, memory_order_acquire) -
                     atomic_load_explicit(ring->sq.head, memory_order_relaxed);
    if (there > ring->sq.entries)
        there = ring->sq.entries;
    return (ring->flags & IORING_SETUP_SQPOLL) || there < to_submit ? there : to_submit;
}

/* Entries of the chain that begins `position` behind the head; those linked beyond `end` are submitted another time. */
static uint32_t chain_length(const struct uring *ring, uint32_t position, uint32_t end)
{
    uint32_t length = 0;
    const struct io_uring_sqe *sqe;
    do {
        sqe = uring_program_sqe(ring, position + length++);
    } while (sqe && (sqe->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)) && position + length < end);
    return length;
}

/* Does one of them count the completions from its own submission on? What is before it must not be over by then. */
static bool counts_completions(const struct uring *ring, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct io_uring_sqe *sqe = uring_program_sqe(ring, i);
        if (sqe && sqe->opcode == IORING_OP_TIMEOUT && sqe->off != 0)
            return true;
    }
    return false;
}

/* Stage up to `count` entries of the program's. @return false when there was no room for all of them, or a helping is complete. */
static bool stage_program(struct uring_batch *batch, uint32_t count)
{
    struct uring *ring = batch->ring;
    while (batch->taken < count) {
        const struct io_uring_sqe *sqe = uring_program_sqe(ring, batch->taken);
        if (!sqe)
            return false;
        if (batch->count > 0 && uring_closes_direct(sqe))
            return false;
        if (!batch->is_whole &&
            helping_is_complete(&batch->helping, HELPING_URING, count - batch->taken, sqe->fd, (int64_t)sqe->off))
            return false;
        if (!uring_is_plain(ring, sqe)) {
            if (!uring_stage_chain(batch, chain_length(ring, batch->taken, count)))
                return false;
            continue;
        }
        struct uring_staged *staged = uring_stage(batch, &(struct uring_entry){.sqe = sqe, .heads_piece = true});
        if (!staged)
            return false;
        staged->taken = ++batch->taken;
    }
    return true;
}

/* ---- a batch ---- */

static void batch_begin(struct uring_batch *batch, struct uring *ring, int fd, unsigned flags, uint32_t wanted)
{
    batch->ring = ring;
    batch->fd = fd;
    batch->flags = flags & IORING_ENTER_REGISTERED_RING;
    batch->count = batch->real = batch->taken = batch->requests = 0;
    batch->room = URING_BATCH;
    batch->helping = (struct helping){0};
    batch->staged = batch->few;
    batch->pages.base = NULL;
    for (const struct uring_chain *chain = atomic_load(&ring->chains); chain; chain = chain->next)
        wanted += chain->length;
    if (wanted > URING_BATCH && pool_take(&batch->pages, wanted * sizeof *batch->staged, false) == 0) {
        batch->staged = batch->pages.base;
        batch->room = wanted;
    }
}

/* The kernel has taken the entry: does the number still lead to the file that it was prepared for? The slot may be another's. */
static void leave_word(struct uring *ring, const struct uring_staged *staged)
{
    const struct fd_view view = {.fd = staged->fd, .word = staged->word, .file = staged->file};
    if (!staged->slot || !staged->file || !slot_is_handed(staged->slot, staged->handed))
        return;
    slot_leave_word(staged->slot, staged->handed,
                    staged->is_fixed ? uring_registered_is(ring, (unsigned)staged->fd, &view)
                                     : fd_view_is_current(&view));
}

/* What the kernel made of the batch: it has taken `real` of its entries. @return entries of the program's that are consumed by that. */
static uint32_t settle_batch(struct uring_batch *batch, uint32_t real)
{
    uint32_t taken = 0, kept = 0;
    for (; kept < batch->count && (real > 0 || !batch->staged[kept].is_real); kept++) {
        real -= batch->staged[kept].is_real;
        if (batch->staged[kept].taken > taken)
            taken = batch->staged[kept].taken;
        leave_word(batch->ring, &batch->staged[kept]);
    }
    /* Backwards: kept-back entries go in front again one by one. */
    for (uint32_t i = batch->count; i > kept; i--)
        uring_chain_undo(batch->ring, &batch->staged[i - 1]);
    return taken;
}

static void consume(struct uring *ring, uint32_t entries)
{
    /* Release: the entries have been read. */
    atomic_store_explicit(ring->sq.head, atomic_load_explicit(ring->sq.head, memory_order_relaxed) + entries,
                          memory_order_release);
}

/* How the batch is to be submitted, and what came of it. */
struct sending {
    unsigned least, flags;
    const void *argument;
    size_t size;
    bool waited;    /* a wait was part of the real call */
    bool holds;     /* afterwards: the right is still ours */
    bool all;       /* the kernel took everything */
    long result;    /* of the real call */
    uint32_t taken; /* of the program's entries */
};

static void fill_array(const struct uring *ring, uint32_t tail, uint32_t count)
{
    for (uint32_t i = 0; ring->real_array && i < count; i++)
        ring->real_array[(tail + i) & ring->real_sq.mask] = (tail + i) & ring->real_sq.mask;
}

/* The real call. With a wait in it, the program's entries are consumed before: others may go on while this thread sleeps. */
static void send_batch(struct uring_batch *batch, struct sending *sending)
{
    struct uring *ring = batch->ring;
    const uint32_t tail = atomic_load_explicit(ring->real_sq.tail, memory_order_relaxed);
    const bool waits = sending->least > 0;
    sending->holds = true;
    sending->result = 0;
    if (batch->requests > 0)
        atomic_fetch_add_explicit(&ring->in_flight, batch->requests, memory_order_relaxed);
    if (batch->real > 0) {
        fill_array(ring, tail, batch->real);
        atomic_store_explicit(ring->real_sq.tail, tail + batch->real, memory_order_release);
        if (waits) {
            consume(ring, batch->taken);
            lend_right(ring);
        }
        sending->result = uring_enter_real(ring, batch->fd, batch->real, sending->least, sending->flags,
                                           sending->argument, sending->size);
        sending->waited = waits;
        sending->holds = !waits || reclaim_right(ring);
    }
    const uint32_t real = sending->result < 0 ? 0 : (uint32_t)sending->result;
    sending->all = real == batch->real;
    if (!sending->all) /* nobody has taken the right over then */
        atomic_store_explicit(ring->real_sq.tail, atomic_load(ring->real_sq.head), memory_order_release);
    sending->taken = settle_batch(batch, real);
    if (!waits || batch->real == 0)
        consume(ring, sending->taken);
    else if (!sending->all)
        consume(ring, sending->taken - batch->taken);
    pool_give(&batch->pages);
}

/* An index of the program's that is out of range: counted and passed over, as the kernel does. */
static bool drop_one(struct uring *ring)
{
    if (uring_program_sqe(ring, 0))
        return false;
    const struct io_sqring_offsets *offsets = &ring->front.params.sq_off;
    atomic_fetch_add((_Atomic uint32_t *)(void *)(ring->front.queues + offsets->dropped), 1);
    consume(ring, 1);
    return true;
}

static bool may_submit(struct uring *ring, bool claims)
{
    uint32_t nobody = 0, self = uring_this_thread();
    if (!(ring->flags & IORING_SETUP_SINGLE_ISSUER))
        return true;
    if (claims)
        atomic_compare_exchange_strong(&ring->control->issuer, &nobody, self);
    return atomic_load_explicit(&ring->control->issuer, memory_order_relaxed) == self;
}

/* Everything that there is, batch after batch. The right is held at first, and in the end if sending->holds. */
static long submit(struct uring *ring, int fd, unsigned to_submit, struct sending *wanted)
{
    uint32_t done = 0;
    bool is_whole = false;
    for (;;) {
        struct uring_batch batch;
        const uint32_t left = program_entries(ring, to_submit - done);
        /* What the program had consumed when it queued those. Otherwise one that completes at once may find the kernel's queue full, and its
         * completion would wait there for a system call, which a program that looks at memory alone (SQPOLL) does not make. */
        uring_sync(ring);
        if (done == 0)
            uring_look_registered(ring, fd, wanted->flags & IORING_ENTER_REGISTERED_RING, left);
        batch_begin(&batch, ring, fd, wanted->flags, left);
        if (done == 0)
            is_whole = counts_completions(ring, left);
        batch.is_whole = is_whole;
        bool all = uring_stage_due(&batch);
        all = stage_program(&batch, left) && all;
        struct sending sending = *wanted;
        if (!all || uring_is_holding(ring)) {
            sending.least = 0;
            sending.flags &= IORING_ENTER_REGISTERED_RING;
            sending.argument = NULL;
            sending.size = 0;
        }
        const bool nothing = batch.count == 0;
        send_batch(&batch, &sending);
        wanted->holds = sending.holds;
        wanted->waited = sending.waited;
        if (sending.holds)
            uring_chain_sweep(ring);
        done += sending.taken;
        if (nothing && left > 0 && done == 0 && drop_one(ring))
            return 0;
        if (!sending.all || nothing || !sending.holds || (all && !atomic_load(&ring->due)))
            return done > 0 || sending.result >= 0 ? (nothing && left > 0 && done == 0 ? -EAGAIN : (long)done)
                                                   : sending.result;
    }
}

bool uring_claim(struct uring *ring, struct active *active, bool waits)
{
    if (!take_right(ring, waits))
        return false;
    active_open(active, clean_up_right, ring);
    return true;
}

void uring_disclaim(struct uring *ring, struct active *active)
{
    give_right(ring);
    active_close(active);
    /* What became due meanwhile found the right taken. */
    uring_release(ring);
}

static long submit_rightfully(struct uring *ring, int fd, unsigned to_submit, struct sending *sending, bool waits)
{
    struct active active;
    if (!take_right(ring, waits))
        return -EBUSY;
    active_open(&active, clean_up_right, ring);
    sending->holds = true;
    long result = submit(ring, fd, to_submit, sending);
    if (sending->holds)
        give_right(ring);
    active_close(&active);
    return result;
}

long uring_submit(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                  size_t size, bool *waited)
{
    struct sending sending = {.least = least, .flags = flags, .argument = argument, .size = size};
    may_submit(ring, true);
    long result = submit_rightfully(ring, fd, to_submit, &sending, true);
    *waited = sending.waited;
    return result;
}

void uring_release(struct uring *ring)
{
    /* Whoever has the right now may have looked before it became due. */
    while (atomic_load(&ring->due) && may_submit(ring, false)) {
        struct sending sending = {.least = 0};
        if (submit_rightfully(ring, ring->fd, 0, &sending, false) < 0)
            break;
    }
}
