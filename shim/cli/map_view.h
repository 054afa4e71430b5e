/*
 * A map looked at from outside: mapped read-only, without a session, so that looking changes nothing.
 *
 * What other sessions do meanwhile shows at once. Every field is checked against the map's size, which never shrinks.
 */
#ifndef BOUNCEIO_CLI_MAP_VIEW_H
#define BOUNCEIO_CLI_MAP_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "checksum/map.h"

struct map_view {
    struct map map;   /* header and windows, for map_region_word; never to be written to */
    uint64_t bytes;   /* length of the map's file */
    uint64_t on_disk; /* what it occupies */
};

/*
 * Look at the map `name` of the store, which must be open. @return 0; -ENOENT; -EINVAL when it is damaged or of another version; another
 * -errno.
 */
int map_view_open(struct map_view *view, const char *name);
void map_view_close(struct map_view *view);

/* The words of a block, or NULL; like map_words, for memory that is really there. */
const struct block_words *map_view_words(const struct map_view *view, uint64_t block, uint64_t *run);

/* The path that the map says its file had, or NULL. */
const char *map_view_path(const struct map_view *view);

/* All names in the store's maps directory, sorted; to be freed with map_names_free. @return their number, or -errno. */
int map_names(char ***names);
void map_names_free(char **names, int count);

/* Is it the name of a map, and not of something left over or set aside? */
bool map_name_is_plain(const char *name);

#endif
