/*
 * Asking the kernel what a registered file is: IORING_OP_FIXED_FD_INSTALL (Linux 6.8) gives a number of it. That is the only way to see a file
 * that was opened by the ring straight into a slot, or whose numbers are all closed; and the only one that cannot be mistaken about a file that
 * has been registered from a number which leads elsewhere by now.
 *
 * The entry goes through the ring itself, at the begin of a submission, when nothing else is staged. It completes before io_uring_enter(2) returns,
 * and is found in the kernel's queue, or was just taken from there by the pump. Where older kernels (and rings for polled I/O) refuse it, the
 * number from which the file was registered tells, if it still leads to the same inode; a direct descriptor without a number then goes through
 * unbounced, and is counted. It takes a handful of system calls for a slot, once.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "rings/uring_registered.h"
#include "rings/uring_stage.h"

/* uring_registered.asked: the tag of the question's slot, until one of those who come by its completion has claimed it. */
enum { NOTHING_ASKED = 0, BEING_ANSWERED = 1 };

enum { PATIENCE_MS = 100 };

/* The pump has come by the completion. */
static int64_t answered(struct slot *slot, int64_t result)
{
    struct uring_registered *table = registered_of(slot->uring.ring);
    uint64_t asked = slot_tag(slot);
    if (table && atomic_compare_exchange_strong(&table->asked, &asked, BEING_ANSWERED)) {
        atomic_store(&table->answer, result);
        atomic_store(&table->asked, NOTHING_ASKED);
    }
    return result;
}

/* Is it in the kernel's queue, not yet moved by the pump? @return its result, or REGISTERED_NO_ANSWER. */
static int64_t find_answer(const struct uring *ring, uint64_t tag)
{
    uint32_t tail = atomic_load_explicit(ring->real_cq.tail, memory_order_acquire);
    uint32_t pumped = atomic_load_explicit(&ring->control->pumped, memory_order_acquire);
    for (uint32_t i = tail; i != pumped; i--) {
        char *place = ring->real_cqes + ring->cqe_size * ((i - 1) & ring->real_cq.mask);
        struct io_uring_cqe *cqe = (struct io_uring_cqe *)(void *)place;
        /* Acquire: they are read before the pump's place is, below. */
        uint64_t found = atomic_load_explicit((_Atomic uint64_t *)(void *)&cqe->user_data, memory_order_acquire);
        int32_t result = atomic_load_explicit((_Atomic int32_t *)(void *)&cqe->res, memory_order_acquire);
        /* What has been moved may have been overwritten. */
        if ((int32_t)(atomic_load_explicit(&ring->control->pumped, memory_order_relaxed) - i) >= 0)
            break;
        if (found == tag)
            return result;
    }
    return REGISTERED_NO_ANSWER;
}

/* Submit the entry. @return false: it was not taken. */
static bool submit(struct uring *ring, int fd, unsigned flags, uint64_t tag, unsigned index)
{
    uint32_t tail = atomic_load_explicit(ring->real_sq.tail, memory_order_relaxed);
    uint32_t place = tail & ring->real_sq.mask;
    struct io_uring_sqe *sqe = uring_sqe(ring->real_sqes, ring->sqe_size, place);
    memset(sqe, 0, ring->sqe_size);
    sqe->opcode = URING_OP_FIXED_FD_INSTALL;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = (int)index;
    sqe->user_data = tag;
    if (ring->real_array)
        ring->real_array[place] = place;
    /* Release: pairs with the kernel's acquire of the tail. */
    atomic_store_explicit(ring->real_sq.tail, tail + 1, memory_order_release);
    if (uring_enter_real(ring, fd, 1, 0, flags & IORING_ENTER_REGISTERED_RING, NULL, 0) == 1)
        return true;
    atomic_store_explicit(ring->real_sq.tail, tail, memory_order_release);
    return false;
}

/* An answer that came too late for its question. @return whether another one may be asked. */
static bool settle_last(struct uring_registered *table)
{
    if (atomic_load(&table->asked) != NOTHING_ASKED)
        return false;
    int64_t answer = atomic_exchange(&table->answer, REGISTERED_NO_ANSWER);
    if (answer >= 0)
        registered_close_number((int)answer);
    return true;
}

