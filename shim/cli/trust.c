/* See trust.h. */
#include "cli/trust.h"

#include <time.h>

#include "checksum/map_unheard.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/window.h"
#include "cli/crew.h"
#include "engine/recover.h"
#include "engine/report.h"
#include "engine/sweep.h"

#define SECOND INT64_C(1000000000)

enum { TRIES = 30, NAP = 100 * 1000 * 1000, QUIET = 50 * 1000 * 1000 };

/*
 * Is the file's last change so long ago that the next one has another mtime? File systems without nanoseconds cut it to the second, or to
 * two.
 */
static bool is_quiet(int64_t modified)
{
    int64_t since = window_now() - modified, enough = modified % SECOND == 0 ? 3 * SECOND : QUIET;
    return since > enough || since < -enough;
}

/* @return false when somebody is changing the file, without the shim, at this moment. */
static bool begin_review(const struct subject *subject)
{
    bool first;
    struct map *map = &subject->view.file->map;
    int64_t modified = subject_modified(subject);
    if (modified == WINDOW_CANNOT_TELL)
        return false;
    bool outside = window_changed_outside(map, modified, FLIGHT_BEYOND, &first);
    if (outside && !is_quiet(modified))
        return false;
    atomic_fetch_and(&map->header->flags, ~MAP_CHANGED_SINCE);
    if (outside)
        window_move(map, modified);
    return subject_modified(subject) == modified || !outside;
}

void trust_settle(const struct subject *subject)
{
    if (recover_is_due(subject->view.file))
        recover(&subject->view);
}

void trust_open(struct subject *subject, bool anew)
{
    bool first;
    const struct timespec nap = {.tv_nsec = NAP};
    struct map *map = &subject->view.file->map;
    if (window_changed_outside(map, subject_modified(subject), FLIGHT_BEYOND, &first) && first && !anew)
        report_changed_outside(subject->view.fd);
    if (!(atomic_load(&map->header->flags) & MAP_CHANGED_OUTSIDE))
        return;
    for (int try = 0; try < TRIES && !subject->in_review && !crew_stopped(); try++) {
        if (try > 0)
            nanosleep(&nap, NULL);
        subject->in_review = begin_review(subject);
    }
}

bool trust_is_lost(const struct map *map, uint64_t block)
{
    return (atomic_load(&map->header->flags) & MAP_CHANGED_OUTSIDE) || region_is_suspect(map, block);
}

void trust_region(struct map *map, uint64_t region)
{
    if (region_is_suspect(map, region * REGION_BLOCKS))
        region_trust(map, region);
}

bool trust_is_settled(const struct map *map, uint64_t block, uint64_t sum)
{
    uint64_t run;
    const struct block_words *words = map_words(map, block, &run);
    if (!words)
        return true;
    uint64_t pending = atomic_load(&words->pending), current = atomic_load(&words->current);
    return pending == WORD_IDLE && (current == sum || current == WORD_UNKNOWN);
}

static void end_review(const struct subject *subject)
{
    bool first;
    struct map *map = &subject->view.file->map;
    if (window_changed_outside(map, subject_modified(subject), FLIGHT_BEYOND, &first) || map_is_unheard(map))
        return;
    uint64_t flags = atomic_load(&map->header->flags);
    if (!(flags & MAP_CHANGED_SINCE))
        atomic_compare_exchange_strong(&map->header->flags, &flags, flags & ~MAP_CHANGED_OUTSIDE);
}

void trust_close(struct subject *subject)
{
    const struct outcome *outcome = &subject->outcome;
    struct map *map = &subject->view.file->map;
    if (subject->in_review && !outcome->unsettled && !subject->failure)
        end_review(subject);
    if (!outcome->incomplete && !crew_stopped() && region_any_dirty(map))
        sweep_file(&subject->view, !session_others_use_map(map->id));
}

uint64_t trust_regions(const struct subject *subject)
{
    const uint64_t region_bytes = (uint64_t)REGION_BLOCKS * BLOCK_SIZE;
    const struct map *map = &subject->view.file->map;
    uint64_t regions = (subject->size + region_bytes - 1) / region_bytes, last = region_count(map);
    while (last > regions && !(atomic_load(map_region_word(map, last - 1)) & REGION_UNITS))
        last--;
    return last > regions ? last : regions;
}
