/*
 * What the store looks like on disk. Little-endian, host-aligned, mapped as it is.
 *
 * A store is a directory, mode 0700:
 *
 *   lock           struct store_shared in its first page; beyond it one byte for each session slot, held with an
 *                  open-file-description write lock by the process that owns the slot
 *   sessions/N     struct session_file: one process's use of the store, N = slot in decimal
 *   maps/NAME      one file for each inode, NAME = filesystem id, inode, birth time and generation (map_name)
 *
 * A map is
 *
 *   0              struct map_header                                                   4 KiB
 *   window 0       region words (8 bytes each, padded to 4 KiB), then block words      2^0 regions
 *   window 1       the same                                                            2^1 regions
 *   window k       the same                                                            2^k regions, from region 2^k - 1 on
 *
 * so that a map grows without moving, is mapped in at most 24 pieces, and needs no table of contents. A region is 64 MiB of
 * the file: 16,384 blocks, 256 KiB of block words, in 16 units of 16 KiB (1,024 blocks, 4 MiB of the file). A unit is
 * allocated on disk before it is touched; its bit in the region word says so. Blocks of other units are unknown.
 */
#ifndef BOUNCEIO_CHECKSUM_FORMAT_H
#define BOUNCEIO_CHECKSUM_FORMAT_H

#include <stdatomic.h>
#include <stdint.h>

#include "checksum/block_sum.h"
#include "checksum/word.h"

enum {
    FORMAT_VERSION = 1,
    FORMAT_PAGE = 4096,
    REGION_BLOCKS = 16384,
    UNIT_BLOCKS = 1024,
    UNITS_PER_REGION = REGION_BLOCKS / UNIT_BLOCKS,
    UNIT_BYTES = UNIT_BLOCKS * (int)sizeof(struct block_words),
    REGION_WORD_BYTES = REGION_BLOCKS * (int)sizeof(struct block_words),
    MAP_WINDOWS = 24, /* up to 2^24 - 1 regions: 1 PiB */
    STORE_SLOTS = 4096,
    SESSION_FLIGHTS = 1024,
    SESSION_MAPS = 4096,
};

#define MAP_BLOCKS_MAX ((((uint64_t)1 << MAP_WINDOWS) - 1) * REGION_BLOCKS)

/*
 * Region word. DIRTY, DURABLE and SUSPECT are the states of region.h; the sequence number in the upper bits is incremented by every
 * "set DIRTY". The unit bits say which units of block words are allocated.
 */
#define REGION_DIRTY                                                                                                   \
    (UINT64_C(1) << 0) /* on disk before any of the data it covers: after a power cut the words may be wrong */
#define REGION_DURABLE (UINT64_C(1) << 1) /* DIRTY is known to be on disk, this boot */
#define REGION_SUSPECT (UINT64_C(1) << 2) /* the machine stopped while it was DIRTY: mismatches are adopted */
#define REGION_TOUCHED (UINT64_C(1) << 3) /* written since the last sweep: too busy to be cleared */
#define REGION_UNIT(unit) (UINT64_C(1) << (8 + (unit)))
#define REGION_UNITS (((UINT64_C(1) << UNITS_PER_REGION) - 1) << 8)
#define REGION_SEQUENCE_SHIFT 24

/* Who a map belongs to. Immutable; covered by map_header.identity_sum. 88 bytes. */
struct map_identity {
    char magic[8];          /* "BNCEMAP\0" */
    uint32_t version;       /* FORMAT_VERSION */
    uint32_t block_size;    /* BLOCK_SIZE */
    uint8_t filesystem[16]; /* FS_IOC_GETFSUUID, else statfs f_fsid padded with zeros */
    uint64_t inode;
    int64_t birth_seconds;
    uint32_t birth_nanoseconds;
    uint32_t reserved;
    uint8_t machine[16]; /* /etc/machine-id; zeros when there is none */
    uint64_t map_id;     /* random, never 0; names the map in the in-flight tables */
    uint64_t generation; /* sum of the file handle (map_key_of); 0: the file system has none */
};

/* Flags of a whole map. */
#define MAP_CHANGED_OUTSIDE                                                                                            \
    (UINT64_C(1) << 0 | MAP_CHANGED_SINCE)   /* mismatches are adopted: the file was changed without the shim */
#define MAP_CHANGED_SINCE (UINT64_C(1) << 2) /* found since somebody began to look whether it is whole all the same */

/*
 * Where the file was when it was last opened, so that `bounceio gc` can find out whether it still exists: hints, never believed
 * without a look. Written without a lock: a torn path leads nowhere, a torn handle has a wrong sum.
 */
enum { LOCATOR_HANDLE_BYTES = 128, LOCATOR_PATH_BYTES = 2048, LOCATOR_OFFSET = 1024 };
struct map_locator {
    uint32_t handle_bytes; /* name_to_handle_at(2); 0: none */
    int32_t handle_type;
    uint8_t handle[LOCATOR_HANDLE_BYTES];
    uint64_t handle_sum;           /* of the above; see locator_handle_sum */
    char path[LOCATOR_PATH_BYTES]; /* absolute, NUL-terminated; empty: unknown */
};

