/* The counters, across threads and forked children, and the report that BOUNCEIO_STATS asks for. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "bounceio.h"
#include "support/support.h"

enum { THREADS = 40, COUNTS = 20000 };

static char report_path[PATH_MAX];

/* Tests run in forked children; each becomes a process of its own with counters of its own. */
static void become_the_loader(const char *report)
{
    snprintf(report_path, sizeof(report_path), "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", report);
    config.stats = report_path;
    stats_start();
}

static const char *report_text(const char *path)
{
    static char text[8192];
    size_t length = read_behind(path, text, sizeof(text) - 1, 0);
    text[length] = '\0';
    return text;
}

static void *count_many_times(void *unused)
{
    (void)unused;
    for (int i = 0; i < COUNTS; i++)
        stats_add(STAT_direct_reads, 1);
    return NULL;
}

START_TEST(counts_of_many_threads_add_up)
{
    pthread_t threads[THREADS];
    become_the_loader("threads");
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_many_times, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(stats_get(STAT_direct_reads), (uint64_t)THREADS * COUNTS);
    ck_assert_uint_eq(stats_get(STAT_direct_writes), 0);
}
END_TEST

START_TEST(a_thread_stays_in_one_shard)
{
    become_the_loader("shard");
    stats_add(STAT_mismatches, 1);
    unsigned shard = stats_my_shard;
    ck_assert_uint_ge(shard, 1);
    ck_assert_uint_le(shard, STATS_SHARDS);
    stats_add(STAT_mismatches, 2);
    ck_assert_uint_eq(stats_my_shard, shard);
    ck_assert_uint_eq(stats_shards[shard - 1].counter[STAT_mismatches], 3);
}
END_TEST

static void *shard_of_a_thread(void *shard)
{
    stats_add(STAT_mismatches, 1);
    *(unsigned *)shard = stats_my_shard;
    return NULL;
}

START_TEST(threads_count_in_different_shards)
{
    unsigned shards[2];
    become_the_loader("shards");
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, shard_of_a_thread, &shards[i]), 0);
        pthread_join(thread, NULL);
    }
    ck_assert_uint_ne(shards[0], shards[1]);
}
END_TEST

