/*
 * Calls that carry a signal mask from one place of the program to another inside the C library: longjmp, contexts, new
 * threads. The kernel's part of the mask goes with them; the guard is told of the two signals that it keeps. And where a handler leaves a
 * request of ours by one of them, or by ending the thread, the request is cleaned up first.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <ucontext.h>

#include "base/next.h"
#include "bounce/guard.h"
#include "engine/active.h"
#include "entry/entry.h"

#if defined(__x86_64__)

/* The stack pointer in a jmp_buf, as glibc mangles it (sysdeps/x86_64/pointer_guard.h: PTR_DEMANGLE; jmpbuf-offsets.h: JB_RSP). */
static uintptr_t stack_of_jump(const struct __jmp_buf_tag *target)
{
    uintptr_t mangled = (uintptr_t)target->__jmpbuf[6], guard;
    __asm__("mov %%fs:0x30, %0" : "=r"(guard));
    return (mangled >> 17 | mangled << 47) ^ guard;
}

static uintptr_t stack_of_context(const ucontext_t *target)
{
    return (uintptr_t)target->uc_mcontext.gregs[REG_RSP];
}

#else /* no guard */

static uintptr_t stack_of_jump(const struct __jmp_buf_tag *target)
{
    (void)target;
    return 0;
}

static uintptr_t stack_of_context(const ucontext_t *target)
{
    (void)target;
    return 0;
}

#endif

/* What swapcontext saves may come back. What these calls leave does not: requests that lie there are over. */
static void leave_for(uintptr_t stack, bool restores_mask)
{
    active_leave(stack);
    guard_jump(stack, restores_mask);
}

EXPORT void longjmp(struct __jmp_buf_tag target[1], int value)
{
    leave_for(stack_of_jump(target), target->__mask_was_saved);
    next.longjmp(target, value);
    __builtin_unreachable();
}
ALIAS(_longjmp, longjmp);
ALIAS(siglongjmp, longjmp);

_Noreturn void __longjmp_chk(struct __jmp_buf_tag target[1], int value);
EXPORT void __longjmp_chk(struct __jmp_buf_tag target[1], int value)
{
    leave_for(stack_of_jump(target), target->__mask_was_saved);
    next.__longjmp_chk(target, value);
    __builtin_unreachable();
}

EXPORT int setcontext(const ucontext_t *target)
{
    leave_for(stack_of_context(target), true);
    return next.setcontext(target);
}

EXPORT int swapcontext(ucontext_t *saved, const ucontext_t *target)
{
    guard_jump(stack_of_context(target), true);
    return next.swapcontext(saved, target);
}

EXPORT _Noreturn void pthread_exit(void *value)
{
    active_leave(ACTIVE_EVERYTHING);
    next.pthread_exit(value);
    __builtin_unreachable();
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    unsigned blocked = guard_inherit();
    int result = next.pthread_create(thread, attributes, start, argument);
    guard_inherited(blocked);
    return result;
}
