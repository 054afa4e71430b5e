/*
 * The mutator's side of the protocol. Each step stands as in MAP.md §6 and in the model; change one, run the model again.
 */
#include "checksum/mutate.h"

#include <errno.h>

#include "base/step.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/window.h"

static void leave(struct mutation *mutation)
{
    /* Once: a handler may have jumped out of here, and what it has jumped out of is cleaned up. Rather a count too high than too low. */
    if (flight_leave_once(mutation->flight, mutation->ticket)) {
        STEP("lower count");
        atomic_fetch_sub(&mutation->map->header->unsettled, 1);
    }
    mutation->map = NULL;
}

int mutate_open(struct mutation *mutation, struct map *map, uint64_t first, uint64_t blocks,
                enum flight_transport transport, bool nowait)
{
    struct map_header *header = map->header;
    mutation->flight = FLIGHT_NONE;
    mutation->times_kept = false;
    STEP("raise count");
    /* Sequentially consistent: pairs with map_mutator_covers. */
    atomic_fetch_add(&header->unsettled, 1);
    atomic_fetch_add_explicit(&header->unsettled_generation, 1, memory_order_relaxed);
    mutation->issued = window_now();
    atomic_signal_fence(memory_order_seq_cst);
    mutation->map = map;
    flight_enter_as(&mutation->flight, &mutation->ticket, map->id, first, blocks, FLIGHT_MUTATOR, transport,
                    mutation->issued);
    if (nowait && (map_is_behind(map) || !region_are_durable(map, first, blocks))) {
        leave(mutation);
        return -EAGAIN;
    }
    map_refresh(map);
    if (!region_are_durable(map, first, blocks))
        region_make_durable(map, first, blocks);
    flight_issue(mutation->flight, window_now());
    STEP("call");
    return 0;
}

static void make_unknown(struct block_words *words)
{
    STEP("pending->contended");
    uint64_t pending = atomic_load(&words->pending);
    while (pending != word_mutated(pending) &&
           !atomic_compare_exchange_weak(&words->pending, &pending, word_mutated(pending)))
        ;
    STEP("current=unknown");
    if (atomic_load_explicit(&words->current, memory_order_relaxed) != WORD_UNKNOWN)
        atomic_store(&words->current, WORD_UNKNOWN);
}

void mutate_unknown(struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t run, end = map_range_end(map, first, blocks);
    for (uint64_t block = first; block < end; block += run) {
        struct block_words *words = map_words(map, block, &run);
        run = run < end - block ? run : end - block;
        for (uint64_t i = 0; words && i < run; i++)
            make_unknown(&words[i]);
    }
}

void mutate_close(struct mutation *mutation, uint64_t first, uint64_t blocks)
{
    struct map *map = mutation->map;
    if (!map)
        return;
    map_refresh(map);
    mutate_unknown(map, first, blocks);
    if (blocks > 0 && !mutation->times_kept)
        window_renew(map, mutation->issued);
    else
        window_extend(map);
    /* Windows that another session has added and we cannot map: their blocks cannot be made unknown one by one. */
    if (map_is_behind(map) && blocks > 0)
        atomic_fetch_or(&map->header->flags, MAP_CHANGED_OUTSIDE);
    leave(mutation);
}
