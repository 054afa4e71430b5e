/*
 * The files that sides work on: all alike, on the same file system, filled from end to end.
 *
 * A file's name decides what the shim does with it: BENCH_EXCLUDE, as BOUNCEIO_EXCLUDE, leaves all out but "bounced".
 */
#ifndef BOUNCEIO_BENCH_BED_H
#define BOUNCEIO_BENCH_BED_H

#include <stdint.h>

#define BED_ZERO_COPY "zero-copy" /* the kernel takes the program's memory as it is */
#define BED_TWIN "zero-copy-twin" /* once more, to see what the comparison itself does */
#define BED_BUFFERED "buffered"   /* on btrfs with data checksums: the kernel goes through the page cache */
#define BED_BOUNCED "bounced"     /* bounced, checksummed, mapped */

enum { BED_FILES_MAX = 4 };

struct bed {
    uint64_t bytes; /* of each file; a power of two, at least 1 MiB */
    unsigned count;
    const char *names[BED_FILES_MAX];
    const char *directories[BED_FILES_MAX];
    int fds[BED_FILES_MAX]; /* O_RDWR | O_DIRECT */
};

/*
 * Make the files, whose names and directories are set. They are filled in turns, some MiB each: where they lie, in memory and on the
 * disk, is then as good or bad for each of them. (Filled one after the other, the first was 10% slower to read, on tmpfs.)
 */
void bed_make(struct bed *bed);

/* Close and remove them. */
void bed_remove(const struct bed *bed);

/* "DIRECTORY/NAME" in one of 4 rotating buffers. */
const char *bed_path(const char *directory, const char *name);

#endif
