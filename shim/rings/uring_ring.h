/*
 * The inside of a shadow ring. For rings/uring*.c only.
 *
 * Memory (S: shared with forked children, anonymous; R: the kernel's ring, mapped from its descriptor):
 *
 *   front, as the program sees it        |R: first page of the kernel's rings| S: SQ head, tail, mask, entries, array; CQ head, tail, ..., cqes |
 *   entries, as the program sees them    |S: sqes|
 *   control                              |S: struct uring_control, position[]|
 *   the kernel's rings and entries       |R| mapped for the shim alone
 *
 * In front's first page are the words that the kernel writes and the program reads (sq flags, overflow, dropped), live. sq_off and cq_off
 * of io_uring_params point the program to the right one of both. (SQPOLL, which is stripped: sq flags lie in S, with NEED_WAKEUP set for ever.)
 *
 * Submission: the program moves the shadow's SQ tail; uring_submit copies entries to the kernel's SQ, which only the shim fills, and moves the
 * shadow's head by as many as the kernel took (or as the shim keeps back: chains).
 *
 * Completion: the pump moves entries [pumped, kernel's tail) to the shadow's CQ. The kernel's head stays behind: uring_sync moves it as far as
 * the program has consumed the shadow, so that readiness, overflow and waiting are the kernel's own. Entries that the program must not see
 * (swallowed) are passed over: position[i] is the kernel's index behind the shadow's entry i, and behind what was swallowed after it.
 *
 * Rights: one thread at a time submits (control->submitting), one pumps (control->pumping). They are words that hold a thread's id, taken by
 * compare-and-swap; who finds one taken by itself (a handler has interrupted it) goes away again. The pump is never waited for by those
 * who pump on the side; who needs completions waits with a futex on its word.
 */
#ifndef BOUNCEIO_RINGS_URING_RING_H
#define BOUNCEIO_RINGS_URING_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine/active.h"
#include "rings/abi.h"
#include "rings/slot.h"
#include "rings/uring.h"

/* One side of a ring: pointers into its memory. */
struct uring_queue {
    _Atomic uint32_t *head, *tail;
    uint32_t mask, entries;
};

/* Shared with forked children. */
struct uring_control {
    _Atomic uint32_t pumping;    /* thread id of who pumps, 0: nobody. Futex */
    _Atomic uint32_t submitting; /* thread id of who submits, 0: nobody. Futex */
    _Atomic uint32_t pumped;     /* the kernel's CQ index up to which entries have been moved; changed by who pumps */
    _Atomic uint32_t issuer;     /* SINGLE_ISSUER: the thread that may submit, once known */
    _Atomic uint32_t registered; /* changes of registered files and buffers, by whatever process: uring_registered.c */
    _Atomic int fixed;           /* process whose pages are in the table of buffers, 0: nobody's, or: */
#define URING_FIXED_NEVER (-1)
    _Atomic uint32_t swallowed;  /* completions ever that the program was not to see */
    _Atomic bool shared;         /* more than one process has used it */
    _Atomic int members[8];      /* those processes, 0: none */
    _Atomic uint32_t position[]; /* twice as many as the shadow's CQ has entries: uring_pump.c says why */
};

/* Registered files and buffers: uring_registered.c. Of one process. */
struct uring_registered;

/* The shadow as the shim sees it: laid out like the program's own mappings of it (uring_map). */
struct uring_front {
    char *queues;              /* offsets of io_uring_params.sq_off and cq_off count from here */
    struct io_uring_sqe *sqes; /* of 64, or with SQE128 128 bytes */
    size_t queues_length, sqes_length;
    struct io_uring_params params; /* as the program got them */
};

struct uring {
    _Atomic uint32_t taken;   /* the place in the table: 0 or 1 */
    _Atomic uint32_t users;   /* calls at work on it, and 1 as long as it has numbers. 0: it is gone, or going */
    _Atomic uint32_t numbers; /* descriptor numbers and registered indices that lead here */
    _Atomic int fd;           /* one of the former, or -1 */
    unsigned flags;           /* IORING_SETUP_*, as the program asked */
    unsigned features;
    size_t sqe_size, cqe_size; /* 64 or 128, 16 or 32 */
    struct uring_front front;
    struct uring_control *control;
    struct uring_queue sq, cq; /* the shadow's */
    uint32_t *sq_array;        /* NULL: NO_SQARRAY */
    char *cqes;
    struct uring_queue real_sq, real_cq; /* the kernel's */
    uint32_t *real_array;
    char *real_sqes, *real_cqes;
    _Atomic uint32_t *real_sq_flags;
    char *real_rings;                     /* head, tail, ... and entries of both queues */
    size_t memory_length;                 /* of S and what is mapped over it */
    size_t real_length, real_sqes_length; /* of real_rings and real_sqes */
    /* local: of this process */
    _Atomic(struct uring_chain *) chains; /* kept back, oldest first; submission right */
    _Atomic(struct uring_registered *) registered;
    int pid;                    /* whose it is */
    _Atomic uint32_t in_flight; /* slots that the kernel has, and `ended` */
    _Atomic uint32_t ended;     /* plain requests ever finished; changed by who pumps */
    _Atomic uint32_t patient;   /* threads that may sleep until there are several completions, or once have */
    _Atomic bool due;           /* some chain may go on: uring_release has work */
    bool has_bounced;           /* some request was; submission right */
    bool has_silenced;          /* some entry was to skip its completion: from then on the kernel refuses to drain */
    bool has_drained;           /* the kernel was given a drained entry: a gate, or one not kept back */
    uint32_t fixed_requests;    /* so many, before the table of buffers is made; submission right */
    uint64_t fixed_slabs, fixed_tried; /* of the pool: in the table, and those that were to be; submission right */
    _Atomic bool joined;               /* this process is a member: uring_share.c */
    _Atomic bool has_pump_thread;      /* uring_thread.c */
};

