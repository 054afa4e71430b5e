/* io_uring by liburing. */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "support/async.h"
#include "support/direct.h"

struct front {
    struct io_uring ring;
    int fd;       /* registered as file 0, or -1 */
    char *memory; /* registered as buffer 0 */
    size_t length;
};

static bool uring_open(struct async *async)
{
    struct front *front = calloc(1, sizeof(*front));
    struct io_uring_params params = {.flags = async->door->setup, .sq_thread_idle = 50};

    check_that(front, "no memory");
    front->fd = -1;
    int result = io_uring_queue_init_params(async->depth, &front->ring, &params);

    if (result != 0) {
        free(front);
        errno = -result;
        return false;
    }
    async->inside = front;
    return true;
}

static void uring_close(struct async *async)
{
    struct front *front = async->inside;

    io_uring_queue_exit(&front->ring);
    free(front);
}

static void uring_use(struct async *async, int fd, void *memory, size_t length)
{
    struct front *front = async->inside;
    struct iovec buffer = {memory, length};

    if (front->fd >= 0) {
        check_that(io_uring_unregister_files(&front->ring) == 0, "unregister files");
        check_that(io_uring_unregister_buffers(&front->ring) == 0, "unregister buffers");
    }
    check_that(io_uring_register_files(&front->ring, &fd, 1) == 0, "register a file");
    check_that(io_uring_register_buffers(&front->ring, &buffer, 1) == 0, "register a buffer");
    front->fd = fd;
    front->memory = memory;
    front->length = length;
}

/* Bounded, whoever consumes the queue: a kernel's thread does with SQPOLL. */
static struct io_uring_sqe *next_sqe(struct front *front)
{
    int64_t deadline = async_now() + ASYNC_PATIENCE;
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&front->ring))) {
        check_that(io_uring_submit(&front->ring) >= 0, "submitting a full queue");
        check_that(async_now() < deadline, "the submission queue stays full");
    }
    return sqe;
}

static bool is_registered(const struct front *front, const struct async_request *request)
{
    const char *memory = request->memory;

    return front->fd >= 0 && !request->vector && memory >= front->memory &&
           memory + request->length <= front->memory + front->length;
}

static void prepare(struct front *front, const struct async_request *request)
{
    struct io_uring_sqe *sqe = next_sqe(front);
    __u64 offset = (__u64)request->offset;

    if (request->vector && request->is_write)
        io_uring_prep_writev(sqe, request->fd, request->vector, request->segments, offset);
    else if (request->vector)
        io_uring_prep_readv(sqe, request->fd, request->vector, request->segments, offset);
    else if (is_registered(front, request) && request->is_write)
        io_uring_prep_write_fixed(sqe, request->fd, request->memory, (unsigned)request->length, offset, 0);
    else if (is_registered(front, request))
        io_uring_prep_read_fixed(sqe, request->fd, request->memory, (unsigned)request->length, offset, 0);
    else if (request->is_write)
        io_uring_prep_write(sqe, request->fd, request->memory, (unsigned)request->length, offset);
    else
        io_uring_prep_read(sqe, request->fd, request->memory, (unsigned)request->length, offset);
    if (front->fd >= 0 && request->fd == front->fd) {
        sqe->fd = 0;
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    sqe->rw_flags = request->flags;
    io_uring_sqe_set_data64(sqe, request->tag);
}

/* With SQPOLL a request has been submitted when the queue's head has passed it. @return count */
static int await_fetching(struct front *front, int count)
{
    int64_t deadline = async_now() + ASYNC_PATIENCE;

    while (io_uring_sq_ready(&front->ring) > 0) {
        check_that(async_now() < deadline, "nobody fetches from the submission queue");
        sched_yield();
    }
    return count;
}

static int uring_submit(struct async *async, const struct async_request *list, unsigned count)
{
    struct front *front = async->inside;

    for (unsigned i = 0; i < count; i++)
        prepare(front, &list[i]);
    int result = io_uring_submit(&front->ring);

    return front->ring.flags & IORING_SETUP_SQPOLL && result >= 0 ? await_fetching(front, (int)count) : result;
}

static unsigned take_ready(struct front *front, struct async_result *results, unsigned most)
{
    struct io_uring_cqe *cqe;
    unsigned taken = 0;

    while (taken < most && io_uring_peek_cqe(&front->ring, &cqe) == 0) {
        results[taken++] = (struct async_result){io_uring_cqe_get_data64(cqe), cqe->res};
        io_uring_cqe_seen(&front->ring, cqe);
    }
    return taken;
}

static int uring_reap(struct async *async, struct async_result *results, unsigned least, unsigned most,
                      int milliseconds)
{
    struct front *front = async->inside;
    int64_t deadline = async_now() + milliseconds;
    unsigned taken = take_ready(front, results, most);

    while (taken < least) {
        int64_t left = deadline - async_now();
        struct io_uring_cqe *cqe;

        if (left <= 0)
            break;
        struct __kernel_timespec timeout = {left / 1000, left % 1000 * 1000000L};
        int result = io_uring_wait_cqe_timeout(&front->ring, &cqe, &timeout);

        if (result < 0 && result != -ETIME && result != -EINTR)
            return result;
        taken += take_ready(front, results + taken, most - taken);
    }
    return (int)taken;
}

/* liburing remembers the tail that it has written last. */
static void uring_resume(struct async *async)
{
    struct front *front = async->inside;

    front->ring.sq.sqe_head = front->ring.sq.sqe_tail = *front->ring.sq.ktail;
}

static int uring_cancel(struct async *async, uint64_t tag, struct async_result *others, unsigned *count)
{
    struct front *front = async->inside;
    struct io_uring_sqe *sqe = next_sqe(front);

    io_uring_prep_cancel64(sqe, tag, 0);
    io_uring_sqe_set_data64(sqe, UINT64_MAX);
    check_that(io_uring_submit(&front->ring) >= 0, "submit a cancellation");
    for (;;) {
        struct async_result result;

        check_that(uring_reap(async, &result, 1, 1, ASYNC_PATIENCE) == 1, "no answer to a cancellation");
        if (result.tag == UINT64_MAX)
            return (int)result.result;
        check_that(*count < async->depth, "more completions than requests");
        others[(*count)++] = result;
    }
}

const struct async_ways async_liburing = {uring_open, uring_close,  uring_use,   uring_submit,
                                          uring_reap, uring_resume, uring_cancel};
