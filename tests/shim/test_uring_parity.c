/*
 * io_uring without direct files, without the shim and with it: the same script sees the same results, completions, readiness and errors.
 * By liburing's functions; test_uring_calls.c has the system calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/record.h"

enum { ENTRIES = 8, BATCH = 64 };

static struct __kernel_timespec milliseconds(int n)
{
    return (struct __kernel_timespec){.tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000L};
}

static bool ring_open(struct io_uring *ring, unsigned flags, unsigned completions)
{
    struct io_uring_params params = {.flags = flags | (completions ? IORING_SETUP_CQSIZE : 0),
                                     .cq_entries = completions};
    int error = io_uring_queue_init_params(ENTRIES, ring, &params);

    note_result("init", error);
    if (error != 0)
        return false;
    note("flags %x, sq %u, cq %u, masks %u %u", params.flags, params.sq_entries, params.cq_entries,
         *ring->sq.kring_mask, *ring->cq.kring_mask);
    return true;
}

static void note_cqe(const struct io_uring *ring, const struct io_uring_cqe *cqe)
{
    note("  cqe %llu res %d flags %x", (unsigned long long)cqe->user_data, cqe->res, cqe->flags);
    if (ring->flags & IORING_SETUP_CQE32)
        note("  extra %llu %llu", (unsigned long long)cqe->big_cqe[0], (unsigned long long)cqe->big_cqe[1]);
}

/* Take all there is. */
static void note_cqes(struct io_uring *ring)
{
    struct io_uring_cqe *cqes[BATCH];
    unsigned count = io_uring_peek_batch_cqe(ring, cqes, BATCH);

    note("cqes: %u", count);
    for (unsigned i = 0; i < count; i++)
        note_cqe(ring, cqes[i]);
    io_uring_cq_advance(ring, count);
}

static struct io_uring_sqe *add(struct io_uring *ring, uint64_t user_data)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    check_that(sqe, "no entry");
    io_uring_prep_nop(sqe);
    sqe->user_data = user_data;
    return sqe;
}

static void add_read(struct io_uring *ring, int fd, void *memory, unsigned length, uint64_t user_data)
{
    struct io_uring_sqe *sqe = add(ring, user_data);

    io_uring_prep_read(sqe, fd, memory, length, 0);
    sqe->user_data = user_data;
}

static void note_ready(const struct io_uring *ring)
{
    struct pollfd one = {ring->ring_fd, POLLIN, 0};
    int n = poll(&one, 1, 0);

    note("poll %d %x", n, one.revents);
}

/* --- Submitting and reaping --------------------------------------------------------------------------------------------- */

static void simple(unsigned flags)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;

    if (!ring_open(&ring, flags, 0))
        return;
    if (flags & IORING_SETUP_R_DISABLED) {
        add(&ring, 1);
        note_result("submit while disabled", io_uring_submit(&ring));
        note_result("enable", io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
        note_result("submit", io_uring_submit(&ring));
        note_result("get events", io_uring_get_events(&ring));
        note_cqes(&ring);
    }
    note_result("submit nothing", io_uring_submit(&ring));
    note_result("peek nothing", io_uring_peek_cqe(&ring, &cqe));
    for (unsigned i = 0; i < ENTRIES; i++)
        add(&ring, 100 + i);
    note("another entry %d, room %u, ready %u", io_uring_get_sqe(&ring) != NULL, io_uring_sq_space_left(&ring),
         io_uring_sq_ready(&ring));
    note_result("submit and wait", io_uring_submit_and_wait(&ring, 3));
    note("cq ready %u, sq ready %u", io_uring_cq_ready(&ring), io_uring_sq_ready(&ring));
    note_result("wait", io_uring_wait_cqe(&ring, &cqe));
    note_cqe(&ring, cqe);
    io_uring_cqe_seen(&ring, cqe);
    note_result("wait for more", io_uring_wait_cqe_nr(&ring, &cqe, 7));
    note_cqes(&ring);
    note_result("get events", io_uring_get_events(&ring));
    note_cqes(&ring);
    for (unsigned round = 0; round < 40; round++) {
        add(&ring, 1000 + round);
        add(&ring, 2000 + round);
        note_result("submit and get events", io_uring_submit_and_get_events(&ring));
        note_cqes(&ring);
    }
    io_uring_queue_exit(&ring);
}

