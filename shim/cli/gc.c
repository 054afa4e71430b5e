/*
 * bounceio gc: remove the maps of files that are gone, and whatever else the store need not keep.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "checksum/locator.h"
#include "checksum/store.h"
#include "cli/cli.h"
#include "cli/gc.h"
#include "cli/json.h"
#include "cli/locate.h"
#include "cli/progress.h"
#include "cli/removal.h"
#include "cli/sessions.h"
#include "cli/text.h"

static const char help[] =
    "Usage: bounceio gc [--dry-run] [--set-aside] [--json] [--verbose]\n\n"
    "Tidy up the store: remove the maps of files that no longer exist, give back space of maps of files that became\n"
    "shorter, mark as clean what is flushed to disk, and clear up after processes that were killed.\n"
    "A map is removed only when its file is known to be gone: not when its file system is not mounted, and not\n"
    "while a process uses it. Run as root, gc also finds files that were renamed.\n\n"
    "  -n, --dry-run     only say what would be done\n"
    "      --set-aside   remove damaged maps that were set aside (*.bad) as well\n"
    "  -v, --verbose     name the maps\n"
    "      --json        for programs\n"
    "      --help        this text\n\n"
    "Exit status: 0 done, 2 something could not be done.\n";

enum { LEFT_OVER_SECONDS = 60 }; /* temporary files live for a moment only */

void gc_tell(const struct gc *gc, const char *what, const struct map_view *view)
{
    const char *path = map_view_path(view);
    if (!gc->verbose || gc->as_json)
        return;
    printf("%s%s: ", gc->dry_run ? "would be " : "", what);
    print_name(path ? path : view->map.name);
    putchar('\n');
}

static void remove_map(struct gc *gc, const struct map_view *view)
{
    int error = gc->dry_run ? 0 : removal_of_map(view->map.name, view->map.id);
    if (error == -EBUSY || error == -ESTALE) {
        gc->in_use++; /* since we looked */
    } else if (error == 0 || error == -ENOENT) {
        gc->removed++;
        gc->bytes += view->on_disk;
        gc_tell(gc, "removed", view);
    } else {
        gc->status = cli_error("cannot remove map \"%s\": %s", view->map.name, strerror(-error));
    }
}

