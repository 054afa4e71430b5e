/* The BOUNCEIO_* variables: what each value means, and what is used instead of one that means nothing. */
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "support/support.h"

#define MIB ((size_t)1 << 20)

static char errors[8192];

/* Load with the variables set so far; what was written to stderr meanwhile is in `errors`. */
static void load(void)
{
    int log = memfd_create("errors", 0);
    int kept = dup(STDERR_FILENO);
    ck_assert_int_ge(log, 0);
    ck_assert_int_eq(dup2(log, STDERR_FILENO), STDERR_FILENO);
    config_load();
    dup2(kept, STDERR_FILENO);
    ssize_t length = pread(log, errors, sizeof(errors) - 1, 0);
    ck_assert_int_ge(length, 0);
    errors[length] = '\0';
    close(log);
    close(kept);
}

/* Start every test without a variable of ours. */
static void forget_variables(void)
{
    extern char **environ;
    for (char **entry = environ; *entry;) {
        char name[256];
        snprintf(name, sizeof(name), "%s", *entry);
        name[strcspn(name, "=")] = '\0';
        if (strncmp(name, "BOUNCEIO_", 9) == 0) {
            unsetenv(name);
            entry = environ;
        } else {
            entry++;
        }
    }
}

static void load_one(const char *name, const char *value)
{
    forget_variables();
    setenv(name, value, 1);
    load();
}

