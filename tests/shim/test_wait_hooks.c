/*
 * Every call that can tell a program "something has completed" leaves the completion in the ring's memory: programs that are woken by an
 * eventfd, or by the ring's own descriptor, look there next, and call nothing else first.
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

/* The C library's other names. */
ssize_t __read(int fd, void *buffer, size_t length);
ssize_t __read_chk(int fd, void *buffer, size_t length, size_t room);
int __poll(struct pollfd *fds, nfds_t count, int timeout);
int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room);
int __select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, struct timeval *timeout);

enum { PATIENCE = 10 }; /* seconds */

/* --- The waits: each returns when `fd` is readable; `reads`: it has read the eventfd as well ---------------------- */

static uint64_t count;

static bool wait_read(int fd)
{
    return read(fd, &count, sizeof count) == sizeof count;
}
static bool wait_read_underscored(int fd)
{
    return __read(fd, &count, sizeof count) == sizeof count;
}
static bool wait_read_checked(int fd)
{
    return __read_chk(fd, &count, sizeof count, sizeof count) == sizeof count;
}
static bool wait_readv(int fd)
{
    return readv(fd, &(struct iovec){&count, sizeof count}, 1) == sizeof count;
}
static bool wait_preadv2(int fd)
{
    return preadv2(fd, &(struct iovec){&count, sizeof count}, 1, -1, 0) == sizeof count;
}
static bool wait_eventfd_read(int fd)
{
    return eventfd_read(fd, &count) == 0;
}
static bool wait_raw_read(int fd)
{
    return syscall(SYS_read, fd, &count, sizeof count) == sizeof count;
}

#define POLLED (&(struct pollfd){.fd = fd, .events = POLLIN})
#define TIME (&(struct timespec){.tv_sec = PATIENCE})

static bool wait_poll(int fd)
{
    return poll(POLLED, 1, PATIENCE * 1000) == 1;
}
static bool wait_poll_underscored(int fd)
{
    return __poll(POLLED, 1, PATIENCE * 1000) == 1;
}
static bool wait_poll_checked(int fd)
{
    return __poll_chk(POLLED, 1, PATIENCE * 1000, sizeof(struct pollfd)) == 1;
}
static bool wait_ppoll(int fd)
{
    return ppoll(POLLED, 1, TIME, NULL) == 1;
}
static bool wait_ppoll_checked(int fd)
{
    return __ppoll_chk(POLLED, 1, TIME, NULL, sizeof(struct pollfd)) == 1;
}
static bool wait_raw_ppoll(int fd)
{
    return syscall(SYS_ppoll, POLLED, 1, TIME, NULL, 0) == 1;
}

static fd_set *set_of(int fd)
{
    static fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return &set;
}
static bool wait_select(int fd)
{
    return select(fd + 1, set_of(fd), NULL, NULL, &(struct timeval){.tv_sec = PATIENCE}) == 1;
}
static bool wait_select_underscored(int fd)
{
    return __select(fd + 1, set_of(fd), NULL, NULL, &(struct timeval){.tv_sec = PATIENCE}) == 1;
}
static bool wait_pselect(int fd)
{
    return pselect(fd + 1, set_of(fd), NULL, NULL, TIME, NULL) == 1;
}
static bool wait_raw_pselect(int fd)
{
    return syscall(SYS_pselect6, fd + 1, set_of(fd), NULL, NULL, TIME, NULL) == 1;
}

static int epoll_with(int fd)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    check_that(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    return epoll;
}
#define WITH_EPOLL(call)                                                                                               \
    ({                                                                                                                 \
        struct epoll_event event;                                                                                      \
        int epoll = epoll_with(fd);                                                                                    \
        bool ready = (call) == 1;                                                                                      \
        close(epoll);                                                                                                  \
        ready;                                                                                                         \
    })
