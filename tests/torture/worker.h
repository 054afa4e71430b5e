/*
 * The programs that a torture runs under the shim: writers that are killed, readers that look what is left. Modes of the torture's own
 * program, so that it needs no other file.
 *
 *   --write LEDGER FILE ACTOR THREADS SEED HABITS REQUESTS   threads that write until told to stop, or REQUESTS each (0: for ever)
 *   --read LEDGER FILE ACTOR [DAMAGED]                       reads every block that the ledger covers, and compares
 *   --damaged FILE OFFSET                                    reads one block that must be found damaged
 *
 * LEDGER is the number of an inherited descriptor, ACTOR the first number that the program uses in the ledger.
 */
#ifndef BOUNCEIO_TESTS_TORTURE_WORKER_H
#define BOUNCEIO_TESTS_TORTURE_WORKER_H

#include "support/support.h"
#include "torture/ledger.h"

/* What writers do besides writing whole blocks at random. */
enum habit {
    HABIT_PARTIAL = 1, /* writes of 512 bytes and up, at any sector */
    HABIT_FSYNC = 2,   /* now and then */
    HABIT_PUNCH = 4,   /* holes */
    HABIT_RESIZE =
        8, /* thread 0 appends and truncates the second half of the (only) arena; the others keep to the first */
    HABIT_REOPEN = 16,     /* close and open again */
    HABIT_SEQUENTIAL = 32, /* one request after the other instead of anywhere */
    HABIT_STAY = 64,       /* in one arena for a while */
    HABIT_PAUSE = 128,     /* between requests */
    HABIT_SMALL = 256,     /* up to 64 KiB instead of 4 MiB */
    HABIT_SYNC = 512,      /* fsync after a quarter of the requests */
};

int worker_write(int argc, char **argv);
int worker_read(int argc, char **argv);
int worker_damaged(int argc, char **argv);

#define WORKER_MODES                                                                                                   \
    {"--write", worker_write}, {"--read", worker_read},                                                                \
    {                                                                                                                  \
        "--damaged", worker_damaged                                                                                    \
    }

#endif
