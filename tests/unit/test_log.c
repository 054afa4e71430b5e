/* The formatter against the C library's, and where a line goes when the program plays with descriptors. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "base/own.h"
#include "base/process.h"
#include "support/support.h"

static const char *scratch(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s.%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name, (int)getpid());
    return path;
}

/* Content of a file, zero-terminated. */
static const char *content(const char *path)
{
    static char text[16384];
    size_t length = read_behind(path, text, sizeof(text) - 1, 0);
    text[length] = '\0';
    return text;
}

static void use_log_file(const char *path)
{
    config.log_file = path;
    log_start();
}

static __attribute__((format(printf, 1, 2))) void same_as_printf(const char *format, ...)
{
    char ours[512], theirs[512];
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    size_t length = log_vformat(ours, sizeof(ours), format, arguments);
    vsnprintf(theirs, sizeof(theirs), format, again);
    va_end(again);
    va_end(arguments);
    ck_assert_str_eq(ours, theirs);
    ck_assert_uint_eq(length, strlen(theirs));
}

START_TEST(conversions_print_what_printf_prints)
{
    same_as_printf("plain");
    same_as_printf("%s and %s", "one", "");
    same_as_printf("%d %d %d", 0, INT_MAX, INT_MIN);
    same_as_printf("%u %u", 0U, UINT_MAX);
    same_as_printf("%ld %lld", LONG_MIN, LLONG_MIN);
    same_as_printf("%lu %llu", ULONG_MAX, ULLONG_MAX);
    same_as_printf("%zu", (size_t)SIZE_MAX);
    same_as_printf("%x %lx %llx", 0xdeadbeefU, ULONG_MAX, 1ULL << 60);
    same_as_printf("%016llx|%08x|%5d|%05d|%5u", 0x2aULL, 0x2aU, -42, -42, 7U);
    same_as_printf("%2d|%02d", 12345, 12345);
    same_as_printf("%c%c 100%%", 'a', 'z');
}
END_TEST

START_TEST(a_null_string_is_shown_as_such)
{
    char text[32];
    const char *volatile nothing = NULL;
    log_format(text, sizeof(text), "<%s>", nothing);
    ck_assert_str_eq(text, "<(null)>");
}
END_TEST

START_TEST(a_short_buffer_cuts_and_terminates)
{
    char text[8] = "xxxxxxx";
    ck_assert_uint_eq(log_format(text, 5, "%s", "123456"), 4);
    ck_assert_str_eq(text, "1234");
    ck_assert_int_eq(text[5], 'x');
    ck_assert_uint_eq(log_format(text, 1, "%d", 77), 0);
    ck_assert_str_eq(text, "");
    text[0] = 'y';
    ck_assert_uint_eq(log_format(text, 0, "%d", 77), 0);
    ck_assert_int_eq(text[0], 'y');
}
END_TEST

START_TEST(a_line_begins_with_the_name_and_ends_with_a_newline)
{
    const char *path = scratch("line");
    use_log_file(path);
    log_warn("block %d of %s", 7, "file");
    ck_assert_str_eq(content(path), "bounceio: block 7 of file\n");
    unlink(path);
}
END_TEST

START_TEST(control_characters_cannot_make_a_second_line)
{
    const char *path = scratch("control");
    use_log_file(path);
    log_warn("path=\"%s\"", "a\nbounceio: forged\r\x1b[0m");
    ck_assert_str_eq(content(path), "bounceio: path=\"a?bounceio: forged??[0m\"\n");
    unlink(path);
}
END_TEST

START_TEST(a_line_that_is_too_long_is_cut_to_the_limit_with_its_newline)
{
    static char text[10000];
    const char *path = scratch("long");
    memset(text, 'a', sizeof(text) - 1);
    use_log_file(path);
    log_warn("%s", text);
    ck_assert_uint_eq(strlen(content(path)), 4608);
    ck_assert_int_eq(content(path)[4607], '\n');
    unlink(path);
}
END_TEST

START_TEST(levels_above_the_configured_one_are_silent)
{
    const char *path = scratch("level");
    use_log_file(path);
    config.log_level = LOG_LEVEL_WARN;
    log_info("no");
    log_debug("no");
    log_error("e");
    config.log_level = LOG_LEVEL_DEBUG;
    log_debug("d");
    ck_assert_str_eq(content(path), "bounceio: e\nbounceio: d\n");
    unlink(path);
}
END_TEST

START_TEST(the_log_file_is_private_high_and_closed_on_exec)
{
    const char *path = scratch("private");
    struct stat status;
    int lowest = dup(0);
    close(lowest);
    use_log_file(path);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);
    int next_lowest = dup(0);
    ck_assert_int_eq(next_lowest, lowest);
    int ours = own_first_in(0, 1 << 30);
    ck_assert_int_gt(ours, 100);
    ck_assert_int_eq(fcntl(ours, F_GETFD), FD_CLOEXEC);
    unlink(path);
}
END_TEST

