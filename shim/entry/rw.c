/*
 * read, write and their vectored and positioned forms. A descriptor that is not ours goes straight on; one that is becomes a
 * request. A direct request is a cancellation point at its entry only. Reads of an eventfd may be what tells the program of a completion
 * (rings/shadow.h); they go the slow way round, so that those of pipes, sockets and files stay a jump into the C library (a call, and so a
 * return after the system call, would cost 8 ns).
 */
#include <errno.h>
#include <pthread.h>

#include "base/next.h"
#include "base/process.h"
#include "base/stats.h"
#include "engine/cancel.h"
#include "engine/landing.h"
#include "engine/transfer.h"
#include "engine/vector.h"
#include "entry/entry.h"
#include "entry/rw.h"
#include "rings/shadow.h"

#define likely(x) __builtin_expect(!!(x), 1)

/* Direct, but to be left alone: counted. A thread's first one is counted on the slow way round. */
static inline bool passes_excluded(int fd)
{
    if (fd_word_state(fd_word(fd)) != FD_EXCLUDED || stats_my_shard == 0)
        return false;
    stats_add(STAT_passed_through, 1);
    return true;
}

/* Make the real call for a request that is not ours to carry out. */
static ssize_t pass_on(const struct rw_call *call)
{
    switch (call->form) {
    case RW_READ:
        return SHADOW_WAIT(next.read(call->fd, (void *)(uintptr_t)call->buffer, call->length));
    case RW_WRITE:
        return next.write(call->fd, call->buffer, call->length);
    case RW_PREAD:
        return next.pread(call->fd, (void *)(uintptr_t)call->buffer, call->length, call->offset);
    case RW_PWRITE:
        return next.pwrite(call->fd, call->buffer, call->length, call->offset);
    case RW_READV:
        return SHADOW_WAIT(next.readv(call->fd, call->vector, call->count));
    case RW_WRITEV:
        return next.writev(call->fd, call->vector, call->count);
    case RW_PREADV:
        return next.preadv(call->fd, call->vector, call->count, call->offset);
    case RW_PWRITEV:
        return next.pwritev(call->fd, call->vector, call->count, call->offset);
    case RW_PREADV2:
        return SHADOW_WAIT(next.preadv2(call->fd, call->vector, call->count, call->offset, call->flags));
    default:
        return next.pwritev2(call->fd, call->vector, call->count, call->offset, call->flags);
    }
}

static bool has_offset(const struct rw_call *call)
{
    return call->form >= RW_PREAD;
}

/* Where the call wants to go; false when the kernel is to judge a negative offset. */
static bool resolve_offset(const struct rw_call *call, int64_t *offset)
{
    *offset = TRANSFER_FILE_OFFSET;
    if (!has_offset(call))
        return true;
    bool may_be_current = call->form == RW_PREADV2 || call->form == RW_PWRITEV2;
    if (call->offset == -1 && may_be_current)
        return true;
    *offset = call->offset;
    return call->offset >= 0;
}

/* The thread was cancelled in the real call, or a handler jumped out of it. */
static void clean_up_watched(void *landing)
{
    landing_close(landing, -EIO, 0);
}

/* A buffered write on a file that has a map. The real call is a cancellation point, as it is without us. */
static ssize_t write_watched(const struct fd_view *view, const struct rw_call *call, size_t length, int64_t offset,
                             struct cancel *cancel)
{
    struct landing landing;
    const bool nowait = (call->flags & RWF_NOWAIT) != 0;
    const struct landing_plan plan = {
        .offset = offset, .length = length, .append = landing_appends(view, call->flags), .nowait = nowait};
    if (landing_open(&landing, view, &plan) != 0)
        return with_errno(-EAGAIN);
    cancel_restore(*cancel);
    ssize_t result = CANCEL_WITH(clean_up_watched, &landing, pass_on(call));
    int error = errno;
    *cancel = cancel_hold();
    landing_close(&landing, result < 0 ? -error : result, call->flags);
    errno = error;
    return result;
}

/* Carry out a call on a view that is ours. @return as the call returns, with errno. */
static ssize_t carry_out(const struct fd_view *view, const struct rw_call *call, const struct transfer *transfer,
                         struct cancel *cancel)
{
    /* Nothing to do, or an end beyond what a file can have: the kernel knows what to say. */
    if (transfer->length == 0 || transfer->offset > INT64_MAX - (int64_t)transfer->length)
        return pass_on(call);
    if (view->state == FD_WATCHED)
        return write_watched(view, call, transfer->length, transfer->offset, cancel);
    return with_errno(call->is_write ? transfer_write(view, transfer) : transfer_read(view, transfer));
}

