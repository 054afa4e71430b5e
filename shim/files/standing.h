/*
 * Standing mutators: writers that the shim does not see at work, for as long as they could write. Stdio streams (the C library
 * writes inside itself) and writable shared mappings, on files that have a map.
 *
 * Thread-safe, async-signal-safe. Slow paths only; take the process lock.
 */
#ifndef BOUNCEIO_FILES_STANDING_H
#define BOUNCEIO_FILES_STANDING_H

#include <stddef.h>
#include <sys/types.h>

#include "files/file.h"

struct stat;

void standing_stream_opened(int fd, struct file *file);
void standing_stream_closed(int fd);

/* A shared mapping of `file` that may be written through. */
void standing_mapping_made(void *address, size_t length, struct file *file, uint64_t offset);

/* Pages [address, address + length) are no longer mapped as they were. Cheap when there is no standing mapping. */
void standing_mapping_gone(void *address, size_t length);

/* mremap moved or resized a mapping. */
void standing_mapping_moved(void *address, size_t length, void *new_address, size_t new_length);

/* The program made a shared, writable mapping of some file, with or without a map. Counted. */
void standing_mapping_noted(void);

/* A file with a map was opened: streams and mappings of it that were there before stand from now on. */
void standing_file_opened(int fd, struct file *file, const struct stat *status);

/* The process ends in good order: everything standing is settled. */
void standing_end(void);

#endif
