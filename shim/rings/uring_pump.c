/*
 * From the kernel's completion queue to the shadow's (pump), and back: what the program has consumed (sync).
 *
 * Sync takes no right, since it runs before every wait of the program's. The kernel's head becomes position[h - 1], where h is the shadow's
 * head: the kernel's index behind the last entry consumed. That place may be written again only for the shadow's entry h - 1 + 2 * entries,
 * which cannot exist before the program has consumed `entries` more; so whoever finds h unchanged after reading the position has read the right
 * one. The head only ever goes forward (compare-and-swap), as the program's does.
 *
 * The shadow's queue never overflows: each of its entries that is not consumed stands for one that is still in the kernel's queue.
 *
 * No completion is missed by all: whoever gives the right back looks at the kernel's tail once more; whoever found it taken had seen the tail before.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "engine/active.h"
#include "engine/cancel.h"
#include "rings/shadow.h"
#include "rings/uring_ring.h"

/* ---- Threads ---- */

/* In wiped memory: set in the process that the ids below are of. */
static _Atomic bool *known;
/* Forks that were noticed, as this process counts them. */
static _Atomic uint32_t generation = 1;
static _Thread_local uint32_t my_id __attribute__((tls_model("initial-exec")));
static _Thread_local uint32_t my_generation __attribute__((tls_model("initial-exec")));

static void pump_start(void)
{
    known = process_arena(sizeof *known);
}
PROCESS_INITIALISER(pump_start);

uint32_t uring_this_thread(void)
{
    if (!atomic_load_explicit(known, memory_order_relaxed) && !atomic_exchange(known, true))
        atomic_fetch_add(&generation, 1);
    uint32_t now = atomic_load_explicit(&generation, memory_order_relaxed);
    if (my_generation != now) {
        my_id = (uint32_t)raw(SYS_gettid);
        my_generation = now;
    }
    return my_id;
}

/* ---- The right to pump ---- */

enum { PUMP_WAITERS = 1 << 30 /* in control->pumping, beside the thread's id: somebody sleeps on the word */ };

enum turn { TURN_TAKEN, TURN_OTHERS, TURN_OWN /* this thread has it already: a handler has interrupted it */ };

static enum turn try_turn(struct uring *ring, uint32_t self)
{
    uint32_t seen = 0;
    /* Acquire: what the last one moved; pairs with the release in give_turn. */
    if (atomic_compare_exchange_strong_explicit(&ring->control->pumping, &seen, self, memory_order_acquire,
                                                memory_order_relaxed))
        return TURN_TAKEN;
    return (seen & ~(uint32_t)PUMP_WAITERS) == self ? TURN_OWN : TURN_OTHERS;
}

static void give_turn(struct uring *ring)
{
    _Atomic uint32_t *word = &ring->control->pumping;
    /* Sequentially consistent: before the look at the tail that follows. */
    if (atomic_exchange(word, 0) & PUMP_WAITERS)
        raw(SYS_futex, word, FUTEX_WAKE, INT32_MAX);
}

static uint32_t places(const struct uring *ring)
{
    return 2 * ring->cq.entries;
}

static _Atomic uint32_t *position_of(const struct uring *ring, uint32_t entry)
{
    return &ring->control->position[entry & (places(ring) - 1)];
}

/* With the right: whoever had it may have been killed, or jumped out, when an entry was counted as moved that was not shown yet. Move it again. */
static void repair(struct uring *ring)
{
    uint32_t tail = atomic_load_explicit(ring->cq.tail, memory_order_relaxed);
    atomic_store(&ring->control->pumped, atomic_load(position_of(ring, tail - 1)));
}