/* One buffer. */
static ssize_t with_buffer(const struct fd_view *view, const struct rw_call *call, int64_t offset,
                           struct cancel *cancel)
{
    if ((ssize_t)call->length < 0 || !vector_is_addressable(call->buffer, call->length))
        return pass_on(call);
    const struct iovec segment = {.iov_base = (void *)(uintptr_t)call->buffer,
                                  .iov_len = call->length < TRANSFER_MOST ? call->length : TRANSFER_MOST};
    const struct transfer transfer = {.vector = &segment, .segments = 1, .length = segment.iov_len, .offset = offset};
    return carry_out(view, call, &transfer, cancel);
}

static void clean_up_vector(void *vector)
{
    vector_end(vector);
}

/* An array of buffers. */
static ssize_t with_vector(const struct fd_view *view, const struct rw_call *call, int64_t offset,
                           struct cancel *cancel)
{
    struct vector vector = {.pages.base = NULL};
    struct active active;
    active_open(&active, clean_up_vector, &vector);
    int error = vector_begin(&vector, call->vector, call->count, (call->flags & RWF_NOWAIT) != 0);
    if (error != 0) {
        active_close(&active);
        return error == -EINVAL ? pass_on(call) : with_errno(error);
    }
    const struct transfer transfer = {.vector = vector.segments,
                                      .segments = vector.count,
                                      .length = vector.length,
                                      .offset = offset,
                                      .flags = call->flags};
    ssize_t result = carry_out(view, call, &transfer, cancel);
    vector_end(&vector);
    active_close(&active);
    return result;
}

struct held_view {
    struct fd_view view;
    const struct cancel *cancel;
};

/* A handler has jumped out of the request. */
static void clean_up_view(void *argument)
{
    struct held_view *held = argument;
    fd_view_close(&held->view);
    cancel_leave(*held->cancel);
}

static ssize_t with_view(const struct rw_call *call, int64_t offset, struct cancel *cancel, bool *passes)
{
    struct held_view held = {.cancel = cancel};
    struct active active;
    active_open(&active, clean_up_view, &held);
    const bool nowait = (call->flags & RWF_NOWAIT) != 0;
    const int error = offset == TRANSFER_FILE_OFFSET ? fd_view_open(&held.view, call->fd, nowait)
                                                     : fd_view_open_at(&held.view, call->fd, nowait);
    if (error != 0) {
        active_close(&active);
        return with_errno(-EAGAIN);
    }
    ssize_t result = 0;
    const struct fd_view *view = &held.view;
    *passes = view->state == FD_PLAIN || view->state == FD_EXCLUDED || (view->state == FD_WATCHED && !call->is_write);
    if (view->state == FD_EXCLUDED)
        stats_add(STAT_passed_through, 1);
    if (!*passes)
        result =
            call->buffer_is_vector ? with_vector(view, call, offset, cancel) : with_buffer(view, call, offset, cancel);
    fd_view_close(&held.view);
    active_close(&active);
    return result;
}

static inline ssize_t slow(const struct rw_call *call)
{
    int64_t offset;
    bool passes = false;
    if (!process_start() || fd_word_state(fd_word(call->fd)) == FD_EVENT || !resolve_offset(call, &offset))
        return pass_on(call);
    pthread_testcancel();
    struct cancel cancel = cancel_hold();
    ssize_t result = with_view(call, offset, &cancel, &passes);
    cancel_restore(cancel);
    return passes ? pass_on(call) : result;
}

ssize_t rw_slow(const struct rw_call *call)
{
    return slow(call);
}

/* Jumped to by what follows, so that calls that pass need no stack. */
static __attribute__((noinline)) ssize_t single(int fd, void *buffer, size_t length, off_t offset, enum rw_form form)
{
    return slow(&(struct rw_call){.form = form,
                                  .is_write = form == RW_WRITE || form == RW_PWRITE,
                                  .fd = fd,
                                  .buffer = buffer,
                                  .length = length,
                                  .offset = offset});
}

