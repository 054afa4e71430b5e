/*
 * POSIX AIO on direct files: stable, checked, and over before anybody is told; with other files in the same lists. What it has in common with
 * the C library's is in test_posix_aio_parity.c.
 */
#include <aio.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { PATIENCE = 60, DEPTH = 32, LENGTH = 16 * BLOCK, SIZE = DEPTH * LENGTH, OLD = 1, NEW = 2, RUBBISH = 0xee };

static struct aiocb control_of(int fd, void *buffer, size_t length, size_t offset)
{
    return (struct aiocb){.aio_fildes = fd,
                          .aio_buf = buffer,
                          .aio_nbytes = length,
                          .aio_offset = (off_t)offset,
                          .aio_sigevent.sigev_notify = SIGEV_NONE};
}

/* @return what the request ended with: bytes or -errno. */
static ssize_t end_of(struct aiocb *control)
{
    const struct aiocb *list[] = {control};
    const struct timespec time = {.tv_sec = PATIENCE};
    while (aio_error(control) == EINPROGRESS)
        check_that(aio_suspend(list, 1, &time) == 0 || errno == EINTR, "a request never ends");
    int error = aio_error(control);
    return error == 0 ? aio_return(control) : -error;
}

static ssize_t do_write(int fd, void *buffer, size_t length, size_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, offset);
    check_that(aio_write(&control) == 0, "aio_write");
    return end_of(&control);
}

static ssize_t do_read(int fd, void *buffer, size_t length, size_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, offset);
    check_that(aio_read(&control) == 0, "aio_read");
    return end_of(&control);
}

/* A direct file of SIZE bytes of the pattern OLD. */
static int old_file(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(fd, OLD, 0, SIZE);
    return fd;
}

static void on_every_file_system(void (*run)(const char *path))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        struct bounceio_stats before = counters();
        run(path);
        ck_assert_uint_eq(counters().mismatches, before.mismatches);
        ck_assert_uint_eq(counters().passed_through, before.passed_through);
        unlink(path);
    }
}

/* --- Stable ------------------------------------------------------------------------------------------------------- */

/* Submit DEPTH writes of the pattern NEW, and overwrite the buffer at once. */
static void overwrite_after_submission(const char *path)
{
    struct aiocb controls[DEPTH];
    unsigned char *memory = buffer_new(SIZE);
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    pattern_fill(memory, SIZE, NEW, 0);
    for (size_t i = 0; i < DEPTH; i++) {
        controls[i] = control_of(fd, memory + i * LENGTH, LENGTH, i * LENGTH);
        check_that(aio_write(&controls[i]) == 0, "aio_write");
        memset(memory + i * LENGTH, RUBBISH, LENGTH);
    }
    for (size_t i = 0; i < DEPTH; i++)
        check_that(end_of(&controls[i]) == LENGTH, "write %zu gave %zd", i, end_of(&controls[i]));
    buffer_free(memory, SIZE);
    close(fd);
}

static void overwritten(const char *path)
{
    overwrite_after_submission(path);
    ck_assert(content_is(path, NEW, SIZE));
    direct_check(direct_open(path, O_RDONLY), NEW, 0, SIZE);
}

START_TEST(buffers_overwritten_right_after_submission_do_not_reach_the_file)
{
    on_every_file_system(overwritten);
}
END_TEST

/* arguments: file. Exits with 0 when the file is not what was submitted. */
static int overwrite_control(int argc, char **argv)
{
    check_that(argc == 1, "usage: --overwrite FILE");
    for (int attempt = 0; attempt < 20; attempt++) {
        overwrite_after_submission(argv[0]);
        if (!content_is(argv[0], NEW, SIZE))
            return 0;
    }
    return 1;
}

START_TEST(without_the_shim_they_do)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    struct child child =
        child_run_self(WITHOUT_SHIM, NULL, (const char *const[]){"--overwrite", path_in(fs[0].path, "file"), NULL});
    ck_assert(child_succeeded(&child));
    child_free(&child);
}
END_TEST

struct racer {
    unsigned char *buffer;
    size_t length;
    atomic_bool stop;
};

static void *rewrite(void *argument)
{
    struct racer *racer = argument;
    for (uint64_t n = 1; !atomic_load_explicit(&racer->stop, memory_order_relaxed); n++)
        for (size_t at = 0; at < racer->length; at += SECTOR)
            __atomic_store_n((uint64_t *)(void *)(racer->buffer + at), n, __ATOMIC_RELAXED);
    return NULL;
}

