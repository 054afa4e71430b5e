/*
 * What scrub and adopt have in common: their options, and how they go over files.
 */
#ifndef BOUNCEIO_CLI_WORK_H
#define BOUNCEIO_CLI_WORK_H

#include <stdbool.h>

#include "cli/crew.h"
#include "cli/ledger.h"

struct work_options {
    bool json;
    bool quiet;
    bool trust;
    unsigned jobs;
};

/* `may_trust`: is --trust one of them? @return CLI_CLEAN with optind at the first path; -1 when --help was given; CLI_FAILED. */
int work_read_options(struct work_options *options, int argc, char **argv, bool may_trust);

enum work_wish {
    WORK_TAKE,
    WORK_PASS_OVER, /* it has no checksums: counted */
    WORK_IGNORE,
};

struct work {
    const char *name;
    enum work_wish (*wish)(const char *path, const struct stat *status, bool named);
    struct crew_task task;
};

/* Do the work on all files that the paths name. @return the exit status. */
int work_run(const struct work *work, const struct work_options *options, char **paths, struct ledger *ledger);

#endif
