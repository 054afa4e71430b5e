/*
 * What is searched of the protocol. How participants are written is in notation.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/notation.h"
#include "model/runs.h"

enum { LIMIT = 24000000 };

static const struct {
    const char *name;
    enum rule rule;
} rules[] = {
    {"claim orphans", RULE_CLAIM_ORPHANS},
    {"the dead count", RULE_DEAD_COUNT},
    {"mutators first", RULE_MUTATORS_FIRST},
    {"current stands", RULE_CURRENT_STANDS},
    {"pending first", RULE_PENDING_FIRST},
    {"count outside", RULE_COUNT_OUTSIDE},
    {"edge announces sum", RULE_EDGE_ANNOUNCES_SUM},
    {"edge decides", RULE_EDGE_DECIDES},
    {"edge base stands", RULE_EDGE_BASE_STANDS},
    {"size twice", RULE_SIZE_TWICE},
    {"barrier", RULE_BARRIER},
    {"settle lock", RULE_SETTLE_LOCK},
    {"seized are left out", RULE_SEIZED_ARE_LEFT_OUT},
    {"drop before count", RULE_DROP_BEFORE_COUNT},
};

enum length { SHORT, LONG };

/* Every rule kept: nothing may be found. */
static const struct {
    enum length length;
    enum start start;
    const char *participants;
    unsigned deaths;
} sound[] = {
    {SHORT, START_KNOWN, "W(bb) W(cc) R", 0},
    {SHORT, START_KNOWN, "W(bb) W(aa) R", 0},
    {SHORT, START_UNKNOWN, "W(bb)? W(cc)? R", 0},
    {SHORT, START_KNOWN, "P(b.) P(.c) R", 0},
    {SHORT, START_KNOWN, "P(b.)? P(.c)? P(c.)", 0},
    {SHORT, START_KNOWN, "M W(bb) R", 0},
    {SHORT, START_KNOWN, "M P(b.) R", 0},
    {SHORT, START_KNOWN, "M M W(bb)", 0},
    {SHORT, START_UNKNOWN, "A W(bb) R", 0},
    {SHORT, START_UNKNOWN, "A P(b.) M", 0},
    {SHORT, START_DAMAGED, "R P(b.) W(cc)?", 0},
    {SHORT, START_DAMAGED, "R R P(.b)?", 0},
    {SHORT, START_SHORT, "P(b.) P(.c) R", 0},
    {SHORT, START_SHORT, "X P(.c) P(b.)", 0},
    {SHORT, START_EMPTY, "P(b.) P(.c) R", 0},
    {SHORT, START_EMPTY, "P(b.)? P(.c)? W(aa)?", 0},
    {SHORT, START_KNOWN, "W(bb)!~ T W(cc) R", 1},
    {SHORT, START_KNOWN, "P(b.)!~ T W(cc) R", 1},
    {SHORT, START_KNOWN, "M! T W(cc) R", 1},
    {SHORT, START_KNOWN, "R! T W(cc) M", 1},
    {SHORT, START_UNKNOWN, "A! T W(cc) R", 1},
    {SHORT, START_KNOWN, "W(bb)!~ P(.c)!~ T R", 2},
    {SHORT, START_KNOWN, "W(bb)! W(cc)! T T", 2},
    {SHORT, START_KNOWN, "W(bb)!~ W(cc) T! T", 2},
    {SHORT, START_KNOWN, "M! W(bb)! T! T", 2},
    {SHORT, START_DAMAGED, "R! T W(bb)? R", 1},
    {LONG, START_KNOWN, "P(b.) P(.c) W(cc) R", 0},
    {LONG, START_KNOWN, "M W(bb) P(.c) R", 0},
    {LONG, START_KNOWN, "M W(bb) W(aa) R", 0},
    {LONG, START_KNOWN, "W(bb)? W(cc)? W(aa)? R", 0},
    {LONG, START_KNOWN, "M P(b.)? P(.c)? R", 0},
    {LONG, START_UNKNOWN, "A M W(bb) R", 0},
    {LONG, START_UNKNOWN, "A P(b.) P(.c) R", 0},
    {LONG, START_DAMAGED, "P(b.)? P(.c) W(bb)? R", 0},
    {LONG, START_SHORT, "P(b.) P(.c) P(.a) R", 0},
    {LONG, START_SHORT, "X P(.c) P(b.) R", 0},
    {LONG, START_SHORT, "P(b.)? P(.c)? W(bb)? R", 0},
    {LONG, START_EMPTY, "P(b.) P(.c) W(aa) R", 0},
    {LONG, START_KNOWN, "W(bb)!~ W(cc)!~ T R", 2},
    {LONG, START_KNOWN, "W(bb)!~ W(cc)!~ T W(aa)", 2},
    {LONG, START_KNOWN, "P(b.)!~ P(.c)!~ T W(aa)", 2},
    {LONG, START_KNOWN, "W(bb)!~? P(.c)!~? T W(aa)?", 2},
    {LONG, START_KNOWN, "M! W(bb)! T P(.c)", 2},
    {LONG, START_KNOWN, "M! M! T W(bb)", 2},
    {LONG, START_KNOWN, "M! W(bb)! T R", 2},
    {LONG, START_KNOWN, "R! W(bb)! T M", 2},
    {LONG, START_UNKNOWN, "A! W(bb)! T P(.c)", 2},
    {LONG, START_KNOWN, "W(bb)!~ T! T W(cc) R", 2},
    {LONG, START_DAMAGED, "W(bb)!? T R P(.c)?", 1},
    {LONG, START_DAMAGED, "P(.b)!? T R W(cc)?", 1},
    {LONG, START_SHORT, "P(b.)!~ P(.c)!~ T R", 2},
    {LONG, START_SHORT, "X! P(.c)! T P(b.)", 2},
    {LONG, START_SHORT, "X! W(bb)!~ T P(.c)", 2},
    {LONG, START_KNOWN, "W(bb)! P(.c)! M! T", 3},
    {LONG, START_EMPTY, "P(b.)!~ P(.c)!~ T W(bb)", 2},
};

