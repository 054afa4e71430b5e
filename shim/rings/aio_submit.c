/*
 * io_submit: the program's iocbs, in batches, become what the kernel gets: private copies of those that are ours, in their slots, all others as
 * they are. Nothing is reaped here, by nobody: that would steal the wake-up of a thread that sleeps in io_getevents.
 *
 * From the moment that the kernel has a request it may be completed, and its slot be another's, before the real call has returned. So a slot is
 * handed over under a number of its own (slot_hand_over). Afterwards the submitter leaves there what he alone can tell, whether the descriptor
 * still led to the file, by a compare-and-swap that fails if the slot is not that request's any more. Who completes the request before that looks himself.
 *
 * What must be told to the program as a completion of its request, and not by io_submit, is posted by the kernel: a request of no bytes at the same place,
 * which the kernel refuses where it would refuse the program's, and whose result is replaced.
 */
#include <errno.h>
#include <stddef.h>

#include "base/raw.h"
#include "base/return_stack.h"
#include "base/stats.h"
#include "bounce/copy.h"
#include "engine/active.h"
#include "engine/cancel.h"
#include "engine/helping.h"
#include "files/descriptor.h"
#include "rings/aio.h"
#include "rings/aio_context.h"
#include "rings/shadow.h"

enum { BATCH = 64 };

struct staged {
    struct slot *slot; /* NULL: the program's own */
    uint64_t handed;
    uint64_t word; /* of the descriptor, when it was looked up */
    int fd;
    int flags; /* RWF_*, as the program asked */
};

struct batch {
    struct active active;
    struct cancel cancel;
    struct aio *aio;
    struct slot *staging; /* a slot whose request is just being prepared */
    int first, count;     /* [first, count) is ours; while the kernel is being called: nobody knows whose */
    int called;           /* requests that the kernel is just given */
    struct helping helping;
    struct staged staged[BATCH];
    struct iocb *list[BATCH]; /* what the kernel gets */
};

struct slot *aio_slot_of(const struct aio *aio, uint64_t object)
{
    struct slot *slot = slot_of(object - offsetof(struct slot, aio.iocb));
    return slot && slot_is_in_kernel(slot) && slot->aio.aio == aio ? slot : NULL;
}

void aio_learn_whether_current(struct slot *slot)
{
    const enum slot_word word = slot_word(slot);
    if (word == SLOT_NO_WORD)
        request_issued(&slot->request);
    else
        slot->request.current = word == SLOT_CURRENT;
}

/* ---- Staging. ---- */

static bool describe(struct request_call *call, const struct iocb *iocb)
{
    const unsigned opcode = iocb->aio_lio_opcode;
    if (opcode == IOCB_CMD_POLL)
        shadow_note_nested();
    if (opcode != IOCB_CMD_PREAD && opcode != IOCB_CMD_PWRITE && opcode != IOCB_CMD_PREADV &&
        opcode != IOCB_CMD_PWRITEV)
        return false;
    *call = (struct request_call){
        .is_write = opcode == IOCB_CMD_PWRITE || opcode == IOCB_CMD_PWRITEV,
        .is_vector = opcode == IOCB_CMD_PREADV || opcode == IOCB_CMD_PWRITEV,
        .address = (const void *)(uintptr_t)iocb->aio_buf,
        .length = iocb->aio_nbytes,
        .offset = iocb->aio_offset,
        .flags = iocb->aio_rw_flags,
        .transport = TRANSPORT_LIBAIO,
    };
    /* What is left goes to the kernel as it is, which knows what to say. */
    return iocb->aio_reserved2 == 0 && iocb->aio_offset >= 0;
}

static void give_staging(struct batch *batch)
{
    struct slot *slot = batch->staging;
    batch->staging = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    slot_give(slot);
}

/* An iocb of no bytes, whose completion tells `refusal`. */
static void make_voice(struct slot *slot, const struct request_call *call, int refusal)
{
    struct iocb *iocb = &slot->aio.iocb;
    slot->refusal = refusal;
    iocb->aio_lio_opcode = call->is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    iocb->aio_buf = 0;
    iocb->aio_nbytes = 0;
    iocb->aio_rw_flags = call->flags;
}

static void fill(struct slot *slot, const struct request_call *call)
{
    const struct request *request = &slot->request;
    struct iocb *iocb = &slot->aio.iocb;
    if (request->keeps_memory)
        return;
    iocb->aio_lio_opcode = call->is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    iocb->aio_buf = (uint64_t)(uintptr_t)request->data;
    iocb->aio_nbytes = request->length;
    iocb->aio_offset = request->offset;
    iocb->aio_rw_flags = request->flags;
}

/* The kernel would have written that into the program's iocb. */
static void clear_key(struct iocb *theirs, const struct iocb *iocb)
{
    static const uint32_t none;
    if (iocb->aio_key != 0)
        copy_to_user(&theirs->aio_key, &none, sizeof none);
}

