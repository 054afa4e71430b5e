/* Region words, found as format.h lays them out. */
#include "mapfile.h"

#include <dirent.h>
#include <string.h>

#include "checksum/format.h"
#include "support/support.h"

int mapfile_regions(const char *store, uint64_t *words, uint64_t regions)
{
    char path[4096] = "";
    const char *maps = path_in(store, "maps");
    DIR *directory = opendir(maps);

    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry; entry = readdir(directory))
        if (entry->d_name[0] != '.' && !strstr(entry->d_name, ".bad"))
            snprintf(path, sizeof(path), "%s", path_in(maps, entry->d_name));
    if (directory)
        closedir(directory);
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
