/*
 * Open files: one object for each inode (or block device) that some descriptor of this process reaches by direct I/O, or by
 * buffered writes although it has a map. Holds the inode's map and what its filesystem asks of direct I/O.
 *
 * Objects live in a fixed table and are reused, never freed, so that a late look at one is harmless. A descriptor's entry holds
 * a reference, and so does every request for as long as it runs.
 */
#ifndef BOUNCEIO_FILES_FILE_H
#define BOUNCEIO_FILES_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bounce/pool.h"
#include "checksum/map.h"

enum { FILE_MAX = 32768 };

struct file {
    _Atomic uint32_t references;
    _Atomic bool in_use; /* changed with the process lock held */
    bool is_device;      /* bounced, never a map */
    bool is_in_memory;   /* its file system is the page cache alone: the kernel copies what is read, and pins nothing */
    _Atomic bool unlinked;       /* had no name left when its last descriptor was closed */
    _Atomic uint32_t suspicions; /* in-place reads that were suspected wrongly */
    _Atomic int64_t swept;       /* when DIRTY regions were last swept, or it was opened without any: window_now() */
    _Atomic int64_t looked_for_dead; /* when dead sessions were last looked for, likewise */
    _Atomic int unsaid;              /* errno of a flush of ours that failed, until the program has been told; or 0 */
    uint64_t device, inode;
    uint32_t offset_align; /* of direct I/O, bytes; 512 when the filesystem does not say */
    uint32_t memory_align;
    uint32_t next;   /* hash chain, index + 1; process lock */
    bool has_no_say; /* its map could not be had: what is written to it is announced to nobody */
    int64_t unheard; /* for map_unheard_end, or 0; process lock */
    struct map map;  /* map.header NULL: no checksums for this file */
};

struct stat;

/*
 * The object of the file behind `fd`, with a reference for the caller. `create_map`: direct I/O wants one made.
 * Process lock held. @return NULL when the table is full, or the number no longer leads there.
 */
struct file *file_open(int fd, const struct stat *status, bool create_map);

/* It may be written through this descriptor: if that cannot be announced, others are to know. Process lock held. */
void file_will_be_written(struct file *file, int fd);

/* Does the number lead to this file? A system call. */
bool file_is_behind(const struct file *file, int fd);

/* Give a reference back. The last one of a file leaves it to file_reap. Any thread, lock-free. */
void file_unreferenced(void);
static inline void file_release(struct file *file)
{
    if (atomic_fetch_sub(&file->references, 1) == 1 && atomic_load(&file->in_use))
        file_unreferenced();
}

/* Another reference, by somebody who may be too late: file_release it again if the table says so. */
static inline void file_hold(struct file *file)
{
    atomic_fetch_add(&file->references, 1);
}

/* Close the maps of files that nobody refers to any more. Process lock held. */
void file_reap(void);
bool file_needs_reaping(void);

/* Does the file have checksums that may be used? */
static inline bool file_has_map(const struct file *file)
{
    return map_is_usable(&file->map);
}

/* All of them; set once at start-up. */
extern struct file *file_first;

static inline struct file *file_at(uint32_t index)
{
    return &file_first[index];
}
uint32_t file_index(const struct file *file);

/*
 * Absolute path of a descriptor, as /proc has it, for globs and messages; "?" when unknown. It lies in a pool page, which file_path_end
 * gives back: 4 KiB are too much for a small signal stack.
 */
struct file_path {
    const char *text;
    struct extent page;
};
void file_path_begin(struct file_path *path, int fd);
void file_path_end(struct file_path *path);

/* Do BOUNCEIO_INCLUDE and BOUNCEIO_EXCLUDE let the shim act on this descriptor's file? */
bool file_is_included(int fd);

#endif