/* The file was found by its handle: note its new path, if there is one that leads to it. */
static void note_path(const struct map_view *view, int fd)
{
    char link[32], path[LOCATOR_PATH_BYTES];
    struct stat file, status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    if (path[0] != '/' || fstat(fd, &file) != 0 || stat(path, &status) != 0 || status.st_dev != file.st_dev ||
        status.st_ino != file.st_ino)
        return;
    int map = openat(store_maps_directory(), view->map.name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (map < 0)
        return;
    const off_t offset = LOCATOR_OFFSET + (off_t)offsetof(struct map_locator, path);
    if (pwrite(map, path, (size_t)length + 1, offset) != length + 1)
        cli_warning("map \"%s\": cannot note its file's new path: %s", view->map.name, strerror(errno));
    close(map);
}

static bool is_of_this_machine(const struct map_view *view)
{
    uint8_t machine[16];
    map_machine_id(machine);
    return memcmp(machine, view->map.header->identity.machine, sizeof machine) == 0;
}

static void keep_undecided(struct gc *gc, const struct map_view *view, const char *reason)
{
    const char *path = map_view_path(view);
    gc->undecided++;
    if (gc->verbose)
        cli_warning("kept: %s: %s", path ? path : view->map.name, reason);
}

static void look_for_file(struct gc *gc, const struct map_view *view)
{
    struct located located;
    locate(view, &located);
    switch (located.where) {
    case FILE_ALIVE:
        if (located.by_handle && !gc->dry_run)
            note_path(view, located.fd);
        gc_space(gc, view, located.fd);
        close(located.fd);
        break;
    case FILE_GONE:
        remove_map(gc, view);
        break;
    case FILE_ABSENT:
        gc->absent++;
        break;
    case FILE_UNDECIDED:
        keep_undecided(gc, view, located.reason);
        break;
    }
}

static void look_at_map(struct gc *gc, const char *name)
{
    struct map_view view;
    char users[USERS_TEXT];
    int error = map_view_open(&view, name);
    if (error == -ENOENT)
        return;
    gc->maps++;
    if (error == -EINVAL) {
        bool unfinished = !gc->dry_run && removal_of_unfinished(name) == 0;
        *(unfinished ? &gc->left_over : &gc->damaged) += 1;
        return;
    }
    if (error != 0) {
        gc->status = cli_error("cannot read map \"%s\": %s", name, strerror(-error));
        return;
    }
    if (sessions_users_of(view.map.id, users) > 0)
        gc->in_use++;
    else if (!is_of_this_machine(&view))
        gc->foreign++;
    else
        look_for_file(gc, &view);
    if (!map_is_usable(&view.map))
        gc->status = cli_error("cannot read map \"%s\" to its end", name);
    map_view_close(&view);
}

/* Temporary files of processes that died while they made a map, and maps that were set aside. */
static void look_at_other(struct gc *gc, const char *name)
{
    struct stat status;
    bool temporary = strstr(name, ".new.");
    int maps = store_maps_directory();
    if (fstatat(maps, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (temporary ? time(NULL) - status.st_mtime < LEFT_OVER_SECONDS : !gc->set_aside) {
        gc->set_aside_kept += !temporary;
        return;
    }
    if (!gc->dry_run && unlinkat(maps, name, 0) != 0 && errno != ENOENT) {
        gc->status = cli_error("cannot remove \"maps/%s\": %s", name, strerror(errno));
        return;
    }
    gc->left_over++;
    gc->bytes += (uint64_t)status.st_blocks * 512;
}

static void collect(struct gc *gc)
{
    char **names;
    int count = map_names(&names);
    if (count < 0) {
        gc->status = cli_error("cannot list the maps of the store: %s", strerror(-count));
        return;
    }
    for (int i = 0; i < count; i++) {
        if (map_name_is_plain(names[i]))
            look_at_map(gc, names[i]);
        else
            look_at_other(gc, names[i]);
    }
    map_names_free(names, count);
    locate_end();
    gc_sessions(gc);
}

/* ---- The report ---- */

static void print_count(uint64_t count, const char *what)
{
    char text[COUNT_TEXT];
    if (count > 0)
        printf("  %9s  %s\n", count_text(text, count), what);
}

static void print_report(const struct gc *gc)
{
    char text[COUNT_TEXT], bytes[SIZE_TEXT];
    printf("%s map%s looked at, %s%s given back\n", count_text(text, gc->maps), gc->maps == 1 ? "" : "s",
           size_text(bytes, (double)gc->bytes), gc->dry_run ? " would be" : "");
    print_count(gc->removed, "removed: their files are gone");
    print_count(gc->in_use, "in use");
    print_count(gc->absent, "kept: their file system is not mounted here");
    print_count(gc->foreign, "kept: they belong to another machine");
    print_count(gc->undecided, "kept: undecided whether their files exist (--verbose says why)");
    print_count(gc->damaged, "damaged: set aside when their files are opened");
    print_count(gc->set_aside_kept, "set aside as *.bad: --set-aside removes them");
    print_count(gc->left_over, "left-over files removed");
    print_count(gc->trimmed, "made smaller: nothing is known of some of their blocks");
    print_count(gc->regions_cleared, "regions flushed and marked clean");
    print_count(gc->regions_dirty, "regions still dirty");
    print_count(gc->sessions_emptied, "tables of ended processes emptied");
    print_count(gc->requests_dropped, "requests of ended processes dropped: their maps are gone");
}

static void json_report(const struct gc *gc)
{
    struct json json = {.out = stdout};
    json_open_object(&json, NULL);
    json_bool(&json, "dry_run", gc->dry_run);
    json_number(&json, "maps", gc->maps);
    json_number(&json, "bytes_given_back", gc->bytes);
    json_number(&json, "removed", gc->removed);
    json_number(&json, "in_use", gc->in_use);
    json_number(&json, "filesystem_not_mounted", gc->absent);
    json_number(&json, "other_machine", gc->foreign);
    json_number(&json, "undecided", gc->undecided);
    json_number(&json, "damaged", gc->damaged);
    json_number(&json, "set_aside", gc->set_aside_kept);
    json_number(&json, "left_over_removed", gc->left_over);
    json_number(&json, "trimmed", gc->trimmed);
    json_number(&json, "regions_cleared", gc->regions_cleared);
    json_number(&json, "regions_dirty", gc->regions_dirty);
    json_number(&json, "sessions_emptied", gc->sessions_emptied);
    json_number(&json, "requests_dropped", gc->requests_dropped);
    json_close_object(&json);
}

int gc_main(int argc, char **argv)
{
    static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'}, {"set-aside", no_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},    {"verbose", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},    {0}};
    struct gc gc = {.status = CLI_CLEAN};
    for (int option; (option = getopt_long(argc, argv, "nvh", options, NULL)) != -1;) {
        if (option == 'h')
            return cli_help(help);
        if (option == '?')
            return cli_usage(argv);
        *(option == 'n'   ? &gc.dry_run
          : option == 's' ? &gc.set_aside
          : option == 'j' ? &gc.as_json
                          : &gc.verbose) = true;
    }
    if (optind < argc) {
        cli_error("gc takes no file names: it looks at the whole store");
        return cli_usage(argv);
    }
    int status = removal_begin();
    if (status == CLI_FAILED)
        return status;
    if (status == CLI_CLEAN)
        collect(&gc);
    if (gc.as_json)
        json_report(&gc);
    else
        print_report(&gc);
    return gc.status;
}