static void setups(const char *directory)
{
    static const unsigned flags[] = {
        0, IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_COOP_TASKRUN, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, IORING_SETUP_SQE128,
        IORING_SETUP_CQE32, IORING_SETUP_SQE128 | IORING_SETUP_CQE32, IORING_SETUP_SUBMIT_ALL, IORING_SETUP_CLAMP,
        IORING_SETUP_IOPOLL,
        /* Refused. */
        IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_SQPOLL | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
        IORING_SETUP_SQPOLL | IORING_SETUP_COOP_TASKRUN, IORING_SETUP_SQ_AFF, IORING_SETUP_TASKRUN_FLAG, 1U << 31};

    (void)directory;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        note("setup %x", flags[i]);
        simple(flags[i]);
    }
    note("disabled");
    simple(IORING_SETUP_R_DISABLED);
    simple(IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

static void kernel_polls(const char *directory)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;

    (void)directory;
    if (!ring_open(&ring, IORING_SETUP_SQPOLL, 0))
        return;
    for (unsigned i = 0; i < 100; i++) {
        add(&ring, i);
        note_result("submit", io_uring_submit(&ring));
        note_result("wait", io_uring_wait_cqe(&ring, &cqe));
        note_cqe(&ring, cqe);
        io_uring_cqe_seen(&ring, cqe);
    }
    /* Reaped from memory alone. */
    for (unsigned i = 0; i < ENTRIES; i++)
        add(&ring, 200 + i);
    note_result("submit", io_uring_submit(&ring));
    for (int i = 0; i < 5000 && io_uring_cq_ready(&ring) < ENTRIES; i++)
        usleep(1000);
    note_cqes(&ring);
    note_result("wait for room", io_uring_sqring_wait(&ring) >= 0);
    io_uring_queue_exit(&ring);
}

/* --- Order ---------------------------------------------------------------------------------------------------------------- */

static void links(const char *directory)
{
    struct io_uring ring;
    struct __kernel_timespec soon = milliseconds(20);
    int ends[2];
    char byte;

    (void)directory;
    if (pipe(ends) != 0 || !ring_open(&ring, 0, 0))
        return;
    add(&ring, 1)->flags |= IOSQE_IO_LINK;
    add(&ring, 2)->flags |= IOSQE_IO_LINK;
    add(&ring, 3);
    note_result("a chain", io_uring_submit_and_wait(&ring, 3));
    note_cqes(&ring);
    add_read(&ring, -1, &byte, 1, 4);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_LINK;
    add(&ring, 5)->flags |= IOSQE_IO_LINK;
    add(&ring, 6);
    note_result("a chain that breaks", io_uring_submit_and_wait(&ring, 3));
    note_cqes(&ring);
    add_read(&ring, -1, &byte, 1, 7);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_HARDLINK;
    add(&ring, 8);
    note_result("a hard link", io_uring_submit_and_wait(&ring, 2));
    note_cqes(&ring);
    add(&ring, 9)->flags |= IOSQE_CQE_SKIP_SUCCESS;
    add(&ring, 10)->flags |= IOSQE_IO_DRAIN;
    note_result("a silent one, a drain", io_uring_submit_and_wait(&ring, 1));
    note_cqes(&ring);
    add_read(&ring, ends[0], &byte, 1, 11);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_LINK;
    struct io_uring_sqe *sqe = add(&ring, 12);

    io_uring_prep_link_timeout(sqe, &soon, 0);
    sqe->user_data = 12;
    note_result("a linked time-out", io_uring_submit_and_wait(&ring, 2));
    note_cqes(&ring);
    io_uring_queue_exit(&ring);
}

/* --- Waiting --------------------------------------------------------------------------------------------------------------- */

static void on_alarm(int number)
{
    (void)number;
}

static void alarm_in(int n)
{
    const struct itimerval timer = {.it_value = {.tv_usec = n * 1000}};

    setitimer(ITIMER_REAL, &timer, NULL);
}

