/*
 * Windows and units of a map, for map.c. Process lock held throughout.
 */
#ifndef BOUNCEIO_CHECKSUM_MAP_GROW_H
#define BOUNCEIO_CHECKSUM_MAP_GROW_H

#include "checksum/map.h"

/* Map every window that the file has and this process does not; drop unit bits that the file does not back. @return 0 or -errno. */
int map_attach_windows(struct map *map, int fd);

/* Unmap all windows but the first, which is mapped together with the header. */
void map_detach_windows(struct map *map);

#endif
