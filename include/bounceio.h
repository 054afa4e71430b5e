/*
 * bounceio.h: what a program can ask the shim it runs under.
 *
 * The library is loaded with LD_PRELOAD=libbounceshim.so; a program may also link with it. Programs that must run without it
 * declare these functions weak and test them for NULL.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BOUNCEIO_H
#define BOUNCEIO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BOUNCEIO_VERSION_MAJOR 0
#define BOUNCEIO_VERSION_MINOR 1
#define BOUNCEIO_VERSION_PATCH 0
#define BOUNCEIO_VERSION "0.1.0"

/*
 * The version of the library that is loaded, "MAJOR.MINOR.PATCH". Never NULL.
 * Thread-safe, async-signal-safe.
 */
const char *bounceio_version(void);

/*
 * Counters of this process and of the children it has forked, since the program was executed. The report of BOUNCEIO_STATS has
 * the same names. Bytes are bytes, blocks are 4,096 bytes of a file, the rest are events.
 */
struct bounceio_stats {
    uint64_t direct_reads;      /* read requests on O_DIRECT descriptors */
    uint64_t direct_writes;     /* write requests on O_DIRECT descriptors */
    uint64_t bytes_read;        /* by direct reads */
    uint64_t bytes_written;     /* by direct writes */
    uint64_t bytes_bounced;     /* copied through bounce pages, either way */
    uint64_t bytes_in_place;    /* read straight into the caller's memory */
    uint64_t blocks_summed;     /* blocks whose checksum was recorded */
    uint64_t blocks_verified;   /* blocks read that agreed with their checksum */
    uint64_t blocks_unverified; /* blocks read that had no usable checksum */
    uint64_t mismatches;        /* blocks read that disagreed with their checksum */
    uint64_t recovered_blocks;  /* mismatches adopted after an unclean stop of the machine */
    uint64_t changed_outside;   /* mismatches adopted because the file was changed without the shim */
    uint64_t suspicions;        /* in-place reads that had to be read again through pages */
    uint64_t unstable_buffers;  /* buffers found changed in flight (BOUNCEIO_DETECT) */
    uint64_t nowait_eagain;     /* RWF_NOWAIT requests that the shim refused */
    uint64_t short_copies;      /* requests cut short by a bad address */
    uint64_t pool_grows;        /* slabs added to the page pool */
    uint64_t pool_overflows;    /* requests served from a temporary mapping */
    uint64_t pages_leaked;      /* bounce pages given up because their I/O could not be seen to end */
    uint64_t contended_blocks;  /* writes whose block was being written by someone else as well */
    uint64_t passed_through;    /* direct requests that the shim saw but did not bounce */
};

/*
 * Copy the counters. `size` is sizeof(struct bounceio_stats) as the caller knows it: a shorter or longer structure of another
 * version is filled as far as both know it, the rest is zeroed.
 * @return 0; -1 with errno EINVAL when stats is NULL.
 * Thread-safe, async-signal-safe.
 */
int bounceio_get_stats(struct bounceio_stats *stats, size_t size);

/* A block whose content on the medium disagrees with the checksum recorded for it. */
struct bounceio_mismatch {
    const char *path;  /* as in /proc/self/fd; valid during the call only */
    uint64_t offset;   /* bytes; a multiple of 4,096 */
    uint64_t length;   /* bytes; 4,096 */
    uint64_t expected; /* 62-bit checksum recorded; all ones when the block is known to be damaged */
    uint64_t found;    /* 62-bit checksum of what was read */
};

typedef void bounceio_mismatch_callback(const struct bounceio_mismatch *mismatch, void *argument);

/*
 * Call `callback` for every mismatch, in the thread whose request met it, after the log line and before the request fails.
 * NULL: nobody. It may be called from several threads at once, and from a signal handler if the program does direct I/O there.
 * @return 0.
 * Thread-safe: a mismatch met while the callback is being replaced is reported to the old or to the new one.
 */
int bounceio_on_mismatch(bounceio_mismatch_callback *callback, void *argument);

/* What bounceio_verify_range found, in blocks of 4,096 bytes. */
struct bounceio_verify_result {
    uint64_t blocks;     /* looked at */
    uint64_t verified;   /* content agrees with the recorded checksum */
    uint64_t unverified; /* no checksum recorded, or being written */
    uint64_t mismatched; /* content disagrees; logged, counted and reported to the callback */
};

/*
 * Read `length` bytes from `offset` with direct I/O, compare every block that the range touches with its recorded checksum, and
 * throw the data away. Ends at the end of the file. `length` 0 means: to the end of the file. The descriptor may have been opened
 * with or without O_DIRECT, and is re-opened if it does not permit reading. BOUNCEIO_ON_MISMATCH does not matter: nothing fails.
 * @return 0 when the whole range could be read; -1 with errno EBADF, EINVAL (result is NULL, not a regular file), ENODATA (the
 * file has no map), EACCES, EIO (the device), ENOMEM. Fills *result with what was seen so far in any case.
 * Thread-safe, async-signal-safe.
 */
int bounceio_verify_range(int fd, uint64_t offset, uint64_t length, struct bounceio_verify_result *result);

#ifdef __cplusplus
}
#endif

#endif
