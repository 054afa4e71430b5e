/*
 * Turns: short moments in which one process changes what a map's file consists of (a new boot, growth, removal). The map's byte of the lock
 * file, shared or alone; a process that dies loses it.
 *
 * Process lock held; a session must be open.
 */
#ifndef BOUNCEIO_CHECKSUM_MAP_TURN_H
#define BOUNCEIO_CHECKSUM_MAP_TURN_H

#include <stdint.h>

/*
 * The first two try for 100 ms, in case that whoever has it is stopped: nobody waits for another process. map_turn_try tries once.
 * @return 0; -EAGAIN when somebody else has it; another -errno when turns cannot be had here.
 */
int map_turn_share(uint64_t map_id);
int map_turn_alone(uint64_t map_id);
int map_turn_try(uint64_t map_id);
void map_turn_end(uint64_t map_id);

#endif