/* The answer, by whichever of the two ways it came. @return it; -EAGAIN: it has not come yet. */
static int64_t take_answer(const struct uring *ring, struct uring_registered *table, uint64_t tag)
{
    int64_t answer = find_answer(ring, tag);
    uint64_t asked = tag;
    if (answer != REGISTERED_NO_ANSWER && atomic_compare_exchange_strong(&table->asked, &asked, NOTHING_ASKED))
        return answer;
    if (atomic_load(&table->asked) != NOTHING_ASKED)
        return -EAGAIN;
    answer = atomic_exchange(&table->answer, REGISTERED_NO_ANSWER);
    return answer == REGISTERED_NO_ANSWER ? -EAGAIN : answer;
}

/*
 * The answer is there when the entry has been submitted, unless drained entries of the program's are before it. Wait for those, but not for
 * ever: they may wait for the program.
 */
static int64_t await_answer(struct uring *ring, struct uring_registered *table, int fd, unsigned flags, uint64_t tag)
{
    const struct timespec step = {.tv_nsec = 1000000};
    int64_t answer = take_answer(ring, table, tag);
    for (int i = 0; i < PATIENCE_MS && answer == -EAGAIN; i++) {
        raw(SYS_nanosleep, &step, NULL);
        uring_enter_real(ring, fd, 0, 0, IORING_ENTER_GETEVENTS | (flags & IORING_ENTER_REGISTERED_RING), NULL, 0);
        answer = take_answer(ring, table, tag);
    }
    return answer;
}

/* Ask for a number of registered file `index`. @return it, or -errno; -EAGAIN: it cannot be said now. */
static int ask(struct uring *ring, struct uring_registered *table, int fd, unsigned flags, unsigned index)
{
    struct slot *slot = settle_last(table) ? slot_take() : NULL;
    if (!slot)
        return -EAGAIN;
    slot->role = SLOT_LOOK;
    slot->uring.ring = ring;
    slot_own(slot, ring);
    slot->uring.follow.done = answered;
    const uint64_t tag = slot_tag(slot);
    atomic_store(&table->answer, REGISTERED_NO_ANSWER);
    atomic_store(&table->asked, tag);
    if (!submit(ring, fd, flags, tag, index)) {
        atomic_store(&table->asked, NOTHING_ASKED);
        slot_give(slot);
        return -EAGAIN;
    }
    /* From here on the slot is the pump's. */
    int answer = (int)await_answer(ring, table, fd, flags, tag);
    return answer >= 0 && answer <= 2 ? own_raise(answer) : answer;
}

/* See that the table knows what the number is, if it is anything. */
static bool classify(int number)
{
    struct fd_view view;
    if (number < 0 || fd_view_open(&view, number, false) != 0)
        return false;
    fd_view_close(&view);
    return true;
}

/* The program's number, if it shows the same as ours, which need not be kept then; or -1. Ours may be that very number, used again. */
static int same_number(const struct fd_view *view, int number)
{
    return view->file && number != view->fd && classify(number) &&
                   fd_leads_to(number, view->file, view->state, view->flags)
               ? number
               : -1;
}

/* What the kernel gave a number of. */
static void learn_from_own(struct uring *ring, unsigned index, int fd, struct registered_look *before)
{
    struct fd_view view;
    fd_view_look(&view, fd);
    int number = same_number(&view, before->number), own = -1;
    if (view.file && number < 0)
        own = registered_keep(fd);
    else
        registered_close_number(fd);
    registered_learn(ring, index, &view, number, own, before);
}

/* The kernel says nothing. The number from which it was registered, if it still leads to that inode? */
static void learn_from_number(struct uring *ring, unsigned index, struct registered_look *before)
{
    struct fd_view view;
    struct stat status;
    if (before->number < 0 || fstat(before->number, &status) != 0 || status.st_dev != before->device ||
        status.st_ino != before->inode || !classify(before->number))
        return;
    fd_view_look(&view, before->number);
    registered_learn(ring, index, &view, before->number, -1, before);
}