static bool wait_epoll_wait(int fd)
{
    return WITH_EPOLL(epoll_wait(epoll, &event, 1, PATIENCE * 1000));
}
static bool wait_epoll_pwait(int fd)
{
    return WITH_EPOLL(epoll_pwait(epoll, &event, 1, PATIENCE * 1000, NULL));
}
static bool wait_epoll_pwait2(int fd)
{
    return WITH_EPOLL(epoll_pwait2(epoll, &event, 1, TIME, NULL));
}
static bool wait_raw_epoll_pwait(int fd)
{
    return WITH_EPOLL(syscall(SYS_epoll_pwait, epoll, &event, 1, PATIENCE * 1000, NULL, 8));
}
static bool wait_raw_epoll_pwait2(int fd)
{
    return WITH_EPOLL(syscall(SYS_epoll_pwait2, epoll, &event, 1, TIME, NULL, 8));
}
#ifdef SYS_poll
static bool wait_raw_poll(int fd)
{
    return syscall(SYS_poll, POLLED, 1, PATIENCE * 1000) == 1;
}
static bool wait_raw_select(int fd)
{
    return syscall(SYS_select, fd + 1, set_of(fd), NULL, NULL, &(struct timeval){.tv_sec = PATIENCE}) == 1;
}
static bool wait_raw_epoll_wait(int fd)
{
    return WITH_EPOLL(syscall(SYS_epoll_wait, epoll, &event, 1, PATIENCE * 1000));
}
#endif

/* --- Rings and contexts that wait for a descriptor themselves ------------------------------------------------------- */

struct ring {
    int fd;
    struct io_uring_params params;
    char *sq, *cq;
    struct io_uring_sqe *sqes;
    size_t sq_length, cq_length;
};

static uint32_t *word(char *memory, uint32_t offset)
{
    return (uint32_t *)(void *)(memory + offset);
}

/* @return false when the kernel has none for us. */
static bool ring_open(struct ring *ring)
{
    memset(ring, 0, sizeof *ring);
    ring->fd = (int)syscall(SYS_io_uring_setup, 8, &ring->params);
    if (ring->fd < 0)
        return false;
    const struct io_uring_params *p = &ring->params;
    const int shared = MAP_SHARED | MAP_POPULATE;
    ring->sq_length = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    ring->cq_length = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    ring->sq = mmap(NULL, ring->sq_length, PROT_READ | PROT_WRITE, shared, ring->fd, IORING_OFF_SQ_RING);
    ring->cq = mmap(NULL, ring->cq_length, PROT_READ | PROT_WRITE, shared, ring->fd, IORING_OFF_CQ_RING);
    ring->sqes =
        mmap(NULL, p->sq_entries * sizeof *ring->sqes, PROT_READ | PROT_WRITE, shared, ring->fd, IORING_OFF_SQES);
    check_that(ring->sq != MAP_FAILED && ring->cq != MAP_FAILED && ring->sqes != MAP_FAILED, "mmap of a ring");
    return true;
}

static void ring_close(struct ring *ring)
{
    munmap(ring->sq, ring->sq_length);
    munmap(ring->cq, ring->cq_length);
    munmap(ring->sqes, ring->params.sq_entries * sizeof *ring->sqes);
    close(ring->fd);
}

static void ring_submit(struct ring *ring, const struct io_uring_sqe *sqe)
{
    const struct io_sqring_offsets *at = &ring->params.sq_off;
    uint32_t tail = *word(ring->sq, at->tail);
    uint32_t index = tail & *word(ring->sq, at->ring_mask);
    ring->sqes[index] = *sqe;
    word(ring->sq, at->array)[index] = index;
    __atomic_store_n(word(ring->sq, at->tail), tail + 1, __ATOMIC_RELEASE);
    check_that(syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1, "io_uring_enter");
}

static bool take_completion(struct ring *ring, struct io_uring_cqe *cqe)
{
    const struct io_cqring_offsets *at = &ring->params.cq_off;
    uint32_t head = *word(ring->cq, at->head);
    if (head == __atomic_load_n(word(ring->cq, at->tail), __ATOMIC_ACQUIRE))
        return false;
    *cqe = ((struct io_uring_cqe *)(void *)(ring->cq + at->cqes))[head & *word(ring->cq, at->ring_mask)];
    __atomic_store_n(word(ring->cq, at->head), head + 1, __ATOMIC_RELEASE);
    return true;
}

