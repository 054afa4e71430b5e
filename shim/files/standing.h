/*
 * Standing mutators: writers that the shim does not see at work, for as long as they could write. Stdio streams (the C library
 * writes inside itself) and writable shared mappings, on files that have a map.
 *
 * Thread-safe, async-signal-safe. Slow paths only; take the process lock.
 */
#ifndef BOUNCEIO_FILES_STANDING_H
#define BOUNCEIO_FILES_STANDING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "files/file.h"

struct stat;

/* `stream`: its FILE, so that what it holds can be written out before the process ends. */
void standing_stream_opened(int fd, struct file *file, void *stream);

/* @return its FILE, or NULL when none stood. */
void *standing_stream_closed(int fd);

/* A shared mapping of `file`, through a descriptor that may write. It is a mutator once it is writable. */
void standing_mapping_made(void *address, size_t length, struct file *file, uint64_t offset, bool writable);

/* The rest is cheap when there is no such mapping. */

/* Pages [address, address + length) become writable. */
void standing_mapping_writable(const void *address, size_t length);

/* Pages [address, address + length) are about to be unmapped, or mapped over. */
void standing_mapping_gone(const void *address, size_t length);

/* mremap moved or resized the mapping at `address`. */
void standing_mapping_moved(const void *address, const void *new_address, size_t new_length);

/* The program made a shared mapping of some file, with or without a map. Counted. */
void standing_mapping_noted(void);

/* A file with a map was opened: streams and mappings of it that were there before stand from now on. */
void standing_file_opened(int fd, struct file *file, const struct stat *status);

/*
 * The process ends in good order: what stands is settled. Streams write out what they hold first; one that another thread has locked is
 * left to whoever settles this session.
 */
void standing_end(void);

#endif
