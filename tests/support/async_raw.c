/* io_uring by system calls, with the queues mapped as io_uring_setup(2) and io_uring(7) say. */
#include <errno.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/async.h"
#include "support/direct.h"

struct queue {
    _Atomic uint32_t *head, *tail;
    uint32_t mask, entries;
    char *memory;
    size_t length;
};

struct raw_ring {
    int fd;
    bool by_instruction;
    struct queue sq, cq;
    uint32_t *array;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

#if defined(__x86_64__)
/* As fio's engine does it: nothing that a dynamic linker could bind. */
static __attribute__((noinline)) int enter_by_instruction(const struct raw_ring *ring, unsigned submit, unsigned least,
                                                          unsigned flags, const void *argument, size_t size)
{
    long result = SYS_io_uring_enter;
    register long r10 __asm__("r10") = flags;
    register const void *r8 __asm__("r8") = argument;
    register size_t r9 __asm__("r9") = size;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"((long)ring->fd), "S"((long)submit), "d"((long)least), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return (int)result;
}
#endif

static int enter(const struct raw_ring *ring, unsigned submit, unsigned least, unsigned flags, const void *argument,
                 size_t size)
{
#if defined(__x86_64__)
    if (ring->by_instruction)
        return enter_by_instruction(ring, submit, least, flags, argument, size);
#endif
    long result = syscall(SYS_io_uring_enter, ring->fd, submit, least, flags, argument, size);

    return result < 0 ? -errno : (int)result;
}

static char *map(const struct raw_ring *ring, size_t length, uint64_t offset)
{
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, (off_t)offset);

    check_that(memory != MAP_FAILED, "map the ring at %llx", (unsigned long long)offset);
    return memory;
}

static void map_queues(struct raw_ring *ring, const struct io_uring_params *params)
{
    size_t sq = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
    size_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    bool single = params->features & IORING_FEAT_SINGLE_MMAP;

    ring->sq.length = single && cq > sq ? cq : sq;
    ring->sq.memory = map(ring, ring->sq.length, IORING_OFF_SQ_RING);
    ring->cq.length = single ? 0 : cq;
    ring->cq.memory = single ? ring->sq.memory : map(ring, cq, IORING_OFF_CQ_RING);
    ring->sq.head = (void *)(ring->sq.memory + params->sq_off.head);
    ring->sq.tail = (void *)(ring->sq.memory + params->sq_off.tail);
    ring->sq.mask = *(uint32_t *)(void *)(ring->sq.memory + params->sq_off.ring_mask);
    ring->sq.entries = params->sq_entries;
    ring->array = (void *)(ring->sq.memory + params->sq_off.array);
    ring->cq.head = (void *)(ring->cq.memory + params->cq_off.head);
    ring->cq.tail = (void *)(ring->cq.memory + params->cq_off.tail);
    ring->cq.mask = *(uint32_t *)(void *)(ring->cq.memory + params->cq_off.ring_mask);
    ring->cq.entries = params->cq_entries;
    ring->cqes = (void *)(ring->cq.memory + params->cq_off.cqes);
    ring->sqes = (void *)map(ring, params->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

static bool raw_open(struct async *async)
{
    struct io_uring_params params = {.flags = async->door->setup};
    struct raw_ring *ring = calloc(1, sizeof(*ring));

    check_that(ring, "no memory");
    ring->fd = (int)syscall(SYS_io_uring_setup, async->depth, &params);
    if (ring->fd < 0) {
        free(ring);
        return false;
    }
    ring->by_instruction = async->door->by_instruction;
    map_queues(ring, &params);
    async->inside = ring;
    return true;
}

static void raw_close(struct async *async)
{
    struct raw_ring *ring = async->inside;

    munmap(ring->sqes, ring->sq.entries * sizeof(struct io_uring_sqe));
    munmap(ring->sq.memory, ring->sq.length);
    if (ring->cq.length > 0)
        munmap(ring->cq.memory, ring->cq.length);
    close(ring->fd);
    free(ring);
}

static void raw_use(struct async *async, int fd, void *memory, size_t length)
{
    (void)async;
    (void)fd;
    (void)memory;
    (void)length;
}

static struct io_uring_sqe *queue_sqe(struct raw_ring *ring)
{
    uint32_t tail = atomic_load_explicit(ring->sq.tail, memory_order_relaxed);

    check_that(tail - atomic_load_explicit(ring->sq.head, memory_order_acquire) < ring->sq.entries,
               "the submission queue is full");
    struct io_uring_sqe *sqe = &ring->sqes[tail & ring->sq.mask];

    ring->array[tail & ring->sq.mask] = tail & ring->sq.mask;
    *sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP};
    return sqe;
}

static void advance(struct raw_ring *ring)
{
    uint32_t tail = atomic_load_explicit(ring->sq.tail, memory_order_relaxed);

    atomic_store_explicit(ring->sq.tail, tail + 1, memory_order_release);
}

static int raw_submit(struct async *async, const struct async_request *list, unsigned count)
{
    struct raw_ring *ring = async->inside;

    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = queue_sqe(ring);

        if (list[i].vector)
            sqe->opcode = list[i].is_write ? IORING_OP_WRITEV : IORING_OP_READV;
        else
            sqe->opcode = list[i].is_write ? IORING_OP_WRITE : IORING_OP_READ;
        sqe->fd = list[i].fd;
        sqe->addr = (uintptr_t)(list[i].vector ? list[i].vector : list[i].memory);
        sqe->len = list[i].vector ? list[i].segments : (uint32_t)list[i].length;
        sqe->off = (uint64_t)list[i].offset;
        sqe->rw_flags = (unsigned)list[i].flags;
        sqe->user_data = list[i].tag;
        advance(ring);
    }
    return enter(ring, count, 0, 0, NULL, 0);
}

