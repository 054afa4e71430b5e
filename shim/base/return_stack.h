/*
 * The processor's return stack after a system call.
 *
 * A processor predicts returns by a small stack of its own. Kernels that guard their own returns on AMD processors ("Safe RET", against
 * speculative return stack overflow) leave it full of kernel addresses. The first return after a system call then sends the processor to fetch
 * from where a program cannot: measured on a virtual Zen 4, 160 ns after a pread of 4 KiB and 270 ns after a pwrite, once for each call, as long as
 * every return on the way out finds an address of the kernel's. Filling the stack with addresses of our own makes the
 * predictions merely wrong, at a few ns each.
 *
 * Where returns are predicted well that would make them worse, so it is measured once, before the first direct request.
 */
#ifndef BOUNCEIO_BASE_RETURN_STACK_H
#define BOUNCEIO_BASE_RETURN_STACK_H

#include <stdatomic.h>
#include <stdbool.h>

#if defined(__x86_64__)

/* Set once, relaxed; a request that misses it is a little slower. */
extern _Atomic bool return_stack_is_spoilt;

/*
 * Right after the system call of a request, in a function with a frame pointer. 16 entries: our own returns on the way out, and some of the
 * program's. The first 128 bytes below the stack pointer may be the caller's (red zone).
 */
static inline __attribute__((always_inline)) void return_stack_fill(void)
{
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     ".rept 16\n\t"
                     "call 771f\n\t"
                     "int3\n" /* never executed but by speculation, which it stops */
                     "771:\n\t"
                     ".endr\n\t"
                     "lea 128 + 16 * 8(%%rsp), %%rsp" ::
                         : "memory");
}

static inline __attribute__((always_inline)) void return_stack_repair(void)
{
    /* Relaxed: nothing hangs on it but time. */
    if (atomic_load_explicit(&return_stack_is_spoilt, memory_order_relaxed))
        return_stack_fill();
}

/* Find out; about 20 us. Once is enough. Thread-safe, async-signal-safe. */
void return_stack_measure(void);

#else

static inline void return_stack_repair(void)
{
}

static inline void return_stack_measure(void)
{
}

#endif

#endif
