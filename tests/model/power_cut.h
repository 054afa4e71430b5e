/*
 * What the model of regions and power cuts is made of: power_cut.c says what participants do, power_cut_runs.c what is searched.
 */
#ifndef BOUNCEIO_TESTS_MODEL_POWER_CUT_H
#define BOUNCEIO_TESTS_MODEL_POWER_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/steps.h"

enum { PARTICIPANTS_MOST = 5 };

/* A block's words; content n has the checksum n. */
enum { IDLE = 0, UNKNOWN = 0, CONTENDED = 100 };

enum role {
    WRITER,   /* writes the block */
    MUTATOR,  /* changes it without a checksum */
    ADOPTER,  /* gives it the checksum of its content */
    OUTSIDER, /* changes it without the shim, before all others */
    MARKER,   /* marks the region ahead of a sequential writer, without having anything in flight in it */
    CLEARER,  /* makes it clean, if it can */
    SEALER,   /* likewise, with a seal, and a single flush of the map */
};

enum rule {
    RULE_ANNOUNCED_FIRST = 1 << 0,   /* a request is in flight before it looks for DURABLE */
    RULE_DIRTY_IS_SYNCED = 1 << 1,   /* DIRTY is on disk before DURABLE is said */
    RULE_DIRTY_COUNTS = 1 << 2,      /* "set DIRTY" has a new sequence number */
    RULE_OFF_COUNTS = 1 << 3,        /* so has "DURABLE off": no two clearers remember the same word */
    RULE_DURABLE_OFF_FIRST = 1 << 4, /* a clearer takes DURABLE off before it looks for requests in flight */
    RULE_DATA_FLUSHED = 1 << 5,      /* a clearer flushes the content */
    RULE_WORDS_FLUSHED = 1 << 6,     /* a clearer flushes the block's words */
    RULE_EXACT_WORD = 1 << 7,        /* a clearer takes DIRTY off from exactly the word that it remembers */
    RULE_ADOPTER_MARKS = 1 << 8,     /* an adopter makes the region durable-dirty as a writer does */
    RULE_UNIT_IS_DIRTY = 1 << 9,     /* a region's first unit comes with DIRTY, in one word */
    RULE_SEAL_SUMS = 1 << 10,        /* a seal tells what the words are, */
    RULE_SEAL_COUNTS = 1 << 11,      /* of one sequence number, */
    RULE_CONFIRMED_LAST = 1 << 12,   /* until they are on the disk; */
    RULE_CONFIRMS_OWN = 1 << 13      /* and is confirmed of the same number */
};

/* The region's word. */
struct word {
    bool unit : 1, dirty : 1, durable : 1; /* unit: the block has words */
    uint8_t sequence;
};

/* Whatever the words are (confirmed), or just these. */
struct seal {
    bool set : 1, confirmed : 1;
    uint8_t sequence, current;
};

struct participant {
    uint8_t at[3];
    bool in_flight : 1, finished : 1, sole : 1, found : 1;
    struct word word;
    struct seal seal;
    uint8_t content;
};

struct state {
    struct word word;
    struct seal seal, disk_seal;
    bool disk_unit, disk_dirty;
    uint8_t disk_sequence;
    uint8_t current, pending, disk_current, disk_pending;
    uint8_t content, disk_content;
    struct participant who[PARTICIPANTS_MOST];
};

struct configuration {
    enum role role[PARTICIPANTS_MOST];
    unsigned participants, broken;
    bool is_new;    /* the region has no unit in the beginning */
    bool has_seals; /* it is of one of the smaller windows */
};

extern struct configuration power_cut;

/* Is a rule kept in this search? */
static inline bool kept(enum rule rule)
{
    return !(power_cut.broken & rule);
}

/* Participant `index` takes its next step. */
enum progress power_cut_step(struct state *state, unsigned index);

/* What lies in memory reaches the disk. */
void power_cut_sync_word(struct state *state);
void power_cut_sync_words(struct state *state);

#endif
