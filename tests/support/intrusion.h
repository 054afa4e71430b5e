/*
 * Intrusions: what other programs do to a file that the shim knows, in every way an administrator has.
 */
#ifndef BOUNCEIO_TESTS_INTRUSION_H
#define BOUNCEIO_TESTS_INTRUSION_H

#include <stdbool.h>

#include "support/support.h"

enum { INTRUSIONS = 22, INTRUSION_BLOCKS = 16 };

/* The file, of INTRUSION_BLOCKS blocks, and what lies about it. */
struct place {
    char path[4150];
    char backup[4300]; /* an older state of it, with the times it had then */
    char other[4300];  /* a name for a while */
};

struct intrusion {
    const char *name;
    bool (*intrude)(const struct place *place); /* @return false when it could not be done */
    bool needs_rsync;
};

extern const struct intrusion intrusions[INTRUSIONS];

/* Is there an rsync here? */
bool intrusion_has_rsync(void);

#endif
