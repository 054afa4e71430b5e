/*
 * Raw system calls, one for each form: the program's own form is kept, so that seccomp filters and tracers see what they expect.
 */
#include "engine/issue.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/resource.h>

#include "base/raw.h"
#include "base/return_stack.h"
#include "bounce/pool.h"
#include "checksum/window.h"
#include "engine/transfer.h"

/* After the system call of a request. */
static inline ssize_t back(long result)
{
    return_stack_repair();
    return result;
}

ssize_t issue_write(int fd, const void *data, size_t length, int64_t offset, int flags)
{
    if (flags != 0) {
        struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
        return back(raw(SYS_pwritev2, fd, &vector, 1, offset, 0, flags));
    }
    if (offset == TRANSFER_FILE_OFFSET)
        return back(raw(SYS_write, fd, data, length));
    return back(raw(SYS_pwrite64, fd, data, length, offset));
}

ssize_t issue_read(int fd, void *data, size_t length, int64_t offset, int flags)
{
    struct iovec vector = {.iov_base = data, .iov_len = length};
    if (flags != 0)
        return issue_read_vector(fd, &vector, 1, offset, flags);
    if (offset == TRANSFER_FILE_OFFSET)
        return back(raw(SYS_read, fd, data, length));
    return back(raw(SYS_pread64, fd, data, length, offset));
}

ssize_t issue_read_vector(int fd, const struct iovec *vector, size_t segments, int64_t offset, int flags)
{
    return back(raw(SYS_preadv2, fd, vector, segments, offset, 0, flags));
}

ssize_t issue_bad_write(int fd, size_t length, int64_t offset, int flags)
{
    void *bad = pool_bad_address();
    if (!bad)
        return -EFAULT;
    /*
     * Without waiting, so that nothing is allocated before the memory is looked at. Measured on Linux 6.18: a write from bad
     * memory beyond the end of file leaves ext4 and tmpfs files longer, and on ext4 with stale blocks of the disk in them.
     */
    ssize_t result = issue_write(fd, bad, length, offset, flags | RWF_NOWAIT);
    return issue_bad_write_answer(fd, length, offset, flags, result);
}

ssize_t issue_bad_write_answer(int fd, size_t length, int64_t offset, int flags, ssize_t result)
{
    if (flags & RWF_NOWAIT)
        return result;
    if (result == -EOPNOTSUPP && flags != 0 && fd >= 0)
        return issue_write(fd, pool_bad_address(), length, offset, flags);
    return result == -EAGAIN || result == -EOPNOTSUPP ? -EFAULT : result;
}

ssize_t issue_bad_read(int fd, size_t length, int64_t offset, int flags)
{
    void *bad = pool_bad_address();
    return bad ? issue_read(fd, bad, length, offset, flags) : -EFAULT;
}

/* Is the kernel asked for the length that was passed? It cuts a write at the size that the process may make files. */
static bool is_limited(void)
{
    struct rlimit limit;
    return raw(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
}

bool issue_wrote_nothing(ssize_t result, int flags, size_t length)
{
    switch (result) {
    case 0:
    case -EBADF:
    case -EFAULT:
    case -EOPNOTSUPP:
    case -EFBIG:
    case -EPERM:
    case -ESPIPE:
        return true;
    case -EINVAL:
        return length % BLOCK_SIZE == 0 && !is_limited();
    case -EAGAIN:
        return (flags & RWF_NOWAIT) != 0;
    default:
        return false;
    }
}

int64_t issue_file_offset(int fd)
{
    return raw(SYS_lseek, fd, 0, SEEK_CUR);
}

void issue_move_offset(int fd, int64_t bytes)
{
    raw(SYS_lseek, fd, bytes, SEEK_CUR);
}

int64_t issue_file_size(int fd)
{
    struct statx status;
    long error = raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_SIZE, &status);
    return raw_failed(error) ? error : (int64_t)status.stx_size;
}

int64_t issue_file_modified(int fd)
{
    struct statx status;
    if (raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_MTIME, &status) != 0)
        return WINDOW_CANNOT_TELL;
    return status.stx_mtime.tv_sec * INT64_C(1000000000) + status.stx_mtime.tv_nsec;
}
