/*
 * bounceio run: a program under the shim, set up by options instead of variables.
 *
 * Exits as the program does, because it becomes the program; 125, 126, 127 when it cannot, as env(1).
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/program.h"

enum { RUN_FAILED = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

static const char help[] =
    "Usage: bounceio run [OPTION]... [--] COMMAND [ARGUMENT]...\n\n"
    "Run COMMAND with libbounceshim.so: its direct I/O is copied into stable pages, checksummed and verified.\n\n"
    "Options; each sets the variable named, as in libbounceshim(7):\n"
    "  --store DIRECTORY          where the checksums are kept, or none      BOUNCEIO_STORE\n"
    "  --on-mismatch WHAT         eio (default), warn, abort                 BOUNCEIO_ON_MISMATCH\n"
    "  --read HOW                 auto (default), bounce, inplace            BOUNCEIO_READ\n"
    "  --pool SIZE                memory for copies, at first                BOUNCEIO_POOL\n"
    "  --pool-max SIZE            and at most                                BOUNCEIO_POOL_MAX\n"
    "  --copy HOW                 guard (default), kernel                    BOUNCEIO_COPY\n"
    "  --include GLOB             only files whose path matches; repeatable  BOUNCEIO_INCLUDE\n"
    "  --exclude GLOB             not these; repeatable                      BOUNCEIO_EXCLUDE\n"
    "  --detect                   report buffers changed in flight           BOUNCEIO_DETECT\n"
    "  --adopt                    unknown blocks take their first checksum   BOUNCEIO_ADOPT\n"
    "  --stats PATH|stderr        counters, as JSON, at exit (%p: pid)       BOUNCEIO_STATS\n"
    "  --log LEVEL                error, warn (default), info, debug         BOUNCEIO_LOG\n"
    "  --log-file PATH            instead of stderr                          BOUNCEIO_LOG_FILE\n"
    "  --help                     this text\n\n"
    "SIZE is in bytes, or with K, M or G.\n\n"
    "Exit status: that of COMMAND; 125 when bounceio fails, 126 when COMMAND cannot be run, 127 when it is not "
    "found.\n";

/* ---- Options ---- */

enum form { WORD, SIZE, DIRECTORY, GLOBS, FLAG };

static const struct setting {
    const char *option;
    const char *variable;
    enum form form;
    const char *words; /* the values that a WORD may have; the word that is not a path of a DIRECTORY */
} settings[] = {
    {"store", "BOUNCEIO_STORE", DIRECTORY, "none"},
    {"on-mismatch", "BOUNCEIO_ON_MISMATCH", WORD, "eio warn abort"},
    {"read", "BOUNCEIO_READ", WORD, "auto bounce inplace"},
    {"pool", "BOUNCEIO_POOL", SIZE, NULL},
    {"pool-max", "BOUNCEIO_POOL_MAX", SIZE, NULL},
    {"copy", "BOUNCEIO_COPY", WORD, "guard kernel"},
    {"include", "BOUNCEIO_INCLUDE", GLOBS, NULL},
    {"exclude", "BOUNCEIO_EXCLUDE", GLOBS, NULL},
    {"detect", "BOUNCEIO_DETECT", FLAG, NULL},
    {"adopt", "BOUNCEIO_ADOPT", FLAG, NULL},
    {"stats", "BOUNCEIO_STATS", DIRECTORY, "stderr"},
    {"log", "BOUNCEIO_LOG", WORD, "error warn info debug"},
    {"log-file", "BOUNCEIO_LOG_FILE", DIRECTORY, NULL},
};

enum { SETTINGS = sizeof settings / sizeof settings[0], OPTION_HELP = 'h', OPTION_SETTING = 256 };

static bool is_one_of(const char *words, const char *value)
{
    size_t length = strlen(value);
    for (; length > 0 && *words; words += strspn(words, " ")) {
        size_t word = strcspn(words, " ");
        if (word == length && strncmp(words, value, length) == 0)
            return true;
        words += word;
    }
    return false;
}

static bool is_size(const char *value)
{
    size_t digits = strspn(value, "0123456789");
    const char *rest = value + digits;
    return digits > 0 && digits <= 14 && (*rest == '\0' || (strchr("KMG", *rest) && rest[1] == '\0'));
}

/* The program may change its directory before the shim, or the next program, looks. @return to be freed */
static char *absolute(const char *path)
{
    char here[PATH_MAX], *whole = NULL;
    if (path[0] == '/')
        return strdup(path);
    if (!getcwd(here, sizeof here) || asprintf(&whole, "%s/%s", here, path) < 0)
        return NULL;
    return whole;
}