/* Others have changed something: all that was learned before is void. @return the slot, made if need be, or NULL. */
static struct registered_file *prepare(struct uring *ring, struct uring_registered *table, unsigned index)
{
    uint64_t saved;
    process_lock(&saved);
    uint32_t changes = atomic_load(&ring->control->registered);
    if (atomic_load(&table->seen) != changes) {
        atomic_store(&table->lost, changes);
        atomic_store(&table->buffers_known, false);
        atomic_store(&table->others, true);
        atomic_store(&table->seen, changes);
    }
    /* Others may have registered more of them. */
    if (atomic_load(&table->others) && index >= atomic_load(&table->files) && index < REGISTERED_FILES)
        registered_resize(table, index + 1);
    process_unlock(&saved);
    return registered_file(table, index);
}

static void look_at(struct uring *ring, struct uring_registered *table, int fd, unsigned flags, unsigned index)
{
    struct registered_look before;
    struct registered_file *file = prepare(ring, table, index);
    if (!file || registered_read(file, &before, false) != 0)
        return;
    const bool was_lost = (int32_t)(before.changes - atomic_load(&table->lost)) < 0;
    registered_note(ring, &before);
    int number = atomic_load(&table->cannot_ask) ? -EINVAL : ask(ring, table, fd, flags, index);
    if (number == -EINVAL || number == -EACCES)
        atomic_store(&table->cannot_ask, true);
    if (number == -EAGAIN)
        atomic_fetch_or(&file->known, REGISTERED_UNSEEN);
    if (number >= 0)
        learn_from_own(ring, index, number, &before);
    else if (number != -EBADF && number != -EAGAIN && !was_lost)
        learn_from_number(ring, index, &before);
    if (number < 0 && atomic_load(&table->cannot_ask) && (before.known & REGISTERED_DIRECT)) {
        struct fd_view view = {.state = FD_EXCLUDED, .fd = -1};
        registered_learn(ring, index, &view, -1, -1, &before);
    }
}

/* Does an entry with this opcode do something to a file that the shim must know? */
static bool uses_file(uint8_t opcode)
{
    switch (opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
    case IORING_OP_FSYNC:
    case IORING_OP_FALLOCATE:
    case IORING_OP_SPLICE:
    case URING_OP_READ_MULTISHOT:
    case URING_OP_FTRUNCATE:
    case URING_OP_READV_FIXED:
    case URING_OP_WRITEV_FIXED:
        return true;
    default:
        return false;
    }
}

/* Is the slot known, with a number to look at its file by? */
static bool is_ready(struct uring *ring, struct uring_registered *table, unsigned index)
{
    struct registered_file *file = registered_file(table, index);
    struct registered_look look;
    if (!file || registered_read(file, &look, false) != 0 || !registered_holds(ring, table, &look))
        return false;
    return look.file == 0 || look.own >= 0 || (look.known & REGISTERED_NUMBERLESS) ||
           fd_leads_to(look.number, file_at(look.file - 1), fd_word_state(look.known), look.known);
}

static void look_for(struct uring *ring, int fd, unsigned flags, const struct io_uring_sqe *sqe)
{
    struct uring_registered *table = registered_of(ring);
    if ((sqe->flags & IOSQE_FIXED_FILE) && uses_file(sqe->opcode) && table && !is_ready(ring, table, (unsigned)sqe->fd))
        look_at(ring, table, fd, flags, (unsigned)sqe->fd);
}

void uring_look_registered(struct uring *ring, int fd, unsigned flags, unsigned to_submit)
{
    uint64_t saved;
    /* Relaxed: what this thread's entries can rely on was registered before them. */
    if (atomic_load_explicit(&ring->control->registered, memory_order_relaxed) == 0 || !process_owns_tables())
        return;
    if (!registered_of(ring)) {
        process_lock(&saved);
        registered_make(ring);
        process_unlock(&saved);
    }
    for (unsigned i = 0; i < to_submit && i < ring->sq.entries; i++) {
        const struct io_uring_sqe *sqe = uring_program_sqe(ring, i);
        if (sqe)
            look_for(ring, fd, flags, sqe);
    }
    for (const struct uring_chain *chain = atomic_load(&ring->chains); chain; chain = chain->next)
        for (const struct slot *slot = atomic_load(&chain->due) ? chain->first : NULL; slot; slot = slot->next)
            look_for(ring, fd, flags, slot->uring.sqe);
}
