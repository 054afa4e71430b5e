/*
 * Fault-exact copies: the choice between our own routine (copy_arch.h) and the kernel's, and vectors on top of it.
 */
#include "bounce/copy.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/config.h"
#include "base/log.h"
#include "base/raw.h"
#include "bounce/copy_arch.h"
#include "bounce/guard.h"

/* Otherwise this thread is about to fault on user memory, and must not have the signals blocked that say so. */
static bool kernel_copies(void)
{
    if (!COPY_ARCH_GUARDED || config.copy == COPY_KERNEL)
        return true;
    guard_thread();
    return false;
}

/* Sandboxes may refuse process_vm_readv even on oneself. A copy that trusts the pointer then beats no I/O at all. */
static size_t trusting_copy(void *to, const void *from, size_t length, long error)
{
    static atomic_flag warned = ATOMIC_FLAG_INIT;
    /* Relaxed: who warns does not order anything. */
    if (!atomic_flag_test_and_set_explicit(&warned, memory_order_relaxed))
        log_warn("BOUNCEIO_COPY=kernel: process_vm_readv is refused (error %ld): a bad buffer will crash the program",
                 -error);
    memcpy(to, from, length);
    return length;
}

/*
 * process_vm_readv(2) and process_vm_writev(2) stop at the first page they cannot have; what precedes it is copied. They
 * return a short count only there or at 2 GiB, so the call is repeated until it has nothing to say.
 */
static size_t kernel_copy(long number, void *local, void *user, size_t length)
{
    size_t done = 0;
    while (done < length) {
        struct iovec here = {(char *)local + done, length - done};
        struct iovec there = {(char *)user + done, length - done};
        long copied = raw(number, raw(SYS_getpid), &here, 1, &there, 1, 0);
        if (copied == -EPERM || copied == -ENOSYS)
            return number == SYS_process_vm_readv ? trusting_copy(local, user, length, copied)
                                                  : trusting_copy(user, local, length, copied);
        if (copied <= 0)
            break;
        done += (size_t)copied;
    }
    return done;
}

size_t copy_from_user(void *to, const void *user, size_t length)
{
    if (kernel_copies())
        return kernel_copy(SYS_process_vm_readv, to, (void *)(uintptr_t)user, length);
    return length - copy_arch_forward(to, user, length);
}

size_t copy_to_user(void *user, const void *from, size_t length)
{
    if (kernel_copies())
        return kernel_copy(SYS_process_vm_writev, (void *)(uintptr_t)from, user, length);
    return length - copy_arch_forward(user, from, length);
}

/* The rest of the cursor's current segment, at most `length` bytes, empty segments skipped. A length of 0 is the vector's end. */
static struct iovec next_piece(struct cursor *cursor, size_t length)
{
    while (cursor->segments > 0 && cursor->used == cursor->vector->iov_len) {
        cursor->vector++;
        cursor->segments--;
        cursor->used = 0;
    }
    if (cursor->segments == 0)
        return (struct iovec){NULL, 0};
    size_t left = cursor->vector->iov_len - cursor->used;
    return (struct iovec){(char *)cursor->vector->iov_base + cursor->used, left < length ? left : length};
}

size_t copy_gather(void *to, struct cursor *cursor, size_t length)
{
    size_t done = 0;
    while (done < length) {
        struct iovec piece = next_piece(cursor, length - done);
        size_t copied = copy_from_user((char *)to + done, piece.iov_base, piece.iov_len);
        cursor->used += copied;
        done += copied;
        if (copied < piece.iov_len || piece.iov_len == 0)
            break;
    }
    return done;
}

size_t copy_scatter(struct cursor *cursor, const void *from, size_t length)
{
    size_t done = 0;
    while (done < length) {
        struct iovec piece = next_piece(cursor, length - done);
        size_t copied = copy_to_user(piece.iov_base, (const char *)from + done, piece.iov_len);
        cursor->used += copied;
        done += copied;
        if (copied < piece.iov_len || piece.iov_len == 0)
            break;
    }
    return done;
}

int copy_guarded_call(void (*function)(void *argument), void *argument)
{
    if (kernel_copies())
        return -EFAULT;
    return copy_arch_call(function, argument);
}