static void waits(const char *directory)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct __kernel_timespec soon = milliseconds(20), later = milliseconds(5000);
    struct io_uring ring;
    struct io_uring_cqe *cqe = NULL;
    sigset_t blocked;

    (void)directory;
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGALRM);
    if (!ring_open(&ring, 0, 0))
        return;
    note_result("wait, nothing comes", io_uring_wait_cqe_timeout(&ring, &cqe, &soon));
    note_result("wait for two", io_uring_wait_cqes(&ring, &cqe, 2, &soon, NULL));
    add(&ring, 1);
    note_result("wait for two, one comes", io_uring_submit_and_wait_timeout(&ring, &cqe, 2, &soon, NULL));
    note("there %d", cqe != NULL);
    note_cqes(&ring);
    add(&ring, 2);
    note_result("one comes", io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &later, NULL));
    note_cqes(&ring);
    alarm_in(20);
    note_result("interrupted", io_uring_wait_cqe(&ring, &cqe));
    alarm_in(20);
    note_result("interrupted, with a limit", io_uring_wait_cqe_timeout(&ring, &cqe, &later));
    alarm_in(20);
    note_result("not interrupted", io_uring_wait_cqes(&ring, &cqe, 1, &soon, &blocked));
    alarm_in(20);
    add(&ring, 3);
    note_result("interrupted with one there", io_uring_submit_and_wait(&ring, 2));
    note_cqes(&ring);
    alarm_in(20);
    note_result("waiting for more than there will be",
                io_uring_enter((unsigned)ring.ring_fd, 0, 1000, IORING_ENTER_GETEVENTS, NULL));
    for (unsigned i = 0; i < 4; i++)
        add(&ring, 10 + i);
    note_result("submit", io_uring_submit(&ring));
    note_result("wait for those that are there",
                io_uring_enter((unsigned)ring.ring_fd, 0, 4, IORING_ENTER_GETEVENTS, NULL));
    note_result("two of them", io_uring_wait_cqe_nr(&ring, &cqe, 2));
    io_uring_cq_advance(&ring, 2);
    alarm_in(20);
    note_result("three when two are left", io_uring_enter((unsigned)ring.ring_fd, 0, 3, IORING_ENTER_GETEVENTS, NULL));
    note_cqes(&ring);
    io_uring_queue_exit(&ring);
}

/* A thread's worth of time-outs: requests that end by themselves, one after the other. */
static void time_outs(const char *directory)
{
    struct __kernel_timespec times[4];
    struct io_uring ring;

    (void)directory;
    if (!ring_open(&ring, 0, 0))
        return;
    for (int i = 0; i < 4; i++) {
        struct io_uring_sqe *sqe = add(&ring, 0);

        times[i] = milliseconds(40 - 10 * i);
        io_uring_prep_timeout(sqe, &times[i], 0, 0);
        sqe->user_data = (unsigned)i;
    }
    note_result("submit", io_uring_submit(&ring));
    for (int i = 0; i < 4; i++) {
        struct io_uring_cqe *cqe;

        note_result("wait", io_uring_wait_cqe(&ring, &cqe));
        note_cqe(&ring, cqe);
        io_uring_cqe_seen(&ring, cqe);
    }
    io_uring_queue_exit(&ring);
}

/* --- Readiness ------------------------------------------------------------------------------------------------------------- */

static void note_epoll(int epoll)
{
    struct epoll_event event = {0};
    int n = epoll_wait(epoll, &event, 1, 0);

    note("epoll %d %x", n, n > 0 ? event.events : 0);
}

static void readiness(const char *directory)
{
    struct io_uring ring;
    struct epoll_event level = {.events = EPOLLIN}, edge = {.events = EPOLLIN | EPOLLET};
    int levels = epoll_create1(0), edges = epoll_create1(0);

    (void)directory;
    if (!ring_open(&ring, 0, 0))
        return;
    epoll_ctl(levels, EPOLL_CTL_ADD, ring.ring_fd, &level);
    epoll_ctl(edges, EPOLL_CTL_ADD, ring.ring_fd, &edge);
    note_ready(&ring);
    for (int round = 0; round < 3; round++) {
        note_epoll(levels);
        note_epoll(edges);
        add(&ring, 1);
        add(&ring, 2);
        io_uring_submit(&ring);
        note_ready(&ring);
        note_epoll(levels);
        note_epoll(levels);
        note_epoll(edges);
        note_epoll(edges);
        io_uring_cq_advance(&ring, 1);
        note_ready(&ring);
        note_epoll(levels);
        note_epoll(edges);
        note_cqes(&ring);
        note_ready(&ring);
    }
    io_uring_queue_exit(&ring);
    close(levels);
    close(edges);
}

