/*
 * The real system calls of a request: from a bounce page, or into one. No errno, no cancellation point.
 */
#ifndef BOUNCEIO_ENGINE_ISSUE_H
#define BOUNCEIO_ENGINE_ISSUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* From older headers' point of view; include/uapi/linux/fs.h. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x40
#endif

/* Write `length` bytes at `offset`, or at the file offset when it is TRANSFER_FILE_OFFSET. @return bytes, or -errno. */
ssize_t issue_write(int fd, const void *data, size_t length, int64_t offset, int flags);
ssize_t issue_read(int fd, void *data, size_t length, int64_t offset, int flags);
ssize_t issue_read_vector(int fd, const struct iovec *vector, size_t segments, int64_t offset, int flags);

/*
 * What the kernel says of a write, or read, whose memory is bad from its first byte on: the exact errno for this descriptor, offset and
 * length, without a byte moved.
 */
ssize_t issue_bad_write(int fd, size_t length, int64_t offset, int flags);

/*
 * What the program is told when the kernel said `result` to such a write with RWF_NOWAIT added to its own `flags`: then nothing is allocated
 * beyond the end of the file. `fd`: to ask again by, or -1.
 */
ssize_t issue_bad_write_answer(int fd, size_t length, int64_t offset, int flags, ssize_t result);
ssize_t issue_bad_read(int fd, size_t length, int64_t offset, int flags);

/*
 * Can nothing have been written, by a write of `length` bytes that returned `result`? DESIGN.md §5. EINVAL of a length that the device cannot write
 * comes late: iomap_dio_bio_iter looks at each extent by itself, when those before it are under way (measured on ext4).
 * EROFS comes late, too: ext4 says it of a written O_DSYNC request when an error has made the file system read-only meanwhile.
 * `length` is all that can be asked of the device; not so where a pipe may hold less (inflow.c).
 */
bool issue_wrote_nothing(ssize_t result, int flags, size_t length);

/* The descriptor's present file offset, or -errno. */
int64_t issue_file_offset(int fd);

/* Move it by `bytes`. */
void issue_move_offset(int fd, int64_t bytes);

/* The file's size, or -errno. Does not look at times, which would disturb NOWAIT writes on multigrain-timestamp filesystems. */
int64_t issue_file_size(int fd);

/* The file's mtime in nanoseconds of CLOCK_REALTIME, or WINDOW_CANNOT_TELL. */
int64_t issue_file_modified(int fd);

#endif
