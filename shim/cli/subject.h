/*
 * A file that scrub or adopt works on: how to reach it, its map, and what was found.
 *
 * Regions of one file are worked on by several threads; whoever works on one adds to the outcome when it is through.
 */
#ifndef BOUNCEIO_CLI_SUBJECT_H
#define BOUNCEIO_CLI_SUBJECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "files/descriptor.h"

/* Blocks of 4,096 bytes, but for `bytes`. */
struct outcome {
    uint64_t verified;   /* agree with their checksum */
    uint64_t unverified; /* have none, or were being written */
    uint64_t kept;       /* had a checksum when adopt came */
    uint64_t adopted;    /* took the checksum of their content, by adopt */
    uint64_t recovered;  /* likewise, after an unclean stop of the machine */
    uint64_t outside;    /* likewise, because the file was changed without the shim */
    uint64_t mismatched; /* damaged */
    uint64_t unreadable;
    uint64_t holes;  /* of which nothing is stored: not adopted */
    uint64_t bytes;  /* read */
    bool unsettled;  /* some region is not known to be whole */
    bool incomplete; /* interrupted */
};

void outcome_add(struct outcome *sum, const struct outcome *outcome);

/* Damaged blocks, next to each other: the first, and how many. */
struct damage {
    uint64_t first, blocks;
};

struct subject {
    char *path;
    dev_t device;
    ino_t inode;
    uint64_t size;  /* bytes */
    bool named;     /* on the command line */
    bool opened;    /* the view is valid */
    bool buffered;  /* its file system has no direct I/O */
    bool in_review; /* it was changed outside, and may turn out to be whole: see trust.h */
    const char *failure;
    struct fd_view view;
    uint64_t regions;     /* to be worked on */
    uint64_t next_region; /* crew's lock */
    uint64_t left;        /* crew's lock */
    struct subject *next; /* crew's lock */
    pthread_mutex_t lock; /* of what follows */
    struct outcome outcome;
    struct damage *damages;
    size_t damage_count, damage_room;
};

/* Remember a file that a walk has found. @return NULL when there is no memory. */
struct subject *subject_new(const char *path, const struct stat *status, bool named);
void subject_free(struct subject *subject);

enum subject_state {
    SUBJECT_HAS_MAP, /* or cannot be opened: whoever tries says why */
    SUBJECT_HAS_NONE,
    SUBJECT_EXCLUDED, /* by BOUNCEIO_INCLUDE, BOUNCEIO_EXCLUDE; or a file of the store */
};

/* A look from outside, without opening the map. */
enum subject_state subject_look(const char *path, const struct stat *status, bool named);

enum subject_opening { SUBJECT_OPEN, SUBJECT_WITHOUT_MAP, SUBJECT_FAILED };

/*
 * Open it for reading, directly where its file system can do that, and its map. SUBJECT_FAILED: subject->failure says why.
 */
enum subject_opening subject_open(struct subject *subject, bool create_map);
void subject_close(struct subject *subject);

/* Read from the disk. @return bytes, fewer than asked for at the end of the file, or -errno. */
ssize_t subject_read(const struct subject *subject, char *data, size_t length, uint64_t offset);

/* Its mtime, nanoseconds of CLOCK_REALTIME, or WINDOW_CANNOT_TELL. */
int64_t subject_modified(const struct subject *subject);

/* It cannot be worked on any further. Any thread. */
void subject_fail(struct subject *subject, const char *failure);

/* Has it failed, or has its map, whose memory may fail at any time? Any thread. */
bool subject_is_failed(struct subject *subject);

/* What became of a region. Any thread. */
void subject_add(struct subject *subject, const struct outcome *outcome);

/* A block was found damaged. Any thread. */
void subject_add_damage(struct subject *subject, uint64_t block);

#endif
