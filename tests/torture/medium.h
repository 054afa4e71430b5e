/*
 * Media that lose power: file systems on loop devices whose images lie on a file system with reflinks, so that a clone of an image is what
 * the device held at one instant (the clone waits for the device's writes in flight and keeps new ones out).
 *
 * All of it is mounted in the private mount namespace that the program is started in, with loop devices that go with their last mount:
 * nothing outlives the program.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_MEDIUM_H
#define BOUNCEIO_TESTS_TORTURE_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

#include "support/support.h"

enum { MEDIUM_PATH = 256 };

/* Where images lie. */
struct media {
    char root[MEDIUM_PATH]; /* a directory for mount points */
    char host[MEDIUM_PATH]; /* the file system with reflinks */
};

struct disk;
struct medium {
    struct disk *disk; /* with a volatile cache, or NULL */
    bool sectors;      /* of 512 bytes instead of 4,096: without direct I/O to the image, see medium_new */
    char kind[16];     /* "ext4", "xfs" or "btrfs-nocow" */
    char image[MEDIUM_PATH];
    char mounted[MEDIUM_PATH]; /* mount point */
    char home[MEDIUM_PATH];    /* directory in it to work in */
};

/* @return false when this run may not mount; says why. */
bool media_open(struct media *media);
void media_close(struct media *media);

/*
 * Make a file system of `megabytes` and mount it; `name` is unique among those that are mounted. A device with sectors of 512 bytes goes
 * through the page cache of its image: direct writes of parts of blocks that are shared with a clone fail now and then (Linux 6.18).
 * `loses`: what was not flushed may be lost when the power fails (disk.h).
 */
void medium_new(struct medium *medium, const struct media *media, const char *name, const char *kind,
                unsigned megabytes, bool sectors, bool loses);

/* What the device holds now, as `to` beside the image. */
void medium_clone(const struct medium *medium, const char *to, struct random *random);

void medium_unmount(struct medium *medium);
/* Mount `image` (a clone) where the medium was. @return false when the file system cannot be mounted. */
bool medium_mount(const struct medium *medium, const char *image);

/* Unmount, and forget all writes that came after the clone was made: `image` is a clone. */
void medium_remove(const char *image);

/* Where in the image the byte of the file lies; false when that cannot be told. The file must be on disk. */
bool medium_address(const struct medium *medium, const char *path, uint64_t offset, uint64_t *address);

#endif
