/*
 * Where does a write land that nobody can announce? Bounds before, bounds after.
 */
#include "engine/landing.h"

#include "checksum/session.h"
#include "engine/issue.h"
#include "engine/look.h"
#include "engine/transfer.h"

bool landing_appends(const struct fd_view *view, int flags)
{
    return ((view->flags & FD_APPEND) && !(flags & RWF_NOAPPEND)) || (flags & RWF_APPEND);
}

/* The file's size; negative when the view's number does not, or no longer, lead there. */
static int64_t size_of(const struct fd_view *view)
{
    int64_t size = issue_file_size(view->fd);
    return fd_view_is_current(view) ? size : -1;
}

/* From the block that holds the end of the file. The file may be truncated until the range is entered, so look again. */
static int open_at_end(struct landing *landing, const struct fd_view *view, bool nowait)
{
    struct map *map = &view->file->map;
    int error = 0;
    for (int attempt = 0; attempt < 4; attempt++) {
        int64_t size = size_of(view);
        landing->offset = size < 0 || attempt == 3 ? 0 : size;
        error = mutate_open(&landing->mutation, map, blocks_first(landing->offset), FLIGHT_TO_END, landing->transport,
                            nowait);
        if (error != 0 || landing->offset == 0 || size_of(view) >= landing->offset)
            break;
        mutate_close(&landing->mutation, 0, 0);
    }
    return error;
}

int landing_open(struct landing *landing, const struct fd_view *view, const struct landing_plan *plan)
{
    struct map *map = &view->file->map;
    *landing = (struct landing){.fd = view->fd,
                                .append = plan->append,
                                .transport = plan->transport,
                                .use = plan->use,
                                .asked = plan->offset,
                                .offset = plan->offset,
                                .length = plan->length};
    if (!file_has_map(view->file))
        return 0;
    if (!plan->nowait)
        look_before_change(view);
    if (plan->append)
        return open_at_end(landing, view, plan->nowait);
    bool unknown = plan->offset == TRANSFER_FILE_OFFSET;
    int error = mutate_open(&landing->mutation, map, unknown ? 0 : blocks_first(plan->offset),
                            unknown ? FLIGHT_TO_END : blocks_count(plan->offset, plan->offset + (int64_t)plan->length),
                            plan->transport, plan->nowait);
    if (unknown && error == 0)
        landing->offset = issue_file_offset(view->fd);
    return error;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void landing_close(struct landing *landing, ssize_t result, int flags)
{
    if (!landing->mutation.map)
        return;
    int64_t begin = landing->offset;
    int64_t end = begin + (result < 0 ? (int64_t)landing->length : (int64_t)result);
    if (issue_wrote_nothing(result, flags, landing->length)) {
        end = begin;
    } else if (landing->append) {
        /* Other appends in flight land behind this one, or before it. */
        int64_t size = landing->transport == TRANSPORT_BLOCKING ? issue_file_size(landing->fd) : -1;
        end = size < 0 ? INT64_MAX : larger(end, size);
    } else if (landing->asked == TRANSFER_FILE_OFFSET) {
        /* As long as the offset only moved forward, the bytes are between where it was and where it is. */
        int64_t now = issue_file_offset(landing->fd);
        bool forward = begin >= 0 && now >= begin + (result > 0 ? result : 0) &&
                       !(landing->use && offset_was_sought(landing->use));
        end = forward ? now + (result < 0 ? (int64_t)landing->length : 0) : INT64_MAX;
        begin = forward ? begin : 0;
    }
    landing->mutation.times_kept = result < 0; /* or may be: see chunk_complete */
    mutate_close(&landing->mutation, blocks_first(begin), blocks_count(begin, end));
}
