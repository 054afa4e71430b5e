/*
 * A busy program under the shim: for a second or two it writes whole blocks and parts of blocks all over a file of BUSY_BLOCKS blocks, and
 * cuts and extends it. The steps build, with delays. List BUSY_MODE among the modes.
 */
#ifndef BOUNCEIO_TESTS_BUSY_H
#define BOUNCEIO_TESTS_BUSY_H

#include "support/support.h"

enum { BUSY_BLOCKS = 64 };

/* `environment`: its store. @return to be waited for by busy_end. */
pid_t busy_start(const char *const *environment, const char *path);
bool busy_is_running(pid_t pid);

/* It met no mismatch, and ended well. */
void busy_end(pid_t pid);

#define BUSY_MODE                                                                                                      \
    {                                                                                                                  \
        "--busy", busy_main                                                                                            \
    }
int busy_main(int argc, char **argv);

#endif
