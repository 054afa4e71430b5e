/*
 * From the program's asynchronous call to what the kernel is given, and from the kernel's result to what the program is told. What is not ours,
 * and what the kernel is to judge, is decided as for blocking calls (entry/rw.c).
 */
#include "engine/request.h"

#include <errno.h>
#include <sys/uio.h>

#include "base/config.h"
#include "base/stats.h"
#include "engine/active.h"
#include "engine/detect.h"
#include "engine/handover.h"
#include "engine/issue.h"
#include "engine/look.h"
#include "engine/recover.h"

static bool is_nowait(const struct request *request)
{
    return (request->flags & RWF_NOWAIT) != 0;
}

/* ---- giving up ---- */

static void release(struct request *request)
{
    request->kind = REQUEST_NONE;
    vector_end(&request->vector);
    fd_view_close(&request->view);
}

/* The number that the request was made by, or -1 when that is another file's by now. Registered files have none. */
static int number_of(const struct request *request)
{
    return !request->is_fixed && fd_view_leads(&request->view) ? request->view.fd : -1;
}

/* A landing looks for the file offset afterwards, which only that number knows. */
static void forget_stale_number(const struct request *request, struct landing *landing)
{
    if (landing->mutation.map)
        landing->fd = number_of(request);
}

/* A handler of the program's has jumped out of the preparation or the completion: the system call, if it was made, is over. */
static void abandon(void *argument)
{
    struct request *request = argument;
    if (request->kind == REQUEST_WRITE) {
        forget_stale_number(request, &request->chunk.landing);
        chunk_abandon(&request->chunk);
    }
    if (request->kind != REQUEST_NONE) {
        forget_stale_number(request, &request->landing);
        landing_close(&request->landing, -EIO, 0);
        inflow_close(&request->stray, -EIO);
        pool_give(&request->pages);
    }
    release(request);
}

/* Nothing is held for a request of this kind; from here on `abandon` may come. */
static void begin(struct request *request, enum request_kind kind)
{
    request->stray.view.file = NULL;
    request->stray.view.offset = NULL;
    request->stray.landing.mutation.map = NULL;
    request->landing.mutation.map = NULL;
    request->pages.base = NULL;
    if (kind == REQUEST_WRITE)
        chunk_clear(&request->chunk);
    atomic_signal_fence(memory_order_seq_cst);
    request->kind = kind;
}

/* ---- prepare ---- */

/* The program's memory, in segments that are ours. @return 0; -EINVAL when the kernel is to judge the call; -EAGAIN, -ENOMEM. */
static int take_vector(struct request *request, const struct request_call *call)
{
    struct vector *vector = &request->vector;
    if (call->is_vector)
        return call->length > INT32_MAX ? -EINVAL
                                        : vector_begin(vector, call->address, (int)call->length, is_nowait(request));
    if ((int64_t)call->length < 0 || !vector_is_addressable(call->address, call->length))
        return -EINVAL;
    vector->few[0] = (struct iovec){.iov_base = (void *)(uintptr_t)call->address,
                                    .iov_len = call->length < TRANSFER_MOST ? call->length : TRANSFER_MOST};
    vector->segments = vector->few;
    vector->count = 1;
    vector->length = vector->few[0].iov_len;
    return 0;
}

/* An offset that no file has, or an end; the kernel knows what to say. Only io_uring's -1 stands for the file offset. */
static bool has_bad_offset(const struct request_call *call, size_t length)
{
    if (call->offset == TRANSFER_FILE_OFFSET)
        return call->transport != TRANSPORT_URING;
    return call->offset < 0 || call->offset > INT64_MAX - (int64_t)length;
}

static int prepare_buffered(struct request *request, const struct request_call *call)
{
    const struct landing_plan plan = {.offset = call->offset,
                                      .length = request->asked,
                                      .append = landing_appends(&request->view, call->flags),
                                      .nowait = is_nowait(request),
                                      .transport = call->transport};
    begin(request, REQUEST_BUFFERED);
    request->keeps_memory = true;
    return landing_open(&request->landing, &request->view, &plan);
}

/* The program's memory is bad from its first byte: see issue_bad_write. */
static int prepare_bad_write(struct request *request)
{
    request->bad_memory = true;
    request->data = pool_bad_address();
    request->length = request->asked;
    request->flags |= RWF_NOWAIT;
    if (request->data)
        return 0;
    chunk_cancel(&request->chunk);
    return -EFAULT;
}

