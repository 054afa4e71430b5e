/* Owns nothing. */
#include "engine/look.h"

#include "checksum/session.h"
#include "checksum/window.h"
#include "engine/issue.h"
#include "engine/recover.h"
#include "engine/report.h"
#include "engine/sweep.h"

int64_t look_modified(const struct fd_view *view)
{
    int64_t modified = issue_file_modified(view->fd);
    return fd_view_is_current(view) ? modified : WINDOW_CANNOT_TELL;
}

/* A long pause in our own writing: was somebody else at the file? */
static void look_outside(const struct fd_view *view)
{
    bool first;
    if (window_is_stale(&view->file->map, window_now()) &&
        window_changed_outside(&view->file->map, look_modified(view), FLIGHT_BEYOND, &first) && first)
        report_changed_outside(view->fd);
}

void look_before_change(const struct fd_view *view)
{
    if (recover_is_due(view->file))
        recover(view);
    look_outside(view);
}

static __attribute__((noinline)) int64_t look_and_sweep(const struct fd_view *view)
{
    look_before_change(view);
    if (sweep_is_due(view->file, window_now()))
        sweep_file(view, false);
    return window_now();
}

int64_t look_before_write(const struct fd_view *view)
{
    const struct file *file = view->file;
    int64_t now = window_now();
    if (recover_is_due(file) || window_is_stale(&file->map, now) || sweep_is_due(file, now))
        return look_and_sweep(view);
    return now;
}
