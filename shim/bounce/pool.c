/*
 * The page pool, lock-free. What it owns:
 *
 *   one word of wiped-on-fork arena -> the reservation, one mapping:
 *
 *   | up to 2 MiB of alignment | slab 0 | slab 1 | ... | bad page | control: limits, slab states, bitmap |
 *     never accessible           each PROT_NONE until     never      readable and writable
 *                                committed                accessible
 *
 * The bitmap has one bit per page, set when the page may be taken. Pages of slabs that are not committed have zeros, as a
 * fresh mapping does, so nobody can take them, and committing a slab ends with storing its eight words (one cache line).
 * An extent of up to 64 pages is a run of bits in one word, taken with one compare-and-swap. A longer one takes whole
 * words in a row, one compare-and-swap each, and puts them back when one is not free. Bits move from set to clear only by a
 * compare-and-swap that owns them from then on, and back only by their owner, so there is no ABA problem.
 *
 * Every thread starts its search at the same word, its `home`, and takes the lowest run: recently used pages come back
 * first, warm in its cache. The homes of threads lie a cache line of the bitmap apart, and so their pages in slabs of their own, as long as there are
 * some. A compare-and-swap that loses moves the home one line on, so threads that collide part.
 *
 * Fork: the arena word is zero in the child and the reservation is not mapped there. An extent that the child inherits on
 * a stack (a handler that forked in the middle of a request) belongs to another generation and is ignored.
 */
#include "bounce/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "base/stats.h"

enum {
    WORD_PAGES = 64,
    SLAB_PAGES = POOL_SLAB / POOL_PAGE,
    SLAB_WORDS = SLAB_PAGES / WORD_PAGES,
    EXTENT_PAGES_MAX = POOL_EXTENT_MAX / POOL_PAGE,
    SLABS_MAX = INT32_MAX / SLAB_PAGES, /* struct extent numbers pages in 31 bits */
};
_Static_assert(SLAB_WORDS * sizeof(uint64_t) == 64, "the words of a slab fill one cache line");

#define WORD_FREE (~UINT64_C(0))

enum slab_state { SLAB_ABSENT, SLAB_BUSY, SLAB_COMMITTED };

struct slab_words {
    _Atomic uint64_t word[SLAB_WORDS];
} __attribute__((aligned(64)));

/* The control part of a reservation. Constant after it is published, but for the atomics. */
struct reservation {
    char *pages; /* page 0 of slab 0 */
    char *bad;   /* the page that is never accessible */
    uint32_t generation;
    uint32_t slabs;         /* that the address space holds */
    uint32_t ready;         /* that pool_prepare commits */
    uint32_t initial;       /* whose commitment is no growth */
    _Atomic uint32_t limit; /* no slab from this one on has ever been committed */
    _Atomic uint8_t *state; /* enum slab_state of every slab */
    struct slab_words bitmap[];
};

/* In the arena: all zero in a new process. */
struct pool {
    _Atomic(struct reservation *) reservation;
    _Atomic uint32_t generation; /* of this process's extents; 0: none taken yet */
};

static struct pool *pool;

/* Ordinary memory, inherited by children: no two processes of one tree of forks have a generation in common by descent. */
static _Atomic uint32_t last_generation;

/* Word where this thread's searches start, + 1; 0 before its first. */
static _Thread_local uint32_t home __attribute__((tls_model("initial-exec")));

void pool_start(void)
{
    pool = process_arena(sizeof *pool);
}
PROCESS_INITIALISER(pool_start);

/* Acquire: pairs with the release in reserve(), before which the control part was filled in. */
static struct reservation *reservation_now(void)
{
    return atomic_load_explicit(&pool->reservation, memory_order_acquire);
}

static uint32_t generation_now(void)
{
    /* Relaxed, here and below: a generation is only ever compared with another. */
    uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_relaxed);
    if (generation)
        return generation;
    uint32_t fresh = atomic_fetch_add_explicit(&last_generation, 1, memory_order_relaxed) + 1;
    if (atomic_compare_exchange_strong_explicit(&pool->generation, &generation, fresh, memory_order_relaxed,
                                                memory_order_relaxed))
        return fresh;
    return generation;
}