/* Prepare one that may be ours. @return 0 with what the kernel gets in its place; -EAGAIN: there is no slot for it. */
static int stage_ours(struct batch *batch, int i, struct iocb *theirs, const struct iocb *iocb,
                      const struct request_call *call)
{
    struct slot *slot = batch->staging = slot_take();
    if (!slot)
        return -EAGAIN;
    struct fd_view view;
    const int fd = (int)iocb->aio_fildes;
    int road = fd_view_open_at(&view, fd, (call->flags & RWF_NOWAIT) != 0);
    const uint64_t word = road == 0 ? view.word : 0;
    if (road == 0)
        road = request_prepare(&slot->request, &view, call);
    if (road == REQUEST_PASSES) {
        give_staging(batch);
        return 0;
    }
    slot->role = SLOT_AIO;
    slot->aio = (struct slot_aio){.aio = batch->aio, .iocb = *iocb, .theirs = theirs, .data = iocb->aio_data};
    if (road == REQUEST_READY)
        fill(slot, call);
    else
        make_voice(slot, call, road);
    slot_own(slot, batch->aio);
    helping_add(&batch->helping, &slot->request, fd);
    clear_key(theirs, iocb);
    batch->list[i] = &slot->aio.iocb;
    batch->staged[i] = (struct staged){.slot = slot, .word = word, .fd = fd, .flags = call->flags};
    return 0;
}

static bool passes(const struct request_call *call, int fd)
{
    if (call->is_write ? fd_writes_pass(fd) : fd_reads_pass(fd))
        return true;
    if (fd_word_state(fd_word(fd)) != FD_EXCLUDED)
        return false;
    stats_add(STAT_passed_through, 1);
    return true;
}

/* @return 0, or -EAGAIN: the batch ends before it. */
static int stage(struct batch *batch, int i, struct iocb *theirs, int left)
{
    struct iocb iocb;
    struct request_call call;
    batch->list[i] = theirs;
    batch->staged[i].slot = NULL;
    int error = 0;
    if (copy_from_user(&iocb, theirs, sizeof iocb) == sizeof iocb && describe(&call, &iocb) &&
        !passes(&call, (int)iocb.aio_fildes)) {
        const size_t least = batch->helping.is_in_memory ? HELPING_IN_MEMORY : HELPING_AIO;

        if (helping_is_complete(&batch->helping, least, (unsigned)left, (int)iocb.aio_fildes, iocb.aio_offset))
            return -EAGAIN;
        error = stage_ours(batch, i, theirs, &iocb, &call);
    }
    if (error != 0)
        return error;
    batch->count = i + 1;
    atomic_signal_fence(memory_order_seq_cst);
    batch->staging = NULL;
    return 0;
}

/*
 * Natively events that nobody has reaped count against the context's size: so do those in the shadow, which the kernel does not know of any more.
 * @return how many of `count` the kernel may be given.
 */
static int room_for(const struct aio *aio, int count)
{
    const int64_t shadowed = aio_in_shadow(aio);
    if (shadowed == 0)
        return count;
    const int64_t room = (int64_t)aio->nr - 1 - shadowed - atomic_load_explicit(&aio->in_kernel, memory_order_relaxed);
    return room < 0 ? 0 : room < count ? (int)room : count;
}

/* Stage up to `count` of the list. @return 0, or what io_submit says of the first if none could be. */
static int stage_all(struct batch *batch, struct iocb **list, int count)
{
    struct iocb *theirs[BATCH];
    batch->first = batch->count = 0;
    batch->helping = (struct helping){0};
    if (count == 0)
        return 0;
    const int room = room_for(batch->aio, count);
    if (room == 0)
        return -EAGAIN;
    const int readable = (int)(copy_from_user(theirs, list, (size_t)room * sizeof *theirs) / sizeof *theirs);
    if (readable == 0)
        return -EFAULT;
    for (int i = 0; i < readable; i++)
        if (stage(batch, i, theirs[i], readable - i) != 0)
            break;
    return batch->count > 0 ? 0 : -EAGAIN;
}

/* ---- Handing over. ---- */

/* Undo the staging of what the kernel did not take. */
static void cancel_rest(struct batch *batch)
{
    while (batch->first < batch->count) {
        struct slot *slot = batch->staged[--batch->count].slot;
        atomic_signal_fence(memory_order_seq_cst);
        if (slot && slot->refusal == SLOT_NO_REFUSAL)
            request_cancel(&slot->request);
        if (slot)
            slot_give(slot);
    }
}

static int count_ours(const struct batch *batch, int first, int end)
{
    int ours = 0;
    for (int i = first; i < end; i++)
        ours += batch->staged[i].slot != NULL;
    return ours;
}

static void hand_over(struct batch *batch)
{
    for (int i = batch->first; i < batch->count; i++)
        if (batch->staged[i].slot)
            batch->staged[i].handed = slot_hand_over(batch->staged[i].slot);
}

