/*
 * Take pages, copy in, sum and announce; publish or forget, give the pages back. Owns nothing.
 */
#include "engine/chunk.h"

#include <errno.h>
#include <string.h>

#include "base/process.h"
#include "base/stats.h"
#include "base/step.h"
#include "checksum/region.h"
#include "checksum/sum_copy.h"
#include "checksum/window.h"
#include "engine/active.h"
#include "engine/decide.h"
#include "engine/issue.h"
#include "engine/report.h"

/* Copied and summed at a time, while the bytes are in cache. A multiple of BLOCK_SIZE. */
enum { PIECE = 64 << 10, PIECE_BLOCKS = PIECE / BLOCK_SIZE };

/* Bytes of requests that are copied past the cache; measured. */
enum { STREAM_LEAST = 32 << 10, STREAM_MOST = 256 << 10 };

static bool is_nowait(const struct chunk *chunk)
{
    return (chunk->flags & RWF_NOWAIT) != 0;
}

static uint64_t round_up(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}

/* ---- prepare ---- */

/* The piece's whole blocks, in one pass. @return bytes copied, summed and announced; what follows is copied first, and summed then. */
static size_t sum_in(struct chunk *chunk, struct cursor *cursor, size_t at, size_t length, bool streams)
{
    uint64_t begin = (uint64_t)chunk->offset + at;
    if (chunk->accounting != ACCOUNT_ANNOUNCED || begin % BLOCK_SIZE != 0)
        return 0;
    uint64_t sums[PIECE_BLOCKS];
    const struct sum_copy work = {.to = chunk->data + at,
                                  .blocks = length / BLOCK_SIZE,
                                  .first = begin / BLOCK_SIZE,
                                  .sums = sums,
                                  .streams = streams};
    size_t blocks = sum_copy_gather(&work, cursor);
    announce_sums(&chunk->announcement, work.first, blocks, sums);
    chunk->whole_end = work.first + blocks;
    return blocks * BLOCK_SIZE;
}

/* Copy one piece in; sum and announce the blocks that are whole by now. @return bytes copied. */
static size_t copy_piece(struct chunk *chunk, struct cursor *cursor, size_t at, size_t length, bool streams)
{
    size_t copied = sum_in(chunk, cursor, at, length, streams);
    if (copied == length)
        return copied;
    copied += copy_gather(chunk->data + at + copied, cursor, length - copied);
    if (chunk->accounting != ACCOUNT_ANNOUNCED)
        return copied;
    uint64_t end = ((uint64_t)chunk->offset + at + copied) / BLOCK_SIZE;
    if (end <= chunk->whole_end)
        return copied;
    uint64_t sums[PIECE_BLOCKS + 1];
    struct block_sums work = {.data = chunk->data + (chunk->whole_end * BLOCK_SIZE - (uint64_t)chunk->offset),
                              .blocks = end - chunk->whole_end,
                              .first = chunk->whole_end,
                              .sums = sums};
    block_sums(&work);
    announce_sums(&chunk->announcement, work.first, work.blocks, sums);
    chunk->whole_end = end;
    return copied;
}

/*
 * Presumably who read our pages last, a device's thread, has their lines still, and each would have to be
 * taken from it, while stores past the cache ask for none. Larger requests, and those beside others, are faster where the device finds in the cache what it is to write.
 */
static bool is_streamed(const struct chunk *chunk)
{
    return chunk->length >= STREAM_LEAST && chunk->length <= STREAM_MOST && !chunk->view->file->is_in_memory &&
           !pool_exceeds(chunk->length);
}

/* @return bytes copied; fewer than chunk->length when the caller's memory is bad from there on. */
static size_t copy_in(struct chunk *chunk, struct cursor *cursor)
{
    const bool streams = is_streamed(chunk);
    size_t copied = 0;
    while (copied < chunk->length) {
        size_t piece = PIECE - ((size_t)chunk->offset + copied) % BLOCK_SIZE;
        if (piece > chunk->length - copied || chunk->accounting != ACCOUNT_ANNOUNCED)
            piece = chunk->length - copied;
        size_t now = copy_piece(chunk, cursor, copied, piece, streams);
        copied += now;
        if (now < piece)
            break;
    }
    return copied;
}

