/*
 * The map of one inode: its file of checksums, mapped into memory.
 *
 * map_open, map_close and map_cover are slow paths, called with the process lock held; they may make system calls on
 * the store, never on the program's files (but for the identity). The rest is lock-free and async-signal-safe.
 */
#ifndef BOUNCEIO_CHECKSUM_MAP_H
#define BOUNCEIO_CHECKSUM_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "checksum/format.h"

enum { MAP_NAME_BYTES = 96 };

/* Which inode: what a map is named after and bound to. */
struct map_key {
    uint8_t filesystem[16];
    uint64_t inode;
    int64_t birth_seconds;
    uint32_t birth_nanoseconds;
    uint64_t
        generation;   /* tells apart files that had the same inode number one after the other, and in two subvolumes */
    uint64_t device;  /* st_dev */
    int64_t modified; /* mtime, nanoseconds of CLOCK_REALTIME */
};

struct map {
    struct map_header *header; /* NULL: no map; constant while the file is open */
    uint64_t id;
    _Atomic(char *) windows[MAP_WINDOWS];
    _Atomic bool broken;      /* its memory or its name can no longer be trusted: as if there were none */
    _Atomic bool cannot_grow; /* the store is full: blocks without a unit stay unknown */
    _Atomic bool header_synced;
    _Atomic bool dirtied;    /* this process has made regions DIRTY, or found some: there is something to sweep */
    _Atomic bool settle_due; /* requests of dead sessions may be waiting (settle.h) */
    _Atomic bool met;        /* somebody else's request was met on a block: is it a dead session's? */
    uint64_t file_device;    /* of the map's own file */
    uint64_t file_inode;
    char name[MAP_NAME_BYTES]; /* in the store's maps directory */
};

/*
 * The key of the file behind a descriptor (O_PATH will do). @return 0, or -errno (-ENOTSUP when it is not a regular file).
 * Any thread; async-signal-safe; no lock needed.
 */
int map_key_of(int fd, struct map_key *key);

/* map_key.filesystem of what lies below a directory, which must be open for reading. @return 0 or -errno. */
int map_filesystem_of(int directory, uint8_t id[16]);

/* map_identity.machine of this machine. */
void map_machine_id(uint8_t id[16]);

/* The name of its map in the store's maps directory. */
void map_name(char name[MAP_NAME_BYTES], const struct map_key *key);

/* What map_header.identity_sum must be. */
uint64_t map_identity_sum(const struct map_identity *identity);

/* Is there a map of that name in the store? Opens the store, never creates it. Process lock held. */
bool map_exists(const struct map_key *key);

/*
 * Open the map of `key`, creating it when `create`; opens this process's session. Process lock held.
 * @return 0; -ENOENT when there is none and !create; another -errno when there can be none (said once). *map is all zero then.
 */
int map_open(struct map *map, const struct map_key *key, bool create);

/* Unmap. `gone`: the inode has no name left and this was its last user here, so its map is removed as well. Process lock held. */
void map_close(struct map *map, bool gone);

/*
 * Make block words for [first, first + blocks): allocate units on disk, add windows. Process lock held.
 * @return 0; -errno when not all of them could be made: those stay unknown (a full store is said once).
 */
int map_cover(struct map *map, uint64_t first, uint64_t blocks);

/* The map's memory or disk failed: no checksums from now on in this process, and what is recorded is doubtful. Said once. */
void map_break(struct map *map, int error);

/* May checksums of this map be used at all? */
static inline bool map_is_usable(const struct map *map)
{
    return map->header && !atomic_load_explicit(&map->broken, memory_order_relaxed);
}

static inline _Atomic uint64_t *map_region_word(const struct map *map, uint64_t region)
{
    if (region >= (UINT64_C(1) << MAP_WINDOWS) - 1)
        return NULL;
    unsigned window = window_of_region(region);
    /* Acquire: pairs with the release that attaches the window. */
    char *base = atomic_load_explicit(&map->windows[window], memory_order_acquire);
    return base ? (_Atomic uint64_t *)base + (region - window_first_region(window)) : NULL;
}

/*
 * The words of a block, or NULL when no unit covers it (it is unknown). *run receives how many blocks from here on are in the
 * same unit, where their words follow each other, or how many are known to have no words either.
 */
static inline struct block_words *map_words(const struct map *map, uint64_t block, uint64_t *run)
{
    uint64_t region = block / REGION_BLOCKS;
    unsigned unit = (unsigned)(block % REGION_BLOCKS / UNIT_BLOCKS);
    *run = UNIT_BLOCKS - block % UNIT_BLOCKS;
    _Atomic uint64_t *word = map_region_word(map, region);
    /* Acquire: the unit was allocated before its bit was set. */
    uint64_t state = word ? atomic_load_explicit(word, memory_order_acquire) : 0;
    if (!(state & REGION_UNIT(unit))) {
        if (!(state & REGION_UNITS))
            *run = REGION_BLOCKS - block % REGION_BLOCKS;
        return NULL;
    }
    unsigned window = window_of_region(region);
    char *base = atomic_load_explicit(&map->windows[window], memory_order_relaxed);
    char *words = base + window_state_bytes(window) + (region - window_first_region(window)) * REGION_WORD_BYTES;
    return (struct block_words *)words + block % REGION_BLOCKS;
}

/* Are there words for every block of the range? Then map_cover has nothing to do. */
bool map_covers(const struct map *map, uint64_t first, uint64_t blocks);

/* How many windows the map's file has; what another process may have written there is not believed. 1 .. MAP_WINDOWS. */
static inline unsigned map_window_count(const struct map *map)
{
    uint64_t count = atomic_load_explicit(&map->header->windows, memory_order_relaxed);
    return count < 1 ? 1 : count < MAP_WINDOWS ? (unsigned)count : MAP_WINDOWS;
}

/*
 * The end of [first, first + blocks) among the blocks that can have words here, whatever the numbers: those of an in-flight entry that
 * another process has left are not believed.
 */
static inline uint64_t map_range_end(const struct map *map, uint64_t first, uint64_t blocks)
{
    unsigned window = 0;
    while (window < MAP_WINDOWS && atomic_load_explicit(&map->windows[window], memory_order_acquire))
        window++;
    uint64_t reach = window_first_region(window) * REGION_BLOCKS;
    return first < reach && blocks < reach - first ? first + blocks : reach;
}

/* Has another session added a window that this process has not mapped? Its blocks look unknown until map_refresh. */
static inline bool map_is_behind(const struct map *map)
{
    return !atomic_load_explicit(&map->windows[map_window_count(map) - 1], memory_order_relaxed);
}

/* Map what other sessions have added. Takes the process lock; a slow path, never under NOWAIT. */
void map_refresh(struct map *map);

#endif