static __attribute__((noinline)) ssize_t vectored(int fd, const struct iovec *vector, int count, off_t offset,
                                                  int flags, enum rw_form form)
{
    return slow(&(struct rw_call){.form = form,
                                  .is_write = form == RW_WRITEV || form == RW_PWRITEV || form == RW_PWRITEV2,
                                  .buffer_is_vector = true,
                                  .fd = fd,
                                  .vector = vector,
                                  .count = count,
                                  .offset = offset,
                                  .flags = flags});
}

EXPORT ssize_t read(int fd, void *buffer, size_t length)
{
    if (likely(fd_reads_pass(fd)) || passes_excluded(fd))
        return next.read(fd, buffer, length);
    return single(fd, buffer, length, 0, RW_READ);
}

EXPORT ssize_t write(int fd, const void *buffer, size_t length)
{
    if (likely(fd_writes_pass(fd)) || passes_excluded(fd))
        return next.write(fd, buffer, length);
    return single(fd, (void *)(uintptr_t)buffer, length, 0, RW_WRITE);
}

EXPORT ssize_t pread(int fd, void *buffer, size_t length, off_t offset)
{
    if (likely(fd_reads_pass(fd)) || passes_excluded(fd))
        return next.pread(fd, buffer, length, offset);
    return single(fd, buffer, length, offset, RW_PREAD);
}

EXPORT ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
    if (likely(fd_writes_pass(fd)) || passes_excluded(fd))
        return next.pwrite(fd, buffer, length, offset);
    return single(fd, (void *)(uintptr_t)buffer, length, offset, RW_PWRITE);
}

EXPORT ssize_t readv(int fd, const struct iovec *vector, int count)
{
    if (likely(fd_reads_pass(fd)) || passes_excluded(fd))
        return next.readv(fd, vector, count);
    return vectored(fd, vector, count, 0, 0, RW_READV);
}

EXPORT ssize_t writev(int fd, const struct iovec *vector, int count)
{
    if (likely(fd_writes_pass(fd)) || passes_excluded(fd))
        return next.writev(fd, vector, count);
    return vectored(fd, vector, count, 0, 0, RW_WRITEV);
}

EXPORT ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset)
{
    if (likely(fd_reads_pass(fd)) || passes_excluded(fd))
        return next.preadv(fd, vector, count, offset);
    return vectored(fd, vector, count, offset, 0, RW_PREADV);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset)
{
    if (likely(fd_writes_pass(fd)) || passes_excluded(fd))
        return next.pwritev(fd, vector, count, offset);
    return vectored(fd, vector, count, offset, 0, RW_PWRITEV);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    if (likely(fd_reads_pass(fd)) || passes_excluded(fd))
        return next.preadv2(fd, vector, count, offset, flags);
    return vectored(fd, vector, count, offset, flags, RW_PREADV2);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    if (likely(fd_writes_pass(fd)) || passes_excluded(fd))
        return next.pwritev2(fd, vector, count, offset, flags);
    return vectored(fd, vector, count, offset, flags, RW_PWRITEV2);
}

/* The fortified forms abort when the buffer is too small: the C library does that, with its own message. */
#define CHECKED_READ(name, call, parameters, arguments, checked_arguments)                                             \
    EXPORT ssize_t name parameters                                                                                     \
    {                                                                                                                  \
        if (length > room)                                                                                             \
            return ((ssize_t(*) parameters)next_find(#name))checked_arguments;                                         \
        return call arguments;                                                                                         \
    }

CHECKED_READ(__read_chk, read, (int fd, void *buffer, size_t length, size_t room), (fd, buffer, length),
             (fd, buffer, length, room))
CHECKED_READ(__pread_chk, pread, (int fd, void *buffer, size_t length, off_t offset, size_t room),
             (fd, buffer, length, offset), (fd, buffer, length, offset, room))
CHECKED_READ(__pread64_chk, pread, (int fd, void *buffer, size_t length, off64_t offset, size_t room),
             (fd, buffer, length, offset), (fd, buffer, length, offset, room))

ALIAS(__read, read);
ALIAS(__write, write);
ALIAS(pread64, pread);
ALIAS(__pread64, pread);
ALIAS(pwrite64, pwrite);
ALIAS(__pwrite64, pwrite);
ALIAS(preadv64, preadv);
ALIAS(pwritev64, pwritev);
ALIAS(preadv64v2, preadv2);
ALIAS(pwritev64v2, pwritev2);
