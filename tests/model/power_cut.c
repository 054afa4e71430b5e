/*
 * Regions and power cuts (shim/checksum/region.c), on one region of one block.
 *
 * Memory and disk are told apart: the page with the region's word, the page with the block's words, and the content of the file reach the
 * disk when somebody asks for it, or at any moment of the kernel's choosing. Whatever the moment of a power cut: where the region is
 * clean on the disk, a checksum there is that of the content there.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/runs.h"
#include "model/steps.h"

enum { PARTICIPANTS_MOST = 5, LIMIT = 24000000 };

/* A block's words; content n has the checksum n. */
enum { IDLE = 0, UNKNOWN = 0, CONTENDED = 100 };

enum role {
    WRITER,   /* writes the block */
    MUTATOR,  /* changes it without a checksum */
    ADOPTER,  /* gives it the checksum of its content */
    OUTSIDER, /* changes it without the shim, before all others */
    MARKER,   /* marks the region ahead of a sequential writer, without having anything in flight in it */
    CLEARER,  /* makes it clean, if it can */
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
};

/* The region's word. */
struct word {
    bool unit : 1, dirty : 1, durable : 1; /* unit: the block has words */
    uint8_t sequence;
};

struct participant {
    uint8_t at[2];
    bool in_flight : 1, finished : 1, sole : 1, found : 1;
    struct word word;
    uint8_t content;
};

struct state {
    struct word word;
    bool disk_unit, disk_dirty;
    uint8_t current, pending, disk_current, disk_pending;
    uint8_t content, disk_content;
    struct participant who[PARTICIPANTS_MOST];
};

static struct {
    enum role role[PARTICIPANTS_MOST];
    unsigned participants, broken;
    bool is_new; /* the region has no unit in the beginning */
} configuration;

static struct state *now;
static struct participant *me;
static unsigned self;

static bool kept(enum rule rule)
{
    return !(configuration.broken & rule);
}

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

