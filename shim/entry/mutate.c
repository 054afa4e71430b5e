/*
 * Calls that change content without a buffer: truncation, allocation, copies inside the kernel, clones, and the file's times.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/next.h"
#include "base/process.h"
#include "bounce/copy.h"
#include "engine/cancel.h"
#include "engine/change.h"
#include "engine/inflow.h"
#include "engine/transfer.h"
#include "entry/entry.h"

static int changed(struct change *change, int result, bool failure_may_change)
{
    int error = errno;
    change_close(change, result == 0 || failure_may_change);
    errno = error;
    return result;
}

EXPORT int truncate(const char *path, off_t length)
{
    struct change change;
    change_open_path_truncation(&change, AT_FDCWD, path, length);
    return changed(&change, next.truncate(path, length), false);
}

EXPORT int ftruncate(int fd, off_t length)
{
    struct change change;
    change_find(&change, fd);
    change_open_truncation(&change, length);
    return changed(&change, next.ftruncate(fd, length), false);
}

/* The thread was cancelled in the real call. */
static void clean_up_allocation(void *argument)
{
    change_close_allocation(argument, -EINTR);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct change change;
    int error = errno;
    change_find(&change, fd);
    change_open_allocation(&change, mode, offset, length);
    errno = error;
    int result = CANCEL_WITH(clean_up_allocation, &change, next.fallocate(fd, mode, offset, length));
    error = errno;
    change_close_allocation(&change, result == 0 ? 0 : -error);
    errno = error;
    return result;
}

/* Allocation leaves content alone and moves the file's times: they are ours. */
static int allocated(int fd, int result)
{
    int error = errno;
    if (result == 0)
        change_times(fd);
    errno = error;
    return result;
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t length)
{
    change_look(fd);
    return allocated(fd, next.posix_fallocate(fd, offset, length));
}

/* ---- copies inside the kernel: like buffered writes of the target ---- */

/* `position`: the target's offset, in user memory, or NULL for its file offset. */
static void open_inflow(struct inflow *inflow, int fd, const off64_t *position, size_t length)
{
    int64_t offset = TRANSFER_FILE_OFFSET;
    struct fd_view view = {.fd = fd};
    if (process_start() && !fd_writes_pass(fd) && fd_view_open(&view, fd, false) != 0)
        view.file = NULL;
    if (view.file && position && (copy_from_user(&offset, position, sizeof offset) != sizeof offset || offset < 0))
        fd_view_close(&view); /* the kernel will refuse it */
    inflow_open(inflow, &view, offset, length, TRANSPORT_BLOCKING);
}

/* The thread was cancelled in the real call. */
static void clean_up_inflow(void *inflow)
{
    inflow_close(inflow, -EIO);
}

static ssize_t flowed(struct inflow *inflow, ssize_t result)
{
    int error = errno;
    inflow_close(inflow, result < 0 ? -error : result);
    errno = error;
    return result;
}

EXPORT ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags)
{
    struct inflow inflow;
    open_inflow(&inflow, out, out_offset, length);
    return flowed(&inflow, CANCEL_WITH(clean_up_inflow, &inflow,
                                       next.copy_file_range(in, in_offset, out, out_offset, length, flags)));
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
    struct inflow inflow;
    open_inflow(&inflow, out, NULL, count);
    return flowed(&inflow, CANCEL_WITH(clean_up_inflow, &inflow, next.sendfile(out, in, offset, count)));
}

EXPORT ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags)
{
    struct inflow inflow;
    open_inflow(&inflow, out, out_offset, length);
    return flowed(&inflow,
                  CANCEL_WITH(clean_up_inflow, &inflow, next.splice(in, in_offset, out, out_offset, length, flags)));
}

/* ---- ioctls that replace content ---- */

/* Source: include/uapi/linux/fs.h, which cannot be included: it defines BLOCK_SIZE. */
struct clone_range {
    int64_t source_fd;
    uint64_t source_offset, source_length, target_offset;
};
#define IOCTL_CLONE _IOW(0x94, 9, int)
#define IOCTL_CLONE_RANGE _IOW(0x94, 13, struct clone_range)

