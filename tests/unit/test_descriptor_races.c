/* The descriptor table under threads and forks: nothing is mistaken for something else, and no reference is lost or kept. */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "files/classify.h"
#include "files/descriptor.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { THREADS = 8, FILES = 4, ROUNDS = 400, NUMBERS = 1024 };

static struct map_fixture fixture;
static char paths[FILES][FIXTURE_PATH + 16];
static uint64_t inodes[FILES];

static void make_files(void)
{
    map_fixture_prepare(&fixture);
    close(fixture.fd);
    for (int i = 0; i < FILES; i++) {
        struct stat status;
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        int fd = map_fixture_file(&fixture, name);
        ck_assert_int_eq(fstat(fd, &status), 0);
        inodes[i] = status.st_ino;
        snprintf(paths[i], sizeof paths[i], "%s.%s", fixture.path, name);
        close(fd);
    }
}

/*
 * Numbers come and go by raw system calls: the shim's own do, and a ThreadSanitizer that sees only some of them takes a number that
 * was given out again for a race.
 */
static int open_number(int file, int flags)
{
    int fd = (int)raw(SYS_openat, AT_FDCWD, paths[file], flags | O_CLOEXEC);
    if (fd >= 0)
        fd_opened(fd, flags, false);
    return fd;
}

static void close_number(int fd)
{
    uint64_t closing = fd_closing(fd);
    raw(SYS_close, fd);
    fd_closed(fd, closing);
}

/* After everything was closed: no entry, no object and no offset refers to anything. */
static void assert_nothing_is_held(void)
{
    uint64_t saved;
    process_lock(&saved);
    file_reap();
    process_unlock(&saved);
    unsigned held = 0;
    for (int fd = 0; fd < NUMBERS; fd++)
        held += fd_word_file(fd_word(fd)) || fd_word_offset(fd_word(fd));
    for (uint32_t i = 0; i < THREADS * ROUNDS; i++)
        held += file_at(i)->references != 0 || file_at(i)->in_use || offset_at(i)->references != 0;
    ck_assert_uint_eq(held, 0);
}

struct worker {
    struct random random;
    pthread_t thread;
};

static atomic_uint mistakes;

/* A number that only this thread uses: what the table says of it must be true. */
static void look_at_my_own(int fd, int file)
{
    struct fd_view view;
    if (fd_view_open(&view, fd, false) != 0 || view.state != FD_DIRECT || view.file->inode != inodes[file] ||
        !file_has_map(view.file))
        mistakes++;
    fd_view_close(&view);
}

/* Any number, which other threads open, close and replace meanwhile: whatever is seen must hold together. */
static void look_at_any(struct worker *worker)
{
    struct fd_view view;
    if (fd_view_open(&view, (int)random_below(&worker->random, 40), false) != 0)
        return;
    if (view.state == FD_DIRECT || view.state == FD_WATCHED) {
        bool known = false;
        for (int i = 0; i < FILES; i++)
            known |= view.file->inode == inodes[i];
        if (!known || !view.file->in_use || view.file->references == 0)
            mistakes++;
    }
    fd_view_close(&view);
}

static void *use_numbers(void *argument)
{
    struct worker *worker = argument;
    for (int round = 0; round < ROUNDS; round++) {
        int file = (int)random_below(&worker->random, FILES);
        int fd = open_number(file, O_RDWR | O_DIRECT);
        if (fd < 0) {
            mistakes++;
            continue;
        }
        look_at_my_own(fd, file);
        int copy = (int)raw(SYS_dup, fd);
        fd_duplicated(copy, fd);
        int plain = open_number(file, random_chance(&worker->random, 50) ? O_RDWR : O_RDONLY);
        look_at_any(worker);
        close_number(fd);
        look_at_my_own(copy, file);
        if (random_chance(&worker->random, 5))
            fd_flags_changed();
        look_at_my_own(copy, file);
        uint64_t replacing = fd_replacing(plain);
        raw(SYS_dup3, copy, plain, 0);
        fd_replaced(plain, copy, replacing, true);
        close_number(copy);
        look_at_my_own(plain, file);
        close_number(plain);
        look_at_any(worker);
    }
    return NULL;
}

