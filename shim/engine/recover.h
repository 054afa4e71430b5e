/*
 * Recovery: settling what dead sessions left on a file's map (checksum/settle.h), with the file at hand to read.
 *
 * Slow path, before a blocking request, never under NOWAIT. Thread-safe, async-signal-safe.
 */
#ifndef BOUNCEIO_ENGINE_RECOVER_H
#define BOUNCEIO_ENGINE_RECOVER_H

#include "files/descriptor.h"

/* Is there anything to look into? Two loads. */
static inline bool recover_is_due(const struct file *file)
{
    return atomic_load_explicit(&file->map.settle_due, memory_order_relaxed) ||
           atomic_load_explicit(&file->map.met, memory_order_relaxed);
}

/*
 * Before anybody is told of a mismatch: as long as a dead session's write counts as live, an outside change cannot be told from damage.
 * @return true when something was settled: look again.
 */
bool recover_before_report(const struct fd_view *view);

/* Look into it: at once when a dead session is known, otherwise (somebody was met on a block) ten times a second at most. */
void recover(const struct fd_view *view);

/* Look into it whether anything is known or not: a dead writer leaves the time window open, which hides changes from outside. */
void recover_now(const struct fd_view *view);

#endif
