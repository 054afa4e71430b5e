/*
 * The tables of what is searched, and what must come of it.
 */
#ifndef BOUNCEIO_TESTS_MODEL_RUNS_H
#define BOUNCEIO_TESTS_MODEL_RUNS_H

#include <stdbool.h>

#include "model/search.h"

/* Run those whose table says that they are short, or all of them. Prints a line for each. @return whether all came out right. */
bool protocol_runs(bool all);
bool power_cut_runs(bool all);

/* One line of output. `expected`: the property that must be violated, NULL for none. @return whether it came out right. */
bool report_run(const char *what, const char *expected, const struct search_result *result);

/*
 * One search of the protocol, with a trace. `participants` is as in protocol_runs.c's table, `broken` the names of rules (see rule_names).
 * @return whether no property was violated.
 */
bool protocol_run_one(const char *start, const char *participants, unsigned deaths, const char *broken);

#endif