static _Atomic uint64_t *word_at(struct reservation *reservation, uint32_t word)
{
    return &reservation->bitmap[word / SLAB_WORDS].word[word % SLAB_WORDS];
}

/* Words that may have a bit set. Relaxed: a slab that is seen late is only found late. */
static uint32_t words_in_use(struct reservation *reservation)
{
    return atomic_load_explicit(&reservation->limit, memory_order_relaxed) * SLAB_WORDS;
}

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* ---- Reserving and committing: the slow paths. ---- */

/* Map a reservation of `slabs` slabs that nobody else knows yet. @return NULL when the address space cannot be had. */
static struct reservation *reserve_slabs(uint32_t slabs, void **mapping, size_t *length)
{
    size_t pages_length = (size_t)slabs * POOL_SLAB;
    size_t state_offset = sizeof(struct reservation) + slabs * sizeof(struct slab_words);
    size_t control_length = round_up(state_offset + slabs, POOL_PAGE);
    *length = POOL_SLAB + pages_length + POOL_PAGE + control_length;

    long start = raw(SYS_mmap, 0, *length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_failed(start))
        return NULL;
    *mapping = (void *)start;
    char *pages = (char *)round_up((size_t)start, POOL_SLAB);
    char *bad = pages + pages_length;
    struct reservation *reservation = (struct reservation *)(void *)(bad + POOL_PAGE);

    if (raw_failed(raw(SYS_mprotect, reservation, control_length, PROT_READ | PROT_WRITE)) ||
        raw_failed(raw(SYS_madvise, start, *length, MADV_DONTFORK))) {
        raw(SYS_munmap, start, *length);
        return NULL;
    }
    /* Wishes: a kernel without them still gives correct pages. */
    raw(SYS_madvise, start, *length, MADV_DONTDUMP);
    raw(SYS_madvise, pages, pages_length, MADV_HUGEPAGE);

    reservation->pages = pages;
    reservation->bad = bad;
    reservation->generation = generation_now();
    reservation->slabs = slabs;
    reservation->ready = (uint32_t)(config.pool_ready / POOL_SLAB);
    reservation->initial = (uint32_t)(config.pool / POOL_SLAB);
    if (reservation->ready > slabs)
        reservation->ready = slabs;
    reservation->state = (_Atomic uint8_t *)((char *)reservation + state_offset);
    return reservation;
}

/* Of a limited address space (ulimit -v), we leave the program all but an eighth. */
static size_t slabs_wanted(void)
{
    struct rlimit limit;
    size_t bytes = config.pool_max;
    if (!raw_failed(raw(SYS_prlimit64, 0, RLIMIT_AS, NULL, &limit)) && bytes > limit.rlim_cur / 8)
        bytes = limit.rlim_cur / 8;
    return bytes / POOL_SLAB < SLABS_MAX ? bytes / POOL_SLAB : SLABS_MAX;
}

/* The reservation, made now if there is none. When the address space is short, a smaller one. */
static struct reservation *reserve(void)
{
    struct reservation *reservation = reservation_now();
    if (reservation)
        return reservation;

    void *mapping;
    size_t length;
    struct reservation *mine = NULL;
    for (size_t slabs = slabs_wanted(); slabs && !mine; slabs /= 2)
        mine = reserve_slabs((uint32_t)slabs, &mapping, &length);
    if (!mine)
        return NULL;
    /* Release: publishes the control part; pairs with the acquire in reservation_now(). */
    if (atomic_compare_exchange_strong_explicit(&pool->reservation, &reservation, mine, memory_order_release,
                                                memory_order_acquire))
        return mine;
    raw(SYS_munmap, mapping, length); /* another thread was first */
    return reservation;
}

