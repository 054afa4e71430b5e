/*
 * The shadow completion rings of this process, as calls see them that know nothing of rings: read, poll, select, epoll.
 *
 * A program that is told by an eventfd or by the ring's own descriptor that something has completed looks into the ring's memory next: that
 * must hold the completion by then. So those calls move completions from the kernel's rings to the shadows *after* the real call has
 * returned, and tell the kernel *before* it what the program has consumed, so that level-triggered readiness is true.
 */
#ifndef BOUNCEIO_RINGS_SHADOW_H
#define BOUNCEIO_RINGS_SHADOW_H

#include <stdatomic.h>
#include <stdbool.h>

/* Shadow contexts and rings there are. */
extern _Atomic unsigned shadow_count __attribute__((visibility("hidden")));

static inline bool shadow_any(void)
{
    /* Relaxed: a ring that another thread is just making has no completion yet. */
    return __builtin_expect(atomic_load_explicit(&shadow_count, memory_order_relaxed) != 0, 0);
}

/*
 * Rings and contexts can be asked themselves to wait for a descriptor (POLL requests), which may be another ring's or its eventfd: an event loop
 * on one ring that watches the others. From the first such request on, whoever has looked after one of them looks after all.
 */
extern _Atomic bool shadow_nested __attribute__((visibility("hidden")));

static inline void shadow_note_nested(void)
{
    /* Relaxed: noted before the request is submitted, by whose completion others learn of it. */
    if (!atomic_load_explicit(&shadow_nested, memory_order_relaxed))
        atomic_store_explicit(&shadow_nested, true, memory_order_relaxed);
}

static inline bool shadow_is_nested(void)
{
    return __builtin_expect(atomic_load_explicit(&shadow_nested, memory_order_relaxed), 0);
}

/* Around the real call. Never block; errno stays as it is; thread-safe; nothing happens in a handler that interrupted the same. */
void shadow_before_wait(void);
void shadow_after_wait(void);

/* `call`, which may be what tells the program of a completion. */
#define SHADOW_WAIT(call)                                                                                              \
    ({                                                                                                                 \
        if (shadow_any())                                                                                              \
            shadow_before_wait();                                                                                      \
        __typeof__(call) shadow_result_ = (call);                                                                      \
        if (shadow_any())                                                                                              \
            shadow_after_wait();                                                                                       \
        shadow_result_;                                                                                                \
    })

#endif