static int prepare_write(struct request *request, const struct request_call *call)
{
    const struct fd_view *view = &request->view;
    const bool has_map = file_has_map(view->file), uses_offset = call->offset == TRANSFER_FILE_OFFSET;
    struct chunk *chunk = &request->chunk;
    begin(request, REQUEST_WRITE);
    if (has_map && !is_nowait(request) && view->fd >= 0)
        chunk->looked = look_before_write(view);
    chunk->view = view;
    chunk->asked = chunk->length = request->asked;
    chunk->offset = call->offset;
    chunk->flags = call->flags;
    chunk->transport = call->transport;
    chunk->use = uses_offset ? &request->use : NULL;
    chunk->accounting = !has_map                                            ? ACCOUNT_NONE
                        : uses_offset || landing_appends(view, call->flags) ? ACCOUNT_LANDING
                                                                            : ACCOUNT_ANNOUNCED;
    int error = chunk_prepare(chunk, &request->cursor);
    if (error != 0)
        return error;
    request->data = chunk->data;
    request->length = chunk->length;
    return request->length == 0 ? prepare_bad_write(request) : 0;
}

static int prepare_read(struct request *request, const struct request_call *call)
{
    const struct fd_view *view = &request->view;
    begin(request, REQUEST_READ);
    if (file_has_map(view->file) && !is_nowait(request) && view->fd >= 0 && recover_is_due(view->file))
        recover(view);
    request->transfer = (struct transfer){.vector = request->vector.segments,
                                          .segments = request->vector.count,
                                          .length = request->asked,
                                          .offset = call->offset,
                                          .flags = call->flags};
    request->part = (struct part){.view = view,
                                  .transfer = &request->transfer,
                                  .cursor = &request->cursor,
                                  .offset = call->offset,
                                  .length = request->asked};
    request->length = request->asked;
    request->in_place = part_fits_in_place(&request->part);
    request->data = request->vector.segments->iov_base;
    if (request->in_place)
        return 0;
    int error = pool_take(&request->pages, part_pages(&request->part), is_nowait(request));
    request->data = request->pages.base;
    return error;
}

/* @return as request_prepare; what is held then is given back by the caller. */
static int prepare(struct request *request, const struct request_call *call)
{
    struct fd_view *view = &request->view;
    if (view->state == FD_EXCLUDED)
        stats_add(STAT_passed_through, 1);
    if (view->state != FD_DIRECT && !(view->state == FD_WATCHED && call->is_write))
        return REQUEST_PASSES;
    int error = take_vector(request, call);
    if (error == -EINVAL ||
        (error == 0 && (request->vector.length == 0 || has_bad_offset(call, request->vector.length))))
        return REQUEST_PASSES;
    if (error != 0)
        return error;
    request->asked = request->vector.length;
    request->cursor = (struct cursor){.vector = request->vector.segments, .segments = request->vector.count};
    if (view->fd < 0)
        fd_view_renew(view, is_nowait(request));
    if (call->offset == TRANSFER_FILE_OFFSET)
        offset_share(&request->use, view->offset);
    if (view->state == FD_WATCHED)
        return prepare_buffered(request, call);
    return call->is_write ? prepare_write(request, call) : prepare_read(request, call);
}

/* Direct requests are counted when they are over, so that one that the kernel does not take, and that comes again, counts once. */
static void count(const struct request *request, bool is_write, int64_t told)
{
    stats_add(is_write ? STAT_direct_writes : STAT_direct_reads, 1);
    if (told > 0)
        stats_add(is_write ? STAT_bytes_written : STAT_bytes_read, (uint64_t)told);
    else if (told == -EAGAIN && is_nowait(request))
        stats_add(STAT_nowait_eagain, 1);
}

int request_prepare(struct request *request, struct fd_view *view, const struct request_call *call)
{
    struct active active;
    /* Not all of it is zeroed, which is most of a kilobyte: the rest is set when it is used, or by `begin`. */
    request_clear(request);
    request->view = *view;
    request->is_fixed = call->is_fixed;
    request->in_place = request->bad_memory = request->current = request->keeps_memory = false;
    request->vector.pages.base = NULL;
    request->use = (struct offset_use){0};
    request->data = NULL;
    request->length = 0;
    request->offset = call->offset;
    request->flags = call->flags;
    atomic_signal_fence(memory_order_seq_cst);
    view->file = NULL;
    view->offset = NULL;
    active_open(&active, abandon, request);
    int road = prepare(request, call);
    if (road < 0 && request->view.state == FD_DIRECT)
        count(request, call->is_write, road);
    if (road != REQUEST_READY)
        release(request);
    active_close(&active);
    return road;
}

/* ---- in the kernel ---- */

static void abandon_stray(void *stray)
{
    inflow_close(stray, -EIO);
}

void request_issued(struct request *request)
{
    request->current = request->is_fixed || fd_view_leads(&request->view);
    if (request->current || request->kind == REQUEST_READ)
        return;
    struct active active;
    active_open(&active, abandon_stray, &request->stray);
    inflow_open_stray(&request->stray, &request->view, request->offset, request->length);
    active_close(&active);
}

