/*
 * fsync and fdatasync: regions of the checksums that nobody writes any more become clean with them.
 */
#include <unistd.h>

#include "base/next.h"
#include "engine/cancel.h"
#include "engine/sweep.h"
#include "entry/entry.h"

/* The thread was cancelled in the real call. */
static void clean_up(void *sweep)
{
    sweep_close(sweep, false);
}

static int synced(struct sweep *sweep, int fd, int result)
{
    int error = errno;
    sweep_close(sweep, result == 0);
    int unsaid = result == 0 ? sweep_unsaid(fd) : 0;
    errno = unsaid != 0 ? unsaid : error;
    return unsaid != 0 ? -1 : result;
}

static bool passes(int fd)
{
    return fd_word_state(fd_word(fd)) != FD_DIRECT && fd_word_state(fd_word(fd)) != FD_WATCHED;
}

EXPORT int fsync(int fd)
{
    struct sweep sweep;
    if (passes(fd))
        return next.fsync(fd);
    int error = errno;
    sweep_open(&sweep, fd);
    errno = error;
    return synced(&sweep, fd, CANCEL_WITH(clean_up, &sweep, next.fsync(fd)));
}

EXPORT int fdatasync(int fd)
{
    struct sweep sweep;
    if (passes(fd))
        return next.fdatasync(fd);
    int error = errno;
    sweep_open(&sweep, fd);
    errno = error;
    return synced(&sweep, fd,
                  CANCEL_WITH(clean_up, &sweep, sweep_is_open(&sweep) ? next.fsync(fd) : next.fdatasync(fd)));
}
