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
    int64_t begin, end;  /* bytes */
    struct extent page;  /* of a truncation that cuts a block: its content */
    uint64_t last_sum;   /* checksum of that block after the cut, or WORD_UNKNOWN */
    bool only_allocates; /* the file's times move, and nothing else does */
    enum flight_transport transport;
};

/*
 * What a descriptor's file is before the change; then one of the functions below that begin it. They do nothing where the file has no map.
 * change_find_view: the view's references move to the change, or are released.
 */
void change_find(struct change *change, int fd);
void change_find_view(struct change *change, struct fd_view *view, enum flight_transport transport);

/* Bytes [begin, begin + length) are about to change; length may be CHANGE_TO_END. */
void change_open(struct change *change, int64_t begin, int64_t length);

/* The file is about to be cut, or extended with zeros, to `length` bytes. */
void change_open_truncation(struct change *change, int64_t length);

/* fallocate(2) is about to be called. Ended by change_close_allocation. */
void change_open_allocation(struct change *change, int mode, int64_t offset, int64_t length);

/* Without change_find: a file that is named by a path, relative to `directory`, is about to be cut. */
void change_open_path_truncation(struct change *change, int directory, const char *path, int64_t length);

/* Afterwards. `changed`: the call may have had an effect. The number may have been closed meanwhile, or lead elsewhere. */
void change_close(struct change *change, bool changed);

/* `result`: 0 or -errno. */
void change_close_allocation(struct change *change, int result);

/*
 * Around a call that moves the file's times and nothing else: before it, whether somebody else had moved them is looked at, which the new
 * ones would cover up; after it, they are ours. errno stays as it is.
 */
void change_look(int fd);
void change_times(int fd);
void change_path_look(int directory, const char *path, int flags);
void change_path_times(int directory, const char *path, int flags);

#endif
