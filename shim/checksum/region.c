/*
 * The states of regions. Each step stands as in MAP.md §7 and in the model; change one, run the model again.
 */
#include "checksum/region.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/raw.h"
#include "base/step.h"
#include "checksum/map_grow.h"
#include "checksum/session.h"
#include "checksum/store.h"
#include "checksum/window.h"

#define REGION_SEQUENCE (UINT64_C(1) << REGION_SEQUENCE_SHIFT)

/* Regions marked at most ahead of a sequential writer: 1 GiB of the file. */
enum { AHEAD_MOST = 16 };

uint64_t region_count(const struct map *map)
{
    unsigned window = 0;
    while (window < MAP_WINDOWS && atomic_load_explicit(&map->windows[window], memory_order_acquire))
        window++;
    return window_first_region(window);
}

/* The regions of a range of blocks that have a word: [*first, *end). */
static void regions_of(const struct map *map, uint64_t block, uint64_t blocks, uint64_t *first, uint64_t *end)
{
    uint64_t count = region_count(map);
    *first = block / REGION_BLOCKS;
    *end = blocks == 0 ? *first : (block + blocks - 1) / REGION_BLOCKS + 1;
    if (*end > count)
        *end = count;
}

static bool needs_marking(uint64_t word)
{
    return (word & REGION_UNITS) && !(word & REGION_DURABLE);
}

static bool is_durable(_Atomic uint64_t *word)
{
    STEP("DURABLE?");
    /* Sequentially consistent, after the announcement: pairs with "DURABLE off" and the look that follows it. */
    uint64_t seen = atomic_load(word);
    if (needs_marking(seen))
        return false;
    if ((seen & REGION_DURABLE) && !(seen & REGION_TOUCHED))
        atomic_fetch_or(word, REGION_TOUCHED);
    return true;
}

bool region_are_durable(const struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t region, end;
    /* Nearly always it is one. */
    if (blocks <= REGION_BLOCKS - first % REGION_BLOCKS) {
        _Atomic uint64_t *word = blocks > 0 ? map_region_word(map, first / REGION_BLOCKS) : NULL;
        return !word || is_durable(word);
    }
    for (regions_of(map, first, blocks, &region, &end); region < end; region++)
        if (!is_durable(map_region_word(map, region)))
            return false;
    return true;
}

/* Set DIRTY, with the next sequence number. @return the word as it is now. */
static uint64_t set_dirty(_Atomic uint64_t *word, uint64_t touched)
{
    uint64_t seen = atomic_load(word), dirty;
    STEP("set DIRTY");
    do
        dirty = (seen + REGION_SEQUENCE) | REGION_DIRTY | touched;
    while (!atomic_compare_exchange_weak(word, &seen, dirty));
    return dirty;
}

/* Write the pages that hold the words of regions [first, end) of one window, and, the first time, the header. @return 0 or -errno. */
static int sync_states(struct map *map, uint64_t first, uint64_t end)
{
    uintptr_t from = (uintptr_t)map_region_word(map, first) & ~(uintptr_t)(FORMAT_PAGE - 1);
    uintptr_t to = (uintptr_t)(map_region_word(map, end - 1) + 1);
    bool header_too = !atomic_load_explicit(&map->header_synced, memory_order_relaxed);
    STEP("msync state");
    if (header_too && first == 0) {
        from = (uintptr_t)map->header; /* it lies before window 0, and each call waits for the disk */
    } else if (header_too) {
        long error = raw(SYS_msync, map->header, FORMAT_PAGE, MS_SYNC);
        if (raw_failed(error))
            return (int)error;
    }
    long error = raw(SYS_msync, from, to - from, MS_SYNC);
    if (header_too && !raw_failed(error))
        atomic_store_explicit(&map->header_synced, true, memory_order_relaxed);
    return (int)error;
}

/* Where the words of `region` stop following each other: the end of its window, or `end`. */
static uint64_t window_end(uint64_t region, uint64_t end)
{
    uint64_t next = window_first_region(window_of_region(region) + 1);
    return next < end ? next : end;
}

/*
 * A sequential writer has come to `region`: mark as many more as it has written in a row before, so that it waits for the store once
 * per GiB. Nothing of ours is in flight there, so a clearer may pass between the steps: DURABLE only if the word is untouched.
 */
