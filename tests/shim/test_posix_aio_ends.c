/*
 * POSIX AIO on direct files: how requests end. Over before anybody is told, in lists with others, cancelled, and together with their descriptor or
 * process.
 */
#include <aio.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/posix_aio.h"
#include "support/support.h"

enum { DEPTH = 32, LENGTH = 16 * BLOCK, SIZE = DEPTH * LENGTH, OLD = 1, NEW = 2 };

/* ThreadSanitizer sees neither this program's own synchronisation nor what a child of threads does. */
static bool sanitizer_is_blind(void)
{
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");
    if (!sanitizer || strcmp(sanitizer, "tsan") != 0)
        return false;
    test_skip("ThreadSanitizer cannot follow it");
    return true;
}

/* --- Told --------------------------------------------------------------------------------------------------------- */

/* A read into unaligned memory, and whether its data is there when the program is told. */
static struct {
    struct aiocb control;
    _Atomic int told, wrong;
} watched;

static void look(void)
{
    if (aio_error(&watched.control) != 0 || aio_return(&watched.control) != LENGTH ||
        pattern_check((const void *)(uintptr_t)watched.control.aio_buf, LENGTH, OLD, 0) != LENGTH)
        atomic_fetch_add(&watched.wrong, 1);
    atomic_fetch_add(&watched.told, 1);
}

static void look_in_handler(int number)
{
    (void)number;
    look();
}

static void look_in_thread(union sigval value)
{
    (void)value;
    look();
}

static void told(const char *path)
{
    int fd = posix_file(path, OLD, SIZE);
    signal(SIGRTMIN, look_in_handler);
    for (int i = 0; i < (int)rounds(200, 5000); i++) {
        memset(direct_memory(), 0, LENGTH);
        watched.control = control_of(fd, direct_memory(), LENGTH, 0);
        if (i % 2) {
            watched.control.aio_sigevent.sigev_notify = SIGEV_SIGNAL;
            watched.control.aio_sigevent.sigev_signo = SIGRTMIN;
        } else {
            watched.control.aio_sigevent.sigev_notify = SIGEV_THREAD;
            watched.control.aio_sigevent.sigev_notify_function = look_in_thread;
        }
        int before = atomic_load(&watched.told);
        ck_assert_int_eq(aio_read(&watched.control), 0);
        for (int ms = 0; atomic_load(&watched.told) == before; ms++) {
            ck_assert_msg(ms < POSIX_PATIENCE * 10000, "never told");
            usleep(100);
        }
        ck_assert_int_eq(end_of(&watched.control), LENGTH);
    }
    ck_assert_int_eq(atomic_load(&watched.wrong), 0);
    close(fd);
}

START_TEST(the_data_is_there_when_the_program_is_told)
{
    if (!sanitizer_is_blind())
        posix_on_every_file_system(told);
}
END_TEST

/* --- Together with other files ------------------------------------------------------------------------------------ */

