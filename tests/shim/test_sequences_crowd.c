/*
 * Sequence 11: sessions open a map while others change its header, and while the command collects and forgets maps. Whoever uses a file
 * keeps its checksums; no map is taken for a damaged one; nothing that was written under one map is verified by another.
 */
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { BYTES = SEQUENCE_BYTES, BLOCKS = BYTES / BLOCK, REGION = 64 << 20, WINDOWS = 5 };

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Run this program again in another mode, as a session of its own; @return its pid. */
static pid_t begin(const char *mode, const char *file, const char *argument)
{
    fflush(NULL);
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "session", mode, file, argument, (char *)NULL);
        _exit(127);
    }
    check_that(pid > 0, "no process");
    return pid;
}

static void end_well(pid_t pid, const char *what)
{
    int status;

    check_that(waitpid(pid, &status, 0) == pid && status == 0, "%s ended with status %#x", what, (unsigned)status);
}

static double seconds_of(const char *argument)
{
    return atof(argument);
}

static char *seconds(void)
{
    static char text[32];

    snprintf(text, sizeof(text), "%zu", rounds(1, 30));
    return text;
}

/* --- A header that changes ----------------------------------------------------------------------------------------- */

/*
 * arguments: file, seconds. Adds windows to the map by writing further and further out, goes over it with mutators, and moves its time window.
 */
static int update_header(int argc, char **argv)
{
    check_that(argc == 2, "usage: --update FILE SECONDS");
    int fd = direct_open(argv[0], O_RDWR);
    double end = now() + seconds_of(argv[1]);

    for (uint64_t round = 1; now() < end; round++) {
        off_t region = (off_t)((UINT64_C(1) << round % WINDOWS) - 1) * REGION;

        direct_write(fd, round, region + BYTES, BYTES);
        direct_check(fd, round, region + BYTES, BYTES);
        check_that(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, region + BYTES, BYTES) == 0, "punch");
        check_that(futimens(fd, NULL) == 0, "futimens");
    }
    sequence_no_mismatch();
    return 0;
}

/* arguments: file, seconds. Sessions that open the file, read what is known of it, and leave, one after another. */
static int open_and_read(int argc, char **argv)
{
    check_that(argc == 2, "usage: --open FILE SECONDS");
    double end = now() + seconds_of(argv[1]);

    while (now() < end)
        end_well(begin("--reread-known", argv[0], NULL), "a reader");
    return 0;
}

/* arguments: file. What --write wrote is verified, whoever else uses the file. */
static int reread_known(int argc, char **argv)
{
    check_that(argc == 1, "usage: --reread-known FILE");
    direct_check(direct_open(argv[0], O_RDONLY), 1, 0, BYTES);
    if (counting()) {
        struct bounceio_stats stats = counters();

        check_that(stats.blocks_verified == BLOCKS && stats.changed_outside == 0 && stats.recovered_blocks == 0,
                   "%llu blocks verified, %llu adopted", (unsigned long long)stats.blocks_verified,
                   (unsigned long long)stats.changed_outside);
    }
    return 0;
}

/* arguments: file, seconds. All of them at once. */
static int crowd(int argc, char **argv)
{
    check_that(argc == 2, "usage: --crowd FILE SECONDS");
    pid_t updater = begin("--update", argv[0], argv[1]);
    pid_t openers[2] = {begin("--open", argv[0], argv[1]), begin("--open", argv[0], argv[1])};

    end_well(updater, "the updater");
    end_well(openers[0], "an opener");
    end_well(openers[1], "an opener");
    return 0;
}

static size_t maps_found;

static int count_map(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)ftw;
    ck_assert_msg(!strstr(path, ".bad") && !strstr(path, ".new"), "%s was left", path);
    maps_found += type == FTW_F;
    return 0;
}

/* A store below the file system's directory, as a variable. */
static const char *new_store(const struct test_fs *fs)
{
    static char variable[4300];

    snprintf(variable, sizeof(variable), "BOUNCEIO_STORE=%s", path_in(fs->path, "store"));
    mkdir(strchr(variable, '=') + 1, 0700);
    return variable;
}

START_TEST(sessions_open_while_the_header_changes)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        const char *const environment[] = {new_store(&fs[i]), NULL};

        sequence_run_with(environment, (const char *const[]){"--write", path, "1", NULL});
        sequence_run_with(environment, (const char *const[]){"--crowd", path, seconds(), NULL});
        sequence_run_with(environment, (const char *const[]){"--reread-known", path, NULL});
        maps_found = 0;
        if (counting())
            ck_assert_int_eq(nftw(path_in(path_in(fs[i].path, "store"), "maps"), count_map, 8, FTW_PHYS), 0);
        ck_assert_uint_eq(maps_found, counting() ? 1 : 0);
    }
}
END_TEST

/* --- Maps that are collected and forgotten ------------------------------------------------------------------------- */

/* The command: with the steps of its own delayed where there is such a build. */
static const char *command(void)
{
    const char *build = getenv("BOUNCEIO_TEST_BUILD");
    const char *steps = path_in(build ? build : "build", "steps/bounceio");

    return access(steps, X_OK) == 0 ? steps : path_in(build ? build : "build", "bounceio");
}

