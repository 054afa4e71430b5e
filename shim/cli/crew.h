/*
 * A crew: threads that work on many files, region by region. One large file keeps all of them busy, and so do many small ones.
 *
 * SIGINT and SIGTERM ask the crew to stop: task functions look at crew_stopped between one piece of work and the next.
 */
#ifndef BOUNCEIO_CLI_CREW_H
#define BOUNCEIO_CLI_CREW_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/progress.h"
#include "cli/subject.h"

/* What is done to a file: any thread. */
struct crew_task {
    /* Open it and say how many regions there are to work on (subject->regions). */
    void (*open)(struct subject *subject);
    /* `room`: CREW_ROOM bytes of bounce pages, the thread's own. */
    void (*region)(struct subject *subject, uint64_t region, char *room);
    /* After the last region, and also when there was none: close it, and tell what was found. */
    void (*close)(struct subject *subject);
};

enum { CREW_ROOM = (1 << 20) + (64 << 10), CREW_JOBS_MOST = 256 };

struct crew_list {
    struct subject **subjects;
    size_t count, room;
    uint64_t bytes; /* of all of them */
};

/* @return false when there is no memory. */
bool crew_list_add(struct crew_list *list, struct subject *subject);

/* Let SIGINT and SIGTERM stop the crew from here on. */
void crew_catch_signals(void);

/* The signal that asks to stop, or 0. */
int crew_stopped(void);

/* Threads that there are processors for. */
unsigned crew_default_jobs(void);

/* Work on all files of the list, which are freed. @return false when there is no memory for the work. */
bool crew_run(const struct crew_task *task, struct crew_list *list, unsigned jobs);

#endif
