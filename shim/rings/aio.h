/*
 * libaio: shadow contexts.
 *
 * io_setup hands out the address of a shadow of the kernel's ring (struct aio_ring, fs/aio.c): the same layout, but `magic` 0 and
 * `incompat_features` 1, so that libraries that reap from memory and check (libaio, fio, SPDK) fall back to io_getevents; QEMU does not check
 * and finds what was pumped. The kernel's own context stays hidden. Requests that are ours go to the kernel as private copies of their iocbs
 * (struct slot_aio), all others as the program's own.
 *
 *   reap    io_getevents: first what lies in the shadow, then the kernel's events, straight to the caller
 *   pump    after read, poll, ...: the kernel's events into the shadow, unless a thread sleeps in io_getevents, who will get them himself
 *
 * io_submit never reaps. Every call returns the kernel's answer: a value >= 0 or -errno. Thread-safe.
 */
#ifndef BOUNCEIO_RINGS_AIO_H
#define BOUNCEIO_RINGS_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "rings/abi.h"

/* io_pgetevents(2): struct __aio_sigset. */
struct aio_signals {
    const void *mask;
    size_t size;
};

long aio_setup(unsigned events, aio_context_t *context);
long aio_destroy(aio_context_t context);
long aio_submit(aio_context_t context, long count, struct iocb **list);
long aio_cancel_iocb(aio_context_t context, struct iocb *iocb, struct io_event *result);

/* io_getevents and io_pgetevents. `signals` NULL: the former. */
long aio_get_events(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout,
                    const struct aio_signals *signals);

/* A context that has nothing to reap, for libaio's functions: with no time to wait they do not even ask the kernel. */
bool aio_is_empty(aio_context_t context);

/* Is there a shadow of this process at that address? */
bool aio_is_shadow(aio_context_t context);

/* Move what has completed to the shadows. Never blocks. */
void aio_pump_all(void);

/* The process ends: what is in flight is reaped first. */
void aio_end(void);

#endif
