/*
 * The deciding read, and what becomes of a mismatch. The order of looks is question.h's; here are the reads and the policy.
 */
#include "engine/decide.h"

#include <errno.h>
#include <string.h>

#include "base/stats.h"
#include "checksum/map_unheard.h"
#include "checksum/question.h"
#include "checksum/region.h"
#include "checksum/window.h"
#include "engine/active.h"
#include "engine/adopt.h"
#include "engine/issue.h"
#include "engine/look.h"
#include "engine/recover.h"
#include "engine/report.h"
#include "files/reader.h"

enum { ROUNDS = 3 };

ssize_t decide_read_blocks(const struct fd_view *view, uint64_t first, uint64_t blocks, char *data, bool nowait)
{
    const size_t bytes = blocks * BLOCK_SIZE;
    int fd = view->fd;
    if (!(view->flags & FD_READABLE)) {
        if (nowait)
            return -EAGAIN;
        fd = reader_of(view->file, view->fd);
        if (fd < 0)
            return fd;
    }
    ssize_t length = issue_read(fd, data, bytes, (int64_t)(first * BLOCK_SIZE), nowait ? RWF_NOWAIT : 0);
    if (length >= 0)
        memset(data + length, 0, bytes - (size_t)length);
    return length;
}

ssize_t decide_read_block(const struct fd_view *view, uint64_t block, char *page, bool nowait)
{
    return decide_read_blocks(view, block, 1, page, nowait);
}

/* Is the map's word on this block not to be trusted any more? `self`: the caller's own in-flight entry. */
static bool map_is_doubtful(const struct fd_view *view, uint64_t block, int self)
{
    struct map *map = &view->file->map;
    bool first = false;
    recover_now(view);
    if (!region_is_suspect(map, block) && !(atomic_load(&map->header->flags) & MAP_CHANGED_OUTSIDE) &&
        !map_is_unheard(map) && !window_changed_outside(map, look_modified(view), self, &first))
        return false;
    if (first)
        report_changed_outside(view->fd);
    return true;
}

/* @return DECIDED_RECOVERED or DECIDED_OUTSIDE */
static enum decision count_adopted(const struct fd_view *view, uint64_t block)
{
    if (region_is_suspect(&view->file->map, block)) {
        stats_add(STAT_recovered_blocks, 1);
        report_recovered(view->fd, block);
        return DECIDED_RECOVERED;
    }
    stats_add(STAT_changed_outside, 1);
    return DECIDED_OUTSIDE;
}

/* A handler of the program's has jumped out of the question: what is recorded stands. */
static void abandon(void *announcement)
{
    announce_abandon(announcement, 0, 0);
}

/* One round of question and answer. `page` holds the block as re-read. */
static enum verdict ask(const struct fd_view *view, uint64_t block, char *page, bool nowait, uint64_t *expected,
                        uint64_t *found)
{
    struct question question = {0};
    struct active active;
    active_open(&active, abandon, &question.announcement);
    enum verdict verdict = question_open(&question, &view->file->map, block, nowait);
    if (verdict != VERDICT_SUSPECT) {
        active_close(&active);
        return verdict;
    }
    ssize_t length = decide_read_block(view, block, page, nowait);
    *expected = question.asked;
    *found = length < 0 ? 0 : block_sum(page, block);
    verdict = question_close(&question, *found);
    active_close(&active);
    return length < 0 ? VERDICT_SUSPECT : verdict;
}

static enum decision act_on_mismatch(const struct fd_view *view, uint64_t block, uint64_t expected, uint64_t found,
                                     char *page)
{
    if (!map_is_doubtful(view, block, FLIGHT_BEYOND)) {
        if (!fd_view_is_current(view))
            return DECIDED_UNVERIFIED;
        report_mismatch(view->fd, block, expected, found);
        return DECIDED_DAMAGED;
    }
    adopt_blocks(&(struct adoption){.view = view, .room = page, .trust = true}, block, 1, &found);
    return count_adopted(view, block);
}

static enum decision decide_with(const struct fd_view *view, const struct block_part *part, bool nowait, char *page)
{
    uint64_t expected = 0, found = 0;
    enum verdict verdict = VERDICT_UNDECIDED;
    for (int round = 0; round < ROUNDS && verdict == VERDICT_UNDECIDED; round++)
        verdict = ask(view, part->block, page, nowait, &expected, &found);
    if (verdict == VERDICT_MISMATCH && !nowait && recover_before_report(view))
        verdict = ask(view, part->block, page, nowait, &expected, &found);
    /* The number was closed meanwhile, and may lead to another file: that is what was read, or could not be read. */
    if (!fd_view_is_current(view))
        return DECIDED_UNVERIFIED;
    if (nowait && (verdict == VERDICT_SUSPECT || verdict == VERDICT_MISMATCH))
        return DECIDED_LATER;
    if (verdict == VERDICT_SUSPECT)
        return DECIDED_UNREADABLE;
    if (found != 0)
        memcpy(part->bytes, page + part->begin, part->length);
    if (verdict == VERDICT_MISMATCH)
        return act_on_mismatch(view, part->block, expected, found, page);
    return verdict == VERDICT_GOOD ? DECIDED_GOOD : DECIDED_UNVERIFIED;
}

enum decision decide_block(const struct fd_view *view, const struct block_part *part, bool nowait)
{
    struct active_pages pages;
    if (active_take(&pages, BLOCK_SIZE, nowait) != 0)
        return nowait ? DECIDED_LATER : DECIDED_UNREADABLE;
    enum decision decision = decide_with(view, part, nowait, pages.extent.base);
    active_give(&pages);
    return decision;
}

int decide_edge(const struct fd_view *view, const struct announcement *announcement, struct edge *edge, char *page,
                bool nowait)
{
    if (edge->base == WORD_UNKNOWN)
        return 0;
    ssize_t length = decide_read_block(view, edge->block, page, nowait);
    if (length == -EAGAIN && nowait)
        return -EAGAIN;
    if (length < 0) {
        edge->base = WORD_UNKNOWN;
        return 0;
    }
    uint64_t expected = edge->base;
    uint64_t found = block_sum(page, edge->block);
    if (edge_check(announcement, edge, found) != EDGE_MISMATCH)
        return 0;
    if (nowait)
        return -EAGAIN;
    recover_before_report(view);
    bool doubtful = map_is_doubtful(view, edge->block, announcement->flight);
    if (doubtful || !fd_view_is_current(view)) {
        if (doubtful)
            count_adopted(view, edge->block);
        edge->base = WORD_UNKNOWN;
        return 0;
    }
    if (edge_poison(edge)) {
        report_mismatch(view->fd, edge->block, expected, found);
        report_policy();
    }
    return 0;
}
