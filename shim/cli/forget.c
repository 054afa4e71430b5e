/*
 * bounceio forget: remove the maps of files, whose checksums are no longer wanted.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checksum/map.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/map_view.h"
#include "cli/progress.h"
#include "cli/removal.h"
#include "cli/sessions.h"
#include "cli/walk.h"

static const char help[] =
    "Usage: bounceio forget [--json] [--quiet] PATH...\n\n"
    "Remove the map of each file, and of every file below a directory: no block of it has a checksum any more.\n"
    "The files themselves are not touched. A file that a process under the shim has open is left alone.\n\n"
    "  -q, --quiet   no summary\n"
    "      --json    for programs\n"
    "      --help    this text\n\n"
    "Exit status: 0 none of the files has a map now, 2 some still do.\n";

struct forgetting {
    bool no_store; /* then there is nothing to forget, but a name that leads nowhere is an error all the same */
    int status;
    uint64_t maps, bytes, kept;
};

static int fail(struct forgetting *forgetting, const char *path, const char *name, uint64_t id, int error)
{
    char users[USERS_TEXT];
    forgetting->kept++;
    if (error == -EBUSY && sessions_users_of(id, users) > 0)
        return cli_error("%s: in use by %s: end that first", path, users);
    if (error == -EBUSY)
        return cli_error("%s: was in use just now: try again", path);
    return cli_error("%s: cannot remove its map \"%s\": %s", path, name, strerror(-error));
}

static int forget_map(struct forgetting *forgetting, const char *path, const char *name)
{
    struct map_view view;
    int error = -ESTALE;
    uint64_t id = 0, bytes = 0;
    /* -ESTALE: somebody else has removed it, and made a new one, since we looked. */
    for (int attempt = 0; error == -ESTALE && attempt < 10; attempt++) {
        error = map_view_open(&view, name);
        if (error == -ENOENT)
            return CLI_CLEAN;
        if (error == -EINVAL && removal_of_unfinished(name) == 0)
            return CLI_CLEAN;
        if (error == -EINVAL)
            return cli_error(
                "%s: its map \"%s\" is damaged or of another version: it will be set aside when the file is "
                "opened, and `bounceio gc --set-aside` removes it then",
                path, name);
        if (error != 0)
            return fail(forgetting, path, name, 0, error);
        id = view.map.id;
        bytes = view.on_disk;
        map_view_close(&view);
        error = removal_of_map(name, id);
    }
    if (error != 0 && error != -ENOENT)
        return fail(forgetting, path, name, id, error);
    forgetting->maps++;
    forgetting->bytes += bytes;
    return CLI_CLEAN;
}

static bool forget_file(const char *path, const struct stat *status, bool named, void *context)
{
    struct forgetting *forgetting = context;
    struct map_key key;
    char name[MAP_NAME_BYTES];
    int fd = walk_open_to_ask(path, status, named);
    int error = fd < 0 ? fd : map_key_of(fd, &key);
    if (fd >= 0)
        close(fd);
    if (error != 0) {
        forgetting->status = cli_error("%s: %s", path, strerror(-error));
        return true;
    }
    map_name(name, &key);
    if (!forgetting->no_store && forget_map(forgetting, path, name) != CLI_CLEAN)
        forgetting->status = CLI_FAILED;
    return true;
}

static void report(const struct forgetting *forgetting, bool as_json)
{
    struct json json = {.out = stdout};
    char bytes[SIZE_TEXT];
    if (!as_json) {
        printf("%llu map%s removed, %s\n", (unsigned long long)forgetting->maps, forgetting->maps == 1 ? "" : "s",
               size_text(bytes, (double)forgetting->bytes));
        return;
    }
    json_open_object(&json, NULL);
    json_number(&json, "maps_removed", forgetting->maps);
    json_number(&json, "bytes_given_back", forgetting->bytes);
    json_number(&json, "maps_kept", forgetting->kept);
    json_close_object(&json);
}

int forget_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct forgetting forgetting = {.status = CLI_CLEAN};
    struct walk walk = {.file = forget_file, .context = &forgetting};
    bool as_json = false, quiet = false;
    for (int option; (option = getopt_long(argc, argv, "qh", options, NULL)) != -1;) {
        if (option == 'h')
            return cli_help(help);
        if (option == '?')
            return cli_usage(argv);
        *(option == 'j' ? &as_json : &quiet) = true;
    }
    if (optind == argc) {
        cli_error("which files?");
        return cli_usage(argv);
    }
    int status = removal_begin();
    if (status == CLI_FAILED)
        return status;
    forgetting.no_store = status != CLI_CLEAN;
    walk_paths(&walk, argv + optind);
    if (!quiet || as_json)
        report(&forgetting, as_json);
    return walk.errors ? CLI_FAILED : forgetting.status;
}
