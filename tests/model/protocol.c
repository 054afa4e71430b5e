/*
 * The search over the participants' steps, deaths and late landings; and what must never be.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "model/participant.h"

/* Steps that a participant needs at most when it runs alone. */
enum { ALONE_MOST = 200 };

const struct configuration *configuration;
struct state *now;
struct participant *me;
const struct part *my;

/* ---- Moves: steps of the participants, their deaths, and what reaches the disk after them ---- */

enum { MOVE_STEP, MOVE_DIE, MOVE_LAND, MOVES };

static enum progress run(void)
{
    static enum progress (*const roles[])(void) = {[WHOLE_WRITER] = whole_writer,
                                                   [PARTIAL_WRITER] = partial_writer,
                                                   [READER] = reader,
                                                   [ADOPTER] = adopter,
                                                   [MUTATOR] = mutator,
                                                   [TRUNCATOR] = mutator,
                                                   [SETTLER] = settler};
    return roles[my->role]();
}

static bool take_step(void)
{
    if (me->dead || me->finished)
        return false;
    enum progress progress = run();
    if (progress == FINISHED) {
        memset(me, 0, sizeof *me);
        me->finished = true;
    }
    return progress != BLOCKED;
}

/* A settler that waits for work need not die: nothing would come of it. */
static bool has_begun(void)
{
    struct participant fresh = {0}, *participant = me;
    me = &fresh;
    run();
    me = participant;
    return memcmp(&fresh, me, sizeof fresh) != 0;
}

static bool die(void)
{
    if (!my->may_die || me->dead || me->finished || now->deaths == configuration->deaths || !has_begun())
        return false;
    now->deaths++;
    abandon();
    *me = (struct participant){.dead = true, .flight = me->flight, .landing = me->landing};
    search_say("is killed");
    return true;
}

static bool land_late(void)
{
    if (!me->dead || me->landing == 0)
        return false;
    land(me, my);
    if (me->landing == 0)
        move_size(my);
    search_say("the disk writes, too late");
    return true;
}

static void choose_participant(void *state, unsigned index)
{
    now = state;
    me = &now->who[index];
    my = &configuration->part[index];
}

static bool move(void *state, unsigned mover)
{
    static bool (*const moves[])(void) = {[MOVE_STEP] = take_step, [MOVE_DIE] = die, [MOVE_LAND] = land_late};
    choose_participant(state, mover / MOVES);
    return moves[mover % MOVES]();
}

/* ---- What must never be ---- */

static bool is_waiting(const struct participant *participant)
{
    return participant->finished || (participant->dead && participant->flight == FREE && participant->landing == 0) ||
           (configuration->part[participant - now->who].role == SETTLER && !participant->dead && !settle_is_due() &&
            participant->flight == FREE && now->settler != participant - now->who + 1);
}

/* Is everybody done, and all that the dead have left settled? */
static bool is_quiet(void)
{
    bool quiet = true;
    for (unsigned i = 0; i < configuration->participants; i++)
        quiet &= is_waiting(&now->who[i]);
    return quiet;
}

/* Would one more writer of the whole block, alone, find and leave it idle? */
static bool returns_to_idle(void)
{
    static const struct part another = {.role = WHOLE_WRITER, .content = {3, 3}};
    struct state copy = *now, *kept_state = now;
    now = &copy;
    me = &copy.who[configuration->participants];
    my = &another;
    memset(me, 0, sizeof *me);
    for (unsigned steps = 0; steps < ALONE_MOST && take_step(); steps++)
        ;
    bool idle = me->finished && copy.pending == IDLE;
    now = kept_state;
    return idle;
}

/* When nobody else is at work: are the settlers, one after the other, able to settle all that the dead have left? */
static bool gets_settled(void)
{
    static struct state copy;
    struct state *kept_state = now;
    copy = *now;
    for (unsigned i = 0; i < configuration->participants; i++) {
        choose_participant(&copy, i);
        for (unsigned steps = 0; my->role == SETTLER && steps < ALONE_MOST && take_step(); steps++)
            ;
    }
    bool quiet = is_quiet();
    now = kept_state;
    return quiet;
}

static bool only_settlers_are_left(void)
{
    bool only = true, any = false;
    for (unsigned i = 0; i < configuration->participants; i++) {
        const struct participant *participant = &now->who[i];
        bool settles = configuration->part[i].role == SETTLER && !participant->dead;
        any |= settles;
        only &= settles || participant->finished || (participant->dead && participant->landing == 0);
    }
    return only && any;
}