/* All of the file is written again and again while the buffers change. */
static void race(int fd, size_t length, size_t turns)
{
    struct aiocb controls[DEPTH];
    struct racer racer = {.buffer = buffer_new(DEPTH * length), .length = DEPTH * length};
    pthread_t thread;
    check_that(pthread_create(&thread, NULL, rewrite, &racer) == 0, "no thread");
    for (size_t turn = 0; turn < turns; turn++) {
        for (size_t i = 0; i < DEPTH; i++) {
            controls[i] = control_of(fd, racer.buffer + i * length, length, i * length);
            check_that(aio_write(&controls[i]) == 0, "aio_write");
        }
        for (size_t i = 0; i < DEPTH; i++)
            check_that(end_of(&controls[i]) == (ssize_t)length, "write gave %zd", end_of(&controls[i]));
    }
    atomic_store(&racer.stop, true);
    pthread_join(thread, NULL);
    buffer_free(racer.buffer, DEPTH * length);
}

static void racing(const char *path)
{
    static const size_t lengths[] = {BLOCK, LENGTH};
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    for (int i = 0; i < 2; i++) {
        race(fd, lengths[i], rounds(10, 500));
        struct bounceio_stats before = counters();
        for (size_t k = 0; k < DEPTH; k++)
            ck_assert_int_eq(do_read(fd, direct_memory(), lengths[i], k * lengths[i]), (ssize_t)lengths[i]);
        if (counting())
            ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, DEPTH * lengths[i] / BLOCK);
    }
    close(fd);
}

START_TEST(racing_buffers_verify)
{
    on_every_file_system(racing);
}
END_TEST

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static void unaligned(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    unsigned char *memory = direct_memory();
    struct bounceio_stats before = counters();
    pattern_fill(memory, SIZE, NEW, 0);
    ck_assert_int_eq(do_write(fd, memory, SIZE, 0), SIZE);
    memset(memory, 0, SIZE);
    ck_assert_int_eq(do_read(fd, memory, SIZE, 0), SIZE);
    ck_assert_uint_eq(pattern_check(memory, SIZE, NEW, 0), SIZE);
    ck_assert(content_is(path, NEW, SIZE));
    if (counting()) {
        ck_assert_uint_eq(counters().direct_writes - before.direct_writes, 1);
        ck_assert_uint_eq(counters().direct_reads - before.direct_reads, 1);
        ck_assert_uint_eq(counters().bytes_bounced - before.bytes_bounced, 2 * SIZE);
    }
    close(fd);
}

START_TEST(unaligned_memory_works)
{
    on_every_file_system(unaligned);
}
END_TEST

static void bad(const char *path)
{
    int fd = old_file(path);
    unsigned char *memory = buffer_new(SIZE); /* nothing is there behind its end */
    unsigned char *end = memory + SIZE;
    pattern_fill(end - LENGTH, LENGTH, NEW, 0);
    ck_assert_int_eq(do_write(fd, end, LENGTH, 0), -EFAULT);
    ck_assert_int_eq(do_read(fd, end, LENGTH, 0), -EFAULT);
    ck_assert_int_eq(do_write(fd, (void *)(UINTPTR_MAX - LENGTH + 1), LENGTH, 0), -EFAULT);
    ck_assert(content_is(path, OLD, SIZE));
    pattern_fill(end - 3 * BLOCK, 3 * BLOCK, NEW, 0);
    ssize_t n = do_write(fd, end - 3 * BLOCK, LENGTH, 0);
    ck_assert_msg(n == 3 * BLOCK || n == -EFAULT, "a partly bad buffer gave %zd", n);
    unsigned char found[4 * BLOCK];
    ck_assert_uint_eq(read_behind(path, found, sizeof found, 0), sizeof found);
    ck_assert_uint_eq(pattern_check(found, 3 * BLOCK, n > 0 ? NEW : OLD, 0), 3 * BLOCK);
    ck_assert_uint_eq(pattern_check(found + 3 * BLOCK, BLOCK, OLD, 3 * BLOCK), BLOCK);
    n = do_read(fd, end - 3 * BLOCK, LENGTH, 8 * BLOCK);
    ck_assert_msg(n == 3 * BLOCK || n == -EFAULT, "a partly bad buffer gave %zd", n);
    direct_check(fd, OLD, 3 * BLOCK, SIZE - 3 * BLOCK);
    buffer_free(memory, SIZE);
    close(fd);
}

START_TEST(bad_pointers_are_refused_or_cut_short)
{
    on_every_file_system(bad);
}
END_TEST

/* --- Checked ------------------------------------------------------------------------------------------------------ */