START_TEST(threads_that_open_and_close_mistake_nothing_and_keep_nothing)
{
    struct worker workers[THREADS];
    make_files();
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.random = {random_run_seed() + i}};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, use_numbers, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    ck_assert_uint_eq(mistakes, 0);
    assert_nothing_is_held();
}
END_TEST

static atomic_bool finished;

static void *look_at_one(void *argument)
{
    const int fd = *(const int *)argument;
    while (!finished) {
        struct fd_view view;
        if (fd_view_open(&view, fd, false) == 0 && view.state == FD_DIRECT && view.file->inode != inodes[0])
            mistakes++;
        fd_view_close(&view);
    }
    return NULL;
}

START_TEST(a_number_that_is_looked_at_while_it_comes_and_goes_keeps_nothing)
{
    enum { LOOKERS = 3 };
    pthread_t lookers[LOOKERS];
    make_files();
    int kept = open_number(0, O_RDWR | O_DIRECT), fd = dup(kept);
    for (int i = 0; i < LOOKERS; i++)
        ck_assert_int_eq(pthread_create(&lookers[i], NULL, look_at_one, &fd), 0);
    for (int i = 0; i < 20000; i++) {
        fd_duplicated(fd, kept);
        fd_closed(fd, fd_closing(fd));
    }
    finished = true;
    for (int i = 0; i < LOOKERS; i++)
        pthread_join(lookers[i], NULL);
    close_number(fd);
    close_number(kept);
    ck_assert_uint_eq(mistakes, 0);
    assert_nothing_is_held();
}
END_TEST

START_TEST(thousands_of_opens_and_closes_leave_nothing_behind)
{
    make_files();
    for (int i = 0; i < 3000; i++)
        close_number(open_number(i % FILES, O_RDWR | O_DIRECT));
    assert_nothing_is_held();
}
END_TEST

START_TEST(the_map_of_a_file_that_was_unlinked_goes_with_its_last_number)
{
    char command[FIXTURE_PATH + 64];
    make_files();
    int fd = open_number(0, O_RDWR | O_DIRECT), copy = dup(fd), kept = open_number(1, O_RDWR | O_DIRECT);
    fd_duplicated(copy, fd);
    ck_assert_int_eq(unlink(paths[0]), 0);
    snprintf(command, sizeof command, "exit $(ls '%s/maps' | wc -l)", fixture.store);
    close_number(fd);
    ck_assert_int_eq(WEXITSTATUS(system(command)), 2);
    close_number(copy);
    ck_assert_int_eq(WEXITSTATUS(system(command)), 1);
    close_number(kept);
    ck_assert_int_eq(WEXITSTATUS(system(command)), 1);
}
END_TEST

/* ---- Processes. ---- */

/* What a child of either kind of fork finds, as an exit status. */
static int child_learns_anew(int fd)
{
    struct fd_view view;
    if (fd_word_state(fd_word(fd)) != FD_UNKNOWN)
        return 1;
    if (fd_view_open(&view, fd, false) != 0 || view.state != FD_DIRECT)
        return 2;
    if (view.offset)
        return 3; /* its parent has it, too */
    if (view.file->inode != inodes[0] || !file_has_map(view.file))
        return 4;
    fd_view_close(&view);
    close_number(fd);
    return fd_word_state(fd_word(fd)) == FD_UNKNOWN ? 0 : 5;
}

static pid_t raw_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

START_TEST(a_forked_child_knows_nothing_and_learns_again)
{
    pid_t (*const forks[])(void) = {fork, raw_fork};
    make_files();
    int fd = open_number(0, O_RDWR | O_DIRECT);
    for (int i = 0; i < 2; i++) {
        int status;
        pid_t child = forks[i]();
        if (child == 0)
            _exit(child_learns_anew(fd));
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        ck_assert_int_eq(fd_word_state(fd_word(fd)), FD_DIRECT);
    }
}
END_TEST

