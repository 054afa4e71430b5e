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

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "rings/abi.h"

struct uring;

/* io_uring_setup(2). `params` is the program's memory; what it gets back describes the shadow. @return the ring's descriptor. */
long uring_setup(unsigned entries, struct io_uring_params *params);

/* Are there shadow rings? One load. */
extern _Atomic unsigned uring_count;

static inline bool uring_any(void)
{
    /* Relaxed: who has just been given a ring's number has been given it in order. */
    return __builtin_expect(atomic_load_explicit(&uring_count, memory_order_relaxed) != 0, 0);
}

/*
 * The shadow ring behind a descriptor number, or behind a registered ring index of this thread (IORING_ENTER_REGISTERED_RING); NULL: none. It
 * stays, whoever closes it, until uring_drop. Async-signal-safe.
 */
struct uring *uring_of(int fd);
struct uring *uring_of_registered(unsigned index);
void uring_drop(struct uring *ring);

/* io_uring_enter(2). `fd` is what the kernel is to be given: the number, or the registered index if `flags` say so. */
long uring_enter(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                 size_t size);

/* io_uring_register(2). */
long uring_register(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count);

/* mmap(2) of a ring's descriptor at IORING_OFF_SQ_RING, _CQ_RING or _SQES. @return the address or -errno. Other offsets are the kernel's. */
long uring_map(struct uring *ring, void *address, size_t length, int protection, int flags, uint64_t offset);

/*
 * Descriptor numbers, if uring_any: after a dup, before a close or a dup2 over one. The last close of a ring reaps what is in flight, then
 * forgets it.
 */
void uring_duplicated(int fd, int from);
void uring_closing(int fd);
void uring_range_closing(unsigned first, unsigned last);

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
