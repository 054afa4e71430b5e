/*
 * Actors: programs of their own under the shim, which do one thing at a time, as they are told, and stop or die where they are told.
 *
 * An actor is this test program in the mode --actor (list ACTOR_MODE among the modes), run with the steps build of the shim. The test
 * itself stays outside: it directs, and looks at the content behind the shim's back.
 */
#ifndef BOUNCEIO_TESTS_ACTOR_H
#define BOUNCEIO_TESTS_ACTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bounceio.h"
#include "support/support.h"

enum act {
    ACT_OPEN,     /* text: path. O_DIRECT; the file that everything below is done to */
    ACT_CLOSE,    /* that file */
    ACT_WRITE,    /* the pattern `seed` to [offset, offset + length), directly */
    ACT_APPEND,   /* length bytes of the pattern `seed`, directly, by O_APPEND */
    ACT_BUFFERED, /* ACT_WRITE without O_DIRECT */
    ACT_TRUNCATE, /* to `length` */
    ACT_PUNCH,    /* a hole */
    ACT_FSYNC,
    ACT_MAP,            /* a shared mapping, writable, made and undone */
    ACT_READ,           /* directly; the answer has the hash of what was read */
    ACT_SURVEY,         /* read block by block; the answer's text is one letter for each: see actor_survey */
    ACT_STOP,           /* text: BOUNCEIO_TEST_STOP from here on, "" for none */
    ACT_FORK,           /* a child that does nothing and does not end; the result is its pid, to be killed */
    ACT_FORK_AND_WRITE, /* a child that does ACT_WRITE and leaves; the result is its exit status */
    ACT_LEAVE           /* exit(3) */
};

struct order {
    enum act act;
    uint64_t seed, offset, length;
    char text[4200];
};

enum { ACTOR_SURVEY = 512 };

struct answer {
    int64_t result; /* of the call, or -1 */
    int error;      /* errno */
    uint64_t hash;
    struct bounceio_stats stats;
    char survey[ACTOR_SURVEY + 1];
};

struct actor {
    pid_t pid; /* 0: gone */
    int wire;
};

/* Does the run have what actors need: the shim, built with steps? Otherwise says that the test is skipped. */
bool actors_can_play(void);

/* A new actor. `environment` as in child_run: its store, its boot id, where it stops from the start. */
struct actor actor_new(const char *const *environment);

/* Have it done. @return false when the actor died of it (by SIGKILL; any other end fails the test). */
bool actor_survives(struct actor *actor, const struct order *order, struct answer *answer);
/* The same; dying fails the test. */
struct answer actor_do(struct actor *actor, const struct order *order);
/* The same; a result of -1 fails the test as well. */
void actor_does(struct actor *actor, const struct order *order);

/* Begin, and do something else meanwhile; the answer comes from actor_finish. */
void actor_begin(struct actor *actor, const struct order *order);
struct answer actor_finish(struct actor *actor);
/* Wait until the actor has stopped itself; let it go on. */
void actor_await_stop(struct actor *actor);
void actor_continue(struct actor *actor);

void actor_leaves(struct actor *actor);
void actor_is_killed(struct actor *actor);

/* Shorthands. Ranges are in blocks. */
void actor_opens(struct actor *actor, const char *path);
void actor_writes(struct actor *actor, uint64_t seed, uint64_t first, uint64_t blocks);
void actor_stops_at(struct actor *actor, const char *where);

/*
 * Read block by block what the file has of the first `blocks`: v verified, u unverified, o adopted as changed outside, r adopted as
 * recovered after a power cut, E damaged (EIO, counted as mismatch), e another error, - beyond the end.
 */
struct answer actor_survey(struct actor *actor, uint64_t blocks);

/* The same by a new actor, which then leaves. */
struct answer survey_of(const char *const *environment, const char *path, uint64_t blocks);

#define ACTOR_MODE                                                                                                     \
    {                                                                                                                  \
        "--actor", actor_main                                                                                          \
    }
int actor_main(int argc, char **argv);

/* A store of its own in a new directory below the run's scratch: "BOUNCEIO_STORE=...", in one of 64 rotating buffers. */
const char *store_variable(const char *directory);

#endif
