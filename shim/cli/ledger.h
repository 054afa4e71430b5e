/*
 * The ledger of a scrub or an adoption: tells what was found in each file, as text or as JSON, and adds it up.
 *
 * One line for each file on stdout, or one object: {"files": [...], "totals": {...}}. Thread-safe between ledger_open and ledger_close.
 */
#ifndef BOUNCEIO_CLI_LEDGER_H
#define BOUNCEIO_CLI_LEDGER_H

#include <pthread.h>
#include <stdbool.h>

#include "cli/json.h"
#include "cli/progress.h"
#include "cli/subject.h"

struct ledger {
    bool as_json;
    bool quiet;    /* only what is wrong */
    bool adopting; /* blocks adopted are what the command is for */
    struct progress progress;
    pthread_mutex_t lock;
    struct json json;
    struct outcome total;
    uint64_t files;       /* with checksums, worked on */
    uint64_t without_map; /* found below a directory, and passed over */
    uint64_t damaged;     /* files with damaged blocks */
    uint64_t failed;      /* files and directories that could not be worked on, or not all of them */
};

/* `bytes`: what there is to do. */
void ledger_open(struct ledger *ledger, const char *what, uint64_t bytes);

/* A file is done; subject->failure is told as well. */
void ledger_add(struct ledger *ledger, struct subject *subject);

/* `signal`: the one that ended it early, or 0. @return the exit status. */
int ledger_close(struct ledger *ledger, int signal);

#endif
