/*
 * The ledger: what a file must hold and which of its checksums must be recorded, kept by the writers themselves in memory that
 * outlives each of them.
 *
 * Every request over a block is entered before it is issued and left after it has returned. So when a process has been killed, the
 * ledger says of every block whether it was touched by a request that nobody saw end, and of all others what they hold. A block is
 * *known* when its last change was a write of the whole block that had the block for itself, or a write of a part on top of that:
 * its checksum must then be recorded. Where requests met, the ledger does not say (they may leave the block without a checksum, and in
 * either order), only that each sector holds what somebody once wrote there.
 *
 * A ledger covers a file's *arenas*: stretches of equal length, so that a sparse file of many regions costs little. Blocks and sectors
 * are counted in arenas, one after the other; ledger_offset says where they lie. Lock-free: the writers are killed anywhere.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_LEDGER_H
#define BOUNCEIO_TESTS_TORTURE_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LEDGER_ACTORS = 24, /* writing threads and readers at once */
    LEDGER_READER = 20, /* from here on: readers */
    LEDGER_ARENAS = 32,
    LEDGER_SECTORS = 8, /* of a block */
    LEDGER_TICKS = 6,
};

/* State of a block: who is at it (one bit for each actor), what is known, and a version that counts every arrival and departure. */
#define LEDGER_ACTOR(actor) (UINT64_C(1) << (actor))
#define LEDGER_PRESENT ((UINT64_C(1) << LEDGER_ACTORS) - 1)
#define LEDGER_WRITING ((UINT64_C(1) << LEDGER_READER) - 1)
#define LEDGER_KNOWN (UINT64_C(1) << 24)  /* its checksum must be recorded */
#define LEDGER_MET (UINT64_C(1) << 25)    /* the actors that are here have met others */
#define LEDGER_SHARED (UINT64_C(1) << 26) /* several writers among them */
#define LEDGER_DOUBT (UINT64_C(1) << 27)  /* an actor died here, and nobody is known to have settled that */
#define LEDGER_VERSION (UINT64_C(1) << 32)

/* Content of a sector: the generation that was written, or one of these. */
#define LEDGER_ZEROS UINT64_C(0)
#define LEDGER_ANY UINT64_MAX /* zeros, or any generation */

struct ledger_block {
    _Atomic uint64_t state;
    _Atomic uint64_t sectors[LEDGER_SECTORS];
};

/* One actor's request in flight and what it has done, for who buries it. */
struct ledger_actor {
    _Atomic uint64_t first, sectors; /* may be changed by the request: sectors of the ledger */
    _Atomic uint64_t generation;     /* the last one used; unique over all actors */
    _Atomic uint64_t done;           /* requests acknowledged */
    /* When the last requests began that came at least the ledger's interval after each other; the oldest is last. */
    _Atomic uint64_t ticks[LEDGER_TICKS];
    _Atomic int64_t ticked; /* time of ticks[0], microseconds */
};

struct ledger {
    uint32_t arenas, arena_blocks;
    uint64_t arena_first[LEDGER_ARENAS];     /* block of the file */
    _Atomic uint32_t stop;                   /* writers: finish your request and leave */
    _Atomic uint32_t failed;                 /* somebody has printed what went wrong */
    _Atomic uint64_t clock;                  /* counts requests */
    int64_t interval;                        /* microseconds between ticks */
    _Atomic uint64_t touched[LEDGER_ARENAS]; /* clock when a request last changed something there */
    _Atomic uint64_t leaked;                 /* bounce pages, as writers that left in peace counted them */
    struct ledger_actor actors[LEDGER_ACTORS];
    struct ledger_block blocks[];
};

/* What a request did. */
enum ledger_outcome {
    LEDGER_WROTE,   /* its generation, through checksums */
    LEDGER_CHANGED, /* as written, but without a checksum in hand */
    LEDGER_PUNCHED, /* zeros */
    LEDGER_NOTHING, /* only looked */
};

/* A ledger in a memfd that children inherit; all zeros, nothing known. `first`: block of the file at which each arena begins. */
struct ledger *ledger_new(int *fd, uint32_t arenas, uint32_t arena_blocks, const uint64_t *first);
struct ledger *ledger_attach(int fd);
void ledger_free(struct ledger *ledger, int fd);

/* What there is of it, in bytes: for a copy. */
size_t ledger_bytes(const struct ledger *ledger);

static inline uint64_t ledger_block_count(const struct ledger *ledger)
{
    return (uint64_t)ledger->arenas * ledger->arena_blocks;
}

/* Where the sector lies in the file, bytes. */
uint64_t ledger_offset(const struct ledger *ledger, uint64_t sector);

/* A request over blocks [first, first + blocks), which may change [sector, sector + sectors), begins. */
void ledger_begin(struct ledger *ledger, unsigned actor, uint64_t first, uint64_t blocks, uint64_t sector,
                  uint64_t sectors);

/* It has returned, having changed [sector, sector + sectors). */
void ledger_end(struct ledger *ledger, unsigned actor, uint64_t first, uint64_t blocks, uint64_t sector,
                uint64_t sectors, enum ledger_outcome outcome);

/*
 * Has the arena been left alone for so long that every actor of `mask` has since made a request in each of LEDGER_TICKS - 1 intervals?
 * Counted in requests, so that it holds however slow the machine is.
 */
bool ledger_left_alone(const struct ledger *ledger, unsigned arena, uint64_t mask);

/* The next generation of this actor. */
uint64_t ledger_generation(struct ledger *ledger, unsigned actor);

/* The actors in `mask` are dead. @return blocks that they were at. */
uint64_t ledger_bury(struct ledger *ledger, uint64_t mask);

/* Whatever the dead had left has been settled. */
void ledger_settled(struct ledger *ledger);

/* --- Content of sectors ------------------------------------------------------------------------------------------- */

/* 512 bytes that say which generation, and which sector of the file, they are. */
void sector_fill(void *data, uint64_t generation, uint64_t offset);

/* Is it what a generation wrote there (LEDGER_ANY: any of them)? */
bool sector_is(const void *data, uint64_t generation, uint64_t offset);

#endif
