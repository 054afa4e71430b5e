/* Start-up, the arena that a child finds wiped, ownership of the tables, and the lock. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/next.h"
#include "base/process.h"
#include "support/support.h"

/* An initialiser of this program's own, as the floors above have them. */
static unsigned char *carved, *carved_next;
static int initialised;

static void carve(void)
{
    initialised++;
    carved = process_arena(100);
    carved_next = process_arena(1);
    memset(carved, 'p', 100);
}
PROCESS_INITIALISER(carve);

static int status_of(pid_t child)
{
    int status;
    ck_assert_int_gt(child, 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static pid_t raw_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

START_TEST(start_up_runs_every_initialiser_once)
{
    ck_assert(process_start());
    ck_assert(process_start());
    ck_assert_int_eq(initialised, 1);
}
END_TEST

START_TEST(arena_pieces_are_zeroed_aligned_and_apart)
{
    ck_assert_uint_eq((uintptr_t)carved % 64, 0);
    ck_assert_uint_eq((uintptr_t)carved_next % 64, 0);
    ck_assert(carved_next >= carved + 100);
    ck_assert_int_eq(*carved_next, 0);
}
END_TEST

START_TEST(every_kind_of_fork_wipes_the_arena)
{
    carved[0] = 'x';
    pid_t (*const forks[])(void) = {fork, raw_fork, _Fork};
    for (size_t i = 0; i < sizeof(forks) / sizeof(forks[0]); i++) {
        pid_t child = forks[i]();
        if (child == 0) {
            bool wiped = true;
            for (int at = 0; at < 100; at++)
                wiped &= carved[at] == 0;
            carved[0] = 'c';
            _exit(wiped ? 0 : 1);
        }
        ck_assert_int_eq(status_of(child), 0);
        ck_assert_int_eq(carved[0], 'x');
    }
}
END_TEST

START_TEST(this_process_owns_its_tables)
{
    ck_assert(process_owns_tables());
}
END_TEST

START_TEST(a_forked_child_takes_ownership_and_its_parent_keeps_it)
{
    pid_t (*const forks[])(void) = {fork, raw_fork, _Fork};
    ck_assert(process_owns_tables());
    for (size_t i = 0; i < sizeof(forks) / sizeof(forks[0]); i++) {
        pid_t child = forks[i]();
        if (child == 0)
            _exit(process_owns_tables() && process_owns_tables() ? 0 : 1);
        ck_assert_int_eq(status_of(child), 0);
        ck_assert(process_owns_tables());
    }
}
END_TEST

/* ThreadSanitizer and valgrind make a vfork a fork, and do not survive every fork of a program with threads. */
static bool program_is_emulated(void)
{
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");
    return getenv("BOUNCEIO_TEST_VALGRIND") || (sanitizer && strcmp(sanitizer, "tsan") == 0);
}

/* Written by a vfork child, which shares memory with its parent. */
static volatile bool vfork_child_owned;

static int vfork_once(void)
{
    pid_t child = vfork();
    if (child == 0) {
        vfork_child_owned = process_owns_tables();
        _exit(0);
    }
    return status_of(child);
}

START_TEST(a_vfork_child_owns_nothing)
{
    if (program_is_emulated()) {
        test_skip("vfork is emulated");
        return;
    }
    vfork_child_owned = true;
    ck_assert_int_eq(vfork_once(), 0);
    ck_assert(!vfork_child_owned);
    ck_assert(process_owns_tables());
}
END_TEST

START_TEST(a_vfork_child_cannot_take_a_fresh_child_s_tables)
{
    if (program_is_emulated()) {
        test_skip("vfork is emulated");
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        vfork_child_owned = true;
        vfork_once();
        _exit(!vfork_child_owned && process_owns_tables() ? 0 : 1);
    }
    ck_assert_int_eq(status_of(child), 0);
}
END_TEST

enum { LOCKERS = 8, ROUNDS = 20000 };
static long locked_counter;

static void lock_unlock(int rounds)
{
    for (int i = 0; i < rounds; i++) {
        uint64_t saved;
        process_lock(&saved);
        long seen = locked_counter;
        if (i % 64 == 0)
            sched_yield(); /* long enough for another thread to run into the lock */
        locked_counter = seen + 1;
        process_unlock(&saved);
    }
}

static void *lock_many_times(void *unused)
{
    lock_unlock(ROUNDS);
    return unused;
}

START_TEST(the_lock_excludes)
{
    pthread_t threads[LOCKERS];
    for (int i = 0; i < LOCKERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, lock_many_times, NULL), 0);
    for (int i = 0; i < LOCKERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(locked_counter, (long)LOCKERS * ROUNDS);
}
END_TEST

START_TEST(the_lock_blocks_every_signal)
{
    sigset_t before, during, after;
    uint64_t saved;
    sigprocmask(SIG_SETMASK, NULL, &before);
    process_lock(&saved);
    sigprocmask(SIG_SETMASK, NULL, &during);
    process_unlock(&saved);
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number <= SIGRTMAX; number++) {
        bool can_be_blocked = number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN);
        if (can_be_blocked)
            ck_assert_msg(sigismember(&during, number) == 1, "signal %d", number);
        if (can_be_blocked)
            ck_assert_int_eq(sigismember(&after, number), sigismember(&before, number));
    }
}
END_TEST

