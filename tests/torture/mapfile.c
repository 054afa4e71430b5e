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

/* Is the seal of a clean region that of its word, and either confirmed or what its block words are? As region.h says. */
static bool is_sealed(const char *path, uint64_t region, uint64_t word)
{
    static struct block_words words[UNIT_BLOCKS];
    unsigned window = window_of_region(region);
    uint64_t place = region - window_first_region(window), sum = 0, seal = 0;
    uint64_t number = word >> REGION_SEQUENCE_SHIFT;

    if (window >= SEALED_WINDOWS || !(word & REGION_UNITS))
        return true;
    read_behind(path, &seal, 8, window_offset(window) + (place + SEAL_DISTANCE) * 8);
    for (unsigned unit = 0; unit < UNITS_PER_REGION; unit++) {
        uint64_t offset = window_offset(window) + window_state_bytes(window) + place * REGION_WORD_BYTES +
                          (uint64_t)unit * UNIT_BYTES;

        if (!(word & REGION_UNIT(unit)) || read_behind(path, words, UNIT_BYTES, offset) != UNIT_BYTES)
            continue;
        for (unsigned i = 0; i < UNIT_BLOCKS; i++)
            sum += words[i].current;
    }
    return seal == (number << 1 | 1) || seal == ((sum ^ number * UINT64_C(0x9E3779B97F4A7C15)) & ~UINT64_C(1));
}

int mapfile_regions_after_cut(const char *store, uint64_t *words, uint64_t regions)
{
    char path[4096];

    if (mapfile_regions(store, words, regions) != 0)
        return -1;
    find(store, path, sizeof(path));
    for (uint64_t region = 0; region < regions; region++)
        if (!(words[region] & REGION_DIRTY) && !is_sealed(path, region, words[region]))
            words[region] |= REGION_DIRTY;
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
