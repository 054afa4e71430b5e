/*
 * open and its relatives, and the streams that the C library opens by itself.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

#include "base/next.h"
#include "base/process.h"
#include "engine/cancel.h"
#include "engine/change.h"
#include "entry/entry.h"
#include "entry/open.h"

static bool takes_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

void open_begin(struct change *change, int directory, const char *path, int flags)
{
    change->view.file = NULL;
    if (flags & O_TRUNC)
        change_open_path_truncation(change, directory, path, 0);
}

/* The thread was cancelled in the real call. */
static void clean_up(void *change)
{
    change_close(change, true);
}

int open_end(struct change *change, int fd, int flags)
{
    int error = errno;
    if (flags & O_TRUNC)
        change_close(change, fd >= 0);
    if (fd >= 0)
        fd_opened(fd, flags, false);
    errno = error;
    return fd;
}

/* The mode argument of a variadic open: garbage when there is none, as in the C library. */
#define OPEN_MODE(flags, mode)                                                                                         \
    do {                                                                                                               \
        if (takes_mode(flags)) {                                                                                       \
            va_list arguments;                                                                                         \
            va_start(arguments, flags);                                                                                \
            mode = va_arg(arguments, mode_t);                                                                          \
            va_end(arguments);                                                                                         \
        }                                                                                                              \
    } while (0)

/* The real call, with a truncation announced around it where the file has a map. */
#define OPEN_ANNOUNCED(directory, path, flags, call)                                                                   \
    do {                                                                                                               \
        struct change change;                                                                                          \
        open_begin(&change, directory, path, flags);                                                                   \
        return open_end(&change, change.view.file ? CANCEL_WITH(clean_up, &change, call) : (call), flags);             \
    } while (0)

static int open_announced(const char *path, int flags, mode_t mode)
{
    OPEN_ANNOUNCED(AT_FDCWD, path, flags, next.open(path, flags, mode));
}

static int openat_announced(int directory, const char *path, int flags, mode_t mode)
{
    OPEN_ANNOUNCED(directory, path, flags, next.openat(directory, path, flags, mode));
}

EXPORT int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    OPEN_MODE(flags, mode);
    return process_start() ? open_announced(path, flags, mode) : next.open(path, flags, mode);
}

EXPORT int openat(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    OPEN_MODE(flags, mode);
    return process_start() ? openat_announced(directory, path, flags, mode) : next.openat(directory, path, flags, mode);
}

EXPORT int creat(const char *path, mode_t mode)
{
    if (!process_start())
        return next.creat(path, mode);
    OPEN_ANNOUNCED(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, next.creat(path, mode));
}

/* The fortified forms abort when a mode is missing: the C library does that, with its own message. */
#define CHECKED_OPEN(name)                                                                                             \
    EXPORT int name(const char *path, int flags);                                                                      \
    EXPORT int name(const char *path, int flags)                                                                       \
    {                                                                                                                  \
        if (takes_mode(flags))                                                                                         \
            return ((int (*)(const char *, int))next_find(#name))(path, flags);                                        \
        return open(path, flags);                                                                                      \
    }
#define CHECKED_OPENAT(name)                                                                                           \
    EXPORT int name(int directory, const char *path, int flags);                                                       \
    EXPORT int name(int directory, const char *path, int flags)                                                        \
    {                                                                                                                  \
        if (takes_mode(flags))                                                                                         \
            return ((int (*)(int, const char *, int))next_find(#name))(directory, path, flags);                        \
        return openat(directory, path, flags);                                                                         \
    }

CHECKED_OPEN(__open_2)
CHECKED_OPEN(__open64_2)
CHECKED_OPENAT(__openat_2)
CHECKED_OPENAT(__openat64_2)

ALIAS(open64, open);
ALIAS(__open, open);
ALIAS(__open64, open);
ALIAS(openat64, openat);
ALIAS(creat64, creat);