/* arguments: file. Its third block is damaged: a read of it fails, one beside it does not. */
static int read_damaged(int argc, char **argv)
{
    check_that(argc == 1, "usage: --damaged FILE");
    int fd = old_file(argv[0]);
    flip_bit_behind(argv[0], 2 * BLOCK + 77, 3);
    check_that(do_read(fd, aligned_memory(), BLOCK, 2 * BLOCK) == -EIO, "in place");
    check_that(do_read(fd, direct_memory(), LENGTH, 0) == -EIO, "through pages");
    check_that(do_read(fd, direct_memory(), LENGTH, 3 * BLOCK) == LENGTH, "beside it");
    struct aiocb controls[2] = {control_of(fd, aligned_memory(), BLOCK, 2 * BLOCK),
                                control_of(fd, aligned_memory() + BLOCK, BLOCK, 0)};
    struct aiocb *list[] = {&controls[0], &controls[1]};
    controls[0].aio_lio_opcode = controls[1].aio_lio_opcode = LIO_READ;
    check_that(lio_listio(LIO_WAIT, list, 2, NULL) == -1 && errno == EIO, "in a list");
    check_that(end_of(&controls[0]) == -EIO && end_of(&controls[1]) == BLOCK, "in a list");
    check_that(counters().mismatches >= 3, "not counted");
    return 0;
}

START_TEST(a_damaged_block_fails_the_read)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        char line[4300];
        snprintf(line, sizeof line, "bounceio: checksum mismatch: path=\"%s\" offset=%d length=4096", path, 2 * BLOCK);
        if (strcmp(fs[i].name, "btrfs") == 0)
            continue; /* finds it itself */
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--damaged", path, NULL});
        ck_assert_msg(child_succeeded(&child), "%s: %s", fs[i].name, child.errors);
        ck_assert_msg(strstr(child.errors, line), "%s: '%s' is not in '%s'", fs[i].name, line, child.errors);
        child_free(&child);
        unlink(path);
    }
}
END_TEST

/* arguments: directory of a small file system. */
static int no_space(int argc, char **argv)
{
    check_that(argc == 1, "usage: --no-space DIRECTORY");
    const char *path = path_in(argv[0], "file");
    int fd = direct_open(path, O_RDWR | O_CREAT);
    struct aiocb controls[8];
    size_t written = 0, failed = 0;
    unsigned char *memory = buffer_new(8 << 20);
    for (size_t turn = 0; failed == 0; turn++) {
        pattern_fill(memory, 8 << 20, NEW, turn << 23);
        for (size_t i = 0; i < 8; i++) {
            controls[i] = control_of(fd, memory + (i << 20), 1 << 20, (turn << 23) + (i << 20));
            check_that(aio_write(&controls[i]) == 0, "aio_write");
        }
        for (size_t i = 0; i < 8; i++) {
            ssize_t n = end_of(&controls[i]);
            check_that(n > 0 || n == -ENOSPC, "write gave %zd", n);
            if (n < 1 << 20)
                failed++;
            else if (failed == 0)
                written += (size_t)n;
        }
        check_that(turn < 1000, "the file system is never full");
    }
    for (size_t at = 0; at < written; at += 1 << 20)
        direct_check(fd, NEW, (off_t)at, 1 << 20);
    check_that(counters().mismatches == 0 && counters().passed_through == 0, "counters");
    return 0;
}

START_TEST(no_space_left)
{
    static const struct {
        const char *kind;
        unsigned megabytes;
    } small[] = {{"ext4", 64}, {"xfs", 320}, {"btrfs", 160}};
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    for (size_t i = 0; i < 3; i++) {
        const char *image = path_in(fs[0].path, "image"), *directory = path_in(fs[0].path, "small");
        if (!small_filesystem_mount(small[i].kind, image, directory, small[i].megabytes)) {
            test_skip("no small file system of kind %s", small[i].kind);
            continue;
        }
        struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--no-space", directory, NULL});
        filesystem_unmount(directory);
        ck_assert_msg(child_succeeded(&child), "%s: %s", small[i].kind, child.errors);
        child_free(&child);
    }
}
END_TEST

/* arguments: file. Changes of buffers are to be reported: they must be seen. */
static int detect(int argc, char **argv)
{
    check_that(argc == 1, "usage: --detect FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT | O_TRUNC);
    for (int attempt = 0; attempt < 50 && counters().unstable_buffers == 0; attempt++)
        race(fd, LENGTH, 10);
    check_that(counters().unstable_buffers > 0, "no change was seen");
    return 0;
}

START_TEST(changes_in_flight_are_reported_where_that_is_asked_for)
{
    struct test_fs fs[TEST_FS_MAX];
    test_filesystems(fs);
    struct child child = child_run_self(WITH_SHIM, (const char *const[]){"BOUNCEIO_DETECT=1", NULL},
                                        (const char *const[]){"--detect", path_in(fs[0].path, "file"), NULL});
    ck_assert_msg(child_succeeded(&child), "%s", child.errors);
    child_free(&child);
}
END_TEST

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
    int fd = old_file(path);
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
            ck_assert_msg(ms < PATIENCE * 10000, "never told");
            usleep(100);
        }
    }
    ck_assert_int_eq(atomic_load(&watched.wrong), 0);
    close(fd);
}

