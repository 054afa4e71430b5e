/*
 * When to sweep, and the flush. Owns nothing.
 */
#include "engine/sweep.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "checksum/session.h"
#include "checksum/window.h"

/* Seconds between sweeps: regions are cleared by the second sweep that finds them unwritten since the first. */
enum { AFTER_SYNC = 5, UNASKED = 30 };

/* Has a flush of ours ever failed? Then each of the program's looks whether it is to be told. */
static _Atomic bool anything_unsaid;

/* Is the last sweep of the file that long ago? */
static bool is_time(const struct file *file, int seconds, int64_t now)
{
    int64_t interval =
        config.test_sweep_ms > 0 ? (int64_t)config.test_sweep_ms * INT64_C(1000000) : seconds * INT64_C(1000000000);
    int64_t since = now - atomic_load_explicit(&file->swept, memory_order_relaxed);
    return since >= interval || since < 0;
}

static bool has_dirty(const struct file *file)
{
    return file_has_map(file) && atomic_load_explicit(&file->map.dirtied, memory_order_relaxed);
}

void sweep_open_view(struct sweep *sweep, struct fd_view *view)
{
    *sweep = (struct sweep){.view = *view};
    struct file *file = view->file;
    view->file = NULL;
    view->offset = NULL;
    if (file && has_dirty(file) && is_time(file, AFTER_SYNC, window_now())) {
        atomic_store(&file->swept, window_now());
        if (region_sweep_open(&sweep->regions, &file->map, &sweep->cursor, false) > 0)
            return;
    }
    fd_view_close(&sweep->view);
}

void sweep_open(struct sweep *sweep, int fd)
{
    struct fd_view view;
    *sweep = (struct sweep){0};
    const unsigned ours = FD_STATES(FD_DIRECT) | FD_STATES(FD_WATCHED);
    if (process_start() && process_owns_tables() && (ours >> fd_word_state(fd_word(fd)) & 1) &&
        fd_view_open(&view, fd, false) == 0)
        sweep_open_view(sweep, &view);
}

/* The kernel tells of a failed flush once, and this time it is not the program that asked. @return whether all went well. */
static bool flush(const struct sweep *sweep)
{
    long error = raw(SYS_fsync, sweep->view.fd);
    if (!raw_failed(error))
        return true;
    atomic_store(&sweep->view.file->unsaid, (int)-error);
    atomic_store(&anything_unsaid, true);
    return false;
}

int sweep_unsaid_of(struct file *file)
{
    return atomic_load_explicit(&anything_unsaid, memory_order_relaxed) ? atomic_exchange(&file->unsaid, 0) : 0;
}

int sweep_unsaid(int fd)
{
    struct fd_view view;
    if (!atomic_load_explicit(&anything_unsaid, memory_order_relaxed) || !process_owns_tables() ||
        fd_view_open(&view, fd, false) != 0)
        return 0;
    int error = view.file ? sweep_unsaid_of(view.file) : 0;
    fd_view_close(&view);
    return error;
}

/* The regions beyond the first REGION_SWEEP, with flushes of our own: the first one has left little to flush. */
static void sweep_rest(struct sweep *sweep)
{
    struct map *map = &sweep->view.file->map;
    while (region_sweep_open(&sweep->regions, map, &sweep->cursor, sweep->all) > 0)
        region_sweep_close(&sweep->regions, flush(sweep));
    /* First said, then looked: whoever makes a region DIRTY says so before. */
    atomic_store(&map->dirtied, false);
    if (region_any_dirty(map))
        atomic_store(&map->dirtied, true);
}

void sweep_close(struct sweep *sweep, bool synced)
{
    if (!sweep_is_open(sweep))
        return;
    region_sweep_close(&sweep->regions, synced);
    if (synced)
        sweep_rest(sweep);
    fd_view_close(&sweep->view);
}

void sweep_close_briefly(struct sweep *sweep, bool synced)
{
    if (!sweep_is_open(sweep))
        return;
    region_sweep_close(&sweep->regions, synced);
    fd_view_close(&sweep->view);
}

bool sweep_is_due(const struct file *file, int64_t now)
{
    return has_dirty(file) && is_time(file, UNASKED, now);
}

__attribute__((noinline)) void sweep_file(const struct fd_view *view, bool all)
{
    struct sweep sweep = {.view = *view, .all = all};
    atomic_store(&view->file->swept, window_now());
    sweep_rest(&sweep);
}

/*
 * Sweeps at close are rationed: a tenth of the time, and two seconds of it in advance. A program that closes a few files has them all swept,
 * one that writes thousands does not wait for the disk with each of them. Relaxed: two threads that sweep at once may both be let.
 */
static _Atomic int64_t paid_until; /* nanoseconds of CLOCK_MONOTONIC */

enum { RATION = 10 };
#define IN_ADVANCE (INT64_C(2000000000) * RATION)

static int64_t monotonic_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void sweep_rationed(const struct fd_view *view)
{
    int64_t begin = monotonic_now(), paid = atomic_load_explicit(&paid_until, memory_order_relaxed);
    if (paid > begin)
        return;
    sweep_file(view, true);
    int64_t from = paid > begin - IN_ADVANCE ? paid : begin - IN_ADVANCE;
    atomic_store_explicit(&paid_until, from + (monotonic_now() - begin) * RATION, memory_order_relaxed);
}

/* A file without a name needs no checksums any more. */
static bool has_name(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_nlink > 0;
}

void sweep_at_close(int fd)
{
    struct fd_view view;
    if (!process_owns_tables() || fd_view_open(&view, fd, false) != 0)
        return;
    /* The entry's reference and ours: this is the file's last descriptor here. Another session that uses the map sweeps it. */
    if (view.file && has_dirty(view.file) && atomic_load(&view.file->references) <= 2 && has_name(fd) &&
        !session_others_use_map(view.file->map.id))
        sweep_rationed(&view);
    fd_view_close(&view);
}
