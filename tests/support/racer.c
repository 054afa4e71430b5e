/* A thread that rewrites a buffer. */
#include "support/racer.h"

#include "support/direct.h"
#include "support/support.h"

static void *rewrite(void *argument)
{
    struct racer *racer = argument;

    for (uint64_t n = 1; !atomic_load_explicit(&racer->stop, memory_order_relaxed); n++)
        for (size_t at = 0; at < racer->length; at += SECTOR)
            __atomic_store_n((uint64_t *)(void *)(racer->buffer + at), n, __ATOMIC_RELAXED);
    return NULL;
}

void racer_start(struct racer *racer, unsigned char *buffer, size_t length)
{
    racer->buffer = buffer;
    racer->length = length;
    atomic_init(&racer->stop, false);
    check_that(pthread_create(&racer->thread, NULL, rewrite, racer) == 0, "no thread");
}

void racer_stop(struct racer *racer)
{
    atomic_store(&racer->stop, true);
    pthread_join(racer->thread, NULL);
}