static void mixed(const char *path)
{
    int fd = posix_file(path, OLD, SIZE), ends[2];
    char plain_path[4200], text[2];
    snprintf(plain_path, sizeof plain_path, "%s.plain", path);
    int plain = open(plain_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert(plain >= 0 && pipe(ends) == 0);
    unsigned char *memory = direct_memory();
    for (int mode = LIO_WAIT; mode <= LIO_NOWAIT; mode++) {
        pattern_fill(memory, SIZE, NEW, 0);
        struct aiocb stuck = control_of(ends[0], text, 1, 0),
                     controls[4] = {control_of(fd, memory, LENGTH, 0), control_of(plain, memory, LENGTH, 0),
                                    control_of(fd, memory + LENGTH, LENGTH, LENGTH),
                                    control_of(plain, memory + LENGTH, LENGTH, LENGTH)};
        struct aiocb *list[5] = {NULL};
        for (int i = 0; i < 4; i++) {
            controls[i].aio_lio_opcode = LIO_WRITE;
            list[i + 1] = &controls[i];
        }
        ck_assert_int_eq(aio_read(&stuck), 0);
        ck_assert_int_eq(lio_listio(mode, list, 5, NULL), 0);
        const struct aiocb *waiting[] = {&stuck, NULL, &controls[0], &controls[1], &controls[2], &controls[3]};
        ck_assert_int_eq(aio_suspend(waiting, 6, &(struct timespec){.tv_sec = POSIX_PATIENCE}), 0);
        for (int i = 0; i < 4; i++) {
            ck_assert(mode == LIO_NOWAIT || aio_error(&controls[i]) == 0);
            ck_assert_int_eq(end_of(&controls[i]), LENGTH);
        }
        ck_assert_int_eq(aio_suspend(waiting, 1, &(struct timespec){.tv_nsec = 1000000}), -1);
        ck_assert_int_eq(errno, EAGAIN);
        ck_assert_int_eq(write(ends[1], "x", 1), 1);
        ck_assert_int_eq(end_of(&stuck), 1);
        for (int i = 0; i < 4; i++)
            controls[i].aio_lio_opcode = LIO_READ;
        controls[1].aio_buf = memory + 2 * LENGTH;
        controls[3].aio_buf = memory + 3 * LENGTH;
        memset(memory, 0, SIZE);
        ck_assert_int_eq(lio_listio(LIO_WAIT, list, 5, NULL), 0);
        ck_assert_uint_eq(pattern_check(memory, 2 * LENGTH, NEW, 0), 2 * LENGTH);
        ck_assert_uint_eq(pattern_check(memory + 2 * LENGTH, 2 * LENGTH, NEW, 0), 2 * LENGTH);
        direct_write(fd, OLD, 0, SIZE);
    }
    close(ends[0]);
    close(ends[1]);
    close(plain);
    close(fd);
    unlink(plain_path);
}

START_TEST(lists_mix_direct_files_with_others)
{
    posix_on_every_file_system(mixed);
}
END_TEST

/* The buffered writer of a file that has checksums is seen too. */
static void watched_writes(const char *path)
{
    int fd = posix_file(path, OLD, SIZE);
    int plain = open(path, O_RDWR | O_CLOEXEC);
    unsigned char *memory = direct_memory();
    ck_assert_int_ge(plain, 0);
    for (size_t i = 0; i < DEPTH; i += 2) {
        pattern_fill(memory, LENGTH, NEW, i * LENGTH);
        ck_assert_int_eq(posix_write(plain, memory, LENGTH, i * LENGTH), LENGTH);
    }
    struct aiocb sync = control_of(plain, NULL, 0, 0);
    ck_assert_int_eq(aio_fsync(O_SYNC, &sync), 0);
    ck_assert_int_eq(end_of(&sync), 0);
    for (size_t i = 0; i < DEPTH; i++)
        direct_check(fd, i % 2 ? OLD : NEW, (off_t)(i * LENGTH), LENGTH);
    close(plain);
    close(fd);
}

START_TEST(buffered_writes_to_a_direct_file_are_followed)
{
    posix_on_every_file_system(watched_writes);
}
END_TEST

/* --- Ends --------------------------------------------------------------------------------------------------------- */

static void cancelled(const char *path)
{
    int fd = posix_file(path, OLD, SIZE);
    struct aiocb controls[DEPTH];
    unsigned char *memory = direct_memory();
    int cancelled_some = 0;
    for (int turn = 0; turn < 5; turn++) {
        pattern_fill(memory, SIZE, NEW, 0);
        for (size_t i = 0; i < DEPTH; i++) {
            controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
            ck_assert_int_eq(aio_write(&controls[i]), 0);
        }
        int result = aio_cancel(fd, turn % 2 ? &controls[DEPTH - 1] : NULL);
        ck_assert(result == AIO_CANCELED || result == AIO_NOTCANCELED || result == AIO_ALLDONE);
        for (size_t i = 0; i < DEPTH; i++) {
            ssize_t n = end_of(&controls[i]);
            ck_assert_msg(n == LENGTH || n == -ECANCELED, "write gave %zd", n);
            direct_check(fd, n > 0 ? NEW : OLD, (off_t)(i * LENGTH), LENGTH);
            cancelled_some += n < 0;
        }
        ck_assert_int_eq(aio_cancel(fd, NULL), AIO_ALLDONE);
        direct_write(fd, OLD, 0, SIZE);
    }
    ck_assert_int_gt(cancelled_some, 0);
    close(fd);
}

START_TEST(cancelled_writes_leave_the_file_alone)
{
    posix_on_every_file_system(cancelled);
}
END_TEST

static void closed(const char *path)
{
    struct aiocb controls[DEPTH];
    unsigned char *memory = direct_memory();
    for (int turn = 0; turn < 10; turn++) {
        int fd = posix_file(path, OLD, SIZE);
        pattern_fill(memory, SIZE, NEW, 0);
        for (size_t i = 0; i < DEPTH; i++) {
            controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
            ck_assert_int_eq(aio_write(&controls[i]), 0);
        }
        close(fd);
        for (size_t i = 0; i < DEPTH; i++) {
            ssize_t n = end_of(&controls[i]);
            ck_assert_msg(n == LENGTH || n == -EBADF, "write gave %zd", n);
        }
        fd = direct_open(path, O_RDONLY);
        for (size_t i = 0; i < DEPTH; i++)
            direct_check(fd, end_of(&controls[i]) > 0 ? NEW : OLD, (off_t)(i * LENGTH), LENGTH);
        close(fd);
    }
}

START_TEST(a_descriptor_is_closed_with_writes_in_flight)
{
    if (!sanitizer_is_blind())
        posix_on_every_file_system(closed);
}
END_TEST

static void forked(const char *path)
{
    int fd = posix_file(path, OLD, SIZE);
    struct aiocb controls[DEPTH];
    unsigned char *memory = direct_memory();
    pattern_fill(memory, SIZE, NEW, 0);
    for (size_t i = 0; i < DEPTH; i++) {
        controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
        ck_assert_int_eq(aio_write(&controls[i]), 0);
    }
    pid_t child = fork();
    if (child == 0) {
        unsigned char *own = buffer_new(LENGTH);
        alarm(POSIX_PATIENCE);
        check_that(aio_cancel(fd, NULL) == AIO_ALLDONE, "a child has its parent's requests");
        for (int i = 0; i < 20; i++)
            check_that(posix_read(fd, own, LENGTH, 0) == LENGTH, "a read in the child");
        _exit(0);
    }
    int status;
    ck_assert(waitpid(child, &status, 0) == child && status == 0);
    for (size_t i = 0; i < DEPTH; i++)
        ck_assert_int_eq(end_of(&controls[i]), LENGTH);
    direct_check(fd, NEW, 0, SIZE);
    close(fd);
}

START_TEST(a_child_has_requests_of_its_own)
{
    if (!sanitizer_is_blind())
        posix_on_every_file_system(forked);
}
END_TEST

/* arguments: file, how. */
static int end_in_flight(int argc, char **argv)
{
    check_that(argc == 2, "usage: --end FILE HOW");
    int fd = posix_file(argv[0], OLD, SIZE);
    struct aiocb controls[DEPTH];
    unsigned char *memory = direct_memory();
    pattern_fill(memory, SIZE, NEW, 0);
    for (size_t i = 0; i < DEPTH; i++) {
        controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
        check_that(aio_write(&controls[i]) == 0, "aio_write");
    }
    if (strcmp(argv[1], "_exit") == 0)
        _exit(0);
    if (strcmp(argv[1], "kill") == 0)
        kill(getpid(), SIGKILL);
    exit(0);
}

static void ended(const char *path)
{
    static const char *const ways[] = {"exit", "_exit", "kill"};
    for (int i = 0; i < 9; i++) {
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--end", path, ways[i % 3], NULL});
        ck_assert_msg(WIFSIGNALED(child.status) ? WTERMSIG(child.status) == SIGKILL : child.status == 0, "%s: %x %s",
                      ways[i % 3], child.status, child.errors);
        ck_assert(child.seconds < POSIX_PATIENCE);
        child_free(&child);
        int fd = direct_open(path, O_RDONLY);
        for (size_t at = 0; at < SIZE; at += LENGTH) {
            unsigned char *memory = direct_memory();
            ck_assert_int_eq(posix_read(fd, memory, LENGTH, at), LENGTH);
            for (size_t block = 0; block < LENGTH; block += BLOCK)
                ck_assert(pattern_check(memory + block, BLOCK, OLD, at + block) == BLOCK ||
                          pattern_check(memory + block, BLOCK, NEW, at + block) == BLOCK);
        }
        close(fd);
    }
}

START_TEST(a_program_ends_with_writes_in_flight)
{
    posix_on_every_file_system(ended);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--end", end_in_flight}, {NULL, NULL}};
    const TTest *const tests[] = {the_data_is_there_when_the_program_is_told,    lists_mix_direct_files_with_others,
                                  buffered_writes_to_a_direct_file_are_followed, cancelled_writes_leave_the_file_alone,
                                  a_descriptor_is_closed_with_writes_in_flight,  a_child_has_requests_of_its_own,
                                  a_program_ends_with_writes_in_flight,          NULL};

    return support_main(argc, argv, "posix_aio_ends", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