START_TEST(a_line_goes_to_its_file_after_the_program_closed_everything)
{
    const char *path = scratch("closed");
    use_log_file(path);
    log_warn("one");
    for (int fd = 3; fd < 5000; fd++)
        close(fd);
    log_warn("two");
    ck_assert_str_eq(content(path), "bounceio: one\nbounceio: two\n");
    unlink(path);
}
END_TEST

START_TEST(a_line_never_goes_to_another_file_of_the_same_number)
{
    char other[PATH_MAX];
    snprintf(other, sizeof(other), "%s", scratch("other"));
    const char *path = scratch("reused");
    use_log_file(path);
    int ours = own_first_in(0, 1 << 30);
    int fd = open(other, O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(dup2(fd, ours), ours);
    log_warn("one");
    ck_assert_str_eq(content(other), "");
    ck_assert_str_eq(content(path), "bounceio: one\n");
    unlink(other);
    unlink(path);
}
END_TEST

START_TEST(a_log_file_that_cannot_be_opened_leaves_stderr)
{
    const char *path = scratch("stderr");
    int file = open(path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(dup2(file, STDERR_FILENO), STDERR_FILENO);
    use_log_file("/no/such/directory/log");
    log_warn("one");
    ck_assert_str_eq(content(path), "bounceio: cannot open BOUNCEIO_LOG_FILE=/no/such/directory/log: "
                                    "No such file or directory; using stderr\nbounceio: one\n");
    unlink(path);
}
END_TEST

START_TEST(a_direct_descriptor_as_number_two_is_not_written_to)
{
    char content_after[64];
    /* Memory takes direct writes of any length, from Linux 6.6 on. */
    int data = open("/dev/shm", O_TMPFILE | O_RDWR | O_DIRECT, 0600), kept = dup(STDERR_FILENO);
    if (data < 0) {
        test_skip("no direct I/O in /dev/shm");
        return;
    }
    dup2(data, STDERR_FILENO);
    log_warn("this is not data");
    dup2(kept, STDERR_FILENO);
    ck_assert_int_eq(pread(data, content_after, sizeof(content_after), 0), 0);
}
END_TEST

START_TEST(errno_is_left_alone)
{
    int kept = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    errno = ENOTBLK;
    log_warn("nobody hears this");
    ck_assert_int_eq(errno, ENOTBLK);
    dup2(kept, STDERR_FILENO);
}
END_TEST

START_TEST(a_pipe_that_nobody_reads_raises_no_signal)
{
    int ends[2];
    sigset_t pending;
    ck_assert_int_eq(pipe(ends), 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_DFL);
    log_put(ends[1], "text", 4);
    sigpending(&pending);
    ck_assert(!sigismember(&pending, SIGPIPE));
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    close(pair[0]);
    log_put(pair[1], "text", 4);
}
END_TEST

START_TEST(a_sigpipe_of_the_program_s_own_stays_pending)
{
    int ends[2];
    sigset_t set, pending;
    ck_assert_int_eq(pipe(ends), 0);
    close(ends[0]);
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    log_put(ends[1], "text", 4);
    sigpending(&pending);
    ck_assert(sigismember(&pending, SIGPIPE));
}
END_TEST

START_TEST(reasons_are_the_c_library_s_words)
{
    for (int number = 1; number < 140; number++)
        if (strcmp(log_reason(-number), "Unknown error") != 0)
            ck_assert_str_eq(log_reason(-number), strerror(number));
    ck_assert_str_eq(log_reason(-ENOSPC), "No space left on device");
    ck_assert_str_eq(log_reason(-4000), "Unknown error");
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        conversions_print_what_printf_prints,
        a_null_string_is_shown_as_such,
        a_short_buffer_cuts_and_terminates,
        a_line_begins_with_the_name_and_ends_with_a_newline,
        control_characters_cannot_make_a_second_line,
        a_line_that_is_too_long_is_cut_to_the_limit_with_its_newline,
        levels_above_the_configured_one_are_silent,
        the_log_file_is_private_high_and_closed_on_exec,
        a_line_goes_to_its_file_after_the_program_closed_everything,
        a_line_never_goes_to_another_file_of_the_same_number,
        a_log_file_that_cannot_be_opened_leaves_stderr,
        a_direct_descriptor_as_number_two_is_not_written_to,
        errno_is_left_alone,
        a_pipe_that_nobody_reads_raises_no_signal,
        a_sigpipe_of_the_program_s_own_stays_pending,
        reasons_are_the_c_library_s_words,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "log", 20, NULL, tests);
}