/* One rule is not kept: what is found, in the smallest configurations that show it. */
static const struct {
    const char *rule;
    enum start start;
    const char *participants;
    unsigned deaths;
    const char *found;
} unsound[] = {
    {"claim orphans", START_KNOWN, "W(bb)! P(c.) T R", 1, "an idle checksum is untrue"},
    {"the dead count", START_KNOWN, "M! T R", 1, "a mismatch without damage"},
    {"the dead count", START_KNOWN, "W(bb)!~ W(cc) T", 1, "an idle checksum is untrue"},
    {"mutators first", START_KNOWN, "M R W(bb)", 0, "a mismatch without damage"},
    {"current stands", START_KNOWN, "W(bb) W(aa) R", 0, "a mismatch without damage"},
    {"pending first", START_KNOWN, "M W(bb)", 0, "an idle checksum is untrue"},
    {"count outside", START_KNOWN, "M! M T R", 1, "a mutator is at work and not counted"},
    {"edge announces sum", START_KNOWN, "P(b.) P(.c) R", 0, "an idle checksum is untrue"},
    {"edge decides", START_KNOWN, "P(b.) P(.c) R", 0, "a mismatch without damage"},
    {"edge base stands", START_KNOWN, "P(b.) P(.c) R", 0, "an idle checksum is untrue"},
    {"size twice", START_EMPTY, "P(b.) P(.c) R", 0, "an idle checksum is untrue"},
    {"barrier", START_KNOWN, "W(bb)!~ W(cc) T", 1, "an idle checksum is untrue"},
    {"settle lock", START_KNOWN, "W(bb)! W(cc) T T", 1, "what the dead have left is never settled"},
    {"seized are left out", START_KNOWN, "W(bb)! W(cc)! T", 2, "what the dead have left is never settled"},
    {"drop before count", START_KNOWN, "M! T", 1, "a mutator is at work and not counted"},
};

static unsigned rule_named(const char *name)
{
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].name, name) == 0)
            return rules[i].rule;
    fprintf(stderr, "model: there is no rule \"%s\"; the rules are:\n", name);
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++)
        fprintf(stderr, "    %s\n", rules[i].name);
    exit(2);
}

static bool search_one(enum start start, const char *participants, unsigned deaths, const char *rule,
                       const char *expected)
{
    char what[128];
    struct configuration configuration = {
        .start = start, .deaths = deaths, .broken = rule ? rule_named(rule) : 0, .limit = LIMIT, .trace = !expected};
    notation_read(&configuration, participants);
    struct search_result result = protocol_search(&configuration);
    snprintf(what, sizeof what, "%-8s %-28s%s%s%s%s", notation_starts[start], participants,
             deaths == 0   ? ""
             : deaths == 1 ? " one death"
             : deaths == 2 ? " two deaths"
                           : " three deaths",
             rule ? " without \"" : "", rule ? rule : "", rule ? "\"" : "");
    return report_run(what, expected, &result);
}

bool protocol_runs(bool all)
{
    bool right = true;
    for (unsigned i = 0; i < sizeof sound / sizeof *sound; i++)
        if (all || sound[i].length == SHORT)
            right &= search_one(sound[i].start, sound[i].participants, sound[i].deaths, NULL, NULL);
    for (unsigned i = 0; i < sizeof unsound / sizeof *unsound; i++)
        right &=
            search_one(unsound[i].start, unsound[i].participants, unsound[i].deaths, unsound[i].rule, unsound[i].found);
    return right;
}

bool protocol_run_one(const char *start, const char *participants, unsigned deaths, const char *rule)
{
    for (unsigned i = 0; i < STARTS; i++)
        if (strcmp(notation_starts[i], start) == 0)
            return search_one((enum start)i, participants, deaths, rule, NULL);
    fprintf(stderr, "model: a block begins known, unknown, damaged, short or empty, not \"%s\"\n", start);
    exit(2);
}
