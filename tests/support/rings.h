/*
 * Scripts (support/record.h) of io_uring, by liburing's functions: what they do most.
 */
#ifndef BOUNCEIO_TESTS_RINGS_H
#define BOUNCEIO_TESTS_RINGS_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

enum { RINGS_ENTRIES = 8 };

/* A ring of so many entries, and `completions` of those, if not 0; written down. @return false when it was refused. */
bool rings_open(struct io_uring *ring, unsigned flags, unsigned completions);

/* A NOP, or a read, to be submitted. */
struct io_uring_sqe *rings_add(struct io_uring *ring, uint64_t user_data);
void rings_add_read(struct io_uring *ring, int fd, void *memory, unsigned length, uint64_t user_data);

/* Write down a completion; take and write down all there are. */
void rings_note(const struct io_uring *ring, const struct io_uring_cqe *cqe);
void rings_note_all(struct io_uring *ring);

/* Whether poll says that there are some. */
void rings_note_ready(const struct io_uring *ring);

#endif
