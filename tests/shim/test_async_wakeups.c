/*
 * Wake-ups: whoever sleeps until a request completes is woken, whatever other threads do meanwhile; and readiness is what it is without the
 * shim, level- and edge-triggered. Every wait is bounded, and ending by the bound fails the test.
 */
#include <errno.h>
#include <libaio.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <unistd.h>

#include "support/async.h"
#include "support/direct.h"

enum { DEPTH = 16, BLOCKS = 256, SIZE = BLOCKS * BLOCK, SEED = 1, PATIENCE = 20000 };

/* Two file systems are enough: one that completes requests later, one that does so within the submission. */
static size_t two_filesystems(struct test_fs *fs)
{
    size_t count = 0;

    count += test_filesystem("xfs", &fs[count]);
    count += test_filesystem("tmpfs", &fs[count]);
    return count ? count : test_filesystems(fs);
}

static int file_of(const struct test_fs *fs)
{
    int fd = direct_open(path_in(fs->path, "file"), O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, SEED, 0, SIZE);
    return fd;
}

/* --- One submits, another sleeps ------------------------------------------------------------------------------------ */

struct relay {
    struct async async;
    int fd;
    unsigned char *memory; /* DEPTH blocks */
    uint64_t requests;
    _Atomic uint64_t submitted, reaped;
    _Atomic bool busy[DEPTH];
    bool writes;
    atomic_bool over;
};

/* Place `i % DEPTH` belongs to one request at a time. */
static struct async_request request_of(struct relay *relay, uint64_t i)
{
    unsigned char *place = relay->memory + i % DEPTH * BLOCK;
    uint64_t at = i % BLOCKS * BLOCK;

    if (!relay->writes || i % 4 != 0)
        return async_read(relay->fd, place, BLOCK, at, i % DEPTH);
    pattern_fill(place, BLOCK, SEED, at);
    return async_write(relay->fd, place, BLOCK, at, i % DEPTH);
}

static void *submitter(void *argument)
{
    struct relay *relay = argument;

    for (uint64_t i = 0; i < relay->requests; i++) {
        int64_t deadline = async_now() + PATIENCE;

        while (atomic_load(&relay->busy[i % DEPTH])) {
            check_that(async_now() < deadline, "%s: request %llu is not reaped", relay->async.door->name,
                       (unsigned long long)i);
            sched_yield();
        }
        struct async_request request = request_of(relay, i);

        atomic_store(&relay->busy[i % DEPTH], true);
        int n = async_submit(&relay->async, &request, 1);

        check_that(n == 1, "%s: submitting request %llu gave %d", relay->async.door->name, (unsigned long long)i, n);
        atomic_fetch_add(&relay->submitted, 1);
    }
    return NULL;
}

/* Sleeps for one request at a time, and must always be woken. */
static void reap_relay(struct relay *relay)
{
    struct async_result results[DEPTH];

    for (uint64_t done = 0; done < relay->requests;) {
        int n = async_reap(&relay->async, results, 1, DEPTH, PATIENCE);

        check_that(n > 0, "%s: asleep after %llu of %llu requests, %llu submitted: %d", relay->async.door->name,
                   (unsigned long long)done, (unsigned long long)relay->requests,
                   (unsigned long long)atomic_load(&relay->submitted), n);
        for (int i = 0; i < n; i++) {
            check_that(results[i].result == BLOCK, "result %lld", (long long)results[i].result);
            atomic_store(&relay->busy[results[i].tag], false);
        }
        done += (uint64_t)n;
    }
}

