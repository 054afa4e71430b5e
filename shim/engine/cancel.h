/*
 * Thread cancellation: not while something is held that only we can give back. A direct request is a cancellation point at its
 * entry; what was asked for meanwhile happens at the caller's next one, or on restoring if the thread is cancelled asynchronously.
 * Async-signal-safe with glibc: a compare-and-swap in the thread's own descriptor.
 */
#ifndef BOUNCEIO_ENGINE_CANCEL_H
#define BOUNCEIO_ENGINE_CANCEL_H

#include <pthread.h>
#include <stdbool.h>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define CANCEL_ALONE __libc_single_threaded
#else
#define CANCEL_ALONE false
#endif

#include "engine/active.h"

/*
 * Make `call`, during which the thread may be cancelled, or a handler jump out of it; `clean_up(argument)` is run if that happens. For calls
 * that may block, with something of ours open around them.
 */
#define CANCEL_WITH(clean_up, argument, call)                                                                          \
    ({                                                                                                                 \
        __typeof__(call) cancel_result_;                                                                               \
        struct active cancel_active_;                                                                                  \
        active_open(&cancel_active_, clean_up, argument);                                                              \
        pthread_cleanup_push(active_end_thread, NULL);                                                                 \
        cancel_result_ = (call);                                                                                       \
        pthread_cleanup_pop(0);                                                                                        \
        active_close(&cancel_active_);                                                                                 \
        cancel_result_;                                                                                                \
    })

struct cancel {
    bool alone;
    int state, type;
};

static inline struct cancel cancel_hold(void)
{
    struct cancel before = {.type = PTHREAD_CANCEL_DEFERRED};
    /* When the only thread of a process is cancelled (by itself, in a handler), nothing is left to leak. */
    before.alone = CANCEL_ALONE;
    if (before.alone)
        return before;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &before.type);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before.state);
    return before;
}

/* A handler jumps out of what holds it: restored, and acted on at the next cancellation point. */
static inline void cancel_leave(struct cancel before)
{
    if (before.alone)
        return;
    pthread_setcancelstate(before.state, NULL);
    if (before.type != PTHREAD_CANCEL_DEFERRED)
        pthread_setcanceltype(before.type, NULL);
}

static inline void cancel_restore(struct cancel before)
{
    if (before.alone)
        return;
    pthread_setcancelstate(before.state, NULL);
    if (before.type == PTHREAD_CANCEL_DEFERRED)
        return;
    /* Acted on here, and not by setting the type: glibc 2.36 would forget to say PTHREAD_CANCELED. */
    pthread_testcancel();
    pthread_setcanceltype(before.type, NULL);
}

#endif
