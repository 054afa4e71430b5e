/*
 * io_uring without direct files, without the shim and with it: the same script sees the same results, completions, readiness and errors.
 * By liburing's functions; test_uring_calls.c has the system calls, and what happens to descriptors.
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
#include "support/rings.h"

enum { ENTRIES = RINGS_ENTRIES };

static struct __kernel_timespec milliseconds(int n)
{
    return (struct __kernel_timespec){.tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000L};
}

/* --- Submitting and reaping --------------------------------------------------------------------------------------------- */

static void simple(unsigned flags)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;

    if (!rings_open(&ring, flags, 0))
        return;
    if (flags & IORING_SETUP_R_DISABLED) {
        rings_add(&ring, 1);
        note_result("submit while disabled", io_uring_submit(&ring));
        note_result("enable", io_uring_register((unsigned)ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
        note_result("submit", io_uring_submit(&ring));
        note_result("get events", io_uring_get_events(&ring));
        rings_note_all(&ring);
    }
    note_result("submit nothing", io_uring_submit(&ring));
    note_result("peek nothing", io_uring_peek_cqe(&ring, &cqe));
    for (unsigned i = 0; i < ENTRIES; i++)
        rings_add(&ring, 100 + i);
    note("another entry %d, room %u, ready %u", io_uring_get_sqe(&ring) != NULL, io_uring_sq_space_left(&ring),
         io_uring_sq_ready(&ring));
    note_result("submit and wait", io_uring_submit_and_wait(&ring, 3));
    note("cq ready %u, sq ready %u", io_uring_cq_ready(&ring), io_uring_sq_ready(&ring));
    note_result("wait", io_uring_wait_cqe(&ring, &cqe));
    rings_note(&ring, cqe);
    io_uring_cqe_seen(&ring, cqe);
    note_result("wait for more", io_uring_wait_cqe_nr(&ring, &cqe, 7));
    rings_note_all(&ring);
    note_result("get events", io_uring_get_events(&ring));
    rings_note_all(&ring);
    for (unsigned round = 0; round < 40; round++) {
        rings_add(&ring, 1000 + round);
        rings_add(&ring, 2000 + round);
        note_result("submit and get events", io_uring_submit_and_get_events(&ring));
        rings_note_all(&ring);
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
    if (!rings_open(&ring, IORING_SETUP_SQPOLL, 0))
        return;
    for (unsigned i = 0; i < 100; i++) {
        rings_add(&ring, i);
        note_result("submitted", io_uring_submit(&ring) >= 0); /* how many, depends on the kernel's thread */
        note_result("wait", io_uring_wait_cqe(&ring, &cqe));
        rings_note(&ring, cqe);
        io_uring_cqe_seen(&ring, cqe);
    }
    /* Reaped from memory alone. */
    for (unsigned i = 0; i < ENTRIES; i++)
        rings_add(&ring, 200 + i);
    note_result("submitted", io_uring_submit(&ring) >= 0);
    for (int i = 0; i < 5000 && io_uring_cq_ready(&ring) < ENTRIES; i++)
        usleep(1000);
    rings_note_all(&ring);
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
    if (pipe(ends) != 0 || !rings_open(&ring, 0, 0))
        return;
    rings_add(&ring, 1)->flags |= IOSQE_IO_LINK;
    rings_add(&ring, 2)->flags |= IOSQE_IO_LINK;
    rings_add(&ring, 3);
    note_result("a chain", io_uring_submit_and_wait(&ring, 3));
    rings_note_all(&ring);
    rings_add_read(&ring, -1, &byte, 1, 4);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_LINK;
    rings_add(&ring, 5)->flags |= IOSQE_IO_LINK;
    rings_add(&ring, 6);
    note_result("a chain that breaks", io_uring_submit_and_wait(&ring, 3));
    rings_note_all(&ring);
    rings_add_read(&ring, -1, &byte, 1, 7);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_HARDLINK;
    rings_add(&ring, 8);
    note_result("a hard link", io_uring_submit_and_wait(&ring, 2));
    rings_note_all(&ring);
    rings_add(&ring, 9)->flags |= IOSQE_CQE_SKIP_SUCCESS;
    rings_add(&ring, 10)->flags |= IOSQE_IO_DRAIN;
    note_result("a silent one, a drain", io_uring_submit_and_wait(&ring, 1));
    rings_note_all(&ring);
    rings_add_read(&ring, ends[0], &byte, 1, 11);
    ring.sq.sqes[(ring.sq.sqe_tail - 1) & *ring.sq.kring_mask].flags |= IOSQE_IO_LINK;
    struct io_uring_sqe *sqe = rings_add(&ring, 12);

    io_uring_prep_link_timeout(sqe, &soon, 0);
    sqe->user_data = 12;
    note_result("a linked time-out", io_uring_submit_and_wait(&ring, 2));
    rings_note_all(&ring);
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
    if (!rings_open(&ring, 0, 0))
        return;
    note_result("wait, nothing comes", io_uring_wait_cqe_timeout(&ring, &cqe, &soon));
    note_result("wait for two", io_uring_wait_cqes(&ring, &cqe, 2, &soon, NULL));
    rings_add(&ring, 1);
    note_result("wait for two, one comes", io_uring_submit_and_wait_timeout(&ring, &cqe, 2, &soon, NULL));
    note("there %d", cqe != NULL);
    rings_note_all(&ring);
    rings_add(&ring, 2);
    note_result("one comes", io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &later, NULL));
    rings_note_all(&ring);
    alarm_in(20);
    note_result("interrupted", io_uring_wait_cqe(&ring, &cqe));
    alarm_in(20);
    note_result("interrupted, with a limit", io_uring_wait_cqe_timeout(&ring, &cqe, &later));
    alarm_in(20);
    note_result("not interrupted", io_uring_wait_cqes(&ring, &cqe, 1, &soon, &blocked));
    alarm_in(20);
    rings_add(&ring, 3);
    note_result("interrupted with one there", io_uring_submit_and_wait(&ring, 2));
    rings_note_all(&ring);
    alarm_in(20);
    note_result("waiting for more than there will be",
                io_uring_enter((unsigned)ring.ring_fd, 0, 1000, IORING_ENTER_GETEVENTS, NULL));
    for (unsigned i = 0; i < 4; i++)
        rings_add(&ring, 10 + i);
    note_result("submit", io_uring_submit(&ring));
    note_result("wait for those that are there",
                io_uring_enter((unsigned)ring.ring_fd, 0, 4, IORING_ENTER_GETEVENTS, NULL));
    note_result("two of them", io_uring_wait_cqe_nr(&ring, &cqe, 2));
    io_uring_cq_advance(&ring, 2);
    alarm_in(20);
    note_result("three when two are left", io_uring_enter((unsigned)ring.ring_fd, 0, 3, IORING_ENTER_GETEVENTS, NULL));
    rings_note_all(&ring);
    io_uring_queue_exit(&ring);
}

/* A thread's worth of time-outs: requests that end by themselves, one after the other. */
static void time_outs(const char *directory)
{
    struct __kernel_timespec times[4];
    struct io_uring ring;

    (void)directory;
    if (!rings_open(&ring, 0, 0))
        return;
    for (int i = 0; i < 4; i++) {
        struct io_uring_sqe *sqe = rings_add(&ring, 0);

        times[i] = milliseconds(40 - 10 * i);
        io_uring_prep_timeout(sqe, &times[i], 0, 0);
        sqe->user_data = (unsigned)i;
    }
    note_result("submit", io_uring_submit(&ring));
    for (int i = 0; i < 4; i++) {
        struct io_uring_cqe *cqe;

        note_result("wait", io_uring_wait_cqe(&ring, &cqe));
        rings_note(&ring, cqe);
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
    if (!rings_open(&ring, 0, 0))
        return;
    epoll_ctl(levels, EPOLL_CTL_ADD, ring.ring_fd, &level);
    epoll_ctl(edges, EPOLL_CTL_ADD, ring.ring_fd, &edge);
    rings_note_ready(&ring);
    for (int round = 0; round < 3; round++) {
        note_epoll(levels);
        note_epoll(edges);
        rings_add(&ring, 1);
        rings_add(&ring, 2);
        io_uring_submit(&ring);
        rings_note_ready(&ring);
        note_epoll(levels);
        note_epoll(levels);
        note_epoll(edges);
        note_epoll(edges);
        io_uring_cq_advance(&ring, 1);
        rings_note_ready(&ring);
        note_epoll(levels);
        note_epoll(edges);
        rings_note_all(&ring);
        rings_note_ready(&ring);
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
    if (!rings_open(&ring, 0, ENTRIES))
        return;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < ENTRIES; i++)
            rings_add(&ring, round * ENTRIES + i);
        note_result("submit", io_uring_submit(&ring));
        note("flags %x, overflow %u, ready %u, has %d", *ring.sq.kflags & IORING_SQ_CQ_OVERFLOW, *ring.cq.koverflow,
             io_uring_cq_ready(&ring), io_uring_cq_has_overflow(&ring));
    }
    for (unsigned i = 0; i < 3; i++) {
        note_result("peek", io_uring_peek_cqe(&ring, &cqe));
        rings_note(&ring, cqe);
        io_uring_cqe_seen(&ring, cqe);
    }
    for (unsigned round = 0; round < 6; round++) {
        note_result("get events", io_uring_get_events(&ring));
        note("flags %x", *ring.sq.kflags & IORING_SQ_CQ_OVERFLOW);
        rings_note_ready(&ring);
        rings_note_all(&ring);
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
    if (!rings_open(&ring, 0, 0))
        return;
    note_result("register", io_uring_register_eventfd(&ring, event));
    note_count(event);
    rings_add(&ring, 1);
    io_uring_submit(&ring);
    note_count(event);
    rings_note_all(&ring);
    note_result("disable", io_uring_cq_eventfd_toggle(&ring, false));
    note("enabled %d", io_uring_cq_eventfd_enabled(&ring));
    rings_add(&ring, 2);
    io_uring_submit(&ring);
    note_count(event);
    note_result("enable", io_uring_cq_eventfd_toggle(&ring, true));
    rings_add(&ring, 3);
    io_uring_submit(&ring);
    note_count(event);
    rings_note_all(&ring);
    note_result("unregister", io_uring_unregister_eventfd(&ring));
    note_result("register for other threads", io_uring_register_eventfd_async(&ring, event));
    rings_add(&ring, 4);
    io_uring_submit(&ring);
    note_count(event);
    rings_note_all(&ring);
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
    if (pipe(ends) != 0 || !rings_open(&ring, 0, 0))
        return;
    sqe = rings_add(&ring, 0);
    io_uring_prep_poll_multishot(sqe, ends[0], POLLIN);
    sqe->user_data = 1;
    io_uring_submit(&ring);
    for (int i = 0; i < 3; i++) {
        check_that(write(ends[1], &byte, 1) == 1, "pipe");
        note_result("get events", io_uring_get_events(&ring));
        rings_note_all(&ring);
        check_that(read(ends[0], &byte, 1) == 1, "pipe");
    }
    sqe = rings_add(&ring, 0);
    io_uring_prep_poll_remove(sqe, 1);
    sqe->user_data = 2;
    note_result("remove", io_uring_submit_and_wait(&ring, 2));
    rings_note_all(&ring);
    rings_add_read(&ring, ends[0], into, sizeof into, 3);
    io_uring_submit(&ring);
    sqe = rings_add(&ring, 0);
    io_uring_prep_cancel64(sqe, 3, 0);
    sqe->user_data = 4;
    note_result("cancel", io_uring_submit_and_wait(&ring, 2));
    rings_note_all(&ring);
    rings_add_read(&ring, ends[0], into, sizeof into, 5);
    io_uring_submit(&ring);
    struct io_uring_sync_cancel_reg wish = {.addr = 5, .timeout = {.tv_sec = -1, .tv_nsec = -1}};

    note_result("cancel at once", io_uring_register_sync_cancel(&ring, &wish));
    note_result("get events", io_uring_get_events(&ring));
    rings_note_all(&ring);
    io_uring_queue_exit(&ring);
    close(ends[0]);
    close(ends[1]);
}

static void messages(const char *directory)
{
    struct io_uring from, to;
    struct io_uring_sqe *sqe;

    (void)directory;
    if (!rings_open(&from, 0, 0) || !rings_open(&to, 0, 0))
        return;
    sqe = rings_add(&from, 0);
    io_uring_prep_msg_ring(sqe, to.ring_fd, 77, 99, 0);
    sqe->user_data = 1;
    note_result("send", io_uring_submit_and_wait(&from, 1));
    rings_note_all(&from);
    rings_note_ready(&to);
    rings_note_all(&to);
    rings_note_ready(&to);
    io_uring_queue_exit(&from);
    io_uring_queue_exit(&to);
}

/* --- Running ------------------------------------------------------------------------------------------------------------------ */

/* Short ones, in one record. */
static void others(const char *directory)
{
    time_outs(directory);
    messages(directory);
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