struct ahead {
    uint64_t first, end;
    uint64_t word[AHEAD_MOST];
};

static void mark_ahead(const struct map *map, struct ahead *ahead, uint64_t region)
{
    uint64_t behind = 0;
    while (behind < AHEAD_MOST && behind < region &&
           (atomic_load(map_region_word(map, region - 1 - behind)) & REGION_DURABLE))
        behind++;
    ahead->first = ahead->end = region + 1;
    uint64_t most = window_end(region, region + 1 + behind);
    for (; ahead->end < most; ahead->end++) {
        _Atomic uint64_t *word = map_region_word(map, ahead->end);
        if (!needs_marking(atomic_load(word)))
            break;
        ahead->word[ahead->end - ahead->first] = set_dirty(word, 0);
    }
}

static void finish_ahead(const struct map *map, const struct ahead *ahead)
{
    for (uint64_t region = ahead->first; region < ahead->end; region++) {
        uint64_t seen = ahead->word[region - ahead->first];
        STEP("OR DURABLE ahead");
        atomic_compare_exchange_strong(map_region_word(map, region), &seen, seen | REGION_DURABLE);
    }
}

/* Regions [first, end) of one window. @return 0 or -errno. */
static int make_durable(struct map *map, uint64_t first, uint64_t end)
{
    struct ahead ahead = {0};
    for (uint64_t region = first; region < end; region++)
        set_dirty(map_region_word(map, region), REGION_TOUCHED);
    if (end - first == 1)
        mark_ahead(map, &ahead, first);
    int error = sync_states(map, first, ahead.end > end ? ahead.end : end);
    if (error != 0)
        return error;
    for (uint64_t region = first; region < end; region++) {
        STEP("OR DURABLE");
        atomic_fetch_or(map_region_word(map, region), REGION_DURABLE);
    }
    finish_ahead(map, &ahead);
    return 0;
}

void region_make_durable(struct map *map, uint64_t first, uint64_t blocks)
{
    uint64_t region, end;
    atomic_store_explicit(&map->dirtied, true, memory_order_relaxed);
    for (regions_of(map, first, blocks, &region, &end); region < end;) {
        uint64_t run = region, most = window_end(region, end);
        while (run < most && needs_marking(atomic_load(map_region_word(map, run))))
            run++;
        int error = run > region ? make_durable(map, region, run) : 0;
        if (error != 0) {
            map_break(map, error);
            return;
        }
        region = run > region ? run : region + 1;
    }
}

/* ---- clearing ---- */

/* Nothing pending in any allocated unit of a region? */
static bool is_idle(const struct map *map, uint64_t region)
{
    uint64_t run, end = (region + 1) * REGION_BLOCKS;
    for (uint64_t block = region * REGION_BLOCKS; block < end; block += run) {
        const struct block_words *words = map_words(map, block, &run);
        for (uint64_t i = 0; words && i < run; i++)
            if (atomic_load_explicit(&words[i].pending, memory_order_acquire) != WORD_IDLE)
                return false;
    }
    return true;
}

/*
 * Take DURABLE off and look whether anything is under way. If so, give it back. @return true when the region can be cleared.
 *
 * Taking it off has a new sequence number, as "set DIRTY": while one clearer is at work DURABLE may come back, by a writer that was
 * still in flight, and be taken off by a second one. The first must not take that word for the one it remembers.
 */
static bool begin_clearing(const struct map *map, uint64_t region, uint64_t *remembered)
{
    _Atomic uint64_t *word = map_region_word(map, region);
    uint64_t before = atomic_load(word);
    STEP("DURABLE off");
    do
        *remembered = (before + REGION_SEQUENCE) & ~REGION_DURABLE;
    while (!atomic_compare_exchange_weak(word, &before, *remembered));
    STEP("nothing in flight?");
    if (!flight_any_in(map->id, region * REGION_BLOCKS, REGION_BLOCKS) && is_idle(map, region))
        return true;
    uint64_t seen = *remembered;
    STEP("give DURABLE back");
    if (before & REGION_DURABLE)
        atomic_compare_exchange_strong(word, &seen, seen | REGION_DURABLE);
    return false;
}

