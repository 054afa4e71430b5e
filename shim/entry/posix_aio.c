/* POSIX AIO: the C library's names of rings/posix_aio.h. */
#include <aio.h>
#include <fcntl.h>

#include "base/next.h"
#include "base/process.h"
#include "entry/entry.h"
#include "rings/posix_aio.h"

/* With 64 bits, struct aiocb64 is struct aiocb by another name, which the C library's header makes a different type. */
#define ALIAS64(name)                                                                                                  \
    extern __typeof__(name) alias_##name##64 __asm__(#name "64") __attribute__((alias(#name), visibility("default")))  \
    COPY_ATTRIBUTES(name)
_Static_assert(sizeof(struct aiocb) == sizeof(struct aiocb64), "one body serves both");

EXPORT int aio_read(struct aiocb *control)
{
    if (!process_start())
        return next.aio_read(control);
    return (int)with_errno(posix_aio_submit(control, LIO_READ));
}
ALIAS64(aio_read);

EXPORT int aio_write(struct aiocb *control)
{
    if (!process_start())
        return next.aio_write(control);
    return (int)with_errno(posix_aio_submit(control, LIO_WRITE));
}
ALIAS64(aio_write);

EXPORT int aio_fsync(int operation, struct aiocb *control)
{
    if (!process_start())
        return next.aio_fsync(operation, control);
    if (operation != O_SYNC && operation != O_DSYNC)
        return (int)with_errno(-EINVAL);
    if (fcntl(control->aio_fildes, F_GETFL) == -1)
        return (int)with_errno(-EBADF);
    return (int)with_errno(posix_aio_submit(control, operation == O_SYNC ? POSIX_AIO_SYNC : POSIX_AIO_DATASYNC));
}
ALIAS64(aio_fsync);

EXPORT int lio_listio(int mode, struct aiocb *const list[], int count, struct sigevent *event)
{
    if (!process_start())
        return next.lio_listio(mode, list, count, event);
    return (int)with_errno(posix_aio_submit_list(mode, list, count, event));
}
ALIAS64(lio_listio);

EXPORT int aio_error(const struct aiocb *control)
{
    return process_start() ? posix_aio_error(control) : next.aio_error(control);
}
ALIAS64(aio_error);

EXPORT ssize_t aio_return(struct aiocb *control)
{
    return process_start() ? posix_aio_return(control) : next.aio_return(control);
}
ALIAS64(aio_return);

EXPORT int aio_suspend(const struct aiocb *const list[], int count, const struct timespec *timeout)
{
    if (!process_start())
        return next.aio_suspend(list, count, timeout);
    return (int)with_errno(posix_aio_suspend(list, count, timeout));
}
ALIAS64(aio_suspend);

EXPORT int aio_cancel(int fd, struct aiocb *control)
{
    if (!process_start())
        return next.aio_cancel(fd, control);
    return (int)with_errno(posix_aio_cancel(fd, control));
}
ALIAS64(aio_cancel);

EXPORT void aio_init(const struct aioinit *wishes)
{
    if (!process_start())
        next.aio_init(wishes);
    else
        posix_aio_tune(wishes);
}
