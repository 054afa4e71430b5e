/*
 * The life of a direct write: take pages, copy in, sum and announce, issue, publish or forget, give the pages back.
 *
 * A request is written in chunks of TRANSFER_CHUNK; one whose landing place cannot be known in advance (append, shared file
 * offset) or that must not be torn (RWF_ATOMIC) is a single chunk.
 */
#include <errno.h>
#include <string.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "base/step.h"
#include "bounce/copy.h"
#include "bounce/pool.h"
#include "checksum/announce.h"
#include "checksum/region.h"
#include "checksum/window.h"
#include "engine/active.h"
#include "engine/decide.h"
#include "engine/detect.h"
#include "engine/issue.h"
#include "engine/landing.h"
#include "engine/look.h"
#include "engine/report.h"
#include "engine/transfer.h"

/* Copied and summed at a time, while the bytes are in cache. A multiple of BLOCK_SIZE. */
enum { PIECE = 64 << 10, PIECE_BLOCKS = PIECE / BLOCK_SIZE };

/* How a chunk is accounted for in the map. */
enum accounting {
    ACCOUNT_NONE,      /* no map */
    ACCOUNT_ANNOUNCED, /* checksums announced */
    ACCOUNT_LANDING,   /* no checksums: a mutator over it */
};

struct chunk {
    const struct fd_view *view;
    struct extent pages;
    char *data;
    size_t asked;   /* bytes the caller wants written */
    size_t length;  /* bytes that are: cut short by a bad address */
    int64_t offset; /* in the file; known when announced */
    int flags;
    enum accounting accounting;
    struct announcement announcement;
    uint64_t whole_first, whole_end; /* blocks announced whole */
    unsigned edges;
    struct edge edge[2];
    uint64_t edge_sum[2];
    int64_t issued; /* time */
    struct landing landing;
    const struct offset_use *use; /* of the file offset, by requests that use it */
};

static bool is_nowait(const struct chunk *chunk)
{
    return (chunk->flags & RWF_NOWAIT) != 0;
}

static uint64_t round_up(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}

/* ---- prepare ---- */

