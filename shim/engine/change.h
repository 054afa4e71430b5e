/*
 * Changes of content that are not writes: truncation, punching, cloning, copies inside the kernel. A mutator around the call, on files
 * that have a map; nothing on others.
 *
 * Slow paths. Thread-safe, async-signal-safe. A child between vfork and exec changes nothing here.
 */
#ifndef BOUNCEIO_ENGINE_CHANGE_H
#define BOUNCEIO_ENGINE_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "bounce/pool.h"
#include "checksum/mutate.h"
#include "files/descriptor.h"

#define CHANGE_TO_END INT64_MAX

struct change {
    struct fd_view view;
    int probe; /* a descriptor of ours on the file, or -1 */
    struct mutation mutation;
    int64_t begin, end; /* bytes */
    struct extent page; /* of a truncation that cuts a block: its content */
    uint64_t last_sum;  /* checksum of that block after the cut, or WORD_UNKNOWN */
};

/* Bytes [begin, begin + length) of the descriptor's file are about to change; length may be CHANGE_TO_END. */
void change_open(struct change *change, int fd, int64_t begin, int64_t length);

/* The descriptor's file is about to be cut, or extended with zeros, to `length` bytes. */
void change_open_truncation(struct change *change, int fd, int64_t length);

/* The same for a file that is named by a path, relative to `directory`. `flags`: AT_SYMLINK_NOFOLLOW or 0. */
void change_open_path_truncation(struct change *change, int directory, const char *path, int64_t length);

/* Afterwards. `changed`: the call may have had an effect. */
void change_close(struct change *change, bool changed);

/*
 * Around a call that moves the file's times and nothing else: before it, whether somebody else had moved them is looked at, which the new
 * ones would cover up; after it, they are ours. errno stays as it is.
 */
void change_look(int fd);
void change_times(int fd);
void change_path_look(int directory, const char *path, int flags);
void change_path_times(int directory, const char *path, int flags);

#endif
