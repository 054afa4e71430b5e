/* libaio: by its functions, and by the system calls. */
#include <errno.h>
#include <libaio.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "support/async.h"
#include "support/direct.h"

enum { EVENTS = 256 };

/* What the event's `obj` must point to. */
struct submission {
    struct iocb iocb;
    struct submission *self; /* its own address, while it is in flight */
    struct submission *next, **link;
    uint64_t tag;
};

/* The calls, with -errno for errors. */
struct calls {
    int (*setup)(int events, io_context_t *context);
    int (*destroy)(io_context_t context);
    int (*submit)(io_context_t context, long count, struct iocb **list);
    int (*get_events)(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout);
    int (*cancel)(io_context_t context, struct iocb *iocb, struct io_event *event);
};

static int or_errno(long result)
{
    return result < 0 ? -errno : (int)result;
}

static int call_setup(int events, io_context_t *context)
{
    return or_errno(syscall(SYS_io_setup, events, context));
}

static int call_destroy(io_context_t context)
{
    return or_errno(syscall(SYS_io_destroy, context));
}

static int call_submit(io_context_t context, long count, struct iocb **list)
{
    return or_errno(syscall(SYS_io_submit, context, count, list));
}

static int call_get_events(io_context_t context, long least, long most, struct io_event *events,
                           struct timespec *timeout)
{
    return or_errno(syscall(SYS_io_getevents, context, least, most, events, timeout));
}

static int call_cancel(io_context_t context, struct iocb *iocb, struct io_event *event)
{
    return or_errno(syscall(SYS_io_cancel, context, iocb, event));
}

static const struct calls library = {io_setup, io_destroy, io_submit, io_getevents, io_cancel};
static const struct calls kernel = {call_setup, call_destroy, call_submit, call_get_events, call_cancel};

struct aio {
    const struct calls *calls;
    io_context_t context;
    struct submission *in_flight; /* under `lock` */
    pthread_mutex_t lock;
};

static bool open_by(struct async *async, const struct calls *calls)
{
    struct aio *aio = calloc(1, sizeof(*aio));

    check_that(aio, "no memory");
    aio->calls = calls;
    pthread_mutex_init(&aio->lock, NULL);
    int result = calls->setup((int)async->depth, &aio->context);

    if (result != 0) {
        free(aio);
        errno = -result;
        return false;
    }
    async->inside = aio;
    return true;
}

static bool open_library(struct async *async)
{
    return open_by(async, &library);
}

static bool open_kernel(struct async *async)
{
    return open_by(async, &kernel);
}

static void aio_close(struct async *async)
{
    struct aio *aio = async->inside;

    check_that(aio->calls->destroy(aio->context) == 0, "io_destroy");
    while (aio->in_flight) {
        struct submission *next = aio->in_flight->next;

        free(aio->in_flight);
        aio->in_flight = next;
    }
    free(aio);
}

static void aio_use(struct async *async, int fd, void *memory, size_t length)
{
    (void)async;
    (void)fd;
    (void)memory;
    (void)length;
}

static struct submission *submission_new(struct aio *aio, const struct async_request *request)
{
    struct submission *new = calloc(1, sizeof(*new));

    check_that(new, "no memory");
    if (request->vector && request->is_write)
        io_prep_pwritev(&new->iocb, request->fd, request->vector, (int)request->segments, request->offset);
    else if (request->vector)
        io_prep_preadv(&new->iocb, request->fd, request->vector, (int)request->segments, request->offset);
    else if (request->is_write)
        io_prep_pwrite(&new->iocb, request->fd, request->memory, request->length, request->offset);
    else
        io_prep_pread(&new->iocb, request->fd, request->memory, request->length, request->offset);
    new->iocb.aio_rw_flags = (unsigned)request->flags;
    new->iocb.data = (void *)(uintptr_t)(request->tag + 1);
    new->tag = request->tag;
    new->self = new;
    pthread_mutex_lock(&aio->lock);
    new->next = aio->in_flight;
    new->link = &aio->in_flight;
    if (new->next)
        new->next->link = &new->next;
    aio->in_flight = new;
    pthread_mutex_unlock(&aio->lock);
    return new;
}

static void submission_free(struct aio *aio, struct submission *old)
{
    pthread_mutex_lock(&aio->lock);
    *old->link = old->next;
    if (old->next)
        old->next->link = old->link;
    pthread_mutex_unlock(&aio->lock);
    old->self = NULL;
    free(old);
}

static int aio_submit(struct async *async, const struct async_request *list, unsigned count)
{
    struct aio *aio = async->inside;
    struct iocb *iocbs[EVENTS];

    check_that(count <= EVENTS, "too many requests at once");
    for (unsigned i = 0; i < count; i++)
        iocbs[i] = &submission_new(aio, &list[i])->iocb;
    int result = aio->calls->submit(aio->context, (long)count, iocbs);

    for (unsigned i = result < 0 ? 0 : (unsigned)result; i < count; i++)
        submission_free(aio, (struct submission *)iocbs[i]);
    return result;
}

/* The event is of a request that is in flight, and all its words are that request's. */
static struct async_result take_event(struct aio *aio, const struct io_event *event)
{
    struct submission *of = (struct submission *)event->obj;

    check_that(of->self == of, "event of an iocb that is not in flight");
    check_that(event->data == of->iocb.data, "event with another request's data");
    struct async_result result = {of->tag, (int64_t)event->res};

    check_that(event->res2 == 0, "res2 is %ld", (long)event->res2);
    submission_free(aio, of);
    return result;
}

static int aio_reap(struct async *async, struct async_result *results, unsigned least, unsigned most, int milliseconds)
{
    struct aio *aio = async->inside;
    struct io_event events[EVENTS];
    struct timespec timeout = {milliseconds / 1000, milliseconds % 1000 * 1000000L};

    if (most > EVENTS)
        most = EVENTS;
    int n = aio->calls->get_events(aio->context, least, most, events, &timeout);

    for (int i = 0; i < n; i++)
        results[i] = take_event(aio, &events[i]);
    return n;
}

/* The kernel knows where it stands, and others have no context in common with us. */
static void aio_resume(struct async *async)
{
    (void)async;
}

static int aio_cancel_tag(struct async *async, uint64_t tag, struct async_result *others, unsigned *count)
{
    struct aio *aio = async->inside;
    struct io_event event;
    struct submission *of = aio->in_flight;

    while (of && of->tag != tag)
        of = of->next;
    if (!of)
        return -ENOENT;
    int result = aio->calls->cancel(aio->context, &of->iocb, &event);

    if (result == 0)
        others[(*count)++] = take_event(aio, &event);
    return result;
}

const struct async_ways async_libaio = {open_library, aio_close,  aio_use,       aio_submit,
                                        aio_reap,     aio_resume, aio_cancel_tag};
const struct async_ways async_aio_calls = {open_kernel, aio_close,  aio_use,       aio_submit,
                                           aio_reap,    aio_resume, aio_cancel_tag};
