/*
 * Mutators. Beside shim/checksum/mutate.c.
 */
#include "model/participant.h"

enum progress mutate_unknown(void)
{
    BEGIN(me->at[1]);
    if (!kept(RULE_PENDING_FIRST)) {
        STEP("current=unknown");
        now->current = UNKNOWN;
    }
    STEP("pending->contended");
    now->pending = mutated(now->pending);
    if (kept(RULE_PENDING_FIRST)) {
        STEP("current=unknown");
        now->current = UNKNOWN;
    }
    END;
}

static enum progress enter(void)
{
    BEGIN(me->at[1]);
    if (kept(RULE_COUNT_OUTSIDE)) {
        STEP("raise count");
        now->count++;
    }
    STEP("enter in-flight");
    me->flight = MUTATION;
    if (!kept(RULE_COUNT_OUTSIDE)) {
        STEP("raise count");
        now->count++;
    }
    END;
}

static enum progress leave(void)
{
    BEGIN(me->at[1]);
    if (!kept(RULE_COUNT_OUTSIDE)) {
        STEP("lower count");
        now->count--;
    }
    STEP("leave in-flight");
    me->flight = FREE;
    if (kept(RULE_COUNT_OUTSIDE)) {
        STEP("lower count");
        now->count--;
    }
    END;
}

enum progress mutator(void)
{
    BEGIN(me->at[0]);
    CALL(enter());
    STEP("call");
    if (my->role == TRUNCATOR) {
        now->size = now->disk[0] = now->disk[1] = 0;
    } else {
        me->round = BOTH;
        while (me->round != 0) {
            STEP("the disk empties a sector");
            bool second = me->round == BOTH ? search_choose(SECTORS) == 1 : me->round == 2;
            me->round &= second ? 1 : 2;
            now->disk[second] = 0;
        }
    }
    CALL(mutate_unknown());
    CALL(leave());
    END;
}
