/*
 * What a read, blocking or not, brought into our pages, given to the caller: summed on its way out, in one pass (checksum/sum_copy.h), as long as the blocks
 * agree with the map.
 *
 * Thread-safe, async-signal-safe; allocates nothing, takes no lock on its fast path, and holds none while the caller's memory is touched.
 */
#ifndef BOUNCEIO_ENGINE_HANDOVER_H
#define BOUNCEIO_ENGINE_HANDOVER_H

#include <sys/types.h>

#include "engine/part.h"

/* `result` bytes (> 0) were read into the pages: verify, copy out. @return bytes or -errno: as part_finish, which does what is left. */
ssize_t handover(const struct part *part, struct extent *pages, ssize_t result);

#endif
