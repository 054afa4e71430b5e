/*
 * Families of system calls that have files of their own, for syscall(2).
 */
#ifndef BOUNCEIO_ENTRY_SYSCALL_H
#define BOUNCEIO_ENTRY_SYSCALL_H

#include <stdbool.h>

struct arguments {
    long a, b, c, d, e, f;
    const void *caller; /* where syscall(2) returns to */
};

/* @return true, with errno set and *result as syscall(2) returns it, when the number is of the family. */
bool syscall_aio(long number, const struct arguments *x, long *result);
bool syscall_uring(long number, const struct arguments *x, long *result);

#endif
