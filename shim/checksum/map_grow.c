/*
 * Growth of a map: windows and units are allocated on disk before they are touched, so that a full store is an error of fallocate
 * and not a SIGBUS.
 */
#include "checksum/map_grow.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/process.h"
#include "base/raw.h"
#include "checksum/map_turn.h"
#include "checksum/mapping.h"
#include "checksum/region.h"
#include "checksum/store.h"

static uint64_t file_size(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

static int attach_window(struct map *map, int fd, unsigned window)
{
    if (atomic_load_explicit(&map->windows[window], memory_order_relaxed))
        return 0;
    long base = mapping_make(fd, window_offset(window), window_bytes(window), map);
    if (raw_failed(base))
        return (int)base;
    /* Release: pairs with the acquire in map_region_word. */
    atomic_store_explicit(&map->windows[window], (char *)base, memory_order_release);
    return 0;
}

/* Drop a unit that ends at `end`, unless the file reaches that far by now: who grows a map allocates first and then sets the bit. */
static void drop_unit_beyond(int fd, _Atomic uint64_t *state, unsigned unit, uint64_t end)
{
    if ((atomic_load(state) & REGION_UNIT(unit)) && file_size(fd) < end)
        atomic_fetch_and(state, ~REGION_UNIT(unit));
}

/* A unit whose bit is set but which the file does not reach would be a SIGBUS: possible only after an unclean stop. */
static void drop_units_beyond(struct map *map, int fd, unsigned window)
{
    uint64_t size = file_size(fd);
    uint64_t words = window_offset(window) + window_state_bytes(window);
    _Atomic uint64_t *states = (_Atomic uint64_t *)atomic_load(&map->windows[window]);
    uint64_t whole = size > words ? (size - words) / REGION_WORD_BYTES : 0;
    for (uint64_t region = whole; region < UINT64_C(1) << window; region++) {
        if (!(atomic_load_explicit(&states[region], memory_order_relaxed) & REGION_UNITS))
            continue;
        for (unsigned unit = 0; unit < UNITS_PER_REGION; unit++) {
            uint64_t end = words + region * REGION_WORD_BYTES + (unit + 1) * (uint64_t)UNIT_BYTES;
            if (end > size)
                drop_unit_beyond(fd, &states[region], unit, end);
        }
    }
}

int map_attach_windows(struct map *map, int fd)
{
    unsigned count = map_window_count(map);
    for (unsigned window = 0; window < count; window++) {
        if (file_size(fd) < window_offset(window) + window_state_bytes(window))
            return -EINVAL;
        int error = attach_window(map, fd, window);
        if (error != 0)
            return error;
        drop_units_beyond(map, fd, window);
    }
    return 0;
}

void map_detach_windows(struct map *map)
{
    for (unsigned window = 1; window < MAP_WINDOWS; window++) {
        char *base = atomic_load(&map->windows[window]);
        if (base)
            mapping_unmake(base, window_bytes(window));
        atomic_store(&map->windows[window], NULL);
    }
}

/* Open the map's file again: its descriptor was closed after mapping. */
static int reopen(struct map *map)
{
    int maps = store_maps_directory();
    if (maps < 0)
        return maps;
    long fd = raw(SYS_openat, maps, map->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (raw_failed(fd))
        return (int)fd;
    struct stat status;
    if (fstat((int)fd, &status) != 0 || status.st_dev != map->file_device || status.st_ino != map->file_inode) {
        raw(SYS_close, fd);
        return -ESTALE;
    }
    return (int)fd;
}

/* The file's size is looked at as well as the count: that may be anything. */
static int add_windows(struct map *map, int fd, unsigned last)
{
    for (unsigned window = 0; window <= last; window++) {
        uint64_t count = atomic_load(&map->header->windows);
        if (window >= count || file_size(fd) < window_offset(window) + window_state_bytes(window)) {
            int error = store_allocate(fd, window_offset(window), window_state_bytes(window));
            if (error != 0)
                return error;
            if (window >= count)
                atomic_compare_exchange_strong(&map->header->windows, &count, window + 1);
        }
        int error = attach_window(map, fd, window);
        if (error != 0)
            return error;
    }
    return 0;
}

static bool has_unit(const struct map *map, uint64_t unit)
{
    _Atomic uint64_t *word = map_region_word(map, unit / UNITS_PER_REGION);
    return word && (atomic_load_explicit(word, memory_order_acquire) & REGION_UNIT(unit % UNITS_PER_REGION));
}

/* Units from `unit` on, in its region, that are wanted and not there: they are neighbours on disk. */
static uint64_t missing_run(const struct map *map, uint64_t unit, uint64_t end)
{
    uint64_t region_end = (unit / UNITS_PER_REGION + 1) * UNITS_PER_REGION;
    uint64_t run = 0;
    while (unit + run < end && unit + run < region_end && !has_unit(map, unit + run))
        run++;
    return run;
}

/* Has every other region DURABLE? Then none is clean, or being cleared, in this boot. */
static bool others_are_durable(const struct map *map, const _Atomic uint64_t *own)
{
    const uint64_t count = region_count(map);
    for (uint64_t region = 0; region < count; region++) {
        const _Atomic uint64_t *word = map_region_word(map, region);
        uint64_t seen = atomic_load(word);
        if (word != own && (seen & REGION_UNITS) && !(seen & REGION_DURABLE))
            return false;
    }
    return true;
}

/*
 * A region that never had a unit becomes DIRTY together with its first one, in one word: whatever of it reaches the disk says both, or
 * nothing. So there is nothing to wait for, and it is as good as DURABLE. Unless another region is clean: that one needs the time window, which
 * is bridged after a power cut only if something on the disk says DIRTY. The look comes after the store, and pairs with the sweeper's
 * "DURABLE off" and the look that follows it.
 */
static void set_units(struct map *map, _Atomic uint64_t *word, uint64_t bits)
{
    const uint64_t first = UINT64_C(1) << REGION_SEQUENCE_SHIFT | REGION_DIRTY;
    uint64_t seen = atomic_load(word);
    /* Release: the allocation is there before the bits say so. */
    while (!atomic_compare_exchange_weak(word, &seen, seen | bits | (seen == 0 ? first : 0)))
        ;
    atomic_store_explicit(&map->dirtied, true, memory_order_relaxed);
    uint64_t fresh = first | bits;
    if (seen == 0 && others_are_durable(map, word))
        atomic_compare_exchange_strong(word, &fresh, fresh | REGION_DURABLE);
}

/* `run` neighbours in one region. In the map's turn: nobody else gives the same ones words. @return 0 or -errno. */
static int add_run(struct map *map, int fd, uint64_t unit, uint64_t run)
{
    uint64_t region = unit / UNITS_PER_REGION, bits = 0;
    unsigned window = window_of_region(region);
    uint64_t words = window_offset(window) + window_state_bytes(window);
    uint64_t offset = words + (region - window_first_region(window)) * REGION_WORD_BYTES +
                      unit % UNITS_PER_REGION * (uint64_t)UNIT_BYTES;
    /* There may be old words, of a unit whose bit never reached the disk. */
    int error = store_allocate_zeros(fd, offset, run * UNIT_BYTES);
    if (error != 0)
        return error;
    for (uint64_t i = 0; i < run; i++)
        bits |= REGION_UNIT(unit % UNITS_PER_REGION + i);
    set_units(map, map_region_word(map, region), bits);
    return 0;
}

static int add_units(struct map *map, int fd, uint64_t unit, uint64_t end)
{
    int error = map_turn_alone(map->id);
    if (error != 0)
        return error;
    while (error == 0 && unit < end) {
        /* First the window: which units are there is not known before. */
        error = add_windows(map, fd, window_of_region(unit / UNITS_PER_REGION));
        uint64_t run = error == 0 ? missing_run(map, unit, end) : 0;
        if (run > 0)
            error = add_run(map, fd, unit, run);
        unit += run + (run == 0);
    }
    map_turn_end(map->id);
    return error;
}

bool map_covers(const struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    for (uint64_t block = first; block < first + blocks; block += run)
        if (!map_words(map, block, &run))
            return false;
    return true;
}

/*
 * How many units beyond `end` to allocate for a sequential writer who has come to `unit`: as many as there are, in the same region, so that
 * a small file's map stays small, and three at most: a map may take 64 KiB more than its blocks' words; or a sixteenth of what is there, 1 MiB
 * at most.
 */
static uint64_t units_ahead(uint64_t unit, uint64_t end)
{
    uint64_t ahead = unit < 3 ? unit : 3, sixteenth = unit / 16 < 64 ? unit / 16 : 64;
    uint64_t in_region = UNITS_PER_REGION - 1 - (end - 1) % UNITS_PER_REGION;
    if (ahead > in_region)
        ahead = in_region;
    return ahead > sixteenth ? ahead : sixteenth;
}

int map_cover(struct map *map, uint64_t first, uint64_t blocks)
{
    if (map_covers(map, first, blocks))
        return 0;
    uint64_t end = first + blocks;
    if (end > MAP_BLOCKS_MAX)
        return -EFBIG; /* such blocks are never covered */
    uint64_t unit = first / UNIT_BLOCKS;
    uint64_t unit_end = (end + UNIT_BLOCKS - 1) / UNIT_BLOCKS;
    uint64_t ahead = unit > 0 && has_unit(map, unit - 1) ? units_ahead(unit, unit_end) : 0;
    if (ahead > MAP_BLOCKS_MAX / UNIT_BLOCKS - unit_end)
        ahead = MAP_BLOCKS_MAX / UNIT_BLOCKS - unit_end;
    int fd = reopen(map);
    int error = fd < 0 ? fd : add_units(map, fd, unit, unit_end + ahead);
    if (ahead > 0 && (error == -ENOSPC || error == -EDQUOT || error == -EFBIG))
        error = add_units(map, fd, unit, unit_end);
    if (fd >= 0)
        raw(SYS_close, fd);
    if (error == -ESTALE || error == -ENOENT)
        atomic_store(&map->broken, true);
    /* -EAGAIN: somebody else is at the map's file; the next write tries again. */
    if (error != 0 && error != -EAGAIN) {
        atomic_store(&map->cannot_grow, true);
        store_complain("cannot extend a map", -error);
    }
    return error;
}

void map_refresh(struct map *map)
{
    if (!map_is_behind(map))
        return;
    uint64_t saved;
    process_lock(&saved);
    int fd = reopen(map);
    if (fd >= 0) {
        map_attach_windows(map, fd);
        raw(SYS_close, fd);
    }
    process_unlock(&saved);
}
