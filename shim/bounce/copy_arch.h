/*
 * The part of a fault-exact copy that knows the processor: the routine whose program counter the fault handler
 * recognises, and the recovery that the handler runs.
 *
 * Private to bounce/. Architectures without a routine leave the copies to the kernel (copy.c).
 */
#ifndef BOUNCEIO_BOUNCE_COPY_ARCH_H
#define BOUNCEIO_BOUNCE_COPY_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#if defined(__x86_64__)

#define COPY_ARCH_GUARDED 1

/*
 * Copy forwards, either side may be user memory. @return bytes *not* copied: what lay at and behind the first bad
 * address. Nothing beyond the bytes said to be copied is changed.
 */
size_t copy_arch_forward(void *to, const void *from, size_t length);

/* copy_guarded_call for this architecture. @return 0, or -EFAULT. */
int copy_arch_call(void (*function)(void *argument), void *argument);

/*
 * The handler's question: was `context` interrupted by a fault of one of ours? Then its registers are changed so that
 * returning from the handler ends the copy or the guarded call. Async-signal-safe; looks at nothing but registers
 * and a thread-local. Source of the technique: Documentation/arch/x86/exception-tables.rst of the kernel.
 */
bool copy_arch_recover(ucontext_t *context);

#else

#include <errno.h>

#define COPY_ARCH_GUARDED 0

static inline size_t copy_arch_forward(void *to, const void *from, size_t length)
{
    (void)to, (void)from;
    return length;
}

static inline int copy_arch_call(void (*function)(void *argument), void *argument)
{
    (void)function, (void)argument;
    return -EFAULT;
}

static inline bool copy_arch_recover(ucontext_t *context)
{
    (void)context;
    return false;
}

#endif

#endif