/* Slots that the kernel has; for a moment too many. */
static inline uint32_t uring_in_flight(struct uring *ring)
{
    const uint32_t ended = atomic_load(&ring->ended); /* first: it only grows, as far as the other does */
    return atomic_load(&ring->in_flight) - ended;
}

static inline struct io_uring_sqe *uring_sqe(char *sqes, size_t size, uint32_t index)
{
    return (struct io_uring_sqe *)(void *)(sqes + size * index);
}

/* Copy an entry of either queue: `least` bytes, or twice that. Constants are worth it: memcpy becomes a few instructions. */
#define URING_COPY(to, from, size, least)                                                                              \
    do {                                                                                                               \
        memcpy(to, from, least);                                                                                       \
        if (__builtin_expect((size) > (least), 0))                                                                     \
            memcpy((char *)(to) + (least), (const char *)(from) + (least), least);                                     \
    } while (0)

/* ---- uring_pump.c, uring_enter.c ---- */

/* The thread's id, as it stands in the rights. */
uint32_t uring_this_thread(void);

/* The real io_uring_enter2(2). */
long uring_enter_real(const struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags,
                      const void *argument, size_t size);

/* Like uring_pump, but another thread that pumps is waited for. @return false when this very thread does: a handler has interrupted it. */
bool uring_pump_through(struct uring *ring);

/* The kernel's CQ index up to which there are entries. */
static inline uint32_t uring_real_tail(const struct uring *ring)
{
    /* Acquire: the entries; the kernel's release in io_commit_cqring. */
    return atomic_load_explicit(ring->real_cq.tail, memory_order_acquire);
}

/* Wait until nothing that this process has bounced is in flight any more. Completions that find no room are dropped if nobody shares the ring. */
void uring_reap(struct uring *ring);

/* ---- uring_thread.c: who pumps when the program does not call. ---- */

/* From now on, and until uring_thread_forget, a thread of the shim's pumps the ring. @return 0 or -errno. */
int uring_thread_serve(struct uring *ring);
void uring_thread_forget(struct uring *ring);

/* ---- uring_share.c: processes that share a ring. ---- */

void uring_join_slow(struct uring *ring);

/* This process submits to the ring, or takes completions from it. */
static inline void uring_join(struct uring *ring)
{
    if (__builtin_expect(!atomic_load_explicit(&ring->joined, memory_order_relaxed), 0))
        uring_join_slow(ring);
}

/* Has the process ended, or that thread of one? Also when nobody has waited for it yet. */
bool uring_is_gone(int pid);

/* Is the process gone that issued the request of this tag? */
bool uring_is_orphan(const struct uring *ring, uint64_t tag);

/* After a submission: of a shared ring, what this process has in flight is finished even if the program does not call. */
void uring_serve_shared(struct uring *ring);

/* ---- uring_numbers.c: the table of rings. ---- */

/* A free place, all zero but for `taken`. @return NULL when there is none. */
struct uring *uring_new(void);

/* The first number of a new ring: from here on uring_of finds it. @return false when the number is too high. */
bool uring_publish(struct uring *ring, int fd);

/* A new ring that was not published: its place is free again. */
void uring_discard(struct uring *ring);

/* Registered indices of the calling thread. uring_registered_ring with NULL: none any more. */
void uring_registered_ring(unsigned index, struct uring *ring);

/* Call `visit` for each ring of this process that is there. */
void uring_each(void (*visit)(struct uring *ring));

/* ---- uring_setup.c ---- */

/* Nobody uses the ring any more: its memory goes. */
void uring_unmap(struct uring *ring);

/* ---- uring_submit.c: from the shadow's SQ to the kernel. ---- */

/*
 * Submit up to `to_submit` entries of the shadow's SQ, and what has become due of the chains; with `least` > 0 and GETEVENTS in `flags`, wait
 * in the same system call where that is safe, and say so in *waited. `argument` and `size` as io_uring_enter2(2). @return entries consumed, or
 * -errno.
 */
long uring_submit(struct uring *ring, int fd, unsigned to_submit, unsigned least, unsigned flags, const void *argument,
                  size_t size, bool *waited);

/*
 * The right to submit, for who changes what entries refer to: between a look at that and the kernel's nobody else does. @return false when this very
 * thread has it already (a handler has interrupted a submission), or, unless it `waits`, another one.
 */
