/*
 * The models of the map's protocols, searched to the end.
 *
 *   model [--all]                                        the tables of runs: the short ones, or all
 *   model START PARTICIPANTS [DEATHS] [RULE-NOT-KEPT]    one search of the protocol, with a trace of what it finds
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/runs.h"

bool report_run(const char *what, const char *expected, const struct search_result *result)
{
    const char *found = result->gave_up ? "too many states" : result->violated ? result->violated : "nothing";
    bool right = strcmp(found, expected ? expected : "nothing") == 0;
    printf("%-4s %-78s %10zu states, found: %s\n", right ? "ok" : "FAIL", what, result->states, found);
    fflush(stdout);
    return right;
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return protocol_run_one(argv[1], argv[2], argc > 3 ? (unsigned)atoi(argv[3]) : 0, argc > 4 ? argv[4] : NULL)
                   ? 0
                   : 1;
    bool all = argc == 2 && strcmp(argv[1], "--all") == 0;
    if (argc == 2 && !all) {
        fputs("usage: model [--all]\n       model START PARTICIPANTS [DEATHS] [RULE-NOT-KEPT]\n", stderr);
        return 2;
    }
    bool right = protocol_runs(all);
    right &= power_cut_runs(all);
    puts(right ? "all as expected" : "NOT as expected");
    return right ? 0 : 1;
}