/* The kernel has it. The slot may be another's. */
static void leave_word(const struct staged *staged)
{
    if (staged->slot && slot_is_handed(staged->slot, staged->handed))
        slot_leave_word(staged->slot, staged->handed, fd_word(staged->fd) == staged->word);
}

/* Give the kernel what is staged. @return how many it took, or what it says of the first. */
static long call_kernel(struct batch *batch)
{
    struct aio *aio = batch->aio;
    const int first = batch->first, count = batch->count - first;
    hand_over(batch);
    atomic_fetch_add_explicit(&aio->in_kernel, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&aio->ours, count_ours(batch, first, batch->count), memory_order_relaxed);
    batch->called = count;
    atomic_signal_fence(memory_order_seq_cst);
    const long taken = raw(SYS_io_submit, aio->real, count, &batch->list[first]);
    return_stack_repair();
    batch->first += taken > 0 ? (int)taken : 0;
    atomic_signal_fence(memory_order_seq_cst);
    batch->called = 0;
    for (int i = first; i < batch->first; i++)
        leave_word(&batch->staged[i]);
    atomic_fetch_sub_explicit(&aio->in_kernel, batch->count - batch->first, memory_order_relaxed);
    atomic_fetch_sub_explicit(&aio->ours, count_ours(batch, batch->first, batch->count), memory_order_relaxed);
    return taken;
}

/*
 * The kernel is asked for its errno of bad memory without waiting (issue_bad_write), which not every file can: then it is a completion like a
 * refusal. Is the next one such a request?
 */
static bool next_is_bad_memory(const struct batch *batch)
{
    const struct staged *next = &batch->staged[batch->first];
    return next->slot && next->slot->refusal == SLOT_NO_REFUSAL && next->slot->request.bad_memory &&
           !(next->flags & RWF_NOWAIT);
}

static void replace_bad_memory(struct batch *batch)
{
    const struct staged *next = &batch->staged[batch->first];
    const struct request_call call = {.is_write = true, .flags = next->flags};
    make_voice(next->slot, &call, -EFAULT);
    request_cancel(&next->slot->request);
}

/* @return how many of the batch the kernel took, or what it says of the first. */
static long submit_batch(struct batch *batch)
{
    long taken = 0;
    while (batch->first < batch->count) {
        taken = call_kernel(batch);
        if (batch->first == batch->count || !next_is_bad_memory(batch) || (taken < 0 && taken != -EOPNOTSUPP))
            break;
        if (taken < 0)
            replace_bad_memory(batch);
    }
    cancel_rest(batch);
    return batch->first > 0 ? batch->first : taken;
}

/* ---- The call. ---- */

static void leave(struct aio *aio)
{
    /* Release: the slots are the kernel's, or given back; pairs with lose_rest. */
    atomic_fetch_sub_explicit(&aio->submitters, 1, memory_order_release);
    aio_release(aio);
}

/* A handler of the program's has jumped out of it. If the kernel was being called, what it has taken is completed like any other. */
static void clean_up(void *argument)
{
    struct batch *batch = argument;
    struct aio *aio = batch->aio;
    struct slot *staging = batch->staging;
    if (batch->called > 0) {
        /* Too little is better than too much: the kernel counts them as well. */
        atomic_fetch_sub_explicit(&aio->in_kernel, batch->called, memory_order_relaxed);
    } else {
        if (staging && (batch->count == 0 || batch->staged[batch->count - 1].slot != staging)) {
            if (staging->request.kind != REQUEST_NONE)
                request_cancel(&staging->request);
            slot_give(staging);
        }
        cancel_rest(batch);
    }
    cancel_leave(batch->cancel);
    leave(aio);
}

static long submit_all(struct batch *batch, long count, struct iocb **list)
{
    long total = 0;
    if (count <= 0) /* the kernel's business */
        return raw(SYS_io_submit, batch->aio->real, count, list);
    while (total < count) {
        const int most = count - total < BATCH ? (int)(count - total) : BATCH;
        const long error = stage_all(batch, list + total, most);
        const int staged = batch->count;
        const long taken = error != 0 ? error : submit_batch(batch);
        if (taken < 0)
            return total > 0 ? total : taken;
        total += taken;
        if (taken < staged)
            return total;
    }
    return total;
}

long aio_submit(aio_context_t context, long count, struct iocb **list)
{
    struct batch batch;
    batch.aio = aio_hold(context);
    if (!batch.aio)
        return raw(SYS_io_submit, context, count, list);
    atomic_fetch_add_explicit(&batch.aio->submitters, 1, memory_order_relaxed);
    batch.staging = NULL;
    batch.first = batch.count = batch.called = 0;
    batch.cancel = cancel_hold();
    active_open(&batch.active, clean_up, &batch);
    const long result = submit_all(&batch, count, list);
    active_close(&batch.active);
    leave(batch.aio);
    cancel_restore(batch.cancel);
    return result;
}
