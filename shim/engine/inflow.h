/*
 * Copies inside the kernel into a file that has a map: splice, sendfile, copy_file_range. Like buffered writes of the target.
 *
 * Slow paths. Thread-safe, async-signal-safe.
 */
#ifndef BOUNCEIO_ENGINE_INFLOW_H
#define BOUNCEIO_ENGINE_INFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/landing.h"
#include "files/descriptor.h"

struct inflow {
    struct fd_view view;
    struct landing landing;
};

/* Before `length` bytes are copied to `offset`, or TRANSFER_FILE_OFFSET, of `view`, whose references move to the inflow. */
void inflow_open(struct inflow *inflow, struct fd_view *view, int64_t offset, size_t length,
                 enum flight_transport transport);

/* A write to `lost`, whose number was closed and used again under it: it may go to another file that has a map. @return false when not. */
bool inflow_open_stray(struct inflow *inflow, const struct fd_view *lost, int64_t offset, size_t length);

/* Afterwards. `result`: bytes, or -errno. The number may have been closed meanwhile, or lead elsewhere. */
void inflow_close(struct inflow *inflow, ssize_t result);

#endif
