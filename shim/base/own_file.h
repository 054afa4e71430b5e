/*
 * One of our own descriptors, with the file it leads to.
 *
 * own.h keeps the program's calls off our numbers, but not its raw system calls. Where a mistaken write would land in the
 * program's data (the log, the report), the descriptor is looked at again before each use.
 * Thread-safe, async-signal-safe.
 */
#ifndef BOUNCEIO_BASE_OWN_FILE_H
#define BOUNCEIO_BASE_OWN_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct own_file {
    _Atomic int fd; /* -1: none */
    uint64_t device, inode;
};

/* Take over `fd` (own_take) and remember its file. @return 0, or -errno with `fd` closed. */
int own_file_keep(struct own_file *file, int fd);

/* @return the descriptor, or -1 when there is none or it no longer leads to the file. */
int own_file_get(const struct own_file *file);

#endif
