/*
 * Mutators around calls. A path is opened by a descriptor of our own first, numbered high, so that the program's next descriptor gets
 * the number it expects.
 */
#include "engine/change.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#include "base/config.h"
#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "checksum/map_unheard.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/store.h"
#include "checksum/window.h"
#include "engine/adopt.h"
#include "engine/decide.h"
#include "engine/issue.h"
#include "engine/landing.h"
#include "engine/look.h"

static void clear(struct change *change)
{
    memset(change, 0, sizeof *change);
    change->probe = -1;
}

static bool has_map(struct change *change)
{
    if (change->view.file && file_has_map(change->view.file))
        return true;
    fd_view_close(&change->view);
    return false;
}

void change_find(struct change *change, int fd)
{
    clear(change);
    if (process_start() && process_owns_tables() && fd_word_state(fd_word(fd)) != FD_PLAIN &&
        fd_view_open(&change->view, fd, false) == 0)
        has_map(change);
}

void change_find_view(struct change *change, struct fd_view *view, enum flight_transport transport)
{
    clear(change);
    change->transport = transport;
    change->view = *view;
    view->file = NULL;
    view->offset = NULL;
    has_map(change);
}

void change_open(struct change *change, int64_t begin, int64_t length)
{
    if (!change->view.file || begin < 0 || length < 0)
        return;
    bool to_end = length > INT64_MAX - BLOCK_SIZE - begin;
    change->begin = begin;
    change->end = to_end ? CHANGE_TO_END : begin + length;
    look_before_change(&change->view);
    mutate_open(&change->mutation, &change->view.file->map, blocks_first(begin),
                to_end ? FLIGHT_TO_END : blocks_count(begin, change->end), change->transport, false);
}

/* The block that the cut goes through: if it is as recorded, its checksum after the cut can be told in advance. */
static void foresee_last_block(struct change *change, int64_t length)
{
    uint64_t run, block = blocks_first(length);
    struct block_words *words = map_words(change->mutation.map, block, &run);
    uint64_t current = words ? atomic_load(&words->current) : WORD_UNKNOWN;
    if (change->probe >= 0 || length % BLOCK_SIZE == 0 || current == WORD_UNKNOWN ||
        pool_take(&change->page, BLOCK_SIZE, false) != 0)
        return;
    char *page = change->page.base;
    if (decide_read_block(&change->view, block, page, false) < 0 || block_sum(page, block) != current)
        return;
    memset(page + length % BLOCK_SIZE, 0, (size_t)(BLOCK_SIZE - length % BLOCK_SIZE));
    change->last_sum = block_sum(page, block);
}

static void open_truncation(struct change *change, int64_t length)
{
    change->begin = length;
    change->end = CHANGE_TO_END;
    look_before_change(&change->view);
    mutate_open(&change->mutation, &change->view.file->map, blocks_first(length), FLIGHT_TO_END, change->transport,
                false);
    foresee_last_block(change, length);
}

void change_open_truncation(struct change *change, int64_t length)
{
    if (change->view.file && length >= 0)
        open_truncation(change, length);
}

void change_open_allocation(struct change *change, int mode, int64_t offset, int64_t length)
{
    const bool shifts = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE);
    /* It reserves space, or lengthens the file with zeros: content stays, and the file's times move. */
    change->only_allocates = (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_UNSHARE_RANGE)) == 0;
    if (!change->only_allocates)
        change_open(change, offset, shifts ? CHANGE_TO_END : length);
    else if (change->view.file)
        look_before_change(&change->view);
}

/* Might this process's store have a map for some file at all? */
static bool store_has_maps(void)
{
    return process_start() && process_owns_tables() && store_prepare() &&
           atomic_load(&store_shared()->map_generation) > 0;
}

/* The file object of an O_PATH descriptor, if the file has a map. */
static struct file *find_by_probe(int probe, const struct stat *status)
{
    struct map_key key;
    uint64_t saved;
    if (map_key_of(probe, &key) != 0)
        return NULL;
    process_lock(&saved);
    struct file *file = map_exists(&key) ? file_open(probe, status, false) : NULL;
    if (file)
        file_will_be_written(file, probe);
    process_unlock(&saved);
    if (file && !file_has_map(file)) {
        file_release(file);
        file = NULL;
    }
    return file;
}

