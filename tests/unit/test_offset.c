/* File offsets: who shares them. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/process.h"
#include "files/offset.h"
#include "support/support.h"

static struct offset *new_offset(void)
{
    uint64_t saved;
    process_lock(&saved);
    struct offset *offset = offset_new();
    process_unlock(&saved);
    ck_assert_ptr_nonnull(offset);
    return offset;
}

static void enter(struct offset_use *use, struct offset *offset)
{
    ck_assert_int_eq(offset_enter(use, offset, false), 0);
}

static void fork_once(void)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
}

/* ---- Alone. ---- */

START_TEST(a_request_that_is_alone_is_exclusive)
{
    struct offset_use use;
    struct offset *offset = new_offset();
    for (int i = 0; i < 3; i++) {
        enter(&use, offset);
        ck_assert(use.exclusive);
        ck_assert(offset_was_exclusive(&use));
        offset_leave(&use);
    }
    ck_assert_uint_eq(offset->users, 0);
}
END_TEST

START_TEST(a_request_without_an_offset_object_is_not_exclusive)
{
    struct offset_use use;
    enter(&use, NULL);
    ck_assert(!use.exclusive);
    ck_assert(!offset_was_exclusive(&use));
    ck_assert(!offset_was_sought(&use));
    offset_leave(&use);
}
END_TEST

START_TEST(requests_on_different_descriptions_do_not_meet)
{
    struct offset_use first, second;
    enter(&first, new_offset());
    enter(&second, new_offset());
    ck_assert(offset_was_exclusive(&first) && offset_was_exclusive(&second));
}
END_TEST

/* ---- Two and more. ---- */

struct second_request {
    struct offset *offset;
    struct offset_use use;
    atomic_bool entered;
};

static void *enter_second(void *argument)
{
    struct second_request *second = argument;
    offset_enter(&second->use, second->offset, false);
    second->entered = true;
    return NULL;
}

/* A first request has entered; a second one, in a thread, is about to. */
static pthread_t start_second(struct second_request *second, struct offset *offset)
{
    pthread_t thread;
    *second = (struct second_request){.offset = offset};
    ck_assert_int_eq(pthread_create(&thread, NULL, enter_second, second), 0);
    while (atomic_load(&offset->users) < 2)
        usleep(100);
    return thread;
}

START_TEST(the_second_request_waits_for_the_first)
{
    struct second_request second;
    struct offset_use first;
    struct offset *offset = new_offset();
    enter(&first, offset);
    pthread_t thread = start_second(&second, offset);
    usleep(50 * 1000);
    ck_assert(!second.entered);
    offset_leave(&first);
    pthread_join(thread, NULL);
    ck_assert(second.entered);
}
END_TEST

START_TEST(of_two_requests_that_meet_neither_was_exclusive)
{
    struct second_request second;
    struct offset_use first;
    struct offset *offset = new_offset();
    enter(&first, offset);
    pthread_t thread = start_second(&second, offset);
    ck_assert(!offset_was_exclusive(&first));
    offset_leave(&first);
    pthread_join(thread, NULL);
    ck_assert(!second.use.exclusive);
    ck_assert(!offset_was_exclusive(&second.use));
    offset_leave(&second.use);
    ck_assert_uint_eq(offset->users, 0);
}
END_TEST

START_TEST(a_description_stays_shared_and_nobody_waits_again)
{
    struct second_request second;
    struct offset_use first, third, fourth;
    struct offset *offset = new_offset();
    enter(&first, offset);
    pthread_t thread = start_second(&second, offset);
    offset_leave(&first);
    pthread_join(thread, NULL);
    offset_leave(&second.use);
    enter(&third, offset);
    ck_assert(!third.exclusive);
    enter(&fourth, offset); /* would wait for ever: this thread holds the third */
    ck_assert(!fourth.exclusive);
}
END_TEST

static void *enter_and_end(void *offset)
{
    struct offset_use abandoned;
    offset_enter(&abandoned, offset, false);
    return NULL;
}

START_TEST(a_first_request_that_never_ends_is_not_waited_for_for_ever)
{
    struct offset_use use;
    pthread_t thread;
    struct offset *offset = new_offset();
    ck_assert_int_eq(pthread_create(&thread, NULL, enter_and_end, offset), 0);
    pthread_join(thread, NULL);
    enter(&use, offset);
    ck_assert(!use.exclusive);
}
END_TEST

