/*
 * One io_uring of the program's own, one operation at a time, through liburing: for tests of what single operations do.
 */
#ifndef BOUNCEIO_TESTS_RING_H
#define BOUNCEIO_TESTS_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "support/direct.h"
#include "support/support.h"

/* Newer than some build machines' headers. Source: include/uapi/linux/io_uring.h. */
enum { OP_FIXED_FD_INSTALL = 54, OP_FTRUNCATE = 55 };

/* Make the ring of this program. @return false, with a line that says "skipped", where the system offers none. */
bool ring_open(unsigned flags);
void ring_close(void);
struct io_uring *the_ring(void);

/* The next entry, all zero but for `opcode`; it is submitted by ring_do or ring_submit. Fails the test when there is none. */
struct io_uring_sqe *ring_entry(unsigned opcode);

/* Submit what has been queued. Fails the test unless all of it is taken. */
void ring_submit(unsigned count);

/* The next completion, waited for 60 s at most. @return its result; *tag, where not NULL, its user_data. */
int ring_reap(uint64_t *tag);

/* Submit the one entry that is queued, and wait for it. @return its result. */
int ring_do(void);

/* Reads and writes of a number, or (`flags` IOSQE_FIXED_FILE) of a registered file. */
int ring_write(int fd, unsigned flags, const void *memory, unsigned length, uint64_t offset);
int ring_read(int fd, unsigned flags, void *memory, unsigned length, uint64_t offset);

/* The pattern `seed`, from and into odd memory; the test fails unless all of it is written, or read and right. */
void ring_put(int fd, unsigned flags, uint64_t seed, uint64_t offset, unsigned length);
void ring_check(int fd, unsigned flags, uint64_t seed, uint64_t offset, unsigned length);

/* ---- Scenes: a ring and two names of files on one file system. ---- */

struct ring_scene {
    struct test_fs fs;
    const char *path, *other;
    struct bounceio_stats before;
};

/* Run the test on each file system, with a ring of these flags. */
void ring_on_each_filesystem(unsigned flags, void (*test)(struct ring_scene *scene));

/* Exactly so many direct requests have been made since the test began, and none of them passed by. */
void ring_bounced(const struct ring_scene *scene, unsigned requests);

/* Damage one of the 16 blocks of a file, which are read in vain by number or registered file, and heal it. Without the shim: nothing. */
void ring_finds_rot(const struct ring_scene *scene, const char *path, int fd, unsigned flags);

#endif
