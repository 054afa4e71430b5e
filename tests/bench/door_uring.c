/*
 * io_uring by liburing: fill the queue, io_uring_submit_and_wait for one, take all that has come.
 */
#include "bench/door.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

struct uring {
    struct io_uring ring;
    int (*init)(unsigned entries, struct io_uring *ring, unsigned flags);
    int (*submit_and_wait)(struct io_uring *ring, unsigned least);
    void (*exit)(struct io_uring *ring);
    struct numbers numbers;
};

static void *uring_open(bool through_shim, unsigned depth)
{
    static const char library[] = "liburing.so";
    struct uring *uring = door_state(sizeof(*uring));

    *(void **)&uring->init = door_symbol(through_shim, library, "io_uring_queue_init");
    *(void **)&uring->submit_and_wait = door_symbol(through_shim, library, "io_uring_submit_and_wait");
    *(void **)&uring->exit = door_symbol(through_shim, library, "io_uring_queue_exit");
    numbers_init(&uring->numbers, depth);
    int result = uring->init(depth, &uring->ring, 0);

    if (result < 0)
        door_die("io_uring_queue_init", result);
    return uring;
}

/* Put one request into the submission queue. */
static void prepare(struct uring *uring, struct work *work)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    unsigned number = number_take(&uring->numbers);
    unsigned char *memory = work->memory + (size_t)number * work->size;
    uint64_t offset = work_offset(work);

    if (!sqe)
        bench_die("the submission queue is full");
    if (work->is_write)
        io_uring_prep_write(sqe, work->fd, memory, (unsigned)work->size, offset);
    else
        io_uring_prep_read(sqe, work->fd, memory, (unsigned)work->size, offset);
    io_uring_sqe_set_data64(sqe, number);
    number_begin(&uring->numbers, number);
}

/* @return how many have come. */
static unsigned reap(struct uring *uring, struct work *work)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&uring->ring, head, cqe)
    {
        number_end(&uring->numbers, &door_uring, work, (unsigned)io_uring_cqe_get_data64(cqe), cqe->res);
        count++;
    }
    io_uring_cq_advance(&uring->ring, count);
    return count;
}

static void uring_run(void *state, struct work *work, unsigned requests)
{
    struct uring *uring = state;
    unsigned issued = 0, in_flight = 0;

    while (issued < requests || in_flight > 0) {
        for (; issued < requests && in_flight < work->depth; issued++, in_flight++)
            prepare(uring, work);
        int n = uring->submit_and_wait(&uring->ring, 1);

        if (n < 0 && n != -EINTR)
            door_die("io_uring_submit_and_wait", n);
        in_flight -= reap(uring, work);
    }
}

static void uring_close(void *state)
{
    struct uring *uring = state;

    uring->exit(&uring->ring);
    free(uring);
}

const struct door door_uring = {"io_uring", 2, uring_open, uring_run, uring_close};
