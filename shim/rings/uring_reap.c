/*
 * The end of a ring, or of the process: what is in flight still reads and writes the shim's pages, so it is waited for.
 *
 * It is the kernel that ends requests, not the program, so this always comes to an end; but with DEFER_TASKRUN only the thread that submits may
 * have the ends told, and a process that shares the ring may not finish what lies before ours. Then, after a while, the requests are given up:
 * their pages are never used again.
 */
#include <errno.h>
#include <time.h>

#include "base/log.h"
#include "base/process.h"
#include "base/raw.h"
#include "rings/uring_stage.h"

enum { STALLED_MS = 10000, STEP_MS = 50 };

/* What the program has not taken of the completions makes room. */
static void make_room(struct uring *ring)
{
    if (atomic_load(&ring->control->shared) || uring_ready(ring) < ring->cq.entries)
        return;
    atomic_store(ring->cq.head, atomic_load(ring->cq.tail));
    uring_sync(ring);
}

/* Wait, not for long, for a completion more than those before `seen`. @return how long that was without one, in milliseconds. */
static int step(struct uring *ring, uint32_t seen)
{
    const struct __kernel_timespec limit = {.tv_nsec = STEP_MS * 1000000};
    const struct io_uring_getevents_arg extended = {.ts = (uint64_t)(uintptr_t)&limit};
    const unsigned least = seen - atomic_load(ring->real_cq.head) + 1;
    long result = -EINVAL;
    if (ring->features & IORING_FEAT_EXT_ARG)
        result = uring_enter_real(ring, atomic_load(&ring->fd), 0, least, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                                  &extended, sizeof extended);
    if (result == 0 || result == -EINTR)
        return 0;
    if (result == -ETIME)
        return STEP_MS;
    uring_enter_real(ring, atomic_load(&ring->fd), 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
    raw(SYS_nanosleep, &(struct timespec){.tv_nsec = 1000000}, NULL);
    return 1;
}

/* Wait until nothing of ours is in flight. @return what still is. */
static uint32_t wait_for_all(struct uring *ring)
{
    uint32_t before = 0;
    for (int stalled = 0; stalled < STALLED_MS;) {
        const uint32_t seen = uring_real_tail(ring);
        uring_pump_through(ring);
        make_room(ring);
        const uint32_t left = uring_in_flight(ring);
        if (left == 0)
            return 0;
        if (left != before)
            stalled = 0;
        before = left;
        stalled += step(ring, seen);
    }
    return uring_in_flight(ring);
}

/* What is kept back is never submitted: if the right can be had, within a moment. One who has it may be held up by a handler of the program's. */
static void give_up_kept_back(struct uring *ring)
{
    static const struct timespec moment = {.tv_nsec = 1000000};
    struct active active;
    for (int i = 0; i < 100; i++) {
        if (uring_claim(ring, &active, false)) {
            uring_chain_empty(ring);
            uring_disclaim(ring, &active);
            return;
        }
        raw(SYS_nanosleep, &moment, NULL);
    }
}

void uring_reap(struct uring *ring)
{
    uint64_t saved;
    if (uring_is_holding(ring))
        give_up_kept_back(ring);
    if (uring_in_flight(ring) == 0)
        return;
    process_hold_signals(&saved);
    uint32_t left = wait_for_all(ring);
    process_release_signals(&saved);
    if (left != 0)
        log_warn("io_uring: %u requests of a ring that is closed do not end", left);
}

void uring_end(void)
{
    uring_each(uring_reap);
}