/* Polls, and reads from a pipe: what lets the shim look for completions on the side. */
static void *bystander(void *argument)
{
    struct relay *relay = argument;
    int ends[2];
    char byte = 0;

    check_that(pipe(ends) == 0, "pipe");
    while (!atomic_load(&relay->over)) {
        struct pollfd end = {ends[0], POLLIN, 0};

        check_that(write(ends[1], &byte, 1) == 1 && poll(&end, 1, 0) == 1 && read(ends[0], &byte, 1) == 1, "pipe");
    }
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

static void relay_run(const struct test_fs *fs, const struct async_door *door, bool with_bystander)
{
    struct relay relay = {.requests = rounds(100000, 1000000) / (with_bystander ? 10 : 2), .writes = !with_bystander};
    pthread_t threads[2];

    /* Such a ring belongs to one thread. */
    if (door->setup & IORING_SETUP_SINGLE_ISSUER || !async_open(&relay.async, door, DEPTH))
        return;
    relay.fd = file_of(fs);
    relay.memory = buffer_new(DEPTH * BLOCK);
    async_use(&relay.async, relay.fd, relay.memory, DEPTH * BLOCK);
    check_that(pthread_create(&threads[0], NULL, submitter, &relay) == 0, "no thread");
    if (with_bystander)
        check_that(pthread_create(&threads[1], NULL, bystander, &relay) == 0, "no thread");
    reap_relay(&relay);
    pthread_join(threads[0], NULL);
    atomic_store(&relay.over, true);
    if (with_bystander)
        pthread_join(threads[1], NULL);
    async_close(&relay.async);
    close(relay.fd);
    buffer_free(relay.memory, DEPTH * BLOCK);
}

static void relay_by_every_door(bool with_bystander)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = two_filesystems(fs);

    for (const struct async_door *door = async_doors; door->name; door++)
        for (size_t i = 0; i < count; i++)
            relay_run(&fs[i], door, with_bystander);
}

START_TEST(a_thread_that_sleeps_for_events_is_woken)
{
    relay_by_every_door(false);
}
END_TEST

START_TEST(a_thread_that_sleeps_is_woken_while_others_poll)
{

    if (test_skipped_under("tsan", "ThreadSanitizer sees no atomic operation of what its own poll calls"))
        return;
    relay_by_every_door(true);
}
END_TEST

/* --- Several sleep on one context ------------------------------------------------------------------------------------ */

enum { SLEEPERS = 3 };

static void *sleeper(void *argument)
{
    struct relay *relay = argument;
    struct async_result results[DEPTH];

    while (atomic_load(&relay->reaped) < relay->requests) {
        int n = async_reap(&relay->async, results, 1, 2, 100);

        check_that(n >= 0, "reaping gave %d", n);
        for (int i = 0; i < n; i++) {
            check_that(results[i].result == BLOCK, "result %lld", (long long)results[i].result);
            atomic_store(&relay->busy[results[i].tag], false);
            atomic_fetch_add(&relay->reaped, 1);
        }
    }
    return NULL;
}

START_TEST(several_threads_reap_one_context)
{
    static const char *const doors[] = {"libaio", "aio-calls"};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = two_filesystems(fs);

    for (size_t i = 0; i < 2 * count; i++) {
        struct relay relay = {.requests = rounds(20000, 200000), .writes = true};
        pthread_t threads[SLEEPERS + 1];

        if (!async_open(&relay.async, async_door(doors[i % 2]), DEPTH))
            continue;
        relay.fd = file_of(&fs[i / 2]);
        relay.memory = buffer_new(DEPTH * BLOCK);
        for (size_t t = 0; t < SLEEPERS; t++)
            check_that(pthread_create(&threads[t], NULL, sleeper, &relay) == 0, "no thread");
        check_that(pthread_create(&threads[SLEEPERS], NULL, submitter, &relay) == 0, "no thread");
        for (size_t t = 0; t <= SLEEPERS; t++)
            pthread_join(threads[t], NULL);
        ck_assert_uint_eq(atomic_load(&relay.reaped), relay.requests);
        async_close(&relay.async);
        close(relay.fd);
        buffer_free(relay.memory, DEPTH * BLOCK);
    }
}
END_TEST

/* --- Loops that wait for the ring's descriptor ----------------------------------------------------------------------- */

/* One way to wait until `fd` is readable. */
struct waiting {
    const char *name;
    bool nested; /* through a second epoll */
    unsigned edge;
    bool (*wait)(const struct waiting *waiting, int fd, int epoll, int milliseconds);
};

static bool wait_by_poll(const struct waiting *waiting, int fd, int epoll, int milliseconds)
{
    struct pollfd one = {fd, POLLIN, 0};

    (void)waiting;
    (void)epoll;
    return poll(&one, 1, milliseconds) == 1 && one.revents == POLLIN;
}

