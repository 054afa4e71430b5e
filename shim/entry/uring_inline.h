/*
 * Programs that make io_uring's system calls by instructions of their own: fio's engine enters so, and only sets up through syscall(2).
 *
 * When a ring is set up, the caller's own code (the program, or the library that called) is searched for such instructions, which
 * are made to come to us (bounce/trap.h). A program that is linked statically with liburing never calls us, and is not reached.
 */
#ifndef BOUNCEIO_ENTRY_URING_INLINE_H
#define BOUNCEIO_ENTRY_URING_INLINE_H

#include <stdbool.h>

/*
 * @return true: whatever the code around `caller` does with rings, it comes to us. False: it has such instructions, and they cannot be replaced
 * (no fault guard, or memory that must not be both written and executed): its rings have to be the kernel's own. Said once. Not async-signal-safe.
 */
bool uring_inline_catch(const void *caller);

#endif
