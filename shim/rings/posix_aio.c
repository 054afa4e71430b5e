/* POSIX AIO as the program calls it. See posix_aio.h. */
#include "rings/posix_aio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <unistd.h>

#include "base/config.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "engine/cancel.h"
#include "engine/vector.h"
#include "files/descriptor.h"
#include "rings/posix_queue.h"

/* How far a request may be lowered. Source: glibc, <bits/local_lim.h>. */
#ifndef AIO_PRIO_DELTA_MAX
#define AIO_PRIO_DELTA_MAX 20
#endif

int posix_aio_error(const struct aiocb *control)
{
    /* Acquire: partner of the release in posix_publish. */
    return __atomic_load_n(&control->__error_code, __ATOMIC_ACQUIRE);
}

ssize_t posix_aio_return(const struct aiocb *control)
{
    return control->__return_value;
}

/* --- Submitting --------------------------------------------------------------------------------------------------- */

static struct posix_notice notice_of(const struct sigevent *event)
{
    return (struct posix_notice){.how = event->sigev_notify,
                                 .signal = event->sigev_signo,
                                 .value = event->sigev_value,
                                 .function = event->sigev_notify_function,
                                 .attributes = event->sigev_notify_attributes};
}

static bool is_sync(int operation)
{
    return operation == POSIX_AIO_DATASYNC || operation == POSIX_AIO_SYNC;
}

static int refuse(struct aiocb *control, int error)
{
    control->__return_value = -1;
    __atomic_store_n(&control->__error_code, error, __ATOMIC_RELEASE);
    return -error;
}

static bool is_direct(int fd)
{
    struct fd_view view;
    if (fd_writes_pass(fd) || fd_view_open(&view, fd, false) != 0)
        return false;
    const bool direct = view.state == FD_DIRECT;
    fd_view_close(&view);
    return direct;
}

/*
 * A direct write takes its data now: it may wait behind others for long, and what becomes of the program's buffer meanwhile must not reach the
 * file. Bad memory is left to the call itself, and changes that are to be reported (BOUNCEIO_DETECT) must happen to the program's own buffer.
 */
static void take_data(struct posix_request *asked)
{
    struct active_pages pages;
    if ((asked->operation & 127) != LIO_WRITE || asked->length == 0 || asked->length > TRANSFER_MOST || config.detect ||
        !is_direct(asked->fd) || active_take(&pages, asked->length, false) != 0)
        return;
    if (copy_from_user(pages.extent.base, asked->buffer, asked->length) != asked->length) {
        active_give(&pages);
        return;
    }
    asked->pages = pages.extent;
    asked->buffer = pages.extent.base;
    active_close(&pages.active);
}

/* Under the lock. */
static int put_in_queue(const struct posix_request *asked)
{
    struct aiocb *control = asked->control;
    struct posix_request *request = posix_request_take();
    if (!request)
        return -EAGAIN;
    *request = *asked;
    control->__abs_prio = request->priority;
    control->__policy = request->policy;
    control->aio_lio_opcode = request->operation;
    control->__return_value = 0;
    __atomic_store_n(&control->__error_code, EINPROGRESS, __ATOMIC_RELEASE);
    int error = posix_queue_add(request) ? posix_call_helper() : 0;
    if (error != 0) {
        posix_queue_remove(posix_queue_of(request->fd), request);
        posix_request_give(request);
        __atomic_store_n(&control->__error_code, -error, __ATOMIC_RELEASE);
    } else if (request->group) {
        atomic_fetch_add_explicit(&request->group->left, 1, memory_order_relaxed);
    }
    return error;
}

static int submit(struct aiocb *control, int operation, struct posix_group *group)
{
    struct sched_param parameters;
    int policy;
    uint64_t saved;
    if (is_sync(operation))
        control->aio_reqprio = 0;
    else if (control->aio_reqprio < 0 || control->aio_reqprio > AIO_PRIO_DELTA_MAX)
        return refuse(control, EINVAL);
    pthread_getschedparam(pthread_self(), &policy, &parameters);
    struct posix_request asked = {.operation = operation,
                                  .fd = control->aio_fildes,
                                  .buffer = (void *)(uintptr_t)control->aio_buf,
                                  .length = control->aio_nbytes,
                                  .offset = control->aio_offset,
                                  .priority = parameters.sched_priority - control->aio_reqprio,
                                  .policy = policy,
                                  .control = control,
                                  .group = group,
                                  .notice = notice_of(&control->aio_sigevent)};
    take_data(&asked);
    posix_enter(&saved);
    int error = put_in_queue(&asked);
    posix_leave(&saved);
    if (error != 0)
        pool_give(&asked.pages);
    return error;
}