static void raise_limit(struct reservation *reservation, uint32_t limit)
{
    uint32_t seen = atomic_load_explicit(&reservation->limit, memory_order_relaxed);
    /* Relaxed: see words_in_use(). */
    while (seen < limit && !atomic_compare_exchange_weak_explicit(&reservation->limit, &seen, limit,
                                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

/* Commit one slab and let its pages be taken. The caller has made it SLAB_BUSY. @return 0 or -ENOMEM. */
static int commit_busy_slab(struct reservation *reservation, uint32_t slab)
{
    char *pages = reservation->pages + (size_t)slab * POOL_SLAB;
    if (raw_failed(raw(SYS_mprotect, pages, POOL_SLAB, PROT_READ | PROT_WRITE))) {
        /* Relaxed: nothing was done that the next one to try would have to see. */
        atomic_store_explicit(&reservation->state[slab], SLAB_ABSENT, memory_order_relaxed);
        return -ENOMEM;
    }
    for (size_t offset = 0; offset < POOL_SLAB; offset += POOL_PAGE)
        ((volatile char *)pages)[offset] = 0;
    /* Release: the pages are accessible to whoever takes them; pairs with the acquire of the taking compare-and-swaps. */
    for (uint32_t word = 0; word < SLAB_WORDS; word++)
        atomic_store_explicit(&reservation->bitmap[slab].word[word], WORD_FREE, memory_order_release);
    atomic_store_explicit(&reservation->state[slab], SLAB_COMMITTED, memory_order_release);
    raise_limit(reservation, slab + 1);
    return 0;
}

/*
 * Commit the first absent slab below `end`. Two threads never commit the same one.
 * @return 0, or -ENOMEM when all are committed (or being committed) or the system has no memory.
 */
static int commit_next_slab(struct reservation *reservation, uint32_t end)
{
    for (uint32_t slab = 0; slab < end; slab++) {
        uint8_t absent = SLAB_ABSENT;
        /* Relaxed: only decides who commits. */
        if (atomic_load_explicit(&reservation->state[slab], memory_order_relaxed) == SLAB_ABSENT &&
            atomic_compare_exchange_strong_explicit(&reservation->state[slab], &absent, SLAB_BUSY, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            int result = commit_busy_slab(reservation, slab);
            if (result == 0 && slab >= reservation->initial)
                stats_add(STAT_pool_grows, 1);
            return result;
        }
    }
    return -ENOMEM;
}

int pool_prepare(void)
{
    struct reservation *reservation = reserve();
    if (!reservation)
        return -ENOMEM;
    while (commit_next_slab(reservation, reservation->ready) == 0)
        ;
    return 0;
}

/* ---- Taking. ---- */

static void fill_extent(struct extent *extent, struct reservation *reservation, uint32_t first, uint32_t pages)
{
    extent->pages = pages;
    extent->first = (int32_t)first;
    extent->generation = reservation->generation;
    /* Last: whoever jumps out of us finds an extent that is whole, or none. */
    atomic_signal_fence(memory_order_seq_cst);
    extent->base = reservation->pages + (size_t)first * POOL_PAGE;
}

/* The lowest `pages` (1 .. 64) set bits in a row, as a mask; 0 when there are none. */
static uint64_t lowest_run(uint64_t free, uint32_t pages)
{
    uint64_t starts = free; /* bit b: bits b .. b + have - 1 are set */
    for (uint32_t have = 1; have < pages && starts;) {
        uint32_t step = have < pages - have ? have : pages - have;
        starts &= starts >> step;
        have += step;
    }
    if (!starts)
        return 0;
    return (WORD_FREE >> (WORD_PAGES - pages)) << __builtin_ctzll(starts);
}

/* The word that this thread starts at, of `words` (> 0). */
static uint32_t home_word(uint32_t words)
{
    if (home == 0) {
        static _Atomic uint32_t threads;
        home = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) * SLAB_WORDS + 1;
    }
    if (home > words)
        home = (home - 1) % words + 1;
    return home - 1;
}

/* One page, from the word that this thread starts at. @return false: to be looked for. */
static inline bool take_page_at_home(struct reservation *reservation, struct extent *extent)
{
    const uint32_t word = home - 1; /* not yet chosen: beyond all */
    if (word >= words_in_use(reservation))
        return false;
    _Atomic uint64_t *bits = word_at(reservation, word);
    uint64_t free = atomic_load_explicit(bits, memory_order_relaxed);
    const uint64_t page = free & -free;
    /* Acquire: as in take_short(). */
    if (!free ||
        !atomic_compare_exchange_strong_explicit(bits, &free, free & ~page, memory_order_acquire, memory_order_relaxed))
        return false;
    fill_extent(extent, reservation, word * WORD_PAGES + (uint32_t)__builtin_ctzll(page), 1);
    return true;
}

/* An extent within one word. */
static bool take_short(struct reservation *reservation, struct extent *extent, uint32_t pages)
{
    uint32_t words = words_in_use(reservation);
    uint32_t word = words ? home_word(words) : 0;
    for (uint32_t left = words; left; left--) {
        _Atomic uint64_t *bits = word_at(reservation, word);
        uint64_t free = atomic_load_explicit(bits, memory_order_relaxed);
        for (uint64_t run; (run = lowest_run(free, pages)) != 0;) {
            /* Acquire: the last owner is done with the pages; pairs with the release in pool_give(). */
            if (atomic_compare_exchange_strong_explicit(bits, &free, free & ~run, memory_order_acquire,
                                                        memory_order_relaxed)) {
                fill_extent(extent, reservation, word * WORD_PAGES + (uint32_t)__builtin_ctzll(run), pages);
                return true;
            }
            home += SLAB_WORDS;
        }
        word = word + 1 < words ? word + 1 : 0;
    }
    return false;
}

/* Give back `count` whole words. Release: pairs with the acquire of the taking compare-and-swaps. */
static void free_words(struct reservation *reservation, uint32_t word, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        atomic_store_explicit(word_at(reservation, word + i), WORD_FREE, memory_order_release);
}

/* Take one whole word, if all of it is free. */
static bool take_word(_Atomic uint64_t *bits)
{
    uint64_t free = atomic_load_explicit(bits, memory_order_relaxed);
    if (free != WORD_FREE)
        return false;
    /* Acquire: as in take_short(). */
    if (atomic_compare_exchange_strong_explicit(bits, &free, 0, memory_order_acquire, memory_order_relaxed))
        return true;
    home += SLAB_WORDS;
    return false;
}

/* Take `count` free words from `word` on, all or none. @return how many are free in a row: `count` when they are ours. */
static uint32_t take_words(struct reservation *reservation, uint32_t word, uint32_t count)
{
    uint32_t taken = 0;
    while (taken < count && take_word(word_at(reservation, word + taken)))
        taken++;
    if (taken < count)
        free_words(reservation, word, taken);
    return taken;
}

/* `count` words in a row that start at or after `from` and end at or before `end`. */
static bool take_long_between(struct reservation *reservation, struct extent *extent, uint32_t count, uint32_t from,
                              uint32_t end)
{
    for (uint32_t word = from; word + count <= end;) {
        uint32_t taken = take_words(reservation, word, count);
        if (taken == count) {
            fill_extent(extent, reservation, word * WORD_PAGES, count * WORD_PAGES);
            return true;
        }
        word += taken + 1;
    }
    return false;
}

/* An extent of whole words. */
static bool take_long(struct reservation *reservation, struct extent *extent, uint32_t pages)
{
    uint32_t count = (pages + WORD_PAGES - 1) / WORD_PAGES;
    uint32_t words = words_in_use(reservation);
    if (words < count)
        return false;
    uint32_t start = home_word(words);
    uint32_t wrapped = start + count - 1 < words ? start + count - 1 : words;
    return take_long_between(reservation, extent, count, start, words) ||
           take_long_between(reservation, extent, count, 0, wrapped);
}

static bool take_free(struct reservation *reservation, struct extent *extent, uint32_t pages)
{
    return pages <= WORD_PAGES ? take_short(reservation, extent, pages) : take_long(reservation, extent, pages);
}

/* A mapping of the request's own. */
static int take_mapping(struct extent *extent, size_t pages)
{
    if (pages > UINT32_MAX)
        return -ENOMEM;
    size_t length = pages * POOL_PAGE;
    long base = raw(SYS_mmap, 0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw_failed(base))
        return -ENOMEM;
    raw(SYS_madvise, base, length, MADV_DONTFORK);
    raw(SYS_madvise, base, length, MADV_DONTDUMP);
    extent->pages = (uint32_t)pages;
    extent->first = -1;
    extent->generation = generation_now();
    atomic_signal_fence(memory_order_seq_cst);
    extent->base = (void *)base;
    stats_add(STAT_pool_overflows, 1);
    return 0;
}

static __attribute__((noinline)) int take_slow(struct extent *extent, size_t pages)
{
    if (pages <= EXTENT_PAGES_MAX && pool_prepare() == 0) {
        struct reservation *reservation = reservation_now();
        do {
            if (take_free(reservation, extent, (uint32_t)pages))
                return 0;
        } while (commit_next_slab(reservation, reservation->slabs) == 0);
    }
    return take_mapping(extent, pages);
}

int pool_take(struct extent *extent, size_t bytes, bool nowait)
{
    assert(bytes > 0);
    struct reservation *reservation = reservation_now();
    if (bytes <= POOL_PAGE && reservation && take_page_at_home(reservation, extent))
        return 0;
    size_t pages = bytes / POOL_PAGE + (bytes % POOL_PAGE != 0);
    if (reservation && pages <= EXTENT_PAGES_MAX && take_free(reservation, extent, (uint32_t)pages))
        return 0;
    return nowait ? -EAGAIN : take_slow(extent, pages);
}

/* ---- Giving back. ---- */

static void give_pages(const struct extent *extent)
{
    struct reservation *reservation = reservation_now();
    uint32_t first = (uint32_t)extent->first;
    uint32_t word = first / WORD_PAGES;
    if (extent->pages > WORD_PAGES) {
        free_words(reservation, word, extent->pages / WORD_PAGES);
        return;
    }
    uint64_t run = (WORD_FREE >> (WORD_PAGES - extent->pages)) << first % WORD_PAGES;
    /* Release: pairs with the acquire of the taking compare-and-swaps. */
    uint64_t before = atomic_fetch_or_explicit(word_at(reservation, word), run, memory_order_release);
    assert((before & run) == 0);
    (void)before;
}

/* Is it of this process? An extent inherited over fork names memory that is not here, or is something else by now. */
static bool is_ours(const struct extent *extent)
{
    return extent->base && extent->generation == atomic_load_explicit(&pool->generation, memory_order_relaxed);
}

void pool_give(struct extent *extent)
{
    const struct extent given = *extent;
    /* First: whoever jumps out of us must not give it back again. */
    extent->base = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    if (is_ours(&given)) {
        if (given.first >= 0)
            give_pages(&given);
        else
            raw(SYS_munmap, given.base, (size_t)given.pages * POOL_PAGE);
    }
}

void pool_leak(struct extent *extent)
{
    if (is_ours(extent))
        stats_add(STAT_pages_leaked, extent->pages);
    extent->base = NULL;
}

/* ---- Looking. ---- */

void *pool_bad_address(void)
{
    struct reservation *reservation = reservation_now();
    return reservation ? reservation->bad : NULL;
}

int pool_slab_of(const void *address, size_t length)
{
    struct reservation *reservation = reservation_now();
    if (!reservation)
        return -1;
    const size_t offset = (size_t)address - (size_t)reservation->pages; /* what lies below wraps around */
    const bool is_inside = offset < (size_t)reservation->slabs * POOL_SLAB && length <= POOL_SLAB - offset % POOL_SLAB;
    return is_inside ? (int)(offset / POOL_SLAB) : -1;
}

void *pool_slab(int slab)
{
    return reservation_now()->pages + (size_t)slab * POOL_SLAB;
}

/* Pages taken, or as many as are more than `most`. */
static size_t count_taken(size_t most)
{
    struct reservation *reservation = reservation_now();
    const uint32_t limit = reservation ? atomic_load_explicit(&reservation->limit, memory_order_relaxed) : 0;
    size_t taken = 0;
    for (uint32_t slab = 0; slab < limit && taken <= most; slab++) {
        /* Acquire: pairs with the release in commit_busy_slab(), after which the words are set. */
        if (atomic_load_explicit(&reservation->state[slab], memory_order_acquire) != SLAB_COMMITTED)
            continue;
        for (uint32_t word = 0; word < SLAB_WORDS; word++) {
            const uint64_t free = atomic_load_explicit(&reservation->bitmap[slab].word[word], memory_order_relaxed);
            if (free != WORD_FREE)
                taken += (size_t)__builtin_popcountll(~free);
        }
    }
    return taken;
}

bool pool_exceeds(size_t bytes)
{
    const size_t pages = bytes / POOL_PAGE;
    return count_taken(pages) > pages;
}

size_t pool_pages_taken(void)
{
    return count_taken(SIZE_MAX);
}
