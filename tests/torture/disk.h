/*
 * A disk with a volatile cache: what was written since the last flush is, after a power cut, there or not, sector by sector.
 *
 * It is a file of a file system in user space (FUSE's protocol, spoken directly), for a loop device to lie on: the device's flushes
 * arrive as fsyncs of that file. Flushed sectors are in the image, unflushed ones in the memory of the process that serves the file.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_DISK_H
#define BOUNCEIO_TESTS_TORTURE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "support/support.h"

struct disk;

/* Serve the image, with sectors of that many bytes, as `directory`/disk. @return NULL when this run or kernel cannot. */
struct disk *disk_new(const char *image, const char *directory, unsigned sector);

/* The power fails: `to` becomes what is left. `to` is on the same file system as the image, which has reflinks. */
void disk_cut(struct disk *disk, const char *to, struct random *random);

/* Nobody uses it any more. What was not flushed is lost. */
void disk_free(struct disk *disk);

#endif
