/*
 * Writers. Beside shim/checksum/announce.c, and engine/write.c for the order of things.
 */
#include "model/participant.h"

/* The word is not idle, and no live request was seen over the block. */
static enum progress claim_orphan(void)
{
    BEGIN(me->at[2]);
    CALL(look(false));
    if (me->found) {
        STEP("CAS claimed->contended(2)");
        compare_and_swap(&now->pending, kept(RULE_CLAIM_ORPHANS) ? CLAIMED : me->mine, CONTENDED + 2);
    } else if (kept(RULE_CLAIM_ORPHANS)) {
        STEP("CAS claimed->new");
        me->sole = compare_and_swap(&now->pending, CLAIMED, me->mine);
    } else {
        me->sole = true;
    }
    END;
}

/* Put me->mine into the pending word, or join whoever is there. me->sole: sole owner? */
static enum progress take_pending(void)
{
    BEGIN(me->at[1]);
    me->sole = false;
    for (;;) {
        STEP("CAS pending 0->new");
        me->sole = compare_and_swap(&now->pending, IDLE, me->mine);
        if (me->sole)
            break;
        me->seen = now->pending;
        CALL(look(false));
        if (me->found) {
            STEP("CAS ->contended(n+1)");
            if (compare_and_swap(&now->pending, me->seen, joined(me->seen)))
                break;
        } else {
            STEP("CAS orphan->claimed");
            if (compare_and_swap(&now->pending, me->seen, kept(RULE_CLAIM_ORPHANS) ? CLAIMED : me->mine)) {
                me->seen = 0;
                CALL(claim_orphan());
                break;
            }
        }
    }
    me->seen = 0;
    me->found = false;
    END;
}

static enum progress forget_block(void)
{
    BEGIN(me->at[2]);
    STEP("current=unknown");
    now->current = UNKNOWN;
    STEP("count down");
    count_down();
    END;
}

static enum progress publish_block(void)
{
    BEGIN(me->at[1]);
    STEP("publish");
    me->mine = now->pending;
    me->found = !is_sum(me->mine);
    if (!me->found)
        CALL(check_mutators());
    if (me->found) {
        CALL(forget_block());
    } else {
        STEP("current=new");
        now->current = me->mine;
        STEP("CAS pending new->0");
        if (!compare_and_swap(&now->pending, me->mine, IDLE))
            CALL(forget_block());
    }
    END;
}

enum progress whole_writer(void)
{
    BEGIN(me->at[0]);
    STEP("enter in-flight");
    me->flight = WRITE;
    me->mine = sum_of(my->content[0], my->content[1]);
    CALL(take_pending());
    me->mine = 0;
    CALL(transfer());
    if (me->refused) {
        STEP("withdraw");
        count_down();
    } else if (me->failed) {
        CALL(forget_block());
    } else {
        CALL(publish_block());
    }
    STEP("leave in-flight");
    END;
}

/* As engine/decide.c gives a block the checksum of its content: it reads again what it has announced. */
enum progress adopter(void)
{
    BEGIN(me->at[0]);
    CALL(read_block());
    STEP("load current");
    if (now->current == UNKNOWN) {
        me->mine = sum_as_read();
        STEP("enter in-flight");
        me->flight = ADOPTION;
        CALL(take_pending());
        CALL(read_block());
        if (sum_as_read() == me->mine)
            CALL(publish_block());
        else
            CALL(forget_block());
        STEP("leave in-flight");
    }
    END;
}

/* ---- Blocks of which only a part is written ---- */

/* Where the file never ends in the block nobody need look at its size. */
static bool file_grows(void)
{
    return configuration->start == START_SHORT || configuration->start == START_EMPTY;
}

static bool rest_is_beyond_end(void)
{
    return (my->sector == 0 || now->size == 0) && (my->sector == 1 || now->size <= 1);
}