static unsigned take_ready(struct raw_ring *ring, struct async_result *results, unsigned most)
{
    uint32_t head = atomic_load_explicit(ring->cq.head, memory_order_relaxed);
    unsigned taken = 0;

    for (; taken < most && head != atomic_load_explicit(ring->cq.tail, memory_order_acquire); head++) {
        const struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq.mask];

        results[taken++] = (struct async_result){cqe->user_data, cqe->res};
    }
    atomic_store_explicit(ring->cq.head, head, memory_order_release);
    return taken;
}

static int raw_reap(struct async *async, struct async_result *results, unsigned least, unsigned most, int milliseconds)
{
    struct raw_ring *ring = async->inside;
    int64_t deadline = async_now() + milliseconds;
    unsigned taken = take_ready(ring, results, most);

    while (taken < least) {
        int64_t left = deadline - async_now();

        if (left <= 0)
            break;
        struct __kernel_timespec timeout = {left / 1000, left % 1000 * 1000000L};
        struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8, .ts = (uintptr_t)&timeout};
        int result =
            enter(ring, 0, least - taken, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof(argument));

        if (result < 0 && result != -ETIME && result != -EINTR)
            return result;
        taken += take_ready(ring, results + taken, most - taken);
    }
    return (int)taken;
}

/* Nothing is remembered outside of the shared memory. */
static void raw_resume(struct async *async)
{
    (void)async;
}

static int raw_cancel(struct async *async, uint64_t tag, struct async_result *others, unsigned *count)
{
    struct raw_ring *ring = async->inside;
    struct io_uring_sqe *sqe = queue_sqe(ring);

    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = tag;
    sqe->user_data = UINT64_MAX;
    advance(ring);
    check_that(enter(ring, 1, 0, 0, NULL, 0) == 1, "submit a cancellation");
    for (;;) {
        struct async_result result;

        check_that(raw_reap(async, &result, 1, 1, ASYNC_PATIENCE) == 1, "no answer to a cancellation");
        if (result.tag == UINT64_MAX)
            return (int)result.result;
        check_that(*count < async->depth, "more completions than requests");
        others[(*count)++] = result;
    }
}

const struct async_ways async_uring_calls = {raw_open, raw_close,  raw_use,   raw_submit,
                                             raw_reap, raw_resume, raw_cancel};