static bool wait_by_ppoll(const struct waiting *waiting, int fd, int epoll, int milliseconds)
{
    struct pollfd one = {fd, POLLIN, 0};
    struct timespec timeout = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    sigset_t none;

    (void)waiting;
    (void)epoll;
    sigemptyset(&none);
    return ppoll(&one, 1, &timeout, &none) == 1 && one.revents == POLLIN;
}

static bool wait_by_select(const struct waiting *waiting, int fd, int epoll, int milliseconds)
{
    struct timeval timeout = {milliseconds / 1000, milliseconds % 1000 * 1000L};
    fd_set set;

    (void)waiting;
    (void)epoll;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return select(fd + 1, &set, NULL, NULL, &timeout) == 1;
}

static bool wait_by_epoll(const struct waiting *waiting, int fd, int epoll, int milliseconds)
{
    struct epoll_event event;

    (void)waiting;
    (void)fd;
    return epoll_wait(epoll, &event, 1, milliseconds) == 1;
}

static bool wait_by_epoll_pwait(const struct waiting *waiting, int fd, int epoll, int milliseconds)
{
    struct epoll_event event;
    sigset_t none;

    (void)waiting;
    (void)fd;
    sigemptyset(&none);
    return epoll_pwait(epoll, &event, 1, milliseconds, &none) == 1;
}

static const struct waiting waitings[] = {
    {"poll", false, 0, wait_by_poll},
    {"ppoll", false, 0, wait_by_ppoll},
    {"select", false, 0, wait_by_select},
    {"epoll", false, 0, wait_by_epoll},
    {"epoll_pwait", false, 0, wait_by_epoll_pwait},
    {"epoll, edge-triggered", false, EPOLLET, wait_by_epoll},
    {"epoll in epoll", true, 0, wait_by_epoll},
    {"epoll in epoll, edge-triggered", true, EPOLLET, wait_by_epoll},
};
enum { WAITINGS = sizeof(waitings) / sizeof(waitings[0]) };

/* A completion's work interrupts whoever sleeps in the thread that has submitted, now and then, as a signal does. */
static bool await(const struct waiting *waiting, int fd, int epoll)
{
    int64_t deadline = async_now() + PATIENCE;

    for (;;) {
        errno = 0;
        if (waiting->wait(waiting, fd, epoll, PATIENCE))
            return true;
        if (errno != EINTR || async_now() >= deadline)
            return false;
    }
}

static int epoll_on(int fd, unsigned edge)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | edge};

    check_that(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    return epoll;
}

static unsigned queue_reads(struct io_uring *ring, int fd, unsigned char *memory, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

        io_uring_prep_read(sqe, fd, memory + (size_t)i * BLOCK, BLOCK, i * BLOCK);
        io_uring_sqe_set_data64(sqe, i);
    }
    int n = io_uring_submit(ring);

    check_that(n == (int)count, "submitting %u reads gave %d", count, n);
    return count;
}

/* Take up to `most` completions out of the ring's memory, without any call. */
static unsigned take_from_memory(struct io_uring *ring, unsigned most)
{
    unsigned head, taken = 0;
    struct io_uring_cqe *cqe;

    io_uring_for_each_cqe(ring, head, cqe)
    {
        if (taken == most)
            break;
        check_that(cqe->res == BLOCK, "completion %lld", (long long)cqe->res);
        taken++;
    }
    io_uring_cq_advance(ring, taken);
    return taken;
}

typedef void ring_use(struct io_uring *ring, int file, unsigned char *memory, const char *fs, const void *argument);

/* On two file systems, with a new ring and memory for eight reads. */
static void use_rings(ring_use *use, const void *argument)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = two_filesystems(fs);
    unsigned char *memory = buffer_new(8 * BLOCK);

    for (size_t i = 0; i < count; i++) {
        struct io_uring ring;
        int file = file_of(&fs[i]);

        ck_assert_int_eq(io_uring_queue_init(DEPTH, &ring, 0), 0);
        use(&ring, file, memory, fs[i].name, argument);
        io_uring_queue_exit(&ring);
        close(file);
    }
    buffer_free(memory, 8 * BLOCK);
}

