/*
 * A direct write: chunk after chunk (engine/chunk.h), and the file offset.
 *
 * A request is written in chunks of TRANSFER_CHUNK; one whose landing place cannot be known in advance (append, shared file
 * offset) or that must not be torn (RWF_ATOMIC) is a single chunk.
 */
#include <errno.h>
#include <sys/resource.h>

#include "base/config.h"
#include "base/raw.h"
#include "base/stats.h"
#include "base/step.h"
#include "engine/active.h"
#include "engine/chunk.h"
#include "engine/detect.h"
#include "engine/inflow.h"
#include "engine/issue.h"
#include "engine/look.h"
#include "engine/transfer.h"

/*
 * Another thread or process moved the file offset under an announced write: nobody knows where the bytes are. The landing is the chunk's, so that
 * a jump out of here closes it.
 */
static void lost_offset(struct chunk *chunk, ssize_t result)
{
    landing_open(&chunk->landing, chunk->view,
                 &(struct landing_plan){.offset = TRANSFER_FILE_OFFSET,
                                        .length = chunk->length,
                                        .transport = TRANSPORT_BLOCKING,
                                        .use = chunk->use});
    chunk->landing.offset = chunk->offset;
    landing_close(&chunk->landing, result, 0);
}

/* The write at the file offset: where does it land? @return false when that cannot be known in advance. */
static bool learn_offset(struct chunk *chunk)
{
    int64_t offset = chunk->use && chunk->use->exclusive ? issue_file_offset(chunk->view->fd) : -1;
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
    bool same_place = !use || issue_wrote_nothing(result, chunk->flags, chunk->length) ||
                      (offset_was_exclusive(use) && (result < 0 || issue_file_offset(fd) == chunk->offset + result));
    chunk_complete(chunk, result, same_file && same_place);
    if (!same_place)
        lost_offset(chunk, result);
    struct inflow stray;
    if (!same_file && inflow_open_stray(&stray, chunk->view, chunk->offset, chunk->length))
        inflow_close(&stray, (ssize_t)chunk->length);
    return result;
}

/* A handler has jumped out of the write. The system call, if it was made, is over. */
static void abandon(void *argument)
{
    struct chunk *chunk = argument;
    bool announced = chunk->accounting == ACCOUNT_ANNOUNCED;
    chunk_abandon(chunk);
    if (announced && chunk->use && !offset_was_exclusive(chunk->use))
        lost_offset(chunk, -EIO);
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
    ssize_t result = chunk_prepare(chunk, cursor);
    if (result == 0)
        result = carry_out(chunk, asked, &start, by_file_offset ? chunk->use : NULL);
    active_close(&active);
    return result;
}

/*
 * How much of a write that is split lies below the size that the process may make files (RLIMIT_FSIZE): the kernel cuts a write there, but
 * answers one that begins there with a signal. Where all of it lies beyond, that is as it should be.
 */
static __attribute__((noinline)) size_t length_allowed(const struct fd_view *view, const struct transfer *transfer)
{
    struct rlimit limit;
    int64_t begin = transfer->offset == TRANSFER_FILE_OFFSET ? issue_file_offset(view->fd) : transfer->offset;
    if (view->file->is_device || begin < 0 || raw(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) != 0 ||
        limit.rlim_cur <= (uint64_t)begin || limit.rlim_cur - (uint64_t)begin >= transfer->length)
        return transfer->length;
    return limit.rlim_cur - (uint64_t)begin;
}

/* Chunk after chunk, until one is short or fails. @return bytes, or the first chunk's -errno. */
static ssize_t write_chunks(const struct fd_view *view, const struct transfer *transfer, const struct offset_use *use,
                            int64_t looked)
{
    struct cursor cursor = {.vector = transfer->vector, .segments = transfer->segments};
    const bool has_map = file_has_map(view->file);
    const bool appends = landing_appends(view, transfer->flags);
    const bool by_file_offset = transfer->offset == TRANSFER_FILE_OFFSET;
    /* What others could write into the middle of, or what must not be torn, goes in one piece. */
    bool in_one = appends || (transfer->flags & RWF_ATOMIC) || (by_file_offset && !use->exclusive);
    size_t length = transfer->length;
    if (length > TRANSFER_CHUNK && !in_one) {
        length = length_allowed(view, transfer);
        /* What the kernel refuses to write directly it refuses as a whole. Files in memory take any length. */
        in_one = length % view->file->offset_align != 0 && !view->file->is_in_memory;
    }
    size_t done = 0;
    ssize_t result = 0;

    while (done < length) {
        size_t left = length - done;
        size_t wanted = in_one || left < TRANSFER_CHUNK ? left : TRANSFER_CHUNK;
        struct chunk chunk;
        chunk_clear(&chunk);
        chunk.view = view;
        chunk.asked = chunk.length = wanted;
        chunk.offset = by_file_offset ? TRANSFER_FILE_OFFSET : transfer->offset + (int64_t)done;
        chunk.flags = transfer->flags;
        chunk.use = by_file_offset ? use : NULL;
        chunk.accounting = !has_map ? ACCOUNT_NONE : appends ? ACCOUNT_LANDING : ACCOUNT_ANNOUNCED;
        chunk.looked = done == 0 ? looked : 0;
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
    int64_t looked = 0;

    stats_add(STAT_direct_writes, 1);
    if (file_has_map(view->file) && !nowait)
        looked = look_before_write(view);
    if (transfer->offset == TRANSFER_FILE_OFFSET)
        result = active_enter(&held, view->offset, nowait);
    if (result == 0) {
        result = write_chunks(view, transfer, &held.use, held.active.clean_up ? 0 : looked);
        active_exit(&held);
    }
    if (result > 0)
        stats_add(STAT_bytes_written, (uint64_t)result);
    else if (result == -EAGAIN && nowait)
        stats_add(STAT_nowait_eagain, 1);
    return result;
}
