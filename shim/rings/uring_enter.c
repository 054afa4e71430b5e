/*
 * io_uring_enter(2) on a shadow ring: submit, wait, and have in the shadow what the program is told of.
 *
 * The kernel counts completions in its own queue, from its own head on. There the program's consumed entries are gone (sync), and what it has
 * not consumed is still there, with what the pump swallowed in between; so a wait for `least` completions of the program's is one for
 * those, and for as many more as the shadow lacks. Only if some of what came was swallowed, or must let a kept-back chain go on, is it
 * not the program's, and the wait begins again with what is left of its time. In all other cases the kernel's answer is the program's: a wait may end
 * early as it does natively.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/time_types.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "base/return_stack.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "engine/active.h"
#include "rings/shadow.h"
#include "rings/uring_ring.h"

#define KNOWN_FLAGS                                                                                                    \
    (IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT | IORING_ENTER_EXT_ARG |                   \
     IORING_ENTER_REGISTERED_RING | URING_ENTER_ABS_TIMER | URING_ENTER_EXT_ARG_REG | URING_ENTER_NO_IOWAIT)

long uring_enter_real(const struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags,
                      const void *argument, size_t size)
{
    (void)ring;
    long result = raw(SYS_io_uring_enter, fd, to_submit, least, flags, argument, size);
    return_stack_repair();
    return result;
}

/* ---- How long, and with what signal mask ---- */

