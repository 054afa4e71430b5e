/*
 * Stamps and comparisons of the time window. Owns nothing but the clock's resolution.
 */
#include "checksum/window.h"

#include <time.h>

#include "checksum/session.h"

enum { STALE_AFTER = 100 * 1000 * 1000 };

int64_t window_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME_COARSE, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int64_t tick(void)
{
    struct timespec resolution = {.tv_nsec = 10 * 1000 * 1000};
    clock_getres(CLOCK_REALTIME_COARSE, &resolution);
    return resolution.tv_nsec;
}

/* Relaxed throughout: a stamp orders nothing, and a stamp that is one tick off is within the tolerance. */
static void stamp(_Atomic int64_t *where, int64_t time)
{
    if (atomic_load_explicit(where, memory_order_relaxed) != time)
        atomic_store_explicit(where, time, memory_order_relaxed);
}

void window_renew(struct map *map, int64_t issued)
{
    stamp(&map->header->window_issue, issued);
    stamp(&map->header->window_completion, window_now());
}

void window_move(struct map *map, int64_t modified)
{
    stamp(&map->header->window_issue, modified);
    stamp(&map->header->window_completion, modified);
}

bool window_is_stale(const struct map *map)
{
    int64_t since = window_now() - atomic_load_explicit(&map->header->window_completion, memory_order_relaxed);
    return since > STALE_AFTER || since < -STALE_AFTER;
}

bool window_changed_outside(struct map *map, int64_t modified, int self, bool *first)
{
    struct map_header *header = map->header;
    int64_t tolerance = tick();
    int64_t issue = atomic_load_explicit(&header->window_issue, memory_order_relaxed);
    int64_t completion = atomic_load_explicit(&header->window_completion, memory_order_relaxed);
    if (modified >= issue - tolerance && modified <= completion + tolerance)
        return false;
    if (flight_writers_of(map->id, self))
        return false;
    /* A writer may have stamped and left between our reading of the window and of the table. */
    if (modified >= issue - tolerance &&
        modified <= atomic_load_explicit(&header->window_completion, memory_order_relaxed) + tolerance)
        return false;
    *first = !(atomic_fetch_or(&header->flags, MAP_CHANGED_OUTSIDE) & MAP_CHANGED_OUTSIDE);
    return true;
}
