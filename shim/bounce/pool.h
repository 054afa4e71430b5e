/*
 * The page pool: contiguous, aligned, private memory that requests are issued from.
 *
 * One reservation of BOUNCEIO_POOL_MAX bytes of address space, committed in slabs of 2 MiB that ask for huge pages (the
 * kernel pins one folio instead of 512 pages). A bitmap says which 4 KiB pages are taken; an extent of up to 64 pages
 * lives inside one bitmap word and is taken with one compare-and-swap, a longer one takes whole words. Nobody ever waits:
 * a blocking caller that finds nothing commits another slab, and past the maximum gets a temporary mapping of its own.
 *
 * Thread-safe, async-signal-safe, lock-free. Fork: the child's pool starts empty and is built on first use; the parent's
 * pages are not in the child's address space (MADV_DONTFORK), nor in core dumps (MADV_DONTDUMP).
 */
#ifndef BOUNCEIO_BOUNCE_POOL_H
#define BOUNCEIO_BOUNCE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest extent: 4 MiB and a few pages for the edges of a request. */
enum { POOL_PAGE = 4096, POOL_SLAB = 2 << 20, POOL_EXTENT_MAX = (4 << 20) + (256 << 10) };

struct extent {
    void *base;          /* POOL_PAGE aligned; NULL: holds nothing */
    uint32_t pages;      /* usable length in POOL_PAGE units, >= what was asked for */
    int32_t first;       /* page number in the pool, or -1 for a temporary mapping */
    uint32_t generation; /* of the process that took it: in a forked child it is ignored */
};

/* Carve per-process state from the arena; run once by process_start (PROCESS_INITIALISER). */
void pool_start(void);

/*
 * Commit and touch config.pool_ready bytes, unless done. Called when the first direct descriptor appears. Zeroing costs 0.1 ms for each
 * MiB, so what nobody has asked for waits until a request that may grow the pool needs it.
 * @return 0, or -ENOMEM when not even the address space can be had (requests then use temporary mappings).
 */
int pool_prepare(void);

/*
 * Take `bytes` (1 .. any) of contiguous memory. `nowait`: use pages that are free now, never a system call.
 * @return 0 and fills *extent; -EAGAIN when nowait and nothing is free; -ENOMEM when the system has no memory.
 */
int pool_take(struct extent *extent, size_t bytes, bool nowait);

/* Give an extent back; sets extent->base to NULL. An empty extent is ignored. */
void pool_give(struct extent *extent);

/* Give up an extent whose I/O may still be running: counted in pages_leaked, never used again. */
void pool_leak(struct extent *extent);

/* An address range of at least POOL_PAGE bytes, page aligned, that faults on every access, in this process for ever. NULL if there is none. */
void *pool_bad_address(void);

/* Are more than `bytes` of its pages taken at this moment, or thereabouts? Some 30 ns for 16 MiB, less when it is so. */
bool pool_exceeds(size_t bytes);

/* The slab that [address, address + length) lies in, or -1; and where it begins. A slab that was committed stays as it is while the process lives. */
int pool_slab_of(const void *address, size_t length);
void *pool_slab(int slab);

/* Pages taken at this moment, for tests and for `bounceio stat`. */
size_t pool_pages_taken(void);

#endif
