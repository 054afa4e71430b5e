/*
 * stdio streams: the C library opens, writes and closes their descriptors inside itself. Its writes are not seen; a stream that may write
 * to a file with a map makes the whole of it unsettled for as long as it is open.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/next.h"
#include "base/process.h"
#include "engine/change.h"
#include "entry/entry.h"
#include "entry/open.h"

static bool writes(const char *mode)
{
    return mode && (mode[0] == 'w' || mode[0] == 'a' || strchr(mode, '+'));
}

static int open_flags(const char *mode)
{
    return mode && mode[0] == 'w' ? O_TRUNC : 0;
}

static FILE *opened(struct change *change, FILE *stream, const char *mode)
{
    int error = errno;
    open_end(change, stream ? fileno(stream) : -1, open_flags(mode));
    if (stream && writes(mode))
        fd_stream_opened(fileno(stream));
    errno = error;
    return stream;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    struct change change;
    if (!process_start())
        return next.fopen(path, mode);
    open_begin(&change, AT_FDCWD, path, open_flags(mode));
    return opened(&change, next.fopen(path, mode), mode);
}

EXPORT FILE *fdopen(int fd, const char *mode)
{
    FILE *stream = next.fdopen(fd, mode);
    int error = errno;
    if (stream && process_start() && writes(mode))
        fd_stream_opened(fd);
    errno = error;
    return stream;
}

/* Before the C library closes a stream's descriptor: what it has buffered goes out while that is still accounted for. */
static int closing(FILE *stream)
{
    int error = errno;
    int fd = process_start() && stream ? fileno(stream) : -1;
    if (fd >= 0 && (fd_word(fd) & FD_STREAM))
        fflush(stream);
    if (fd >= 0)
        fd_closing(fd);
    errno = error;
    return fd;
}

static int closed(int fd, int result)
{
    int error = errno;
    if (fd >= 0)
        fd_closed(fd);
    errno = error;
    return result;
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    struct change change;
    if (!process_start())
        return next.freopen(path, mode, stream);
    int fd = closing(stream);
    open_begin(&change, AT_FDCWD, path, path ? open_flags(mode) : 0);
    FILE *reopened = opened(&change, next.freopen(path, mode, stream), mode);
    closed(fd, 0);
    return reopened;
}

EXPORT int fclose(FILE *stream)
{
    int fd = closing(stream);
    return closed(fd, next.fclose(stream));
}

EXPORT int pclose(FILE *stream)
{
    int fd = closing(stream);
    return closed(fd, next.pclose(stream));
}

EXPORT int closedir(DIR *directory)
{
    int fd = process_start() ? dirfd(directory) : -1;
    if (fd >= 0)
        fd_closing(fd);
    return closed(fd, next.closedir(directory));
}

ALIAS(fopen64, fopen);
ALIAS(freopen64, freopen);