unsigned region_sweep_open(struct region_sweep *sweep, struct map *map, uint64_t *cursor, bool busy_too)
{
    const uint64_t count = region_count(map);
    sweep->map = map;
    sweep->count = 0;
    for (; *cursor < count && sweep->count < REGION_SWEEP; (*cursor)++) {
        _Atomic uint64_t *word = map_region_word(map, *cursor);
        uint64_t seen = atomic_load(word), remembered;
        if (!(seen & REGION_DIRTY))
            continue;
        if ((seen & REGION_TOUCHED) && !busy_too) {
            atomic_fetch_and(word, ~REGION_TOUCHED);
            continue;
        }
        if (begin_clearing(map, *cursor, &remembered)) {
            sweep->region[sweep->count].number = *cursor;
            sweep->region[sweep->count++].word = remembered;
        }
    }
    return sweep->count;
}

/*
 * As long as anything is DIRTY, something on the disk must say so: what stays DIRTY may be a region that nobody had to wait for
 * (map_grow.c). @return 0 or -errno.
 */
static int sync_unswept(const struct region_sweep *sweep)
{
    const uint64_t count = region_count(sweep->map);
    unsigned next = 0;
    int error = 0;
    for (uint64_t region = 0, end; error == 0 && region < count; region = end) {
        uint64_t first = region;
        bool stays = false;
        end = window_end(region, count);
        for (; region < end; region++) {
            bool swept = next < sweep->count && sweep->region[next].number == region;
            next += swept;
            stays |= !swept && (atomic_load(map_region_word(sweep->map, region)) & REGION_DIRTY);
        }
        /* Window 0 is what the header's own call reaches. */
        if (stays && first > 0)
            error = sync_states(sweep->map, first, end);
    }
    return error;
}

/* The memory of a region's units, from the first to the last: what lies between is a hole of the map's file, or clean. */
struct span {
    char *from, *to;
};

static struct span span_of(const struct map *map, uint64_t region)
{
    _Atomic uint64_t *word = map_region_word(map, region);
    unsigned window = window_of_region(region);
    uint64_t place = region - window_first_region(window), units = (atomic_load(word) & REGION_UNITS) >> 8;
    char *words = (char *)(word - place) + window_state_bytes(window) + place * REGION_WORD_BYTES;
    if (units == 0)
        return (struct span){words, words};
    uint64_t first = (uint64_t)__builtin_ctzll(units), end = 64 - (uint64_t)__builtin_clzll(units);
    return (struct span){words + first * UNIT_BYTES, words + end * UNIT_BYTES};
}

static int sync_span(struct span span)
{
    return (int)raw(SYS_msync, span.from, span.to - span.from, MS_SYNC);
}

/*
 * The header, for its time window: a clean region must not meet a file whose mtime is later than the header knows. Each call waits for the
 * disk, so this one takes along what follows the header in memory: the word of region 0 and, if that is the first of the sweep, its words.
 */
static int sync_header(const struct region_sweep *sweep)
{
    struct map *map = sweep->map;
    struct span span = {(char *)map->header, (char *)map->header + 2 * FORMAT_PAGE};
    if (sweep->region[0].number == 0) {
        span.to = span_of(map, 0).to;
        STEP("msync words");
    }
    int error = sync_span(span);
    if (error == 0)
        atomic_store_explicit(&map->header_synced, true, memory_order_relaxed);
    return error;
}

/* How many of the sweep from `first` on are neighbours in one window. */
static unsigned neighbours(const struct region_sweep *sweep, unsigned first)
{
    uint64_t region = sweep->region[first].number, end = window_end(region, UINT64_MAX);
    unsigned run = 1;
    while (first + run < sweep->count && region + run < end && sweep->region[first + run].number == region + run)
        run++;
    return run;
}

/* The words of all, in one call for neighbours. @return 0 or -errno. */
static int sync_words(const struct region_sweep *sweep)
{
    unsigned done = sweep->region[0].number == 0 ? 1 : 0; /* with the header */
    int error = 0;
    for (unsigned run; error == 0 && done < sweep->count; done += run) {
        run = neighbours(sweep, done);
        uint64_t region = sweep->region[done].number;
        STEP("msync words");
        error = sync_span((struct span){span_of(sweep->map, region).from, span_of(sweep->map, region + run - 1).to});
    }
    return error;
}