/* The whole block's new checksum, over the rest as it was read. */
static uint8_t sum_overlaid(void)
{
    return my->sector == 0 ? sum_of(my->content[0], me->sector[1]) : sum_of(me->sector[0], my->content[1]);
}

/* Is a difference a mismatch? Then the block is poisoned. Otherwise the rest of it is not vouched for. */
static enum progress edge_decide(void)
{
    BEGIN(me->at[1]);
    STEP("block as read differs: decide");
    CALL(check_mutators());
    if (!me->found && kept(RULE_EDGE_DECIDES)) {
        me->found = !me->sole;
        if (!me->found) {
            STEP("pending still exactly that");
            me->found = now->pending != CONTENDED + 1;
        }
        if (!me->found) {
            STEP("current still that");
            me->found = now->current != me->base;
        }
    }
    if (!me->found) {
        STEP("poison");
        me->poisoned = compare_and_swap(&now->current, me->base, POISON);
        now->false_mismatch |= me->poisoned;
    }
    if (!me->poisoned)
        me->base = UNKNOWN;
    me->found = false;
    END;
}

static enum progress edge_forget_as(void)
{
    BEGIN(me->at[2]);
    STEP("current=unknown");
    now->current = UNKNOWN;
    STEP("release");
    if (!compare_and_swap(&now->pending, me->mine, IDLE)) {
        STEP("count down");
        count_down();
    }
    END;
}

static enum progress edge_publish(void)
{
    BEGIN(me->at[1]);
    me->mine = sum_overlaid();
    STEP("CAS contended(1)->newsum");
    if (!me->sole || me->base == UNKNOWN ||
        (kept(RULE_EDGE_ANNOUNCES_SUM) ? !compare_and_swap(&now->pending, CONTENDED + 1, me->mine)
                                       : now->pending != CONTENDED + 1)) {
        CALL(forget_block());
        me->mine = 0;
        LEAVE;
    }
    if (!kept(RULE_EDGE_ANNOUNCES_SUM)) {
        me->seen = me->mine;
        me->mine = CONTENDED + 1;
    }
    CALL(check_mutators());
    if (!me->found && kept(RULE_EDGE_BASE_STANDS)) {
        STEP("current still that");
        me->found = now->current != me->base;
    }
    if (me->found) {
        CALL(edge_forget_as());
        LEAVE;
    }
    STEP("current=newsum");
    now->current = kept(RULE_EDGE_ANNOUNCES_SUM) ? me->mine : me->seen;
    STEP("CAS newsum->0");
    if (!compare_and_swap(&now->pending, me->mine, IDLE))
        CALL(forget_block());
    END;
}

enum progress partial_writer(void)
{
    BEGIN(me->at[0]);
    STEP("enter in-flight");
    me->flight = WRITE;
    if (file_grows()) {
        STEP("look at the size");
        me->whole = rest_is_beyond_end();
    }
    me->mine = me->whole ? sum_overlaid() : CONTENDED + 1;
    CALL(take_pending());
    if (me->whole && kept(RULE_SIZE_TWICE)) {
        STEP("look at the size");
        if (!rest_is_beyond_end()) {
            me->whole = false;
            STEP("CAS sum->contended(1)");
            me->sole = me->sole && compare_and_swap(&now->pending, me->mine, CONTENDED + 1);
        }
    }
    me->mine = 0;
    if (!me->whole) {
        STEP("load current");
        me->base = now->current;
        if (me->base != UNKNOWN)
            CALL(read_block());
        if (me->base != UNKNOWN && sum_as_read() != me->base)
            CALL(edge_decide());
    }
    CALL(transfer());
    if (me->refused) {
        STEP("withdraw");
        count_down();
    } else if (me->poisoned) {
        STEP("count down");
        count_down();
    } else if (me->failed) {
        CALL(forget_block());
    } else if (me->whole) {
        CALL(publish_block());
    } else {
        CALL(edge_publish());
    }
    STEP("leave in-flight");
    END;
}
