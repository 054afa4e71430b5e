/*
 * From bytes to verdicts: sums in batches, a look at the map for each block, decisions for the few that differ.
 */
#include "engine/verify.h"

#include <errno.h>
#include <string.h>

#include "base/config.h"
#include "base/stats.h"
#include "checksum/question.h"
#include "engine/active.h"
#include "engine/adopt.h"
#include "engine/decide.h"
#include "engine/report.h"

enum { BATCH = 16 };

static void count(const struct tally *tally)
{
    const uint64_t unverified = tally->unverified + tally->recovered + tally->outside;
    if (tally->verified)
        stats_add(STAT_blocks_verified, tally->verified);
    if (unverified)
        stats_add(STAT_blocks_unverified, unverified);
}

/* Is somebody writing the blocks, or did he die over them? The next blocking request looks. */
static void note_meetings(struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    for (uint64_t block = first; block < first + blocks; block++) {
        const struct block_words *words = map_words(map, block, &run);
        if (words && atomic_load_explicit(&words->pending, memory_order_relaxed) != WORD_IDLE)
            atomic_store_explicit(&map->met, true, memory_order_relaxed);
    }
}

/* Blocks of unknown checksum were met. With BOUNCEIO_ADOPT they take, unless somebody writes them, the one that they were read with. */
static void meet_unknown(const struct fd_view *view, uint64_t first, uint64_t blocks, const uint64_t *sums, bool nowait)
{
    note_meetings(&view->file->map, first, blocks);
    struct active_pages pages;
    if (!config.adopt || nowait || active_take(&pages, blocks * BLOCK_SIZE, false) != 0)
        return;
    adopt_blocks(&(struct adoption){.view = view, .room = pages.extent.base}, first, blocks, sums);
    active_give(&pages);
}

void tally_decision(struct tally *tally, enum decision decision)
{
    switch (decision) {
    case DECIDED_GOOD:
        tally->verified++;
        break;
    case DECIDED_UNVERIFIED:
        tally->unverified++;
        break;
    case DECIDED_RECOVERED:
        tally->recovered++;
        break;
    case DECIDED_OUTSIDE:
        tally->outside++;
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

static void settle(const struct readout *readout, const struct block_part *part, uint64_t sum, struct tally *tally)
{
    switch (map_verify(&readout->view->file->map, part->block, sum)) {
    case VERDICT_GOOD:
        tally->verified++;
        return;
    case VERDICT_UNVERIFIED:
        tally->unverified++;
        return;
    default:
        break;
    }
    if (!readout->certain) {
        tally->unverified++;
        return;
    }
    tally_decision(tally, decide_block(readout->view, part, readout->nowait));
}

/* Settle, remember the checksum, adopt: blocks that lie one after the other in our memory. */
static void settle_batch(const struct readout *readout, uint64_t first, uint64_t blocks, char *data,
                         struct tally *tally)
{
    uint64_t here[BATCH];
    uint64_t *sums = readout->sums ? readout->sums + (first - (uint64_t)readout->offset / BLOCK_SIZE) : here;
    uint64_t unverified = tally->unverified;
    block_sums(&(struct block_sums){.data = data, .blocks = blocks, .first = first, .sums = sums});
    for (uint64_t i = 0; i < blocks; i++)
        settle(readout, &(struct block_part){.block = first + i, .bytes = data + i * BLOCK_SIZE, .length = BLOCK_SIZE},
               sums[i], tally);
    if (tally->unverified != unverified && readout->certain)
        meet_unknown(readout->view, first, blocks, sums, readout->nowait);
}

static void settle_whole(const struct readout *readout, uint64_t first, uint64_t blocks, struct tally *tally)
{
    char *data = readout->data + ((int64_t)(first * BLOCK_SIZE) - readout->offset);
    while (blocks > 0) {
        uint64_t batch = blocks < BATCH ? blocks : BATCH;
        settle_batch(readout, first, batch, data, tally);
        first += batch;
        blocks -= batch;
        data += batch * BLOCK_SIZE;
    }
}

/* One block, whole in the scratch page, of which the reader gets a part. */
static void settle_one(const struct readout *readout, const struct block_part *part, struct tally *tally)
{
    uint64_t sum = block_sum(readout->scratch, part->block);
    uint64_t unverified = tally->unverified;
    if (readout->sums)
        readout->sums[part->block - (uint64_t)readout->offset / BLOCK_SIZE] = sum;
    settle(readout, part, sum, tally);
    if (tally->unverified != unverified && readout->certain)
        meet_unknown(readout->view, part->block, 1, &sum, readout->nowait);
}

/* The last block of the file, from its beginning: summed as if padded with zeros. */
static void settle_last(const struct readout *readout, struct block_part *part, struct tally *tally)
{
    memcpy(readout->scratch, part->bytes, part->length);
    memset(readout->scratch + part->length, 0, BLOCK_SIZE - part->length);
    settle_one(readout, part, tally);
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
    if (length < (ssize_t)(part->begin + part->length) || !fd_view_is_current(readout->view)) {
        tally
            ->unverified++; /* it cannot be read whole, the file has become shorter, or the number leads elsewhere by now */
        return;
    }
    memcpy(part->bytes, readout->scratch + part->begin, part->length);
    settle_one(readout, part, tally);
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

int verify_in_place(const struct fd_view *view, const void *data, int64_t offset, size_t length, bool nowait)
{
    struct tally tally = {0};
    uint64_t sums[BATCH];
    uint64_t first = (uint64_t)offset / BLOCK_SIZE, blocks = length / BLOCK_SIZE;
    const char *bytes = data;
    if (map_is_behind(&view->file->map))
        return -EAGAIN;
    for (uint64_t done = 0; done < blocks; done += BATCH, bytes += BATCH * BLOCK_SIZE) {
        uint64_t batch = blocks - done < BATCH ? blocks - done : BATCH, unverified = tally.unverified;
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
        /* The caller may be changing the bytes, but what is adopted is read again. */
        if (tally.unverified != unverified)
            meet_unknown(view, first + done, batch, sums, nowait);
    }
    count(&tally);
    return 0;
}
