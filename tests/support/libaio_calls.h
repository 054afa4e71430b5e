/*
 * libaio's calls by its functions, or by the system calls. @return -errno for errors, either way.
 */
#ifndef BOUNCEIO_TESTS_LIBAIO_CALLS_H
#define BOUNCEIO_TESTS_LIBAIO_CALLS_H

#include <libaio.h>
#include <stdbool.h>
#include <time.h>

extern bool libaio_by_syscall;

/* What syscall(2) returned. */
long libaio_or_errno(long result);

long libaio_setup(int events, io_context_t *context);
long libaio_destroy(io_context_t context);
long libaio_submit(io_context_t context, long count, struct iocb **list);
long libaio_cancel(io_context_t context, struct iocb *iocb, struct io_event *event);
long libaio_reap(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout);

#endif