static bool is_known(void)
{
    return now->current >= 1 && now->current <= SUM_LAST;
}

static const char *judge_quiet(void)
{
    const bool damaged = configuration->start == START_DAMAGED;
    bool holds_damage = now->disk[0] == DAMAGE || now->disk[1] == DAMAGE;
    bool is_true = now->current == sum_of(now->size > 0 ? now->disk[0] : 0, now->size > 1 ? now->disk[1] : 0);
    if (now->pending == IDLE && is_known() && !is_true && !damaged)
        return "an idle checksum is untrue";
    if (now->pending != IDLE && is_known())
        return "a known block is never idle again";
    if (damaged && is_known() && is_true && holds_damage)
        return "damage got a fresh checksum";
    if (now->count != 0 && now->deaths == 0)
        return "the count of mutators stays up";
    if (now->pending != IDLE && !returns_to_idle())
        return "a contended block cannot return to idle";
    return NULL;
}

static bool is_uncounted(void)
{
    unsigned mutators = 0;
    for (unsigned i = 0; i < configuration->participants; i++)
        mutators += now->who[i].flight == MUTATION;
    return now->count < mutators;
}

static const char *judge(const void *state, bool stuck)
{
    static struct state copy;
    memset(&copy, 0, sizeof copy);
    memcpy(&copy, state, offsetof(struct state, who) + configuration->participants * sizeof *copy.who);
    now = &copy;
    if (copy.false_mismatch && configuration->start != START_DAMAGED)
        return "a mismatch without damage";
    if (is_uncounted())
        return "a mutator is at work and not counted";
    if (is_quiet())
        return judge_quiet();
    if (only_settlers_are_left() && !gets_settled())
        return "what the dead have left is never settled";
    return stuck ? "deadlock" : NULL;
}

/* ---- Traces ---- */

static const char *word_text(uint8_t word)
{
    static char texts[2][16];
    static unsigned next;
    char *text = texts[next++ % 2];
    if (word == 0 || word == CLAIMED || word == POISON)
        snprintf(text, 16, "%s", word == 0 ? "0" : word == CLAIMED ? "claimed" : "poison");
    else if (word >= CONTENDED)
        snprintf(text, 16, "contended(%d)", word - CONTENDED);
    else
        snprintf(text, 16, "sum(%c%c)", "0abcx"[(word - 1) / CONTENTS], "0abcx"[(word - 1) % CONTENTS]);
    return text;
}

static void print(const void *state)
{
    const struct state *it = state;
    printf("current=%-9s pending=%-12s disk=%c%c", word_text(it->current), word_text(it->pending), "0abcx"[it->disk[0]],
           "0abcx"[it->disk[1]]);
    if (it->size < SECTORS)
        printf(" size=%d", it->size);
    if (it->count > 0)
        printf(" count=%d", it->count);
    putchar('\n');
}

static const char *mover_name(unsigned mover)
{
    static char text[24];
    static const char *const roles[] = {
        [WHOLE_WRITER] = "whole", [PARTIAL_WRITER] = "partial", [READER] = "reader",  [ADOPTER] = "adopter",
        [MUTATOR] = "mutator",    [TRUNCATOR] = "truncator",    [SETTLER] = "settler"};
    snprintf(text, sizeof text, "%s %u", roles[configuration->part[mover / MOVES].role], mover / MOVES);
    return text;
}

/* ---- The search ---- */

static void start(struct state *first)
{
    enum { A = 1 };
    memset(first, 0, sizeof *first);
    first->size = configuration->start == START_EMPTY ? 0 : configuration->start == START_SHORT ? 1 : 2;
    for (unsigned sector = 0; sector < first->size; sector++)
        first->disk[sector] = A;
    if (configuration->start != START_UNKNOWN && first->size > 0)
        first->current = sum_of(first->disk[0], first->disk[1]);
    if (configuration->start == START_DAMAGED)
        first->disk[0] = DAMAGE;
    /* To the first step of each: nobody sees anything of that. */
    for (unsigned i = 0; i < configuration->participants; i++) {
        choose_participant(first, i);
        run();
    }
}

struct search_result protocol_search(const struct configuration *wanted)
{
    const struct search search = {
        .bytes = offsetof(struct state, who) + wanted->participants * sizeof(struct participant),
        .movers = wanted->participants * MOVES,
        .limit = wanted->limit,
        .move = move,
        .judge = judge,
        .print = print,
        .mover_name = mover_name,
    };
    struct state first;
    configuration = wanted;
    start(&first);
    return search_run(&search, &first, wanted->trace);
}
