/*
 * stdio streams: the C library opens, writes and closes their descriptors inside itself. Its writes are not seen; a stream that may write
 * to a file with a map makes the whole of it unsettled for as long as it is open.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/next.h"
#include "base/process.h"
#include "engine/change.h"
#include "engine/landing.h"
#include "engine/transfer.h"
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
        fd_stream_opened(fileno(stream), stream);
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
        fd_stream_opened(fd, stream);
    errno = error;
    return stream;
}

/* A number that the C library closes inside itself. */
struct closing {
    int fd;
    uint64_t word;
};

static struct closing closing_number(int fd)
{
    int error = errno;
    struct closing closing = {.fd = fd, .word = fd >= 0 ? fd_closing(fd) : 0};
    errno = error;
    return closing;
}

/* Before the C library closes a stream's descriptor: what it has buffered goes out while that is still accounted for. */
static struct closing closing_stream(FILE *stream)
{
    int error = errno;
    int fd = process_start() && stream ? fileno(stream) : -1;
    if (fd >= 0 && (fd_word(fd) & FD_STREAM))
        fflush(stream);
    errno = error;
    return closing_number(fd);
}

static int closed(const struct closing *closing, int result)
{
    int error = errno;
    fd_closed(closing->fd, closing->word);
    errno = error;
    return result;
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    struct change change;
    if (!process_start())
        return next.freopen(path, mode, stream);
    struct closing closing = closing_stream(stream);
    open_begin(&change, AT_FDCWD, path, path ? open_flags(mode) : 0);
    FILE *reopened = next.freopen(path, mode, stream);
    int error = errno;
    if (path)
        open_end(&change, reopened ? fileno(reopened) : -1, open_flags(mode));
    fd_closed(closing.fd, closing.word);
    if (reopened && writes(mode))
        fd_stream_opened(fileno(reopened), reopened);
    errno = error;
    return reopened;
}

EXPORT int fclose(FILE *stream)
{
    struct closing closing = closing_stream(stream);
    return closed(&closing, next.fclose(stream));
}

EXPORT int pclose(FILE *stream)
{
    struct closing closing = closing_stream(stream);
    return closed(&closing, next.pclose(stream));
}

static int number_of(DIR *directory)
{
    return process_start() && directory ? dirfd(directory) : -1;
}

EXPORT int closedir(DIR *directory)
{
    /* The header says that it cannot be NULL; the C library answers EINVAL when it is. */
    __asm__("" : "+r"(directory));
    struct closing closing = closing_number(number_of(directory));
    return closed(&closing, next.closedir(directory));
}

/* ---- printing to a descriptor: a stream made and closed inside the C library ---- */

static int printed(int fd, const char *format, va_list arguments)
{
    struct fd_view view = {.fd = fd};
    struct landing landing = {0};
    if (process_start() && !fd_writes_pass(fd) && fd_view_open(&view, fd, false) == 0 && view.file)
        landing_open(&landing, &view,
                     &(struct landing_plan){.offset = TRANSFER_FILE_OFFSET, .append = landing_appends(&view, 0)});
    int result = next.vdprintf(fd, format, arguments);
    int error = errno;
    landing_close(&landing, result < 0 ? -EIO : result, 0);
    fd_view_close(&view);
    errno = error;
    return result;
}

EXPORT int vdprintf(int fd, const char *format, va_list arguments)
{
    return printed(fd, format, arguments);
}

EXPORT int dprintf(int fd, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int result = printed(fd, format, arguments);
    va_end(arguments);
    return result;
}

/* The fortified forms look at %n: that is the C library's business. */
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments);
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments)
{
    return fd_writes_pass(fd) || !process_start()
               ? ((int (*)(int, int, const char *, va_list))next_find("__vdprintf_chk"))(fd, flag, format, arguments)
               : printed(fd, format, arguments);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...);
EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int result = __vdprintf_chk(fd, flag, format, arguments);
    va_end(arguments);
    return result;
}

ALIAS(fopen64, fopen);
ALIAS(freopen64, freopen);
ALIAS(_IO_fopen, fopen);
ALIAS(_IO_fdopen, fdopen);
ALIAS(_IO_fclose, fclose);