static void overflow(const char *directory)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;

    (void)directory;
    if (!ring_open(&ring, 0, ENTRIES))
        return;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < ENTRIES; i++)
            add(&ring, round * ENTRIES + i);
        note_result("submit", io_uring_submit(&ring));
        note("flags %x, overflow %u, ready %u, has %d", *ring.sq.kflags & IORING_SQ_CQ_OVERFLOW, *ring.cq.koverflow,
             io_uring_cq_ready(&ring), io_uring_cq_has_overflow(&ring));
    }
    for (unsigned i = 0; i < 3; i++) {
        note_result("peek", io_uring_peek_cqe(&ring, &cqe));
        note_cqe(&ring, cqe);
        io_uring_cqe_seen(&ring, cqe);
    }
    for (unsigned round = 0; round < 6; round++) {
        note_result("get events", io_uring_get_events(&ring));
        note("flags %x", *ring.sq.kflags & IORING_SQ_CQ_OVERFLOW);
        note_ready(&ring);
        note_cqes(&ring);
    }
    io_uring_queue_exit(&ring);
}

static void note_count(int event)
{
    uint64_t count = 0;
    ssize_t n = read(event, &count, sizeof count);

    note("eventfd %zd %llu", n, (unsigned long long)count);
}

static void eventfds(const char *directory)
{
    struct io_uring ring;
    int event = eventfd(0, EFD_NONBLOCK);

    (void)directory;
    if (!ring_open(&ring, 0, 0))
        return;
    note_result("register", io_uring_register_eventfd(&ring, event));
    note_count(event);
    add(&ring, 1);
    io_uring_submit(&ring);
    note_count(event);
    note_cqes(&ring);
    note_result("disable", io_uring_cq_eventfd_toggle(&ring, false));
    note("enabled %d", io_uring_cq_eventfd_enabled(&ring));
    add(&ring, 2);
    io_uring_submit(&ring);
    note_count(event);
    note_result("enable", io_uring_cq_eventfd_toggle(&ring, true));
    add(&ring, 3);
    io_uring_submit(&ring);
    note_count(event);
    note_cqes(&ring);
    note_result("unregister", io_uring_unregister_eventfd(&ring));
    note_result("register for other threads", io_uring_register_eventfd_async(&ring, event));
    add(&ring, 4);
    io_uring_submit(&ring);
    note_count(event);
    note_cqes(&ring);
    io_uring_queue_exit(&ring);
    close(event);
}

/* --- Requests that stay ----------------------------------------------------------------------------------------------------- */

static void stays(const char *directory)
{
    struct io_uring ring;
    struct io_uring_sqe *sqe;
    int ends[2];
    char byte = 'x', into[4];

    (void)directory;
    if (pipe(ends) != 0 || !ring_open(&ring, 0, 0))
        return;
    sqe = add(&ring, 0);
    io_uring_prep_poll_multishot(sqe, ends[0], POLLIN);
    sqe->user_data = 1;
    io_uring_submit(&ring);
    for (int i = 0; i < 3; i++) {
        check_that(write(ends[1], &byte, 1) == 1, "pipe");
        note_result("get events", io_uring_get_events(&ring));
        note_cqes(&ring);
        check_that(read(ends[0], &byte, 1) == 1, "pipe");
    }
    sqe = add(&ring, 0);
    io_uring_prep_poll_remove(sqe, 1);
    sqe->user_data = 2;
    note_result("remove", io_uring_submit_and_wait(&ring, 2));
    note_cqes(&ring);
    add_read(&ring, ends[0], into, sizeof into, 3);
    io_uring_submit(&ring);
    sqe = add(&ring, 0);
    io_uring_prep_cancel64(sqe, 3, 0);
    sqe->user_data = 4;
    note_result("cancel", io_uring_submit_and_wait(&ring, 2));
    note_cqes(&ring);
    add_read(&ring, ends[0], into, sizeof into, 5);
    io_uring_submit(&ring);
    struct io_uring_sync_cancel_reg wish = {.addr = 5, .timeout = {.tv_sec = -1, .tv_nsec = -1}};

    note_result("cancel at once", io_uring_register_sync_cancel(&ring, &wish));
    note_result("get events", io_uring_get_events(&ring));
    note_cqes(&ring);
    io_uring_queue_exit(&ring);
    close(ends[0]);
    close(ends[1]);
}

