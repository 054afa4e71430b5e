/* See map_view.h. */
#include "cli/map_view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/raw.h"
#include "checksum/locator.h"
#include "checksum/mapping.h"
#include "checksum/store.h"

static bool is_sound(const struct map_header *header, uint64_t bytes)
{
    const struct map_identity *identity = &header->identity;
    uint64_t windows = atomic_load(&header->windows);
    if (memcmp(identity->magic, "BNCEMAP", 8) != 0 || identity->version != FORMAT_VERSION ||
        identity->block_size != BLOCK_SIZE || header->identity_sum != map_identity_sum(identity))
        return false;
    if (identity->map_id == 0 || windows < 1 || windows > MAP_WINDOWS)
        return false;
    unsigned last = (unsigned)windows - 1;
    return bytes >= window_offset(last) + window_state_bytes(last);
}

static int map_file(struct map_view *view, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_size < 2 * FORMAT_PAGE)
        return -EINVAL;
    view->bytes = (uint64_t)status.st_size;
    view->on_disk = (uint64_t)status.st_blocks * 512;
    long address = mapping_make_view(fd, view->bytes, &view->map);
    if (raw_failed(address))
        return (int)address;
    char *base = (char *)address;
    view->map.header = (struct map_header *)base;
    bool sound = is_sound(view->map.header, view->bytes);
    if (!sound || !map_is_usable(&view->map)) {
        int error = map_is_usable(&view->map) ? -EINVAL : -EIO;
        map_view_close(view);
        return error;
    }
    view->map.id = view->map.header->identity.map_id;
    for (unsigned window = 0; window < map_window_count(&view->map); window++)
        if (window_offset(window) + window_state_bytes(window) <= view->bytes)
            view->map.windows[window] = base + window_offset(window);
    return 0;
}

int map_view_open(struct map_view *view, const char *name)
{
    *view = (struct map_view){.bytes = 0};
    if (strlen(name) >= sizeof view->map.name)
        return -ENAMETOOLONG;
    strcpy(view->map.name, name);
    int fd = openat(store_maps_directory(), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int error = map_file(view, fd);
    close(fd);
    return error;
}

void map_view_close(struct map_view *view)
{
    if (view->map.header)
        mapping_unmake(view->map.header, view->bytes);
    view->map.header = NULL;
}

const struct block_words *map_view_words(const struct map_view *view, uint64_t block, uint64_t *run)
{
    const struct block_words *words = map_words(&view->map, block, run);
    const char *end = (const char *)view->map.header + view->bytes;
    return words && (const char *)(words + *run) <= end ? words : NULL;
}

const char *map_view_path(const struct map_view *view)
{
    const char *path = map_locator(&view->map)->path;
    return path[0] == '/' && memchr(path, '\0', LOCATOR_PATH_BYTES) ? path : NULL;
}

static int is_no_dot(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int map_names(char ***names)
{
    struct dirent **entries;
    int count = scandirat(store_maps_directory(), ".", &entries, is_no_dot, by_name);
    if (count < 0)
        return -errno;
    *names = calloc((size_t)count + 1, sizeof **names);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        char *name = *names ? strdup(entries[i]->d_name) : NULL;
        if (name)
            (*names)[kept++] = name;
        free(entries[i]);
    }
    free(entries);
    if (kept == count)
        return count;
    map_names_free(*names, kept);
    return -ENOMEM;
}

void map_names_free(char **names, int count)
{
    for (int i = 0; names && i < count; i++)
        free(names[i]);
    free(names);
}

bool map_name_is_plain(const char *name)
{
    const size_t length = strlen(name), bad = strlen(".bad");
    return !strstr(name, ".new.") && !(length > bad && strcmp(name + length - bad, ".bad") == 0);
}
