/*
 * When doubts end. A file that was changed outside, or a region that an unclean stop has made suspect, adopts what does not agree with its
 * checksum. Whoever has found, or made, all of it agree may end that.
 *
 * A file that was changed outside is in review between trust_open and trust_close. What other hands do to it meanwhile is seen as it
 * always is, by mtime and the time window (checksum/window.h), and leaves its trace in the header's flags: MAP_CHANGED_SINCE, which
 * trust_open clears and every new finding sets. Without it, and with mtime in the window at the end, what was looked at is what is there.
 */
#ifndef BOUNCEIO_CLI_TRUST_H
#define BOUNCEIO_CLI_TRUST_H

#include "cli/subject.h"

/* Settle what dead sessions have left on the file's map. Before everything else. */
void trust_settle(const struct subject *subject);

/*
 * Before the first region: find out whether the file was changed outside, and begin the review if it was. `anew`: all of the file is going
 * to be trusted as it is now.
 */
void trust_open(struct subject *subject, bool anew);

/*
 * A block whose content has checksum `sum`: is what the map says true or unknown, whatever becomes of requests in flight? (That the content
 * is what somebody is writing is not enough: if he takes it back, what was recorded before stands.)
 */
bool trust_is_settled(const struct map *map, uint64_t block, uint64_t sum);

/* Every block of the region has the checksum of its content, or none. */
void trust_region(struct map *map, uint64_t region);

/* After the last region: end the review when all of them were settled, and clear DIRTY regions, with a flush of the file. */
void trust_close(struct subject *subject);

/* Would a mismatch of the block be adopted? */
bool trust_is_lost(const struct map *map, uint64_t block);

/* Regions that the file has, or its map. */
uint64_t trust_regions(const struct subject *subject);

#endif
