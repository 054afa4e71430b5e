/*
 * The next definition of every wrapped symbol: what the program would have called without us.
 *
 * `next.read(fd, buffer, length)` and so on. Before start-up each pointer goes to a stub: the raw system call (setting errno) for
 * NEXT_CALLS and NEXT_VARIADIC, a look-up on the spot for NEXT_LIBC. A symbol that the C library does not have gets a
 * stub that fails with ENOSYS. The pointers are written once, at start-up, and never change again.
 */
#ifndef BOUNCEIO_BASE_NEXT_H
#define BOUNCEIO_BASE_NEXT_H

#ifndef _GNU_SOURCE
#error "compile with -D_GNU_SOURCE"
#endif

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <utime.h>

#include "base/symbols.h"

struct next_symbols {
#define NEXT_FIELD_CALL(result, name, parameters, arguments, number) result(*name) parameters;
#define NEXT_FIELD_VARIADIC(result, name, parameters) result(*name) parameters;
#define NEXT_FIELD_LIBC(result, name, parameters, arguments) result(*name) parameters;
    NEXT_CALLS(NEXT_FIELD_CALL)
    NEXT_VARIADIC(NEXT_FIELD_VARIADIC)
    NEXT_LIBC(NEXT_FIELD_LIBC)
#undef NEXT_FIELD_CALL
#undef NEXT_FIELD_VARIADIC
#undef NEXT_FIELD_LIBC
};

extern struct next_symbols next;

/* Look all of them up; called once, by process_start. */
void next_resolve(void);

/* Look up the next definition of one symbol by name (fortified forms, optional libraries). @return NULL when there is none. */
void *next_find(const char *name);

#endif
