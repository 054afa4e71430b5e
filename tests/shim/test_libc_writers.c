/*
 * The C library writes by itself: streams that are flushed, dprintf, exit. What it writes to a file with checksums is the program's
 * own change, and never a mismatch; what the shim asks of streams costs the program nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { SEED = 61, BYTES = 2 * BLOCK };

static char path[4200];
static uint64_t mismatches_before;

/* A file with checksums, open with O_DIRECT. */
static int checked_file(void)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    snprintf(path, sizeof(path), "%s", path_in(fs[0].path, "file"));
    int fd = direct_open(path, O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
    mismatches_before = counters().mismatches;
    return fd;
}

/* The file now begins with "hello", and the shim finds that in order. */
static void hello_is_read(int fd)
{
    unsigned char *memory = direct_memory();

    ck_assert_int_eq(pread(fd, memory, BYTES, 0), BYTES);
    ck_assert_int_eq(memcmp(memory, "hello", 5), 0);
    ck_assert_uint_eq(pattern_check(memory + 5, BYTES - 5, SEED, 5), BYTES - 5);
    ck_assert_uint_eq(counters().mismatches, mismatches_before);
}

/* --- Streams and descriptors -------------------------------------------------------------------------------------- */

START_TEST(dprintf_changes_a_checked_file)
{
    int fd = checked_file();
    int plain = open(path, O_WRONLY);

    ck_assert_int_eq(dprintf(plain, "he%s", "llo"), 5);
    hello_is_read(fd);
}
END_TEST

START_TEST(a_stream_changes_a_checked_file)
{
    int fd = checked_file();
    FILE *stream = fopen(path, "r+");

    fputs("hello", stream);
    ck_assert_int_eq(fflush(stream), 0);
    hello_is_read(fd);
}
END_TEST

START_TEST(a_stream_whose_number_became_a_checked_file_changes_it)
{
    int fd = checked_file();
    int plain = open(path, O_WRONLY);
    FILE *stream = fopen("/dev/null", "w");

    ck_assert_int_eq(dup2(plain, fileno(stream)), fileno(stream));
    fputs("hello", stream);
    ck_assert_int_eq(fflush(stream), 0);
    hello_is_read(fd);
}
END_TEST

START_TEST(redirected_standard_output_changes_a_checked_file)
{
    int fd = checked_file();
    int plain = open(path, O_WRONLY);
    int saved = dup(STDOUT_FILENO);

    fflush(stdout);
    dup2(plain, STDOUT_FILENO);
    close(plain);
    printf("hello");
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    hello_is_read(fd);
}
END_TEST

START_TEST(a_dup2_that_fails_leaves_a_stream_known)
{
    int fd = checked_file();
    FILE *stream = fopen(path, "r+");

    ck_assert_int_eq(dup2(-1, fileno(stream)), -1);
    ck_assert_int_eq(errno, EBADF);
    direct_write(fd, SEED, 0, BYTES);
    fputs("hello", stream);
    ck_assert_int_eq(fflush(stream), 0);
    hello_is_read(fd);
}
END_TEST

/* --- Ends --------------------------------------------------------------------------------------------------------- */

START_TEST(closedir_of_nothing_is_refused)
{
    DIR *volatile nothing = NULL;

    ck_assert_int_eq(closedir(nothing), -1);
    ck_assert_int_eq(errno, EINVAL);
}
END_TEST

static void *read_line(void *stream)
{
    char line[16];

    return fgets(line, sizeof(line), stream);
}

/* Leaves by exit() while a thread waits for input with the stream locked. */
static int exit_beside_reader(int argc, char **argv)
{
    int ends[2];
    pthread_t thread;

    (void)argc;
    (void)argv;
    check_that(pipe(ends) == 0, "no pipe");
    /* Kills this program when exit waits for the stream, as it does in some C libraries. */
    alarm(4);
    FILE *stream = fdopen(ends[0], "r");

    check_that(pthread_create(&thread, NULL, read_line, stream) == 0, "no thread");
    while (ftrylockfile(stream) == 0) {
        funlockfile(stream);
        usleep(1000);
    }
    exit(0);
}

START_TEST(exit_does_not_wait_for_a_stream_that_a_thread_reads)
{
    const char *const mode[] = {"--exit-beside-reader", NULL};
    struct child native = child_run_self(WITHOUT_SHIM, NULL, mode);
    struct child shimmed = child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, NULL, mode);

    ck_assert_int_eq(shimmed.status, native.status);
    child_free(&native);
    child_free(&shimmed);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--exit-beside-reader", exit_beside_reader}, {NULL, NULL}};
    const TTest *const tests[] = {dprintf_changes_a_checked_file,
                                  a_stream_changes_a_checked_file,
                                  a_stream_whose_number_became_a_checked_file_changes_it,
                                  redirected_standard_output_changes_a_checked_file,
                                  a_dup2_that_fails_leaves_a_stream_known,
                                  closedir_of_nothing_is_refused,
                                  exit_does_not_wait_for_a_stream_that_a_thread_reads,
                                  NULL};

    return support_main(argc, argv, "libc writers", 30, modes, tests);
}
