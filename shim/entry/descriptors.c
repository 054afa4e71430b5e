/*
 * Everything that makes, copies, closes or changes a descriptor number. Our own numbers look closed to the program.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/next.h"
#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "engine/active.h"
#include "engine/cancel.h"
#include "engine/sweep.h"
#include "engine/transfer.h"
#include "entry/entry.h"
#include "rings/uring.h"

/* Is the number one that the program must not see? Then errno is EBADF. */
static bool is_hidden(int fd)
{
    if (!own_is(fd))
        return false;
    errno = EBADF;
    return true;
}

static __attribute__((noinline)) void close_direct(int fd)
{
    struct cancel cancel = cancel_hold();
    sweep_at_close(fd);
    cancel_restore(cancel);
}

EXPORT int close(int fd)
{
    if (!process_start())
        return next.close(fd);
    if (is_hidden(fd))
        return -1;
    int error = errno;
    if (fd_word_state(fd_word(fd)) == FD_DIRECT)
        close_direct(fd);
    if (uring_any())
        uring_closing(fd);
    uint64_t closing = fd_closing(fd);
    errno = error;
    int result = next.close(fd);
    error = errno;
    fd_closed(fd, closing);
    errno = error;
    return result;
}

static int duplicated(int result, int from)
{
    int error = errno;
    if (result >= 0)
        fd_duplicated(result, from);
    if (result >= 0 && uring_any())
        uring_duplicated(result, from);
    errno = error;
    return result;
}

EXPORT int dup(int fd)
{
    if (!process_start())
        return next.dup(fd);
    return is_hidden(fd) ? -1 : duplicated(next.dup(fd), fd);
}

/* Number `to` is about to become a copy of `from`. */
static bool replacing(int from, int to, uint64_t *word)
{
    if (is_hidden(from))
        return false;
    int error = process_owns_tables() ? own_move(to) : 0;
    if (error != 0) {
        errno = -error;
        return false;
    }
    /* What is not open replaces nothing. */
    if (uring_any() && !raw_failed(raw(SYS_fcntl, from, F_GETFD)))
        uring_closing(to);
    *word = fd_replacing(to);
    return true;
}

static int replaced(int result, int from, int to, uint64_t word)
{
    int error = errno;
    fd_replaced(to, from, word, result >= 0);
    if (result >= 0 && uring_any())
        uring_duplicated(to, from);
    errno = error;
    return result;
}

EXPORT int dup2(int fd, int number)
{
    uint64_t word;
    if (!process_start() || fd == number)
        return next.dup2(fd, number);
    return replacing(fd, number, &word) ? replaced(next.dup2(fd, number), fd, number, word) : -1;
}

EXPORT int dup3(int fd, int number, int flags)
{
    uint64_t word;
    if (!process_start() || fd == number)
        return next.dup3(fd, number, flags);
    return replacing(fd, number, &word) ? replaced(next.dup3(fd, number, flags), fd, number, word) : -1;
}

/* O_DIRECT and O_APPEND belong to the open file description: every number of it may have changed. */
static int set_flags(int fd, int flags)
{
    const int watched = O_DIRECT | O_APPEND;
    long before = raw(SYS_fcntl, fd, F_GETFL);
    int result = next.fcntl(fd, F_SETFL, flags);
    int error = errno;
    if (result == 0 && !raw_failed(before) && ((before ^ flags) & watched))
        fd_flags_changed();
    errno = error;
    return result;
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!process_start())
        return next.fcntl(fd, command, argument);
    if (is_hidden(fd))
        return -1;
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return duplicated(next.fcntl(fd, command, argument), fd);
    case F_SETFL:
        return set_flags(fd, (int)(intptr_t)argument);
    default:
        return next.fcntl(fd, command, argument);
    }
}

/* Call `close_part` for each run of numbers in [first, last] between our own. @return its first failure, or 0. */
static int around_own(unsigned first, unsigned last, int flags, int (*close_part)(unsigned, unsigned, int))
{
    int own;
    while ((own = own_first_in(first, last)) >= 0) {
        int result = (unsigned)own > first ? close_part(first, (unsigned)own - 1, flags) : 0;
        if (result != 0 || (unsigned)own == last)
            return result;
        first = (unsigned)own + 1;
    }
    return close_part(first, last, flags);
}

static int close_part(unsigned first, unsigned last, int flags)
{
    return next.close_range(first, last, flags);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    if (!process_start() || first > last || ((unsigned)flags & ~CLOSE_RANGE_UNSHARE))
        return next.close_range(first, last, flags);
    int error = errno;
    fd_range_closing(first, last);
    if (uring_any())
        uring_range_closing(first, last);
    errno = error;
    int result = around_own(first, last, flags, close_part);
    error = errno;
    fd_range_closed(first, last);
    errno = error;
    return result;
}

/* Kernels before 5.9 have no close_range. */
static int close_one_by_one(unsigned first, unsigned last, int flags)
{
    (void)flags;
    struct rlimit limit = {.rlim_cur = 1024};
    if (!raw_failed(raw(SYS_close_range, first, last, 0)))
        return 0;
    raw(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    for (unsigned fd = first; fd <= last && fd < limit.rlim_cur; fd++)
        raw(SYS_close, fd);
    return 0;
}

EXPORT void closefrom(int first)
{
    if (!process_start()) {
        next.closefrom(first);
        return;
    }
    int error = errno;
    unsigned from = first < 0 ? 0 : (unsigned)first;
    fd_range_closing(from, ~0U);
    if (uring_any())
        uring_range_closing(from, ~0U);
    around_own(from, ~0U, 0, close_one_by_one);
    fd_range_closed(from, ~0U);
    errno = error;
}

static void close_view(void *view)
{
    fd_view_close(view);
}

/* Requests at the file offset and calls that move it keep clear of each other. A handler may jump out of the wait. */
static off_t seek_direct(int fd, off_t offset, int whence)
{
    struct fd_view view = {.fd = -1};
    struct active active;
    struct active_offset held;
    active_open(&active, close_view, &view);
    if (fd_view_open(&view, fd, true) != 0) {
        active_close(&active);
        return next.lseek(fd, offset, whence);
    }
    active_enter_seek(&held, view.offset);
    off_t result = next.lseek(fd, offset, whence);
    active_exit(&held);
    fd_view_close(&view);
    active_close(&active);
    return result;
}

EXPORT off_t lseek(int fd, off_t offset, int whence)
{
    bool moves = offset != 0 || whence != SEEK_CUR;
    if (fd_word_state(fd_word(fd)) == FD_DIRECT && moves)
        return seek_direct(fd, offset, whence);
    return next.lseek(fd, offset, whence);
}

ALIAS(__close, close);
ALIAS(__dup2, dup2);
ALIAS(fcntl64, fcntl);
ALIAS(__fcntl, fcntl);
ALIAS(lseek64, lseek);
ALIAS(llseek, lseek);
ALIAS(__lseek, lseek);
