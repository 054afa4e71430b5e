/*
 * Where the file of a map was last seen: written into the map, for `bounceio gc` and `bounceio stat` to find it again.
 */
#ifndef BOUNCEIO_CHECKSUM_LOCATOR_H
#define BOUNCEIO_CHECKSUM_LOCATOR_H

#include "checksum/map.h"

/*
 * Note where the file behind `fd` is: its path, as this process sees it, and its file handle, which survives renaming. Written only where it
 * differs. Of an inode without a name (O_TMPFILE: it may get one yet), the handle alone. Process lock held; async-signal-safe.
 */
void locator_note(const struct map *map, int fd);

/* The locator in a map's first page. */
static inline struct map_locator *map_locator(const struct map *map)
{
    return (struct map_locator *)((char *)map->header + LOCATOR_OFFSET);
}

/* What map_locator.handle_sum must be: a handle that was torn by a power cut leads to nobody's file. */
uint64_t locator_handle_sum(const struct map_locator *locator);

#endif