/* Source: fs/xfs/libxfs/xfs_fs.h. The structures are not looked into: the whole file is unsettled meanwhile. */
static bool replaces_content(unsigned long request)
{
    enum { XFS = 'X', ALLOCSP = 10, FREESP = 11, ALLOCSP64 = 36, FREESP64 = 37, UNRESVSP = 41, UNRESVSP64 = 43 };
    enum { ZERO_RANGE = 57, SWAPEXT = 109, EXCHANGE_RANGE = 129, COMMIT_RANGE = 131 };
    if (_IOC_TYPE(request) != XFS)
        return false;
    switch (_IOC_NR(request)) {
    case ALLOCSP:
    case FREESP:
    case ALLOCSP64:
    case FREESP64:
    case UNRESVSP:
    case UNRESVSP64:
    case ZERO_RANGE:
    case SWAPEXT:
    case EXCHANGE_RANGE:
    case COMMIT_RANGE:
        return true;
    default:
        return false;
    }
}

/* @return false when the request does not touch the descriptor's content. */
static bool open_ioctl(struct change *change, int fd, unsigned long request, const void *argument)
{
    struct clone_range range;
    if (request == IOCTL_CLONE || replaces_content(request)) {
        change_find(change, fd);
        change_open(change, 0, CHANGE_TO_END);
        return true;
    }
    if (request != IOCTL_CLONE_RANGE || copy_from_user(&range, argument, sizeof range) != sizeof range)
        return false;
    change_find(change, fd);
    change_open(change, (int64_t)range.target_offset,
                range.source_length ? (int64_t)range.source_length : CHANGE_TO_END);
    return true;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    struct change change;
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (_IOC_TYPE(request) != 'X' && request != IOCTL_CLONE && request != IOCTL_CLONE_RANGE)
        return next.ioctl(fd, request, argument);
    if (!process_start() || !open_ioctl(&change, fd, request, argument))
        return next.ioctl(fd, request, argument);
    return changed(&change, next.ioctl(fd, request, argument), true);
}

/* ---- times ---- */

static void about_to_time_path(int directory, const char *path, int flags)
{
    if (path)
        change_path_look(directory, path, flags);
    else
        change_look(directory);
}

static int timed(int fd, int result)
{
    int error = errno;
    if (result == 0)
        change_times(fd);
    errno = error;
    return result;
}

static int timed_path(int directory, const char *path, int flags, int result)
{
    int error = errno;
    if (result == 0 && path)
        change_path_times(directory, path, flags);
    else if (result == 0)
        change_times(directory);
    errno = error;
    return result;
}

EXPORT int utimensat(int directory, const char *path, const struct timespec times[2], int flags)
{
    about_to_time_path(directory, path, flags);
    return timed_path(directory, path, flags, next.utimensat(directory, path, times, flags));
}

EXPORT int futimens(int fd, const struct timespec times[2])
{
    change_look(fd);
    return timed(fd, next.futimens(fd, times));
}

EXPORT int futimes(int fd, const struct timeval times[2])
{
    change_look(fd);
    return timed(fd, next.futimes(fd, times));
}

EXPORT int utimes(const char *path, const struct timeval times[2])
{
    about_to_time_path(AT_FDCWD, path, 0);
    return timed_path(AT_FDCWD, path, 0, next.utimes(path, times));
}

EXPORT int lutimes(const char *path, const struct timeval times[2])
{
    about_to_time_path(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
    return timed_path(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, next.lutimes(path, times));
}

EXPORT int futimesat(int directory, const char *path, const struct timeval times[2])
{
    about_to_time_path(directory, path, 0);
    return timed_path(directory, path, 0, next.futimesat(directory, path, times));
}

EXPORT int utime(const char *path, const struct utimbuf *times)
{
    about_to_time_path(AT_FDCWD, path, 0);
    return timed_path(AT_FDCWD, path, 0, next.utime(path, times));
}

ALIAS(truncate64, truncate);
ALIAS(ftruncate64, ftruncate);
ALIAS(fallocate64, fallocate);
ALIAS(posix_fallocate64, posix_fallocate);
ALIAS(sendfile64, sendfile);
