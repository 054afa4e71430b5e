/*
 * io_getevents, and the pump. Events are taken into memory of ours, at most AIO_CHUNK at a time, finished there, and given to the caller, or to the
 * shadow. What the caller's memory does not take goes back into the shadow, as it would have stayed in the kernel's ring.
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "base/return_stack.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "checksum/window.h"
#include "engine/active.h"
#include "engine/cancel.h"
#include "rings/aio.h"
#include "rings/aio_context.h"
#include "rings/shadow.h"

static const struct timespec no_time;

/* ---- One event. ---- */

static void give_slot(struct aio *aio, struct slot *slot, struct io_event *event, int64_t result)
{
    event->obj = (uint64_t)(uintptr_t)slot->aio.theirs;
    event->data = slot->aio.data;
    event->res = result;
    atomic_fetch_sub_explicit(&aio->ours, 1, memory_order_release);
    slot_give(slot);
}

void aio_finish(struct aio *aio, struct io_event *event, int64_t *over)
{
    struct slot *slot = aio_slot_of(aio, event->obj);
    if (!slot)
        return;
    aio_learn_whether_current(slot);
    int64_t result = slot->refusal;
    if (slot->refusal == SLOT_NO_REFUSAL && slot->request.kind == REQUEST_WRITE) {
        if (*over == 0)
            *over = window_fine_now();
        slot->request.chunk.over = *over;
    }
    if (slot->refusal == SLOT_NO_REFUSAL)
        result = request_complete(&slot->request, event->res);
    give_slot(aio, slot, event, result);
}

/* ---- A call of io_getevents. ---- */

struct reap {
    struct active active;
    struct cancel cancel;
    struct aio *aio;
    bool sleeping;     /* counted in aio->sleepers */
    bool from_kernel;  /* what is in `events`, or is just being asked for, is counted in aio->in_kernel */
    bool finishing;    /* events[finished] is just being finished */
    unsigned asked;    /* room that the kernel is just given */
    unsigned count;    /* events */
    unsigned finished; /* of which have become the program's */
    struct io_event events[AIO_CHUNK];
};

