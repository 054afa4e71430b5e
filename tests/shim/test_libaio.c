/*
 * Shadow contexts as programs use them: reaped from memory after an eventfd or a wait has told of an event, as QEMU does it; by call after that;
 * counted against the context's size; with descriptors closed meanwhile. Every wait is bounded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/libaio_setting.h"

/* --- Reaped from memory --------------------------------------------------------------------------------------------- */

static void play_memory(void)
{
    alarm(100);
    for (uint64_t i = 0; i < rounds(600, 60000); i++) {
        const enum wait wait = (enum wait)(i % WAITS);

        submit_read((int)(i % DEPTH), i % BLOCKS, true);
        wait_by(wait);
        /* Without the shim too: the event is there before the eventfd tells. */
        check_that(reap_from_memory() == 1, "told by %d of what is not in the ring", (int)wait);
        drain_eventfd();
    }
}

START_TEST(the_ring_shows_in_memory_what_an_eventfd_tells_of)
{
    on_two(play_memory, DEPTH);
}
END_TEST

static void play_deep(void)
{
    int in_flight = 0;
    uint64_t done = 0, submitted = 0;
    bool busy[DEPTH] = {false};

    alarm(100);
    while (done < rounds(2000, 100000)) {
        struct ring *ring = (struct ring *)(void *)setting.context;

        for (int i = 0; i < DEPTH; i++)
            if (!busy[i]) {
                submit_read(i, submitted++ % BLOCKS, true);
                busy[i] = true;
                in_flight++;
            }
        wait_by(BY_POLL);
        drain_eventfd();
        for (unsigned head = ring->head; head != atomic_load(&ring->tail); head = (head + 1) % ring->nr) {
            check_read(&ring->events[head]);
            busy[ring->events[head].obj - setting.iocbs] = false;
            atomic_store(&ring->head, (head + 1) % ring->nr);
            in_flight--;
            done++;
        }
    }
    for (struct io_event event; in_flight > 0; in_flight--) {
        struct timespec time = {.tv_sec = PATIENCE};

        check_that(io_getevents(setting.context, 1, 1, &event, &time) == 1, "%d are missing", in_flight);
        check_read(&event);
    }
}

START_TEST(a_program_that_never_calls_to_reap_gets_every_event)
{
    on_two(play_deep, DEPTH);
}
END_TEST

/* A library that checks whether it may reap from memory must not: nobody would pump for it. */
START_TEST(the_ring_does_not_pass_for_the_kernel_s)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    set_up(&fs[0], 1);
    const struct ring *ring = (const struct ring *)(const void *)setting.context;
    if (counting()) {
        ck_assert_uint_ne(ring->magic, 0xa10a10a1);
        ck_assert_uint_ne(ring->incompat_features, 0);
    }
    ck_assert_uint_eq(ring->header_length, 32);
    tear_down();
}
END_TEST

/* --- In the shadow, and by call ------------------------------------------------------------------------------------- */

static void play_order(void)
{
    struct io_event events[DEPTH];
    struct timespec time = {.tv_sec = PATIENCE};
    void *bad = buffer_new(BLOCK);

    alarm(100);
    for (int i = 0; i < 3; i++) {
        submit_read(i, (uint64_t)i, true);
        wait_by(BY_POLL);
        drain_eventfd();
    }
    submit_read(3, 3, false);
    /* An address that takes only the first two: none of them may be lost, nor change its place. */
    struct io_event *edge = (struct io_event *)(void *)((char *)bad + BLOCK) - 2;
    check_that(io_getevents(setting.context, 3, 3, edge, &time) == -EFAULT, "bad memory was good enough");
    check_that(io_getevents(setting.context, 1, 1, events, &time) == 1, "nothing there");
    check_that(events[0].obj == setting.list[0], "not the oldest");
    check_that(io_getevents(setting.context, 3, DEPTH, events + 1, &time) == 3, "not all there");
    for (int i = 0; i < 4; i++) {
        check_that(events[i].obj == setting.list[i], "place %d is another's", i);
        check_read(&events[i]);
    }
    buffer_free(bad, BLOCK);
}

