/* Queues of POSIX AIO requests. See posix_queue.h. */
#include "rings/posix_queue.h"

#include <linux/futex.h>

#include "base/process.h"
#include "base/raw.h"

struct posix_state_of_process *posix_state;

static void posix_start(void)
{
    posix_state = process_arena(sizeof *posix_state);
}
PROCESS_INITIALISER(posix_start);

/* --- The lock ----------------------------------------------------------------------------------------------------- */

/* As base/process.c has it, with signals left to those who have any. */
void posix_lock(void)
{
    _Atomic uint32_t *lock = &posix_state->lock;
    uint32_t seen = 0;
    /* Acquire: partner of the release in posix_unlock. */
    if (atomic_compare_exchange_strong_explicit(lock, &seen, 1, memory_order_acquire, memory_order_relaxed))
        return;
    while (atomic_exchange_explicit(lock, 2, memory_order_acquire) != 0)
        raw(SYS_futex, lock, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void posix_unlock(void)
{
    _Atomic uint32_t *lock = &posix_state->lock;
    /* Release: partner of the acquires in posix_lock. */
    if (atomic_exchange_explicit(lock, 0, memory_order_release) == 2)
        raw(SYS_futex, lock, FUTEX_WAKE_PRIVATE, 1);
}

void posix_enter(uint64_t *saved)
{
    process_hold_signals(saved);
    posix_lock();
}

void posix_leave(const uint64_t *saved)
{
    posix_unlock();
    process_release_signals(saved);
}

/* --- Tables ------------------------------------------------------------------------------------------------------- */

/* What has been given back comes first: the less memory is touched. */
#define TAKE(free, table, used)                                                                                        \
    ({                                                                                                                 \
        __typeof__(posix_state->free) taken_ = posix_state->free;                                                      \
        if (taken_)                                                                                                    \
            posix_state->free = taken_->next;                                                                          \
        else if (posix_state->used < POSIX_REQUESTS)                                                                   \
            taken_ = &posix_state->table[posix_state->used++];                                                         \
        if (taken_)                                                                                                    \
            *taken_ = (__typeof__(*taken_)){.next = NULL};                                                             \
        taken_;                                                                                                        \
    })

struct posix_request *posix_request_take(void)
{
    return TAKE(free_request, request_table, requests);
}

struct posix_group *posix_group_take(void)
{
    return TAKE(free_group, group_table, groups);
}

void posix_request_give(struct posix_request *request)
{
    request->next = posix_state->free_request;
    posix_state->free_request = request;
}

void posix_group_give(struct posix_group *group)
{
    group->next = posix_state->free_group;
    posix_state->free_group = group;
}

/* --- Queues ------------------------------------------------------------------------------------------------------- */

static struct posix_queue **bucket_of(int fd)
{
    return &posix_state->bucket[(unsigned)fd % POSIX_BUCKETS];
}

struct posix_queue *posix_queue_of(int fd)
{
    struct posix_queue *queue = *bucket_of(fd);
    while (queue && queue->fd != fd)
        queue = queue->next;
    return queue;
}

/* There are as many queues as requests, and no queue is empty: one is always free. */
static struct posix_queue *make_queue(int fd)
{
    struct posix_queue *queue = TAKE(free_queue, queue_table, queues);
    struct posix_queue **bucket = bucket_of(fd);
    queue->fd = fd;
    queue->next = *bucket;
    *bucket = queue;
    return queue;
}

static void drop_queue(struct posix_queue *queue)
{
    struct posix_queue **at = bucket_of(queue->fd);
    while (*at != queue)
        at = &(*at)->next;
    *at = queue->next;
    queue->next = posix_state->free_queue;
    posix_state->free_queue = queue;
}

static void make_due(struct posix_queue *queue)
{
    struct posix_queue **at = &posix_state->due;
    while (*at && (*at)->first->priority >= queue->first->priority)
        at = &(*at)->next_due;
    queue->next_due = *at;
    *at = queue;
}

static void make_undue(struct posix_queue *queue)
{
    struct posix_queue **at = &posix_state->due;
    while (*at != queue)
        at = &(*at)->next_due;
    *at = queue->next_due;
}

/* Behind those of the same priority; nobody gets in front of one that is being carried out. */
static void insert(struct posix_queue *queue, struct posix_request *request)
{
    struct posix_request **at = &queue->first;
    if (queue->last->priority >= request->priority)
        at = &queue->last->next;
    while (*at && ((*at)->state != POSIX_QUEUED || (*at)->priority >= request->priority))
        at = &(*at)->next;
    request->next = *at;
    *at = request;
    if (!request->next)
        queue->last = request;
}

bool posix_queue_add(struct posix_request *request)
{
    struct posix_queue *queue = posix_queue_of(request->fd);
    request->state = POSIX_QUEUED;
    if (!queue) {
        queue = make_queue(request->fd);
        queue->first = queue->last = request;
        make_due(queue);
        return true;
    }
    const bool is_due = queue->first->state == POSIX_QUEUED;
    insert(queue, request);
    /* It may have become the first, and its priority the queue's. */
    if (is_due && queue->first == request) {
        make_undue(queue);
        make_due(queue);
    }
    return false;
}

static void unlink_request(struct posix_queue *queue, struct posix_request *request)
{
    struct posix_request **at = &queue->first, *before = NULL;
    for (; *at != request; at = &(*at)->next)
        before = *at;
    *at = request->next;
    if (!request->next)
        queue->last = before;
    request->next = NULL;
}

void posix_queue_remove(struct posix_queue *queue, struct posix_request *request)
{
    const bool is_due = queue->first->state == POSIX_QUEUED;
    if (is_due)
        make_undue(queue);
    unlink_request(queue, request);
    if (!queue->first)
        drop_queue(queue);
    else if (is_due)
        make_due(queue);
}

struct posix_request *posix_queue_begin(void)
{
    struct posix_queue *queue = posix_state->due;
    if (!queue)
        return NULL;
    posix_state->due = queue->next_due;
    queue->first->state = POSIX_RUNNING;
    return queue->first;
}

void posix_queue_end(struct posix_request *request)
{
    struct posix_queue *queue = posix_queue_of(request->fd);
    unlink_request(queue, request);
    if (queue->first)
        make_due(queue);
    else
        drop_queue(queue);
}
