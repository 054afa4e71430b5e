/*
 * Mappings of the store's files: made, unmade, and repaired when their memory fails.
 *
 * Memory that is a file's can fail at any touch with SIGBUS: the file was cut off, its disk cannot be read, a copy-on-write file system
 * is full. The guard's handler then puts zero memory in the place of the page, so that the request goes on, and nothing of what the
 * memory says is used any more: a map is broken; when it was a session's file or the shared page, every map of this process is. The
 * header of each is marked MAP_CHANGED_OUTSIDE first, because from now on this process writes without announcing it.
 *
 * The guard must be up before such memory is touched (store_prepare, or a direct descriptor). With BOUNCEIO_COPY=kernel there is
 * none, and the signal is the program's.
 */
#ifndef BOUNCEIO_CHECKSUM_MAPPING_H
#define BOUNCEIO_CHECKSUM_MAPPING_H

#include <stdbool.h>
#include <stdint.h>

#include "checksum/map.h"

/*
 * Map [offset, offset + length) of a file of the store, shared, for reading and writing, not inherited by forked children. `owner`: the
 * map whose memory it is; NULL for sessions' files and the shared page. Thread-safe; async-signal-safe.
 * @return the address, or -errno; -ENOMEM also when this would be more than the program can spare.
 */
long mapping_make(int fd, uint64_t offset, uint64_t length, struct map *owner);

/* A whole file to look at, read-only, for a `owner` that is no user of the map: when its memory fails, that is all that breaks. */
long mapping_make_view(int fd, uint64_t length, struct map *owner);

/* Nobody uses it any more. `address` and `length` as made. */
void mapping_unmake(void *address, uint64_t length);

/* Has memory failed that all maps of this process depend on? Then no map can be opened. */
bool mapping_store_failed(void);

#endif
