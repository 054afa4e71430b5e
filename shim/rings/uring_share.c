/*
 * A ring that is used on both sides of a fork.
 *
 * Completions lie in one queue, and a process can finish its own requests only. One that comes to an entry of another's stops there; so that
 * it does not wait for a process that is busy elsewhere, each that has requests in flight has a pump thread (uring_thread.c): from its next
 * submission on, and, for what is in flight at the fork itself, from then on. The entries of the dead are dropped: natively the kernel
 * cancels their requests.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "rings/uring_ring.h"

bool uring_is_gone(int pid)
{
    /* One that its parent has not yet waited for is gone as well, and only a descriptor of it tells. */
    long fd = raw(SYS_pidfd_open, pid, 0);
    if (raw_failed(fd))
        return fd == -ESRCH || raw(SYS_kill, pid, 0) == -ESRCH;
    struct pollfd end = {.fd = (int)fd, .events = POLLIN};
    const struct timespec now = {0};
    const bool gone = raw(SYS_ppoll, &end, 1, &now, NULL, 0) == 1;
    raw(SYS_close, fd);
    return gone;
}

void uring_join_slow(struct uring *ring)
{
    enum { MEMBERS = sizeof ring->control->members / sizeof *ring->control->members };
    struct uring_control *control = ring->control;
    bool is_member = false; /* more than these: what they leave in flight counts as a dead process's */
    for (unsigned i = 0; i < MEMBERS && !is_member; i++) {
        int member = atomic_load(&control->members[i]);
        if (member != 0 && member != ring->pid && !uring_is_gone(member)) {
            atomic_store(&control->shared, true);
            continue;
        }
        is_member = member == ring->pid || atomic_compare_exchange_strong(&control->members[i], &member, ring->pid);
    }
    atomic_store(&ring->joined, true);
}

bool uring_is_orphan(const struct uring *ring, uint64_t tag)
{
    const struct uring_control *control = ring->control;
    for (unsigned i = 0; i < sizeof control->members / sizeof *control->members; i++) {
        int member = atomic_load(&control->members[i]);
        if (member != 0 && slot_is_of(tag, member) && !uring_is_gone(member))
            return false;
    }
    return true;
}

void uring_serve_shared(struct uring *ring)
{
    if (atomic_load_explicit(&ring->control->shared, memory_order_relaxed) &&
        !atomic_load_explicit(&ring->has_pump_thread, memory_order_relaxed) && uring_in_flight(ring) != 0)
        uring_thread_serve(ring);
}

static void serve_what_is_in_flight(struct uring *ring)
{
    if (uring_in_flight(ring) != 0)
        uring_thread_serve(ring);
}

/* In the parent. */
static void after_fork(void)
{
    int error = errno;
    if (uring_any())
        uring_each(serve_what_is_in_flight);
    errno = error;
}

static void share_start(void)
{
    pthread_atfork(NULL, after_fork, NULL);
}
PROCESS_INITIALISER(share_start);