static atomic_int ticks;

static void lock_in_a_handler(int number)
{
    uint64_t saved;
    (void)number;
    process_lock(&saved);
    process_unlock(&saved);
    ticks++;
}

START_TEST(a_handler_never_finds_the_lock_taken_by_its_own_thread)
{
    struct itimerval timer = {.it_interval = {0, 1000}, .it_value = {0, 1000}};
    signal(SIGALRM, lock_in_a_handler);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
    while (ticks < 300)
        lock_unlock(1000);
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}
END_TEST

static atomic_bool stop;

static void *lock_until_stopped(void *unused)
{
    while (!stop)
        lock_unlock(100);
    return unused;
}

START_TEST(no_child_inherits_the_lock_taken)
{
    pthread_t thread;
    if (program_is_emulated()) {
        test_skip("fork with threads hangs in the sanitizer's runtime");
        return;
    }
    ck_assert_int_eq(pthread_create(&thread, NULL, lock_until_stopped, NULL), 0);
    for (int i = 0; i < 300; i++) {
        pid_t child = i % 2 ? fork() : raw_fork();
        if (child == 0) {
            uint64_t saved;
            alarm(10);
            process_lock(&saved);
            process_unlock(&saved);
            _exit(0);
        }
        ck_assert_int_eq(status_of(child), 0);
    }
    stop = true;
    pthread_join(thread, NULL);
}
END_TEST

/* ---- Next symbols ---- */

START_TEST(next_calls_reach_the_kernel_and_set_errno)
{
    char byte;
    errno = 0;
    ck_assert_int_eq(next.read(-1, &byte, 1), -1);
    ck_assert_int_eq(errno, EBADF);
    int fd = next.open("/dev/zero", O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(next.read(fd, &byte, 1), 1);
    ck_assert_int_eq(next.close(fd), 0);
}
END_TEST

START_TEST(next_find_finds_what_there_is_and_leaves_no_error_behind)
{
    ck_assert_ptr_nonnull(next_find("__read_chk"));
    ck_assert_ptr_null(next_find("no_such_symbol_anywhere"));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        start_up_runs_every_initialiser_once,
        arena_pieces_are_zeroed_aligned_and_apart,
        every_kind_of_fork_wipes_the_arena,
        this_process_owns_its_tables,
        a_forked_child_takes_ownership_and_its_parent_keeps_it,
        a_vfork_child_owns_nothing,
        a_vfork_child_cannot_take_a_fresh_child_s_tables,
        the_lock_excludes,
        the_lock_blocks_every_signal,
        a_handler_never_finds_the_lock_taken_by_its_own_thread,
        no_child_inherits_the_lock_taken,
        next_calls_reach_the_kernel_and_set_errno,
        next_find_finds_what_there_is_and_leaves_no_error_behind,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "process", 60, NULL, tests);
}
