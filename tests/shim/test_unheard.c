/*
 * Writers that cannot announce what they write, because they get no session or no map, beside one that can and whose own writes keep the
 * time window open: what they write is no damage.
 */
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/command.h"
#include "support/direct.h"
#include "support/support.h"

enum { OURS = 1, THEIRS = 2, BLOCKS = 8, BYTES = BLOCKS * BLOCK, AT = 5 * BLOCK };

/* --- The other process -------------------------------------------------------------------------------------------- */

/* Too little for a session's file, enough for what is written here. */
static void get_no_session(const char *path)
{
    (void)path;
    check_that(setrlimit(RLIMIT_FSIZE, &(struct rlimit){BYTES, RLIM_INFINITY}) == 0, "setrlimit");
}

/* All but one. */
static void use_all_numbers(void)
{
    int last = -1;

    for (int fd; (fd = dup(0)) >= 0;)
        last = fd;
    check_that(last >= 0 && close(last) == 0, "dup");
}

/* A session, but no number to open a map by. */
static void get_no_map(const char *path)
{
    char other[4200];

    snprintf(other, sizeof(other), "%s.other", path);
    direct_write(direct_open(other, O_RDWR | O_CREAT), THEIRS, 0, BLOCK);
    check_that(setrlimit(RLIMIT_NOFILE, &(struct rlimit){300, 300}) == 0, "setrlimit");
    use_all_numbers();
}

/* The same, by a limit that has been there all the time, as they mostly have. */
static void get_no_map_by_a_limit(const char *path)
{
    check_that(setrlimit(RLIMIT_NOFILE, &(struct rlimit){300, 300}) == 0, "setrlimit");
    get_no_map(path);
}

static void write_directly(const char *path)
{
    direct_write(direct_open(path, O_RDWR), THEIRS, AT, BLOCK);
}

static void write_buffered(const char *path)
{
    unsigned char block[BLOCK];
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    pattern_fill(block, BLOCK, THEIRS, AT);
    check_that(pwrite(fd, block, BLOCK, AT) == BLOCK, "pwrite");
    close(fd);
}

static void write_buffered_with_the_last_number(const char *path)
{
    use_all_numbers();
    write_buffered(path);
}

static void shorten_by_path(const char *path)
{
    check_that(truncate(path, AT) == 0, "truncate");
}

/* --- Both of them ------------------------------------------------------------------------------------------------- */

struct other {
    pid_t pid;
    int ours, said; /* a byte there tells him to act, one here that he has; when ours is closed he ends */
};

static struct other other_begins(void (*prepare)(const char *path), void (*act)(const char *path), const char *path)
{
    int to[2], from[2];
    char byte;

    check_that(pipe(to) == 0 && pipe(from) == 0, "pipe");
    pid_t pid = fork();
    check_that(pid >= 0, "fork");
    if (pid == 0) {
        close(to[1]);
        prepare(path);
        while (read(to[0], &byte, 1) == 1) {
            act(path);
            check_that(write(from[1], &byte, 1) == 1, "pipe");
        }
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    return (struct other){.pid = pid, .ours = to[1], .said = from[0]};
}

/* He acts, and we write on all the time: no pause of ours lets the file's times be looked at. */
static void other_acts(const struct other *other, int fd)
{
    struct pollfd said = {.fd = other->said, .events = POLLIN};
    char byte = 0;

    check_that(write(other->ours, &byte, 1) == 1, "pipe");
    do
        direct_write(fd, OURS, 0, BLOCK);
    while (poll(&said, 1, 1) == 0);
    check_that(read(other->said, &byte, 1) == 1, "the other process has died");
    direct_write(fd, OURS, 0, BLOCK);
}

static void other_ends(const struct other *other)
{
    int status;

    close(other->ours);
    check_that(waitpid(other->pid, &status, 0) == other->pid && status == 0, "the other process has failed: %x",
               status);
}

static int open_file(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT);

    direct_write(fd, OURS, 0, BYTES);
    return fd;
}

/* --- Modes: FILE -------------------------------------------------------------------------------------------------- */

static void meet(const char *path, void (*prepare)(const char *path), void (*act)(const char *path), bool alive)
{
    int fd = open_file(path);
    struct other other = other_begins(prepare, act, path);

    other_acts(&other, fd);
    if (!alive)
        other_ends(&other);
    if (act == shorten_by_path)
        check_that(pread(fd, direct_memory(), BLOCK, AT) == 0, "what is not there any more cannot be read");
    else
        direct_check(fd, THEIRS, AT, BLOCK);
    if (alive)
        other_ends(&other);
}

static int without_session(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_session, write_directly, true);
    return 0;
}

static int without_session_any_more(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_session, write_directly, false);
    return 0;
}

static int without_map(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_map, write_directly, true);
    return 0;
}

static int without_map_any_more(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_map_by_a_limit, write_directly, false);
    return 0;
}

static int buffered(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_session, write_buffered, true);
    return 0;
}

static int buffered_twice(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    int fd = open_file(argv[0]);
    struct other other = other_begins(get_no_session, write_buffered, argv[0]);

    other_acts(&other, fd);
    other_acts(&other, fd);
    other_ends(&other);
    return 0;
}

static int shortened(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet(argv[0], get_no_session, shorten_by_path, true);
    return 0;
}

/* The other one has the file open before there is a map of it. */
static int before_the_map(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    char other_file[4200];

    snprintf(other_file, sizeof(other_file), "%s.other", argv[0]);
    make_file_behind(argv[0], THEIRS, BYTES);
    struct other other = other_begins(get_no_session, write_directly, argv[0]);

    other_acts(&other, direct_open(other_file, O_RDWR | O_CREAT));
    int fd = open_file(argv[0]);
    other_acts(&other, fd);
    direct_check(fd, THEIRS, AT, BLOCK);
    other_ends(&other);
    return 0;
}

