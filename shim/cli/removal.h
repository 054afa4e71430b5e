/*
 * Removing maps, for forget and gc: checksum/map_remove.h with the process lock and patience.
 */
#ifndef BOUNCEIO_CLI_REMOVAL_H
#define BOUNCEIO_CLI_REMOVAL_H

#include <stdint.h>

/* Open the store, and a session of our own. @return CLI_CLEAN; -1 when there is no store yet; CLI_FAILED after a message. */
int removal_begin(void);

/* map_remove, again and again for a moment when it is not our turn. */
int removal_of_map(const char *name, uint64_t map_id);

/* Remove what a power cut has left of a map that was being made: a name without content. @return 0; -ESTALE when it is no such thing. */
int removal_of_unfinished(const char *name);

#endif
