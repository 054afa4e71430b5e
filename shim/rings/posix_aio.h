/*
 * POSIX AIO: aio_read(3) and its relatives.
 *
 * They are written here again, as glibc 2.36 does them, because the C library's helper threads read and write past any wrapper. A helper of
 * ours makes the call that the program would have made, through the front door: there it is bounced, verified or passed on like any other
 * blocking call, and is over before anybody can see that the request has completed. So nothing here knows of direct I/O, and all descriptors
 * take this road: lists may mix them, and requests on one descriptor keep their order whatever it is.
 *
 *   posix_queue.c   requests in progress, by descriptor: one of a descriptor's is carried out at a time, the others wait behind it by priority
 *   posix_helper.c  the threads that carry them out, and how the program is told
 *   posix_aio.c     what the program calls
 *
 * The program's aiocb holds the result where the C library's own aio_error and aio_return look for it. A forked child has no requests.
 * Functions return 0 (or what is said) or -errno.
 */
#ifndef BOUNCEIO_RINGS_POSIX_AIO_H
#define BOUNCEIO_RINGS_POSIX_AIO_H

#include <aio.h>
#include <signal.h>
#include <time.h>

/* What aio_lio_opcode holds beside LIO_READ, LIO_WRITE and LIO_NOP. Source: glibc, sysdeps/pthread/aio_misc.h. */
enum { POSIX_AIO_DATASYNC = LIO_NOP + 1, POSIX_AIO_SYNC };

/* aio_read, aio_write, aio_fsync. @return 0; -EINVAL: priority; -EAGAIN: too many requests, or no thread to carry it out. */
int posix_aio_submit(struct aiocb *control, int operation);

/* lio_listio. `event` may be NULL. Not async-signal-safe. */
int posix_aio_submit_list(int mode, struct aiocb *const list[], int count, const struct sigevent *event);

/* Async-signal-safe, as POSIX wants these three. aio_suspend is a cancellation point. @return -EAGAIN: the time is over; -EINTR. */
int posix_aio_suspend(const struct aiocb *const list[], int count, const struct timespec *timeout);
int posix_aio_error(const struct aiocb *control);
ssize_t posix_aio_return(const struct aiocb *control);

/* @return AIO_CANCELED, AIO_NOTCANCELED, AIO_ALLDONE. `control` NULL: all of the descriptor's. */
int posix_aio_cancel(int fd, struct aiocb *control);

/* aio_init: a hint about threads. */
void posix_aio_tune(const struct aioinit *wishes);

#endif
