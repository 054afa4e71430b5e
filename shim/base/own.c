/*
 * The table of our own descriptors: OWN_MAX pairs of number and holder, claimed by compare-and-swap on the holder.
 */
#include "base/own.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/resource.h>

#include "base/raw.h"

static struct {
    _Atomic(_Atomic int *) holder; /* NULL: free */
} table[OWN_MAX];

int own_raise(int fd)
{
    struct rlimit limit = {.rlim_cur = 1024};
    raw(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    /* Half-way below the limit first, then lower: a descriptor table is as large as its highest number. */
    long ceiling = limit.rlim_cur > 4096 ? 4096 : (long)limit.rlim_cur;
    long result = -EMFILE;
    for (long floor = ceiling - OWN_MAX * 4; floor > 2 && raw_failed(result); floor /= 2)
        result = raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, floor);
    raw(SYS_close, fd);
    return (int)result;
}

int own_keep(int fd, _Atomic int *holder)
{
    atomic_store(holder, fd);
    for (int i = 0; i < OWN_MAX; i++) {
        _Atomic int *nobody = NULL;
        if (atomic_load(&table[i].holder) == holder ||
            atomic_compare_exchange_strong(&table[i].holder, &nobody, holder))
            return 0;
    }
    own_close(holder);
    return -EMFILE;
}

int own_take(int fd, _Atomic int *holder)
{
    int raised = own_raise(fd);
    atomic_store(holder, -1);
    return raised < 0 ? raised : own_keep(raised, holder);
}

void own_close(_Atomic int *holder)
{
    for (int i = 0; i < OWN_MAX; i++) {
        _Atomic int *expected = holder;
        atomic_compare_exchange_strong(&table[i].holder, &expected, NULL);
    }
    int fd = atomic_exchange(holder, -1);
    if (fd >= 0)
        raw(SYS_close, fd);
}

int own_first_in(unsigned first, unsigned last)
{
    int found = -1;
    for (int i = 0; i < OWN_MAX; i++) {
        /* Acquire: pairs with the claim in own_take. */
        _Atomic int *holder = atomic_load_explicit(&table[i].holder, memory_order_acquire);
        int fd = holder ? atomic_load_explicit(holder, memory_order_relaxed) : -1;
        if (fd >= 0 && (unsigned)fd >= first && (unsigned)fd <= last && (found < 0 || fd < found))
            found = fd;
    }
    return found;
}

bool own_is(int fd)
{
    return fd > 2 && own_first_in((unsigned)fd, (unsigned)fd) == fd;
}

int own_move(int fd)
{
    for (int i = 0; i < OWN_MAX; i++) {
        _Atomic int *holder = atomic_load(&table[i].holder);
        if (!holder || atomic_load(holder) != fd)
            continue;
        long moved = raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd + 1);
        if (raw_failed(moved))
            moved = raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
        if (raw_failed(moved))
            return (int)moved;
        atomic_store(holder, (int)moved);
        raw(SYS_close, fd);
    }
    return 0;
}
