/*
 * A direct read: part after part (engine/part.h), each in place when memory is aligned and the part small, through pages otherwise.
 */
#include <errno.h>

#include "base/stats.h"
#include "engine/active.h"
#include "engine/handover.h"
#include "engine/issue.h"
#include "engine/part.h"
#include "engine/recover.h"
#include "engine/transfer.h"

/* @return true with *told: bytes, or -errno; false: it is to be made again, through pages. */
static bool read_in_place(const struct part *part, ssize_t *told)
{
    char *memory = (char *)part->cursor->vector->iov_base + part->cursor->used;
    *told = issue_read(part->view->fd, memory, part->length, part->offset, part->transfer->flags);
    return *told <= 0 || part_finish_in_place(part, *told, told);
}

/* @return bytes or -errno. */
static ssize_t read_bounced(const struct part *part)
{
    const int flags = part->transfer->flags;
    struct active_pages pages;
    ssize_t result = active_take(&pages, part_pages(part), (flags & RWF_NOWAIT) != 0);
    if (result != 0)
        return result;
    result = issue_read(part->view->fd, pages.extent.base, part->length, part->offset, flags);
    if (result > 0)
        result = handover(part, &pages.extent, result);
    active_give(&pages);
    return result;
}

static ssize_t read_part(const struct part *part)
{
    ssize_t result;
    if (!part_fits_in_place(part) || !read_in_place(part, &result))
        result = read_bounced(part);
    if (result >= 0 && (size_t)result < part->length && file_has_map(part->view->file))
        return part_verify_end(part, result);
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
            .use = by_file_offset ? use : NULL,
            .length = left < most ? left : most,
            .offset = by_file_offset ? TRANSFER_FILE_OFFSET : transfer->offset + (int64_t)done,
            .certain = true,
        };
        result = read_part(&part);
        if (result <= 0)
            break;
        done += (size_t)result;
        if ((size_t)result < part.length)
            break;
    }
    /* Damage fails the whole read: a short count would be taken for the end of the file. So does a length that cannot be read directly. */
    const bool fails = result == -EIO || result == -EINVAL;
    if (fails && done > 0 && by_file_offset && offset_was_exclusive(use))
        issue_move_offset(view->fd, -(int64_t)done);
    return fails || done == 0 ? result : (ssize_t)done;
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
