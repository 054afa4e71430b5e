/*
 * The shim's own descriptors: a handful, numbered high, out of the program's way and beyond its reach.
 *
 * Programs close everything they did not open (daemons, sandboxes). The wrappers of close, dup2 and friends ask here, and treat
 * our numbers as not open. A descriptor that the program wants to take by number (dup2) is moved away first.
 * Thread-safe, async-signal-safe. The table survives fork, as the descriptors do.
 */
#ifndef BOUNCEIO_BASE_OWN_H
#define BOUNCEIO_BASE_OWN_H

#include <stdatomic.h>
#include <stdbool.h>

enum { OWN_MAX = 16 };

/*
 * Take over `fd`: move it to a high number (close-on-exec) and store that in *holder, which is kept up to date should the number
 * ever change. @return 0, or -errno with `fd` closed and *holder -1.
 */
int own_take(int fd, _Atomic int *holder);

/* The same for a descriptor that must stay where it is, because moving it means closing it. @return 0, or -errno with `fd` closed. */
int own_keep(int fd, _Atomic int *holder);

/* Close what *holder holds, if anything; *holder becomes -1. */
void own_close(_Atomic int *holder);

/* Is this number one of ours? A look at OWN_MAX words. */
bool own_is(int fd);

/* The smallest of our numbers in [first, last], or -1. */
int own_first_in(unsigned first, unsigned last);

/* Vacate number `fd`, if it is ours, by moving our descriptor elsewhere. @return 0 or -errno. */
int own_move(int fd);

/* The number that a transient descriptor of ours is moved to, so that it never takes the lowest free one: `fd` is closed.
 * @return the new number or -errno. */
int own_raise(int fd);

#endif
