/*
 * A thread that rewrites a buffer for as long as requests of it are in flight: every block of it, over and over, as fast as one thread can.
 */
#ifndef BOUNCEIO_TESTS_RACER_H
#define BOUNCEIO_TESTS_RACER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

struct racer {
    unsigned char *buffer;
    size_t length;
    atomic_bool stop;
    pthread_t thread;
};

void racer_start(struct racer *racer, unsigned char *buffer, size_t length);

/* Returns when the buffer does not change any more. */
void racer_stop(struct racer *racer);

#endif
