/*
 * The rights to submit to a ring and to pump it, when a process that shared the ring is killed while it has them: its zombie, for which nobody has
 * waited yet, must not keep the others out.
 */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "rings/uring_ring.h"
#include "support/support.h"

static struct uring *ring;
static pid_t dead;

static void make_ring(void)
{
    struct io_uring_params params = {0};
    ck_assert(process_start());
    long fd = uring_setup(8, &params);
    ck_assert_msg(fd >= 0, "io_uring_setup: %s", strerror((int)-fd));
    ring = uring_of((int)fd);
    ck_assert_ptr_nonnull(ring);
}

/* Another process, as it is when it has been killed at this moment. */
static void kill_with(_Atomic uint32_t *right, uint32_t more)
{
    siginfo_t info;
    dead = fork();
    ck_assert_int_ge(dead, 0);
    if (dead == 0)
        for (;;)
            pause();
    atomic_store(&ring->control->shared, true);
    atomic_store(right, (uint32_t)dead | more);
    ck_assert_int_eq(kill(dead, SIGKILL), 0);
    ck_assert_int_eq(waitid(P_PID, (id_t)dead, &info, WEXITED | WNOWAIT), 0);
}

static void bury_and_close(void)
{
    int fd = ring->fd;
    ck_assert_int_eq(waitpid(dead, NULL, 0), dead);
    uring_drop(ring);
    uring_closing(fd);
    close(fd);
}

static void queue(uint64_t user_data)
{
    uint32_t tail = atomic_load(ring->sq.tail), index = tail & ring->sq.mask;
    ring->front.sqes[index] = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .fd = -1, .user_data = user_data};
    ring->sq_array[index] = index;
    atomic_store(ring->sq.tail, tail + 1);
}

static long enter(unsigned to_submit, unsigned least)
{
    return uring_enter(ring, ring->fd, to_submit, least, least > 0 ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
}

static uint64_t completion(unsigned index)
{
    return ((const struct io_uring_cqe *)(const void *)ring->cqes)[index].user_data;
}

static void submit_after_death_with(uint32_t more)
{
    make_ring();
    kill_with(&ring->control->submitting, more);
    /* It had queued an entry for the kernel, which nobody may submit any more. */
    atomic_fetch_add(ring->real_sq.tail, 1);
    queue(7);
    ck_assert_int_eq(enter(1, 1), 1);
    ck_assert_uint_eq(uring_ready(ring), 1);
    ck_assert_uint_eq(completion(0), 7);
    bury_and_close();
}

START_TEST(who_was_killed_in_a_submission_keeps_nobody_from_submitting)
{
    submit_after_death_with(0);
    submit_after_death_with(1U << 31); /* in the real call */
}
END_TEST

START_TEST(who_was_killed_in_the_pump_keeps_nothing_back)
{
    make_ring();
    kill_with(&ring->control->pumping, 0);
    queue(1);
    queue(2);
    ck_assert_int_eq(enter(2, 0), 2);
    ck_assert_uint_eq(uring_ready(ring), 0);
    /* It had counted the first as moved, but not shown it. */
    atomic_store(&ring->control->pumped, 1);
    ck_assert_int_eq(enter(0, 2), 0);
    ck_assert_uint_eq(uring_ready(ring), 2);
    ck_assert_uint_eq(completion(0), 1);
    ck_assert_uint_eq(completion(1), 2);
    bury_and_close();
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {who_was_killed_in_a_submission_keeps_nobody_from_submitting,
                                  who_was_killed_in_the_pump_keeps_nothing_back, NULL};

    return support_main(argc, argv, "rights of rings", 60, NULL, tests);
}
