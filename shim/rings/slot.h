/*
 * Requests that this process has in the kernel, or keeps back from it: one table for libaio and io_uring.
 *
 * A slot's address, with some bits of its process's id above it, is its tag: what the kernel is given as `user_data`. (libaio: the place of the
 * private iocb is.) A completion whose tag is a slot in use is ours; any other is the program's own and passes. The table is one reservation of address space, wiped on fork: a child
 * has no requests in flight, and tags of its parent's mean nothing to it but that they are somebody else's (slot_is_tag).
 *
 * slot_take and slot_give are thread-safe, async-signal-safe and lock-free. A slot does not move.
 */
#ifndef BOUNCEIO_RINGS_SLOT_H
#define BOUNCEIO_RINGS_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/change.h"
#include "engine/inflow.h"
#include "engine/request.h"
#include "rings/abi.h"

enum { SLOT_MAX = 65536 };

struct aio;
struct uring;
struct slot;

/* Why a request has a slot; but for SLOT_AIO, of io_uring; a request of the engine's (request.kind) may be in it besides. */
enum slot_role {
    SLOT_REQUEST,  /* request.kind is not REQUEST_NONE */
    SLOT_FOLLOWED, /* a request of the program's whose end matters: it opens or closes descriptors, changes a file, or others wait for it */
    SLOT_VOICE,    /* an invented completion: `refusal` is told, whatever the kernel says */
    SLOT_GATE,     /* ours alone, never shown to the program: everything before it is over (drain) */
    SLOT_CHAIN,    /* no request, but the chain that is kept back */
    SLOT_AIO,      /* of libaio */
    SLOT_OVER,     /* its request is just being finished by the pump, which gives it back itself */
    SLOT_LOOK, /* ours alone, never shown to the program: asks what a registered file is (uring_look.c). uring.follow.done is called */
};

struct slot_aio {
    struct aio *aio;     /* its context */
    struct iocb iocb;    /* what the kernel gets */
    struct iocb *theirs; /* what the program submitted: event.obj */
    uint64_t data;       /* event.data */
};

/* What a followed request does beside reading and writing: uring_follow.c. */
struct slot_follow {
    /* It is over with `result`, or was not submitted after all (result SLOT_UNDONE). @return what the program is told. NULL: nothing to do. */
    int64_t (*done)(struct slot *slot, int64_t result);
    union {
        struct change change; /* truncations, punched holes */
        struct inflow inflow; /* copies inside the kernel */
        struct {
            struct fd_view view;
            struct extent page; /* a struct sweep lies there, or none */
        } sync;
    };
    _Atomic int own; /* a number of ours, of a file that is being opened by path; 0: none */
    unsigned index;  /* of a registered file */
    unsigned flags;  /* O_* of an open */
    uint64_t word;   /* of a number that is being closed */
};
#define SLOT_UNDONE INT64_MIN

struct slot_uring {
    struct uring *ring;
    uint64_t user_data;
    struct uring_chain *chain; /* whose next piece waits for this one, or NULL */
    bool heads_piece;          /* nothing is linked to it from before, in the piece that it was submitted with */
    bool is_short;             /* less was submitted than the program asked for: its memory is bad from there on */
    struct slot_follow follow;
    struct io_uring_sqe sqe[2]; /* as the program submitted it (the second half: SQE128) */
};

/* Entries of a chain that are kept back: uring_chain.c. Changed under the submission right, but for the atomics, which the pump sets. */
struct uring_chain {
    struct uring_chain *next; /* a younger one of the same ring */
    struct slot *first;       /* entries not yet submitted, in order (slot.next) */
    uint32_t length;          /* how many */
    bool drain;               /* waits until everything before it is over; what comes after it, until it is over */
    bool gated;               /* drain: its gate has been submitted */
    bool started;             /* some of it has been submitted, or its gate is open */
    _Atomic bool due;         /* its next piece may be submitted */
    _Atomic bool broken;      /* the piece before has failed: the rest is cancelled */
    _Atomic bool silent;      /* of a broken one: without completions */
    _Atomic bool over;        /* nothing of it is left, and nobody points to it any more */
};

struct slot {
    _Atomic uint32_t in_use;
    _Atomic(const void *)
        owner; /* its ring or context, from the moment that the slot says so (slot_own); NULL before */
    uint64_t tag;
    _Atomic uint64_t handed; /* slot_hand_over. slot_take leaves it alone */
    enum slot_role role;
    int refusal;       /* -errno (or a result) that is told instead of what the kernel says; SLOT_NO_REFUSAL: nothing */
    struct slot *next; /* in whatever list it is */
    struct request request;
    union {
        struct slot_aio aio;
        struct slot_uring uring;
        struct uring_chain chain;
    };
};
#define SLOT_NO_REFUSAL INT32_MIN

/* Make the table, so that children that are forked from here on have theirs at the same address. @return false when there is no memory. */
bool slots_prepare(void);

/*
 * A slot: role, next, what request_clear clears, and of `uring` all but what belongs to a followed request and to SQE128 are zero; the rest, which is
 * most of it, is as its last holder left it. @return NULL when all are taken.
 */
struct slot *slot_take(void);
void slot_give(struct slot *slot);

/* It is `owner`'s from here on, with all that has been written in it. */
static inline void slot_own(struct slot *slot, const void *owner)
{
    /* Release: pairs with slots_each. */
    atomic_store_explicit(&slot->owner, owner, memory_order_release);
}

/* The slot in use that `tag` stands for, or NULL. */
struct slot *slot_of(uint64_t tag);

/* Does the tag lie in the table? One that does, and is not in use here, is of another process that shares the ring. */
bool slot_is_tag(uint64_t tag);

static inline uint64_t slot_tag(const struct slot *slot)
{
    return slot->tag;
}

/*
 * From the moment that the kernel has a request it may be completed, and its slot be another's, before the submitter's call has returned. So
 * it is handed over under a number that it never gets again. Afterwards the submitter leaves what he alone can tell, whether the descriptor
 * still led to the file, by a compare-and-swap that fails if the slot is not that request's any more; until then he may read nothing else of it.
 * Who completes the request before that looks himself.
 */
enum slot_word { SLOT_NO_WORD, SLOT_CURRENT, SLOT_STALE };
uint64_t slot_hand_over(struct slot *slot);
void slot_take_back(struct slot *slot);
bool slot_is_handed(const struct slot *slot, uint64_t handed);
void slot_leave_word(struct slot *slot, uint64_t handed, bool current);
enum slot_word slot_word(const struct slot *slot);
bool slot_is_in_kernel(const struct slot *slot);

/* Call `visit(slot, argument)` for every slot of `owner`; it may give the slot back. Slots that come or go meanwhile are visited or not. */
void slots_each(const void *owner, void (*visit)(struct slot *slot, void *argument), void *argument);

/* Can it be a tag of process `pid`? */
bool slot_is_of(uint64_t tag, int pid);

/* Slots in use at this moment, for tests. */
unsigned slots_taken(void);

#endif
