/*
 * BOUNCEIO_DETECT: was the caller's buffer changed while its write was in flight? For developers hunting such changes.
 */
#ifndef BOUNCEIO_ENGINE_DETECT_H
#define BOUNCEIO_ENGINE_DETECT_H

#include <stddef.h>
#include <stdint.h>

#include "bounce/copy.h"
#include "files/descriptor.h"

/*
 * Compare `length` bytes of the caller's memory, from `cursor` on, with what was written from `data`. A difference is counted
 * (unstable_buffers) and logged with path, offset in the file and a backtrace. Memory that is gone by now is not a difference.
 * Not async-signal-safe in the worst case: the backtrace may load the unwinder on its first use.
 */
void detect_change(const struct fd_view *view, struct cursor cursor, const char *data, size_t length, int64_t offset);

#endif
