/*
 * Readers. Beside shim/checksum/question.c.
 */
#include "model/participant.h"

/* me->found: is it decided, or not to be decided? */
static enum progress judge(void)
{
    BEGIN(me->at[1]);
    CALL(read_block());
    me->found = sum_as_read() == me->mine;
    if (!me->found && kept(RULE_MUTATORS_FIRST))
        CALL(check_mutators());
    if (me->found)
        me->round = 1;
    if (!me->found && kept(RULE_CURRENT_STANDS)) {
        STEP("current still that");
        me->found = now->current != me->mine;
    }
    if (!me->found) {
        STEP("pending still exactly that");
        me->found = now->pending != me->mine;
    }
    if (!me->found && !kept(RULE_MUTATORS_FIRST))
        CALL(check_mutators());
    now->false_mismatch |= !me->found;
    me->sector[0] = me->sector[1] = 0;
    END;
}

enum progress reader(void)
{
    BEGIN(me->at[0]);
    CALL(read_block());
    STEP("load pending");
    me->seen = now->pending;
    STEP("load current");
    me->mine = now->current;
    me->round = ROUNDS;
    if (sum_as_read() == me->seen || sum_as_read() == me->mine || me->mine == UNKNOWN || is_contended(me->seen) ||
        me->seen == CLAIMED)
        me->round = 0;
    me->seen = me->sector[0] = me->sector[1] = 0;
    for (; me->round > 0; me->round--) {
        STEP("load current");
        me->mine = now->current;
        if (me->mine == UNKNOWN)
            break;
        STEP("enter in-flight");
        me->flight = QUESTION;
        STEP("CAS pending 0->current");
        if (compare_and_swap(&now->pending, IDLE, me->mine)) {
            CALL(judge());
            STEP("release");
            if (!compare_and_swap(&now->pending, me->mine, IDLE)) {
                STEP("count down");
                count_down();
            }
        }
        STEP("leave in-flight");
        me->flight = FREE;
        me->mine = me->found = 0;
    }
    END;
}
