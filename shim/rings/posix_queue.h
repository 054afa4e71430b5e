/*
 * POSIX AIO requests in progress, and the lock over them. See posix_aio.h.
 *
 * A descriptor with requests has a queue; queues whose first request may be carried out are on the list of what is due, by that request's
 * priority. Everything lies in wiped memory, in tables that are never full before 32,768 requests are in progress.
 *
 * The lock is a futex. Threads of the program's hold their signals while they have it, so that a handler which calls aio_suspend never waits
 * for the thread it has interrupted. It is not held while a request is carried out, nor while the program is told of its end.
 */
#ifndef BOUNCEIO_RINGS_POSIX_QUEUE_H
#define BOUNCEIO_RINGS_POSIX_QUEUE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bounce/pool.h"
#include "rings/posix_aio.h"

enum { POSIX_REQUESTS = 32768, POSIX_BUCKETS = 256 };

/* How the program wants to be told: what is used of its sigevent, which it may reuse as soon as it sees the result. */
struct posix_notice {
    int how; /* SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD */
    int signal;
    union sigval value;
    void (*function)(union sigval);
    pthread_attr_t *attributes;
};

/* The requests of one lio_listio. */
struct posix_group {
    struct posix_group *next; /* free */
    _Atomic unsigned
        left;    /* requests not yet over, and one for the caller until it has submitted all; changed under the lock */
    bool failed; /* one of them has: under the lock */
    bool kept;   /* the caller waits for it, and gives it back: under the lock */
    struct posix_notice notice;
};

enum posix_state { POSIX_QUEUED, POSIX_RUNNING, POSIX_DONE };

struct posix_request {
    struct posix_request *next; /* in its queue, or free */
    enum posix_state state;
    int operation, fd;
    void *buffer;
    size_t length;
    off_t offset;
    struct extent pages; /* the data of a direct write, taken when it was submitted: `buffer` is here then */
    int priority, policy;
    struct aiocb *control; /* the program's; its own from the moment that it shows the result */
    struct posix_group *group;
    struct posix_notice notice;
};

struct posix_queue {
    struct posix_queue *next; /* in its bucket, or free */
    struct posix_queue *next_due;
    int fd;
    struct posix_request *first, *last;
};

struct posix_state_of_process {
    _Atomic uint32_t lock;  /* 0 free, 1 taken, 2 taken and somebody may be waiting */
    _Atomic uint32_t calls; /* futex: helpers sleep on it */
    _Atomic uint32_t
        completions; /* futex: whoever waits for a result sleeps on it. Twice their number, and 1 if somebody may be asleep */
    unsigned helpers; /* threads */
    unsigned idle;    /* those that sleep and have not been called */
    unsigned called;  /* called, and not yet awake */
    struct posix_queue *due;
    struct posix_queue *bucket[POSIX_BUCKETS];
    struct posix_request *free_request;
    struct posix_queue *free_queue;
    struct posix_group *free_group;
    unsigned requests, queues, groups; /* used so far of the tables */
    struct posix_request request_table[POSIX_REQUESTS];
    struct posix_queue queue_table[POSIX_REQUESTS];
    struct posix_group group_table[POSIX_REQUESTS];
};
extern struct posix_state_of_process *posix_state __attribute__((visibility("hidden")));

/* For helpers, whose signals are blocked for ever; and for everybody else. */
void posix_lock(void);
void posix_unlock(void);
void posix_enter(uint64_t *saved);
void posix_leave(const uint64_t *saved);

/* All of the following: under the lock. The first three: NULL when all are taken. */
struct posix_request *posix_request_take(void);
struct posix_group *posix_group_take(void);
void posix_request_give(struct posix_request *request);
void posix_group_give(struct posix_group *group);

/* The queue of a descriptor, or NULL. */
struct posix_queue *posix_queue_of(int fd);

/* Put a request into the queue of its descriptor. @return whether that made something due. */
bool posix_queue_add(struct posix_request *request);

/* Take one out that is not running. */
void posix_queue_remove(struct posix_queue *queue, struct posix_request *request);

/* Take what is due first, running from now on. NULL: nothing is. */
struct posix_request *posix_queue_begin(void);

/* Take out one that was running; the next of its descriptor is due. */
void posix_queue_end(struct posix_request *request);

/* ---- posix_helper.c: the threads, and what the program learns. ---- */

/* How many there may be at once, and for how long one stays without work. */
struct posix_limits {
    unsigned helpers;
    unsigned idle_seconds;
};
extern struct posix_limits posix_limits __attribute__((visibility("hidden")));

/* Something has become due: wake a helper, or make one. Under the lock. @return 0, or -errno when there is none, nor can be. */
int posix_call_helper(void);

/* The result, for everybody to see, and for those who wait. Under the lock, so that aio_cancel never contradicts aio_error. */
void posix_publish(struct posix_request *request, ssize_t result, int error);

/* Tell the program as it has asked to be told. Not under the lock. */
void posix_tell(struct posix_request *request);
void posix_notify(const struct posix_notice *notice);

/* One share of a group less: a request of it is over, or its caller has submitted all. Not under the lock. */
void posix_group_leave(struct posix_group *group);

#endif
