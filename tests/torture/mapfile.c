/* Region words, found as format.h lays them out. */
#include "mapfile.h"

#include <dirent.h>
#include <string.h>

#include "checksum/format.h"
#include "support/support.h"

/* Path of the only map of a store, empty when there is none. */
static void find(const char *store, char *path, size_t room)
{
    const char *maps = path_in(store, "maps");
    DIR *directory = opendir(maps);

    *path = 0;
    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry; entry = readdir(directory))
        if (entry->d_name[0] != '.' && !strstr(entry->d_name, ".bad"))
            snprintf(path, room, "%s", path_in(maps, entry->d_name));
    if (directory)
        closedir(directory);
}

int mapfile_regions(const char *store, uint64_t *words, uint64_t regions)
{
    char path[4096];

    find(store, path, sizeof(path));
    if (!*path)
        return -1;
    for (uint64_t region = 0; region < regions; region++) {
        unsigned window = window_of_region(region);
        uint64_t offset = window_offset(window) + (region - window_first_region(window)) * 8;

        if (read_behind(path, &words[region], 8, offset) != 8)
            words[region] = 0;
    }
    return 0;
}

int mapfile_window(const char *store, int64_t *issue, int64_t *completion)
{
    struct map_header header;
    char path[4096];

    find(store, path, sizeof(path));
    if (!*path || read_behind(path, &header, sizeof(header), 0) != sizeof(header))
        return -1;
    *issue = header.window_issue;
    *completion = header.window_completion;
    return 0;
}