/* One more glob: to those that this command line has given, not to the environment's. */
static char *with_glob(const struct setting *setting, const char *glob)
{
    static bool given[SETTINGS];
    char *globs = NULL;
    const char *before = given[setting - settings] ? getenv(setting->variable) : NULL;
    given[setting - settings] = true;
    return asprintf(&globs, "%s%s%s", before ? before : "", before ? ":" : "", glob) < 0 ? NULL : globs;
}

static int apply(const struct setting *setting, const char *value)
{
    if (setting->form == WORD && !is_one_of(setting->words, value))
        return cli_error("--%s=%s is not understood; it is one of: %s", setting->option, value, setting->words);
    if (setting->form == SIZE && !is_size(value))
        return cli_error("--%s=%s is not a size in bytes, K, M or G", setting->option, value);
    if (setting->form != FLAG && *value == '\0')
        return cli_error("--%s is empty", setting->option);
    bool is_path = setting->form == DIRECTORY && !(setting->words && strcmp(value, setting->words) == 0);
    char *text = setting->form == GLOBS ? with_glob(setting, value)
                 : is_path              ? absolute(value)
                                        : strdup(setting->form == FLAG ? "1" : value);
    int error = text ? setenv(setting->variable, text, 1) : -1;
    free(text);
    return error == 0 ? CLI_CLEAN : cli_error("--%s=%s: %s", setting->option, value, strerror(errno));
}

/* @return 0 with optind at the command; -1 when --help was given; CLI_FAILED */
static int read_options(int argc, char **argv)
{
    struct option options[SETTINGS + 2] = {0};
    for (int i = 0; i < SETTINGS; i++)
        options[i] = (struct option){settings[i].option, settings[i].form == FLAG ? no_argument : required_argument,
                                     NULL, OPTION_SETTING + i};
    options[SETTINGS] = (struct option){"help", no_argument, NULL, OPTION_HELP};
    for (int option; (option = getopt_long(argc, argv, "+h", options, NULL)) != -1;) {
        if (option == OPTION_HELP)
            return -1;
        if (option < OPTION_SETTING)
            return cli_usage(argv);
        if (apply(&settings[option - OPTION_SETTING], optarg) != CLI_CLEAN)
            return cli_usage(argv);
    }
    if (optind == argc) {
        cli_error("which command?");
        return cli_usage(argv);
    }
    return CLI_CLEAN;
}

/* ---- The library ---- */

/* Beside the command as in a build directory, or where `make install` puts it; else the loader finds it by its name. */
static void find_library(char path[PATH_MAX])
{
    static const char *const places[] = {"%s/libbounceshim.so", "%s/../lib/libbounceshim.so.0",
                                         "%s/../lib64/libbounceshim.so.0",
                                         "%s/../lib/x86_64-linux-gnu/libbounceshim.so.0"};
    char directory[PATH_MAX - 64], candidate[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", directory, sizeof directory - 1);
    directory[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(directory, '/');
    for (size_t i = 0; slash && i < sizeof places / sizeof places[0]; i++) {
        *slash = '\0';
        snprintf(candidate, sizeof candidate, places[i], directory);
        if (access(candidate, R_OK) == 0 && realpath(candidate, path))
            return;
    }
    strcpy(path, "libbounceshim.so.0");
}

static int preload(void)
{
    char library[PATH_MAX], *list;
    find_library(library);
    if (strpbrk(library, " :"))
        return cli_error("\"%s\" cannot be preloaded: its path has a space or a colon; install it elsewhere", library);
    const char *others = getenv("LD_PRELOAD");
    bool has_others = others && *others;
    if (asprintf(&list, "%s%s%s", library, has_others ? ":" : "", has_others ? others : "") < 0)
        return cli_error("%s", strerror(errno));
    int error = setenv("LD_PRELOAD", list, 1);
    free(list);
    return error == 0 ? CLI_CLEAN : cli_error("%s", strerror(errno));
}

int run_main(int argc, char **argv)
{
    int status = read_options(argc, argv);
    if (status != CLI_CLEAN)
        return status < 0 ? cli_help(help) : RUN_FAILED;
    char **command = argv + optind;
    program_warn(command[0]);
    if (preload() != CLI_CLEAN)
        return RUN_FAILED;
    execvp(command[0], command);
    int reason = errno;
    cli_error("cannot run '%s': %s", command[0], strerror(reason));
    return reason == ENOENT ? NOT_FOUND : CANNOT_RUN;
}
