/*
 * Space and dirty regions of maps that nobody uses.
 *
 * A unit is given back when none of its blocks has a checksum and nobody is writing any: nothing is lost. What is known of blocks beyond the end
 * of file stays, because it shows that the file was cut off behind the shim; only when the file was changed outside is it of no use.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/map_turn.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/settle.h"
#include "checksum/store.h"
#include "checksum/window.h"
#include "cli/cli.h"
#include "cli/gc.h"
#include "engine/recover.h"
#include "files/descriptor.h"

static bool says_nothing(const struct block_words *words, bool beyond)
{
    for (unsigned i = 0; i < UNIT_BLOCKS; i++) {
        uint64_t current = atomic_load_explicit(&words[i].current, memory_order_relaxed);
        uint64_t pending = atomic_load_explicit(&words[i].pending, memory_order_relaxed);
        if (pending != WORD_IDLE || (current != WORD_UNKNOWN && !beyond))
            return false;
    }
    return true;
}

/* Units of a region that can go, as bits of the region word. `end`: blocks from there on are forgotten whatever is known of them. */
static uint64_t idle_units(const struct map *map, uint64_t region, uint64_t end)
{
    uint64_t bits = 0, run;
    for (unsigned unit = 0; unit < UNITS_PER_REGION; unit++) {
        uint64_t first = region * REGION_BLOCKS + unit * UNIT_BLOCKS;
        const struct block_words *words = map_words(map, first, &run);
        if (words && says_nothing(words, first >= end))
            bits |= REGION_UNIT(unit);
    }
    return bits;
}

static void forget_unit(const struct map *map, uint64_t first)
{
    uint64_t run;
    struct block_words *words = map_words(map, first, &run);
    for (unsigned i = 0; words && i < UNIT_BLOCKS; i++)
        if (atomic_load_explicit(&words[i].current, memory_order_relaxed) != WORD_UNKNOWN)
            atomic_store_explicit(&words[i].current, WORD_UNKNOWN, memory_order_relaxed);
}

/*
 * In whatever order this reaches the disk: a unit that is said to be there but is not reads as unknown. One that is there but not said to be holds
 * nothing but unknown blocks in a clean region; in a DIRTY one it is emptied after a power cut (region_enter_boot).
 */
static void punch(const struct map *map, int file, uint64_t region, uint64_t bits)
{
    unsigned window = window_of_region(region);
    uint64_t words =
        window_offset(window) + window_state_bytes(window) + (region - window_first_region(window)) * REGION_WORD_BYTES;
    for (unsigned unit = 0; unit < UNITS_PER_REGION; unit++)
        if (bits & REGION_UNIT(unit))
            forget_unit(map, region * REGION_BLOCKS + unit * UNIT_BLOCKS);
    atomic_fetch_and(map_region_word(map, region), ~bits);
    for (unsigned unit = 0; unit < UNITS_PER_REGION; unit++)
        if (bits & REGION_UNIT(unit))
            fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(words + unit * (uint64_t)UNIT_BYTES),
                      UNIT_BYTES);
}

/* One region, in the map's turn and while nobody else uses the map: map_remove.h says why that is enough. @return whether to go on. */
static bool trim_region(const struct map *map, int file, uint64_t region, uint64_t end, bool *trimmed)
{
    uint64_t saved;
    process_lock(&saved);
    bool alone = map_turn_try(map->id) == 0;
    if (alone) {
        alone = !session_others_use_map(map->id);
        uint64_t bits = alone ? idle_units(map, region, end) : 0;
        /* Words of failed memory say nothing, but that is not the map's word. */
        if (bits && map_is_usable(map)) {
            punch(map, file, region, bits);
            *trimmed = true;
        }
        map_turn_end(map->id);
    }
    process_unlock(&saved);
    return alone;
}

