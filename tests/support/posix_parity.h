/*
 * POSIX AIO as programs see it: one script is run with and without the shim, each writes down whatever it is told, and both say the same.
 *
 * A theme is one test program: a script, whose steps say what they see, and posix_parity_main.
 */
#ifndef BOUNCEIO_TESTS_POSIX_PARITY_H
#define BOUNCEIO_TESTS_POSIX_PARITY_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "support/posix_aio.h"

/* So many seconds does anything take at most that nothing holds up. */
enum { PATIENCE = 10 };

enum { SCRIPT_BLOCKS = 16 };

/* What a script works on. */
struct posix_scene {
    const char *directory;
    int fd;                /* an empty file, O_DIRECT or not */
    unsigned char *memory; /* SCRIPT_BLOCKS blocks */
};

/* "0", or the error's name. */
const char *name_of(int error);

/* What a call returned, with errno if it failed. */
#define SAY(what, call)                                                                                                \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long said_ = (call);                                                                                           \
        printf("%s: %ld %s\n", what, said_, said_ == -1 ? name_of(errno) : "");                                        \
    } while (0)

/* @return false when it never ends. */
bool wait_until_over(struct aiocb *control);

/* How a request that was submitted ends. */
void say_end(const char *what, struct aiocb *control);

/* Submit one; both. */
void say_write(const char *what, int fd, void *buffer, size_t length, off_t offset);
void say_read(const char *what, int fd, void *buffer, size_t length, off_t offset);

/* Run a theme, of direct files and of others, on every file system. */
int posix_parity_main(int argc, char **argv, const char *theme, void (*script)(const struct posix_scene *scene));

#endif