/* Sleep until the right is free, for a while; take it away from the dead: a process that shared the ring was killed. */
static enum turn await_turn(struct uring *ring, uint32_t self)
{
    _Atomic uint32_t *word = &ring->control->pumping;
    const struct timespec while_ = {.tv_nsec = 20000000};
    uint32_t seen = atomic_load_explicit(word, memory_order_relaxed);
    uint32_t holder = seen & ~(uint32_t)PUMP_WAITERS;
    if (holder == 0 || !(seen & PUMP_WAITERS)) {
        if (holder == 0 || !atomic_compare_exchange_strong(word, &seen, seen | PUMP_WAITERS))
            return try_turn(ring, self);
        seen |= PUMP_WAITERS;
    }
    if (raw(SYS_futex, word, FUTEX_WAIT, seen, &while_) == -ETIMEDOUT && uring_is_gone((int)holder) &&
        atomic_compare_exchange_strong(word, &seen, self)) {
        repair(ring);
        return TURN_TAKEN;
    }
    return try_turn(ring, self);
}

/* ---- Sync ---- */

void uring_sync(struct uring *ring)
{
    /* Acquire: pairs with the program's release of its head: it has read the entries. */
    uint32_t head = atomic_load_explicit(ring->cq.head, memory_order_acquire);
    uint32_t position, seen;
    for (;;) {
        /* Whatever the program may have written there: never beyond what it was given. */
        if (atomic_load_explicit(ring->cq.tail, memory_order_acquire) - head > ring->cq.entries)
            return;
        position = atomic_load_explicit(position_of(ring, head - 1), memory_order_acquire);
        seen = atomic_load_explicit(ring->cq.head, memory_order_acquire);
        if (seen == head)
            break;
        head = seen;
    }
    seen = atomic_load_explicit(ring->real_cq.head, memory_order_relaxed);
    /* Release: the entries have been copied; the kernel may use their places again. */
    while ((int32_t)(position - seen) > 0 &&
           !atomic_compare_exchange_weak_explicit(ring->real_cq.head, &seen, position, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

unsigned uring_ready(const struct uring *ring)
{
    uint32_t ready = atomic_load_explicit(ring->cq.tail, memory_order_acquire) -
                     atomic_load_explicit(ring->cq.head, memory_order_relaxed);
    return ready <= ring->cq.entries ? ready : 0;
}

/* ---- Pump ---- */

/*
 * A turn at the pump. While requests of ours are finished the thread is not cancelled, nor, while more than a plain one is, interrupted by
 * handlers: two system calls, as expensive as all else together. A handler that jumps out of a plain one finds here how far it had come.
 */
struct turn_taken {
    struct active active;
    struct uring *ring;
    bool is_held; /* cancellation */
    struct cancel cancel;
    bool is_quiet; /* signals */
    uint64_t signals;
    struct slot *slot;    /* the plain request that is being finished, or NULL */
    uint32_t index, tail; /* its entry in the kernel's queue, and its place in the shadow's */
    uint32_t before;      /* ring->ended, when the turn was taken */
    uint64_t
        finished; /* plain requests since, and, in the upper half, the index of the last one counted: changed by one store */
};

static void hold_cancellation(struct turn_taken *taken)
{
    if (taken->is_held)
        return;
    taken->cancel = cancel_hold();
    taken->is_held = true;
}

static void hold_signals(struct turn_taken *taken)
{
    if (taken->is_quiet)
        return;
    process_hold_signals(&taken->signals);
    taken->is_quiet = true;
}

static void release_signals(struct turn_taken *taken)
{
    if (taken->is_quiet)
        process_release_signals(&taken->signals);
    taken->is_quiet = false;
}

static void count_finished(struct turn_taken *taken)
{
    /* A store: whoever jumps out of us does it once more. */
    if ((uint32_t)taken->finished != 0)
        atomic_store_explicit(&taken->ring->ended, taken->before + (uint32_t)taken->finished, memory_order_release);
}

static char *entry_of(const struct uring *ring, char *cqes, uint32_t index)
{
    return cqes + (index & ring->cq.mask) * ring->cqe_size;
}

static struct io_uring_cqe *told_at(const struct uring *ring, uint32_t tail)
{
    return (struct io_uring_cqe *)(void *)entry_of(ring, ring->cqes, tail);
}

/* The kernel's entries before `index` have been moved, the shadow's before `tail` are the program's. */
static void show(struct uring *ring, uint32_t index, uint32_t tail)
{
    struct uring_control *control = ring->control;
    atomic_store_explicit(position_of(ring, tail - 1), index, memory_order_release);
    atomic_store_explicit(&control->pumped, index, memory_order_release);
    /* Release: entry and position; the program's acquire of the tail. */
    atomic_store_explicit(ring->cq.tail, tail, memory_order_release);
}

/* The slot of taken->slot is the shadow's entry's no longer. */
static void give_slot(struct turn_taken *taken)
{
    struct slot *slot = taken->slot;
    /* Whoever jumps out of us comes here once more. */
    if ((uint32_t)taken->finished == 0 || (uint32_t)(taken->finished >> 32) != taken->index)
        taken->finished = (uint64_t)taken->index << 32 | ((uint32_t)taken->finished + 1);
    atomic_signal_fence(memory_order_seq_cst);
    taken->slot = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    slot_give(slot);
}

static void tell(const struct turn_taken *taken, int64_t result)
{
    struct io_uring_cqe *told = told_at(taken->ring, taken->tail);
    told->res = (int32_t)result;
    told->user_data = taken->slot->uring.user_data;
    show(taken->ring, taken->index + 1, taken->tail + 1);
}

/* `told` holds a copy of the kernel's entry already. */
static void finish_plain(struct turn_taken *taken, struct slot *slot, uint32_t index, uint32_t tail)
{
    taken->index = index;
    taken->tail = tail;
    atomic_signal_fence(memory_order_seq_cst);
    taken->slot = slot;
    atomic_signal_fence(memory_order_seq_cst);
    slot->role = SLOT_OVER;
    tell(taken, uring_finish_request(slot, told_at(taken->ring, tail)->res));
    give_slot(taken);
}

/* A handler has jumped out of finish_plain. What was held for the request has been cleaned up after before (engine/request.c). */
static void finish_left(struct turn_taken *taken)
{
    const struct uring *ring = taken->ring;
    struct slot *slot = taken->slot;
    if (atomic_load_explicit(ring->cq.tail, memory_order_relaxed) == taken->tail) {
        const struct io_uring_cqe *real = (const void *)entry_of(ring, ring->real_cqes, taken->index);
        tell(taken, slot->request.kind != REQUEST_NONE ? uring_finish_request(slot, real->res) : slot->request.told);
    }
    give_slot(taken);
}

/* A handler has jumped out of it. */
static void clean_up(void *argument)
{
    struct turn_taken *taken = argument;
    struct uring *ring = taken->ring;
    if ((atomic_load(&ring->control->pumping) & ~(uint32_t)PUMP_WAITERS) == uring_this_thread()) {
        repair(ring);
        if (taken->slot)
            finish_left(taken);
        count_finished(taken);
        give_turn(ring);
    }
    if (taken->is_held)
        cancel_leave(taken->cancel);
}

/* SQPOLL programs look at a word of ours where others look at the kernel's: what they could learn there. */
static void refresh_flags(const struct uring *ring)
{
    _Atomic uint32_t *shown = (_Atomic uint32_t *)(void *)(ring->front.queues + ring->front.params.sq_off.flags);
    atomic_store_explicit(shown,
                          IORING_SQ_NEED_WAKEUP | atomic_load_explicit(ring->real_sq_flags, memory_order_relaxed),
                          memory_order_relaxed);
}

/* Move the kernel's entry `index` to the shadow's place `tail`. */
static enum uring_finish move_one(struct turn_taken *taken, uint32_t index, uint32_t tail)
{
    struct uring *ring = taken->ring;
    struct io_uring_cqe *told = told_at(ring, tail);
    const char *real = entry_of(ring, ring->real_cqes, index);
    URING_COPY(told, real, ring->cqe_size, 16);
    if (__builtin_expect(!slot_is_tag(told->user_data), 1))
        return URING_SHOW;
    hold_cancellation(taken);
    /* Acquire: pairs with the release before the real call of whoever submitted it: what the slot holds. (The kernel has ordered it long before;
     * this says so to the compiler, and to the thread sanitizer.) */
    (void)atomic_load_explicit(ring->real_sq.tail, memory_order_acquire);
    const uint64_t tag = told->user_data;
    struct slot *plain = uring_plain_request(ring, tag);
    if (plain) {
        finish_plain(taken, plain, index, tail);
        return URING_SHOWN;
    }
    hold_signals(taken);
    enum uring_finish finish = uring_finish(ring, told);
    if (finish != URING_FOREIGN)
        return finish;
    /* A number of the program's that looks like one of ours. */
    if (!atomic_load(&ring->control->shared))
        return URING_SHOW;
    return uring_is_orphan(ring, tag) ? URING_SWALLOW : URING_FOREIGN;
}

/* With the right to pump: what is there by now. @return false when it is stuck at an entry that another process has to finish. */
static bool move_all(struct turn_taken *taken)
{
    struct uring *ring = taken->ring;
    struct uring_control *control = ring->control;
    uint32_t index = atomic_load_explicit(&control->pumped, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(ring->cq.tail, memory_order_relaxed);
    enum uring_finish finish = URING_SHOW;
    /* One look: the kernel may be writing there on another processor. What comes meanwhile is found afterwards (pump). */
    for (const uint32_t end = uring_real_tail(ring); index != end; index++) {
        finish = move_one(taken, index, tail);
        if (finish == URING_FOREIGN)
            break;
        if (finish == URING_SWALLOW)
            atomic_fetch_add_explicit(&control->swallowed, 1, memory_order_relaxed);
        else
            tail++;
        if (finish != URING_SHOWN)
            show(ring, index + 1, tail);
    }
    count_finished(taken);
    if (ring->flags & IORING_SETUP_SQPOLL)
        refresh_flags(ring);
    if (atomic_load_explicit(&control->shared, memory_order_relaxed))
        raw(SYS_futex, &control->pumped, FUTEX_WAKE, INT32_MAX);
    release_signals(taken);
    return finish != URING_FOREIGN;
}

static bool is_behind(const struct uring *ring)
{
    return uring_real_tail(ring) != atomic_load_explicit(&ring->control->pumped, memory_order_acquire);
}

/* Move what there is, if the right can be had. *moved: nothing is stuck. */
static enum turn pump_once(struct uring *ring, bool waits, bool *moved)
{
    const uint32_t self = uring_this_thread();
    struct turn_taken taken;
    if ((atomic_load_explicit(&ring->control->pumping, memory_order_relaxed) & ~(uint32_t)PUMP_WAITERS) == self)
        return TURN_OWN;
    taken.ring = ring;
    taken.is_held = taken.is_quiet = false;
    taken.slot = NULL;
    taken.finished = 0;
    active_open(&taken.active, clean_up, &taken);
    enum turn turn = try_turn(ring, self);
    while (waits && turn == TURN_OTHERS && is_behind(ring))
        turn = await_turn(ring, self);
    if (turn == TURN_TAKEN) {
        taken.before = atomic_load_explicit(&ring->ended, memory_order_relaxed);
        *moved = move_all(&taken);
        give_turn(ring);
    }
    active_close(&taken.active);
    if (taken.is_held)
        cancel_restore(taken.cancel);
    return turn;
}

/* @return false when this very thread pumps already. */
static bool pump(struct uring *ring, bool waits)
{
    enum turn turn = TURN_TAKEN;
    bool moved = true;
    uring_join(ring);
    while (moved && turn == TURN_TAKEN && is_behind(ring))
        turn = pump_once(ring, waits, &moved);
    /* What was swallowed is consumed as soon as what came before it is. */
    uring_sync(ring);
    uring_release(ring);
    return turn != TURN_OWN;
}

void uring_pump(struct uring *ring)
{
    if (is_behind(ring) || atomic_load_explicit(&ring->due, memory_order_relaxed))
        pump(ring, false);
    /* What it waited for may be the others'. Nothing happens when it is one of all that are being pumped. */
    if (shadow_is_nested())
        shadow_after_wait();
}

bool uring_pump_through(struct uring *ring)
{
    return (!is_behind(ring) && !atomic_load_explicit(&ring->due, memory_order_relaxed)) || pump(ring, true);
}

/* ---- All rings ---- */

void uring_sync_all(void)
{
    uring_each(uring_sync);
}

void uring_pump_all(void)
{
    uring_each(uring_pump);
}