static uint64_t disk_bytes(int file)
{
    struct stat status;
    return fstat(file, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

/* @return false when the map cannot be flushed: then nothing of it may be said to be clean. */
static bool trim(struct gc *gc, struct map *map, const struct map_view *view, uint64_t end)
{
    int file = openat(store_maps_directory(), map->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool trimmed = false;
    if (file < 0)
        return false;
    uint64_t before = disk_bytes(file), regions = region_count(map);
    for (uint64_t region = 0; region < regions; region++) {
        if (!idle_units(map, region, end))
            continue;
        if (end != UINT64_MAX) /* known blocks go */
            region_make_durable(map, region * REGION_BLOCKS, REGION_BLOCKS);
        if (!trim_region(map, file, region, end, &trimmed))
            break;
    }
    /* Before any region is said to be clean. */
    bool synced = fsync(file) == 0;
    uint64_t after = disk_bytes(file);
    close(file);
    if (!synced)
        gc->status = cli_error("cannot flush map \"%s\": %s", map->name, strerror(errno));
    if (trimmed) {
        gc->trimmed++;
        gc->bytes += before > after ? before - after : 0;
        gc_tell(gc, "made smaller", view);
    }
    return synced;
}

static uint64_t count_dirty(const struct map *map)
{
    uint64_t dirty = 0, regions = region_count(map);
    for (uint64_t region = 0; region < regions; region++)
        dirty += (atomic_load(map_region_word(map, region)) & REGION_DIRTY) != 0;
    return dirty;
}

/* Take DIRTY off regions with nothing in flight, by a flush of the file. */
static void sweep(struct gc *gc, struct map *map, const struct map_view *view, int fd)
{
    struct region_sweep regions;
    uint64_t before = count_dirty(map), cursor = 0;
    if (before == 0)
        return;
    while (region_sweep_open(&regions, map, &cursor, true) > 0) {
        bool flushed = fsync(fd) == 0;
        if (!flushed)
            gc->status =
                cli_error("cannot flush a file, so its map \"%s\" stays dirty: %s", map->name, strerror(errno));
        region_sweep_close(&regions, flushed);
    }
    uint64_t after = count_dirty(map);
    gc->regions_dirty += after;
    gc->regions_cleared += before - after;
    if (after < before)
        gc_tell(gc, "marked clean", view);
}

/* As a user of the map, like any other: settle what the dead have left on it, give space back, mark clean. `fd`: open for reading. */
static void tidy(struct gc *gc, const struct map_view *view, int fd)
{
    struct map_key key;
    struct stat status;
    uint64_t saved;
    bool first;
    if (map_key_of(fd, &key) != 0 || fstat(fd, &status) != 0)
        return;
    process_lock(&saved);
    struct file *file = file_open(fd, &status, false);
    process_unlock(&saved);
    if (!file)
        return;
    if (file_has_map(file)) { /* else removed meanwhile, or bound to another mount: said when it was opened */
        const struct fd_view reach = {.state = FD_DIRECT, .fd = fd, .flags = FD_READABLE, .file = file};
        if (recover_is_due(file))
            recover(&reach);
        uint64_t end = ((uint64_t)status.st_size + BLOCK_SIZE - 1) / BLOCK_SIZE;
        bool changed = window_changed_outside(&file->map, key.modified, FLIGHT_BEYOND, &first);
        if (trim(gc, &file->map, view, changed ? end : UINT64_MAX))
            sweep(gc, &file->map, view, fd);
    }
    file_release(file);
    process_lock(&saved);
    file_reap();
    process_unlock(&saved);
}

/* What can be seen without being a user: requests of the dead, anything dirty, any unit that could go? */
static bool is_untidy(const struct map_view *view, uint64_t size)
{
    uint64_t regions = window_first_region(map_window_count(&view->map)), run;
    uint64_t end = (size + BLOCK_SIZE - 1) / BLOCK_SIZE;
    if (settle_is_due(&view->map))
        return true;
    for (uint64_t region = 0; region < regions; region++) {
        const _Atomic uint64_t *word = map_region_word(&view->map, region);
        uint64_t state = word ? atomic_load(word) : 0;
        if (state & REGION_DIRTY)
            return true;
        for (unsigned unit = 0; (state & REGION_UNITS) && unit < UNITS_PER_REGION; unit++) {
            uint64_t block = region * REGION_BLOCKS + unit * UNIT_BLOCKS;
            const struct block_words *words = map_view_words(view, block, &run);
            if (words && (block >= end || says_nothing(words, false)))
                return true;
        }
    }
    return false;
}

void gc_space(struct gc *gc, const struct map_view *view, int fd)
{
    char link[32];
    struct stat status;
    if (gc->dry_run || fstat(fd, &status) != 0 || !is_untidy(view, (uint64_t)status.st_size))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int file = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (file < 0)
        file = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return; /* not ours to read: whoever uses it next tidies up */
    tidy(gc, view, file);
    close(file);
}
