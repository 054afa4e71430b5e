/*
 * Fault-exact copies between user memory and bounce pages.
 *
 * A bad user address ends the copy early; it never crashes the program. With BOUNCEIO_COPY=guard the copy is a small routine of our
 * own whose program counter the fault handler (guard.h) recognises; what was copied is exact to the byte. With
 * BOUNCEIO_COPY=kernel it is process_vm_readv/process_vm_writev, exact to the byte as well, and no handler is used.
 *
 * Thread-safe, async-signal-safe, no allocation, no lock. No shim lock may be held by the caller.
 */
#ifndef BOUNCEIO_BOUNCE_COPY_H
#define BOUNCEIO_BOUNCE_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Copy `length` bytes from user memory into ours. @return bytes copied before the first bad address (0 .. length). */
size_t copy_from_user(void *to, const void *user, size_t length);

/* Copy `length` bytes of ours to user memory. @return bytes copied before the first bad address (0 .. length). */
size_t copy_to_user(void *user, const void *from, size_t length);

/*
 * Position in a vector of user buffers, advanced by the copies. `vector` is the shim's own copy of the iovec array,
 * or the caller's stack; segments may be empty.
 */
struct cursor {
    const struct iovec *vector;
    size_t segments; /* left, including the current one */
    size_t used;     /* bytes of the current segment already passed */
};

/* Gather up to `length` bytes into `to`. @return bytes copied; fewer means a bad address or the vector's end. */
size_t copy_gather(void *to, struct cursor *cursor, size_t length);

/* Scatter up to `length` bytes from `from`. @return bytes copied; fewer means a bad address or the vector's end. */
size_t copy_scatter(struct cursor *cursor, const void *from, size_t length);

/*
 * Run `function(argument)`, which reads user memory, and survive its faults. `function` and all it calls must lie in the
 * section "guarded_text" (objects whose .text is renamed at build time); it may hold nothing that needs undoing.
 * @return 0, or -EFAULT when it met a bad address.
 * With BOUNCEIO_COPY=kernel: always -EFAULT, without calling (the caller copies first).
 */
int copy_guarded_call(void (*function)(void *argument), void *argument);

#endif