/* Cut a chunk short, to what the file system can write directly. */
static void cut_short(struct chunk *chunk, size_t copied)
{
    chunk->length = (chunk->flags & RWF_ATOMIC) ? 0 : copied - copied % chunk->view->file->offset_align;
    stats_add(STAT_short_copies, 1);
    if (chunk->accounting != ACCOUNT_ANNOUNCED)
        return;
    uint64_t end = ((uint64_t)chunk->offset + chunk->length) / BLOCK_SIZE;
    if (end < chunk->whole_first)
        end = chunk->whole_first;
    if (end < chunk->whole_end) {
        announce_withdraw(&chunk->announcement, end, chunk->whole_end - end);
        chunk->whole_end = end;
    }
}

/* The part of a block that a chunk writes: bytes [begin, end) of the file, laid over the block's content in `page`. */
struct overlay {
    uint64_t block;
    int64_t begin, end;
    char *page;
};

static uint64_t overlaid_sum(const struct chunk *chunk, const struct overlay *overlay)
{
    memcpy(overlay->page + overlay->begin % BLOCK_SIZE, chunk->data + (overlay->begin - chunk->offset),
           (size_t)(overlay->end - overlay->begin));
    return block_sum(overlay->page, overlay->block);
}

/* Does the rest of the block lie beyond the end of the file? Then it is zeros. */
static bool rest_is_beyond_end(const struct chunk *chunk, const struct overlay *overlay)
{
    int64_t block_begin = (int64_t)(overlay->block * BLOCK_SIZE), size = issue_file_size(chunk->view->fd);
    /* A number that has been closed meanwhile may have shown the size of another file. */
    return size >= 0 && fd_view_is_current(chunk->view) && (overlay->begin == block_begin || size <= block_begin) &&
           (overlay->end == block_begin + BLOCK_SIZE || size <= overlay->end);
}

/*
 * Announce a block of which only a part is written, and find its new checksum if the rest of it can be vouched for.
 * @return 0, or -EAGAIN under NOWAIT when the rest would have to be waited for.
 */
static int prepare_edge(struct chunk *chunk, uint64_t block, char *page)
{
    int64_t block_begin = (int64_t)(block * BLOCK_SIZE), chunk_end = chunk->offset + (int64_t)chunk->length;
    const struct overlay overlay = {
        .block = block,
        .begin = chunk->offset > block_begin ? chunk->offset : block_begin,
        .end = chunk_end < block_begin + BLOCK_SIZE ? chunk_end : block_begin + BLOCK_SIZE,
        .page = page,
    };
    struct edge *edge = &chunk->edge[chunk->edges];
    uint64_t *sum = &chunk->edge_sum[chunk->edges];
    chunk->edges++;
    if (rest_is_beyond_end(chunk, &overlay)) {
        memset(page, 0, BLOCK_SIZE);
        *sum = overlaid_sum(chunk, &overlay);
        edge_announce_whole(&chunk->announcement, edge, block, *sum);
        if (rest_is_beyond_end(chunk, &overlay))
            return 0;
        edge_downgrade(edge, *sum);
    } else {
        edge_announce(&chunk->announcement, edge, block);
    }
    int error = decide_edge(chunk->view, &chunk->announcement, edge, page, is_nowait(chunk));
    if (error == 0 && edge->base != WORD_UNKNOWN)
        *sum = overlaid_sum(chunk, &overlay);
    return error;
}

static int prepare_edges(struct chunk *chunk)
{
    uint64_t begin = (uint64_t)chunk->offset, end = begin + chunk->length;
    bool head = begin % BLOCK_SIZE != 0, tail = end % BLOCK_SIZE != 0;
    if (chunk->length == 0 || !(head || tail))
        return 0;
    struct active_pages page;
    int error = active_take(&page, BLOCK_SIZE, is_nowait(chunk));
    if (error != 0)
        return error;
    if (head)
        error = prepare_edge(chunk, begin / BLOCK_SIZE, page.extent.base);
    if (error == 0 && tail && !(head && begin / BLOCK_SIZE == end / BLOCK_SIZE))
        error = prepare_edge(chunk, end / BLOCK_SIZE, page.extent.base);
    active_give(&page);
    return error;
}