START_TEST(the_data_is_there_when_the_program_is_told)
{
    on_every_file_system(told);
}
END_TEST

/* --- Together with other files ------------------------------------------------------------------------------------ */

static void mixed(const char *path)
{
    int fd = old_file(path), ends[2];
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
        ck_assert_int_eq(aio_suspend(waiting, 6, &(struct timespec){.tv_sec = PATIENCE}), 0);
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
        memset(memory, 0, SIZE);
        ck_assert_int_eq(lio_listio(LIO_WAIT, list, 5, NULL), 0);
        ck_assert_uint_eq(pattern_check(memory, 2 * LENGTH, NEW, 0), 2 * LENGTH);
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
    on_every_file_system(mixed);
}
END_TEST

/* The buffered writer of a file that has checksums is seen too. */
static void watched_writes(const char *path)
{
    int fd = old_file(path);
    int plain = open(path, O_RDWR | O_CLOEXEC);
    unsigned char *memory = direct_memory();
    ck_assert_int_ge(plain, 0);
    for (size_t i = 0; i < DEPTH; i += 2) {
        pattern_fill(memory, LENGTH, NEW, i * LENGTH);
        ck_assert_int_eq(do_write(plain, memory, LENGTH, i * LENGTH), LENGTH);
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
    on_every_file_system(watched_writes);
}
END_TEST

/* --- Ends --------------------------------------------------------------------------------------------------------- */

static void cancelled(const char *path)
{
    int fd = old_file(path);
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
    on_every_file_system(cancelled);
}
END_TEST

static void closed(const char *path)
{
    struct aiocb controls[DEPTH];
    unsigned char *memory = direct_memory();
    for (int turn = 0; turn < 10; turn++) {
        int fd = old_file(path);
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
    on_every_file_system(closed);
}
END_TEST

static void forked(const char *path)
{
    int fd = old_file(path);
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
        alarm(PATIENCE);
        check_that(aio_cancel(fd, NULL) == AIO_ALLDONE, "a child has its parent's requests");
        for (int i = 0; i < 20; i++)
            check_that(do_read(fd, own, LENGTH, 0) == LENGTH, "a read in the child");
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
    on_every_file_system(forked);
}
END_TEST

/* arguments: file, how. */
static int end_in_flight(int argc, char **argv)
{
    check_that(argc == 2, "usage: --end FILE HOW");
    int fd = old_file(argv[0]);
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
        ck_assert(child.seconds < PATIENCE);
        child_free(&child);
        int fd = direct_open(path, O_RDONLY);
        for (size_t at = 0; at < SIZE; at += LENGTH) {
            unsigned char *memory = direct_memory();
            ck_assert_int_eq(do_read(fd, memory, LENGTH, at), LENGTH);
            for (size_t block = 0; block < LENGTH; block += BLOCK)
                ck_assert(pattern_check(memory + block, BLOCK, OLD, at + block) == BLOCK ||
                          pattern_check(memory + block, BLOCK, NEW, at + block) == BLOCK);
        }
        close(fd);
    }
}

START_TEST(a_program_ends_with_writes_in_flight)
{
    on_every_file_system(ended);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--overwrite", overwrite_control}, {"--damaged", read_damaged},
                                                {"--no-space", no_space},           {"--detect", detect},
                                                {"--end", end_in_flight},           {NULL, NULL}};
    const TTest *const tests[] = {buffers_overwritten_right_after_submission_do_not_reach_the_file,
                                  without_the_shim_they_do,
                                  racing_buffers_verify,
                                  unaligned_memory_works,
                                  bad_pointers_are_refused_or_cut_short,
                                  a_damaged_block_fails_the_read,
                                  no_space_left,
                                  changes_in_flight_are_reported_where_that_is_asked_for,
                                  the_data_is_there_when_the_program_is_told,
                                  lists_mix_direct_files_with_others,
                                  buffered_writes_to_a_direct_file_are_followed,
                                  cancelled_writes_leave_the_file_alone,
                                  a_descriptor_is_closed_with_writes_in_flight,
                                  a_child_has_requests_of_its_own,
                                  a_program_ends_with_writes_in_flight,
                                  NULL};

    return support_main(argc, argv, "posix_aio", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
