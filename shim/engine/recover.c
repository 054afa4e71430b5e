/*
 * How a settler reaches the file. Owns nothing.
 */
#include "engine/recover.h"

#include <errno.h>
#include <fcntl.h>

#include "base/raw.h"
#include "checksum/settle.h"
#include "checksum/window.h"
#include "engine/active.h"
#include "engine/decide.h"
#include "engine/look.h"

enum { LOOK_AGAIN_AFTER = 100 * 1000 * 1000 }; /* nanoseconds */

struct reach {
    struct settle_file file;
    const struct fd_view *view;
    char *page;
};

static const struct reach *reach_of(const struct settle_file *file)
{
    return (const struct reach *)file;
}

static uint64_t sum_of(const struct settle_file *file, uint64_t block)
{
    const struct reach *reach = reach_of(file);
    return decide_read_block(reach->view, block, reach->page, false) < 0 ? WORD_UNKNOWN : block_sum(reach->page, block);
}

/*
 * Seen to wait for direct I/O in flight on XFS, ext4 and btrfs; not so truncation to the same size (ext4), nor punching beyond the end of the
 * file (btrfs).
 */
static bool wait_for_direct_io(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    const struct fd_view *view = reach_of(file)->view;
    return (view->flags & FD_WRITABLE) && blocks < FLIGHT_TO_END &&
           raw(SYS_fallocate, view->fd, FALLOC_FL_KEEP_SIZE, first * BLOCK_SIZE, blocks * BLOCK_SIZE) == 0;
}

static int64_t modified_of(const struct settle_file *file)
{
    return look_modified(reach_of(file)->view);
}

static void settle(const struct fd_view *view)
{
    struct active_pages page;
    if (active_take(&page, BLOCK_SIZE, false) != 0)
        return;
    const struct reach reach = {
        .file = {.sum = sum_of, .barrier = wait_for_direct_io, .modified = modified_of},
        .view = view,
        .page = page.extent.base,
    };
    /* A descriptor that nothing can be read by: somebody else's turn. */
    if (sum_of(&reach.file, 0) != WORD_UNKNOWN)
        settle_map(&view->file->map, &reach.file);
    active_give(&page);
}

void recover_now(const struct fd_view *view)
{
    struct map *map = &view->file->map;
    if (!settle_is_due(map))
        return;
    settle(view);
    atomic_store(&map->settle_due, settle_is_due(map));
}

bool recover_before_report(const struct fd_view *view)
{
    if (!settle_is_due(&view->file->map))
        return false;
    settle(view);
    return true;
}

__attribute__((noinline)) void recover(const struct fd_view *view)
{
    struct map *map = &view->file->map;
    int64_t now = window_now(), last = atomic_load(&view->file->looked_for_dead);
    if (now - last < LOOK_AGAIN_AFTER && now >= last)
        return;
    if (!atomic_compare_exchange_strong(&view->file->looked_for_dead, &last, now))
        return;
    atomic_store(&map->met, false);
    bool due = settle_is_due(map);
    atomic_store(&map->settle_due, due);
    if (!due)
        return;
    settle(view);
    atomic_store(&map->settle_due, settle_is_due(map));
}
