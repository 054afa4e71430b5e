/*
 * A map's file as it lies in a store, looked at without the shim.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_MAPFILE_H
#define BOUNCEIO_TESTS_TORTURE_MAPFILE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The region words of the only map of a store; regions beyond the map's end get 0. @return 0; -1 when there is no map.
 */
int mapfile_regions(const char *store, uint64_t *words, uint64_t regions);

/* The time window of the last write, nanoseconds of CLOCK_REALTIME. @return 0; -1 when there is no map. */
int mapfile_window(const char *store, int64_t *issue, int64_t *completion);

#endif
