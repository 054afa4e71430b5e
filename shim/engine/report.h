/*
 * What is said of a mismatch: the log line, the counter, the program's callback, and BOUNCEIO_ON_MISMATCH.
 * Thread-safe, async-signal-safe (as far as the program's callback is). Slow paths: they use several KiB of stack.
 */
#ifndef BOUNCEIO_ENGINE_REPORT_H
#define BOUNCEIO_ENGINE_REPORT_H

#include <stdint.h>

#include "bounceio.h"

/* A block of the descriptor's file disagrees with its checksum: log line, counter, callback. */
void report_mismatch(int fd, uint64_t block, uint64_t expected, uint64_t found);

/*
 * What a request that met one does: BOUNCEIO_ON_MISMATCH. @return 0 when the data is to be returned all the same (warn), -EIO
 * otherwise (eio); does not return (abort).
 */
int report_policy(void);

/* The file was found changed without the shim: said once for each file. */
void report_changed_outside(int fd);

/* A block of a file that is suspect since an unclean stop takes the checksum of what is there. */
void report_recovered(int fd, uint64_t block);

void report_set_callback(bounceio_mismatch_callback *callback, void *argument);

#endif