int posix_aio_submit(struct aiocb *control, int operation)
{
    return submit(control, operation, NULL);
}

/* --- Waiting ------------------------------------------------------------------------------------------------------ */

struct wait {
    bool (*is_over)(const struct wait *wait);
    const struct aiocb *const *list;
    int count;
    struct posix_group *group;
    const struct timespec *deadline; /* CLOCK_MONOTONIC; NULL: none */
    bool is_cancellable;
};

static struct timespec later(const struct timespec *since, const struct timespec *span)
{
    struct timespec sum = {since->tv_sec + span->tv_sec, since->tv_nsec + span->tv_nsec};
    if (sum.tv_nsec >= 1000000000) {
        sum.tv_nsec -= 1000000000;
        sum.tv_sec++;
    }
    return sum;
}

/* One sleep, until there is any completion after `seen`. @return as futex(2). */
static long sleep_once(const struct wait *wait, uint32_t seen)
{
    const int operation = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
    int type;
    if (!wait->is_cancellable)
        return raw(SYS_futex, &posix_state->completions, operation, seen, wait->deadline, NULL, FUTEX_BITSET_MATCH_ANY);
    pthread_testcancel();
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    long result =
        raw(SYS_futex, &posix_state->completions, operation, seen, wait->deadline, NULL, FUTEX_BITSET_MATCH_ANY);
    pthread_setcanceltype(type, NULL);
    return result;
}

/* @return 0, -EINTR, -ETIMEDOUT or -EINVAL. */
static long wait_until_over(const struct wait *wait)
{
    for (;;) {
        /* Acquire: partner of the release in posix_helper.c. Who completes something now either takes the bit away, or was before us. */
        uint32_t seen = atomic_fetch_or_explicit(&posix_state->completions, 1, memory_order_acquire) | 1;
        if (wait->is_over(wait))
            return 0;
        long result = sleep_once(wait, seen);
        if (result == -ETIMEDOUT || result == -EINTR || result == -EINVAL)
            return result;
    }
}

/* Nothing to wait for, or something has completed. */
static bool list_is_over(const struct wait *wait)
{
    bool waits = false;
    for (int i = 0; i < wait->count; i++) {
        if (!wait->list[i])
            continue;
        if (posix_aio_error(wait->list[i]) != EINPROGRESS)
            return true;
        waits = true;
    }
    return !waits;
}

int posix_aio_suspend(const struct aiocb *const list[], int count, const struct timespec *timeout)
{
    struct timespec now, deadline;
    if (count < 0)
        return -EINVAL;
    struct wait wait = {.is_over = list_is_over, .list = list, .count = count, .is_cancellable = true};
    if (list_is_over(&wait))
        return 0;
    if (timeout) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        deadline = later(&now, timeout);
        wait.deadline = &deadline;
    }
    long result = wait_until_over(&wait);
    return result == -ETIMEDOUT ? -EAGAIN : (int)result;
}

static bool group_is_over(const struct wait *wait)
{
    return atomic_load_explicit(&wait->group->left, memory_order_acquire) == 0;
}

/* The caller has gone away, before the end or after it. */
static void let_go(struct posix_group *group)
{
    uint64_t saved;
    posix_enter(&saved);
    group->kept = false;
    /* Acquire: partner of the release in posix_group_leave. */
    if (atomic_load_explicit(&group->left, memory_order_acquire) == 0)
        posix_group_give(group);
    posix_leave(&saved);
}

static void clean_up_group(void *group)
{
    let_go(group);
}

/* The caller has submitted all of the group. @return 0; -EIO: some have failed; -EINTR. */
static int wait_for_group(struct posix_group *group)
{
    struct wait wait = {.is_over = group_is_over, .group = group};
    posix_group_leave(group);
    long result = CANCEL_WITH(clean_up_group, group, wait_until_over(&wait));
    const bool failed = result == 0 && group->failed;
    let_go(group);
    return failed ? -EIO : (int)result;
}

/* --- Lists -------------------------------------------------------------------------------------------------------- */