bool uring_claim(struct uring *ring, struct active *active, bool waits);
void uring_disclaim(struct uring *ring, struct active *active);

/* Is something kept back that waits for completions? Then nobody may sleep until there are several: the first may let it go on. */
static inline bool uring_is_holding(const struct uring *ring)
{
    return atomic_load_explicit(&ring->chains, memory_order_relaxed) != NULL;
}

/* Submit what has become due of the chains, if this thread may. Never blocks. For the pump, after it has given up its right. */
void uring_release(struct uring *ring);

/* ---- uring_finish.c: one completion. ---- */

enum uring_finish {
    URING_SHOW,    /* *told is what the program gets */
    URING_SHOWN,   /* likewise, and it has been shown already (uring_pump.c) */
    URING_SWALLOW, /* nothing */
    URING_FOREIGN, /* of another process that shares the ring, which has to finish it first */
};

/* Finish a completion of the kernel's. `told` has room for ring->cqe_size bytes and holds a copy of it already. */
enum uring_finish uring_finish(struct uring *ring, struct io_uring_cqe *told);

/*
 * The slot of a read or write that nothing else hangs on, and that is always shown; NULL: another one. Only such may be finished with a handler of the
 * program's coming between, and jumping out (request.told).
 */
struct slot *uring_plain_request(const struct uring *ring, uint64_t tag);

/* Finish it; the slot stays. @return what the program is told. */
int64_t uring_finish_request(struct slot *slot, int64_t result);

/* What the kernel knows the program's request `user_data` as: for cancellations. */
uint64_t uring_name_in_kernel(const struct uring *ring, uint64_t user_data);

/* Everything that this process has kept back or in flight is lost (the ring goes away): give it up. */
void uring_abandon(struct uring *ring);

/* ---- uring_registered.c: registered files and buffers. ---- */

/* Around io_uring_register(2) of files and buffers, which it makes itself. @return the kernel's answer. */
long uring_register_files(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count);
long uring_register_buffers(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count);
void uring_forget_registered(struct uring *ring);

/*
 * What is registered file `index`? Like fd_view_open, with a number of the process to look at the file by, or -1. Submission right. @return 0;
 * -EAGAIN. State FD_PLAIN: nothing of ours.
 */
int uring_view_registered(struct uring *ring, struct fd_view *view, unsigned index, bool nowait);

/* Is it still the view's file? If not, a request that was prepared before may have gone elsewhere. Any thread. */
bool uring_registered_is(struct uring *ring, unsigned index, const struct fd_view *view);

/*
 * At the begin of each submission, with the submission right and nothing staged: of the registered files that the next `to_submit` entries of the shadow's SQ
 * and the chains that are due use, look at those that are not known: direct descriptors, those whose status flags may have changed, or whose
 * numbers were all closed. The kernel is asked for a number of each by an entry of our own. Never blocks; costs nothing without registered
 * files, and a few loads for an entry that uses one.
 */
void uring_look_registered(struct uring *ring, int fd, unsigned flags, unsigned to_submit);

/* Is more known of registered file `index` than that it is no file? */
bool uring_file_matters(struct uring *ring, unsigned index);

/* The ring itself has changed a slot (direct descriptors, FILES_UPDATE): what is known of [first, first + count) is no longer true. */
void uring_files_changed(struct uring *ring, unsigned first, unsigned count);

/* The same for one slot that a file has been opened into, with `flags`. */
void uring_file_opened(struct uring *ring, unsigned index, int flags);

/* Does [address, address + length) lie in registered buffer `index`? True as well when nothing is known of it.
 * False: the kernel is to judge the program's own entry. */
bool uring_buffer_holds(struct uring *ring, unsigned index, uint64_t address, uint64_t length);

/* ---- uring_fixed.c: bounce pages as registered buffers. ---- */

/*
 * The registered buffer that [data, data + length) of the pool lies in, registered now if it may be waited for; -1: none. For an entry that the kernel
 * starts as soon as it is submitted. Submission right.
 */
int uring_fixed_buffer(struct uring *ring, const void *data, size_t length, bool nowait);

/* The program is about to do something to the table of buffers, by `fd` and `opcode`; or (source) to take from that of the ring that `argument` names. */
void uring_fixed_end(struct uring *ring, int fd, unsigned opcode);
void uring_fixed_end_source(const void *argument);

/* ---- uring_follow.c: operations that open, close, or change files without being reads or writes. ---- */

/* Does the entry need following? */
bool uring_is_followed(struct uring *ring, const struct io_uring_sqe *sqe);

/* Must what is linked to it wait until it is over, because only then is known what the registered files are that it uses? */
bool uring_is_awaited(const struct io_uring_sqe *sqe);

/*
 * Before it is submitted: announce changes, forget numbers; slot->uring.follow.done is set when its end matters. `sqe`: what the kernel is to be
 * given; it may be changed.
 */
void uring_follow(struct uring *ring, struct slot *slot, struct io_uring_sqe *sqe);

/* It was not submitted after all. */
void uring_unfollow(struct slot *slot);

#endif
