/*
 * System calls that a program makes by instructions of its own, past the C library: the instruction is replaced by one that faults, and
 * whoever comes there runs a function of ours, as if it were the kernel.
 *
 * For programs that ask for it by what they do (rings/uring_inline.h); nothing else of a program's code is ever looked at or changed. The
 * function runs in the handler of the guard, at a point where the program holds no lock of the C library's, with signals as the program has them. It costs
 * the way through the kernel that any fault costs, about a microsecond.
 */
#ifndef BOUNCEIO_BOUNCE_TRAP_H
#define BOUNCEIO_BOUNCE_TRAP_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

enum { TRAP_MAX = 64, TRAP_LENGTH = 2 /* bytes of a system call instruction */ };

/* @return what the kernel would: a value >= 0 or -errno. */
typedef long trap_function(long number, const long argument[6]);

/*
 * Replace the system call instruction at `instruction`. The guard must be up. Thread-safe; other threads may be running there. Placing one where
 * one is does nothing.
 * @return 0; -ENOSPC: there are TRAP_MAX; -EINVAL: no such instruction, or no such architecture; -errno of mprotect(2).
 */
int trap_place(unsigned char *instruction, trap_function *function);

/* Was it a trap that faulted? Then *context goes on behind it, with the result. Async-signal-safe. */
bool trap_recover(ucontext_t *context);

#endif
