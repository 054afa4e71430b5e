/*
 * Waits for a descriptor, which may be what tells the program of a completion: an eventfd, or a ring's own. What has completed is moved to
 * the shadow rings when they return (rings/shadow.h). Those that set a signal mask meanwhile never really block the signals of faults.
 *
 * read and its relatives, which wait for an eventfd, are in rw.c.
 */
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

#include "base/next.h"
#include "bounce/guard.h"
#include "entry/entry.h"
#include "rings/shadow.h"

/* The C library's own reads past the wrapper. */
EXPORT int eventfd_read(int fd, eventfd_t *value)
{
    return SHADOW_WAIT(next.eventfd_read(fd, value));
}

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    return SHADOW_WAIT(next.poll(fds, count, timeout));
}
ALIAS(__poll, poll);

EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    sigset_t storage;
    return SHADOW_WAIT(next.ppoll(fds, count, timeout, guard_strip(mask, &storage)));
}

/* The fortified forms abort when the array is too small: the C library does that, with its own message. */
EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room)
{
    if (room / sizeof(*fds) < count) {
        int (*fail)(struct pollfd *, nfds_t, int, size_t) =
            (int (*)(struct pollfd *, nfds_t, int, size_t))next_find("__poll_chk");
        return fail(fds, count, timeout, room);
    }
    return poll(fds, count, timeout);
}

EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask,
                       size_t room)
{
    if (room / sizeof(*fds) < count) {
        int (*fail)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t) = (int (*)(
            struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t))next_find("__ppoll_chk");
        return fail(fds, count, timeout, mask, room);
    }
    return ppoll(fds, count, timeout, mask);
}

EXPORT int select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, struct timeval *timeout)
{
    return SHADOW_WAIT(next.select(count, reads, writes, excepts, timeout));
}
ALIAS(__select, select);

EXPORT int pselect(int count, fd_set *reads, fd_set *writes, fd_set *excepts, const struct timespec *timeout,
                   const sigset_t *mask)
{
    sigset_t storage;
    return SHADOW_WAIT(next.pselect(count, reads, writes, excepts, timeout, guard_strip(mask, &storage)));
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int maximum, int timeout)
{
    return SHADOW_WAIT(next.epoll_wait(fd, events, maximum, timeout));
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask)
{
    sigset_t storage;
    return SHADOW_WAIT(next.epoll_pwait(fd, events, maximum, timeout, guard_strip(mask, &storage)));
}

EXPORT int epoll_pwait2(int fd, struct epoll_event *events, int maximum, const struct timespec *timeout,
                        const sigset_t *mask)
{
    sigset_t storage;
    return SHADOW_WAIT(next.epoll_pwait2(fd, events, maximum, timeout, guard_strip(mask, &storage)));
}
