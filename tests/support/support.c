/* Running a suite, the file systems it runs on, and the statistics it looks at. */
#include "support.h"

#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Noreturn void support_die(const char *format, ...)
{
    int error = errno;
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "test scaffolding: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (errno %d: %s)\n", error, strerror(error));
    _exit(99);
}

void test_skip(const char *format, ...)
{
    va_list arguments;

    printf("skipped: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

bool test_skipped_under(const char *sanitizer, const char *reason)
{
    const char *present = getenv("BOUNCEIO_TEST_SANITIZER");

    if (!present || strcmp(present, sanitizer) != 0)
        return false;
    test_skip("%s", reason);
    return true;
}

bool shim_is_loaded(void)
{
    return dlsym(RTLD_DEFAULT, "bounceio_version") != NULL;
}

/* --- The suite ---------------------------------------------------------------------------------------------------- */

static double slow_factor(void)
{
    const char *value = getenv("BOUNCEIO_TEST_SLOW");
    double factor = value ? strtod(value, NULL) : 1;

    return factor > 1 ? factor : 1;
}

int support_main(int argc, char **argv, const char *suite, double seconds, const struct support_mode *modes,
                 const TTest *const *tests)
{
    const char *only = getenv("BOUNCEIO_TEST_ONLY");

    for (const struct support_mode *mode = modes; argc > 1 && mode && mode->name; mode++)
        if (strcmp(argv[1], mode->name) == 0)
            return mode->run(argc - 2, argv + 2);

    Suite *all = suite_create(suite);
    bool any = false;

    for (; *tests; tests++) {
        if (only && strcmp(only, (*tests)->name) != 0)
            continue;
        /* One case per test, so that a failure is reported under the test's own name. */
        TCase *test_case = tcase_create((*tests)->name);

        any = true;
        tcase_set_timeout(test_case, seconds * slow_factor());
        tcase_add_test(test_case, *tests);
        suite_add_tcase(all, test_case);
    }
    if (!any && only)
        printf("%s: no test named %s\n", suite, only);
    SRunner *runner = srunner_create(all);

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- File systems ------------------------------------------------------------------------------------------------- */

static char to_remove[TEST_FS_MAX * 8][PATH_MAX];
static size_t to_remove_count;
static pid_t to_remove_owner;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_directories(void)
{
    if (getpid() != to_remove_owner || getenv("BOUNCEIO_TEST_KEEP"))
        return;
    while (to_remove_count > 0)
        nftw(to_remove[--to_remove_count], remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Make a directory below `parent` that goes when this process ends. */
static void make_directory(const char *parent, char *path, size_t size)
{
    int n = snprintf(path, size, "%s/test.XXXXXX", parent);

    if (n < 0 || (size_t)n >= size || !mkdtemp(path))
        support_die("cannot make a directory in %s", parent);
    if (to_remove_owner != getpid()) {
        to_remove_owner = getpid();
        to_remove_count = 0;
        atexit(remove_directories);
    }
    if (to_remove_count < sizeof(to_remove) / sizeof(to_remove[0]))
        snprintf(to_remove[to_remove_count++], PATH_MAX, "%s", path);
}

/* Walk BOUNCEIO_TEST_FS. `only`: the one name that is wanted, or NULL. */
static size_t collect(struct test_fs *fs, size_t room, const char *only)
{
    const char *list = getenv("BOUNCEIO_TEST_FS");
    const char *tmp = getenv("TMPDIR");
    char copy[TEST_FS_MAX * 256];
    char *rest;
    size_t count = 0;

    if (list && *list)
        snprintf(copy, sizeof(copy), "%s", list);
    else
        snprintf(copy, sizeof(copy), "disk:%s", tmp && *tmp ? tmp : "/var/tmp");
    for (char *word = strtok_r(copy, " ", &rest); word && count < room; word = strtok_r(NULL, " ", &rest)) {
        char *colon = strchr(word, ':');

        if (!colon || colon == word || (size_t)(colon - word) >= sizeof(fs->name))
            support_die("BOUNCEIO_TEST_FS: '%s' is not name:path", word);
        *colon = 0;
        if (only && strcmp(only, word) != 0)
            continue;
        snprintf(fs[count].name, sizeof(fs[count].name), "%s", word);
        make_directory(colon + 1, fs[count].path, sizeof(fs[count].path));
        count++;
    }
    return count;
}

size_t test_filesystems(struct test_fs *fs)
{
    size_t count = collect(fs, TEST_FS_MAX, NULL);

    if (count == 0)
        support_die("BOUNCEIO_TEST_FS names no file system");
    return count;
}

bool test_filesystem(const char *name, struct test_fs *fs)
{
    return collect(fs, 1, name) == 1;
}

const char *path_in(const char *directory, const char *name)
{
    static _Thread_local char paths[16][PATH_MAX];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 16];
    int n = snprintf(path, PATH_MAX, "%s/%s", directory, name);

    if (n < 0 || n >= PATH_MAX)
        support_die("path too long: %s/%s", directory, name);
    return path;
}

/* --- Statistics --------------------------------------------------------------------------------------------------- */

int64_t stats_read(const char *path, const char *key)
{
    char text[16384];
    char quoted[128];
    FILE *file = fopen(path, "re");
    int64_t value;

    if (!file)
        return -1;
    text[fread(text, 1, sizeof(text) - 1, file)] = 0;
    fclose(file);
    snprintf(quoted, sizeof(quoted), "\"%s\"", key);
    const char *found = strstr(text, quoted);

    if (!found || sscanf(found + strlen(quoted), " : %" SCNd64, &value) != 1)
        return -1;
    return value;
}