/* A poll request of another ring: what QEMU's event loop waits by. */
static bool wait_other_ring(int fd)
{
    struct ring ring;
    struct io_uring_cqe cqe;
    if (!ring_open(&ring))
        return true;
    ring_submit(
        &ring, &(struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = fd, .poll32_events = POLLIN, .user_data = 1});
    long result;
    do
        result = syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    while (result == -1 && errno == EINTR);
    bool ready = result == 0 && take_completion(&ring, &cqe) && cqe.res == POLLIN;
    ring_close(&ring);
    return ready;
}

static bool wait_other_context(int fd)
{
    aio_context_t context = 0;
    struct io_event event;
    struct iocb iocb = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN}, *list = &iocb;
    check_that(syscall(SYS_io_setup, 1, &context) == 0, "io_setup");
    check_that(syscall(SYS_io_submit, context, 1, &list) == 1, "io_submit of a poll");
    bool ready = syscall(SYS_io_getevents, context, 1, 1, &event, TIME) == 1 && event.res == POLLIN;
    syscall(SYS_io_destroy, context);
    return ready;
}

static const struct wait {
    const char *name;
    bool (*run)(int fd);
    bool reads; /* it takes the eventfd's count as well */
} waits[] = {
    {"read", wait_read, true},
    {"__read", wait_read_underscored, true},
    {"__read_chk", wait_read_checked, true},
    {"readv", wait_readv, true},
    {"preadv2", wait_preadv2, true},
    {"eventfd_read", wait_eventfd_read, true},
    {"SYS_read", wait_raw_read, true},
    {"poll", wait_poll, false},
    {"__poll", wait_poll_underscored, false},
    {"__poll_chk", wait_poll_checked, false},
    {"ppoll", wait_ppoll, false},
    {"__ppoll_chk", wait_ppoll_checked, false},
    {"SYS_ppoll", wait_raw_ppoll, false},
    {"select", wait_select, false},
    {"__select", wait_select_underscored, false},
    {"pselect", wait_pselect, false},
    {"SYS_pselect6", wait_raw_pselect, false},
    {"epoll_wait", wait_epoll_wait, false},
    {"epoll_pwait", wait_epoll_pwait, false},
    {"epoll_pwait2", wait_epoll_pwait2, false},
    {"SYS_epoll_pwait", wait_raw_epoll_pwait, false},
    {"SYS_epoll_pwait2", wait_raw_epoll_pwait2, false},
    {"another ring", wait_other_ring, false},
    {"another context", wait_other_context, false},
#ifdef SYS_poll
    {"SYS_poll", wait_raw_poll, false},
    {"SYS_select", wait_raw_select, false},
    {"SYS_epoll_wait", wait_raw_epoll_wait, false},
#endif
};
enum { WAITS = sizeof waits / sizeof *waits };

/* A ring's completion itself interrupts epoll_wait(2), which is never restarted (Linux 6.18). */
static bool ends(const struct wait *wait, int fd)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        if (wait->run(fd))
            return true;
        if (errno != EINTR)
            break;
    }
    return false;
}

/* --- libaio ------------------------------------------------------------------------------------------------------- */

/* The ring that a context's address points to. Source: fs/aio.c, struct aio_ring. */
struct aio_memory {
    uint32_t id, nr;
    _Atomic uint32_t head, tail;
    uint32_t magic, compat, incompat, header_length;
    struct io_event events[];
};

struct aio_scene {
    aio_context_t context;
    struct aio_memory *memory;
    int file, event;
    unsigned char *buffer;
};

static void aio_scene_open(struct aio_scene *scene)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    scene->context = 0;
    check_that(syscall(SYS_io_setup, 8, &scene->context) == 0, "io_setup");
    scene->memory = (struct aio_memory *)scene->context;
    scene->file = direct_open(path_in(fs[0].path, "file"), O_RDWR | O_CREAT | O_TRUNC);
    scene->event = eventfd(0, EFD_CLOEXEC);
    scene->buffer = buffer_new(BLOCK);
}

static void aio_scene_close(struct aio_scene *scene)
{
    syscall(SYS_io_destroy, scene->context);
    close(scene->file);
    close(scene->event);
    buffer_free(scene->buffer, BLOCK);
}