START_TEST(what_a_forked_child_counts_is_seen_by_its_parent)
{
    become_the_loader("fork");
    stats_add(STAT_bytes_read, 10);
    pid_t child = fork();
    if (child == 0) {
        stats_add(STAT_bytes_read, 100);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    ck_assert_uint_eq(stats_get(STAT_bytes_read), 110);
}
END_TEST

START_TEST(the_structure_of_the_public_header_has_the_same_counters)
{
    ck_assert_uint_eq(sizeof(struct bounceio_stats), STAT_COUNT * sizeof(uint64_t));
#define SAME_PLACE(name) ck_assert_uint_eq(offsetof(struct bounceio_stats, name), STAT_##name * sizeof(uint64_t));
    STATS_COUNTERS(SAME_PLACE)
}
END_TEST

START_TEST(the_report_has_every_counter_under_its_name)
{
    become_the_loader("report");
    for (int i = 0; i < STAT_COUNT; i++)
        stats_add((enum stat_counter)i, 1000 + (uint64_t)i);
    stats_report();
#define REPORTED(name) ck_assert_int_eq(stats_read(report_path, #name), 1000 + STAT_##name);
    STATS_COUNTERS(REPORTED)
    ck_assert_int_eq(stats_read(report_path, "pid"), getpid());
}
END_TEST

START_TEST(the_largest_counters_fit_the_report)
{
    become_the_loader("large");
    for (int i = 0; i < STAT_COUNT; i++)
        stats_add((enum stat_counter)i, UINT64_MAX);
    stats_report();
    const char *text = report_text(report_path);
    ck_assert_ptr_nonnull(strstr(text, "\"passed_through\": 18446744073709551615\n}\n"));
}
END_TEST

START_TEST(the_report_is_json_whatever_the_program_is_called)
{
    char command[512];
    become_the_loader("json");
    program_invocation_short_name = (char *)(uintptr_t) "a\"b\\c\n\xff";
    stats_report();
    ck_assert_ptr_nonnull(strstr(report_text(report_path), "\"command\": \"a\\\"b\\\\c??\""));
    snprintf(command, sizeof(command), "python3 -m json.tool '%.400s' >/dev/null", report_path);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(percent_p_is_the_pid_of_the_process_that_loaded_the_shim)
{
    char expected[PATH_MAX];
    become_the_loader("p.%p.%p.json");
    snprintf(expected, sizeof(expected), "%s/p.%d.%d.json", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", getpid(),
             getpid());
    stats_report();
    ck_assert_int_eq(stats_read(expected, "pid"), getpid());
}
END_TEST

START_TEST(a_report_replaces_an_older_one_and_leaves_nothing_beside_it)
{
    char leftover[PATH_MAX];
    struct stat before, after;
    become_the_loader("replaced");
    make_file_behind(report_path, 1, 100000);
    ck_assert_int_eq(stat(report_path, &before), 0);
    stats_report();
    ck_assert_int_eq(stat(report_path, &after), 0);
    ck_assert_uint_ne(before.st_ino, after.st_ino);
    ck_assert_int_eq(report_text(report_path)[0], '{');
    ck_assert_int_lt(snprintf(leftover, sizeof(leftover), "%.1000s.%d.tmp", report_path, getpid()), PATH_MAX);
    ck_assert_int_eq(access(leftover, F_OK), -1);
}
END_TEST

START_TEST(a_report_to_a_pipe_is_written_through_it)
{
    char text[4096];
    int ends[2];
    become_the_loader("pipe");
    ck_assert_int_eq(pipe(ends), 0);
    snprintf(report_path, sizeof(report_path), "/proc/self/fd/%d", ends[1]);
    stats_report();
    ssize_t length = read(ends[0], text, sizeof(text));
    ck_assert_int_gt(length, 100);
    ck_assert_int_eq(text[0], '{');
}
END_TEST

START_TEST(a_report_to_stderr_survives_its_closing)
{
    char text[4096];
    int ends[2], kept = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    config.stats = "stderr";
    stats_start();
    close(STDERR_FILENO);
    stats_report();
    ssize_t length = read(ends[0], text, sizeof(text));
    dup2(kept, STDERR_FILENO);
    ck_assert_int_gt(length, 100);
}
END_TEST

START_TEST(a_child_says_nothing_while_the_loader_lives)
{
    become_the_loader("quiet");
    pid_t child = fork();
    if (child == 0) {
        stats_report();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    ck_assert_int_eq(access(report_path, F_OK), -1);
}
END_TEST

START_TEST(a_child_reports_after_a_loader_that_has_reported_and_is_about_to_end)
{
    become_the_loader("ending");
    stats_report();
    pid_t child = fork();
    if (child == 0) {
        stats_add(STAT_direct_writes, 5);
        stats_report();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    ck_assert_int_eq(stats_read(report_path, "direct_writes"), 5);
}
END_TEST

/* A loader that ends in one of two ways while its child goes on and reports after it. */
static void report_of_a_child_that_outlives_its_parent(bool loader_reports)
{
    int gone[2], done[2];
    char byte;
    ck_assert_int_eq(pipe(gone), 0);
    ck_assert_int_eq(pipe(done), 0);
    pid_t loader = fork();
    if (loader == 0) {
        become_the_loader("outlived");
        stats_add(STAT_direct_writes, 1);
        if (fork() == 0) {
            close(gone[1]);
            read(gone[0], &byte, 1);
            stats_add(STAT_direct_writes, 10);
            stats_report();
            write(done[1], "", 1);
            _exit(0);
        }
        if (loader_reports)
            stats_report();
        _exit(0);
    }
    become_the_loader("outlived");
    /* Not waited for: what remains of it is a zombie. */
    siginfo_t info;
    waitid(P_PID, (id_t)loader, &info, WEXITED | WNOWAIT);
    if (loader_reports)
        ck_assert_int_eq(stats_read(report_path, "direct_writes"), 1);
    close(gone[1]);
    ck_assert_int_eq(read(done[0], &byte, 1), 1);
    ck_assert_int_eq(stats_read(report_path, "direct_writes"), 11);
    ck_assert_int_eq(stats_read(report_path, "pid"), loader);
    waitpid(loader, NULL, 0);
}

START_TEST(a_child_that_outlives_a_reporting_loader_reports_again)
{
    report_of_a_child_that_outlives_its_parent(true);
}
END_TEST

START_TEST(a_child_that_outlives_a_killed_loader_reports_for_it)
{
    report_of_a_child_that_outlives_its_parent(false);
}
END_TEST

START_TEST(a_report_that_cannot_be_written_is_a_warning)
{
    char text[512] = "";
    int ends[2], kept = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(ends), 0);
    config.stats = "/no/such/directory/s";
    stats_start();
    dup2(ends[1], STDERR_FILENO);
    stats_report();
    dup2(kept, STDERR_FILENO);
    config.stats = NULL; /* the end of this process would report as well */
    ck_assert_int_gt(read(ends[0], text, sizeof(text) - 1), 0);
    ck_assert_str_eq(text, "bounceio: cannot write BOUNCEIO_STATS=/no/such/directory/s: No such file or directory\n");
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        counts_of_many_threads_add_up,
        a_thread_stays_in_one_shard,
        threads_count_in_different_shards,
        what_a_forked_child_counts_is_seen_by_its_parent,
        the_structure_of_the_public_header_has_the_same_counters,
        the_report_has_every_counter_under_its_name,
        the_largest_counters_fit_the_report,
        the_report_is_json_whatever_the_program_is_called,
        percent_p_is_the_pid_of_the_process_that_loaded_the_shim,
        a_report_replaces_an_older_one_and_leaves_nothing_beside_it,
        a_report_to_a_pipe_is_written_through_it,
        a_report_to_stderr_survives_its_closing,
        a_child_says_nothing_while_the_loader_lives,
        a_child_reports_after_a_loader_that_has_reported_and_is_about_to_end,
        a_child_that_outlives_a_reporting_loader_reports_again,
        a_child_that_outlives_a_killed_loader_reports_for_it,
        a_report_that_cannot_be_written_is_a_warning,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "stats", 20, NULL, tests);
}
