/*
 * bounceio gc: its parts, and what they count.
 */
#ifndef BOUNCEIO_CLI_GC_H
#define BOUNCEIO_CLI_GC_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/map_view.h"

struct gc {
    bool dry_run, verbose, set_aside;
    bool as_json;
    int status;
    uint64_t maps; /* looked at */
    uint64_t removed, in_use, absent, foreign, undecided, damaged;
    uint64_t left_over; /* temporary files and maps set aside, removed */
    uint64_t set_aside_kept;
    uint64_t trimmed, regions_cleared, regions_dirty; /* maps that gave back space; regions */
    uint64_t sessions_emptied, requests_dropped;
    uint64_t bytes; /* given back on disk */
};

/*
 * A map whose file is alive, and which nobody uses: give back the units that say nothing, clear dirty regions with a flush of the file.
 * `fd`: O_PATH descriptor of the file.
 */
void gc_space(struct gc *gc, const struct map_view *view, int fd);

/*
 * Sessions of processes that are gone: drop their requests on maps that no longer exist, and give back the space of tables that are empty.
 * The files themselves stay: other processes have them mapped, and would not notice new ones in their place.
 */
void gc_sessions(struct gc *gc);

/* What was done to one map, when asked for. */
void gc_tell(const struct gc *gc, const char *what, const struct map_view *view);

#endif
