/*
 * Stamps and comparisons of the time window. Owns nothing but the clock's resolution.
 */
#include "checksum/window.h"

#include <time.h>

#include "checksum/session_peers.h"

#define SECOND INT64_C(1000000000)

enum { ROUND_TO = 1000 * 1000, STEPPED_BACK = 1000 * 1000 * 1000 };

/*
 * How far mtime and header may be apart after a power cut; how long after it was issued a write moves mtime at most. The kernel stamps
 * when a write begins, once it has the inode's lock. Whoever edits the file that soon after a crash is taken for the dead program.
 */
#define BRIDGED (60 * SECOND)
#define LANDS_WITHIN SECOND

static int64_t read_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Stamps of a damaged map may be anything: they are compared in numbers that saturate. */
static int64_t saturated_sum(int64_t a, int64_t b)
{
    int64_t sum;
    if (!__builtin_add_overflow(a, b, &sum))
        return sum;
    return b < 0 ? INT64_MIN : INT64_MAX;
}

int64_t window_now(void)
{
    return read_clock(CLOCK_REALTIME_COARSE);
}

static int64_t tick(void)
{
    struct timespec resolution = {.tv_nsec = 10 * 1000 * 1000};
    clock_getres(CLOCK_REALTIME_COARSE, &resolution);
    return resolution.tv_nsec;
}

/* File systems without nanoseconds cut mtime to the second. */
static int64_t tolerance_of(int64_t modified)
{
    return modified % SECOND == 0 ? SECOND : tick();
}

/* Relaxed throughout: a stamp orders nothing, and a stamp that is one tick off is within the tolerance. */
static void stamp(_Atomic int64_t *where, int64_t time)
{
    if (atomic_load_explicit(where, memory_order_relaxed) != time)
        atomic_store_explicit(where, time, memory_order_relaxed);
}

/*
 * The kernel stamps a file with the coarse clock of some moment during the call, or, on file systems with multigrain
 * timestamps, with the fine clock. The coarse clock can lag behind by more than a tick when a virtual processor is held
 * up, so the end of the window is taken from the fine one, rounded up to spare the header's cache line.
 */
int64_t window_fine_now(void)
{
    return read_clock(CLOCK_REALTIME);
}

void window_renew_to(struct map *map, int64_t issued, int64_t over)
{
    stamp(&map->header->window_issue, issued);
    window_extend_to(map, over);
}

void window_renew(struct map *map, int64_t issued)
{
    window_renew_to(map, issued, window_fine_now());
}

void window_extend(struct map *map)
{
    window_extend_to(map, window_fine_now());
}

void window_extend_to(struct map *map, int64_t over)
{
    _Atomic int64_t *completion = &map->header->window_completion;
    int64_t time = (over / ROUND_TO + 1) * ROUND_TO;
    int64_t seen = atomic_load_explicit(completion, memory_order_relaxed);
    /* Only forward, so that a thread held up before it stores takes nothing back; unless the clock was stepped back. */
    while ((seen < time || seen > time + STEPPED_BACK) &&
           !atomic_compare_exchange_weak_explicit(completion, &seen, time, memory_order_relaxed, memory_order_relaxed))
        ;
}

void window_move(struct map *map, int64_t modified)
{
    stamp(&map->header->window_issue, modified);
    stamp(&map->header->window_completion, modified);
}

void window_bridge(struct map *map, int64_t modified)
{
    struct map_header *header = map->header;
    int64_t issue = atomic_load_explicit(&header->window_issue, memory_order_relaxed);
    int64_t completion = atomic_load_explicit(&header->window_completion, memory_order_relaxed);
    if (modified < issue && issue <= saturated_sum(modified, BRIDGED))
        stamp(&header->window_issue, modified);
    if (modified > completion && modified <= saturated_sum(completion, BRIDGED))
        stamp(&header->window_completion, modified);
}

void window_extend_for_dead(struct map *map, int64_t modified, int64_t issued)
{
    struct map_header *header = map->header;
    /* An edit that was there before the request was issued is none of its doing. */
    if (modified < saturated_sum(issued, -tolerance_of(modified)) || modified > saturated_sum(issued, LANDS_WITHIN))
        return;
    /* Both ends, so that from now on older times are a backup's; what lies beyond was stamped by a clock that was ahead. */
    int64_t begin = issued < modified ? issued : modified;
    int64_t issue = atomic_load_explicit(&header->window_issue, memory_order_relaxed);
    int64_t completion = atomic_load_explicit(&header->window_completion, memory_order_relaxed);
    if (issue < begin || issue > modified)
        stamp(&header->window_issue, begin);
    if (completion < modified || completion > saturated_sum(modified, STEPPED_BACK))
        stamp(&header->window_completion, modified);
}

static bool changed_outside(struct map *map, int64_t modified, int self, const struct flight_dead *dead, bool *first)
{
    struct map_header *header = map->header;
    *first = false;
    if (modified == WINDOW_CANNOT_TELL)
        return false;
    int64_t tolerance = tolerance_of(modified);
    int64_t issue = atomic_load_explicit(&header->window_issue, memory_order_relaxed);
    int64_t completion = atomic_load_explicit(&header->window_completion, memory_order_relaxed);
    if (modified >= saturated_sum(issue, -tolerance) && modified <= saturated_sum(completion, tolerance))
        return false;
    if (flight_living_writers_of(map->id, self, dead))
        return false;
    /* A writer may have stamped and left between our reading of the window and of the table. */
    completion = atomic_load_explicit(&header->window_completion, memory_order_relaxed);
    if (modified >= saturated_sum(issue, -tolerance) && modified <= saturated_sum(completion, tolerance))
        return false;
    /* Memory of a broken map is zeros, times included: that is no news of the file. Broken is set before. */
    bool broken = atomic_load(&map->broken);
    *first = !(atomic_fetch_or(&header->flags, MAP_CHANGED_OUTSIDE) & MAP_CHANGED_OUTSIDE) && !broken;
    return true;
}

bool window_changed_outside(struct map *map, int64_t modified, int self, bool *first)
{
    return changed_outside(map, modified, self, NULL, first);
}

bool window_changed_since_death(struct map *map, int64_t modified, const struct flight_dead *dead, bool *first)
{
    return changed_outside(map, modified, FLIGHT_BEYOND, dead, first);
}