struct map_header {
    struct map_identity identity;
    uint64_t identity_sum; /* XXH3-based sum of `identity` */
    uint8_t pad[256 - sizeof(struct map_identity) - 8];
    /* Mutable from here; changed only atomically. */
    _Atomic uint64_t boot[2];              /* boot id of the last session that opened the map */
    _Atomic uint64_t bound_device;         /* st_dev the map is bound to while a session uses it */
    _Atomic uint64_t flags;                /* MAP_CHANGED_OUTSIDE ... */
    _Atomic uint64_t windows;              /* how many windows the file has: their region words may be touched */
    _Atomic int64_t window_issue;          /* time window of our last write: nanoseconds of CLOCK_REALTIME */
    _Atomic int64_t window_completion;     /* not before window_issue, but for a clock that was stepped back */
    _Atomic uint64_t unsettled;            /* mutators at work (or dead and not settled) */
    _Atomic uint64_t unsettled_generation; /* raised with every mutator that enters */
    _Atomic uint64_t settle_lock;          /* session slot + 1 of who settles, 0 nobody */
};
_Static_assert(sizeof(struct map_header) == 256 + 10 * 8, "no padding; then zeros up to LOCATOR_OFFSET");
_Static_assert(LOCATOR_OFFSET + sizeof(struct map_locator) <= FORMAT_PAGE, "in the first page");

/* What an in-flight entry stands for. */
enum flight_kind {
    FLIGHT_FREE = 0,
    FLIGHT_FILLING = 1, /* being written by its owner: not there yet */
    FLIGHT_WRITE = 2,
    FLIGHT_QUESTION = 3, /* a deciding read */
    FLIGHT_MUTATOR = 4,
    FLIGHT_ADOPTION = 5,
    FLIGHT_SETTLER = 6,
};

/* How its request reaches the kernel: says when it can no longer land after its process has died. */
enum flight_transport { TRANSPORT_BLOCKING = 0, TRANSPORT_LIBAIO = 1, TRANSPORT_URING = 2, TRANSPORT_MEMORY = 3 };

/*
 * One request in flight. `state`: kind in bits 0-7, transport in bits 8-15, a sequence number above, incremented when
 * the entry is left; a reader loads state, the rest, and state again. 40 bytes.
 */
struct flight {
    _Atomic uint64_t state;
    _Atomic uint64_t map_id;
    _Atomic uint64_t first;  /* block */
    _Atomic uint64_t blocks; /* FLIGHT_TO_END: to the end of the file and beyond */
    _Atomic int64_t issued;  /* nanoseconds of CLOCK_REALTIME_COARSE; until then, when it was entered */
};
#define FLIGHT_TO_END (UINT64_C(1) << 52)
#define FLIGHT_SEQUENCE (UINT64_C(1) << 16)

struct session_file {
    char magic[8]; /* "BNCESES\0" */
    uint32_t version;
    uint32_t slot;
    _Atomic uint64_t boot[2];
    _Atomic uint64_t pid;
    _Atomic uint64_t started;        /* nanoseconds of CLOCK_REALTIME */
    _Atomic uint64_t flights_high;   /* entries [0, flights_high) may be in use */
    _Atomic uint64_t flights_beyond; /* requests that found the table full: each stands for every block of every map */
    _Atomic uint64_t maps_beyond;    /* maps in use that found `maps` full */
    char command[16];
    _Atomic uint64_t stats_address; /* of struct stats_shared in the process: `bounceio stat PID` reads them there */
    uint8_t pad[FORMAT_PAGE - 96];
    struct flight flights[SESSION_FLIGHTS];
    _Atomic uint64_t maps[SESSION_MAPS]; /* map ids in use by this session; 0: free */
};
_Static_assert(sizeof(struct session_file) == FORMAT_PAGE + SESSION_FLIGHTS * 40 + SESSION_MAPS * 8, "no padding");

struct store_shared {
    char magic[8]; /* "BNCESTO\0" */
    uint32_t version;
    uint32_t reserved;
    _Atomic uint64_t slots_high;     /* slots [0, slots_high) have been used */
    _Atomic uint64_t map_generation; /* raised when a map is created: buffered writers look again */
};

/* Byte of the lock file that stands for session slot `slot`. */
#define STORE_LOCK_BYTE(slot) ((INT64_C(1) << 20) + (slot))

/* Byte of the lock file that stands for a map, in a few short moments; some maps share one. */
#define STORE_MAP_BYTE(map_id) ((INT64_C(1) << 24) + (int64_t)((map_id)&0xffff))

/* Byte of the lock file that stands for the map of a name while somebody writes its file without being able to use it. */
#define STORE_UNHEARD_BYTE(name_sum) ((INT64_C(1) << 48) + (int64_t)((name_sum)&0xffffffffffff))

/* Geometry of the windows. */
static inline unsigned window_of_region(uint64_t region)
{
    return 63U - (unsigned)__builtin_clzll(region + 1);
}

static inline uint64_t window_first_region(unsigned window)
{
    return (UINT64_C(1) << window) - 1;
}

static inline uint64_t window_state_bytes(unsigned window)
{
    uint64_t bytes = UINT64_C(8) << window;
    return (bytes + FORMAT_PAGE - 1) & ~(uint64_t)(FORMAT_PAGE - 1);
}

static inline uint64_t window_bytes(unsigned window)
{
    return window_state_bytes(window) + ((uint64_t)REGION_WORD_BYTES << window);
}

static inline uint64_t window_offset(unsigned window)
{
    uint64_t offset = FORMAT_PAGE;
    for (unsigned w = 0; w < window; w++)
        offset += window_bytes(w);
    return offset;
}

#endif
