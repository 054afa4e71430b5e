/*
 * The `bounceio` command: the table of subcommands.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "bounceio.h"
#include "checksum/store.h"
#include "cli/cli.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", run_main, "run a program under the shim"},
    {"stat", stat_main, "what is known of a file, a process, the store"},
    {"scrub", scrub_main, "verify every block that has a checksum"},
    {"adopt", adopt_main, "give blocks without a checksum that of their content"},
    {"forget", forget_main, "remove the checksums of files"},
    {"gc", gc_main, "remove the checksums of files that are gone, and tidy up"},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* ---- What subcommands share ---- */

int cli_help(const char *text)
{
    fputs(text, stdout);
    return CLI_CLEAN;
}

int cli_usage(char **argv)
{
    fprintf(stderr, "Try '%s --help'.\n", argv[0]);
    return CLI_FAILED;
}

static void say(const char *format, va_list arguments)
{
    flockfile(stderr);
    fputs("bounceio: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
}

int cli_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return CLI_FAILED;
}

void cli_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

int cli_start(void)
{
    if (process_start()) {
        config.stats = NULL; /* the command reports in its own way */
        guard_install();     /* a map whose disk fails is not to end the command */
        return CLI_CLEAN;
    }
    return cli_error("the checksums cannot be used%s", config.disable ? ": unset BOUNCEIO_DISABLE" : "");
}

int cli_open_store(bool create)
{
    if (cli_start() != CLI_CLEAN)
        return CLI_FAILED;
    if (!config.store)
        return cli_error(config.store_unknown ? "no store: set BOUNCEIO_STORE to a directory, or HOME"
                                              : "BOUNCEIO_STORE=none: name the directory that holds the checksums");
    uint64_t saved;
    guard_install(); /* the store's memory may fail at any touch */
    process_lock(&saved);
    int error = store_open(create);
    process_unlock(&saved);
    if (error == -ENOENT)
        return -1;
    return error == 0 ? CLI_CLEAN : CLI_FAILED; /* the store has said why */
}

/* ---- Finding the command ---- */

static int print_help(void)
{
    puts("Usage: bounceio COMMAND [OPTION]... [ARGUMENT]...\n\n"
         "Direct I/O that is stable, checksummed and verified.\n\n"
         "Commands:");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    puts("\n'bounceio COMMAND --help' says more about one; bounceio(1) and libbounceshim(7) say everything.\n\n"
         "The checksums are kept in $BOUNCEIO_STORE; by default in /var/lib/bounceio for root, else in\n"
         "$XDG_STATE_HOME/bounceio or ~/.local/state/bounceio.\n\n"
         "Exit status: 0 done, 1 something was found (mismatches), 2 could not.");
    return CLI_CLEAN;
}

static int run_command(const char *name, int argc, char **argv)
{
    char full_name[64];
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        snprintf(full_name, sizeof full_name, "bounceio %s", name);
        argv[0] = full_name;
        return commands[i].run(argc, argv);
    }
    cli_error("there is no command '%s'", name);
    fputs("Try 'bounceio --help'.\n", stderr);
    return CLI_FAILED;
}

static int help_on(const char *name)
{
    char option[] = "--help", *argv[] = {NULL, option, NULL};
    return run_command(name, 2, argv);
}

/*
 * A shell that exports LD_PRELOAD loads the shim into this process as well, and it would bounce and check what the command reads once
 * more. Start again without it.
 */
static void leave_shim(char **argv)
{
    const char *preload = getenv("LD_PRELOAD");
    if (!preload || !dlsym(RTLD_DEFAULT, "bounceio_version"))
        return;
    char *kept = malloc(strlen(preload) + 1), *end = kept;
    bool left_out = false;
    for (const char *at = preload; kept && *at; at += strspn(at, ": ")) {
        size_t length = strcspn(at, ": ");
        bool is_shim = memmem(at, length, "libbounceshim.so", strlen("libbounceshim.so"));
        left_out |= is_shim;
        if (!is_shim && length > 0) {
            if (end != kept)
                *end++ = ':';
            end = mempcpy(end, at, length);
        }
        at += length;
    }
    if (kept && left_out) {
        *end = '\0';
        setenv("LD_PRELOAD", kept, 1);
        execv("/proc/self/exe", argv);
    }
    free(kept);
}

/* Results that nobody could read are not a success. */
static int close_output(int status)
{
    if (ferror(stdout) || fflush(stdout) != 0)
        return cli_error("cannot write the results: %s", strerror(errno));
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    leave_shim(argv);
    if (!name) {
        fputs("Usage: bounceio COMMAND [OPTION]... [ARGUMENT]...\nTry 'bounceio --help'.\n", stderr);
        return CLI_FAILED;
    }
    if (strcmp(name, "--version") == 0) {
        puts("bounceio " BOUNCEIO_VERSION);
        return close_output(CLI_CLEAN);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return close_output(argc > 2 ? help_on(argv[2]) : print_help());
    return close_output(run_command(name, argc - 1, argv + 1));
}
