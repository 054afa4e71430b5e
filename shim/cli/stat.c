/*
 * bounceio stat: what is known about files, processes and the store. Looks only: opens no session, changes no map.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "checksum/map.h"
#include "cli/cli.h"
#include "cli/sessions.h"
#include "cli/stat.h"
#include "cli/walk.h"

static const char help[] =
    "Usage: bounceio stat [--json] [--verbose] [PATH|PID]...\n\n"
    "PATH is a file: how much of it has a checksum, when and in which boot it was last written, regions that may hold\n"
    "outdated checksums, who uses it. A directory: the same for every file in it that has a map.\n"
    "PID is a process under the shim (digits only; ./123 names a file): its counters, requests and files.\n"
    "Without either: all processes that use the store, and what the store holds.\n\n"
    "  -v, --verbose   list dirty and suspect regions, and requests in flight\n"
    "      --json      for programs\n"
    "      --help      this text\n\n"
    "Exit status: 0 done, 2 something could not be looked at.\n";

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 12;
}

static bool look_at_file(const char *path, const struct stat *status, bool named, void *context)
{
    struct stat_run *run = context;
    struct map_key key;
    int fd = walk_open_to_ask(path, status, named);
    int error = fd < 0 ? fd : map_key_of(fd, &key);
    if (fd >= 0)
        close(fd);
    if (error == 0)
        run->status |= stat_file(run, path, (uint64_t)status->st_size, &key, named);
    else
        run->status |= cli_error("%s: %s", path, strerror(-error));
    return true;
}

static void look_at(struct stat_run *run, char *argument)
{
    char *paths[] = {argument, NULL};
    struct walk walk = {.file = look_at_file, .context = run};
    if (is_number(argument)) {
        run->status |= stat_process(run, strtoull(argument, NULL, 10));
        return;
    }
    unsigned before = run->reported;
    walk_paths(&walk, paths);
    if (walk.errors)
        run->status = CLI_FAILED;
    else if (run->reported == before && !run->json)
        cli_warning("%s: no file in it has a map", argument);
}

/* @return CLI_CLEAN, -1 for --help, CLI_FAILED */
static int read_options(int argc, char **argv, bool *json, bool *verbose)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "vh", options, NULL)) != -1;) {
        if (option == 'h')
            return -1;
        if (option == '?')
            return cli_usage(argv);
        *(option == 'j' ? json : verbose) = true;
    }
    return CLI_CLEAN;
}

/* There is no store yet: nothing has a checksum, and nobody is there. */
static int without_store(const struct stat_run *run, char **arguments)
{
    if (run->json) {
        json_open_object(run->json, NULL);
        json_text(run->json, "store", config.store);
        json_bool(run->json, "exists", false);
        json_close_object(run->json);
    }
    for (; *arguments; arguments++) {
        if (is_number(*arguments))
            return cli_error("process %s: there is no store \"%s\" yet", *arguments, config.store);
        if (access(*arguments, F_OK) != 0)
            return cli_error("%s: %s", *arguments, strerror(errno));
    }
    cli_warning("there is no store \"%s\" yet: no file has a checksum", config.store);
    return CLI_CLEAN;
}

int stat_main(int argc, char **argv)
{
    struct json json = {.out = stdout};
    struct stat_run run = {.json = NULL};
    bool as_json = false;
    int status = read_options(argc, argv, &as_json, &run.verbose);
    if (status != CLI_CLEAN)
        return status < 0 ? cli_help(help) : status;
    run.json = as_json ? &json : NULL;
    status = cli_open_store(false);
    if (status != CLI_CLEAN)
        return status < 0 ? without_store(&run, argv + optind) : status;
    sessions_look();
    if (run.json) {
        json_open_object(run.json, NULL);
        json_text(run.json, "store", config.store);
        json_bool(run.json, "exists", true);
    }
    if (optind == argc)
        run.status = stat_store(&run);
    else if (run.json)
        json_open_array(run.json, "results");
    for (int i = optind; i < argc; i++)
        look_at(&run, argv[i]);
    if (run.json && optind < argc)
        json_close_array(run.json);
    if (run.json)
        json_close_object(run.json);
    return run.status;
}
