/*
 * io_uring: shadow rings, as the front doors see them (entry/uring.c: liburing's functions; entry/uring_raw.c: system calls and mmap).
 *
 * The program gets a submission queue, submission entries and a completion queue of ours, laid out like the kernel's; the kernel's own are
 * mapped by the shim alone. Submitting copies entries from ours to the kernel's, prepared; completing copies them back, finished.
 * See uring_ring.h for the memory, uring_submit.c, uring_chain.c and uring_pump.c for the two directions.
 *
 * Every call returns the kernel's answer: a value >= 0 or -errno. Thread-safe as far as the kernel's are.
 */
#ifndef BOUNCEIO_RINGS_URING_H
#define BOUNCEIO_RINGS_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "rings/abi.h"

struct uring;

/* io_uring_setup(2). `params` is the program's memory; what it gets back describes the shadow. @return the ring's descriptor. */
long uring_setup(unsigned entries, struct io_uring_params *params);

/* The shadow ring behind a descriptor number, or behind a registered ring index of this thread (IORING_ENTER_REGISTERED_RING); NULL: none. */
struct uring *uring_of(int fd);
struct uring *uring_of_registered(unsigned index);

/* io_uring_enter(2). `fd` is what the kernel is to be given: the number, or the registered index if `flags` say so. */
long uring_enter(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                 size_t size);

/* io_uring_register(2). */
long uring_register(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count);

/* mmap(2) of a ring's descriptor at IORING_OFF_SQ_RING, _CQ_RING or _SQES. @return the address or -errno. Other offsets are the kernel's. */
long uring_map(struct uring *ring, void *address, size_t length, int protection, int flags, uint64_t offset);

/* Where liburing's structure points to: the shadow's memory, mapped once for this process by the set-up. */
struct uring_front {
    char *queues;              /* offsets of io_uring_params.sq_off and cq_off count from here */
    struct io_uring_sqe *sqes; /* of 64, or with SQE128 128 bytes */
    size_t queues_length, sqes_length;
    struct io_uring_params params; /* as the program got them */
};
const struct uring_front *uring_front(const struct uring *ring);

/* Descriptor numbers: dup, close, dup2 over one. The last close of a ring reaps what is in flight, then forgets it. */
void uring_duplicated(int fd, int from);
void uring_closing(int fd);

/* Tell the kernel what the program has consumed; move what has completed to the shadow. Never block. */
void uring_sync(struct uring *ring);
void uring_pump(struct uring *ring);
void uring_sync_all(void);
void uring_pump_all(void);

/* Completions that the program could take from the shadow now. */
unsigned uring_ready(const struct uring *ring);

/* The process ends: what is in flight is reaped first. */
void uring_end(void);

#endif