START_TEST(events_in_the_shadow_are_reaped_first_and_in_order)
{
    on_two(play_order, DEPTH);
}
END_TEST

/* Submit until the context is full. @return how many it took. */
static int fill_up(bool notified)
{
    int count = 0;

    for (;; count++) {
        struct iocb *iocb = setting.list[0];

        io_prep_pread(iocb, setting.fd, place(0), BLOCK, 0);
        iocb->data = NULL;
        if (notified)
            io_set_eventfd(iocb, setting.event);
        int n = io_submit(setting.context, 1, &iocb);
        if (n == -EAGAIN)
            return count;
        check_that(n == 1 && count < 10000, "submit gave %d", n);
    }
}

static void play_capacity(void)
{
    struct io_event *events = calloc(10000, sizeof *events);
    struct timespec time = {.tv_sec = PATIENCE}, moment = {.tv_nsec = 100000000};

    alarm(100);
    const int all = fill_up(true);
    struct ring *ring = (struct ring *)(void *)setting.context;
    ck_assert_int_gt(all, 0);
    ck_assert_int_lt(all, (int)ring->nr);
    /* They are all over, and told of; but nobody has taken them. */
    nanosleep(&moment, NULL);
    wait_by(BY_POLL);
    drain_eventfd();
    const int more = fill_up(false);
    /* The kernel counts in batches, for each processor: there may be a few places that it did not give away. */
    ck_assert_int_lt(all + more, (int)ring->nr);
    ck_assert_int_lt(more, all / 4);
    ck_assert_int_eq(reap_from_memory(), all);
    ck_assert_int_gt(fill_up(false), all / 2);
    ck_assert_int_ge(io_getevents(setting.context, all / 2, 10000, events, &time), all / 2);
    free(events);
}

START_TEST(events_that_nobody_has_taken_count_against_the_context_s_size)
{
    on_two(play_capacity, 1);
}
END_TEST

/* --- Descriptors ---------------------------------------------------------------------------------------------------- */

static void play_closing(void)
{
    struct io_event event;
    struct timespec time = {.tv_sec = PATIENCE};

    for (size_t i = 0; i < rounds(200, 5000); i++) {
        const int fd = open(setting.path, O_RDWR | O_DIRECT | O_CLOEXEC);

        pattern_fill(place(0), BLOCK, SEED, i % BLOCKS * BLOCK);
        io_prep_pwrite(&setting.iocbs[0], fd, place(0), BLOCK, (long long)(i % BLOCKS * BLOCK));
        check_that(io_submit(setting.context, 1, setting.list) == 1, "cannot submit");
        close(fd);
        /* The number is another file's when the request completes. */
        const int other = eventfd(0, EFD_CLOEXEC);
        memset(place(0), 0, BLOCK);
        check_that(io_getevents(setting.context, 1, 1, &event, &time) == 1 && (long)event.res == BLOCK, "not written");
        close(other);
    }
    direct_check(setting.fd, SEED, 0, SIZE);
}

START_TEST(descriptors_are_closed_with_requests_in_flight)
{
    const struct bounceio_stats before = counters();

    on_two(play_closing, DEPTH);
    const struct bounceio_stats after = counters();
    ck_assert_uint_eq(after.mismatches, before.mismatches);
    ck_assert_uint_eq(after.passed_through, before.passed_through);
    if (counting())
        ck_assert_uint_gt(after.blocks_verified, before.blocks_verified);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {the_ring_shows_in_memory_what_an_eventfd_tells_of,
                                  a_program_that_never_calls_to_reap_gets_every_event,
                                  the_ring_does_not_pass_for_the_kernel_s,
                                  events_in_the_shadow_are_reaped_first_and_in_order,
                                  events_that_nobody_has_taken_count_against_the_context_s_size,
                                  descriptors_are_closed_with_requests_in_flight,
                                  NULL};

    return support_main(argc, argv, "libaio", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, NULL, tests);
}
