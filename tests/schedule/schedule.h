/*
 * The code of the map's protocol under a scheduler: participants with sessions of their own, on one block of a real map, as coroutines
 * of one process that hand over at every STEP. Which of them goes on, who dies and what the disk does is chosen by the explorer
 * (explore.h), so that a schedule can be repeated to the letter.
 *
 * A session is dead when its byte of the lock file is not locked any more; here each has a description of that file of its own,
 * and death closes it. Linked with -Wl,--wrap=store_lock_file.
 */
#ifndef BOUNCEIO_TESTS_SCHEDULE_SCHEDULE_H
#define BOUNCEIO_TESTS_SCHEDULE_SCHEDULE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "checksum/map.h"
#include "checksum/session_peers.h"
#include "model/protocol.h"

enum { BLOCK_INDEX = 3, SECTORS = 2, BOTH = 3, DAMAGE = 4 };

struct actor {
    const struct part *part;
    ucontext_t context; /* its beginning */
    jmp_buf place;      /* where it stands, once it has begun */
    char *stack;
    struct session_state *session;
    int lock; /* a description of the lock file; -1: dead */
    bool finished, dead;
    uint8_t landing;  /* sectors that have been issued and have not reached the disk: bit mask */
    const char *step; /* the one before which it stands */
    unsigned steps;   /* that it has taken */
    bool (*may_go_on)(const struct actor *actor); /* NULL: it may */
    unsigned tried_at;                            /* changes that there had been when it last tried to settle */
};

/* The block's content and the size of the file, in sectors; and what has been said of it. */
struct disk {
    uint8_t sector[SECTORS];
    uint8_t size;
    bool mismatch; /* somebody came to that verdict */
};

extern struct disk disk;
extern struct map the_map;
extern struct actor actors[PARTICIPANTS_MOST];
extern const struct configuration *configured;

/* The store, the map and a session for each participant there can be. Once, before anything else. */
void schedule_prepare(void);

/*
 * Run one schedule of the configuration from its beginning to where nobody can go on, with as many preemptions at most.
 * @return NULL, or what was violated.
 */
const char *schedule_run(const struct configuration *wanted, unsigned preemptions, bool trace);

/* ---- For the roles ---- */

/* A step that is not in the code: others may come in between. */
void schedule_step(const char *name);
/* Wait until `may_go_on`. */
void schedule_wait(const char *name, bool (*may_go_on)(const struct actor *actor));

/* Is there something to settle, and has anything changed since `actor` last tried? */
bool schedule_may_settle(const struct actor *actor);

/* The checksum of the block as the disk has it, and of any. */
uint64_t sum_of(unsigned first, unsigned second);

/* What the participant does, from beginning to end. */
void role_play(struct actor *actor);

/* A sector of what the actor has issued reaches the disk; the file reaches as far as that. */
void role_land(struct actor *actor, unsigned sector);

#endif
