/*
 * Removing a map in its turn (map_turn.h): by the last user of a deleted file, `bounceio forget` and `bounceio gc`.
 *
 * Why a map that somebody opens at that very moment is never removed under him:
 *
 *   opener   opens the file by name; registers its use (session_use_map); takes the turn, shared with other openers; looks whether the name
 *            still leads to that file; ends its turn. If not: leaves, and starts over
 *   remover  takes the turn alone; looks whether any live session uses the map: then it stops; unlinks the name; ends its turn
 *
 * The two turns exclude each other. If the opener's comes first, its use was registered before, and the remover sees it. If the remover's
 * comes first, the name is gone when the opener looks; or when he opens the map that he has just made, and he starts over as well. Nothing is
 * ever put back, so nobody can have made a second map meanwhile. A process that dies loses its turn; one that is stopped in the middle of a
 * removal (its signals are blocked: by SIGSTOP, a few microseconds long) costs openers 100 ms and their checksums; they mark the map
 * MAP_CHANGED_OUTSIDE.
 *
 * Space of a map that is no longer needed is given back under the same turn, and for the same reason.
 */
#ifndef BOUNCEIO_CHECKSUM_MAP_REMOVE_H
#define BOUNCEIO_CHECKSUM_MAP_REMOVE_H

#include "checksum/map.h"

/*
 * Remove the map `name` whose id is `map_id`. Process lock held; a session must be open.
 * @return 0; -EBUSY while a live session uses it, this one included; -EAGAIN when it is not our turn; -ENOENT; -ESTALE when the name leads
 * to another map; another -errno.
 */
int map_remove(const char *name, uint64_t map_id);

/*
 * Has the file of a map not even a header? Its name has reached the disk before a power cut, its content has not. Nobody can have opened
 * it, so nobody can be using it: it is removed, under the turn of id 0, which keeps two who find it from removing a new one in its place.
 * Process lock held. @return 0; -EAGAIN when it is not our turn; -ESTALE when it is another file by now; another -errno.
 */
bool map_is_unfinished(int fd);
int map_remove_unfinished(const char *name);

#endif
