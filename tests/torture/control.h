/*
 * The controlling side of a torture: workers started, killed and collected. Runs without the shim.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_CONTROL_H
#define BOUNCEIO_TESTS_TORTURE_CONTROL_H

#include <sys/types.h>

#include "support/support.h"
#include "torture/ledger.h"

/* What workers run with. */
struct setting {
    const char *store;
    const char *boot_id;            /* BOUNCEIO_TEST_BOOT_ID, or NULL */
    bool steps;                     /* the build that delays the steps of the protocol, when there is one */
    const char *const *environment; /* more of it, "NAME=value", NULL-terminated, or NULL */
};

struct worker {
    pid_t pid;      /* 0: none */
    int errors;     /* a memfd */
    char said[512]; /* standard output, once it has been collected */
    int output;
};

/* Start this program in a mode of worker.h. */
struct worker worker_start(const struct setting *setting, const char *const *argv);

/* Kill it wherever it is, and see it gone. @return false when it had ended by itself, badly: its errors are printed. */
bool worker_kill(struct worker *worker);

/* Wait for its end. @return whether it exited with 0; otherwise its errors are printed. */
bool worker_collect(struct worker *worker);

/* Wait until it has stopped itself at a step. @return false when it has ended instead. */
bool worker_wait_stopped(const struct worker *worker);

/* Wait until it has ended, for so many milliseconds at most. @return whether it has. */
bool worker_wait_gone(const struct worker *worker, unsigned milliseconds);

/* Start and collect. `said` receives its standard output, or is NULL. */
bool worker_run(const struct setting *setting, char *said, const char *const *argv);

/* Flip a bit of the file, see that a fresh process finds the block at `offset` damaged, and flip it back. */
bool flip_is_found(const struct setting *setting, const char *path, uint64_t offset, struct random *random);

/* Stop all threads of the worker where they are: none is in a system call when this returns. */
void worker_freeze(const struct worker *worker);
void worker_thaw(const struct worker *worker);

/* A number as an argument, in one of 32 rotating buffers. */
const char *number(uint64_t value);

/* How often: the variable of the environment, or `otherwise`. */
unsigned torture_count(const char *variable, unsigned otherwise);

/* Entries of a directory, without . and .. */
unsigned directory_count(const char *path);

void sleep_us(uint64_t microseconds);
double seconds_now(void);

#endif
