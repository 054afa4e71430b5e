/*
 * liburing's structures, as all its versions lay them out. ring_mask and ring_entries were padding before 2.2, enter_ring_fd and
 * int_flags likewise; programs built with older headers leave them alone. Source: src/include/liburing.h of liburing 2.0 to 2.9.
 */
#ifndef BOUNCEIO_ENTRY_LIBURING_H
#define BOUNCEIO_ENTRY_LIBURING_H

#include <stddef.h>
#include <stdint.h>

#include "rings/abi.h"

struct liburing_sq {
    _Atomic uint32_t *khead, *ktail;
    uint32_t *kring_mask, *kring_entries;
    _Atomic uint32_t *kflags;
    uint32_t *kdropped, *array;
    struct io_uring_sqe *sqes;
    unsigned sqe_head, sqe_tail;
    size_t ring_sz;
    void *ring_ptr;
    unsigned ring_mask, ring_entries;
    unsigned pad[2];
};

struct liburing_cq {
    _Atomic uint32_t *khead, *ktail;
    uint32_t *kring_mask, *kring_entries;
    _Atomic uint32_t *kflags;
    uint32_t *koverflow;
    struct io_uring_cqe *cqes;
    size_t ring_sz;
    void *ring_ptr;
    unsigned ring_mask, ring_entries;
    unsigned pad[2];
};

struct io_uring {
    struct liburing_sq sq;
    struct liburing_cq cq;
    unsigned flags;
    int ring_fd;
    unsigned features;
    int enter_ring_fd;
    uint8_t int_flags;
    uint8_t pad[3];
    unsigned pad2;
};
_Static_assert(sizeof(struct io_uring) == 216, "liburing's size");

/* io_uring.int_flags. */
enum {
    LIBURING_REG_RING = 1,     /* enter_ring_fd is a registered index */
    LIBURING_REG_REG_RING = 2, /* io_uring_register(2) takes it too */
    LIBURING_NO_IOWAIT = 8,
};

#define LIBURING_UDATA_TIMEOUT UINT64_MAX

#endif
