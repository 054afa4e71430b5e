/*
 * Descriptors to read a file by, where the program's own does not permit it (write-only, or without O_DIRECT).
 *
 * Closing any descriptor of an inode releases all POSIX record locks that the process holds on it (fcntl_locking(2)), so a
 * descriptor of ours is opened once for each file and kept until the program closes its own last one. There are a few; when they
 * are all taken, there is none for another file.
 * Thread-safe, async-signal-safe. The table survives fork, as the descriptors do.
 */
#ifndef BOUNCEIO_FILES_READER_H
#define BOUNCEIO_FILES_READER_H

#include "files/file.h"

enum { READERS = 8 };

/* A descriptor opened O_RDONLY | O_DIRECT on the file behind `fd`; a slow path at first. @return it, or -errno. */
int reader_of(const struct file *file, int fd);

/* The program is about to close, or has closed, its last descriptor of the file. */
void reader_close(const struct file *file);

#endif