void request_cancel(struct request *request)
{
    struct active active;
    active_open(&active, abandon, request);
    if (request->kind == REQUEST_WRITE)
        chunk_cancel(&request->chunk);
    if (request->kind != REQUEST_NONE) {
        landing_close(&request->landing, LANDING_CANCELLED, 0);
        inflow_close(&request->stray, LANDING_CANCELLED);
        pool_give(&request->pages);
    }
    release(request);
    active_close(&active);
}

void request_lose(struct request *request)
{
    if (request->kind != REQUEST_NONE)
        pool_leak(&request->pages);
    if (request->kind == REQUEST_WRITE)
        chunk_lose(&request->chunk);
    /* The maps stay, with what is announced in them. */
    if (request->kind != REQUEST_READ) {
        request->view.file = NULL;
        request->stray.view.file = NULL;
    }
    release(request);
}

/* ---- complete ---- */

/* Did the bytes go to the view's file? */
static bool reached_its_file(const struct request *request)
{
    /* A number that leads there now has led there all the time. */
    return request->current || number_of(request) >= 0;
}

/* The number was closed and used again before the kernel took the request: the bytes may be in another file that has a map. */
static void follow_stray(struct request *request, int64_t result)
{
    struct inflow *stray = &request->stray;
    bool open = stray->view.file || inflow_open_stray(stray, &request->view, request->offset, request->length);
    if (open)
        inflow_close(stray, result);
}

static void detect(const struct request *request, int64_t result)
{
    const struct cursor start = {.vector = request->vector.segments, .segments = request->vector.count};
    struct fd_view view = request->view;
    fd_view_renew(&view, is_nowait(request)); /* for the file's name */
    detect_change(&view, start, request->data, (size_t)result, request->offset);
}

static int64_t complete_write(struct request *request, int64_t result)
{
    const bool reached = reached_its_file(request);
    struct chunk *chunk = &request->chunk;
    forget_stale_number(request, &chunk->landing);
    if (request->bad_memory)
        result = issue_bad_write_answer(number_of(request), request->asked, request->offset, chunk->flags, result);
    else if (config.detect && result > 0)
        detect(request, result);
    chunk_complete(chunk, (ssize_t)result, reached);
    if (!reached && !request->is_fixed)
        follow_stray(request, result);
    return result;
}

static int64_t complete_buffered(struct request *request, int64_t result)
{
    const bool reached = reached_its_file(request);
    forget_stale_number(request, &request->landing);
    landing_close(&request->landing, (ssize_t)result, request->flags);
    if (!reached && !request->is_fixed)
        follow_stray(request, result);
    return result;
}

/* `result` > 0 bytes were read. */
static ssize_t finish_read(struct request *request, ssize_t result)
{
    const struct part *part = &request->part;
    ssize_t told;
    if (!request->in_place)
        return handover(part, &request->pages, result);
    if (part_finish_in_place(part, result, &told))
        return told;
    /* The program may close the number, and use it again, at any moment: what was read at first then stands. */
    while (!part_read_again(part, &told))
        if (!fd_view_renew(&request->view, is_nowait(request))) {
            stats_add(STAT_blocks_unverified, ((uint64_t)result + BLOCK_SIZE - 1) / BLOCK_SIZE);
            return result;
        }
    return told;
}

static int64_t complete_read(struct request *request, int64_t result)
{
    struct part *part = &request->part;
    part->certain = reached_its_file(request);
    if (file_has_map(request->view.file))
        fd_view_renew(&request->view, is_nowait(request));
    /* In place it may have to be read again. */
    if (request->in_place && !(request->view.flags & FD_READABLE))
        part->certain = false;
    ssize_t told = result > 0 ? finish_read(request, (ssize_t)result) : (ssize_t)result;
    if (told >= 0 && (size_t)told < part->length && file_has_map(request->view.file))
        told = part_verify_end(part, told);
    pool_give(&request->pages);
    return told;
}

int64_t request_complete(struct request *request, int64_t result)
{
    const bool is_write = request->kind == REQUEST_WRITE;
    struct active active;
    request->told = is_write ? result : -EINTR;
    active_open(&active, abandon, request);
    switch (request->kind) {
    case REQUEST_WRITE:
        result = complete_write(request, result);
        break;
    case REQUEST_READ:
        result = complete_read(request, result);
        break;
    case REQUEST_BUFFERED:
        result = complete_buffered(request, result);
        break;
    case REQUEST_NONE:
        break;
    }
    if (is_write || request->kind == REQUEST_READ)
        count(request, is_write, result);
    request->told = result;
    release(request);
    active_close(&active);
    return result;
}
