/*
 * The descriptor table: what each number is to the shim, one 64-bit word each, looked up by every wrapped call.
 *
 *   bits 0-3    state (enum fd_state)
 *   bits 4-7    flags (FD_APPEND ...)
 *   bits 8-23   sequence: changes with every change of the word, so that a late compare-and-swap fails
 *   bits 24-43  index of the file object + 1 (direct and watched descriptors; the word holds a reference), 0 none
 *   bits 44-63  index of the offset object (direct descriptors), 0: the file offset may be shared with anybody
 *
 * An all-zero word is "unknown": it is classified by F_GETFL at its first read or write. Only numbers below FD_MAX are
 * remembered. Lives in wiped memory: a forked child knows nothing and learns again.
 */
#ifndef BOUNCEIO_FILES_DESCRIPTOR_H
#define BOUNCEIO_FILES_DESCRIPTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "files/file.h"
#include "files/offset.h"

enum { FD_MAX = 1 << 20 };

enum fd_state {
    FD_UNKNOWN = 0,
    FD_PLAIN = 1,    /* nothing the shim could ever care for: pipe, socket, terminal, O_PATH ... */
    FD_NEW = 2,      /* opened without O_DIRECT; what it is shows at its first write */
    FD_FILE = 3,     /* regular file or block device without O_DIRECT; the file has no map */
    FD_WATCHED = 4,  /* likewise, writable, and the file has a map: its writes are mutators */
    FD_DIRECT = 5,   /* O_DIRECT on a regular file or block device: ours */
    FD_EXCLUDED = 6, /* O_DIRECT, but left alone by configuration */
    FD_CLOSING = 7,  /* being closed or replaced: not to be learned now */
    FD_EVENT = 8,    /* plain, of an anonymous inode: an eventfd or the like, whose reads may tell of a completion */
};

enum fd_flag {
    FD_APPEND = 1 << 4,
    FD_STREAM = 1 << 5, /* a stdio stream writes to it without our seeing it */
    FD_WRITABLE = 1 << 6,
    FD_READABLE = 1 << 7,
};

/* Base of the table and its length; 0 until process_start, so that every look-up before that takes the slow path. */
extern _Atomic uint64_t *fd_table;
extern unsigned fd_table_length;

static inline uint64_t fd_word(int fd)
{
    if (__builtin_expect((unsigned)fd >= fd_table_length, 0))
        return FD_UNKNOWN;
    /* Acquire: pairs with the release that stores a word. */
    return atomic_load_explicit(&fd_table[fd], memory_order_acquire);
}

static inline enum fd_state fd_word_state(uint64_t word)
{
    return (enum fd_state)(word & 15);
}

#define FD_STATES(a) (1U << (a))

/* May reads of this number go straight to the next definition? */
static inline bool fd_reads_pass(int fd)
{
    const unsigned passing = FD_STATES(FD_PLAIN) | FD_STATES(FD_NEW) | FD_STATES(FD_FILE) | FD_STATES(FD_WATCHED);
    return passing >> (fd_word(fd) & 15) & 1;
}

/* The store's count of maps created, and the count that FD_FILE words were classified under. In wiped memory. */
struct fd_generation {
    _Atomic(_Atomic uint64_t *) now; /* NULL: no store */
    _Atomic uint64_t seen;
};
extern struct fd_generation *fd_generation;

/* May writes of this number go straight to the next definition? Those of pipes and sockets without a branch that is taken. */
static inline bool fd_writes_pass(int fd)
{
    const unsigned passing = FD_STATES(FD_PLAIN) | FD_STATES(FD_EVENT);
    enum fd_state state = fd_word_state(fd_word(fd));
    if (__builtin_expect(passing >> state & 1, 1))
        return true;
    if (state != FD_FILE)
        return false;
    /* Relaxed: a map created this very moment is as good as one created just after the write. */
    _Atomic uint64_t *now = atomic_load_explicit(&fd_generation->now, memory_order_relaxed);
    return !now || atomic_load_explicit(now, memory_order_relaxed) ==
                       atomic_load_explicit(&fd_generation->seen, memory_order_relaxed);
}

