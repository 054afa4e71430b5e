/*
 * What is known of a ring's registered files and buffers, in memory. For rings/uring_{registered,buffers,look}.c only.
 *
 * One structure for each ring and process, made with the first registration, and never smaller until the ring goes away: whoever looks at a slot
 * need not hold anything. Slots come in chunks of address space. After a fork the child has a copy, in which references to file objects
 * mean nothing (`epoch`); what the parent registers from then on it hears of by the ring's count of changes only, and looks again.
 *
 * A slot of files is read without a lock and changed under the process lock; `version` is odd meanwhile.
 */
#ifndef BOUNCEIO_RINGS_URING_REGISTERED_H
#define BOUNCEIO_RINGS_URING_REGISTERED_H

#include "rings/uring_ring.h"

enum {
    REGISTERED_CHUNK = 1024,         /* slots */
    REGISTERED_FILES = 1 << 20,      /* IORING_MAX_FIXED_FILES */
    REGISTERED_BUFFERS = 1 << 14,    /* IORING_MAX_REG_BUFFERS */
    REGISTERED_OWN = 8,              /* numbers of ours that registered files are looked at by, in the whole process */
    REGISTERED_NOT_KNOWN = 0,        /* registered_file.known: FD_UNKNOWN */
    REGISTERED_NUMBERLESS = 1 << 16, /* the kernel has been asked, and no number could be kept */
    REGISTERED_DIRECT = 1 << 17,     /* opened by the ring with O_DIRECT: counted, should more never be seen of it */
    REGISTERED_UNSEEN = 1 << 18,     /* the kernel has not answered: requests pass, and are counted */
    REGISTERED_CHANGING = 1 << 19,   /* it is being registered: requests wait until it is known what it has become */
};

#define REGISTERED_NO_ANSWER INT64_MIN /* uring_registered.answer */

struct registered_file {
    _Atomic uint32_t version;
    _Atomic uint32_t
        known; /* enum fd_state, enum fd_flag, REGISTERED_* flags; REGISTERED_NOT_KNOWN: nothing, or empty */
    _Atomic uint32_t file; /* index of the file object + 1, with a reference; 0: none */
    _Atomic int number;    /* of the program's, from which it was registered; it may lead elsewhere by now. -1: none */
    _Atomic int own;       /* a number of ours: registered_own_number; or -1 */
    _Atomic uint32_t changes;      /* ring's count of changes when it was learned */
    _Atomic uint32_t flag_changes; /* fd_flag_changes then */
    _Atomic uint32_t epoch;        /* process that `file` belongs to */
    _Atomic uint64_t maps;         /* FD_FILE: fd_maps_created then */
    _Atomic uint64_t device,
        inode; /* of regular files and block devices, for a child that has to learn it by its number */
};

struct registered_buffer {
    _Atomic uint64_t address, length; /* 0: empty, or holds memory of the kernel's */
};

struct uring_registered {
    /* Counts of uring_control.registered. */
    _Atomic uint32_t seen; /* up to here every change is known */
    _Atomic uint32_t lost; /* what was learned before is void: others have changed something */
    /* A question to the kernel: uring_look.c. */
    _Atomic int64_t answer;
    _Atomic uint64_t asked;
    _Atomic bool cannot_ask;    /* the kernel is too old, or the ring does not let us */
    _Atomic bool others;        /* other processes register files too */
    _Atomic uint32_t files;     /* slots that there are */
    _Atomic uint32_t buffers;   /* likewise */
    _Atomic bool buffers_known; /* false: they may be anything */
    _Atomic(struct registered_file *) file_chunk[REGISTERED_FILES / REGISTERED_CHUNK];
    _Atomic(struct registered_buffer *) buffer_chunk[REGISTERED_BUFFERS / REGISTERED_CHUNK];
};

/* The ring's structure, made when there is none. Process lock held. @return NULL: no memory. */
struct uring_registered *registered_make(struct uring *ring);

static inline struct uring_registered *registered_of(struct uring *ring)
{
    /* Acquire: pairs with the store in registered_make. */
    return atomic_load_explicit(&ring->registered, memory_order_acquire);
}

/* The slot, or NULL. Chunks are kept until the ring goes away. */
static inline struct registered_file *registered_file(struct uring_registered *table, unsigned index)
{
    if (index >= atomic_load_explicit(&table->files, memory_order_acquire))
        return NULL;
    struct registered_file *chunk =
        atomic_load_explicit(&table->file_chunk[index / REGISTERED_CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % REGISTERED_CHUNK] : NULL;
}

/* Anonymous memory of this process, zeroed, or NULL. */
void *registered_memory(size_t length);

/* Process lock held: something registered is about to change, or has just changed, here. */
void registered_count_change(struct uring *ring, struct uring_registered *table);

/* What a slot says, read in one piece. */
struct registered_look {
    uint32_t version, known, file, changes, flag_changes, epoch;
    int number, own;
    uint64_t maps, device, inode;
};

/*
 * Read a slot, when it is not being registered any more; or after a while, should that be interrupted by who reads. @return 0; -EAGAIN when
 * `nowait` and it would have to be waited for.
 */
int registered_read(struct registered_file *file, struct registered_look *look, bool nowait);

/* Does it still hold, as far as can be told here? */
bool registered_holds(struct uring *ring, struct uring_registered *table, const struct registered_look *look);

/*
 * The slot holds what `view` says (whose references move to it), found out by `number` of the program's (or -1) or a number of ours, `own` (or -1),
 * which moves to it too. `before`: the slot and the counts when that was begun. If the slot has changed since, nothing is stored, and `view`
 * and `own` are closed.
 */
void registered_learn(struct uring *ring, unsigned index, struct fd_view *view, int number, int own,
                      const struct registered_look *before);

/* The same by who has registered it; `view` NULL: it cannot be told what it is. If another has registered it meanwhile, it is forgotten. */
void registered_settle(struct uring *ring, unsigned index, struct fd_view *view, int number,
                       const struct registered_look *before);

/*
 * Process lock held: forget what is known of [first, first + count); `known`: REGISTERED_NOT_KNOWN or _CHANGING. @return how many numbers of ours are to be dismissed, when the lock is no longer held.
 */
unsigned registered_forget(struct uring_registered *table, unsigned first, unsigned count, uint32_t known,
                           int own[REGISTERED_OWN]);

/* Process lock held: there are `files` slots now. @return 0 or -ENOMEM. */
int registered_resize(struct uring_registered *table, unsigned files);

/* The counts that a look is to be remembered under, before it is taken. */
void registered_note(struct uring *ring, struct registered_look *look);

/*
 * Numbers of ours that registered files are looked at by. registered_keep takes `fd` over. @return what registered_own_number knows it by; -1: there are
 * too many, and it was closed. Closing a number takes away the program's POSIX locks on that file: where there are any, ours stays open
 * until there are none.
 */
int registered_keep(int fd);
int registered_own_number(int own);
void registered_dismiss(int own);
void registered_close_number(int fd);

#endif