/* An event loop: sleeps for the ring's descriptor, then looks into the ring. */
static void loop_on_ring(struct io_uring *ring, int file, unsigned char *memory, const char *fs, const void *argument)
{
    const struct waiting *waiting = argument;
    int fd = ring->ring_fd, inner = epoll_on(fd, waiting->edge);
    int epoll = waiting->nested ? epoll_on(inner, waiting->edge) : inner;

    for (size_t turn = 0; turn < rounds(300, 10000); turn++) {
        unsigned expected = queue_reads(ring, file, memory, 1 + (unsigned)turn % 8);

        for (unsigned taken = 0; taken < expected;) {
            check_that(await(waiting, fd, epoll), "%s on %s: asleep in turn %zu, %u of %u taken", waiting->name, fs,
                       turn, taken, expected);
            if (waiting->nested) {
                struct epoll_event event;

                epoll_wait(inner, &event, 1, 0);
            }
            taken += take_from_memory(ring, expected);
            check_that(taken <= expected, "%u completions of %u", taken, expected);
        }
    }
    close(inner);
    if (waiting->nested)
        close(epoll);
}

START_TEST(rings_reaped_when_their_descriptor_is_ready)
{
    for (size_t i = 0; i < WAITINGS; i++)
        use_rings(loop_on_ring, &waitings[i]);
}
END_TEST

static void ready_until_empty(struct io_uring *ring, int file, unsigned char *memory, const char *fs,
                              const void *argument)
{
    int epoll = epoll_on(ring->ring_fd, 0);

    (void)argument;
    for (size_t turn = 0; turn < 50; turn++) {
        struct io_uring_cqe *cqe;

        check_that(!wait_by_poll(NULL, ring->ring_fd, -1, 0), "%s: ready before there is anything, turn %zu", fs, turn);
        queue_reads(ring, file, memory, 4);
        check_that(io_uring_wait_cqe_nr(ring, &cqe, 4) == 0, "waiting for four");
        for (unsigned left = 4; left > 0; left--) {
            check_that(wait_by_poll(NULL, ring->ring_fd, -1, 0), "%s: not ready with %u left", fs, left);
            check_that(wait_by_epoll(NULL, -1, epoll, 0), "%s: epoll: not ready with %u left", fs, left);
            check_that(take_from_memory(ring, 1) == 1, "one of %u", left);
        }
        check_that(!wait_by_poll(NULL, ring->ring_fd, -1, 0), "%s: ready with nothing left", fs);
        check_that(!wait_by_epoll(NULL, -1, epoll, 0), "%s: epoll: ready with nothing left", fs);
    }
    close(epoll);
}

/* Level-triggered readiness is there as long as there is a completion, and no longer. */
START_TEST(readiness_ends_with_the_last_completion)
{
    use_rings(ready_until_empty, NULL);
}
END_TEST

static void loop_on_eventfd(struct io_uring *ring, int file, unsigned char *memory, const char *fs,
                            const void *argument)
{
    int event = *(const int *)argument;
    eventfd_t value;

    ck_assert_int_eq(io_uring_register_eventfd(ring, event), 0);
    for (size_t turn = 0; turn < rounds(2000, 20000); turn++) {
        unsigned expected = queue_reads(ring, file, memory, 1 + (unsigned)turn % 8);

        for (unsigned taken = 0; taken < expected;) {
            check_that(await(&waitings[0], event, -1), "%s: asleep in turn %zu, %u of %u", fs, turn, taken, expected);
            check_that(turn % 2 ? read(event, &value, sizeof(value)) == sizeof(value)
                                : eventfd_read(event, &value) == 0,
                       "eventfd");
            taken += take_from_memory(ring, expected);
        }
    }
}

START_TEST(rings_reaped_when_their_eventfd_is_ready)
{
    int event = eventfd(0, EFD_CLOEXEC);

    ck_assert_int_ge(event, 0);
    use_rings(loop_on_eventfd, &event);
    close(event);
}
END_TEST

/* --- libaio and an eventfd ------------------------------------------------------------------------------------------- */

