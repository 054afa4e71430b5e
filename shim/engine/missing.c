/*
 * A walk over the words beyond the end of a file, which nearly always finds none.
 */
#include "engine/missing.h"

#include <errno.h>

#include "engine/active.h"
#include "engine/decide.h"
#include "engine/issue.h"
#include "engine/report.h"

static void decide_missing(const struct fd_view *view, uint64_t block, bool nowait, struct tally *tally)
{
    struct active_pages page;
    if (active_take(&page, BLOCK_SIZE, nowait) != 0) {
        if (nowait)
            tally->later = true;
        else
            tally->error = -ENOMEM;
        return;
    }
    const struct block_part part = {.block = block, .bytes = page.extent.base, .length = BLOCK_SIZE};
    enum decision decision = decide_block(view, &part, nowait);
    /* Zeros are what it should hold, or it has been written meanwhile: no block of the file was looked at. */
    if (decision != DECIDED_GOOD && decision != DECIDED_UNVERIFIED)
        tally_decision(tally, decision);
    active_give(&page);
}

void missing_count(const struct fd_view *view, int64_t begin, int64_t end, bool nowait, struct tally *tally)
{
    const struct map *map = &view->file->map;
    int64_t size = issue_file_size(view->fd);
    if (size < 0)
        return;
    if (begin < size)
        begin = size;
    uint64_t block = ((uint64_t)begin + BLOCK_SIZE - 1) / BLOCK_SIZE, run;
    uint64_t last = end > 0 ? (uint64_t)end / BLOCK_SIZE : 0,
             covered = window_first_region(map_window_count(map)) * REGION_BLOCKS;
    if (last > covered)
        last = covered;
    for (; block < last; block += run) {
        const struct block_words *words = map_words(map, block, &run);
        for (uint64_t i = 0; words && i < run && block + i < last; i++)
            if (atomic_load_explicit(&words[i].current, memory_order_relaxed) != WORD_UNKNOWN)
                decide_missing(view, block + i, nowait, tally);
    }
}

int missing_verify(const struct fd_view *view, int64_t begin, int64_t end, bool nowait)
{
    struct tally tally = {0};
    missing_count(view, begin, end, nowait, &tally);
    if (tally.later)
        return -EAGAIN;
    if (tally.error)
        return tally.error;
    return tally.damaged > 0 ? report_policy() : 0;
}
