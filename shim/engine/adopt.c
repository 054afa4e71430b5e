/*
 * Adoption in batches. Which blocks of the batch are announced is a bit mask: a word's state decides it once, before.
 */
#include "engine/adopt.h"

#include <assert.h>

#include "base/process.h"
#include "base/step.h"
#include "checksum/announce.h"
#include "checksum/region.h"
#include "engine/active.h"
#include "engine/decide.h"

enum { BATCH = 16 }; /* sums on the stack, which may be a signal's */

static int cover(struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t saved;
    if (map_covers(map, first, blocks))
        return 0;
    process_lock(&saved);
    int error = map_cover(map, first, blocks);
    process_unlock(&saved);
    return error;
}

static bool is_wanted(const struct adoption *adoption, uint64_t block, uint64_t sum)
{
    uint64_t run;
    const struct map *map = &adoption->view->file->map;
    const struct block_words *words = map_words(map, block, &run);
    uint64_t current = atomic_load(&words->current);
    bool idle = atomic_load(&words->pending) == WORD_IDLE;
    /* A request of somebody who is gone for good is taken over by the announcement; a live one is left alone. */
    if (!idle && flight_others_over(map->id, block, FLIGHT_BEYOND, false))
        return false;
    return current == sum ? !idle : current == WORD_UNKNOWN || adoption->trust;
}

static bool has_bit(uint64_t mask, uint64_t bit)
{
    return mask >> bit & 1;
}

static void announce_wanted(const struct announcement *announcement, uint64_t first, uint64_t blocks, uint64_t wanted,
                            const uint64_t *sums)
{
    for (uint64_t i = 0, run; i < blocks; i += run) {
        for (run = 0; i + run < blocks && has_bit(wanted, i + run); run++)
            ;
        announce_sums(announcement, first + i, run, sums + i);
        run += run == 0;
    }
}

/* The block had the checksum `sum` before it was announced, and has `now` after; WORD_UNKNOWN: it is not there, or cannot be read. */
static void conclude(struct adoption *adoption, const struct announcement *announcement, uint64_t block, uint64_t sum,
                     uint64_t now)
{
    uint64_t run;
    struct block_words *words = map_words(announcement->map, block, &run);
    STEP("conclude");
    uint64_t current = atomic_load(&words->current);
    if (current != WORD_UNKNOWN && current != sum && (current == now || !adoption->trust)) {
        announce_withdraw(announcement, block, 1); /* somebody has recorded another one before we were there */
    } else if (now != sum) {
        announce_forget(announcement, block, 1);
    } else {
        announce_publish(announcement, block, 1);
        adoption->adopted += atomic_load(&words->current) == sum;
    }
}

/* @return bytes read, or -errno. */
static ssize_t read_again(struct adoption *adoption, const struct announcement *announcement, uint64_t first,
                          uint64_t blocks, uint64_t wanted, const uint64_t *sums)
{
    STEP("read again");
    ssize_t length = decide_read_blocks(adoption->view, first, blocks, adoption->room, false);
    uint64_t now[BATCH];
    for (uint64_t done = 0; done < blocks; done += BATCH) {
        uint64_t batch = blocks - done < BATCH ? blocks - done : BATCH;
        block_sums(&(struct block_sums){
            .data = adoption->room + done * BLOCK_SIZE, .blocks = batch, .first = first + done, .sums = now});
        for (uint64_t i = 0; i < batch; i++)
            if (has_bit(wanted, done + i)) {
                bool is_there = length > (ssize_t)((done + i) * BLOCK_SIZE);
                conclude(adoption, announcement, first + done + i, sums[done + i], is_there ? now[i] : WORD_UNKNOWN);
            }
    }
    return length;
}

/* A handler of the program's has jumped out of the adoption: what is recorded stands. */
static void abandon(void *announcement)
{
    announce_abandon(announcement, 0, 0);
}

int adopt_blocks(struct adoption *adoption, uint64_t first, uint64_t blocks, const uint64_t *sums)
{
    assert(blocks <= ADOPT_MOST);
    struct map *map = &adoption->view->file->map;
    struct announcement announcement = {0};
    struct active active;
    int error = cover(map, first, blocks);
    if (error != 0)
        return error;
    uint64_t wanted = 0;
    STEP("choose what to adopt");
    for (uint64_t i = 0; i < blocks; i++)
        wanted |= (uint64_t)is_wanted(adoption, first + i, sums[i]) << i;
    if (wanted == 0)
        return 0;
    STEP("announce adoption");
    active_open(&active, abandon, &announcement);
    announce_open(&announcement, map, first, blocks, FLIGHT_ADOPTION, TRANSPORT_BLOCKING, false);
    if (!region_are_durable(map, first, blocks))
        region_make_durable(map, first, blocks);
    announce_wanted(&announcement, first, blocks, wanted, sums);
    ssize_t length = read_again(adoption, &announcement, first, blocks, wanted, sums);
    announce_close(&announcement);
    active_close(&active);
    return length < 0 ? (int)length : 0;
}