/* Before anything is issued: the regions are durable-dirty. @return 0, or -EAGAIN when that would have to be waited for and must not. */
static int prepare_regions(struct chunk *chunk)
{
    struct map *map = &chunk->view->file->map;
    uint64_t first = blocks_first(chunk->offset);
    uint64_t blocks = blocks_count(chunk->offset, chunk->offset + (int64_t)chunk->length);
    if (region_are_durable(map, first, blocks))
        return 0;
    if (is_nowait(chunk))
        return -EAGAIN;
    region_make_durable(map, first, blocks);
    return 0;
}

static void withdraw(struct chunk *chunk)
{
    announce_withdraw(&chunk->announcement, chunk->whole_first, chunk->whole_end - chunk->whole_first);
    for (unsigned i = 0; i < chunk->edges; i++)
        edge_withdraw(&chunk->announcement, &chunk->edge[i]);
}

static void forget(struct chunk *chunk)
{
    announce_forget(&chunk->announcement, chunk->whole_first, chunk->whole_end - chunk->whole_first);
    for (unsigned i = 0; i < chunk->edges; i++)
        edge_forget(&chunk->announcement, &chunk->edge[i]);
}

/* Make the map cover the chunk's blocks, where it can. @return -EAGAIN when it does not yet and the request may not wait. */
static int cover(struct chunk *chunk, uint64_t first, uint64_t blocks)
{
    struct map *map = &chunk->view->file->map;
    uint64_t run;
    if ((map_words(map, first, &run) && blocks <= run) || map_covers(map, first, blocks))
        return 0;
    if (!atomic_load_explicit(&map->cannot_grow, memory_order_relaxed)) {
        if (is_nowait(chunk))
            return -EAGAIN;
        uint64_t saved;
        process_lock(&saved);
        int error = map_cover(map, first, blocks);
        process_unlock(&saved);
        chunk->looked = 0; /* that may have taken long */
        if (error == 0)
            return 0;
    }
    chunk->accounting = ACCOUNT_LANDING;
    return 0;
}

/* Enter the chunk into the map's books. @return 0 or -EAGAIN. */
static int open_accounting(struct chunk *chunk)
{
    if (chunk->accounting == ACCOUNT_NONE)
        return 0;
    struct map *map = &chunk->view->file->map;
    uint64_t first = blocks_first(chunk->offset);
    uint64_t blocks = blocks_count(chunk->offset, chunk->offset + (int64_t)chunk->length);
    if (chunk->accounting == ACCOUNT_ANNOUNCED) {
        int error = cover(chunk, first, blocks);
        if (error != 0)
            return error;
    }
    if (chunk->accounting == ACCOUNT_LANDING)
        return landing_open(&chunk->landing, chunk->view,
                            &(struct landing_plan){.offset = chunk->offset,
                                                   .length = chunk->length,
                                                   .append = landing_appends(chunk->view, chunk->flags),
                                                   .nowait = is_nowait(chunk),
                                                   .transport = chunk->transport,
                                                   .use = chunk->use});
    announce_open_at(&chunk->announcement, map, first, blocks, FLIGHT_WRITE, chunk->transport, is_nowait(chunk),
                     chunk->looked ? chunk->looked : window_now());
    chunk->whole_first = chunk->whole_end = round_up((uint64_t)chunk->offset, BLOCK_SIZE) / BLOCK_SIZE;
    return 0;
}

/* Leave the books without having written anything. */
static void cancel_accounting(struct chunk *chunk)
{
    if (chunk->accounting == ACCOUNT_LANDING)
        landing_close(&chunk->landing, LANDING_CANCELLED, 0);
    if (chunk->accounting != ACCOUNT_ANNOUNCED)
        return;
    withdraw(chunk);
    announce_close(&chunk->announcement);
}

