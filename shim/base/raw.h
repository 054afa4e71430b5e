/*
 * Raw system calls: no errno, no cancellation point, no libc lock.
 *
 * Everything the shim does on its own behalf goes through here, so that a wrapper can run inside a signal handler, in a
 * child between vfork and exec, or before the C library's own constructors, and never disturbs the caller's errno.
 *
 * Every call returns the kernel's answer: a value >= 0, or -errno.
 * Thread-safe, async-signal-safe. Source: syscall(2), "Architecture calling conventions".
 */
#ifndef BOUNCEIO_BASE_RAW_H
#define BOUNCEIO_BASE_RAW_H

#include <stdint.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
static inline long raw_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long raw_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "bounceio: no raw system call sequence for this architecture; add one to shim/base/raw.h"
#endif

/* raw(SYS_name, ...): up to six arguments of any scalar type, pointers included. */
#ifdef __clang_analyzer__
long raw(long number, ...); /* an analyser that does not look into assembly must take it that memory changes */
#else
#define RAW_ARG(x) ((long)(uintptr_t)(x))
#define RAW_0(n) raw_syscall6(n, 0, 0, 0, 0, 0, 0)
#define RAW_1(n, a) raw_syscall6(n, RAW_ARG(a), 0, 0, 0, 0, 0)
#define RAW_2(n, a, b) raw_syscall6(n, RAW_ARG(a), RAW_ARG(b), 0, 0, 0, 0)
#define RAW_3(n, a, b, c) raw_syscall6(n, RAW_ARG(a), RAW_ARG(b), RAW_ARG(c), 0, 0, 0)
#define RAW_4(n, a, b, c, d) raw_syscall6(n, RAW_ARG(a), RAW_ARG(b), RAW_ARG(c), RAW_ARG(d), 0, 0)
#define RAW_5(n, a, b, c, d, e) raw_syscall6(n, RAW_ARG(a), RAW_ARG(b), RAW_ARG(c), RAW_ARG(d), RAW_ARG(e), 0)
#define RAW_6(n, a, b, c, d, e, f)                                                                                     \
    raw_syscall6(n, RAW_ARG(a), RAW_ARG(b), RAW_ARG(c), RAW_ARG(d), RAW_ARG(e), RAW_ARG(f))
#define RAW_PICK(_1, _2, _3, _4, _5, _6, _7, NAME, ...) NAME
#define raw(...) RAW_PICK(__VA_ARGS__, RAW_6, RAW_5, RAW_4, RAW_3, RAW_2, RAW_1, RAW_0, )(__VA_ARGS__)
#endif

/* True when a raw result is an error: the kernel keeps -4095..-1 for that. */
static inline int raw_failed(long result)
{
    return (unsigned long)result > -4096UL;
}

#endif