/* Copy one piece in, then sum and announce the blocks that are whole by now. @return bytes copied. */
static size_t copy_piece(struct chunk *chunk, struct cursor *cursor, size_t at, size_t length)
{
    size_t copied = copy_gather(chunk->data + at, cursor, length);
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

/* @return bytes copied; fewer than chunk->length when the caller's memory is bad from there on. */
static size_t copy_in(struct chunk *chunk, struct cursor *cursor)
{
    size_t copied = 0;
    while (copied < chunk->length) {
        size_t piece = PIECE - ((size_t)chunk->offset + copied) % BLOCK_SIZE;
        if (piece > chunk->length - copied || chunk->accounting != ACCOUNT_ANNOUNCED)
            piece = chunk->length - copied;
        size_t now = copy_piece(chunk, cursor, copied, piece);
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
    return size >= 0 && (overlay->begin == block_begin || size <= block_begin) &&
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
    if (map_covers(map, first, blocks))
        return 0;
    if (!atomic_load_explicit(&map->cannot_grow, memory_order_relaxed)) {
        if (is_nowait(chunk))
            return -EAGAIN;
        uint64_t saved;
        process_lock(&saved);
        int error = map_cover(map, first, blocks);
        process_unlock(&saved);
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
        return landing_open(&chunk->landing, chunk->view, chunk->offset, chunk->length,
                            landing_appends(chunk->view, chunk->flags), is_nowait(chunk), chunk->use);
    announce_open(&chunk->announcement, map, first, blocks, FLIGHT_WRITE, TRANSPORT_BLOCKING, is_nowait(chunk));
    chunk->whole_first = chunk->whole_end = round_up((uint64_t)chunk->offset, BLOCK_SIZE) / BLOCK_SIZE;
    return 0;
}

/* Leave the books without having written anything. */
static void cancel_accounting(struct chunk *chunk)
{
    if (chunk->accounting == ACCOUNT_LANDING)
        landing_close(&chunk->landing, -EINVAL, 0);
    if (chunk->accounting != ACCOUNT_ANNOUNCED)
        return;
    withdraw(chunk);
    announce_close(&chunk->announcement);
}

/*
 * @return 0: chunk->length bytes are ready to be issued, 0 of them when the caller's memory is bad from the start; or -EAGAIN,
 * -ENOMEM with nothing held.
 */
static int prepare(struct chunk *chunk, struct cursor *cursor)
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
    stats_add(STAT_bytes_bounced, chunk->length);
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

/* `certain`: the bytes landed at chunk->offset of the file that the view was opened on. */
static void complete(struct chunk *chunk, ssize_t result, bool certain)
{
    STEP("complete");
    if (chunk->accounting == ACCOUNT_LANDING)
        landing_close(&chunk->landing, result, chunk->flags);
    if (chunk->accounting == ACCOUNT_ANNOUNCED) {
        if (issue_wrote_nothing(result, chunk->flags))
            withdraw(chunk);
        else if (result < 0 || !certain)
            forget(chunk);
        else
            publish_to(chunk, (uint64_t)chunk->offset + (uint64_t)result);
        if (issue_wrote_nothing(result, chunk->flags))
            window_extend(&chunk->view->file->map);
        else
            window_renew(&chunk->view->file->map, chunk->issued);
        announce_close(&chunk->announcement);
    }
    pool_give(&chunk->pages);
}

/* ---- the request ---- */

/* Another thread or process moved the file offset under an announced write: nobody knows where the bytes are. */
static void lost_offset(struct chunk *chunk, const struct offset_use *use, ssize_t result)
{
    struct map *map = &chunk->view->file->map;
    struct mutation mutation;
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    int64_t now = issue_file_offset(chunk->view->fd);
    bool forward = now >= chunk->offset + (result > 0 ? result : 0) && !offset_was_sought(use);
    int64_t begin = forward ? chunk->offset : 0;
    int64_t end = forward ? now + (result < 0 ? (int64_t)chunk->length : 0) : INT64_MAX;
    mutate_close(&mutation, blocks_first(begin), blocks_count(begin, end));
}

/* The number was closed and used again under the request: the bytes may be in another file that has a map. */
static void lost_descriptor(const struct chunk *chunk)
{
    struct fd_view now;
    struct landing landing;
    if (fd_view_open(&now, chunk->view->fd, false) == 0 && now.file && now.file != chunk->view->file) {
        landing_open(&landing, &now, chunk->offset, chunk->length, false, false, NULL);
        landing_close(&landing, (ssize_t)chunk->length, 0);
    }
    fd_view_close(&now);
}

/* The write at the file offset: where does it land? @return false when that cannot be known in advance. */
static bool learn_offset(struct chunk *chunk)
{
    int64_t offset = chunk->use->exclusive ? issue_file_offset(chunk->view->fd) : -1;
    if (offset < 0 || offset > INT64_MAX - (int64_t)chunk->length)
        return false;
    chunk->offset = offset;
    return true;
}

/* `use`: of the file offset, when the chunk is announced at what it learned there; else NULL. */
static ssize_t carry_out(struct chunk *chunk, int64_t asked, const struct cursor *start, const struct offset_use *use)
{
    STEP("issue");
    int fd = chunk->view->fd;
    ssize_t result = chunk->length ? issue_write(fd, chunk->data, chunk->length, asked, chunk->flags)
                                   : issue_bad_write(fd, chunk->asked, asked, chunk->flags);
    if (config.detect && result > 0)
        detect_change(chunk->view, *start, chunk->data, (size_t)result, chunk->offset);
    bool same_file = fd_view_is_current(chunk->view);
    bool same_place = !use || issue_wrote_nothing(result, chunk->flags) ||
                      (offset_was_exclusive(use) && (result < 0 || issue_file_offset(fd) == chunk->offset + result));
    complete(chunk, result, same_file && same_place);
    if (!same_place)
        lost_offset(chunk, use, result);
    if (!same_file)
        lost_descriptor(chunk);
    return result;
}

/* A handler of the program's has jumped out of the request: the system call, if it was made, is over. */
static void abandon(void *argument)
{
    struct chunk *chunk = argument;
    landing_close(&chunk->landing, -EIO, 0);
    if (chunk->announcement.map) {
        if (chunk->issued != 0)
            window_renew(chunk->announcement.map, chunk->issued);
        announce_abandon(&chunk->announcement, blocks_first(chunk->offset),
                         blocks_count(chunk->offset, chunk->offset + (int64_t)chunk->asked));
    }
    pool_give(&chunk->pages);
}

static ssize_t write_chunk(struct chunk *chunk, struct cursor *cursor, int64_t asked)
{
    bool by_file_offset = asked == TRANSFER_FILE_OFFSET && chunk->accounting == ACCOUNT_ANNOUNCED;
    if (by_file_offset && !learn_offset(chunk)) {
        chunk->accounting = ACCOUNT_LANDING;
        by_file_offset = false;
    }
    const struct cursor start = *cursor;
    struct active active;
    active_open(&active, abandon, chunk);
    ssize_t result = prepare(chunk, cursor);
    if (result == 0)
        result = carry_out(chunk, asked, &start, by_file_offset ? chunk->use : NULL);
    active_close(&active);
    return result;
}

/* Chunk after chunk, until one is short or fails. @return bytes, or the first chunk's -errno. */
static ssize_t write_chunks(const struct fd_view *view, const struct transfer *transfer, const struct offset_use *use)
{
    struct cursor cursor = {.vector = transfer->vector, .segments = transfer->segments};
    const bool has_map = file_has_map(view->file);
    const bool appends = landing_appends(view, transfer->flags);
    const bool by_file_offset = transfer->offset == TRANSFER_FILE_OFFSET;
    /* What others could write into the middle of, or what must not be torn, goes in one piece. */
    const bool in_one = appends || (transfer->flags & RWF_ATOMIC) || (by_file_offset && !use->exclusive);
    size_t done = 0;
    ssize_t result = 0;

    while (done < transfer->length) {
        size_t left = transfer->length - done;
        size_t wanted = in_one || left < TRANSFER_CHUNK ? left : TRANSFER_CHUNK;
        struct chunk chunk = {.view = view,
                              .asked = wanted,
                              .length = wanted,
                              .offset = by_file_offset ? TRANSFER_FILE_OFFSET : transfer->offset + (int64_t)done,
                              .flags = transfer->flags,
                              .use = by_file_offset ? use : NULL,
                              .accounting = !has_map  ? ACCOUNT_NONE
                                            : appends ? ACCOUNT_LANDING
                                                      : ACCOUNT_ANNOUNCED};
        result = write_chunk(&chunk, &cursor, chunk.offset);
        if (result < 0)
            break;
        done += (size_t)result;
        if ((size_t)result < wanted)
            break;
    }
    return done > 0 ? (ssize_t)done : result;
}

ssize_t transfer_write(const struct fd_view *view, const struct transfer *transfer)
{
    const bool nowait = (transfer->flags & RWF_NOWAIT) != 0;
    struct active_offset held = {0};
    ssize_t result = 0;

    stats_add(STAT_direct_writes, 1);
    if (file_has_map(view->file) && !nowait)
        look_before_write(view);
    if (transfer->offset == TRANSFER_FILE_OFFSET)
        result = active_enter(&held, view->offset, nowait);
    if (result == 0) {
        result = write_chunks(view, transfer, &held.use);
        active_exit(&held);
    }
    if (result > 0)
        stats_add(STAT_bytes_written, (uint64_t)result);
    else if (result == -EAGAIN && nowait)
        stats_add(STAT_nowait_eagain, 1);
    return result;
}