int chunk_prepare(struct chunk *chunk, struct cursor *cursor)
{
    int error = pool_take(&chunk->pages, chunk->length, is_nowait(chunk));
    if (error != 0)
        return error;
    chunk->data = chunk->pages.base;
    error = open_accounting(chunk);
    if (error != 0) {
        pool_give(&chunk->pages);
        return error;
    }
    size_t copied = copy_in(chunk, cursor);
    if (copied < chunk->length)
        cut_short(chunk, copied);
    if (chunk->accounting == ACCOUNT_ANNOUNCED)
        error = prepare_edges(chunk);
    if (error == 0 && chunk->accounting == ACCOUNT_ANNOUNCED)
        error = prepare_regions(chunk);
    if (error != 0) {
        cancel_accounting(chunk);
        pool_give(&chunk->pages);
        return error;
    }
    chunk->issued = window_now();
    if (chunk->accounting == ACCOUNT_ANNOUNCED)
        flight_issue(chunk->announcement.flight, chunk->issued);
    return 0;
}

/* ---- complete ---- */

/* Publish what lies before `end` (bytes in the file), forget the rest. */
static void publish_to(struct chunk *chunk, uint64_t end)
{
    uint64_t whole = end / BLOCK_SIZE;
    if (whole > chunk->whole_end)
        whole = chunk->whole_end;
    if (whole < chunk->whole_first)
        whole = chunk->whole_first;
    announce_publish(&chunk->announcement, chunk->whole_first, whole - chunk->whole_first);
    announce_forget(&chunk->announcement, whole, chunk->whole_end - whole);
    uint64_t chunk_end = (uint64_t)chunk->offset + chunk->length;
    for (unsigned i = 0; i < chunk->edges; i++) {
        uint64_t block_end = (chunk->edge[i].block + 1) * BLOCK_SIZE;
        if (end >= block_end || end == chunk_end)
            edge_publish(&chunk->announcement, &chunk->edge[i], chunk->edge_sum[i]);
        else
            edge_forget(&chunk->announcement, &chunk->edge[i]);
    }
}

void chunk_complete(struct chunk *chunk, ssize_t result, bool certain)
{
    STEP("complete");
    stats_add(STAT_bytes_bounced, chunk->length);
    if (chunk->accounting == ACCOUNT_LANDING)
        landing_close(&chunk->landing, result, chunk->flags);
    if (chunk->accounting == ACCOUNT_ANNOUNCED) {
        if (issue_wrote_nothing(result, chunk->flags, chunk->length))
            withdraw(chunk);
        else if (result < 0 || !certain)
            forget(chunk);
        else
            publish_to(chunk, (uint64_t)chunk->offset + (uint64_t)result);
        const int64_t over = chunk->over ? chunk->over : window_fine_now();
        /* A request that failed may not have come as far as moving the file's times: a cancelled one has not. */
        if (result < 0 || issue_wrote_nothing(result, chunk->flags, chunk->length))
            window_extend_to(&chunk->view->file->map, over);
        else
            window_renew_to(&chunk->view->file->map, chunk->issued, over);
        announce_close(&chunk->announcement);
    }
    pool_give(&chunk->pages);
}

void chunk_cancel(struct chunk *chunk)
{
    cancel_accounting(chunk);
    pool_give(&chunk->pages);
}

void chunk_abandon(struct chunk *chunk)
{
    landing_close(&chunk->landing, -EIO, 0);
    if (chunk->announcement.map) {
        if (chunk->issued != 0)
            window_renew(chunk->announcement.map, chunk->issued);
        announce_abandon(&chunk->announcement, blocks_first(chunk->offset),
                         blocks_count(chunk->offset, chunk->offset + (int64_t)chunk->asked));
    }
    pool_give(&chunk->pages);
}

void chunk_lose(struct chunk *chunk)
{
    if (chunk->accounting == ACCOUNT_ANNOUNCED)
        announce_lose(&chunk->announcement, blocks_first(chunk->offset),
                      blocks_count(chunk->offset, chunk->offset + (int64_t)chunk->asked));
    pool_leak(&chunk->pages);
}