static struct posix_group *make_group(int mode, const struct sigevent *event)
{
    uint64_t saved;
    posix_enter(&saved);
    struct posix_group *group = posix_group_take();
    posix_leave(&saved);
    if (!group)
        return NULL;
    group->kept = mode == LIO_WAIT;
    atomic_store_explicit(&group->left, 1, memory_order_relaxed);
    if (event && mode == LIO_NOWAIT)
        group->notice = notice_of(event);
    else
        group->notice.how = SIGEV_NONE;
    return group;
}

int posix_aio_submit_list(int mode, struct aiocb *const list[], int count, const struct sigevent *event)
{
    int error = 0, submitted = 0;
    if (mode != LIO_WAIT && mode != LIO_NOWAIT)
        return -EINVAL;
    struct posix_group *group = make_group(mode, event);
    if (!group)
        return -EAGAIN;
    for (int i = 0; i < count; i++) {
        if (!list[i] || list[i]->aio_lio_opcode == LIO_NOP)
            continue;
        int refused = submit(list[i], list[i]->aio_lio_opcode, group);
        if (refused != 0)
            error = refused;
        else
            submitted++;
    }
    if (submitted == 0)
        group->kept = false; /* nobody else has seen it */
    if (mode == LIO_NOWAIT || submitted == 0) {
        posix_group_leave(group);
        return error;
    }
    int result = wait_for_group(group);
    return result == 0 && error != 0 ? -EIO : result;
}

/* --- Cancelling --------------------------------------------------------------------------------------------------- */

/* Take one request out of its queue, onto the list of what has been cancelled. Under the lock. */
static void cancel_one(struct posix_queue *queue, struct posix_request *request, struct posix_request ***end)
{
    posix_queue_remove(queue, request);
    posix_publish(request, -1, ECANCELED);
    **end = request;
    *end = &request->next;
}

/* Under the lock. @return as aio_cancel. */
static int cancel_control(struct posix_queue *queue, const struct aiocb *control, struct posix_request ***end)
{
    if (posix_aio_error(control) != EINPROGRESS)
        return AIO_ALLDONE;
    struct posix_request *request = queue ? queue->first : NULL;
    while (request && request->control != control)
        request = request->next;
    if (!request)
        return -EINVAL;
    if (request->state != POSIX_QUEUED)
        return AIO_NOTCANCELED;
    cancel_one(queue, request, end);
    return AIO_CANCELED;
}

static int cancel_all(struct posix_queue *queue, struct posix_request ***end)
{
    int result = AIO_ALLDONE;
    struct posix_request *request = queue ? queue->first : NULL, *following;
    if (request && request->state != POSIX_QUEUED) {
        result = request->state == POSIX_RUNNING ? AIO_NOTCANCELED : AIO_ALLDONE;
        request = request->next;
    }
    for (; request; request = following) {
        following = request->next;
        cancel_one(queue, request, end);
        if (result == AIO_ALLDONE)
            result = AIO_CANCELED;
    }
    return result;
}

static void tell_all(struct posix_request *request)
{
    struct posix_request *following;
    uint64_t saved;
    for (; request; request = following) {
        following = request->next;
        pool_give(&request->pages);
        posix_tell(request);
        posix_enter(&saved);
        posix_request_give(request);
        posix_leave(&saved);
    }
}

int posix_aio_cancel(int fd, struct aiocb *control)
{
    struct posix_request *cancelled = NULL, **end = &cancelled;
    uint64_t saved;
    if (raw_failed(raw(SYS_fcntl, fd, F_GETFL)))
        return -EBADF;
    if (control && control->aio_fildes != fd)
        return -EINVAL;
    posix_enter(&saved);
    struct posix_queue *queue = posix_queue_of(fd);
    int result = control ? cancel_control(queue, control, &end) : cancel_all(queue, &end);
    posix_leave(&saved);
    tell_all(cancelled);
    return result;
}

void posix_aio_tune(const struct aioinit *wishes)
{
    uint64_t saved;
    posix_enter(&saved);
    /* As glibc: only before the first request. */
    if (posix_state->requests == 0)
        posix_limits.helpers = wishes->aio_threads < 1 ? 1 : (unsigned)wishes->aio_threads;
    if (wishes->aio_idle_time > 0)
        posix_limits.idle_seconds = (unsigned)wishes->aio_idle_time;
    posix_leave(&saved);
}
