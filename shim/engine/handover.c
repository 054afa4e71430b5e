/*
 * See handover.h. Blocks that agree with the map are gone with a look at it. From the first one on that does not, or that cannot be copied in one
 * pass, everything is part_finish's (engine/part.h), which decides from the pages: they still have what was read. What the caller's
 * memory has got by then of a block that turns out to be damaged is no more than a read in place leaves there.
 */
#include "engine/handover.h"

#include <errno.h>

#include "base/stats.h"
#include "checksum/question.h"
#include "checksum/sum_copy.h"
#include "engine/issue.h"

enum {
    BATCH = 16, /* blocks summed before their words are looked at */
    /* Bytes. Requests from here on are copied past the cache when so much is in flight beside them. */
    STREAM_LEAST = 64 << 10,
    STREAM_BESIDE = 4 << 20,
};

static bool was_exclusive(const struct part *part)
{
    return part->use && offset_was_exclusive(part->use);
}

/* Where in the file the bytes are from, or -1 when that is not known, or not where a block begins. */
static int64_t origin(const struct part *part, size_t length)
{
    int64_t offset = part->offset;
    if (offset == TRANSFER_FILE_OFFSET)
        offset = was_exclusive(part) ? issue_file_offset(part->view->fd) - (int64_t)length : -1;
    return offset >= 0 && offset % BLOCK_SIZE == 0 ? offset : -1;
}

/* @return blocks that have been copied and agree with the map; the cursor has moved past those. */
static size_t copy_batch(const struct part *part, const char *data, uint64_t first, size_t blocks, bool streams)
{
    uint64_t sums[BATCH];
    struct cursor ahead = *part->cursor;
    const struct sum_copy work = {.from = data, .blocks = blocks, .first = first, .sums = sums, .streams = streams};
    const size_t copied = sum_copy_scatter(&work, &ahead);
    for (size_t i = 0; i < copied; i++)
        if (map_verify(&part->view->file->map, first + i, sums[i]) != VERDICT_GOOD)
            return 0;
    *part->cursor = ahead;
    return copied;
}

static size_t copy_good(const struct part *part, const char *data, size_t length)
{
    if (!file_has_map(part->view->file) || map_is_behind(&part->view->file->map))
        return 0;
    const int64_t offset = origin(part, length);
    const size_t blocks = offset < 0 ? 0 : length / BLOCK_SIZE;
    const bool streams = length >= STREAM_LEAST && pool_exceeds(STREAM_BESIDE + length);
    size_t done = 0;
    while (done < blocks) {
        const size_t batch = blocks - done < BATCH ? blocks - done : BATCH;
        const size_t now =
            copy_batch(part, data + done * BLOCK_SIZE, (uint64_t)offset / BLOCK_SIZE + done, batch, streams);
        done += now;
        if (now < batch)
            break;
    }
    if (done > 0)
        stats_add(STAT_blocks_verified, done);
    return done * BLOCK_SIZE;
}

ssize_t handover(const struct part *part, struct extent *pages, ssize_t result)
{
    const size_t done = copy_good(part, pages->base, (size_t)result);
    stats_add(STAT_bytes_bounced, done);
    if (done == (size_t)result)
        return result;
    struct part rest = *part;
    rest.length -= done;
    if (rest.offset != TRANSFER_FILE_OFFSET)
        rest.offset += (int64_t)done;
    struct extent behind = *pages;
    behind.base = (char *)pages->base + done;
    behind.pages -= (uint32_t)(done / POOL_PAGE);
    const ssize_t told = part_finish(&rest, &behind, result - (ssize_t)done);
    if (told >= 0)
        return told + (ssize_t)done;
    if (told == -EFAULT && done > 0)
        return (ssize_t)done;
    /* part_finish has moved the file offset back by what was left to it. */
    if (done > 0 && part->offset == TRANSFER_FILE_OFFSET && was_exclusive(part))
        issue_move_offset(part->view->fd, -(int64_t)done);
    return told;
}