/* An O_PATH descriptor: closing another kind would release the POSIX locks that the program holds on the file. */
static bool open_probe(struct change *change, int directory, const char *path, int flags)
{
    struct stat status;
    clear(change);
    if (!store_has_maps() || !path)
        return false;
    long fd = raw(SYS_openat, directory, path, O_PATH | O_CLOEXEC | ((flags & AT_SYMLINK_NOFOLLOW) ? O_NOFOLLOW : 0));
    if (raw_failed(fd))
        return false;
    int probe = own_raise((int)fd);
    if (probe < 0)
        return false;
    if (fstat(probe, &status) == 0 && S_ISREG(status.st_mode))
        change->view = (struct fd_view){.fd = probe, .file = find_by_probe(probe, &status)};
    if (change->view.file)
        change->probe = probe;
    else
        raw(SYS_close, probe);
    return change->view.file != NULL;
}

void change_open_path_truncation(struct change *change, int directory, const char *path, int64_t length)
{
    if (open_probe(change, directory, path, 0) && length >= 0)
        open_truncation(change, length);
}

/* Nothing of the old content is left, and nothing of what was doubted. */
static void end_doubts(struct map *map, int64_t length)
{
    if (length != 0 || map_is_unheard(map))
        return;
    atomic_fetch_and(&map->header->flags, ~MAP_CHANGED_OUTSIDE);
    for (uint64_t region = 0; region < region_count(map); region++)
        region_trust(map, region);
}

/*
 * Is an append under way that was announced before the cut? It lands at the new end of the file, and has announced what is behind the old one.
 * Those announced from now on know where the file ends (landing.c).
 */
static bool append_is_under_way(const struct map *map)
{
    return flight_any_in(map->id, FLIGHT_TO_END - 1, 1);
}

void change_close(struct change *change, bool changed)
{
    if (!change->view.file)
        return;
    struct map *map = change->mutation.map;
    fd_view_renew(&change->view, false);
    if (map) {
        bool truncation = change->end == CHANGE_TO_END;
        /* A hole punched where a hole was, on btrfs, moves no times. */
        change->mutation.times_kept = issue_file_modified(change->view.fd) < change->mutation.issued;
        mutate_close(&change->mutation, blocks_first(change->begin),
                     !changed     ? 0
                     : truncation ? FLIGHT_TO_END
                                  : blocks_count(change->begin, change->end));
        if (changed && change->last_sum != WORD_UNKNOWN && change->view.fd >= 0 && !append_is_under_way(map))
            adopt_blocks(&(struct adoption){.view = &change->view, .room = change->page.base, .trust = true},
                         blocks_first(change->begin), 1, &change->last_sum);
        if (changed && truncation)
            end_doubts(map, change->begin);
    }
    pool_give(&change->page);
    fd_view_close(&change->view);
    if (change->probe >= 0)
        raw(SYS_close, change->probe);
}

void change_close_allocation(struct change *change, int result)
{
    if (!change->only_allocates)
        change_close(change, result != -EOPNOTSUPP && result != -EBADF && result != -EINVAL);
    else if (change->view.file && result == 0 && fd_view_renew(&change->view, false))
        window_move(&change->view.file->map, issue_file_modified(change->view.fd));
    fd_view_close(&change->view);
}

void change_look(int fd)
{
    struct change change;
    int error = errno;
    change_find(&change, fd);
    if (change.view.file) {
        look_before_change(&change.view);
        fd_view_close(&change.view);
    }
    errno = error;
}

void change_path_look(int directory, const char *path, int flags)
{
    struct change change;
    int error = errno;
    if (open_probe(&change, directory, path, flags & AT_SYMLINK_NOFOLLOW)) {
        look_before_change(&change.view);
        change_close(&change, false);
    }
    errno = error;
}

void change_times(int fd)
{
    struct change change;
    change_find(&change, fd);
    if (change.view.file) {
        window_move(&change.view.file->map, issue_file_modified(fd));
        fd_view_close(&change.view);
    }
}

void change_path_times(int directory, const char *path, int flags)
{
    struct change change;
    if (open_probe(&change, directory, path, flags & AT_SYMLINK_NOFOLLOW)) {
        window_move(&change.view.file->map, issue_file_modified(change.probe));
        change_close(&change, false);
    }
}
