/*
 * Writers that nobody hears of. A process that cannot use the map of a file (the store is full, or it may open no more files) writes without
 * announcing it. Whoever has the map must not take that for damage, though his own writes keep the time window open:
 *
 *   writer   holds the file's byte of the lock file, shared with others like him, for as long as he has the file open; then says in the map, if
 *            there is one, that the file was changed outside: that outlives him
 *   opener   makes his map, if there was none; then looks at the byte, and says it in the map himself
 *
 * of whom at least one meets the other. Who finds a mismatch looks at the byte once more: the writer may be unable to open the map at all.
 * Nobody ends the doubt while the byte is held.
 */
#ifndef BOUNCEIO_CHECKSUM_MAP_UNHEARD_H
#define BOUNCEIO_CHECKSUM_MAP_UNHEARD_H

#include "checksum/map.h"

/*
 * This process may write to a file whose map it cannot use, until map_unheard_end. Process lock held. *first: the map says so only now.
 * @return what to end it with; 0 when there is no store that others could have a map in, or it could not be opened.
 */
int64_t map_unheard_begin(const struct map_key *key, bool *first);
void map_unheard_end(int64_t byte);

/* Is there such a process other than this one? Then the map now says that its file was changed outside. Any thread; two system calls. */
bool map_is_unheard(const struct map *map);

#endif