/* arguments: file, seconds. What is written is verified as long as the file is open, whatever others do to maps. */
static int write_and_read(int argc, char **argv)
{
    check_that(argc == 2, "usage: --write-and-read FILE SECONDS");
    double end = now() + seconds_of(argv[1]);

    for (uint64_t seed = 1; now() < end; seed++) {
        int fd = direct_open(argv[0], O_RDWR);

        direct_write(fd, seed, 0, BYTES);
        struct bounceio_stats before = counters();

        direct_check(fd, seed, 0, BYTES);
        struct bounceio_stats after = counters();

        check_that(!counting() || after.blocks_verified - before.blocks_verified == BLOCKS,
                   "round %llu: only %llu blocks verified", (unsigned long long)seed,
                   (unsigned long long)(after.blocks_verified - before.blocks_verified));
        close(fd);
        /* What the last round wrote may have been forgotten since, and is right all the same. */
        fd = direct_open(argv[0], O_RDONLY);
        direct_check(fd, seed, 0, BYTES);
        close(fd);
    }
    sequence_no_mismatch();
    check_that(counters().changed_outside == 0, "taken for a change from outside");
    return 0;
}

/* arguments: file, "forget" or "gc", seconds. */
static int tidy(int argc, char **argv)
{
    check_that(argc == 3, "usage: --tidy FILE COMMAND SECONDS");
    double end = now() + seconds_of(argv[2]);

    /* The command runs as a user's: not under the shim. */
    unsetenv("LD_PRELOAD");
    while (now() < end) {
        int status;
        pid_t pid = fork();

        if (pid == 0 && argv[1][0] == 'f')
            execl(command(), "bounceio", "forget", "--quiet", argv[0], (char *)NULL);
        if (pid == 0)
            execl(command(), "bounceio", "gc", (char *)NULL);
        if (pid == 0)
            _exit(127);
        check_that(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status), "%s", argv[1]);
        /* 2: it is in use. */
        check_that(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2, "%s ended with %d", argv[1],
                   WEXITSTATUS(status));
    }
    return 0;
}

/* arguments: file, command, seconds. */
static int tidied(int argc, char **argv)
{
    pid_t pids[4];

    check_that(argc == 3, "usage: --tidied FILE COMMAND SECONDS");
    for (int i = 0; i < 2; i++) {
        char *file = strdup(argv[0]);

        file[strlen(file) - 1] = (char)('0' + i);
        close(direct_open(file, O_RDWR | O_CREAT));
        pids[i] = begin("--write-and-read", file, argv[2]);
        pids[2 + i] = fork();
        if (pids[2 + i] == 0) {
            execl("/proc/self/exe", "session", "--tidy", file, argv[1], argv[2], (char *)NULL);
            _exit(127);
        }
    }
    for (int i = 0; i < 4; i++)
        end_well(pids[i], i < 2 ? "a program" : "the command");
    return 0;
}

static void maps_go_while_files_are_opened(const char *what)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *const environment[] = {new_store(&fs[i]), NULL};

        sequence_run_with(environment,
                          (const char *const[]){"--tidied", path_in(fs[i].path, "file?"), what, seconds(), NULL});
    }
}

START_TEST(files_are_opened_while_their_maps_are_forgotten)
{
    maps_go_while_files_are_opened("forget");
}
END_TEST

START_TEST(files_are_opened_while_maps_are_collected)
{
    maps_go_while_files_are_opened("gc");
}
END_TEST

/* A file is opened; where the opener has got to `place`, but is not known yet to use the map, that is forgotten. */
static void forget_at(const char *place, const char *const *environment, const char *path)
{
    struct actor opener = actor_new(environment);
    struct order open = {.act = ACT_OPEN}, survey = {.act = ACT_SURVEY, .length = BLOCKS};
    char stop[64];

    snprintf(stop, sizeof(stop), "%s:stop", place);
    snprintf(open.text, sizeof(open.text), "%s", path);
    actor_stops_at(&opener, stop);
    actor_begin(&opener, &open);
    actor_await_stop(&opener);
    struct child child = command_ends(0, environment, (const char *const[]){"forget", path, NULL});

    ck_assert_msg(strncmp(child.output, "1 map removed", 13) == 0, "%s: %s", place, child.output);
    child_free(&child);
    actor_continue(&opener);
    ck_assert_int_ge(actor_finish(&opener).result, 0);
    actor_writes(&opener, 1, 0, BLOCKS);
    struct answer answer = actor_do(&opener, &survey);

    ck_assert_msg(strspn(answer.survey, "v") == BLOCKS, "%s: \"%s\"", place, answer.survey);
    actor_leaves(&opener);
    answer = survey_of(environment, path, BLOCKS);
    ck_assert_msg(strspn(answer.survey, "v") == BLOCKS, "%s, opened again: \"%s\"", place, answer.survey);
}

START_TEST(who_opens_a_file_while_its_map_is_forgotten_makes_another)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        const char *const environment[] = {new_store(&fs[i]), NULL};

        forget_at("open new map", environment, path_in(fs[i].path, "file"));
        forget_at("use map", environment, path_in(fs[i].path, "file"));
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES,
                                                ACTOR_MODE,
                                                {"--update", update_header},
                                                {"--open", open_and_read},
                                                {"--reread-known", reread_known},
                                                {"--crowd", crowd},
                                                {"--write-and-read", write_and_read},
                                                {"--tidy", tidy},
                                                {"--tidied", tidied},
                                                {NULL, NULL}};
    const TTest *const tests[] = {
        sessions_open_while_the_header_changes, files_are_opened_while_their_maps_are_forgotten,
        files_are_opened_while_maps_are_collected, who_opens_a_file_while_its_map_is_forgotten_makes_another, NULL};

    return support_main(argc, argv, "crowds", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