/* A descriptor as one request sees it. */
struct fd_view {
    enum fd_state state; /* FD_PLAIN (pass), FD_WATCHED, FD_DIRECT or FD_EXCLUDED */
    int fd;
    uint64_t word;         /* the entry when it was looked up; 0 when it is not remembered */
    struct file *file;     /* FD_WATCHED, FD_DIRECT: with a reference */
    struct offset *offset; /* FD_DIRECT: with a reference; NULL when the file offset may be shared with anybody */
    unsigned flags;        /* enum fd_flag */
};

/*
 * Look a descriptor up for one request, classifying it when it is unknown. `nowait`: never classify; -EAGAIN instead.
 * Every view is closed by fd_view_close. Thread-safe, async-signal-safe. @return 0 or -EAGAIN.
 */
int fd_view_open(struct fd_view *view, int fd, bool nowait);
void fd_view_close(struct fd_view *view);

/* fd_view_open for a request that does not use the file offset: view->offset may be NULL. */
int fd_view_open_at(struct fd_view *view, int fd, bool nowait);

/* Is the entry still the one that was looked up? If not, the number was closed or replaced under the request. */
static inline bool fd_view_is_current(const struct fd_view *view)
{
    return view->fd >= 0 && fd_word(view->fd) == view->word;
}

/* The same, of a request that lasts: where the entry is not remembered, the file behind the number is looked at. */
bool fd_view_leads(const struct fd_view *view);

/*
 * Look at the file by another direct number of this process if the view's own (or -1) no longer leads there, or is not known to: view->fd, word
 * and flags become its, but for FD_APPEND, which stays the request's. @return false when there is none: view->fd is -1 then.
 * Walks the table. Unless `nowait`, the view's own number may be classified anew (fd_flags_changed).
 */
bool fd_view_renew(struct fd_view *view, bool nowait);

/*
 * Look at what is behind a number, ours included, without remembering it: state FD_FILE is told apart from FD_PLAIN. May classify; not under
 * NOWAIT. Closed by fd_view_close.
 */
void fd_view_look(struct fd_view *view, int fd);

/* Does the number lead to `file`, as a descriptor of this state and flags? As far as is remembered: no system call. */
bool fd_leads_to(int fd, const struct file *file, enum fd_state state, unsigned flags);

/* Maps that the store has created, as far as classification is concerned; 0 without a store. */
uint64_t fd_maps_created(void);

/*
 * A number was opened by this process with `flags`, or received, or its status flags may have changed. With O_DIRECT it is
 * classified at once (memory, map and guard are made ready here, not in the first request). `shared`: other holders of the
 * open file description may exist.
 */
void fd_opened(int fd, int flags, bool shared);

/* `fd` is a duplicate of `from`. */
void fd_duplicated(int fd, int from);

/*
 * Around everything that closes a number: forget it before, and let it be learned again after. fd_closed takes what fd_closing
 * returned, and keeps what somebody else has stored meanwhile.
 */
uint64_t fd_closing(int fd);
void fd_closed(int fd, uint64_t closing);

/* Around dup2 and dup3 onto a number. A stdio stream on it stays, and writes to the new file from now on. `done`: the call succeeded. */
uint64_t fd_replacing(int fd);
void fd_replaced(int fd, int from, uint64_t replacing, bool done);

/* The same for a range of numbers, inclusive. */
void fd_range_closing(unsigned first, unsigned last);
void fd_range_closed(unsigned first, unsigned last);

/* Status flags of one description changed (F_SETFL): all its numbers are unknown again. They cannot be told apart, so all are. */
void fd_flags_changed(void);

/* How often they have. For what was learned from a number that may have been closed since. */
uint32_t fd_flag_changes(void);

/* A stdio stream (a FILE) was opened for writing on `fd`. */
void fd_stream_opened(int fd, void *stream);

/* Call `visit(fd)` for every number that a stdio stream writes to, standard output and error included. */
void fd_each_stream(void (*visit)(int fd, void *argument), void *argument);

#endif