/* How long it may take, and with which signals. */
struct patience {
    bool for_ever;
    bool is_used;          /* `given` has been waited for */
    struct timespec given; /* as the program says; the kernel judges it */
    int64_t deadline;      /* ns of CLOCK_MONOTONIC */
    bool has_signals;
    struct aio_signals signals;
    sigset_t storage;
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Copy what the program says. @return 0 or -EFAULT. */
static int read_patience(struct patience *patience, const struct timespec *timeout, const struct aio_signals *signals)
{
    *patience = (struct patience){.for_ever = !timeout, .has_signals = signals != NULL};
    if (timeout) {
        if (copy_from_user(&patience->given, timeout, sizeof *timeout) != sizeof *timeout)
            return -EFAULT;
        const int64_t most = INT64_MAX / 2000000000;
        const struct timespec *given = &patience->given;
        if (given->tv_sec > most)
            patience->for_ever = true;
        else if (given->tv_sec != 0 || given->tv_nsec != 0)
            patience->deadline = now() + given->tv_sec * INT64_C(1000000000) + given->tv_nsec;
    }
    if (signals) {
        if (copy_from_user(&patience->signals, signals, sizeof *signals) != sizeof *signals)
            return -EFAULT;
        patience->signals.mask = guard_strip(patience->signals.mask, &patience->storage);
    }
    return 0;
}

/* The time that is left for the next wait, or NULL. */
static const struct timespec *time_left(struct patience *patience, struct timespec *left)
{
    if (patience->for_ever)
        return NULL;
    if (!patience->is_used) {
        patience->is_used = true;
        return &patience->given;
    }
    int64_t ns = patience->deadline - now();
    if (ns < 0)
        ns = 0;
    *left = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    return left;
}

static bool never_waits(const struct patience *patience)
{
    return !patience->for_ever && patience->given.tv_sec == 0 && patience->given.tv_nsec == 0;
}

static long call_kernel(struct reap *reap, unsigned least, unsigned most, const struct timespec *timeout,
                        const struct patience *patience)
{
    const aio_context_t real = reap->aio->real;
    const long result = patience->has_signals
                            ? raw(SYS_io_pgetevents, real, least, most, reap->events, timeout, &patience->signals)
                            : raw(SYS_io_getevents, real, least, most, reap->events, timeout);
    return_stack_repair();
    return result;
}

/* io_getevents is no cancellation point; but a thread may be cancelled anywhere if it wants to. */
static long call_kernel_cancellable(struct reap *reap, unsigned least, unsigned most, const struct timespec *timeout,
                                    const struct patience *patience)
{
    long result;
    if (reap->cancel.type == PTHREAD_CANCEL_DEFERRED)
        return call_kernel(reap, least, most, timeout, patience);
    pthread_cleanup_push(active_end_thread, NULL);
    cancel_restore(reap->cancel);
    result = call_kernel(reap, least, most, timeout, patience);
    reap->cancel = cancel_hold();
    pthread_cleanup_pop(0);
    return result;
}

static void wake(struct reap *reap)
{
    reap->sleeping = false;
    atomic_signal_fence(memory_order_seq_cst);
    atomic_fetch_sub_explicit(&reap->aio->sleepers, 1, memory_order_release);
}

enum { LOOK_AGAIN = -4096 }; /* no errno */

/* Wait in the real call, unless the shadow has, or is about to get, what is waited for. @return as the real call, or LOOK_AGAIN. */
static long sleep_in_kernel(struct reap *reap, unsigned least, unsigned most, struct patience *patience)
{
    struct aio *aio = reap->aio;
    struct timespec left;
    /* Sequentially consistent: partner of the pump's look at `sleepers`; see aio_context.h. */
    atomic_fetch_add_explicit(&aio->sleepers, 1, memory_order_seq_cst);
    reap->sleeping = true;
    if (aio_turn_is_taken(aio) || aio_in_shadow(aio) > 0) {
        wake(reap);
        return LOOK_AGAIN;
    }
    const long result = call_kernel_cancellable(reap, least, most, time_left(patience, &left), patience);
    wake(reap);
    return result;
}

/* Take events from the kernel and finish them. @return how many, -errno, or LOOK_AGAIN. */
static long take_from_kernel(struct reap *reap, unsigned least, unsigned most, struct patience *patience)
{
    /* Whoever jumps out of the call does not tell how many there were: the events do. */
    for (unsigned i = 0; i < most; i++)
        reap->events[i].obj = 0;
    reap->finished = reap->count = 0;
    reap->from_kernel = true;
    atomic_signal_fence(memory_order_seq_cst);
    reap->asked = most;
    atomic_signal_fence(memory_order_seq_cst);
    const bool waits = least > 0 && !never_waits(patience);
    const long result =
        waits ? sleep_in_kernel(reap, least, most, patience) : call_kernel(reap, least, most, &no_time, patience);
    reap->count = result > 0 ? (unsigned)result : 0;
    atomic_signal_fence(memory_order_seq_cst);
    reap->asked = 0;
    int64_t over = 0;
    while (reap->finished < reap->count) {
        reap->finishing = true;
        atomic_signal_fence(memory_order_seq_cst);
        aio_finish(reap->aio, &reap->events[reap->finished], &over);
        atomic_signal_fence(memory_order_seq_cst);
        reap->finishing = false;
        reap->finished++;
    }
    return result;
}

/* Take events from the shadow. If somebody is just putting some there, after he has. */
static unsigned take_from_shadow(struct reap *reap, unsigned most)
{
    struct aio *aio = reap->aio;
    uint64_t saved;
    /* In this order: what is put there before the turn is given is seen. */
    if (!aio_turn_is_taken(aio) && aio_in_shadow(aio) == 0)
        return 0;
    aio_take_turn(aio, &saved);
    reap->from_kernel = false;
    reap->count = reap->finished = aio_shadow_take(aio, reap->events, most);
    aio_give_turn(aio, &saved);
    return reap->count;
}

/* The events are somebody else's now. */
static void let_go(struct reap *reap)
{
    const int32_t count = reap->from_kernel ? (int32_t)reap->count : 0;
    reap->count = reap->finished = 0;
    atomic_signal_fence(memory_order_seq_cst);
    if (count > 0)
        atomic_fetch_sub_explicit(&reap->aio->in_kernel, count, memory_order_relaxed);
}

static void put_back(struct reap *reap)
{
    uint64_t saved;
    if (reap->count > 0) {
        aio_take_turn(reap->aio, &saved);
        aio_shadow_put_back(reap->aio, reap->events, reap->count);
        aio_give_turn(reap->aio, &saved);
    }
    let_go(reap);
}

/* @return 0 or -EFAULT. */
static int deliver(struct reap *reap, struct io_event *events)
{
    const size_t bytes = reap->count * sizeof *events;
    if (copy_to_user(events, reap->events, bytes) != bytes) {
        put_back(reap);
        return -EFAULT;
    }
    let_go(reap);
    return 0;
}

/* A handler of the program's has jumped out of the call: nothing that the kernel gave may be lost. */
static void clean_up(void *argument)
{
    struct reap *reap = argument;
    if (reap->sleeping)
        wake(reap);
    int64_t over = 0;
    while (reap->count < reap->asked && reap->events[reap->count].obj != 0)
        reap->count++;
    for (; reap->finished < reap->count; reap->finished++) {
        struct io_event *event = &reap->events[reap->finished];
        struct slot *slot = aio_slot_of(reap->aio, event->obj);
        if (reap->finishing && slot)
            give_slot(reap->aio, slot, event, -EINTR);
        else
            aio_finish(reap->aio, event, &over);
        reap->finishing = false;
    }
    put_back(reap);
    cancel_leave(reap->cancel);
    aio_release(reap->aio);
}

static unsigned at_most(long count)
{
    return count < 0 ? 0 : count < AIO_CHUNK ? (unsigned)count : AIO_CHUNK;
}

/* Is it certain that the kernel would not add anything? */
static bool is_all(const struct reap *reap, long got, long least, const struct patience *patience)
{
    return got > 0 && got >= least && !patience->has_signals && !aio_has_events(reap->aio);
}

static long get_events(struct reap *reap, long least, long most, struct io_event *events, struct patience *patience)
{
    long got = 0;
    for (;;) {
        const unsigned room = at_most(most - got), need = at_most(least - got);
        long n = take_from_shadow(reap, room);
        const bool from_shadow = n > 0;
        if (!from_shadow && is_all(reap, got, least, patience))
            return got;
        if (!from_shadow)
            n = take_from_kernel(reap, need < room ? need : room, room, patience);
        if (n == LOOK_AGAIN)
            continue;
        if (n <= 0)
            return got > 0 ? got : n;
        const int error = deliver(reap, events + got);
        if (error != 0)
            return got > 0 ? got : error;
        got += n;
        /* Less than there was room for: it has waited long enough. */
        if (got == most || (!from_shadow && n < (long)room))
            return got;
    }
}

/* Not one of ours: a context of the kernel's, or none. */
static long pass_on(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout,
                    const struct aio_signals *signals)
{
    if (signals)
        return raw(SYS_io_pgetevents, context, least, most, events, timeout, signals);
    return raw(SYS_io_getevents, context, least, most, events, timeout);
}

long aio_get_events(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout,
                    const struct aio_signals *signals)
{
    struct patience patience;
    struct reap reap;
    if (shadow_is_nested())
        shadow_before_wait();
    reap.aio = aio_hold(context);
    if (!reap.aio)
        return pass_on(context, least, most, events, timeout, signals);
    reap.sleeping = reap.from_kernel = reap.finishing = false;
    reap.asked = reap.count = reap.finished = 0;
    reap.cancel = cancel_hold();
    active_open(&reap.active, clean_up, &reap);
    long result = read_patience(&patience, timeout, signals);
    if (result == 0)
        result = least < 0 || least > most ? -EINVAL : get_events(&reap, least, most, events, &patience);
    active_close(&reap.active);
    aio_release(reap.aio);
    cancel_restore(reap.cancel);
    if (shadow_is_nested())
        shadow_after_wait();
    return result;
}

bool aio_is_empty(aio_context_t context)
{
    struct aio *aio = aio_hold(context);
    if (!aio)
        return false;
    const bool empty = !aio_turn_is_taken(aio) && aio_in_shadow(aio) == 0 && !aio_has_events(aio);
    aio_release(aio);
    return empty;
}

/* ---- The pump. ---- */

static void pump_with_turn(struct aio *aio)
{
    struct io_event events[AIO_CHUNK];
    while (aio_has_events(aio)) {
        const unsigned room = at_most(aio->nr - 1 - aio_in_shadow(aio));
        const long count = room == 0 ? 0 : raw(SYS_io_getevents, aio->real, 0, room, events, &no_time);
        if (count <= 0)
            return;
        int64_t over = 0;
        for (long i = 0; i < count; i++)
            aio_finish(aio, &events[i], &over);
        aio_shadow_put(aio, events, (unsigned)count);
        atomic_fetch_sub_explicit(&aio->in_kernel, (int32_t)count, memory_order_relaxed);
    }
}

static void pump(struct aio *aio)
{
    uint64_t saved;
    /* Somebody else's turn may be what brings the events that the caller has been told of. */
    if (!aio_turn_is_taken(aio) && !aio_has_events(aio))
        return;
    /* Relaxed: the look that counts comes below. */
    if (atomic_load_explicit(&aio->sleepers, memory_order_relaxed) > 0)
        return;
    aio_take_turn(aio, &saved);
    /* Sequentially consistent: partner of sleep_in_kernel; see aio_context.h. */
    if (atomic_load_explicit(&aio->sleepers, memory_order_seq_cst) <= 0 &&
        !atomic_load_explicit(&aio->dead, memory_order_relaxed))
        pump_with_turn(aio);
    aio_give_turn(aio, &saved);
}

void aio_pump_all(void)
{
    aio_each(pump);
}
