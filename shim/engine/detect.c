/*
 * The comparison is made a page at a time through a bounce page, with the same fault-exact copy that the write was made with.
 */
#include "engine/detect.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <string.h>

#include "base/log.h"
#include "base/stats.h"
#include "engine/active.h"

enum { FRAMES = 32 };

static void log_backtrace(void)
{
    void *frames[FRAMES];
    int count = backtrace(frames, FRAMES);
    /* The first two are ours: this function and the report. */
    for (int i = 2; i < count; i++) {
        Dl_info info;
        if (dladdr(frames[i], &info) && info.dli_fname)
            log_warn("    #%d %s(%s+0x%lx)", i - 2, info.dli_fname, info.dli_sname ? info.dli_sname : "",
                     (unsigned long)((char *)frames[i] -
                                     (info.dli_sname ? (char *)info.dli_saddr : (char *)info.dli_fbase)));
        else
            log_warn("    #%d 0x%lx", i - 2, (unsigned long)frames[i]);
    }
}

static __attribute__((noinline)) void report(const struct fd_view *view, size_t at, size_t length, int64_t offset)
{
    struct file_path path;
    file_path_begin(&path, view->fd);
    stats_add(STAT_unstable_buffers, 1);
    log_warn(
        "buffer changed in flight: path=\"%s\" offset=%lld length=%zu first_difference=%zu, by a write called from",
        path.text, (long long)offset, length, at);
    file_path_end(&path);
    log_backtrace();
}

void detect_change(const struct fd_view *view, struct cursor cursor, const char *data, size_t length, int64_t offset)
{
    struct active_pages page;
    if (active_take(&page, POOL_PAGE, false) != 0)
        return;
    const char *now = page.extent.base;
    for (size_t at = 0; at < length; at += POOL_PAGE) {
        size_t piece = length - at < POOL_PAGE ? length - at : POOL_PAGE;
        if (copy_gather(page.extent.base, &cursor, piece) < piece)
            break;
        if (memcmp(now, data + at, piece) == 0)
            continue;
        size_t same = 0;
        while (now[same] == data[at + same])
            same++;
        report(view, at + same, length, offset);
        break;
    }
    active_give(&page);
}
