/*
 * From bytes to verdicts: sums in batches, a look at the map for each block, decisions for the few that differ.
 */
#include "engine/verify.h"

#include <errno.h>
#include <string.h>

#include "base/config.h"
#include "base/stats.h"
#include "bounce/pool.h"
#include "checksum/question.h"
#include "engine/decide.h"
#include "engine/report.h"

enum { BATCH = 16 };

static void count(const struct tally *tally)
{
    if (tally->verified)
        stats_add(STAT_blocks_verified, tally->verified);
    if (tally->unverified)
        stats_add(STAT_blocks_unverified, tally->unverified);
}

/* Nothing usable is recorded. With BOUNCEIO_ADOPT a block that nobody writes takes the checksum it was read with. */
static void meet_unverified(const struct readout *readout, uint64_t block, uint64_t sum)
{
    uint64_t run;
    const struct map *map = &readout->view->file->map;
    if (!config.adopt || readout->nowait || !readout->certain)
        return;
    struct block_words *words = map_words(map, block, &run);
    if (words && (atomic_load(&words->current) != WORD_UNKNOWN || atomic_load(&words->pending) != WORD_IDLE))
        return;
    struct extent page;
    if (pool_take(&page, BLOCK_SIZE, false) != 0)
        return;
    decide_adopt(readout->view, block, sum, page.base);
    pool_give(&page);
}

static void settle(const struct readout *readout, const struct block_part *part, uint64_t sum, struct tally *tally)
{
    switch (map_verify(&readout->view->file->map, part->block, sum)) {
    case VERDICT_GOOD:
        tally->verified++;
        return;
    case VERDICT_UNVERIFIED:
        tally->unverified++;
        meet_unverified(readout, part->block, sum);
        return;
    default:
        break;
    }
    if (!readout->certain) {
        tally->unverified++;
        return;
    }
    switch (decide_block(readout->view, part, readout->nowait)) {
    case DECIDED_GOOD:
        tally->verified++;
        break;
    case DECIDED_UNVERIFIED:
        tally->unverified++;
        break;
    case DECIDED_DAMAGED:
        tally->damaged++;
        break;
    case DECIDED_LATER:
        tally->later = true;
        break;
    case DECIDED_UNREADABLE:
        tally->error = -EIO;
        break;
    }
}

static void settle_whole(const struct readout *readout, uint64_t first, uint64_t blocks, struct tally *tally)
{
    uint64_t sums[BATCH];
    char *data = readout->data + ((int64_t)(first * BLOCK_SIZE) - readout->offset);
    while (blocks > 0) {
        uint64_t batch = blocks < BATCH ? blocks : BATCH;
        block_sums(&(struct block_sums){.data = data, .blocks = batch, .first = first, .sums = sums});
        for (uint64_t i = 0; i < batch; i++)
            settle(readout,
                   &(struct block_part){.block = first + i, .bytes = data + i * BLOCK_SIZE, .length = BLOCK_SIZE},
                   sums[i], tally);
        first += batch;
        blocks -= batch;
        data += batch * BLOCK_SIZE;
    }
}

/* The last block of the file, from its beginning: summed as if padded with zeros. */
static void settle_last(const struct readout *readout, struct block_part *part, struct tally *tally)
{
    memcpy(readout->scratch, part->bytes, part->length);
    memset(readout->scratch + part->length, 0, BLOCK_SIZE - part->length);
    settle(readout, part, block_sum(readout->scratch, part->block), tally);
}

/* A block of which only a part was read: read it whole. Its verified bytes are handed out. */
static void settle_part(const struct readout *readout, struct block_part *part, struct tally *tally)
{
    ssize_t length = 0;
    /* Where the bytes came from is not known: what lies at the place they seem to come from must not take theirs. */
    if (readout->certain)
        length = decide_read_block(readout->view, part->block, readout->scratch, readout->nowait);
    if (length == -EAGAIN && readout->nowait)
        tally->later = true;
    if (length < (ssize_t)(part->begin + part->length)) {
        tally->unverified++; /* it cannot be read whole, or the file has become shorter */
        return;
    }
    memcpy(part->bytes, readout->scratch + part->begin, part->length);
    settle(readout, part, block_sum(readout->scratch, part->block), tally);
}

void verify_and_count(const struct readout *readout, struct tally *tally)
{
    uint64_t begin = (uint64_t)readout->offset, end = begin + readout->length;
    uint64_t whole_first = (begin + BLOCK_SIZE - 1) / BLOCK_SIZE, whole_end = end / BLOCK_SIZE;

    if (map_is_behind(&readout->view->file->map) && !readout->nowait)
        map_refresh(&readout->view->file->map);
    if (whole_first < whole_end)
        settle_whole(readout, whole_first, whole_end - whole_first, tally);
    if (begin % BLOCK_SIZE != 0) {
        uint64_t block_end = whole_first * BLOCK_SIZE;
        settle_part(readout,
                    &(struct block_part){.block = begin / BLOCK_SIZE,
                                         .bytes = readout->data,
                                         .begin = begin % BLOCK_SIZE,
                                         .length = (end < block_end ? end : block_end) - begin},
                    tally);
    }
    if (end % BLOCK_SIZE != 0 && whole_end >= whole_first) {
        struct block_part part = {
            .block = whole_end, .bytes = readout->data + (whole_end * BLOCK_SIZE - begin), .length = end % BLOCK_SIZE};
        if (readout->at_end)
            settle_last(readout, &part, tally);
        else
            settle_part(readout, &part, tally);
    }
}

int verify_readout(const struct readout *readout)
{
    struct tally tally = {0};
    verify_and_count(readout, &tally);
    count(&tally);
    if (tally.later)
        return -EAGAIN;
    if (tally.error)
        return tally.error;
    return tally.damaged > 0 ? report_policy() : 0;
}

int verify_in_place(const struct fd_view *view, const void *data, int64_t offset, size_t length)
{
    struct tally tally = {0};
    uint64_t sums[BATCH];
    uint64_t first = (uint64_t)offset / BLOCK_SIZE, blocks = length / BLOCK_SIZE;
    const char *bytes = data;
    if (map_is_behind(&view->file->map))
        return -EAGAIN;
    for (uint64_t done = 0; done < blocks; done += BATCH, bytes += BATCH * BLOCK_SIZE) {
        uint64_t batch = blocks - done < BATCH ? blocks - done : BATCH;
        struct block_sums work = {.data = bytes, .blocks = batch, .first = first + done, .sums = sums};
        if (block_sums_of_user(&work) != 0)
            return -EAGAIN;
        for (uint64_t i = 0; i < batch; i++)
            switch (map_verify(&view->file->map, first + done + i, sums[i])) {
            case VERDICT_GOOD:
                tally.verified++;
                break;
            case VERDICT_UNVERIFIED:
                tally.unverified++;
                break;
            default:
                return -EAGAIN;
            }
    }
    count(&tally);
    return 0;
}
