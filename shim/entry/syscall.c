/*
 * The raw road: syscall(2) with a number that has a wrapper goes through that wrapper.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/next.h"
#include "base/process.h"
#include "bounce/copy.h"
#include "engine/cancel.h"
#include "entry/entry.h"
#include "entry/open.h"
#include "entry/syscall.h"
#include "rings/shadow.h"

/* openat2 has no function in the C library. */
static long open_by_how(const struct arguments *x)
{
    struct open_how how = {0};
    struct change change;
    size_t size = (size_t)x->d < sizeof how ? (size_t)x->d : sizeof how;
    if (copy_from_user(&how, (const void *)x->c, size) != size)
        return next.syscall(SYS_openat2, x->a, x->b, x->c, x->d, x->e, x->f);
    open_begin(&change, (int)x->a, (const char *)x->b, (int)how.flags);
    return open_end(&change, (int)next.syscall(SYS_openat2, x->a, x->b, x->c, x->d, x->e, x->f), (int)how.flags);
}

static long read_or_write(long number, const struct arguments *x)
{
    switch (number) {
    case SYS_read:
        return read((int)x->a, (void *)x->b, (size_t)x->c);
    case SYS_write:
        return write((int)x->a, (const void *)x->b, (size_t)x->c);
    case SYS_pread64:
        return pread((int)x->a, (void *)x->b, (size_t)x->c, x->d);
    case SYS_pwrite64:
        return pwrite((int)x->a, (const void *)x->b, (size_t)x->c, x->d);
    case SYS_readv:
        return readv((int)x->a, (const struct iovec *)x->b, (int)x->c);
    case SYS_writev:
        return writev((int)x->a, (const struct iovec *)x->b, (int)x->c);
    case SYS_preadv:
        return preadv((int)x->a, (const struct iovec *)x->b, (int)x->c, x->d);
    case SYS_pwritev:
        return pwritev((int)x->a, (const struct iovec *)x->b, (int)x->c, x->d);
    case SYS_preadv2: /* the fifth argument is the upper half of the offset, nothing on 64 bits */
        return preadv2((int)x->a, (const struct iovec *)x->b, (int)x->c, x->d, (int)x->f);
    default:
        return pwritev2((int)x->a, (const struct iovec *)x->b, (int)x->c, x->d, (int)x->f);
    }
}

static long mutate(long number, const struct arguments *x)
{
    switch (number) {
    case SYS_truncate:
        return truncate((const char *)x->a, x->b);
    case SYS_ftruncate:
        return ftruncate((int)x->a, x->b);
    case SYS_fallocate:
        return fallocate((int)x->a, (int)x->b, x->c, x->d);
    case SYS_copy_file_range:
        return copy_file_range((int)x->a, (off64_t *)x->b, (int)x->c, (off64_t *)x->d, (size_t)x->e, (unsigned)x->f);
    case SYS_sendfile:
        return sendfile((int)x->a, (int)x->b, (off_t *)x->c, (size_t)x->d);
    case SYS_splice:
        return splice((int)x->a, (off64_t *)x->b, (int)x->c, (off64_t *)x->d, (size_t)x->e, (unsigned)x->f);
    case SYS_utimensat:
        /* The C library refuses a NULL path; the kernel takes it for the descriptor itself. */
        return x->b ? utimensat((int)x->a, (const char *)x->b, (const struct timespec *)x->c, (int)x->d)
                    : futimens((int)x->a, (const struct timespec *)x->c);
    case SYS_mmap:
        return (long)mmap((void *)x->a, (size_t)x->b, (int)x->c, (int)x->d, (int)x->e, x->f);
    case SYS_munmap:
        return munmap((void *)x->a, (size_t)x->b);
    case SYS_mprotect:
        return mprotect((void *)x->a, (size_t)x->b, (int)x->c);
    case SYS_madvise:
        return madvise((void *)x->a, (size_t)x->b, (int)x->c);
    case SYS_pkey_mprotect:
        return pkey_mprotect((void *)x->a, (size_t)x->b, (int)x->c, (int)x->d);
    case SYS_mremap:
        return (long)mremap((void *)x->a, (size_t)x->b, (size_t)x->c, (int)x->d, (void *)x->e);
    default:
        return ioctl((int)x->a, (unsigned long)x->b, (void *)x->c);
    }
}

