/*
 * The `bounceio` command, run without the shim, and what it says.
 */
#ifndef BOUNCEIO_TESTS_COMMAND_H
#define BOUNCEIO_TESTS_COMMAND_H

#include <stdint.h>

#include "support/support.h"

/* The build of it that runs: "" or "steps". */
void command_use(const char *variant);

/* Run it to its end with these arguments. `environment` as in child_run. */
struct child command_run(const char *const *environment, const char *const *arguments);

/* The same; any exit status but this one fails the test. */
struct child command_ends(int status, const char *const *environment, const char *const *arguments);

/* One number of the "totals" that --json prints. Fails the test when there is none. */
uint64_t command_total(const struct child *child, const char *key);

/* Run with --json, expect this status, and return one of the totals. */
uint64_t command_counts(int status, const char *const *environment, const char *what, const char *path,
                        const char *key);

/* Start it and go on. @return its pid, with its standard output in the file `output`. */
pid_t command_start(const char *const *environment, const char *const *arguments, const char *output);

#endif