static void sync_state(struct state *state)
{
    state->disk_unit = state->word.unit;
    state->disk_dirty = state->word.dirty;
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
    for (unsigned i = 0; i < configuration.participants; i++)
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

static enum progress clearer(void)
{
    BEGIN(me->at[0]);
    if (!kept(RULE_DURABLE_OFF_FIRST))
        CALL(look());
    STEP("DURABLE off");
    take_durable_off();
    if (kept(RULE_DURABLE_OFF_FIRST))
        CALL(look());
    if (me->found) {
        STEP("give DURABLE back");
        if (me->sole && is_word(me->word))
            now->word.durable = true;
        LEAVE;
    }
    if (kept(RULE_DATA_FLUSHED)) {
        STEP("fsync begins");
        me->content = now->content;
        STEP("fsync ends");
        if (now->disk_content != now->content)
            now->disk_content = me->content;
        me->content = 0;
    }
    if (kept(RULE_WORDS_FLUSHED)) {
        STEP("msync words");
        now->disk_current = now->current;
        now->disk_pending = now->pending;
    }
    STEP("CAS DIRTY off");
    if (is_word(me->word) || (!kept(RULE_EXACT_WORD) && !now->word.durable))
        now->word.dirty = false;
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
    if (configuration.is_new)
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
    if (configuration.is_new)
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
    for (unsigned i = 0; i < configuration.participants; i++)
        begun |=
            configuration.role[i] == ADOPTER && (now->who[i].in_flight || now->who[i].content || now->who[i].finished);
    return !begun;
}

static enum progress outsider(void)
{
    BEGIN(me->at[0]);
    WAIT("writes without the shim", others_have_not_begun());
    now->content = new_content();
    END;
}

/* ---- Moves ---- */

static enum progress run(void)
{
    static enum progress (*const roles[])(void) = {[WRITER] = writer,     [MUTATOR] = mutator, [ADOPTER] = adopter,
                                                   [OUTSIDER] = outsider, [MARKER] = marker,   [CLEARER] = clearer};
    return roles[configuration.role[self]]();
}

static void choose_participant(struct state *state, unsigned index)
{
    now = state;
    self = index;
    me = &state->who[index];
}

static bool take_step(void)
{
    if (me->finished)
        return false;
    enum progress progress = run();
    if (progress == FINISHED) {
        memset(me, 0, sizeof *me);
        me->finished = true;
    }
    return progress != BLOCKED;
}

/* The kernel writes back what it likes. */
enum { BACK_STATE, BACK_WORDS, BACK_DATA, BACKS };

static bool write_back(struct state *state, unsigned what)
{
    static const char *const names[] = {"writes the region's word", "writes the block's words", "writes the content"};
    struct state before = *state;
    if (what == BACK_STATE)
        sync_state(state);
    if (what == BACK_DATA)
        state->disk_content = state->content;
    if (what == BACK_WORDS) {
        state->disk_current = state->current;
        state->disk_pending = state->pending;
    }
    search_say(names[what]);
    return before.disk_unit != state->disk_unit || before.disk_dirty != state->disk_dirty ||
           before.disk_content != state->disk_content || before.disk_current != state->disk_current ||
           before.disk_pending != state->disk_pending;
}

static bool move(void *state, unsigned mover)
{
    if (mover >= configuration.participants)
        return write_back(state, mover - configuration.participants);
    choose_participant(state, mover);
    return take_step();
}

/* Power fails now. */
static const char *judge(const void *state, bool stuck)
{
    const struct state *it = state;
    (void)stuck;
    if (it->disk_unit && !it->disk_dirty && it->disk_current != UNKNOWN && it->disk_pending == IDLE &&
        it->disk_current != it->disk_content)
        return "a clean region's checksum is untrue";
    return NULL;
}

static void print(const void *state)
{
    const struct state *it = state;
    printf("word=%c%c%u current=%u pending=%u content=%u | on disk %c current=%u pending=%u content=%u\n",
           it->word.dirty ? 'D' : '-', it->word.durable ? 'U' : '-', it->word.sequence, it->current, it->pending,
           it->content,
           it->disk_dirty  ? 'D'
           : it->disk_unit ? '-'
                           : ' ',
           it->disk_current, it->disk_pending, it->disk_content);
}

static const char *mover_name(unsigned mover)
{
    static char text[24];
    static const char *const roles[] = {[WRITER] = "writer",     [MUTATOR] = "mutator", [ADOPTER] = "adopter",
                                        [OUTSIDER] = "outsider", [MARKER] = "marker",   [CLEARER] = "clearer"};
    if (mover >= configuration.participants)
        return "kernel";
    snprintf(text, sizeof text, "%s %u", roles[configuration.role[mover]], mover);
    return text;
}

/* ---- What is searched ---- */

enum start { NEW, CLEAN, DIRTY, DURABLE, STARTS };
static const char *const starts[] = {[NEW] = "new", [CLEAN] = "clean", [DIRTY] = "dirty", [DURABLE] = "durable"};

/* How long the searches from all starts take; some take too long where the region is NEW. */
enum length { SHORT, LONG, LONG_BUT_NEW };

/* W writer, M mutator, A adopter, O outsider, K marker, C clearer. */
static const struct {
    enum length length;
    const char *participants;
} sound[] = {
    {SHORT, "WC"},          {SHORT, "WCC"},         {SHORT, "MCC"},         {SHORT, "MWC"},
    {SHORT, "OAC"},         {SHORT, "KWC"},         {LONG, "WWC"},          {LONG, "KWCC"},
    {LONG, "MWCC"},         {LONG, "OACC"},         {LONG, "KMCC"},         {LONG, "WCCC"},
    {LONG_BUT_NEW, "WWCC"}, {LONG_BUT_NEW, "AWCC"}, {LONG_BUT_NEW, "WWWC"}, {LONG_BUT_NEW, "KWWC"},
};

static const struct {
    const char *rule_name;
    enum rule rule;
    enum start start;
    const char *participants;
} unsound[] = {
    {"announced first", RULE_ANNOUNCED_FIRST, DURABLE, "WC"},
    {"announced first", RULE_ANNOUNCED_FIRST, DURABLE, "MC"},
    {"DIRTY is synced", RULE_DIRTY_IS_SYNCED, CLEAN, "W"},
    {"DIRTY counts", RULE_DIRTY_COUNTS, DURABLE, "WCC"},
    {"off counts", RULE_OFF_COUNTS, CLEAN, "WWCC"},
    {"off counts", RULE_OFF_COUNTS, CLEAN, "KWCC"},
    {"DURABLE off first", RULE_DURABLE_OFF_FIRST, DURABLE, "WC"},
    {"data flushed", RULE_DATA_FLUSHED, DURABLE, "WC"},
    {"words flushed", RULE_WORDS_FLUSHED, DURABLE, "WC"},
    {"exact word", RULE_EXACT_WORD, DURABLE, "WC"},
    {"unit is DIRTY", RULE_UNIT_IS_DIRTY, NEW, "W"},
    {"adopter marks", RULE_ADOPTER_MARKS, CLEAN, "OA"},
};

static struct search_result search_one(const char *participants, enum start start, unsigned broken, bool trace)
{
    static const char letters[] = {
        [WRITER] = 'W', [MUTATOR] = 'M', [ADOPTER] = 'A', [OUTSIDER] = 'O', [MARKER] = 'K', [CLEARER] = 'C'};
    struct state first;
    memset(&first, 0, sizeof first);
    memset(&configuration, 0, sizeof configuration);
    configuration.broken = broken;
    for (; participants[configuration.participants]; configuration.participants++) {
        const char *letter = memchr(letters, participants[configuration.participants], sizeof letters);
        configuration.role[configuration.participants] = (enum role)(letter - letters);
    }
    configuration.is_new = start == NEW;
    first.word.unit = first.disk_unit = start != NEW;
    first.word.dirty = first.disk_dirty = start == DIRTY || start == DURABLE;
    first.word.durable = start == DURABLE;
    first.content = first.disk_content = 1;
    /* Who adopts does so because nothing is known. */
    first.current = first.disk_current = start == NEW || strchr(participants, 'A') ? UNKNOWN : 1;
    for (unsigned i = 0; i < configuration.participants; i++) {
        choose_participant(&first, i);
        run();
    }
    const struct search search = {
        .bytes = offsetof(struct state, who) + configuration.participants * sizeof(struct participant),
        .movers = configuration.participants + BACKS,
        .limit = LIMIT,
        .move = move,
        .judge = judge,
        .print = print,
        .mover_name = mover_name,
    };
    return search_run(&search, &first, trace);
}

bool power_cut_runs(bool all)
{
    char what[128];
    bool right = true;
    for (unsigned i = 0; i < sizeof sound / sizeof *sound; i++) {
        enum start first = sound[i].length == LONG_BUT_NEW ? CLEAN : NEW;
        for (enum start start = first; start < STARTS && (all || sound[i].length == SHORT); start++) {
            struct search_result result = search_one(sound[i].participants, start, 0, true);
            snprintf(what, sizeof what, "%-8s %s", starts[start], sound[i].participants);
            right &= report_run(what, NULL, &result);
        }
    }
    for (unsigned i = 0; i < sizeof unsound / sizeof *unsound; i++) {
        struct search_result result = search_one(unsound[i].participants, unsound[i].start, unsound[i].rule, false);
        snprintf(what, sizeof what, "%-8s %-28s without \"%s\"", starts[unsound[i].start], unsound[i].participants,
                 unsound[i].rule_name);
        right &= report_run(what, "a clean region's checksum is untrue", &result);
    }
    return right;
}