/* Waits that a completion may end. Not by way of their functions, which differ from the system calls in what becomes of the timeout. */
static bool waits(long number)
{
    switch (number) {
#ifdef SYS_poll
    case SYS_poll:
    case SYS_select:
    case SYS_epoll_wait:
#endif
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
        return true;
    default:
        return false;
    }
}

/* @return false when the number is none of ours. */
static bool wrapped(long number, const struct arguments *x, long *result)
{
    switch (number) {
    case SYS_read:
    case SYS_write:
    case SYS_pread64:
    case SYS_pwrite64:
    case SYS_readv:
    case SYS_writev:
    case SYS_preadv:
    case SYS_pwritev:
    case SYS_preadv2:
    case SYS_pwritev2:
        *result = read_or_write(number, x);
        return true;
    case SYS_truncate:
    case SYS_ftruncate:
    case SYS_fallocate:
    case SYS_copy_file_range:
    case SYS_sendfile:
    case SYS_splice:
    case SYS_utimensat:
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mprotect:
    case SYS_mremap:
    case SYS_ioctl:
    case SYS_madvise:
    case SYS_pkey_mprotect:
        *result = mutate(number, x);
        return true;
#ifdef SYS_open
    case SYS_utime:
        *result = utime((const char *)x->a, (const struct utimbuf *)x->b);
        return true;
    case SYS_utimes:
        *result = utimes((const char *)x->a, (const struct timeval *)x->b);
        return true;
    case SYS_futimesat:
        *result = futimesat((int)x->a, (const char *)x->b, (const struct timeval *)x->c);
        return true;
    case SYS_open:
        *result = open((const char *)x->a, (int)x->b, (mode_t)x->c);
        return true;
    case SYS_creat:
        *result = creat((const char *)x->a, (mode_t)x->b);
        return true;
    case SYS_dup2:
        *result = dup2((int)x->a, (int)x->b);
        return true;
#endif
    case SYS_openat:
        *result = openat((int)x->a, (const char *)x->b, (int)x->c, (mode_t)x->d);
        return true;
    case SYS_openat2:
        *result = open_by_how(x);
        return true;
    case SYS_close:
        *result = close((int)x->a);
        return true;
    case SYS_fsync:
        *result = fsync((int)x->a);
        return true;
    case SYS_fdatasync:
        *result = fdatasync((int)x->a);
        return true;
    case SYS_close_range:
        *result = close_range((unsigned)x->a, (unsigned)x->b, (int)x->c);
        return true;
    case SYS_dup:
        *result = dup((int)x->a);
        return true;
    case SYS_dup3:
        *result = dup3((int)x->a, (int)x->b, (int)x->c);
        return true;
    case SYS_fcntl:
        *result = fcntl((int)x->a, (int)x->b, x->c);
        return true;
    case SYS_lseek:
        *result = lseek((int)x->a, x->b, (int)x->c);
        return true;
    default:
        return false;
    }
}

EXPORT long syscall(long number, ...)
{
    struct arguments x;
    long result;
    va_list arguments;
    va_start(arguments, number);
    x.a = va_arg(arguments, long);
    x.b = va_arg(arguments, long);
    x.c = va_arg(arguments, long);
    x.d = va_arg(arguments, long);
    x.e = va_arg(arguments, long);
    x.f = va_arg(arguments, long);
    va_end(arguments);
    x.caller = __builtin_return_address(0);
    if (process_start()) {
        if (syscall_aio(number, &x, &result))
            return result;
        /* syscall() is no cancellation point, though the functions it goes through are. */
        struct cancel cancel = cancel_hold();
        bool done = wrapped(number, &x, &result);
        cancel_restore(cancel);
        if (done)
            return result;
        if (syscall_uring(number, &x, &result))
            return result;
        if (waits(number))
            return SHADOW_WAIT(next.syscall(number, x.a, x.b, x.c, x.d, x.e, x.f));
    }
    return next.syscall(number, x.a, x.b, x.c, x.d, x.e, x.f);
}
