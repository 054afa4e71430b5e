/*
 * An empty page pool: writers that stand still in the middle of their copy and keep the pages that they have taken. Their buffers are memory of
 * a userfaultfd, whose first touch waits until the test provides the page. Nothing depends on time, and nothing else in the system
 * stands still.
 */
#ifndef BOUNCEIO_TESTS_EXHAUST_H
#define BOUNCEIO_TESTS_EXHAUST_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "support/support.h"

enum { STANDING = 24, STANDING_LENGTH = 256 << 10, LITTLE_LENGTH = BLOCK };

struct exhaust {
    int uffd;
    int fd;
    unsigned char *memory;
    pthread_t threads[STANDING];
    ssize_t results[STANDING];
};

/* The environment in which they take all there is: a pool of 2 MiB that cannot grow. */
extern const char *const exhaust_pool[];

/* Does the kernel have a userfaultfd for us? Otherwise says that the test is skipped. */
bool exhaust_can(void);

/* Writers of the file `path`, made here, stand still. @return false when the kernel has no userfaultfd for us. */
bool exhaust_start(struct exhaust *all, const char *path);

/* Let them go, and see that they wrote what they were told to: zeros. */
void exhaust_end(struct exhaust *all);

#endif
