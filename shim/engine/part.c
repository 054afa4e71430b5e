/*
 * Verification and copy-out of one read. Owns nothing.
 *
 * In place a difference is only a suspicion (the caller may be recycling the buffer): the part is read again through pages before anybody is
 * told. A file that keeps raising false suspicions is read through pages from then on.
 */
#include "engine/part.h"

#include <errno.h>

#include "base/config.h"
#include "base/stats.h"
#include "engine/active.h"
#include "engine/issue.h"
#include "engine/missing.h"
#include "engine/verify.h"

enum {
    IN_PLACE_LARGEST =
        2 * POOL_PAGE, /* bytes; above it huge bounce pages win, measured, where a device is to reach them */
    SUSPICIONS_MOST = 16,
};

static bool is_nowait(const struct part *part)
{
    return (part->transfer->flags & RWF_NOWAIT) != 0;
}

static bool was_exclusive(const struct part *part)
{
    return part->use && offset_was_exclusive(part->use);
}

/* Are the bytes known to be those of `offset` in the file that can be looked at through the view? */
static bool is_certain(const struct part *part)
{
    return part->certain && (part->offset != TRANSFER_FILE_OFFSET || was_exclusive(part)) &&
           fd_view_is_current(part->view);
}

/* Where a read by file offset came from: the offset now is where it ended. */
static int64_t landed_at(const struct part *part, ssize_t result)
{
    return part->offset == TRANSFER_FILE_OFFSET ? issue_file_offset(part->view->fd) - result : part->offset;
}

/* A read by file offset that fails, or counts less, after the kernel has moved the offset: move it back. */
static void move_back(const struct part *part, int64_t excess)
{
    if (part->offset == TRANSFER_FILE_OFFSET && excess > 0 && was_exclusive(part))
        issue_move_offset(part->view->fd, -excess);
}

static void count_unverified(ssize_t bytes)
{
    stats_add(STAT_blocks_unverified, ((uint64_t)bytes + BLOCK_SIZE - 1) / BLOCK_SIZE);
}

bool part_fits_in_place(const struct part *part)
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
    return (part->length <= IN_PLACE_LARGEST || file->is_in_memory) &&
           atomic_load_explicit(&part->view->file->suspicions, memory_order_relaxed) < SUSPICIONS_MOST;
}

size_t part_pages(const struct part *part)
{
    size_t bytes = (part->length + POOL_PAGE - 1) / POOL_PAGE * POOL_PAGE;
    bool whole = part->length % BLOCK_SIZE == 0 && part->offset >= 0 && part->offset % BLOCK_SIZE == 0;
    return whole ? bytes : bytes + POOL_PAGE;
}

/* @return true when the bytes are what the program may have; false: a suspicion, or too little to sum. */
static bool verify_memory(const struct part *part, const char *memory, ssize_t result)
{
    const struct fd_view *view = part->view;
    if (!is_certain(part)) {
        count_unverified(result);
        return true;
    }
    if (result % BLOCK_SIZE != 0)
        return false; /* the file ends inside a block, which is summed with zeros behind it */
    if (verify_in_place(view, memory, part->offset, (size_t)result, is_nowait(part)) == 0)
        return true;
    stats_add(STAT_suspicions, 1);
    atomic_fetch_add_explicit(&view->file->suspicions, 1, memory_order_relaxed);
    return false;
}

bool part_finish_in_place(const struct part *part, ssize_t result, ssize_t *told)
{
    struct cursor *cursor = part->cursor;
    const char *memory = (const char *)cursor->vector->iov_base + cursor->used;
    if (file_has_map(part->view->file) && !verify_memory(part, memory, result))
        return false;
    stats_add(STAT_bytes_in_place, (uint64_t)result);
    cursor->used += (size_t)result;
    *told = result;
    return true;
}

static int verify_pages(const struct part *part, struct extent *pages, ssize_t length)
{
    struct readout readout = {.view = part->view,
                              .data = pages->base,
                              .offset = landed_at(part, length),
                              .length = (size_t)length,
                              .at_end = (size_t)length < part->length,
                              .nowait = is_nowait(part),
                              .scratch = (char *)pages->base + (pages->pages - 1) * (size_t)POOL_PAGE};
    /* After the look at the file offset. */
    readout.certain = is_certain(part);
    if (readout.offset >= 0)
        return verify_readout(&readout);
    count_unverified(length);
    return 0;
}

static ssize_t copy_out(const struct part *part, const char *data, size_t length)
{
    size_t copied = copy_scatter(part->cursor, data, length);
    if (copied == length)
        return (ssize_t)length;
    stats_add(STAT_short_copies, 1);
    copied -= copied % part->view->file->offset_align;
    move_back(part, (int64_t)(length - copied));
    return copied > 0 ? (ssize_t)copied : -EFAULT;
}

ssize_t part_finish(const struct part *part, struct extent *pages, ssize_t result)
{
    int error = file_has_map(part->view->file) ? verify_pages(part, pages, result) : 0;
    stats_add(STAT_bytes_bounced, (uint64_t)result);
    if (error == 0)
        return copy_out(part, pages->base, (size_t)result);
    move_back(part, result);
    return error;
}

bool part_read_again(const struct part *part, ssize_t *told)
{
    struct active_pages pages;
    *told = active_take(&pages, part_pages(part), is_nowait(part));
    if (*told != 0)
        return true;
    *told = issue_read(part->view->fd, pages.extent.base, part->length, part->offset, part->transfer->flags);
    const bool reached = fd_view_is_current(part->view);
    if (reached && *told > 0)
        *told = part_finish(part, &pages.extent, *told);
    active_give(&pages);
    return reached;
}

ssize_t part_verify_end(const struct part *part, ssize_t told)
{
    int64_t end = landed_at(part, told) + told;
    if (end < 0 || !is_certain(part))
        return told;
    int error = missing_verify(part->view, end, end + (int64_t)(part->length - (size_t)told), is_nowait(part));
    if (error != 0)
        move_back(part, told);
    return error != 0 ? error : told;
}
