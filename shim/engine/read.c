/*
 * The life of a direct read: in place when memory is aligned and the request small, through pages otherwise; verify; copy out.
 *
 * In place a difference is only a suspicion (the caller may be recycling the buffer): the request is made again through
 * pages before anybody is told. A file that keeps raising false suspicions is read through pages from then on.
 */
#include <errno.h>

#include "base/config.h"
#include "base/stats.h"
#include "bounce/copy.h"
#include "engine/active.h"
#include "engine/issue.h"
#include "engine/missing.h"
#include "engine/recover.h"
#include "engine/transfer.h"
#include "engine/verify.h"

enum {
    IN_PLACE_LARGEST = 16 << 10, /* bytes; above it huge bounce pages win, measured */
    SUSPICIONS_MOST = 16,
};

/* One system call's worth of a read. */
struct part {
    const struct fd_view *view;
    const struct transfer *transfer;
    struct cursor *cursor;
    int64_t offset; /* as asked: in the file, or TRANSFER_FILE_OFFSET */
    size_t length;
};

static bool is_nowait(const struct part *part)
{
    return (part->transfer->flags & RWF_NOWAIT) != 0;
}

/* Where a read by file offset came from: the offset now is where it ended. */
static int64_t landed_at(const struct part *part, ssize_t result)
{
    return part->offset == TRANSFER_FILE_OFFSET ? issue_file_offset(part->view->fd) - result : part->offset;
}

/* A read by file offset that fails, or counts less, after the kernel has moved the offset: move it back. */
static void move_back(const struct part *part, const struct offset_use *use, int64_t excess)
{
    if (part->offset == TRANSFER_FILE_OFFSET && excess > 0 && offset_was_exclusive(use))
        issue_move_offset(part->view->fd, -excess);
}

static ssize_t copy_out(const struct part *part, const char *data, size_t length, const struct offset_use *use)
{
    size_t copied = copy_scatter(part->cursor, data, length);
    if (copied == length)
        return (ssize_t)length;
    stats_add(STAT_short_copies, 1);
    copied -= copied % part->view->file->offset_align;
    move_back(part, use, (int64_t)(length - copied));
    return copied > 0 ? (ssize_t)copied : -EFAULT;
}

static int verify_part(const struct part *part, struct extent *pages, ssize_t length, const struct offset_use *use)
{
    struct readout readout = {.view = part->view,
                              .data = pages->base,
                              .offset = landed_at(part, length),
                              .length = (size_t)length,
                              .at_end = (size_t)length < part->length,
                              .nowait = is_nowait(part),
                              .scratch = (char *)pages->base + (pages->pages - 1) * (size_t)POOL_PAGE};
    readout.certain =
        (part->offset != TRANSFER_FILE_OFFSET || offset_was_exclusive(use)) && fd_view_is_current(part->view);
    return readout.offset < 0 ? 0 : verify_readout(&readout);
}

/* Read through pages. */
static ssize_t read_bounced(const struct part *part, const struct offset_use *use)
{
    struct active_pages pages;
    const struct fd_view *view = part->view;
    /* One page beyond the data: scratch for blocks of which only a part is read. */
    size_t bytes = (part->length + POOL_PAGE - 1) / POOL_PAGE * POOL_PAGE;
    bool whole = part->length % BLOCK_SIZE == 0 && part->offset >= 0 && part->offset % BLOCK_SIZE == 0;
    int error = active_take(&pages, whole ? bytes : bytes + POOL_PAGE, is_nowait(part));
    if (error != 0)
        return error;
    ssize_t result = issue_read(view->fd, pages.extent.base, part->length, part->offset, part->transfer->flags);
    if (result > 0) {
        ssize_t length = result;
        error = file_has_map(view->file) ? verify_part(part, &pages.extent, length, use) : 0;
        stats_add(STAT_bytes_bounced, (uint64_t)length);
        if (error != 0)
            move_back(part, use, length);
        result = error != 0 ? error : copy_out(part, pages.extent.base, (size_t)length, use);
    }
    active_give(&pages);
    return result;
}

/* May this part be read straight into the caller's memory? Whole blocks of one aligned segment only. */
static bool fits_in_place(const struct part *part)
{
    const struct cursor *cursor = part->cursor;
    const struct file *file = part->view->file;
    if (config.read == READ_BOUNCE || part->offset < 0 || part->transfer->segments != 1)
        return false;
    uintptr_t address = (uintptr_t)cursor->vector->iov_base + cursor->used;
    if (address % file->memory_align != 0 || ((uint64_t)part->offset | part->length) % BLOCK_SIZE != 0)
        return false;
    if (config.read == READ_INPLACE || !file_has_map(file))
        return true;
    return part->length <= IN_PLACE_LARGEST &&
           atomic_load_explicit(&part->view->file->suspicions, memory_order_relaxed) < SUSPICIONS_MOST;
}