/* The file is emptied, which ends all doubts of old content; not those of what is written from now on. */
static void meet_again(const char *path, void (*prepare)(const char *path), void (*act)(const char *path))
{
    int fd = open_file(path);
    struct other other = other_begins(prepare, act, path);

    other_acts(&other, fd);
    check_that(ftruncate(fd, 0) == 0, "ftruncate");
    direct_write(fd, OURS, 0, BYTES);
    other_acts(&other, fd);
    direct_check(fd, THEIRS, AT, BLOCK);
    other_ends(&other);
}

static int emptied(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet_again(argv[0], get_no_session, write_directly);
    return 0;
}

static int buffered_without_map(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    meet_again(argv[0], get_no_map_by_a_limit, write_buffered_with_the_last_number);
    return 0;
}

/* A scrub finds the file whole, and yet he writes on. */
static int scrubbed(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    int fd = open_file(argv[0]);
    struct other other = other_begins(get_no_session, write_directly, argv[0]);

    other_acts(&other, fd);
    direct_write(fd, OURS, 0, BYTES);
    struct child child = command_run(NULL, (const char *const[]){"scrub", "--quiet", argv[0], NULL});
    check_that(child_succeeded(&child), "scrub");
    other_acts(&other, fd);
    direct_check(fd, THEIRS, AT, BLOCK);
    other_ends(&other);
    return 0;
}

/* --- Tests -------------------------------------------------------------------------------------------------------- */

static const char *new_path(void)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    return path_in(fs[0].path, "file");
}

static void is_no_damage(const char *mode, const char *path)
{
    struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){mode, path, NULL});

    ck_assert(child_succeeded(&child));
    child_free(&child);
}

START_TEST(what_a_process_without_a_session_writes)
{
    is_no_damage("--without-session", new_path());
}
END_TEST

START_TEST(what_a_process_without_a_session_wrote_before_it_ended)
{
    is_no_damage("--without-session-any-more", new_path());
}
END_TEST

START_TEST(what_a_process_that_may_open_no_map_writes)
{
    is_no_damage("--without-map", new_path());
}
END_TEST

START_TEST(what_a_process_that_may_open_no_map_wrote_before_it_ended)
{
    is_no_damage("--without-map-any-more", new_path());
}
END_TEST

START_TEST(what_a_process_that_may_open_no_map_writes_buffered_again_and_again)
{
    is_no_damage("--buffered-without-map", new_path());
}
END_TEST

START_TEST(what_a_process_without_a_session_writes_buffered)
{
    is_no_damage("--buffered", new_path());
}
END_TEST

START_TEST(what_a_process_without_a_session_cuts_off)
{
    is_no_damage("--shortened", new_path());
}
END_TEST

START_TEST(what_is_written_by_who_had_the_file_open_before_its_map_was_made)
{
    is_no_damage("--before-the-map", new_path());
}
END_TEST

START_TEST(what_is_written_after_the_file_was_emptied)
{
    is_no_damage("--emptied", new_path());
}
END_TEST

START_TEST(what_is_written_after_a_scrub)
{
    is_no_damage("--scrubbed", new_path());
}
END_TEST

/* Nothing finds damage there from now on: the administrator is to know, by the one who knows it first. */
START_TEST(a_file_that_is_written_unheard_is_named_once)
{
    const char *path = new_path();
    struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--buffered-twice", path, NULL});
    const char *warning = strstr(child.errors, "changed outside: path=");

    ck_assert(child_succeeded(&child));
    ck_assert_msg(warning && strstr(warning, path), "%s", child.errors);
    ck_assert_ptr_null(strstr(warning + 1, "changed outside: path="));
    child_free(&child);
}
END_TEST

/* Once they have ended, a scrub ends the doubt, and damage is damage again. */
START_TEST(a_file_that_was_written_unheard_is_believed_again_after_a_scrub)
{
    const char *path = new_path();

    is_no_damage("--without-session", path);
    struct child child = command_run(NULL, (const char *const[]){"adopt", "--trust", "--quiet", path, NULL});
    ck_assert(child_succeeded(&child));
    child_free(&child);
    flip_bit_behind(path, AT, 1);
    ck_assert_uint_eq(command_counts(1, NULL, "scrub", path, "mismatches"), 1);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--without-session", without_session},
                                                {"--without-session-any-more", without_session_any_more},
                                                {"--without-map", without_map},
                                                {"--without-map-any-more", without_map_any_more},
                                                {"--buffered-without-map", buffered_without_map},
                                                {"--buffered", buffered},
                                                {"--buffered-twice", buffered_twice},
                                                {"--shortened", shortened},
                                                {"--before-the-map", before_the_map},
                                                {"--emptied", emptied},
                                                {"--scrubbed", scrubbed},
                                                {NULL, NULL}};
    const TTest *const tests[] = {what_a_process_without_a_session_writes,
                                  what_a_process_without_a_session_wrote_before_it_ended,
                                  what_a_process_that_may_open_no_map_writes,
                                  what_a_process_that_may_open_no_map_wrote_before_it_ended,
                                  what_a_process_that_may_open_no_map_writes_buffered_again_and_again,
                                  what_a_process_without_a_session_writes_buffered,
                                  what_a_process_without_a_session_cuts_off,
                                  what_is_written_by_who_had_the_file_open_before_its_map_was_made,
                                  what_is_written_after_the_file_was_emptied,
                                  what_is_written_after_a_scrub,
                                  a_file_that_is_written_unheard_is_named_once,
                                  a_file_that_was_written_unheard_is_believed_again_after_a_scrub,
                                  NULL};

    return support_main(argc, argv, "writers unheard", 60, modes, tests);
}
