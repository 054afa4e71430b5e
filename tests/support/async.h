/*
 * Asynchronous reads and writes as programs do them, by every front door, behind one small interface: what must hold for all of them is
 * tested once, in a loop over async_doors.
 *
 * One thread submits, one reaps, at a time; they may be different threads. Functions of the kernel's interface are called as any program
 * calls them: nothing here knows of the shim.
 */
#ifndef BOUNCEIO_TESTS_ASYNC_H
#define BOUNCEIO_TESTS_ASYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "support/support.h"

struct async_request {
    bool is_write;
    int fd;
    void *memory;
    size_t length;
    const struct iovec *vector; /* not NULL: instead of memory and length */
    unsigned segments;
    off_t offset;
    int flags;    /* RWF_* */
    uint64_t tag; /* comes back with the result; not UINT64_MAX */
};

struct async_result {
    uint64_t tag;
    int64_t result; /* bytes or -errno */
};

struct async;

/* How a front door is used: functions of a library, or system calls. Results as in the functions of the same names below. */
struct async_ways {
    bool (*open)(struct async *async);
    void (*close)(struct async *async);
    void (*use)(struct async *async, int fd, void *memory, size_t length);
    int (*submit)(struct async *async, const struct async_request *list, unsigned count);
    int (*reap)(struct async *async, struct async_result *results, unsigned least, unsigned most, int milliseconds);
    void (*resume)(struct async *async);
    int (*cancel)(struct async *async, uint64_t tag, struct async_result *others, unsigned *count);
};

struct async_door {
    const char *name;
    const struct async_ways *ways;
    bool is_uring;
    bool is_fixed;       /* registered files and buffers: see async_use */
    bool by_instruction; /* entered by inline assembly, where there is some */
    unsigned setup;      /* IORING_SETUP_* */
};

struct async {
    const struct async_door *door;
    unsigned depth;
    void *inside;
};

extern const struct async_door async_doors[]; /* ends with a NULL name */
const struct async_door *async_door(const char *name);

/*
 * @return false, with a line that says "skipped", where the system does not offer that door; silently when BOUNCEIO_TEST_DOOR names another.
 */
bool async_open(struct async *async, const struct async_door *door, unsigned depth);

/* The program's own way out: io_destroy, io_uring_queue_exit; no request is waited for. */
void async_close(struct async *async);

/* The requests to come are of this file and memory: doors with registered files and buffers register them, others do nothing. */
void async_use(struct async *async, int fd, void *memory, size_t length);

/* @return how many of the list have been submitted; -errno if the first has not. Requests are copied, what they point to is not. */
int async_submit(struct async *async, const struct async_request *list, unsigned count);

/* Wait for `least` results, so many milliseconds. @return how many there are, up to `most`: fewer than `least` after that time. */
int async_reap(struct async *async, struct async_result *results, unsigned least, unsigned most, int milliseconds);

/* Another process has submitted to this ring, too, and does no longer: see where its queue stands. */
void async_resume(struct async *async);

/*
 * Try to cancel a request. @return 0 or -errno. `others` (room for `depth`) gets the *count results of requests that have come meanwhile:
 * with libaio that of the cancelled request itself, with io_uring whatever was found while waiting for the answer.
 */
int async_cancel(struct async *async, uint64_t tag, struct async_result *others, unsigned *count);

/* Submit one request and wait for it. @return its result, or what submitting it said. The test fails when nothing comes. */
int64_t async_do(struct async *async, const struct async_request *request);

/* So long does a result take at most, in milliseconds, on the slowest machine. */
enum { ASYNC_PATIENCE = 60000 };

struct async_request async_write(int fd, const void *memory, size_t length, uint64_t offset, uint64_t tag);
struct async_request async_read(int fd, void *memory, size_t length, uint64_t offset, uint64_t tag);

/* Milliseconds of a clock that only goes forward. */
int64_t async_now(void);

/* --- Inside ------------------------------------------------------------------------------------------------------- */

extern const struct async_ways async_libaio, async_aio_calls, async_liburing, async_uring_calls;

#endif