static void submit_write(struct aio_scene *scene, uint64_t number)
{
    struct iocb iocb = {.aio_data = number,
                        .aio_lio_opcode = IOCB_CMD_PWRITE,
                        .aio_fildes = (uint32_t)scene->file,
                        .aio_buf = (uintptr_t)scene->buffer,
                        .aio_nbytes = BLOCK,
                        .aio_offset = (int64_t)(number % 16 * BLOCK),
                        .aio_flags = IOCB_FLAG_RESFD,
                        .aio_resfd = (uint32_t)scene->event};
    struct iocb *list = &iocb;
    check_that(syscall(SYS_io_submit, scene->context, 1, &list) == 1, "io_submit");
}

/* The next event in memory, without a call. @return false when there is none. */
static bool take_event(struct aio_memory *memory, struct io_event *event)
{
    uint32_t head = atomic_load(&memory->head);
    if (head == atomic_load(&memory->tail))
        return false;
    *event = memory->events[head];
    atomic_store(&memory->head, (head + 1) % memory->nr);
    return true;
}

START_TEST(after_every_wait_for_an_eventfd_the_event_is_in_the_context)
{
    struct aio_scene scene;
    struct io_event event;
    aio_scene_open(&scene);
    for (size_t i = 0; i < WAITS; i++) {
        submit_write(&scene, 100 + i);
        ck_assert_msg(ends(&waits[i], scene.event), "%s: %m", waits[i].name);
        ck_assert_msg(take_event(scene.memory, &event), "%s: no event", waits[i].name);
        ck_assert_uint_eq(event.data, 100 + i);
        ck_assert_int_eq(event.res, BLOCK);
        ck_assert(!take_event(scene.memory, &event));
        if (!waits[i].reads)
            ck_assert(wait_read(scene.event));
        ck_assert_uint_eq(count, 1);
    }
    aio_scene_close(&scene);
}
END_TEST

START_TEST(a_wait_that_fails_keeps_its_errno)
{
    struct aio_scene scene;
    aio_scene_open(&scene);
    int nonblocking = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    submit_write(&scene, 1); /* something for the pump to do */
    errno = 0;
    ck_assert(read(nonblocking, &count, sizeof count) == -1 && errno == EAGAIN);
    errno = 0;
    ck_assert(epoll_wait(nonblocking, &(struct epoll_event){0}, 1, 0) == -1 && errno == EINVAL);
    errno = 0;
    struct pollfd *volatile nowhere = (struct pollfd *)8;
    ck_assert(poll(nowhere, 1, 0) == -1 && errno == EFAULT);
    errno = 77;
    ck_assert(poll(NULL, 0, 0) == 0 && errno == 77);
    close(nonblocking);
    aio_scene_close(&scene);
}
END_TEST

static struct aio_scene *interrupted;
static _Atomic unsigned interruptions;

static void poll_in_handler(int number)
{
    (void)number;
    int error = errno;
    poll(&(struct pollfd){.fd = interrupted->event, .events = POLLIN}, 1, 0);
    atomic_fetch_add(&interruptions, 1);
    errno = error;
}

