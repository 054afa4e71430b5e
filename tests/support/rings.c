#include "support/rings.h"

#include <poll.h>

#include "support/direct.h"
#include "support/record.h"

enum { BATCH = 64 };

bool rings_open(struct io_uring *ring, unsigned flags, unsigned completions)
{
    struct io_uring_params params = {.flags = flags | (completions ? IORING_SETUP_CQSIZE : 0),
                                     .cq_entries = completions};
    int error = io_uring_queue_init_params(RINGS_ENTRIES, ring, &params);

    note_result("init", error);
    if (error != 0)
        return false;
    note("flags %x, sq %u, cq %u, masks %u %u", params.flags, params.sq_entries, params.cq_entries,
         *ring->sq.kring_mask, *ring->cq.kring_mask);
    return true;
}

void rings_note(const struct io_uring *ring, const struct io_uring_cqe *cqe)
{
    note("  cqe %llu res %d flags %x", (unsigned long long)cqe->user_data, cqe->res, cqe->flags);
    if (ring->flags & IORING_SETUP_CQE32)
        note("  extra %llu %llu", (unsigned long long)cqe->big_cqe[0], (unsigned long long)cqe->big_cqe[1]);
}

/* Take all there is. */
void rings_note_all(struct io_uring *ring)
{
    struct io_uring_cqe *cqes[BATCH];
    unsigned count = io_uring_peek_batch_cqe(ring, cqes, BATCH);

    note("cqes: %u", count);
    for (unsigned i = 0; i < count; i++)
        rings_note(ring, cqes[i]);
    io_uring_cq_advance(ring, count);
}

struct io_uring_sqe *rings_add(struct io_uring *ring, uint64_t user_data)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    check_that(sqe, "no entry");
    io_uring_prep_nop(sqe);
    sqe->user_data = user_data;
    return sqe;
}

void rings_add_read(struct io_uring *ring, int fd, void *memory, unsigned length, uint64_t user_data)
{
    struct io_uring_sqe *sqe = rings_add(ring, user_data);

    io_uring_prep_read(sqe, fd, memory, length, 0);
    sqe->user_data = user_data;
}

void rings_note_ready(const struct io_uring *ring)
{
    struct pollfd one = {ring->ring_fd, POLLIN, 0};
    int n = poll(&one, 1, 0);

    note("poll %d %x", n, one.revents);
}