/* What the eventfd has counted can be had at once. */
static void eventfd_loop(io_context_t context, int event, int file, unsigned char *memory, const char *fs)
{
    struct iocb iocbs[8], *list[8];
    struct io_event events[8];

    for (size_t turn = 0; turn < rounds(2000, 20000); turn++) {
        unsigned expected = 1 + (unsigned)turn % 8;

        for (unsigned i = 0; i < expected; i++) {
            io_prep_pread(&iocbs[i], file, memory + (size_t)i * BLOCK, BLOCK, i * BLOCK);
            io_set_eventfd(&iocbs[i], event);
            list[i] = &iocbs[i];
        }
        check_that(io_submit(context, expected, list) == (int)expected, "io_submit");
        for (unsigned taken = 0; taken < expected;) {
            struct timespec none = {0, 0};
            eventfd_t value;

            check_that(await(&waitings[0], event, -1), "%s: asleep in turn %zu, %u of %u", fs, turn, taken, expected);
            check_that(eventfd_read(event, &value) == 0 && value <= expected - taken, "eventfd");
            int n = io_getevents(context, (long)value, (long)value, events, &none);

            check_that(n == (int)value, "%s: the eventfd says %u, io_getevents %d", fs, (unsigned)value, n);
            taken += (unsigned)n;
        }
    }
}

START_TEST(contexts_reaped_when_their_eventfd_is_ready)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = two_filesystems(fs);
    unsigned char *memory = buffer_new(8 * BLOCK);

    for (size_t i = 0; i < count; i++) {
        int file = file_of(&fs[i]);
        int event = eventfd(0, EFD_CLOEXEC);
        io_context_t context = NULL;

        ck_assert_int_eq(io_setup(DEPTH, &context), 0);
        eventfd_loop(context, event, file, memory, fs[i].name);
        ck_assert_int_eq(io_destroy(context), 0);
        close(event);
        close(file);
    }
    buffer_free(memory, 8 * BLOCK);
}
END_TEST

/* --- A chain that is kept back while others sleep --------------------------------------------------------------------- */

static void *sleep_for_two(void *argument)
{
    struct __kernel_timespec limit = {.tv_sec = PATIENCE / 1000};
    struct io_uring_cqe *cqe;

    check_that(io_uring_wait_cqes(argument, &cqe, 2, &limit, NULL) == 0, "waiting for two");
    return NULL;
}

/* Nobody calls any more when the first link is over: the write behind it has to be submitted all the same. */
START_TEST(a_thread_that_sleeps_for_a_whole_chain_is_woken)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = two_filesystems(fs);
    unsigned char *memory = buffer_new(BLOCK);

    for (size_t i = 0; i < count; i++) {
        struct io_uring ring;
        pthread_t sleeper;
        char byte = 0;
        int ends[2], file = file_of(&fs[i]);

        ck_assert_int_eq(pipe(ends), 0);
        ck_assert_int_eq(io_uring_queue_init(DEPTH, &ring, 0), 0);
        ck_assert_int_eq(pthread_create(&sleeper, NULL, sleep_for_two, &ring), 0);
        usleep(100000);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
        io_uring_prep_read(sqe, ends[0], &byte, 1, 0);
        sqe->flags |= IOSQE_IO_LINK;
        io_uring_prep_write(io_uring_get_sqe(&ring), file, memory, BLOCK, 0);
        ck_assert_int_eq(io_uring_submit(&ring), 2);
        usleep(20000);
        ck_assert_int_eq(write(ends[1], "x", 1), 1);
        int64_t begin = async_now();
        ck_assert_int_eq(pthread_join(sleeper, NULL), 0);
        check_that(async_now() - begin < PATIENCE / 2, "%s: woken by its patience only", fs[i].name);
        check_that(io_uring_cq_ready(&ring) == 2, "%s: %u completions", fs[i].name, io_uring_cq_ready(&ring));
        io_uring_queue_exit(&ring);
        close(ends[0]);
        close(ends[1]);
        close(file);
    }
    buffer_free(memory, BLOCK);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {a_thread_that_sleeps_for_events_is_woken,
                                  a_thread_that_sleeps_is_woken_while_others_poll,
                                  several_threads_reap_one_context,
                                  rings_reaped_when_their_descriptor_is_ready,
                                  readiness_ends_with_the_last_completion,
                                  rings_reaped_when_their_eventfd_is_ready,
                                  contexts_reaped_when_their_eventfd_is_ready,
                                  a_thread_that_sleeps_for_a_whole_chain_is_woken,
                                  NULL};

    return support_main(argc, argv, "wake-ups", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 240, NULL, tests);
}
