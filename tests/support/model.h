/*
 * A plain in-memory model of a file, and workers that do random things to the file and to the model alike.
 *
 * Each worker owns a file, and its cells of one file that all share. A cell is seven sectors long, so that nearly every 4 KiB
 * block belongs to two workers: all of it is determined, none of it is whole blocks. What a worker does depends on its
 * seed alone. The first byte that is not the model's ends the process with status 1 and the worker's last operations.
 */
#ifndef BOUNCEIO_TESTS_MODEL_H
#define BOUNCEIO_TESTS_MODEL_H

#include "support.h"

enum {
    WORKERS = 6,
    OWN_MAX = 512 << 10,
    CELL = 7 * SECTOR,
    ROUNDS_OF_CELLS = 32,
    SHARED_SIZE = WORKERS * ROUNDS_OF_CELLS * CELL,
    REQUEST_MAX = 64 << 10,
    HISTORY = 12
};

struct worker {
    struct random random;
    unsigned id;
    bool shimmed; /* memory may be misaligned and partly bad */
    uint64_t operations;
    uint64_t done;
    char path[4096];
    int fd;     /* O_DIRECT */
    int append; /* O_DIRECT | O_APPEND */
    int plain;  /* buffered */
    int shared; /* O_DIRECT, the file of all workers */
    uint8_t *model;
    uint64_t size;
    uint64_t position;     /* of fd */
    uint8_t *shared_model; /* right in this worker's cells only */
    uint8_t *memory;       /* REQUEST_MAX and a page, with an inaccessible page behind it */
    char history[HISTORY][160];
};

/* A worker that has done nothing yet. `shared`: O_DIRECT descriptor of a file of SHARED_SIZE bytes, the pattern of `seed`. */
struct worker *worker_new(const char *directory, unsigned id, uint64_t seed, uint64_t operations, int shared);

/* Do all the operations, then compare the whole content of the worker's own file. A thread's body. */
void *worker_run(void *worker);

/* Compare the worker's cells of the shared file's content. */
void worker_check_shared(struct worker *w, const uint8_t *content);

/* --- Inside ------------------------------------------------------------------------------------------------------- */

/* One random operation. */
void model_operate(struct worker *w);
void model_open_files(struct worker *w, int more);

/* Remember what is being done, for the message of a failure. */
void tell(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Say what the model disagrees with, and end the process. */
_Noreturn void disagree(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

void model_write(struct worker *w, uint64_t offset, const uint8_t *data, uint64_t length);
void model_truncate(struct worker *w, uint64_t size);
/* What a read of `length` at `offset` must return. */
uint64_t model_readable(const struct worker *w, uint64_t offset, uint64_t length);
void check_data(struct worker *w, const char *what, uint64_t offset, const uint8_t *data, uint64_t length);
void check_count(struct worker *w, const char *what, ssize_t result, uint64_t expected);
/* Which worker a byte of the shared file belongs to. */
unsigned owner_of(uint64_t offset);

#endif
