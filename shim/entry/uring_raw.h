/* io_uring by system calls: what syscall(), mmap() and liburing's functions share. */
#ifndef BOUNCEIO_ENTRY_URING_RAW_H
#define BOUNCEIO_ENTRY_URING_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_uring_params;

/*
 * The three system calls. `caller`: in whose code other calls by instructions of its own may be (uring_inline.h), or NULL. @return the kernel's
 * answer: a value >= 0 or -errno.
 */
long uring_raw_setup(unsigned entries, struct io_uring_params *params, const void *caller);
long uring_raw_enter(unsigned fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                     size_t size);
long uring_raw_register(unsigned fd, unsigned opcode, void *argument, unsigned count);

/* Have in the queue of completions what there is, if that is a shadow. */
void uring_raw_pump(unsigned fd, bool is_index);

/* mmap of a shadow ring. @return false: it is none, or not the memory of its queues. *result: the address or -errno. */
bool uring_raw_map(void *address, size_t length, int protection, int flags, int fd, uint64_t offset, long *result);

#endif
