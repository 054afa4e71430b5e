/*
 * Regions and power cuts (shim/checksum/region.c), on one region of one block.
 *
 * Memory and disk are told apart: the region's word, its seal, the page with the block's words, and the content of the file reach the
 * disk when somebody asks for it, or at any moment of the kernel's choosing. Whatever the moment of a power cut: where the region is
 * clean on the disk, a checksum there is that of the content there. Where regions have seals, it is clean with the seal of its word only.
 */
#include "model/power_cut.h"

#include <string.h>

struct configuration power_cut;

static struct state *now;
static struct participant *me;
static unsigned self;

static bool is_word(struct word word)
{
    return now->word.unit == word.unit && now->word.dirty == word.dirty && now->word.durable == word.durable &&
           now->word.sequence == word.sequence;
}

/* ---- region.c: marking ---- */

static bool needs_marking(void)
{
    return now->word.unit && !now->word.durable;
}

void power_cut_sync_word(struct state *state)
{
    state->disk_unit = state->word.unit;
    state->disk_dirty = state->word.dirty;
    state->disk_sequence = power_cut.has_seals ? state->word.sequence : 0;
}

static void sync_state(struct state *state)
{
    power_cut_sync_word(state);
    state->disk_seal = state->seal;
}

void power_cut_sync_words(struct state *state)
{
    state->disk_current = state->current;
    state->disk_pending = state->pending;
}

static void set_dirty(void)
{
    now->word.dirty = true;
    if (kept(RULE_DIRTY_COUNTS))
        now->word.sequence++;
}

/* map_grow.c: a region that never had a unit gets one and DIRTY in one word, and is as good as DURABLE without being synced. */
static enum progress cover(void)
{
    BEGIN(me->at[1]);
    STEP("set units");
    me->word = now->word;
    now->word.unit = true;
    if (!me->word.unit && me->word.sequence == 0) {
        if (!kept(RULE_UNIT_IS_DIRTY))
            STEP("set DIRTY");
        set_dirty();
        me->word = now->word;
        STEP("OR DURABLE at once");
        if (is_word(me->word))
            now->word.durable = true;
    }
    END;
}

static enum progress make_durable(void)
{
    BEGIN(me->at[1]);
    STEP("DURABLE?");
    if (!needs_marking())
        LEAVE;
    STEP("set DIRTY");
    set_dirty();
    if (kept(RULE_DIRTY_IS_SYNCED)) {
        STEP("msync state");
        sync_state(now);
    }
    STEP("OR DURABLE");
    now->word.durable = true;
    END;
}

static enum progress marker(void)
{
    BEGIN(me->at[0]);
    STEP("DURABLE ahead?");
    if (needs_marking()) {
        STEP("set DIRTY");
        set_dirty();
        me->word = now->word;
        STEP("msync state");
        sync_state(now);
        STEP("OR DURABLE ahead");
        if (is_word(me->word))
            now->word.durable = true;
    }
    END;
}

/* ---- region.c: clearing ---- */

/* me->found: is anything in flight, or left pending? */
static enum progress look(void)
{
    BEGIN(me->at[1]);
    STEP("nothing in flight?");
    me->found = now->pending != IDLE;
    for (unsigned i = 0; i < power_cut.participants; i++)
        me->found |= now->who[i].in_flight;
    END;
}

static void take_durable_off(void)
{
    me->sole = now->word.durable;
    now->word.durable = false;
    if (kept(RULE_OFF_COUNTS))
        now->word.sequence++;
    me->word = now->word;
}

/* @return with me->found when something is under way. */
static enum progress begin_clearing(void)
{
    BEGIN(me->at[2]);
    if (!kept(RULE_DURABLE_OFF_FIRST))
        CALL(look());
    STEP("DURABLE off");
    me->found = !now->word.dirty;
    if (me->found)
        LEAVE;
    take_durable_off();
    if (kept(RULE_DURABLE_OFF_FIRST))
        CALL(look());
    if (!me->found)
        LEAVE;
    STEP("give DURABLE back");
    if (me->sole && is_word(me->word))
        now->word.durable = true;
    END;
}

static enum progress flush_data(void)
{
    BEGIN(me->at[1]);
    if (!kept(RULE_DATA_FLUSHED))
        LEAVE;
    STEP("fsync begins");
    me->content = now->content;
    STEP("fsync ends");
    if (now->disk_content != now->content)
        now->disk_content = me->content;
    me->content = 0;
    END;
}

static void take_dirty_off(void)
{
    me->sole = is_word(me->word);
    if (me->sole || (!kept(RULE_EXACT_WORD) && !now->word.durable))
        now->word.dirty = false;
}

static enum progress clearer(void)
{
    BEGIN(me->at[0]);
    CALL(begin_clearing());
    if (me->found)
        LEAVE;
    CALL(flush_data());
    if (kept(RULE_WORDS_FLUSHED)) {
        STEP("msync words");
        power_cut_sync_words(now);
    }
    STEP("CAS DIRTY off");
    take_dirty_off();
    END;
}