/* Run `body` in a vfork child. @return its exit status. */
static int run_in_vfork_child(int (*body)(int fd), int fd)
{
    int status;
    pid_t child = vfork();
    if (child == 0)
        _exit(body(fd));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

static int change_all(int fd)
{
    close_number(fd);
    fd_opened(fd + 1, O_RDWR | O_DIRECT, false);
    fd_duplicated(fd + 2, fd);
    fd_flags_changed();
    fd_range_closing(0, 100);
    fd_range_closed(0, 100);
    return 0;
}

START_TEST(a_vfork_child_changes_nothing)
{
    make_files();
    int direct = open_number(0, O_RDWR | O_DIRECT), plain = open_number(1, O_RDWR);
    uint64_t words[] = {fd_word(direct), fd_word(plain)};
    ck_assert_int_eq(plain, direct + 1);
    ck_assert_int_eq(run_in_vfork_child(change_all, direct), 0);
    ck_assert_uint_eq(fd_word(direct), words[0]);
    ck_assert_uint_eq(fd_word(plain), words[1]);
    ck_assert_int_eq(fd_word_state(fd_word(plain + 1)), FD_UNKNOWN);
    ck_assert_uint_eq(fd_word_file(words[0])->references, 1);
}
END_TEST

/* Replace a number that is direct in the parent by a pipe, and see what it is. */
static int replace_and_look(int fd)
{
    struct fd_view view;
    int ends[2];
    if (pipe(ends) != 0)
        return 1;
    uint64_t replacing = fd_replacing(fd);
    dup2(ends[1], fd);
    fd_replaced(fd, ends[1], replacing, true);
    int result = fd_view_open(&view, fd, false) == 0 && view.state == FD_PLAIN ? 0 : 2;
    fd_view_close(&view);
    return result;
}

START_TEST(a_vfork_child_does_not_take_its_own_number_for_its_parent_s)
{
    make_files();
    int direct = open_number(0, O_RDWR | O_DIRECT);
    ck_assert_int_eq(run_in_vfork_child(replace_and_look, direct), 0);
    ck_assert_int_eq(fd_word_state(fd_word(direct)), FD_DIRECT);
}
END_TEST

/* ---- Far out. ---- */

START_TEST(numbers_beyond_the_table_are_not_remembered_and_hold_nothing)
{
    make_files();
    int fd = open_number(0, O_RDWR | O_DIRECT);
    const int numbers[] = {-1, FD_MAX, FD_MAX + 1, INT_MAX};
    for (int i = 0; i < 4; i++) {
        fd_opened(numbers[i], O_RDWR | O_DIRECT, false);
        fd_opened(numbers[i], O_RDWR, false);
        fd_duplicated(numbers[i], fd);
        fd_replaced(numbers[i], fd, fd_replacing(numbers[i]), true);
        fd_stream_opened(numbers[i], NULL);
        ck_assert_int_eq(fd_word_state(fd_word(numbers[i])), FD_UNKNOWN);
        ck_assert(!fd_reads_pass(numbers[i]));
        close_number(numbers[i]);
    }
    ck_assert_uint_eq(fd_word_file(fd_word(fd))->references, 1);
    close_number(fd);
    assert_nothing_is_held();
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        threads_that_open_and_close_mistake_nothing_and_keep_nothing,
        a_number_that_is_looked_at_while_it_comes_and_goes_keeps_nothing,
        thousands_of_opens_and_closes_leave_nothing_behind,
        the_map_of_a_file_that_was_unlinked_goes_with_its_last_number,
        a_forked_child_knows_nothing_and_learns_again,
        a_vfork_child_changes_nothing,
        a_vfork_child_does_not_take_its_own_number_for_its_parent_s,
        numbers_beyond_the_table_are_not_remembered_and_hold_nothing,
        NULL,
    };
    process_start();
    random_run_seed();
    return support_main(argc, argv, "descriptor_races", 60, NULL, tests);
}
