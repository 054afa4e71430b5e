/*
 * Parity by recording: a script does things and writes down what it sees, once without the shim and once with it, on every file system;
 * both records must be the same, byte by byte. The script is a mode of the test program: list it with RECORD_MODE.
 */
#ifndef BOUNCEIO_TESTS_RECORD_H
#define BOUNCEIO_TESTS_RECORD_H

#include "support/support.h"

struct record_script {
    const char *name;
    void (*play)(const char *directory); /* an empty directory of its own */
};

/* Write down one fact. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A result; errors that are told by errno: note_errno. */
void note_result(const char *what, long long result);
void note_errno(const char *what, long long result);

/*
 * Play the script on every file system, twice each, and compare. Fails the test, and shows the first line that differs, if they differ three times:
 * on a busy machine the kernel itself does some things another way once in a hundred times.
 */
void record_and_compare(const struct record_script *script);

/* --record NAME DIRECTORY */
int record_main(const struct record_script *scripts, int argc, char **argv);

#endif
