/*
 * The searches of power_cut.c's model, and what must hold in each state of theirs.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/power_cut.h"
#include "model/runs.h"

enum { LIMIT = 24000000 };

static bool take_step(struct state *state, unsigned index)
{
    struct participant *who = &state->who[index];
    if (who->finished)
        return false;
    enum progress progress = power_cut_step(state, index);
    if (progress == FINISHED) {
        memset(who, 0, sizeof *who);
        who->finished = true;
    }
    return progress != BLOCKED;
}

/* The kernel writes back what it likes. */
enum { BACK_STATE, BACK_SEAL, BACK_WORDS, BACK_DATA, BACKS };

static bool write_back(struct state *state, unsigned what)
{
    static const char *const names[] = {"writes the region's word", "writes its seal", "writes the block's words",
                                        "writes the content"};
    struct state before = *state;
    if (what == BACK_STATE)
        power_cut_sync_word(state);
    if (what == BACK_SEAL)
        state->disk_seal = state->seal;
    if (what == BACK_DATA)
        state->disk_content = state->content;
    if (what == BACK_WORDS)
        power_cut_sync_words(state);
    search_say(names[what]);
    return memcmp(&before, state, offsetof(struct state, who)) != 0;
}

static bool move(void *state, unsigned mover)
{
    if (mover >= power_cut.participants)
        return write_back(state, mover - power_cut.participants);
    return take_step(state, mover);
}

static bool disk_is_clean(const struct state *it)
{
    const struct seal *seal = &it->disk_seal;
    bool counts = seal->sequence == it->disk_sequence || !kept(RULE_SEAL_COUNTS);
    bool sums = seal->confirmed || seal->current == it->disk_current || !kept(RULE_SEAL_SUMS);
    return it->disk_unit && !it->disk_dirty && (!power_cut.has_seals || (seal->set && counts && sums));
}

static bool all_are_finished(const struct state *it)
{
    bool finished = true;
    for (unsigned i = 0; i < power_cut.participants; i++)
        finished &= it->who[i].finished;
    return finished;
}

/* Power fails now. */
static const char *judge(const void *state, bool stuck)
{
    const struct state *it = state;
    (void)stuck;
    if (power_cut.has_seals && all_are_finished(it) && !it->word.dirty && it->seal.sequence != it->word.sequence)
        return "a clean region has no seal";
    if (disk_is_clean(it) && it->disk_current != UNKNOWN && it->disk_pending == IDLE &&
        it->disk_current != it->disk_content)
        return "a clean region's checksum is untrue";
    return NULL;
}

static void print(const void *state)
{
    const struct state *it = state;
    printf("word=%c%c%u%c current=%u pending=%u content=%u | on disk %c%c current=%u pending=%u content=%u\n",
           it->word.dirty ? 'D' : '-', it->word.durable ? 'U' : '-', it->word.sequence, it->seal.set ? 'S' : '-',
           it->current, it->pending, it->content,
           it->disk_dirty  ? 'D'
           : it->disk_unit ? '-'
                           : ' ',
           it->disk_seal.set ? 'S' : '-', it->disk_current, it->disk_pending, it->disk_content);
}

static const char *mover_name(unsigned mover)
{
    static char text[24];
    static const char *const roles[] = {
        [WRITER] = "writer", [MUTATOR] = "mutator", [ADOPTER] = "adopter", [OUTSIDER] = "outsider",
        [MARKER] = "marker", [CLEARER] = "clearer", [SEALER] = "sealer"};
    if (mover >= power_cut.participants)
        return "kernel";
    snprintf(text, sizeof text, "%s %u", roles[power_cut.role[mover]], mover);
    return text;
}

/* ---- What is searched ---- */

enum start { NEW, CLEAN, DIRTY, DURABLE, STARTS };
static const char *const starts[] = {[NEW] = "new", [CLEAN] = "clean", [DIRTY] = "dirty", [DURABLE] = "durable"};

/* How long the searches from all starts take; some take too long where the region is NEW. */
enum length { SHORT, LONG, LONG_BUT_NEW };

/* W writer, M mutator, A adopter, O outsider, K marker, C clearer, S sealer. */
static const struct {
    enum length length;
    const char *participants;
} sound[] = {
    {SHORT, "WC"},          {SHORT, "WCC"}, {SHORT, "MCC"},         {SHORT, "MWC"},         {SHORT, "OAC"},
    {SHORT, "KWC"},         {LONG, "WWC"},  {LONG, "KWCC"},         {LONG, "MWCC"},         {LONG, "OACC"},
    {LONG, "KMCC"},         {LONG, "WCCC"}, {LONG_BUT_NEW, "WWCC"}, {LONG_BUT_NEW, "AWCC"}, {LONG_BUT_NEW, "WWWC"},
    {LONG_BUT_NEW, "KWWC"}, {SHORT, "WS"},  {SHORT, "WSS"},         {SHORT, "MSS"},         {SHORT, "MWS"},
    {SHORT, "OAS"},         {SHORT, "KWS"}, {LONG, "WWS"},          {LONG, "KWSS"},         {LONG, "MWSS"},
    {LONG, "OASS"},         {LONG, "KMSS"}, {LONG, "WSSS"},         {LONG_BUT_NEW, "WWSS"}, {LONG_BUT_NEW, "AWSS"},
    {LONG_BUT_NEW, "KWWS"},
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
    {"seal sums", RULE_SEAL_SUMS, DURABLE, "WS"},
    {"seal counts", RULE_SEAL_COUNTS, DURABLE, "WSS"},
    {"confirmed last", RULE_CONFIRMED_LAST, DURABLE, "WS"},
    {"confirms own", RULE_CONFIRMS_OWN, DURABLE, "WSS"},
    {"off counts", RULE_OFF_COUNTS, CLEAN, "KWSS"},
    {"DURABLE off first", RULE_DURABLE_OFF_FIRST, DURABLE, "WS"},
    {"data flushed", RULE_DATA_FLUSHED, DURABLE, "WS"},
};

static struct search_result search_one(const char *participants, enum start start, unsigned broken, bool trace)
{
    static const char letters[] = {[WRITER] = 'W', [MUTATOR] = 'M', [ADOPTER] = 'A', [OUTSIDER] = 'O',
                                   [MARKER] = 'K', [CLEARER] = 'C', [SEALER] = 'S'};
    struct state first;
    memset(&first, 0, sizeof first);
    memset(&power_cut, 0, sizeof power_cut);
    power_cut.broken = broken;
    for (; participants[power_cut.participants]; power_cut.participants++) {
        const char *letter = memchr(letters, participants[power_cut.participants], sizeof letters);
        power_cut.role[power_cut.participants] = (enum role)(letter - letters);
    }
    power_cut.is_new = start == NEW;
    power_cut.has_seals = strchr(participants, 'S') != NULL;
    if (start == CLEAN)
        first.seal = first.disk_seal = (struct seal){.set = true, .confirmed = true};
    first.word.unit = first.disk_unit = start != NEW;
    first.word.dirty = first.disk_dirty = start == DIRTY || start == DURABLE;
    first.word.durable = start == DURABLE;
    first.content = first.disk_content = 1;
    /* Who adopts does so because nothing is known. */
    first.current = first.disk_current = start == NEW || strchr(participants, 'A') ? UNKNOWN : 1;
    for (unsigned i = 0; i < power_cut.participants; i++) {
        power_cut_step(&first, i);
    }
    const struct search search = {
        .bytes = offsetof(struct state, who) + power_cut.participants * sizeof(struct participant),
        .movers = power_cut.participants + BACKS,
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