/*
 * Nothing depends on when a clean word reaches the disk. But until it does, a power cut makes what was cleared suspect or, where the
 * region's first word never got there, unknown.
 */
static int sync_swept(const struct region_sweep *sweep)
{
    int error = 0;
    for (unsigned i = 0, run; error == 0 && i < sweep->count; i += run) {
        uint64_t first = sweep->region[i].number, end = window_end(first, UINT64_MAX);
        for (run = 1; i + run < sweep->count && sweep->region[i + run].number < end; run++)
            ;
        error = sync_states(sweep->map, first, sweep->region[i + run - 1].number + 1);
    }
    return error;
}

static int clear_all(const struct region_sweep *sweep)
{
    int error = sync_header(sweep);
    if (error == 0)
        error = sync_unswept(sweep);
    if (error == 0)
        error = sync_words(sweep);
    for (unsigned i = 0; error == 0 && i < sweep->count && map_is_usable(sweep->map); i++) {
        uint64_t seen = sweep->region[i].word;
        STEP("CAS DIRTY off");
        atomic_compare_exchange_strong(map_region_word(sweep->map, sweep->region[i].number), &seen,
                                       seen & ~(REGION_DIRTY | REGION_TOUCHED));
    }
    return error == 0 ? sync_swept(sweep) : error;
}

void region_sweep_close(struct region_sweep *sweep, bool flushed)
{
    int error = flushed && sweep->count > 0 ? clear_all(sweep) : 0;
    /*
     * The kernel tells of it once, and takes the pages for written from then on: the next sweep would be told that all is on the disk. Not so when
     * a signal has come between, as some file systems let it (FUSE): then the regions stay as they are.
     */
    if (error != 0 && error != -EINTR)
        map_break(sweep->map, error);
    sweep->count = 0;
}

bool region_any_dirty(const struct map *map)
{
    const uint64_t count = region_count(map);
    for (uint64_t region = 0; region < count; region++)
        if (atomic_load_explicit(map_region_word(map, region), memory_order_relaxed) & REGION_DIRTY)
            return true;
    return false;
}

/* ---- after a power cut ---- */

bool region_is_suspect(const struct map *map, uint64_t block)
{
    _Atomic uint64_t *word = map_region_word(map, block / REGION_BLOCKS);
    return word && (atomic_load(word) & REGION_SUSPECT);
}

void region_trust(struct map *map, uint64_t region)
{
    atomic_fetch_and(map_region_word(map, region), ~REGION_SUSPECT);
}

/* The header's count of windows is not synced: the file's size tells how many there were. */
static void count_windows(struct map *map, int fd)
{
    struct stat status;
    unsigned window = map_window_count(map);
    if (fstat(fd, &status) != 0)
        return;
    while (window < MAP_WINDOWS && (uint64_t)status.st_size >= window_offset(window) + window_state_bytes(window))
        window++;
    atomic_store(&map->header->windows, window);
}

/* @return whether it was DIRTY. */
static bool enter_region(const struct map *map, uint64_t region)
{
    _Atomic uint64_t *word = map_region_word(map, region);
    uint64_t seen = atomic_load(word);
    bool dirty = seen & REGION_DIRTY;
    if (!(seen & (REGION_DIRTY | REGION_DURABLE | REGION_TOUCHED)))
        return false;
    STEP("DIRTY->SUSPECT");
    atomic_store(word, (seen & ~(REGION_DIRTY | REGION_DURABLE | REGION_TOUCHED)) | (dirty ? REGION_SUSPECT : 0));
    return dirty;
}

int region_enter_boot(struct map *map, int fd, int64_t modified)
{
    count_windows(map, fd);
    int error = map_attach_windows(map, fd);
    /* First, and on the disk: if this process is killed in between, the next one finds no DIRTY any more. */
    if (error == 0 && region_any_dirty(map)) {
        window_bridge(map, modified);
        error = (int)raw(SYS_msync, map->header, FORMAT_PAGE, MS_SYNC);
    }
    for (uint64_t region = 0, end; error == 0 && region < region_count(map); region = end) {
        bool dirty = false;
        uint64_t first = region;
        end = window_end(region, UINT64_MAX);
        for (; region < end; region++)
            dirty |= enter_region(map, region);
        if (dirty)
            error = sync_states(map, first, end);
    }
    return error;
}
