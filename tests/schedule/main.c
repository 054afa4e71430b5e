/*
 * Schedules of the code, for the configurations that the model is searched on (how they are written: model/notation.h).
 *
 *   schedule [--long]                                             the table
 *   schedule START PARTICIPANTS [DEATHS] [PREEMPTIONS]            every schedule of one configuration; a trace of what it finds
 *
 * First every schedule with at most so many preemptions; then random ones, from a seed that BOUNCEIO_TEST_SEED repeats.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/process.h"
#include "model/notation.h"
#include "schedule/explore.h"
#include "schedule/schedule.h"
#include "support/support.h"

enum { RANDOM_SHORT = 2000, RANDOM_LONG = 50000, ALL_MOST = 1000000 };

static const struct {
    enum start start;
    const char *participants;
    unsigned deaths;
    unsigned preemptions, long_preemptions;
} table[] = {
    {START_KNOWN, "W(bb) W(cc) R", 0, 2, 3},       {START_KNOWN, "W(bb) W(aa) R", 0, 2, 3},
    {START_KNOWN, "W(bb)? W(cc)?", 0, 2, 4},       {START_KNOWN, "P(b.) P(.c) R", 0, 2, 3},
    {START_KNOWN, "P(b.) P(.c) W(cc) R", 0, 1, 2}, {START_KNOWN, "M W(bb) R", 0, 2, 3},
    {START_KNOWN, "M W(bb) P(.c) R", 0, 1, 2},     {START_KNOWN, "M P(b.)", 0, 2, 4},
    {START_UNKNOWN, "A W(bb) R", 0, 2, 3},         {START_UNKNOWN, "A P(b.) M", 0, 1, 2},
    {START_DAMAGED, "R P(b.) W(cc)?", 0, 1, 2},    {START_DAMAGED, "R R P(.b)?", 0, 1, 2},
    {START_SHORT, "P(b.) P(.c) R", 0, 2, 2},       {START_SHORT, "X P(.c) P(b.)", 0, 1, 2},
    {START_EMPTY, "P(b.) P(.c) R", 0, 2, 3},       {START_KNOWN, "W(bb)!~ T W(cc)", 1, 1, 2},
    {START_KNOWN, "W(bb)!~ T W(cc) R", 1, 0, 1},   {START_KNOWN, "P(b.)! T W(cc) R", 1, 0, 1},
    {START_KNOWN, "W(bb)! P(c.) T R", 1, 1, 2},    {START_KNOWN, "M! T W(cc) R", 1, 0, 2},
    {START_KNOWN, "R! T W(cc) M", 1, 1, 2},        {START_UNKNOWN, "A! T W(cc)", 1, 1, 2},
    {START_DAMAGED, "R! T W(bb)? R", 1, 0, 1},     {START_KNOWN, "W(bb)!~ P(.c)!~ T R", 2, 0, 1},
    {START_KNOWN, "W(bb)! W(cc)! T T", 2, 0, 1},   {START_KNOWN, "W(bb)! W(cc) T! T", 2, 0, 1},
    {START_KNOWN, "M! W(bb)! T! T", 2, 0, 1},
};

static bool judge(const struct configuration *configuration, unsigned preemptions, const char *violated)
{
    if (!violated)
        return true;
    printf("FAIL: %s\n", violated);
    explore_again();
    schedule_run(configuration, preemptions, true);
    return false;
}

static bool run_all(const struct configuration *configuration, unsigned preemptions, unsigned long *schedules)
{
    bool right = true;
    for (explore_all(); right && *schedules < ALL_MOST && explore_next(); ++*schedules)
        right = judge(configuration, preemptions, schedule_run(configuration, preemptions, false));
    return right;
}

static bool run_random(const struct configuration *configuration, unsigned schedules)
{
    bool right = true;
    explore_random(random_run_seed());
    for (unsigned i = 0; right && i < schedules && explore_next(); i++)
        right = judge(configuration, UINT16_MAX, schedule_run(configuration, UINT16_MAX, false));
    return right;
}

static bool run(enum start start, const char *participants, unsigned deaths, unsigned preemptions, unsigned at_random)
{
    struct configuration configuration = {.start = start, .deaths = deaths};
    unsigned long schedules = 0;
    notation_read(&configuration, participants);
    bool right = run_all(&configuration, preemptions, &schedules) && run_random(&configuration, at_random);
    printf("%-4s %-8s %-24s %u deaths: %8lu schedules%s with %u preemptions, %u at random\n", right ? "ok" : "FAIL",
           notation_starts[start], participants, deaths, schedules, schedules < ALL_MOST ? "" : " (not all)",
           preemptions, at_random);
    fflush(stdout);
    return right;
}

static bool run_table(bool is_long)
{
    bool right = true;
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
        right &= run(table[i].start, table[i].participants, table[i].deaths,
                     is_long ? table[i].long_preemptions : table[i].preemptions, is_long ? RANDOM_LONG : RANDOM_SHORT);
    return right;
}

static enum start start_named(const char *name)
{
    for (unsigned start = 0; start < STARTS; start++)
        if (strcmp(notation_starts[start], name) == 0)
            return (enum start)start;
    fprintf(stderr, "schedule: a block does not begin \"%s\"\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    process_start();
    schedule_prepare();
    if (argc > 2)
        return run(start_named(argv[1]), argv[2], argc > 3 ? (unsigned)atoi(argv[3]) : 0,
                   argc > 4 ? (unsigned)atoi(argv[4]) : 2, RANDOM_SHORT)
                   ? 0
                   : 1;
    return run_table(argc == 2 && strcmp(argv[1], "--long") == 0) ? 0 : 1;
}