/* @return true with *result: bytes, or -errno; false: it is to be made again, through pages. */
static bool read_in_place(const struct part *part, ssize_t *result)
{
    const struct iovec *segment = part->cursor->vector;
    char *memory = (char *)segment->iov_base + part->cursor->used;
    const struct fd_view *view = part->view;
    *result = issue_read(view->fd, memory, part->length, part->offset, part->transfer->flags);
    if (*result <= 0)
        return true;
    if (file_has_map(view->file)) {
        if (*result % BLOCK_SIZE != 0)
            return false; /* the file ends inside a block, which is summed with zeros behind it */
        if (verify_in_place(view, memory, part->offset, (size_t)*result, is_nowait(part)) != 0) {
            stats_add(STAT_suspicions, 1);
            atomic_fetch_add_explicit(&view->file->suspicions, 1, memory_order_relaxed);
            return false;
        }
    }
    stats_add(STAT_bytes_in_place, (uint64_t)*result);
    part->cursor->used += (size_t)*result;
    return true;
}

/* The file has ended: where it should have, by its checksums? */
static ssize_t verify_end(const struct part *part, ssize_t result, const struct offset_use *use)
{
    int64_t end = landed_at(part, result) + result;
    bool certain = part->offset != TRANSFER_FILE_OFFSET || offset_was_exclusive(use);
    if (!certain || end < 0 || !fd_view_is_current(part->view))
        return result;
    int error = missing_verify(part->view, end, end + (int64_t)(part->length - (size_t)result), is_nowait(part));
    if (error != 0)
        move_back(part, use, result);
    return error != 0 ? error : result;
}

static ssize_t read_part(const struct part *part, const struct offset_use *use)
{
    ssize_t result;
    if (!fits_in_place(part) || !read_in_place(part, &result))
        result = read_bounced(part, use);
    if (result >= 0 && (size_t)result < part->length && file_has_map(part->view->file))
        return verify_end(part, result, use);
    return result;
}

/* Part after part, until one is short or fails. @return bytes, or -errno. */
static ssize_t read_parts(const struct fd_view *view, const struct transfer *transfer, const struct offset_use *use)
{
    struct cursor cursor = {.vector = transfer->vector, .segments = transfer->segments};
    const bool by_file_offset = transfer->offset == TRANSFER_FILE_OFFSET;
    const size_t most = by_file_offset && !use->exclusive ? transfer->length : TRANSFER_CHUNK;
    size_t done = 0;
    ssize_t result = 0;

    while (done < transfer->length) {
        size_t left = transfer->length - done;
        const struct part part = {
            .view = view,
            .transfer = transfer,
            .cursor = &cursor,
            .length = left < most ? left : most,
            .offset = by_file_offset ? TRANSFER_FILE_OFFSET : transfer->offset + (int64_t)done,
        };
        result = read_part(&part, use);
        if (result <= 0)
            break;
        done += (size_t)result;
        if ((size_t)result < part.length)
            break;
    }
    /* Damage fails the whole read: a short count would be taken for the end of the file. */
    if (result == -EIO && done > 0 && by_file_offset && offset_was_exclusive(use))
        issue_move_offset(view->fd, -(int64_t)done);
    return result == -EIO || done == 0 ? result : (ssize_t)done;
}

ssize_t transfer_read(const struct fd_view *view, const struct transfer *transfer)
{
    const bool nowait = (transfer->flags & RWF_NOWAIT) != 0;
    struct active_offset held = {0};
    ssize_t result = 0;

    stats_add(STAT_direct_reads, 1);
    if (!nowait && file_has_map(view->file) && recover_is_due(view->file))
        recover(view);
    if (transfer->offset == TRANSFER_FILE_OFFSET)
        result = active_enter(&held, view->offset, nowait);
    if (result == 0) {
        result = read_parts(view, transfer, &held.use);
        active_exit(&held);
    }
    if (result > 0)
        stats_add(STAT_bytes_read, (uint64_t)result);
    else if (result == -EAGAIN && nowait)
        stats_add(STAT_nowait_eagain, 1);
    return result;
}
