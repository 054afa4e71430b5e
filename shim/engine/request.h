/*
 * One asynchronous read or write, from submission to completion: the chunk of a blocking write (engine/chunk.h) or the part of a blocking
 * read (engine/part.h), with the system call taken out of the middle. One request is one request of the kernel's: it is never split.
 *
 *   request_prepare -> the front (rings/) hands data, length, offset and flags to the kernel -> request_issued -> request_complete
 *                   -> the kernel did not take it: request_cancel
 *
 * A request lives in a slot that does not move (rings/slot.h), holds references, pages and an in-flight entry of its own, and belongs to
 * the process that prepared it. Its descriptor may be closed, and its number used again, as soon as it has been issued.
 * Thread-safe for different requests; async-signal-safe; a handler of the program's may jump out of any of the calls.
 */
#ifndef BOUNCEIO_ENGINE_REQUEST_H
#define BOUNCEIO_ENGINE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/chunk.h"
#include "engine/inflow.h"
#include "engine/part.h"
#include "engine/transfer.h"
#include "engine/vector.h"
#include "files/descriptor.h"

/* As the program asked for it. */
struct request_call {
    bool is_write;
    bool is_vector;      /* `address` is an array of `length` iovecs */
    const void *address; /* user memory, not yet believed */
    uint64_t length;     /* bytes, or segments */
    int64_t offset;      /* bytes, or TRANSFER_FILE_OFFSET */
    int flags;           /* RWF_* */
    enum flight_transport transport;
    /* Of a registered file: the view's number, if it has one, is only for looking at the file (view.fd may be -1). */
    bool is_fixed;
};

enum request_kind {
    REQUEST_NONE,
    REQUEST_WRITE,
    REQUEST_READ,
    REQUEST_BUFFERED, /* a write through the page cache, of a file that has a map: a mutator; its memory stays the program's */
};

struct request {
    enum request_kind kind;
    bool is_fixed;
    bool in_place; /* a read straight into the program's memory */
    bool
        bad_memory; /* nothing of the program's memory can be read: the kernel is asked for its errno (issue_bad_write) */
    bool
        current; /* known: the number (or registered file) still led to the view's file when the kernel had taken the request */
    struct fd_view view;
    struct vector vector; /* the program's memory */
    struct cursor cursor; /* in it */
    struct chunk chunk;   /* writes */
    struct part part;     /* reads */
    struct transfer transfer;
    struct extent pages;    /* reads */
    struct landing landing; /* buffered writes */
    struct offset_use use;  /* requests that use the file offset */
    struct inflow stray;    /* writes that may have gone to another file; view.file NULL: none */
    /* What the kernel is to be given: one segment, unless `keeps_memory`. */
    bool keeps_memory; /* the program's own address and length are issued: REQUEST_BUFFERED */
    void *data;
    size_t length; /* bytes; fewer than `asked` after a short copy */
    int64_t offset;
    int flags;    /* RWF_* */
    size_t asked; /* bytes that the program asked for */
    /* From when request_complete has begun. A handler that jumps out of it leaves kind REQUEST_NONE, and here what the program is to be told. */
    int64_t told;
};

enum request_road {
    REQUEST_READY = 0,  /* issue it */
    REQUEST_PASSES = 1, /* not ours: the program's own call goes to the kernel as it is. Nothing is held */
};

/*
 * Prepare a request, whatever it holds, on `view`, whose references move to the request (or are released when it fails or passes).
 * @return REQUEST_READY, REQUEST_PASSES; -EAGAIN under NOWAIT, -ENOMEM, -EFAULT: to be told to the program as the request's completion. Nothing
 * is held then.
 */
int request_prepare(struct request *request, struct fd_view *view, const struct request_call *call);

/*
 * The kernel has taken it; not later than request_complete in another thread returns. Without this call (a completion that came first) a request
 * whose number has been closed by the time it completes is not certain to have reached its file.
 */
void request_issued(struct request *request);

/* The kernel has not taken it, and will not: as if it had never been prepared. */
void request_cancel(struct request *request);

/*
 * It is over, and the kernel says `result`: publish or verify, copy out, give everything back. @return what the program is to be told: bytes or
 * -errno. May read the file (suspicions), never waits for another request.
 * A handler that jumps out of it has ended it: a write counts as the kernel says, a read as interrupted (request.told).
 */
int64_t request_complete(struct request *request, int64_t result);

/* The process will never know how it ended (its ring was torn down around it): blocks become unknown, pages are leaked and counted. */
void request_lose(struct request *request);

/* Of a request that nothing was prepared in: what others look at. */
static inline void request_clear(struct request *request)
{
    request->kind = REQUEST_NONE;
    request->is_fixed = false;
    request->view = (struct fd_view){.file = NULL};
    request->asked = 0;
}

/* Does the call only read, into memory of the program's that it gets as it is? Such a read depends on nothing of ours when it completes. */
static inline bool request_writes_memory(const struct request *request)
{
    return request->kind == REQUEST_READ;
}

#endif
