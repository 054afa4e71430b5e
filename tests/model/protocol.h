/*
 * The protocol of the map (shim/checksum: announce, question, mutate, settle), on one block of two sectors.
 *
 * Each participant is a process with a session of its own. Its steps are those of the code, in the same order and named alike.
 */
#ifndef BOUNCEIO_TESTS_MODEL_PROTOCOL_H
#define BOUNCEIO_TESTS_MODEL_PROTOCOL_H

#include <stdint.h>

#include "model/search.h"

enum { PARTICIPANTS_MOST = 5 + 1 /* and one that the search adds */ };

enum role {
    WHOLE_WRITER,   /* writes the block */
    PARTIAL_WRITER, /* writes one sector of it */
    READER,         /* reads it, verifies, asks */
    ADOPTER,        /* reads it, and gives it the checksum of its content when it has none */
    MUTATOR,        /* empties it without a checksum */
    TRUNCATOR,      /* the same, and the file ends before it */
    SETTLER,        /* settles what the dead have left, as often as there is something */
};

struct part {
    enum role role;
    uint8_t content[2]; /* WHOLE_WRITER: of the sectors. PARTIAL_WRITER: content[sector] */
    uint8_t sector;     /* PARTIAL_WRITER: which one */
    bool may_die;       /* at any step */
    bool asynchronous;  /* what it has issued may reach the disk after its death */
    bool may_fail;      /* its request may be refused, or fail half-way */
};

/* The rules that the search can do without, to see what each is good for. */
enum rule {
    RULE_CLAIM_ORPHANS = 1 << 0,        /* an orphan goes by way of "claimed", and a second look */
    RULE_DEAD_COUNT = 1 << 1,           /* requests of the dead count as live until they are settled */
    RULE_MUTATORS_FIRST = 1 << 2,       /* a question looks at mutators, current, pending, in that order */
    RULE_CURRENT_STANDS = 1 << 3,       /* a question looks whether current is still what it announced */
    RULE_PENDING_FIRST = 1 << 4,        /* a mutator makes pending contended before current unknown */
    RULE_COUNT_OUTSIDE = 1 << 5,        /* a mutator's count is raised before it enters, lowered after it has left */
    RULE_EDGE_ANNOUNCES_SUM = 1 << 6,   /* a partial writer announces its sum before it publishes */
    RULE_EDGE_DECIDES = 1 << 7,         /* a partial writer is as careful about a mismatch as a question */
    RULE_EDGE_BASE_STANDS = 1 << 8,     /* a partial writer publishes only over the current that it read the block by */
    RULE_SIZE_TWICE = 1 << 9,           /* who writes at the end of the file looks at its size again after announcing */
    RULE_BARRIER = 1 << 10,             /* a settler waits for the end of what the dead have issued */
    RULE_SETTLE_LOCK = 1 << 11,         /* a map has one settler at a time */
    RULE_SEIZED_ARE_LEFT_OUT = 1 << 12, /* when a settler looks for others, it does not meet those whom it settles */
    RULE_DROP_BEFORE_COUNT = 1 << 13,   /* a dead mutator's entry is dropped before the count is lowered */
};

enum start { START_KNOWN, START_UNKNOWN, START_DAMAGED, START_SHORT, START_EMPTY, STARTS };

struct configuration {
    unsigned participants;
    struct part part[PARTICIPANTS_MOST];
    enum start start;
    unsigned deaths; /* at most */
    unsigned broken; /* rules that are not kept */
    size_t limit;    /* states */
    bool trace;
};

/* @return what search_run returns. */
struct search_result protocol_search(const struct configuration *configuration);

#endif
