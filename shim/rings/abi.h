/*
 * What the kernel calls asynchronous I/O: structures and numbers of libaio and io_uring, also those that are newer than some build machines'
 * headers. To be included instead of the kernel's own headers: linux/fs.h, which they include, defines BLOCK_SIZE.
 *
 * Source: include/uapi/linux/{aio_abi,io_uring}.h.
 */
#ifndef BOUNCEIO_RINGS_ABI_H
#define BOUNCEIO_RINGS_ABI_H

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#undef BLOCK_SIZE
#undef BLOCK_SIZE_BITS

/* io_uring_setup(2). */
#define URING_SETUP_NO_MMAP (1U << 14)
#define URING_SETUP_REGISTERED_FD_ONLY (1U << 15)
#define URING_SETUP_NO_SQARRAY (1U << 16)
#define URING_SETUP_HYBRID_IOPOLL (1U << 17)

/* struct io_uring_params.features: Linux 6.3, 6.14. */
#define URING_FEAT_REG_REG_RING (1U << 13)
#define URING_FEAT_RW_ATTR (1U << 16)

/* io_uring_enter(2). */
#define URING_ENTER_ABS_TIMER (1U << 5)
#define URING_ENTER_EXT_ARG_REG (1U << 6)
#define URING_ENTER_NO_IOWAIT (1U << 7)

/* io_uring_register(2): the descriptor is a registered index; opcodes. */
#define URING_REGISTER_USE_REGISTERED_RING (1U << 31)
enum {
    URING_REGISTER_CLONE_BUFFERS = 30,
    URING_REGISTER_RESIZE_RINGS = 33,
};

/* struct io_uring_sqe.opcode. */
enum {
    URING_OP_READ_MULTISHOT = 49,
    URING_OP_FIXED_FD_INSTALL = 54,
    URING_OP_FTRUNCATE = 55,
    URING_OP_EPOLL_WAIT = 59,
    URING_OP_READV_FIXED = 60,
    URING_OP_WRITEV_FIXED = 61,
    URING_OP_PIPE = 62,
};

/* Flags of single operations. */
#define URING_TIMEOUT_ETIME_SUCCESS (1U << 5)

#endif