/* The last two arguments of the call, as they are handed on. */
struct patience {
    unsigned flags;
    const void *argument;
    size_t size;
    /* Ours instead of the program's, where that must be changed: a mask, and (EXT_ARG) what refers to it. */
    sigset_t mask;
    struct io_uring_getevents_arg extended;
    struct __kernel_timespec left;
    bool has_limit;   /* a relative time */
    int64_t deadline; /* ns, CLOCK_MONOTONIC */
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The mask at `theirs` without what the guard needs, or as it is. */
static const void *strip_mask(struct patience *patience, const void *theirs, size_t size)
{
    sigset_t storage, *mask = &patience->mask;
    if (!theirs || size != _NSIG / 8 || !guard_is_up() || copy_from_user(mask, theirs, size) != size)
        return theirs;
    const sigset_t *stripped = guard_strip(mask, &storage);
    if (stripped != mask)
        memcpy(mask, stripped, size);
    return mask;
}

static void extended_patience(struct patience *patience)
{
    struct io_uring_getevents_arg *extended = &patience->extended;
    if (patience->size != sizeof *extended ||
        copy_from_user(extended, patience->argument, sizeof *extended) != sizeof *extended)
        return;
    const void *theirs = (const void *)(uintptr_t)extended->sigmask; /* NOLINT: the structure holds an address */
    const void *mask = strip_mask(patience, theirs, extended->sigmask_sz);
    if (mask != theirs) {
        extended->sigmask = (uint64_t)(uintptr_t)mask;
        patience->argument = extended;
    }
    const void *time = (const void *)(uintptr_t)extended->ts; /* NOLINT: likewise */
    if (!time || (patience->flags & URING_ENTER_ABS_TIMER) ||
        copy_from_user(&patience->left, time, sizeof patience->left) != sizeof patience->left)
        return;
    const struct __kernel_timespec *left = &patience->left;
    patience->has_limit = left->tv_sec < INT32_MAX;
    if (patience->has_limit)
        patience->deadline = now_ns() + (int64_t)left->tv_sec * 1000000000 + (int64_t)left->tv_nsec;
}

static void patience_begin(struct patience *patience, unsigned flags, const void *argument, size_t size)
{
    patience->flags = flags;
    patience->argument = argument;
    patience->size = size;
    patience->has_limit = false;
    if (!argument || !(flags & IORING_ENTER_GETEVENTS) || (flags & URING_ENTER_EXT_ARG_REG))
        return;
    if (flags & IORING_ENTER_EXT_ARG)
        extended_patience(patience);
    else
        patience->argument = strip_mask(patience, argument, size);
}

/* For one more wait: what is left of the time. */
static void patience_again(struct patience *patience)
{
    if (!patience->has_limit)
        return;
    int64_t left = patience->deadline - now_ns();
    left = left > 0 ? left : 0;
    patience->left = (struct __kernel_timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    patience->extended.ts = (uint64_t)(uintptr_t)&patience->left;
    patience->argument = &patience->extended;
}

static bool patience_is_over(const struct patience *patience)
{
    return patience->has_limit && now_ns() >= patience->deadline;
}

/* ---- Waiting ---- */

/* What the kernel is asked to wait for. */
struct goal {
    unsigned least;     /* by its own count */
    uint32_t tail;      /* of its queue, when that is there */
    uint32_t swallowed; /* so far */
    bool holds;         /* chains are kept back: any completion may let one go on */
};

/* The queues at one moment. */
struct moment {
    uint32_t pumped, head, real_head, ready;
};

/* Nobody may be seen half-way: too much waited for is waited for for ever. */
static struct moment look(struct uring *ring)
{
    struct uring_control *control = ring->control;
    struct moment moment;
    bool settled = false;
    for (unsigned tries = 0; !settled && tries < 1000; tries++) {
        const bool alone = uring_pump_through(ring);
        moment.pumped = atomic_load(&control->pumped);
        moment.head = atomic_load(ring->cq.head);
        uring_sync(ring);
        moment.real_head = atomic_load(ring->real_cq.head);
        moment.ready = atomic_load(ring->cq.tail) - moment.head;
        settled = (!alone || atomic_load(&control->pumping) == 0) && atomic_load(ring->cq.head) == moment.head &&
                  atomic_load(&control->pumped) == moment.pumped;
    }
    return moment;
}

static struct goal aim(struct uring *ring, unsigned least)
{
    const struct moment moment = look(ring);
    const uint32_t there = moment.pumped - moment.real_head;
    struct goal goal = {.swallowed = atomic_load_explicit(&ring->control->swallowed, memory_order_relaxed),
                        .holds = uring_is_holding(ring)};
    if (least > ring->cq.entries)
        least = ring->cq.entries;
    if (least <= moment.ready)
        goal.least = there < least ? there : least;
    else
        goal.least = there + (goal.holds ? 1 : least - moment.ready);
    goal.tail = moment.real_head + goal.least;
    return goal;
}

static bool is_reached(const struct uring *ring, const struct goal *goal)
{
    return (int32_t)(uring_real_tail(ring) - goal->tail) >= 0;
}

/* Another process that shares the ring has to finish what lies in front: give it time. @return 0, or what the program is told. */
static long await_other_process(const struct uring *ring, const struct patience *patience)
{
    const struct timespec while_ = {.tv_nsec = 5000000};
    uint32_t pumped = atomic_load(&ring->control->pumped);
    if (pumped != uring_real_tail(ring) &&
        raw(SYS_futex, &ring->control->pumped, FUTEX_WAIT, pumped, &while_) == -EINTR)
        return -EINTR;
    return patience_is_over(patience) ? -ETIME : 0;
}

/*
 * A wait for `goal` has ended with `result`. Is it to be begun again, because what came was not the program's? If not, *result is what the
 * program gets.
 */
static bool goes_on(struct uring *ring, const struct goal *goal, unsigned least, const struct patience *patience,
                    long *result)
{
    const bool reached = is_reached(ring, goal);
    if (!uring_pump_through(ring) || atomic_load_explicit(&ring->numbers, memory_order_relaxed) == 0)
        return false;
    const bool stuck = uring_real_tail(ring) != atomic_load(&ring->control->pumped);
    const bool others = stuck || goal->holds ||
                        atomic_load_explicit(&ring->control->swallowed, memory_order_relaxed) != goal->swallowed;
    const unsigned ready = uring_ready(ring);
    if (*result < 0 || !others || ready >= least || least == 0 || goal->least >= ring->real_cq.entries)
        return false;
    if (!reached) { /* interrupted, or out of time; the kernel does not say so when it has a completion */
        *result = ready > 0 ? 0 : patience_is_over(patience) ? -ETIME : -EINTR;
        return false;
    }
    long told = stuck ? await_other_process(ring, patience) : 0;
    if (told != 0)
        *result = ready > 0 ? 0 : told;
    return told == 0;
}

/* With GETEVENTS. */
static long wait(struct uring *ring, int fd, unsigned least, struct patience *patience)
{
    for (;;) {
        const struct goal goal = aim(ring, least);
        long result = uring_enter_real(ring, fd, 0, goal.least, patience->flags, patience->argument, patience->size);
        if (!goes_on(ring, &goal, least, patience, &result))
            return result;
        patience_again(patience);
    }
}

/* ---- The call ---- */

/* SQPOLL: the kernel's thread would take all there is, and nobody is told how that went. */
static long wake_thread(struct uring *ring, int fd, unsigned to_submit, unsigned flags)
{
    bool waited;
    long result = uring_submit(ring, fd, UINT32_MAX, 0, flags & IORING_ENTER_REGISTERED_RING, NULL, 0, &waited);
    return result == -EBADFD || result == -EBADF ? result : (long)to_submit;
}

/* Submit, and wait in the same call if that can be. *waited: nothing is left to be waited for. */
static long submit(struct uring *ring, int fd, unsigned to_submit, unsigned least, struct patience *patience,
                   bool *waited)
{
    if (!(patience->flags & IORING_ENTER_GETEVENTS))
        return uring_submit(ring, fd, to_submit, 0, patience->flags, patience->argument, patience->size, waited);
    const struct goal goal = aim(ring, least);
    long result =
        uring_submit(ring, fd, to_submit, goal.least, patience->flags, patience->argument, patience->size, waited);
    long answer = 0;
    if (*waited && goes_on(ring, &goal, least, patience, &answer)) {
        patience_again(patience);
        *waited = false;
    }
    return result;
}

/*
 * After a submission: a thread that sleeps until there are several completions, and went to sleep when nothing was kept back, does not wake to let
 * the new chains go on. Nor may this thread call again. `itself`: it is counted.
 */
static void serve_sleepers(struct uring *ring, bool itself)
{
    /* A change of no amount: whoever counts himself later finds the chains, and does not sleep so long. */
    if (uring_is_holding(ring) && atomic_fetch_add(&ring->patient, 0) > (itself ? 1U : 0U))
        uring_thread_serve(ring);
}

static long enter(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                  size_t size, bool is_patient)
{
    struct patience patience;
    long submitted = 0;
    bool waited = false;
    const bool polled = (ring->flags & IORING_SETUP_SQPOLL) != 0;
    flags &= ~(unsigned)(IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT);
    patience_begin(&patience, flags, argument, size);
    uring_join(ring);
    uring_sync(ring);
    if (polled)
        submitted = wake_thread(ring, fd, to_submit, flags);
    else if (to_submit > 0)
        submitted = submit(ring, fd, to_submit, least, &patience, &waited);
    uring_serve_shared(ring);
    serve_sleepers(ring, is_patient);
    if (submitted != (long)to_submit || waited)
        return submitted;
    if (!(flags & IORING_ENTER_GETEVENTS))
        return to_submit > 0 ? submitted : uring_enter_real(ring, fd, 0, 0, flags, argument, size);
    long result = wait(ring, fd, least, &patience);
    return submitted > 0 ? submitted : result;
}

static void drop(void *ring)
{
    uring_drop(ring);
}

long uring_enter(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                 size_t size)
{
    struct active active;
    if (flags & ~KNOWN_FLAGS)
        return -EINVAL;
    active_open(&active, drop, ring);
    if (shadow_is_nested())
        shadow_before_wait();
    const bool is_patient = (flags & IORING_ENTER_GETEVENTS) && least > 1;
    if (is_patient)
        atomic_fetch_add(&ring->patient, 1);
    long result = enter(ring, fd, to_submit, least, flags, argument, size, is_patient);
    if (is_patient)
        atomic_fetch_sub(&ring->patient, 1);
    uring_pump(ring);
    active_close(&active);
    return result;
}
