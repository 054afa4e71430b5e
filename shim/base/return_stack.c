/*
 * Is the return stack spoilt by system calls? Owns the answer.
 */
#include "base/return_stack.h"

#if defined(__x86_64__)

#include <stdint.h>
#include <time.h>

#include "base/raw.h"

_Atomic bool return_stack_is_spoilt;

enum { BATCHES = 4, CALLS = 4 };

/* arch_prctl(2), Linux 6.6: features of shadow stacks, where every call must have its return. */
enum { SHADOW_STACK_STATUS = 0x5005 };

static bool has_shadow_stack(void)
{
    uint64_t features = 0;
    return raw(SYS_arch_prctl, SHADOW_STACK_STATUS, &features) == 0 && features != 0;
}

/* The kernel has to go some way for it, as for a request: an empty write to no file would be too short. */
static __attribute__((noinline)) long call_kernel(bool fill)
{
    struct timespec time;
    long result = raw(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &time);
    if (fill)
        return_stack_fill();
    return result;
}

/* Some returns on the way out, as a request has. */
static __attribute__((noinline)) long call_deeply(bool fill, int depth)
{
    long result = depth > 0 ? call_deeply(fill, depth - 1) : call_kernel(fill);
    __asm__ volatile("" ::: "memory"); /* not a jump */
    return result;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int64_t time_batch(bool fill)
{
    int64_t begin = now();
    for (int call = 0; call < CALLS; call++)
        call_deeply(fill, 4);
    return now() - begin;
}

void return_stack_measure(void)
{
    static _Atomic bool measured;
    int64_t best[2] = {INT64_MAX, INT64_MAX};
    if (atomic_exchange_explicit(&measured, true, memory_order_relaxed) || has_shadow_stack())
        return;
    for (int batch = 0; batch < 2 * BATCHES; batch++) {
        int64_t time = time_batch(batch % 2);
        if (time < best[batch % 2])
            best[batch % 2] = time;
    }
    atomic_store_explicit(&return_stack_is_spoilt, best[1] < best[0] - best[0] / 16, memory_order_relaxed);
}

#endif
