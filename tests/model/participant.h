/*
 * What the files of the model share: the state, and the functions that are called from more than one of them.
 *
 * Each file stands beside the one of its name in shim/checksum/.
 */
#ifndef BOUNCEIO_TESTS_MODEL_PARTICIPANT_H
#define BOUNCEIO_TESTS_MODEL_PARTICIPANT_H

#include "model/protocol.h"
#include "model/steps.h"

enum { ROUNDS = 2, SECTORS = 2, BOTH = 3, CONTENTS = 5, DAMAGE = 4 };

/* Words, as in shim/checksum/word.h; checksums are 1 .. 25. */
enum { IDLE = 0, UNKNOWN = 0, SUM_LAST = CONTENTS * CONTENTS, CONTENDED = 100, CLAIMED = 200, POISON = 250 };

enum flight { FREE, WRITE, QUESTION, ADOPTION, MUTATION, SETTLING };

struct participant {
    uint8_t at[4]; /* where its function is, and those that are called from there */
    uint8_t flight;
    uint8_t landing; /* sectors that have been issued and have not reached the disk */
    bool dead : 1, finished : 1;
    /* Locals. */
    bool sole : 1, found : 1, whole : 1, poisoned : 1, failed : 1, refused : 1, issued : 1;
    uint8_t mine, seen, base, sector[SECTORS], slot, round, held, entry;
};

struct state {
    uint8_t current, pending;
    uint8_t disk[SECTORS];
    uint8_t size;    /* of the file, in sectors of this block */
    uint8_t count;   /* mutators at work */
    uint8_t settler; /* who settles, + 1 */
    uint8_t deaths;
    bool false_mismatch;
    struct participant who[PARTICIPANTS_MOST];
};

/* What is being searched; the state in which a step is taken; who takes it, and what it is configured to do. */
extern const struct configuration *configuration;
extern struct state *now;
extern struct participant *me;
extern const struct part *my;

/* Is the rule kept in this search? */
static inline bool kept(enum rule rule)
{
    return !(configuration->broken & rule);
}

/* ---- Words, as in word.h ---- */

static inline uint8_t sum_of(unsigned first, unsigned second)
{
    return (uint8_t)(1 + first * CONTENTS + second);
}

static inline bool is_contended(uint8_t word)
{
    return word >= CONTENDED && word < CLAIMED;
}

static inline bool is_sum(uint8_t word)
{
    return (word >= 1 && word <= SUM_LAST) || word == POISON;
}

static inline bool compare_and_swap(uint8_t *word, uint8_t expected, uint8_t desired)
{
    if (*word != expected)
        return false;
    *word = desired;
    return true;
}

static inline uint8_t joined(uint8_t pending)
{
    if (pending == CLAIMED)
        return CONTENDED + 3;
    return is_contended(pending) ? (uint8_t)(pending + 1) : CONTENDED + 2;
}

static inline void count_down(void)
{
    uint8_t seen = now->pending;
    if (seen == CLAIMED)
        now->pending = CONTENDED + 1;
    else if (is_contended(seen) && seen > CONTENDED + 1)
        now->pending = (uint8_t)(seen - 1);
    else
        now->pending = IDLE;
}

static inline uint8_t mutated(uint8_t pending)
{
    if (pending == CLAIMED)
        return CONTENDED + 2;
    return is_sum(pending) ? CONTENDED + 1 : pending;
}

/* ---- The roles ---- */

enum progress whole_writer(void);
enum progress partial_writer(void);
enum progress reader(void);
enum progress adopter(void);
enum progress mutator(void);
enum progress settler(void);

/* Is there something to settle, and nobody at it? What a settler waits for. */
bool settle_is_due(void);

/* ---- flight.c ---- */

/* me->found: is there another request (or only: a mutator) over the block? */
enum progress look(bool mutators_only);

/* me->found: does a mutator cover the block? */
enum progress check_mutators(void);

/* ---- disk.c ---- */

/* me->sector: the block's content, read not all at once. */
enum progress read_block(void);
uint8_t sum_as_read(void);

/* Write what is announced. me->failed: not all of it was written; me->refused: nothing was. */
enum progress transfer(void);

/* A sector of what the writer has issued reaches the disk. */
void land(struct participant *writer, const struct part *part);

/* `me` has died: what becomes of its request. */
void abandon(void);

/* The file reaches as far as what was written. */
void move_size(const struct part *part);

/* ---- mutate.c ---- */

enum progress mutate_unknown(void);

#endif
