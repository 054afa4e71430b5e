/* The table of front doors, and what is the same for all of them. */
#include "support/async.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/direct.h"

/* Newer than some build machines' headers. Source: include/uapi/linux/io_uring.h. */
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

const struct async_door async_doors[] = {
    {.name = "libaio", .ways = &async_libaio},
    {.name = "aio-calls", .ways = &async_aio_calls},
    {.name = "liburing", .ways = &async_liburing, .is_uring = true},
    {.name = "liburing-fixed", .ways = &async_liburing, .is_uring = true, .is_fixed = true},
    {.name = "liburing-sqpoll", .ways = &async_liburing, .is_uring = true, .setup = IORING_SETUP_SQPOLL},
    {.name = "liburing-wide",
     .ways = &async_liburing,
     .is_uring = true,
     .setup = IORING_SETUP_SQE128 | IORING_SETUP_CQE32},
    {.name = "uring-calls", .ways = &async_uring_calls, .is_uring = true},
    {.name = "uring-inline", .ways = &async_uring_calls, .is_uring = true, .by_instruction = true},
    {.name = "uring-calls-defer",
     .ways = &async_uring_calls,
     .is_uring = true,
     .setup = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN},
    {.name = NULL},
};

const struct async_door *async_door(const char *name)
{
    const struct async_door *door = async_doors;

    while (door->name && strcmp(door->name, name) != 0)
        door++;
    check_that(door->name, "no front door is called %s", name);
    return door;
}

bool async_open(struct async *async, const struct async_door *door, unsigned depth)
{
    const char *only = getenv("BOUNCEIO_TEST_DOOR");

    *async = (struct async){.door = door, .depth = depth};
    if (only && strcmp(only, door->name) != 0)
        return false;
    if (door->ways->open(async))
        return true;
    test_skip("%s: not offered here (%m)", door->name);
    return false;
}

void async_close(struct async *async)
{
    async->door->ways->close(async);
    async->inside = NULL;
}

void async_use(struct async *async, int fd, void *memory, size_t length)
{
    if (async->door->is_fixed)
        async->door->ways->use(async, fd, memory, length);
}

int async_submit(struct async *async, const struct async_request *list, unsigned count)
{
    return async->door->ways->submit(async, list, count);
}

int async_reap(struct async *async, struct async_result *results, unsigned least, unsigned most, int milliseconds)
{
    const int64_t end = async_now() + milliseconds;
    unsigned count = 0;

    for (;;) {
        /* What the kernel has left to do for a ring that was closed some milliseconds ago interrupts io_getevents, natively, too. */
        const int64_t left = end - async_now();
        int n = async->door->ways->reap(async, results + count, least - count, most - count, left > 0 ? (int)left : 0);

        if (n < 0 && n != -EINTR)
            return count > 0 ? (int)count : n;
        count += n > 0 ? (unsigned)n : 0;
        if (count >= least || n == 0 || left <= 0)
            return (int)count;
    }
}

void async_resume(struct async *async)
{
    async->door->ways->resume(async);
}

int async_cancel(struct async *async, uint64_t tag, struct async_result *others, unsigned *count)
{
    *count = 0;
    return async->door->ways->cancel(async, tag, others, count);
}

int64_t async_do(struct async *async, const struct async_request *request)
{
    struct async_result result;
    int submitted = async_submit(async, request, 1);

    if (submitted < 0)
        return submitted;
    check_that(submitted == 1, "%s: submitting one request gave %d", async->door->name, submitted);
    int reaped = async_reap(async, &result, 1, 1, ASYNC_PATIENCE);

    check_that(reaped == 1, "%s: waiting for a request gave %d", async->door->name, reaped);
    check_that(result.tag == request->tag, "%s: the result of another request", async->door->name);
    return result.result;
}

struct async_request async_write(int fd, const void *memory, size_t length, uint64_t offset, uint64_t tag)
{
    return (struct async_request){.is_write = true,
                                  .fd = fd,
                                  .memory = (void *)(uintptr_t)memory,
                                  .length = length,
                                  .offset = (off_t)offset,
                                  .tag = tag};
}

struct async_request async_read(int fd, void *memory, size_t length, uint64_t offset, uint64_t tag)
{
    return (struct async_request){
        .is_write = false, .fd = fd, .memory = memory, .length = length, .offset = (off_t)offset, .tag = tag};
}

int64_t async_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
