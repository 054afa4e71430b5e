/* See libaio_calls.h. */
#include "support/libaio_calls.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

bool libaio_by_syscall;

long libaio_or_errno(long result)
{
    return result < 0 ? -errno : result;
}

/* libaio's functions leave errno alone. */
static long checked(long result, int before)
{
    if (errno != before)
        printf("  errno was changed to %d\n", errno);
    return result;
}

#define EITHER(function, number, ...)                                                                                  \
    ({                                                                                                                 \
        errno = 4711;                                                                                                  \
        libaio_by_syscall ? libaio_or_errno(syscall(number, __VA_ARGS__)) : checked(function(__VA_ARGS__), 4711);      \
    })

long libaio_setup(int events, io_context_t *context)
{
    return EITHER(io_setup, SYS_io_setup, events, context);
}

long libaio_destroy(io_context_t context)
{
    return EITHER(io_destroy, SYS_io_destroy, context);
}

long libaio_submit(io_context_t context, long count, struct iocb **list)
{
    return EITHER(io_submit, SYS_io_submit, context, count, list);
}

long libaio_cancel(io_context_t context, struct iocb *iocb, struct io_event *event)
{
    return EITHER(io_cancel, SYS_io_cancel, context, iocb, event);
}

long libaio_reap(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout)
{
    return EITHER(io_getevents, SYS_io_getevents, context, least, most, events, timeout);
}
