/*
 * A file's life: actors that open it, write, leave and die over it, by the choice of a random seed. Tests add what else befalls it, and say what must
 * hold. The last events are remembered for the message of a failure.
 */
#ifndef BOUNCEIO_TESTS_LIFE_H
#define BOUNCEIO_TESTS_LIFE_H

#include "support/actor.h"
#include "support/intrusion.h"
#include "support/support.h"

enum { ACTORS = 3, HISTORY = 40 };

struct life {
    const struct test_fs *fs;
    struct random random;
    struct place place;
    char boot[64];
    const char *environment[3];
    unsigned boots;
    struct actor actors[ACTORS];
    ino_t inode[ACTORS]; /* of the file that each has open */
    uint64_t seed;
    bool rsync;
    bool touched[INTRUSION_BLOCKS]; /* by requests, since somebody cleared it */
    char history[HISTORY][160];
    size_t events;
};

/* A new file, a new store, nobody there. */
void life_begin(struct life *life, const struct test_fs *fs, uint64_t seed);

/* Remember an event; fail with those that led here. */
void life_tell(struct life *life, const char *format, ...) __attribute__((format(printf, 2, 3)));
void life_give_up(struct life *life, const char *what);

/* Actor `i`, who is not there, comes and opens the file. */
void life_open(struct life *life, unsigned i);
/* Actor `i`, who is there, leaves in one way or another; does something to the file, of which it may die. */
void life_leave_or_die(struct life *life, unsigned i);
void life_request(struct life *life, unsigned i);

/* Everybody who is there is killed, and from here on it is another boot of the machine. */
void life_stop_the_machine(struct life *life);

/* Of the file that has the name now. */
ino_t life_inode(const struct life *life);

#endif
