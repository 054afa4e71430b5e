/*
 * libaio, by function and by system call. The functions return -errno and leave errno alone; they are made of raw system calls, whether the program
 * has libaio loaded or not.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "entry/entry.h"
#include "entry/syscall.h"
#include "rings/aio.h"

static long setup(unsigned events, aio_context_t *context)
{
    return process_start() ? aio_setup(events, context) : raw(SYS_io_setup, events, context);
}

static long destroy(aio_context_t context)
{
    return process_start() ? aio_destroy(context) : raw(SYS_io_destroy, context);
}

static long submit(aio_context_t context, long count, struct iocb **list)
{
    return process_start() ? aio_submit(context, count, list) : raw(SYS_io_submit, context, count, list);
}

static long cancel(aio_context_t context, struct iocb *iocb, struct io_event *result)
{
    return process_start() ? aio_cancel_iocb(context, iocb, result) : raw(SYS_io_cancel, context, iocb, result);
}

static long get_events(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout)
{
    return process_start() ? aio_get_events(context, least, most, events, timeout, NULL)
                           : raw(SYS_io_getevents, context, least, most, events, timeout);
}

static long pget_events(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout,
                        const struct aio_signals *signals)
{
    if (!process_start())
        return raw(SYS_io_pgetevents, context, least, most, events, timeout, signals);
    return aio_get_events(context, least, most, events, timeout, signals);
}

/* libaio looks into the ring's memory first: without time to wait, an empty one is all it needs to see. */
static bool finds_nothing(aio_context_t context, const struct timespec *timeout)
{
    struct timespec time;
    return timeout && process_start() && copy_from_user(&time, timeout, sizeof time) == sizeof time &&
           time.tv_sec == 0 && time.tv_nsec == 0 && aio_is_empty(context);
}

/* Declared as libaio.h does, but for the name of the context's type. */
int io_setup(int events, aio_context_t *context);
int io_destroy(aio_context_t context);
int io_submit(aio_context_t context, long count, struct iocb **list);
int io_cancel(aio_context_t context, struct iocb *iocb, struct io_event *result);
int io_getevents(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout);
int io_pgetevents(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout,
                  sigset_t *mask);
int io_queue_init(int events, aio_context_t *context);
int io_queue_release(aio_context_t context);
int io_queue_run(aio_context_t context);
int io_queue_wait(aio_context_t context, struct timespec *timeout);

EXPORT int io_setup(int events, aio_context_t *context)
{
    return (int)setup((unsigned)events, context);
}

EXPORT int io_destroy(aio_context_t context)
{
    return (int)destroy(context);
}

EXPORT int io_submit(aio_context_t context, long count, struct iocb **list)
{
    return (int)submit(context, count, list);
}

EXPORT int io_cancel(aio_context_t context, struct iocb *iocb, struct io_event *result)
{
    return (int)cancel(context, iocb, result);
}

EXPORT int io_getevents(aio_context_t context, long least, long most, struct io_event *events, struct timespec *timeout)
{
    return finds_nothing(context, timeout) ? 0 : (int)get_events(context, least, most, events, timeout);
}

EXPORT int io_pgetevents(aio_context_t context, long least, long most, struct io_event *events,
                         struct timespec *timeout, sigset_t *mask)
{
    const struct aio_signals signals = {.mask = mask, .size = sizeof(uint64_t)};
    return finds_nothing(context, timeout) ? 0 : (int)pget_events(context, least, most, events, timeout, &signals);
}

EXPORT int io_queue_init(int events, aio_context_t *context)
{
    if (events <= 0)
        return -EINVAL;
    *context = 0;
    return (int)setup((unsigned)events, context);
}

EXPORT int io_queue_release(aio_context_t context)
{
    return (int)destroy(context);
}

EXPORT int io_queue_run(aio_context_t context)
{
    struct timespec no_time = {0};
    struct io_event event;
    long result;
    while ((result = io_getevents(context, 0, 1, &event, &no_time)) == 1) {
        void (*call)(aio_context_t, struct iocb *, long, long) =
            (void (*)(aio_context_t, struct iocb *, long, long))(uintptr_t)event.data;
        call(context, (struct iocb *)(uintptr_t)event.obj, event.res, event.res2);
    }
    return (int)result;
}

EXPORT int io_queue_wait(aio_context_t context, struct timespec *timeout)
{
    return io_getevents(context, 0, 0, NULL, timeout);
}

bool syscall_aio(long number, const struct arguments *x, long *result)
{
    const aio_context_t context = (aio_context_t)x->a;
    switch (number) {
    case SYS_io_setup:
        *result = with_errno(setup((unsigned)x->a, (aio_context_t *)x->b));
        return true;
    case SYS_io_destroy:
        *result = with_errno(destroy(context));
        return true;
    case SYS_io_submit:
        *result = with_errno(submit(context, x->b, (struct iocb **)x->c));
        return true;
    case SYS_io_cancel:
        *result = with_errno(cancel(context, (struct iocb *)x->b, (struct io_event *)x->c));
        return true;
    case SYS_io_getevents:
        *result = with_errno(get_events(context, x->b, x->c, (struct io_event *)x->d, (struct timespec *)x->e));
        return true;
    case SYS_io_pgetevents:
        *result = with_errno(pget_events(context, x->b, x->c, (struct io_event *)x->d, (struct timespec *)x->e,
                                         (const struct aio_signals *)x->f));
        return true;
    default:
        return false;
    }
}