/* A signal handler in the middle of the first, or what follows a jump out of it. */
START_TEST(a_thread_does_not_wait_for_itself)
{
    struct timespec before, after;
    struct offset_use first, second;
    struct offset *offset = new_offset();
    enter(&first, offset);
    clock_gettime(CLOCK_MONOTONIC, &before);
    enter(&second, offset);
    clock_gettime(CLOCK_MONOTONIC, &after);
    ck_assert_int_lt((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000, 500);
    ck_assert(!second.exclusive);
    ck_assert(!offset_was_exclusive(&first));
}
END_TEST

START_TEST(a_second_request_that_must_not_wait_is_refused_and_leaves_no_trace)
{
    struct offset_use first, second;
    struct offset *offset = new_offset();
    enter(&first, offset);
    ck_assert_int_eq(offset_enter(&second, offset, true), -EAGAIN);
    ck_assert(offset_was_exclusive(&first));
    ck_assert_uint_eq(offset->users, 1);
    offset_leave(&first);
    ck_assert_int_eq(offset_enter(&second, offset, true), 0);
    ck_assert(offset_was_exclusive(&second));
}
END_TEST

START_TEST(on_a_shared_description_nobody_is_refused)
{
    struct offset_use first, second;
    struct offset *offset = new_offset();
    offset->shared = true;
    enter(&first, offset);
    ck_assert_int_eq(offset_enter(&second, offset, true), 0);
    ck_assert(!second.exclusive);
}
END_TEST

/* ---- Forks. ---- */

START_TEST(a_fork_shares_the_descriptions_there_were)
{
    struct offset_use use;
    struct offset *before = new_offset();
    fork_once();
    struct offset *after = new_offset();
    enter(&use, before);
    ck_assert(!use.exclusive);
    enter(&use, after);
    ck_assert(use.exclusive);
}
END_TEST

/* ---- Seeks. ---- */

START_TEST(a_seek_is_noticed_by_the_requests_under_way_and_by_no_later_one)
{
    struct offset_use use, seek;
    struct offset *offset = new_offset();
    enter(&use, offset);
    ck_assert(!offset_was_sought(&use));
    offset_enter_seek(&seek, offset);
    ck_assert(offset_was_sought(&use));
    ck_assert(!offset_was_exclusive(&use));
    offset_leave(&seek);
    offset_leave(&use);
    enter(&use, offset);
    ck_assert(!offset_was_sought(&use));
    offset_leave(&use);
    ck_assert_uint_eq(offset->users, 0);
}
END_TEST

START_TEST(a_seek_that_is_under_way_is_noticed_by_a_request_that_comes)
{
    struct offset_use use, seek;
    struct offset *offset = new_offset();
    offset_enter_seek(&seek, offset);
    enter(&use, offset);
    offset_leave(&seek);
    ck_assert(offset_was_sought(&use));
}
END_TEST

START_TEST(a_seek_alone_leaves_the_description_exclusive)
{
    struct offset_use use, seek;
    struct offset *offset = new_offset();
    offset_enter_seek(&seek, offset);
    offset_leave(&seek);
    enter(&use, offset);
    ck_assert(offset_was_exclusive(&use));
}
END_TEST

static void *seek_second(void *argument)
{
    struct second_request *second = argument;
    offset_enter_seek(&second->use, second->offset);
    second->entered = true;
    offset_leave(&second->use);
    return NULL;
}

START_TEST(a_seek_waits_for_the_first_request)
{
    struct second_request second = {.offset = new_offset()};
    struct offset_use first;
    pthread_t thread;
    enter(&first, second.offset);
    ck_assert_int_eq(pthread_create(&thread, NULL, seek_second, &second), 0);
    while (atomic_load(&second.offset->users) < 2)
        usleep(100);
    usleep(50 * 1000);
    ck_assert(!second.entered && !offset_was_sought(&first));
    offset_leave(&first);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(second.offset->seekers, 0);
}
END_TEST

/* ---- Objects. ---- */

START_TEST(an_object_is_found_by_its_index)
{
    for (int i = 0; i < 100; i++) {
        struct offset *offset = new_offset();
        ck_assert_ptr_eq(offset_at(offset_index(offset)), offset);
    }
}
END_TEST

START_TEST(an_object_is_used_again_when_its_last_reference_is_gone)
{
    struct offset *first = new_offset();
    offset_hold(first);
    offset_release(first);
    ck_assert_ptr_ne(new_offset(), first);
    offset_release(first);
    ck_assert_ptr_eq(new_offset(), first);
}
END_TEST

START_TEST(an_object_used_again_is_not_shared_any_more)
{
    struct offset_use use;
    struct offset *offset = new_offset();
    offset->shared = true;
    enter(&use, offset); /* and never left */
    fork_once();
    offset_release(offset);
    ck_assert_ptr_eq(new_offset(), offset);
    enter(&use, offset);
    ck_assert(use.exclusive);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_request_that_is_alone_is_exclusive,
        a_request_without_an_offset_object_is_not_exclusive,
        requests_on_different_descriptions_do_not_meet,
        the_second_request_waits_for_the_first,
        of_two_requests_that_meet_neither_was_exclusive,
        a_description_stays_shared_and_nobody_waits_again,
        a_first_request_that_never_ends_is_not_waited_for_for_ever,
        a_thread_does_not_wait_for_itself,
        a_second_request_that_must_not_wait_is_refused_and_leaves_no_trace,
        on_a_shared_description_nobody_is_refused,
        a_fork_shares_the_descriptions_there_were,
        a_seek_is_noticed_by_the_requests_under_way_and_by_no_later_one,
        a_seek_that_is_under_way_is_noticed_by_a_request_that_comes,
        a_seek_alone_leaves_the_description_exclusive,
        a_seek_waits_for_the_first_request,
        an_object_is_found_by_its_index,
        an_object_is_used_again_when_its_last_reference_is_gone,
        an_object_used_again_is_not_shared_any_more,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "offset", 20, NULL, tests);
}