static int lines_in(const char *text)
{
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

START_TEST(without_variables_the_documented_defaults_hold)
{
    forget_variables();
    load();
    ck_assert_int_eq(config.on_mismatch, ON_MISMATCH_EIO);
    ck_assert_int_eq(config.read, READ_AUTO);
    ck_assert_int_eq(config.copy, COPY_GUARD);
    ck_assert_int_eq(config.log_level, LOG_LEVEL_WARN);
    ck_assert_uint_eq(config.pool, 16 * MIB);
    ck_assert_uint_eq(config.pool_max, 1024 * MIB);
    ck_assert(!config.detect && !config.adopt && !config.disable);
    ck_assert_ptr_null(config.include);
    ck_assert_ptr_null(config.exclude);
    ck_assert_ptr_null(config.stats);
    ck_assert_ptr_null(config.log_file);
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(every_word_of_the_interface_is_understood)
{
    static const struct {
        const char *name, *value;
        const unsigned *field;
        unsigned expected;
    } words[] = {
        {"BOUNCEIO_ON_MISMATCH", "eio", &config.on_mismatch, ON_MISMATCH_EIO},
        {"BOUNCEIO_ON_MISMATCH", "warn", &config.on_mismatch, ON_MISMATCH_WARN},
        {"BOUNCEIO_ON_MISMATCH", "abort", &config.on_mismatch, ON_MISMATCH_ABORT},
        {"BOUNCEIO_READ", "auto", &config.read, READ_AUTO},
        {"BOUNCEIO_READ", "bounce", &config.read, READ_BOUNCE},
        {"BOUNCEIO_READ", "inplace", &config.read, READ_INPLACE},
        {"BOUNCEIO_COPY", "guard", &config.copy, COPY_GUARD},
        {"BOUNCEIO_COPY", "kernel", &config.copy, COPY_KERNEL},
        {"BOUNCEIO_LOG", "error", &config.log_level, LOG_LEVEL_ERROR},
        {"BOUNCEIO_LOG", "warn", &config.log_level, LOG_LEVEL_WARN},
        {"BOUNCEIO_LOG", "info", &config.log_level, LOG_LEVEL_INFO},
        {"BOUNCEIO_LOG", "debug", &config.log_level, LOG_LEVEL_DEBUG},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        load_one(words[i].name, words[i].value);
        ck_assert_msg(*words[i].field == words[i].expected, "%s=%s", words[i].name, words[i].value);
        ck_assert_str_eq(errors, "");
    }
}
END_TEST

START_TEST(flags_are_one_and_zero)
{
    load_one("BOUNCEIO_DETECT", "1");
    ck_assert(config.detect);
    load_one("BOUNCEIO_ADOPT", "1");
    ck_assert(config.adopt);
    load_one("BOUNCEIO_DISABLE", "1");
    ck_assert(config.disable);
    load_one("BOUNCEIO_DISABLE", "0");
    ck_assert(!config.disable);
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(sizes_take_suffixes_and_are_rounded_up_to_two_mebibytes)
{
    static const struct {
        const char *value;
        size_t expected;
    } sizes[] = {{"0", 2 * MIB},     {"1", 2 * MIB},    {"2097152", 2 * MIB}, {"2097153", 4 * MIB},
                 {"3000K", 4 * MIB}, {"64M", 64 * MIB}, {"1G", 1024 * MIB}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        load_one("BOUNCEIO_POOL", sizes[i].value);
        ck_assert_msg(config.pool == sizes[i].expected, "%s gave %zu", sizes[i].value, config.pool);
        ck_assert_str_eq(errors, "");
    }
}
END_TEST

START_TEST(a_pool_that_is_asked_for_is_ready_at_once)
{
    load_one("BOUNCEIO_POOL", "16M");
    ck_assert_uint_eq(config.pool_ready, 16 * MIB);
    load_one("BOUNCEIO_POOL", "2M");
    ck_assert_uint_eq(config.pool_ready, 2 * MIB);
    load_one("BOUNCEIO_POOL", "");
    ck_assert_uint_eq(config.pool, 16 * MIB);
    ck_assert_uint_eq(config.pool_ready, 6 * MIB);
    load_one("BOUNCEIO_POOL_MAX", "4M");
    ck_assert_uint_eq(config.pool, 4 * MIB);
    ck_assert_uint_eq(config.pool_ready, 4 * MIB);
}
END_TEST

START_TEST(the_pool_is_never_larger_than_its_maximum)
{
    forget_variables();
    setenv("BOUNCEIO_POOL", "64M", 1);
    setenv("BOUNCEIO_POOL_MAX", "9M", 1);
    load();
    ck_assert_uint_eq(config.pool_max, 10 * MIB);
    ck_assert_uint_eq(config.pool, 10 * MIB);
}
END_TEST

START_TEST(a_size_that_does_not_parse_is_named_with_what_is_used)
{
    static const char *const bad[] = {"M", "-1", "1T", "16MB", "16 M", "0x10", "18446744073709551616", "99999999999G"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char expected[256];
        load_one("BOUNCEIO_POOL", bad[i]);
        ck_assert_msg(config.pool == 16 * MIB, "%s", bad[i]);
        snprintf(expected, sizeof(expected), "bounceio: BOUNCEIO_POOL=%s is not understood; using 16M\n", bad[i]);
        ck_assert_str_eq(errors, expected);
    }
}
END_TEST

START_TEST(a_word_that_does_not_parse_is_named_with_what_is_used)
{
    static const char *const bad[] = {"EIO", "ei", "eioo", "eio warn", " "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        load_one("BOUNCEIO_ON_MISMATCH", bad[i]);
        ck_assert_int_eq(config.on_mismatch, ON_MISMATCH_EIO);
        ck_assert_int_eq(lines_in(errors), 1);
        ck_assert_ptr_nonnull(strstr(errors, "BOUNCEIO_ON_MISMATCH="));
        ck_assert_ptr_nonnull(strstr(errors, "using eio"));
    }
    load_one("BOUNCEIO_DETECT", "yes");
    ck_assert(!config.detect);
    ck_assert_ptr_nonnull(strstr(errors, "BOUNCEIO_DETECT=yes is not understood; using 0"));
}
END_TEST

START_TEST(an_unknown_variable_is_reported_by_name_alone)
{
    load_one("BOUNCEIO_POOOL", "secret");
    ck_assert_str_eq(errors, "bounceio: unknown variable BOUNCEIO_POOOL; see libbounceshim(7)\n");
}
END_TEST

START_TEST(the_log_level_rules_what_is_said_about_the_others)
{
    forget_variables();
    setenv("BOUNCEIO_POOL", "much", 1);
    setenv("BOUNCEIO_LOG", "error", 1);
    load();
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(an_empty_value_is_an_unset_variable)
{
    load_one("BOUNCEIO_POOL", "");
    ck_assert_uint_eq(config.pool, 16 * MIB);
    load_one("BOUNCEIO_STATS", "");
    ck_assert_ptr_null(config.stats);
    load_one("BOUNCEIO_STORE", "");
    ck_assert_ptr_nonnull(config.store);
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(store_none_means_no_store)
{
    load_one("BOUNCEIO_STORE", "none");
    ck_assert_ptr_null(config.store);
    ck_assert(!config.store_unknown);
}
END_TEST

START_TEST(a_relative_path_is_made_absolute)
{
    char expected[PATH_MAX];
    ck_assert_int_eq(chdir("/tmp"), 0);
    load_one("BOUNCEIO_STORE", "maps/here");
    ck_assert_str_eq(config.store, "/tmp/maps/here");
    load_one("BOUNCEIO_STATS", "s.%p");
    ck_assert_str_eq(config.stats, "/tmp/s.%p");
    ck_assert_int_eq(chdir("/"), 0);
    load_one("BOUNCEIO_LOG_FILE", "log");
    snprintf(expected, sizeof(expected), "/log");
    ck_assert_str_eq(config.log_file, expected);
}
END_TEST

START_TEST(stats_to_stderr_is_not_a_path)
{
    load_one("BOUNCEIO_STATS", "stderr");
    ck_assert_str_eq(config.stats, "stderr");
}
END_TEST

START_TEST(values_outlive_the_environment)
{
    char value[] = "BOUNCEIO_STORE=/a/store";
    forget_variables();
    putenv(value);
    load();
    memset(value, 'x', sizeof(value) - 1);
    ck_assert_str_eq(config.store, "/a/store");
}
END_TEST

START_TEST(a_string_that_is_too_long_is_reported_and_not_cut)
{
    static char value[6000];
    memset(value, 'a', sizeof(value) - 1);
    load_one("BOUNCEIO_INCLUDE", value);
    ck_assert_ptr_null(config.include);
    ck_assert_int_eq(lines_in(errors), 1);
    ck_assert_ptr_nonnull(strstr(errors, "BOUNCEIO_INCLUDE="));
}
END_TEST

START_TEST(the_longest_strings_fit_all_at_once)
{
    static const char *const names[] = {"BOUNCEIO_STORE", "BOUNCEIO_INCLUDE", "BOUNCEIO_EXCLUDE", "BOUNCEIO_STATS",
                                        "BOUNCEIO_LOG_FILE"};
    static char value[4000];
    memset(value, 'a', sizeof(value) - 1);
    value[0] = '/';
    forget_variables();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        setenv(names[i], value, 1);
    load();
    ck_assert_str_eq(errors, "");
    ck_assert_str_eq(config.store, value);
    ck_assert_str_eq(config.include, value);
    ck_assert_str_eq(config.exclude, value);
    ck_assert_str_eq(config.stats, value);
    ck_assert_str_eq(config.log_file, value);
}
END_TEST

/* The default store depends on who asks; a user's identity is taken on in a test's own process. */
static void become_a_user(void)
{
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
}

START_TEST(the_default_store_of_root_is_the_system_s)
{
    if (geteuid() != 0) {
        test_skip("not root");
        return;
    }
    forget_variables();
    load();
    ck_assert_str_eq(config.store, "/var/lib/bounceio");
}
END_TEST

START_TEST(the_default_store_of_a_user_is_in_the_state_directory)
{
    become_a_user();
    forget_variables();
    setenv("HOME", "/home/u", 1);
    setenv("XDG_STATE_HOME", "/state", 1);
    load();
    ck_assert_str_eq(config.store, "/state/bounceio");
    setenv("XDG_STATE_HOME", "relative", 1);
    load();
    ck_assert_str_eq(config.store, "/home/u/.local/state/bounceio");
    unsetenv("XDG_STATE_HOME");
    load();
    ck_assert_str_eq(config.store, "/home/u/.local/state/bounceio");
}
END_TEST

START_TEST(a_user_without_a_home_has_no_store_and_hears_nothing_yet)
{
    become_a_user();
    forget_variables();
    unsetenv("HOME");
    unsetenv("XDG_STATE_HOME");
    load();
    ck_assert_ptr_null(config.store);
    ck_assert(config.store_unknown);
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(globs_match_as_documented)
{
    static const struct {
        const char *globs, *path;
        bool matches;
    } cases[] = {
        {NULL, "/a", false},
        {"", "/a", false},
        {"/a", "/a", true},
        {"/a", "/ab", false},
        {"/ab", "/a", false},
        {"*", "/any/thing", true},
        {"/data/*", "/data/x/y.db", true},
        {"/data/*.db", "/data/x/y.db", true},
        {"/data/*.db", "/data/x/y.db.bak", false},
        {"*a*b*c", "/aXbXbXc", true},
        {"*a*b*c", "/acb", false},
        {"**", "/a", true},
        {"/a?c", "/abc", true},
        {"/a?c", "/a/c", true},
        {"/a?c", "/ac", false},
        {"/[a-c]x", "/bx", true},
        {"/[a-c]x", "/dx", false},
        {"/[!a-c]x", "/dx", true},
        {"/[!a-c]x", "/bx", false},
        {"/[]x]", "/]", true},
        {"/[a-]", "/-", true},
        {"/[abc", "/[abc", true},
        {"/a\\*b", "/a*b", true},
        {"/a\\*b", "/axb", false},
        {"/a\\:b", "/a:b", true},
        {"/x:/y", "/y", true},
        {"/x:/y", "/x", true},
        {"/x:/y", "/x:/y", false},
        {":/x:", "/x", true},
        {":", "", false},
        {"*.img:/var/lib/*", "/home/vm.img", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(config_glob_list_matches(cases[i].globs, cases[i].path) == cases[i].matches, "%s on %s",
                      cases[i].globs, cases[i].path);
}
END_TEST

START_TEST(a_glob_of_many_stars_takes_no_exponential_time)
{
    char path[2048];
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    ck_assert(!config_glob_list_matches("*a*a*a*a*a*a*a*a*a*a*a*a*b", path));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        without_variables_the_documented_defaults_hold,
        every_word_of_the_interface_is_understood,
        flags_are_one_and_zero,
        sizes_take_suffixes_and_are_rounded_up_to_two_mebibytes,
        a_pool_that_is_asked_for_is_ready_at_once,
        the_pool_is_never_larger_than_its_maximum,
        a_size_that_does_not_parse_is_named_with_what_is_used,
        a_word_that_does_not_parse_is_named_with_what_is_used,
        an_unknown_variable_is_reported_by_name_alone,
        the_log_level_rules_what_is_said_about_the_others,
        an_empty_value_is_an_unset_variable,
        store_none_means_no_store,
        a_relative_path_is_made_absolute,
        stats_to_stderr_is_not_a_path,
        values_outlive_the_environment,
        a_string_that_is_too_long_is_reported_and_not_cut,
        the_longest_strings_fit_all_at_once,
        the_default_store_of_root_is_the_system_s,
        the_default_store_of_a_user_is_in_the_state_directory,
        a_user_without_a_home_has_no_store_and_hears_nothing_yet,
        globs_match_as_documented,
        a_glob_of_many_stars_takes_no_exponential_time,
        NULL,
    };
    return support_main(argc, argv, "config", 20, NULL, tests);
}