static bool seal_is_mine(void)
{
    return !now->seal.confirmed && now->seal.sequence == me->word.sequence;
}

static void confirm(void)
{
    uint8_t sequence = kept(RULE_CONFIRMS_OWN) ? me->word.sequence : now->word.sequence;
    if (seal_is_mine() || !kept(RULE_CONFIRMS_OWN))
        now->seal = (struct seal){.set = true, .confirmed = true, .sequence = sequence};
}

static enum progress sealer(void)
{
    BEGIN(me->at[0]);
    CALL(begin_clearing());
    if (me->found)
        LEAVE;
    CALL(flush_data());
    STEP("sum words");
    me->seal = now->seal;
    me->content = now->current;
    STEP("seal");
    if (!is_word(me->word) || memcmp(&now->seal, &me->seal, sizeof me->seal) != 0)
        LEAVE;
    now->seal = (struct seal){.set = true, .sequence = me->word.sequence, .current = me->content};
    STEP("CAS DIRTY off");
    take_dirty_off();
    me->content = 0;
    if (!me->sole) {
        STEP("take seal back");
        if (seal_is_mine())
            now->seal = me->seal;
        LEAVE;
    }
    if (kept(RULE_CONFIRMED_LAST)) {
        STEP("msync region");
        sync_state(now);
        power_cut_sync_words(now);
    }
    STEP("confirm seal");
    confirm();
    END;
}

/* ---- Requests: what they do to the block's words is in protocol.h's model; here it is enough that they change ---- */

static uint8_t new_content(void)
{
    return (uint8_t)(2 + self);
}

static void join_pending(uint8_t sum)
{
    me->sole = now->pending == IDLE;
    now->pending = me->sole ? sum : now->pending > CONTENDED ? now->pending + 1 : CONTENDED + 2;
}

static void leave_pending(void)
{
    now->pending = now->pending > CONTENDED + 1 ? now->pending - 1 : IDLE;
}

static enum progress publish(void)
{
    BEGIN(me->at[1]);
    if (me->sole) {
        STEP("current=new");
        now->current = me->content;
        STEP("CAS pending new->0");
        me->sole = now->pending == me->content;
        if (me->sole)
            now->pending = IDLE;
    }
    if (!me->sole) {
        STEP("current=unknown");
        now->current = UNKNOWN;
        STEP("count down");
        leave_pending();
    }
    END;
}

static enum progress writer(void)
{
    BEGIN(me->at[0]);
    if (power_cut.is_new)
        CALL(cover());
    if (!kept(RULE_ANNOUNCED_FIRST))
        CALL(make_durable());
    STEP("enter in-flight");
    me->in_flight = true;
    STEP("announce");
    me->content = new_content();
    join_pending(me->content);
    if (kept(RULE_ANNOUNCED_FIRST))
        CALL(make_durable());
    STEP("issue");
    now->content = me->content;
    CALL(publish());
    STEP("leave in-flight");
    END;
}

static enum progress mutator(void)
{
    BEGIN(me->at[0]);
    if (!kept(RULE_ANNOUNCED_FIRST))
        CALL(make_durable());
    STEP("enter in-flight");
    me->in_flight = true;
    if (kept(RULE_ANNOUNCED_FIRST))
        CALL(make_durable());
    STEP("call");
    now->content = new_content();
    STEP("pending->contended");
    now->pending = now->pending == IDLE || now->pending > CONTENDED ? now->pending : CONTENDED + 1;
    STEP("current=unknown");
    now->current = UNKNOWN; /* without a unit it is that already */
    STEP("leave in-flight");
    END;
}

static enum progress adopter(void)
{
    BEGIN(me->at[0]);
    STEP("read");
    me->content = now->content;
    if (power_cut.is_new)
        CALL(cover());
    STEP("enter in-flight");
    me->in_flight = true;
    STEP("announce");
    join_pending(me->content);
    if (kept(RULE_ADOPTER_MARKS))
        CALL(make_durable());
    STEP("read again");
    me->sole &= now->content == me->content;
    CALL(publish());
    STEP("leave in-flight");
    END;
}

static bool others_have_not_begun(void)
{
    bool begun = false;
    for (unsigned i = 0; i < power_cut.participants; i++)
        begun |= power_cut.role[i] == ADOPTER && (now->who[i].in_flight || now->who[i].content || now->who[i].finished);
    return !begun;
}

static enum progress outsider(void)
{
    BEGIN(me->at[0]);
    WAIT("writes without the shim", others_have_not_begun());
    now->content = new_content();
    END;
}

enum progress power_cut_step(struct state *state, unsigned index)
{
    static enum progress (*const roles[])(void) = {
        [WRITER] = writer, [MUTATOR] = mutator, [ADOPTER] = adopter, [OUTSIDER] = outsider,
        [MARKER] = marker, [CLEARER] = clearer, [SEALER] = sealer};
    now = state;
    self = index;
    me = &state->who[index];
    return roles[power_cut.role[index]]();
}
