/*
 * A batch of entries on its way to the kernel's SQ: filled by uring_stage.c (one entry) and uring_chain.c (linked ones), submitted by
 * uring_submit.c. All of it under the ring's submission right. For rings/uring_*.c only.
 */
#ifndef BOUNCEIO_RINGS_URING_STAGE_H
#define BOUNCEIO_RINGS_URING_STAGE_H

#include "engine/helping.h"
#include "rings/uring_ring.h"

/* One entry of a batch. */
struct uring_staged {
    struct slot *slot; /* NULL: the program's own, copied */
    uint64_t handed;   /* the slot's, as it was handed over */
    /* Of the request, for when its slot may be another's: what it was prepared for. */
    struct file *file;
    uint64_t word;
    int fd; /* number, or registered file */
    bool is_fixed;
    struct uring_chain
        *chain;     /* the entry was kept back in it before, or what follows the entry is kept back in it; or NULL */
    bool was_held;  /* the former */
    bool is_real;   /* it fills an entry of the kernel's SQ; if not, its chain is kept back as a whole */
    uint32_t taken; /* entries of the shadow's SQ that are consumed when this one has been taken */
};

enum { URING_BATCH = 64 };

struct uring_batch {
    struct uring *ring;
    int fd;
    unsigned flags;    /* of io_uring_enter(2): how the ring is named */
    uint32_t count;    /* staged */
    uint32_t real;     /* entries of the kernel's SQ that are filled */
    uint32_t taken;    /* entries of the shadow's SQ that have been staged */
    uint32_t requests; /* of what is staged: to be counted in ring->in_flight */
    uint32_t room;     /* for staged entries */
    struct helping helping;
    bool is_whole; /* not to be handed over in helpings */
    struct uring_staged *staged;
    struct uring_staged few[URING_BATCH];
    struct extent pages; /* of `staged`, when it must hold more */
};

/* How an entry is to be staged. */
struct uring_entry {
    const struct io_uring_sqe *sqe; /* readable: ours or the shadow's */
    struct slot *slot;              /* that it was kept back in, or NULL */
    unsigned links;                 /* IOSQE_IO_LINK | IOSQE_IO_HARDLINK that the kernel is to see */
    bool drain;                     /* the kernel is to see IOSQE_IO_DRAIN if the program set it */
    bool heads_piece;
    bool is_gate;  /* its end decides about what is kept back: it needs a slot */
    bool in_piece; /* others are linked to it in the kernel: a refusal must break the link */
};

/*
 * Stage one entry: fill one of the kernel's, with what it needs prepared. @return what was staged; NULL: slots have run out, or the batch is full.
 */
struct uring_staged *uring_stage(struct uring_batch *batch, const struct uring_entry *entry);

/* Stage an invented completion for a slot that was kept back. @return as above. */
struct uring_staged *uring_stage_voice(struct uring_batch *batch, struct slot *slot, int result);

/* Stage a drained NOP, whose end means that everything the kernel got before is over. */
struct uring_staged *uring_stage_gate(struct uring_batch *batch, struct uring_chain *chain);

/* Undo what staging did for a slot that the kernel did not take. `keep`: the slot itself stays, with its entry, to be staged again. */
void uring_unstage(struct slot *slot, bool keep);

/* What a read or write does with memory of the program's that the shim copies. */
enum uring_bounce { URING_NO_BOUNCE, URING_BOUNCED_READ, URING_BOUNCED_WRITE };
enum uring_bounce uring_bounces(struct uring *ring, const struct io_uring_sqe *sqe);

/*
 * Does the entry close a number through which direct requests go? Staging it makes the number unknown: what was staged before must be with the
 * kernel by then, or it would look as if it had gone to another file.
 */
bool uring_closes_direct(const struct io_uring_sqe *sqe);

/* ---- uring_chain.c ---- */

/*
 * Stage the chain of `length` entries that begins `batch->taken` entries into the shadow's SQ, or the part of it that may go, and keep the rest
 * back. @return false when slots have run out or the batch is full: nothing of it was staged.
 */
bool uring_stage_chain(struct uring_batch *batch, uint32_t length);

/* Does the entry go by itself: neither linked nor drained, nor kept back because of what came before? */
bool uring_is_plain(struct uring *ring, const struct io_uring_sqe *sqe);

/* Stage what has become due. @return false when there was no room for all of it. */
bool uring_stage_due(struct uring_batch *batch);

/* A staged entry that was to be kept in, or came from, `chain` was not taken by the kernel. */
void uring_chain_undo(struct uring *ring, struct uring_staged *staged);

/* `slot`, whose end its chain waits for, is over. Called by the pump, without the submission right. */
void uring_chain_advance(struct uring *ring, const struct slot *slot, bool failed, int64_t result);

/* Remove chains of which nothing is left. */
void uring_chain_sweep(struct uring *ring);

/* Give up the entries that are kept back, but not the chains: what is in the kernel points to them. Submission right. */
void uring_chain_empty(struct uring *ring);

/* Give up all that is kept back, when nothing is in the kernel any more. */
void uring_chain_drop(struct uring *ring);

/* The shadow's entry `position` places behind its head. NULL: the program's index is out of range. */
const struct io_uring_sqe *uring_program_sqe(const struct uring *ring, uint32_t position);

/* ---- uring_submit.c ---- */

/* control->submitting: a thread's id, and these. */
#define URING_SUBMITTER 0x3fffffffU
#define URING_WAITERS 0x40000000U /* somebody sleeps on the word */
#define URING_ENTERED                                                                                                  \
    0x80000000U /* the holder is in the real call: once the kernel has taken all, the right may be taken over */

/* Does the number, or registered file, of a request still lead to the file that it was prepared for? */
static inline bool uring_is_current(const struct slot *slot)
{
    const struct request *request = &slot->request;
    return request->is_fixed ? uring_registered_is(slot->uring.ring, (unsigned)slot->uring.sqe->fd, &request->view)
                             : fd_view_is_current(&request->view);
}

#endif
