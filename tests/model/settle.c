/*
 * Settlers. Beside shim/checksum/settle.c.
 */
#include "model/participant.h"

static bool has_died_owing(const struct participant *other)
{
    return other->dead && other->flight != FREE;
}

bool settle_is_due(void)
{
    bool due = false;
    for (unsigned i = 0; i < configuration->participants; i++)
        due |= has_died_owing(&now->who[i]);
    return due && (now->settler == 0 || now->who[now->settler - 1].dead || !kept(RULE_SETTLE_LOCK));
}

static bool is_over(const struct participant *request)
{
    return request->landing == 0 || !kept(RULE_BARRIER);
}

/* Nobody has the block but the orphan, me->seen, which is claimed. What is in it? */
static enum progress judge_orphan(void)
{
    BEGIN(me->at[2]);
    STEP("load current");
    me->base = now->current;
    me->found = me->seen == me->base && is_sum(me->seen);
    if (!me->found) {
        CALL(read_block());
        if (sum_as_read() == me->seen) {
            STEP("current=pending");
            now->current = me->seen;
            me->found = true;
        } else {
            me->found = sum_as_read() == me->base;
        }
        me->sector[0] = me->sector[1] = me->base = 0;
    }
    if (!me->found) {
        STEP("current=unknown");
        now->current = UNKNOWN;
    }
    STEP("CAS claimed->0");
    if (!compare_and_swap(&now->pending, kept(RULE_CLAIM_ORPHANS) ? CLAIMED : me->seen, IDLE)) {
        STEP("current=unknown");
        now->current = UNKNOWN;
        STEP("count down");
        count_down();
    }
    me->base = 0;
    END;
}

/* me->whole: is the block settled? Otherwise somebody else is at it: later. */
static enum progress settle_block(void)
{
    BEGIN(me->at[1]);
    STEP("load pending");
    me->seen = now->pending;
    CALL(look(false));
    me->whole = !me->found;
    if (me->found || me->seen == IDLE)
        LEAVE;
    if (kept(RULE_CLAIM_ORPHANS)) {
        STEP("CAS orphan->claimed");
        me->whole = compare_and_swap(&now->pending, me->seen, CLAIMED);
        if (!me->whole)
            LEAVE;
        CALL(look(false));
    }
    if (me->found) {
        STEP("current=unknown");
        now->current = UNKNOWN;
        STEP("count down");
        count_down();
    } else {
        CALL(judge_orphan());
    }
    END;
}

enum progress settler(void)
{
    BEGIN(me->at[0]);
    for (;;) {
        WAIT("settle try-lock", settle_is_due());
        now->settler = (uint8_t)(me - now->who + 1);
        for (me->entry = 0; me->entry < configuration->participants; me->entry++) {
            if (!configuration->part[me->entry].may_die || &now->who[me->entry] == me)
                continue;
            STEP("seize the dead");
            if (has_died_owing(&now->who[me->entry]))
                me->held |= (uint8_t)(1U << me->entry);
        }
        for (me->entry = 0; me->entry < configuration->participants; me->entry++)
            if ((me->held >> me->entry & 1) && now->who[me->entry].landing != 0)
                WAIT("barrier", is_over(&now->who[me->entry]));
        for (me->entry = 0; me->entry < configuration->participants; me->entry++) {
            if (!(me->held >> me->entry & 1) || now->who[me->entry].flight == FREE)
                continue;
            if (now->who[me->entry].flight == MUTATION) {
                CALL(mutate_unknown());
                if (!kept(RULE_DROP_BEFORE_COUNT)) {
                    STEP("lower count");
                    now->count--;
                }
                STEP("drop dead entry");
                now->who[me->entry].flight = FREE;
                if (kept(RULE_DROP_BEFORE_COUNT)) {
                    STEP("lower count");
                    now->count--;
                }
                continue;
            }
            STEP("enter in-flight");
            me->flight = SETTLING;
            CALL(settle_block());
            if (me->whole) {
                STEP("drop dead entry");
                now->who[me->entry].flight = FREE;
            }
            STEP("leave in-flight");
            me->flight = FREE;
            me->seen = me->whole = me->found = 0;
        }
        STEP("unlock");
        now->settler = 0;
        me->entry = me->held = 0;
    }
    END;
}
