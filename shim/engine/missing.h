/*
 * Blocks that have a checksum but lie beyond the end of the file: somebody cut it off behind the shim's back. They count as zeros, and
 * are decided about like any other block; whoever shortens a file under the shim leaves no checksums there.
 */
#ifndef BOUNCEIO_ENGINE_MISSING_H
#define BOUNCEIO_ENGINE_MISSING_H

#include "engine/verify.h"

/* Look at the blocks that lie wholly in bytes [begin, end) and wholly beyond the end of the file. Adds to *tally what is damaged,
 * or adopted. */
void missing_count(const struct fd_view *view, int64_t begin, int64_t end, bool nowait, struct tally *tally);

/*
 * A read of [begin, end) came to the end of the file. @return 0; -EIO: a block is missing (all of them are reported) and
 * BOUNCEIO_ON_MISMATCH says so; -EAGAIN under NOWAIT.
 */
int missing_verify(const struct fd_view *view, int64_t begin, int64_t end, bool nowait);

#endif
