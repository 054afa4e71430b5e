/*
 * The pump thread: moves completions, and submits what the program has queued, for rings whose program may not call for that: SQPOLL
 * programs, and processes that share a ring with others after a fork. One thread for all such rings of a process, which ends with the last.
 *
 * It sleeps in epoll, edge-triggered, so that completions which stay in the kernel's queue until the program has consumed them wake it once.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/next.h"
#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "rings/uring_ring.h"

enum { EVENTS = 16, STUCK_MS = 5 /* between looks whether the other process is through */ };

/* In wiped memory: a forked child has no such thread. */
static struct pump_thread {
    _Atomic bool runs;
    _Atomic unsigned rings; /* that it serves */
} * thread;

/* Not in wiped memory: a forked child has copies of the descriptors, and makes new ones of its own. */
static _Atomic int epoll_fd = -1, wake_fd = -1;

static void thread_start(void)
{
    thread = process_arena(sizeof *thread);
}
PROCESS_INITIALISER(thread_start);

/* Of the thread: some ring has, in front of completions that may be ours, one that another process has to finish. */
static bool is_stuck;

static void serve(struct uring *ring)
{
    bool waited;
    if (!atomic_load(&ring->has_pump_thread))
        return;
    uring_sync(ring);
    /* Another process may pump at this moment, up to an entry that is ours: nobody would tell us. */
    uring_pump_through(ring);
    uring_pump(ring);
    is_stuck = is_stuck || uring_real_tail(ring) != atomic_load(&ring->control->pumped);
    const bool submits =
        (ring->flags & IORING_SETUP_SQPOLL) && atomic_load_explicit(ring->sq.tail, memory_order_acquire) !=
                                                   atomic_load_explicit(ring->sq.head, memory_order_relaxed);
    if (submits && uring_submit(ring, atomic_load(&ring->fd), UINT32_MAX, 0, 0, NULL, 0, &waited) > 0)
        uring_pump(ring);
}

static void wake(void)
{
    const uint64_t one = 1;
    raw(SYS_write, atomic_load(&wake_fd), &one, sizeof one);
}

static void *run(void *unused)
{
    struct epoll_event events[EVENTS];
    (void)unused;
    for (;;) {
        while (atomic_load(&thread->rings) > 0) {
            raw(SYS_epoll_pwait, atomic_load(&epoll_fd), events, EVENTS, is_stuck ? STUCK_MS : -1, NULL, 0);
            is_stuck = false;
            uring_each(serve);
        }
        atomic_store(&thread->runs, false);
        bool runs = false;
        /* Somebody may have come between the look and the store. */
        if (atomic_load(&thread->rings) == 0 || !atomic_compare_exchange_strong(&thread->runs, &runs, true))
            return NULL;
    }
}

/* The thread sanitizer has to know the threads that run instrumented code, and lies before the shim. */
#ifdef __SANITIZE_THREAD__
#define CREATE_THREAD pthread_create
#else
#define CREATE_THREAD next.pthread_create
#endif

/* Signals stay with the program's threads; those of faults are the guard's, wherever they happen. */
static int start_thread(void)
{
    pthread_t id;
    pthread_attr_t attributes;
    uint64_t saved, blocked = ~(UINT64_C(1) << (SIGSEGV - 1) | UINT64_C(1) << (SIGBUS - 1));
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &saved, sizeof blocked);
    int error = CREATE_THREAD(&id, &attributes, run, NULL);
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &saved, NULL, sizeof saved);
    pthread_attr_destroy(&attributes);
    return -error;
}

static int watch(int fd, uint64_t data)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = data};
    return (int)raw(SYS_epoll_ctl, atomic_load(&epoll_fd), EPOLL_CTL_ADD, fd, &event);
}

/* This process's descriptors. */
static int make_descriptors(void)
{
    static int made_by;
    int self = (int)raw(SYS_getpid), error;
    if (made_by == self)
        return 0;
    own_close(&epoll_fd);
    own_close(&wake_fd);
    long fd = raw(SYS_epoll_create1, EPOLL_CLOEXEC);
    if (raw_failed(fd) || (error = own_take((int)fd, &epoll_fd)) != 0)
        return raw_failed(fd) ? (int)fd : error;
    fd = raw(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (raw_failed(fd) || (error = own_take((int)fd, &wake_fd)) != 0)
        return raw_failed(fd) ? (int)fd : error;
    if ((error = watch(atomic_load(&wake_fd), 0)) != 0)
        return error;
    made_by = self;
    return 0;
}

int uring_thread_serve(struct uring *ring)
{
    uint64_t saved;
    bool runs = false;
    process_lock(&saved);
    int error = atomic_load(&ring->has_pump_thread) ? 0 : make_descriptors();
    if (error == 0 && !atomic_load(&ring->has_pump_thread)) {
        error = watch(atomic_load(&ring->fd), 1);
        if (error == 0) {
            atomic_store(&ring->has_pump_thread, true);
            atomic_fetch_add(&thread->rings, 1);
        }
    }
    process_unlock(&saved);
    if (error == 0 && atomic_compare_exchange_strong(&thread->runs, &runs, true) && (error = start_thread()) != 0) {
        atomic_store(&thread->runs, false);
        uring_thread_forget(ring);
    }
    return error;
}

void uring_thread_forget(struct uring *ring)
{
    if (!atomic_exchange(&ring->has_pump_thread, false))
        return;
    raw(SYS_epoll_ctl, atomic_load(&epoll_fd), EPOLL_CTL_DEL, atomic_load(&ring->fd), NULL);
    atomic_fetch_sub(&thread->rings, 1);
    wake();
}
