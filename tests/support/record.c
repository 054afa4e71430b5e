/* See record.h. */
#include "support/record.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void note(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    /* What a script has seen before it hangs or dies says most. */
    fflush(stdout);
}

void note_result(const char *what, long long result)
{
    if (result < 0)
        note("%s: %s", what, strerrorname_np((int)-result));
    else
        note("%s: %lld", what, result);
}

void note_errno(const char *what, long long result)
{
    note_result(what, result < 0 ? -errno : result);
}

enum { TRIES = 3 };

int record_main(const struct record_script *scripts, int argc, char **argv)
{
    if (argc != 2)
        support_die("usage: --record NAME DIRECTORY");
    while (scripts->name && strcmp(scripts->name, argv[0]) != 0)
        scripts++;
    if (!scripts->name)
        support_die("no script is called %s", argv[0]);
    scripts->play(argv[1]);
    return EXIT_SUCCESS;
}

static struct child play(const struct record_script *script, const struct test_fs *fs, enum preload preload)
{
    static int number;
    char name[24];

    snprintf(name, sizeof name, "%s%d", preload == WITH_SHIM ? "with" : "without", ++number);
    const char *directory = path_in(fs->path, name);

    if (mkdir(directory, 0700) != 0)
        support_die("cannot make %s", directory);
    struct child child =
        child_run_self(preload, NULL, (const char *const[]){"--record", script->name, directory, NULL});

    ck_assert_msg(child_succeeded(&child), "%s on %s, %s the shim", script->name, fs->name,
                  preload == WITH_SHIM ? "with" : "without");
    return child;
}

/* Where two records part. */
struct parting {
    unsigned line; /* the first is 1 */
    const char *before, *without, *with;
};

/* @return true when they are equal. Cuts both into lines. */
static bool compare(char *without, char *with, struct parting *parting)
{
    char *rest_without, *rest_with;
    char *a = strtok_r(without, "\n", &rest_without), *b = strtok_r(with, "\n", &rest_with);

    *parting = (struct parting){.line = 1, .before = "(the beginning)"};
    for (; a && b && strcmp(a, b) == 0; parting->line++) {
        parting->before = a;
        a = strtok_r(NULL, "\n", &rest_without);
        b = strtok_r(NULL, "\n", &rest_with);
    }
    parting->without = a ? a : "(the end)";
    parting->with = b ? b : "(the end)";
    return !a && !b;
}

static bool play_both(const struct record_script *script, const struct test_fs *fs, bool is_last)
{
    struct child without = play(script, fs, WITHOUT_SHIM), with = play(script, fs, WITH_SHIM);
    struct parting parting;
    bool equal = compare(without.output, with.output, &parting);

    ck_assert_msg(equal || !is_last,
                  "%s on %s, line %u:\nbefore that       %s\nwithout the shim  %s\nwith the shim     %s", script->name,
                  fs->name, parting.line, parting.before, parting.without, parting.with);
    ck_assert_msg(parting.line > 20 || !equal, "%s on %s: a record of %u lines", script->name, fs->name, parting.line);
    child_free(&without);
    child_free(&with);
    return equal;
}

void record_and_compare(const struct record_script *script)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        for (int try = 1; !play_both(script, &fs[i], try == TRIES); try++)
            ;
}