static void messages(const char *directory)
{
    struct io_uring from, to;
    struct io_uring_sqe *sqe;

    (void)directory;
    if (!ring_open(&from, 0, 0) || !ring_open(&to, 0, 0))
        return;
    sqe = add(&from, 0);
    io_uring_prep_msg_ring(sqe, to.ring_fd, 77, 99, 0);
    sqe->user_data = 1;
    note_result("send", io_uring_submit_and_wait(&from, 1));
    note_cqes(&from);
    note_ready(&to);
    note_cqes(&to);
    note_ready(&to);
    io_uring_queue_exit(&from);
    io_uring_queue_exit(&to);
}

/* --- Numbers ------------------------------------------------------------------------------------------------------------------ */

static void registered(const char *directory)
{
    struct io_uring ring;
    int fds[2] = {-1, -1}, ends[2];

    (void)directory;
    if (pipe(ends) != 0 || !ring_open(&ring, 0, 0))
        return;
    note_result("register", io_uring_register_ring_fd(&ring));
    add(&ring, 1);
    note_result("submit", io_uring_submit_and_wait(&ring, 1));
    note_cqes(&ring);
    fds[0] = ends[0];
    note_result("files", io_uring_register_files(&ring, fds, 2));
    note_result("files again", io_uring_register_files(&ring, fds, 2));
    note_result("update", io_uring_register_files_update(&ring, 1, &ends[1], 1));
    note_result("no files", io_uring_unregister_files(&ring));
    note_result("no files again", io_uring_unregister_files(&ring));
    note_result("unregister", io_uring_unregister_ring_fd(&ring));
    add(&ring, 2);
    note_result("submit", io_uring_submit_and_wait(&ring, 1));
    note_cqes(&ring);
    note_result("register and leave", io_uring_register_ring_fd(&ring));
    io_uring_queue_exit(&ring);
}

static void duplicates(const char *directory)
{
    struct io_uring ring, view;
    struct io_uring_params params = {0};

    (void)directory;
    note_result("init", io_uring_queue_init_params(ENTRIES, &ring, &params));
    int first = ring.ring_fd, second = dup(first);

    note_result("map the duplicate", io_uring_queue_mmap(second, &params, &view));
    add(&ring, 1);
    note_result("submit", io_uring_submit(&ring));
    note_cqes(&view);
    close(first);
    ring.ring_fd = ring.enter_ring_fd = second;
    add(&ring, 2);
    note_result("submit by the duplicate", io_uring_submit(&ring));
    note_cqes(&ring);
    check_that(dup2(STDERR_FILENO, second) == second, "dup2");
    add(&ring, 3);
    note_result("submit to what is no ring", io_uring_submit(&ring));
}

static void forked(const char *directory)
{
    struct io_uring ring;
    int status;

    (void)directory;
    if (!ring_open(&ring, 0, 0))
        return;
    add(&ring, 1);
    note_result("submit", io_uring_submit(&ring));
    fflush(stdout);
    pid_t child = fork();

    if (child == 0) {
        note_cqes(&ring);
        add(&ring, 2);
        note_result("the child's", io_uring_submit(&ring));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    note_cqes(&ring);
    ring.sq.sqe_head = ring.sq.sqe_tail = *ring.sq.ktail;
    add(&ring, 3);
    note_result("the parent's", io_uring_submit_and_wait(&ring, 1));
    note_cqes(&ring);
    io_uring_queue_exit(&ring);
}

/* --- Running ------------------------------------------------------------------------------------------------------------------ */

/* Short ones, in one record. */
static void others(const char *directory)
{
    time_outs(directory);
    messages(directory);
    registered(directory);
    duplicates(directory);
    forked(directory);
}

static const struct record_script scripts[] = {{"setups", setups},       {"kernel_polls", kernel_polls},
                                               {"links", links},         {"waits", waits},
                                               {"readiness", readiness}, {"overflow", overflow},
                                               {"eventfds", eventfds},   {"stays", stays},
                                               {"others", others},       {NULL, NULL}};

static int record(int argc, char **argv)
{
    return record_main(scripts, argc, argv);
}

START_TEST(rings_look_the_same)
{
    for (const struct record_script *script = scripts; script->name; script++)
        record_and_compare(script);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};

    return support_main(argc, argv, "parity of io_uring", 120, modes,
                        (const TTest *const[]){rings_look_the_same, NULL});
}