START_TEST(a_handler_that_waits_interrupts_a_wait_without_harm)
{
    struct aio_scene scene;
    struct io_event event;
    size_t requests = rounds(3000, 100000);
    aio_scene_open(&scene);
    interrupted = &scene;
    struct sigaction action = {.sa_handler = poll_in_handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    timer_t timer;
    struct itimerspec often = {{0, 100000}, {0, 100000}};
    ck_assert(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);

    for (size_t i = 0; i < requests; i++) {
        submit_write(&scene, i);
        while (poll(&(struct pollfd){.fd = scene.event, .events = POLLIN}, 1, PATIENCE * 1000) < 0)
            ck_assert_int_eq(errno, EINTR);
        ck_assert_msg(take_event(scene.memory, &event), "request %zu is lost", i);
        ck_assert_uint_eq(event.data, i);
        ck_assert_int_eq(event.res, BLOCK);
        ck_assert(!take_event(scene.memory, &event));
        ck_assert(wait_read(scene.event));
    }
    timer_delete(timer);
    ck_assert_uint_gt(atomic_load(&interruptions), 0);
    aio_scene_close(&scene);
}
END_TEST

/* --- io_uring ----------------------------------------------------------------------------------------------------- */

/* A request that completes in a while, after io_uring_enter has returned. */
static void submit_timeout(struct ring *ring, uint64_t number)
{
    static const struct __kernel_timespec while_ = {.tv_nsec = 2000000};
    ring_submit(ring,
                &(struct io_uring_sqe){
                    .opcode = IORING_OP_TIMEOUT, .fd = -1, .addr = (uintptr_t)&while_, .len = 1, .user_data = number});
}

static void check_completion(struct ring *ring, const struct wait *wait, uint64_t number)
{
    struct io_uring_cqe cqe;
    ck_assert_msg(take_completion(ring, &cqe), "%s: no completion", wait->name);
    ck_assert_uint_eq(cqe.user_data, number);
    ck_assert_int_eq(cqe.res, -ETIME);
    ck_assert(!take_completion(ring, &cqe));
}

START_TEST(after_every_wait_for_a_rings_eventfd_the_completion_is_in_the_ring)
{
    struct ring ring;
    if (!ring_open(&ring)) {
        test_skip("no io_uring: %s", strerror(errno));
        return;
    }
    int event = eventfd(0, EFD_CLOEXEC);
    ck_assert_int_eq(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_EVENTFD, &event, 1), 0);
    for (size_t i = 0; i < WAITS; i++) {
        submit_timeout(&ring, 100 + i);
        ck_assert_msg(ends(&waits[i], event), "%s: %m", waits[i].name);
        check_completion(&ring, &waits[i], 100 + i);
        if (!waits[i].reads)
            ck_assert(wait_read(event));
    }
    ring_close(&ring);
    close(event);
}
END_TEST

START_TEST(after_every_wait_for_a_ring_itself_the_completion_is_in_the_ring)
{
    struct ring ring;
    if (!ring_open(&ring)) {
        test_skip("no io_uring: %s", strerror(errno));
        return;
    }
    for (size_t i = 0; i < WAITS; i++) {
        if (waits[i].reads)
            continue;
        submit_timeout(&ring, 200 + i);
        /* Not ready because of what has been consumed already. */
        ck_assert_int_eq(poll(&(struct pollfd){.fd = ring.fd, .events = POLLIN}, 1, 0), 0);
        ck_assert_msg(ends(&waits[i], ring.fd), "%s: %m", waits[i].name);
        check_completion(&ring, &waits[i], 200 + i);
    }
    ring_close(&ring);
}
END_TEST

/* --- Arguments ---------------------------------------------------------------------------------------------------- */

START_TEST(the_raw_waits_report_the_time_that_is_left)
{
    struct aio_scene scene;
    aio_scene_open(&scene);
    submit_write(&scene, 1);
    struct timespec left = {.tv_sec = PATIENCE};
    ck_assert_int_eq(syscall(SYS_ppoll, &(struct pollfd){.fd = scene.event, .events = POLLIN}, 1, &left, NULL, 0), 1);
    ck_assert(left.tv_sec < PATIENCE);
    const struct timespec constant = {.tv_sec = PATIENCE};
    ck_assert_int_eq(ppoll(&(struct pollfd){.fd = scene.event, .events = POLLIN}, 1, &constant, NULL), 1);
    ck_assert(constant.tv_sec == PATIENCE && constant.tv_nsec == 0);
    aio_scene_close(&scene);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {after_every_wait_for_an_eventfd_the_event_is_in_the_context,
                                  a_wait_that_fails_keeps_its_errno,
                                  a_handler_that_waits_interrupts_a_wait_without_harm,
                                  after_every_wait_for_a_rings_eventfd_the_completion_is_in_the_ring,
                                  after_every_wait_for_a_ring_itself_the_completion_is_in_the_ring,
                                  the_raw_waits_report_the_time_that_is_left,
                                  NULL};

    return support_main(argc, argv, "wait_hooks", 60, NULL, tests);
}
