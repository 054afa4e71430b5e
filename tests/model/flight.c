/*
 * Looking at the tables of requests in flight, one session after the other.
 */
#include "model/participant.h"

static bool counts(const struct participant *other, bool mutators_only)
{
    if (other->flight == FREE || (mutators_only && other->flight != MUTATION))
        return false;
    if ((me->held >> (other - now->who) & 1) && kept(RULE_SEIZED_ARE_LEFT_OUT))
        return false;
    return !other->dead || kept(RULE_DEAD_COUNT);
}

/* Sessions that never have such an entry need no look. */
static bool is_worth_a_look(unsigned slot, bool mutators_only)
{
    enum role role = configuration->part[slot].role;
    return &now->who[slot] != me && (!mutators_only || role == MUTATOR || role == TRUNCATOR);
}

enum progress look(bool mutators_only)
{
    BEGIN(me->at[3]);
    me->found = false;
    for (me->slot = 0; me->slot < configuration->participants && !me->found; me->slot++) {
        if (!is_worth_a_look(me->slot, mutators_only))
            continue;
        STEP("look at a session");
        me->found = counts(&now->who[me->slot], mutators_only);
    }
    me->slot = 0;
    END;
}

enum progress check_mutators(void)
{
    BEGIN(me->at[2]);
    STEP("check mutators");
    me->found = now->count != 0;
    if (me->found)
        CALL(look(true));
    END;
}
