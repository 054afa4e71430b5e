/*
 * One entry of the program's becomes one of the kernel's: what is a direct read or write is prepared and issued from pages, what opens, closes
 * or changes files is followed, what names another request is translated, all else is copied.
 */
#include "rings/uring_stage.h"

#include <errno.h>
#include <string.h>

#include "base/stats.h"
#include "engine/issue.h"
#include "rings/shadow.h"

static bool is_read_or_write(unsigned opcode)
{
    const uint64_t such = UINT64_C(1) << IORING_OP_READ | UINT64_C(1) << IORING_OP_WRITE |
                          UINT64_C(1) << IORING_OP_READV | UINT64_C(1) << IORING_OP_WRITEV |
                          UINT64_C(1) << IORING_OP_READ_FIXED | UINT64_C(1) << IORING_OP_WRITE_FIXED |
                          UINT64_C(1) << URING_OP_READV_FIXED | UINT64_C(1) << URING_OP_WRITEV_FIXED;
    return opcode < 64 && such >> opcode & 1;
}

/* A read or write of a file, as the engine knows it. @return false: it is something else, or memory is not the entry's business. */
static bool decode(const struct io_uring_sqe *sqe, struct request_call *call)
{
    if (!is_read_or_write(sqe->opcode))
        return false;
    *call = (struct request_call){
        .address = (const void *)(uintptr_t)sqe->addr, /* NOLINT: the entry holds an address */
        .length = sqe->len,
        .offset = (int64_t)sqe->off,
        .flags = (int)sqe->rw_flags,
        .transport = TRANSPORT_URING,
        .is_fixed = (sqe->flags & IOSQE_FIXED_FILE) != 0,
    };
    switch (sqe->opcode) {
    case IORING_OP_WRITEV:
    case URING_OP_WRITEV_FIXED:
        call->is_write = true;
        call->is_vector = true;
        break;
    case IORING_OP_READV:
    case URING_OP_READV_FIXED:
        call->is_vector = true;
        break;
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED:
        call->is_write = true;
        break;
    default:
        break;
    }
    /* Attributes (protection information) belong to the program's own memory. */
    return !(sqe->flags & IOSQE_BUFFER_SELECT) && sqe->__pad2[0] == 0;
}

static int open_view(struct uring *ring, struct fd_view *view, const struct io_uring_sqe *sqe)
{
    const bool nowait = (sqe->rw_flags & RWF_NOWAIT) != 0;
    return (sqe->flags & IOSQE_FIXED_FILE) ? uring_view_registered(ring, view, (unsigned)sqe->fd, nowait)
                                           : fd_view_open(view, sqe->fd, nowait);
}

static bool is_ours(const struct fd_view *view, const struct request_call *call)
{
    return view->state == FD_DIRECT || (view->state == FD_WATCHED && call->is_write);
}

enum uring_bounce uring_bounces(struct uring *ring, const struct io_uring_sqe *sqe)
{
    struct request_call call;
    struct fd_view view;
    if (!decode(sqe, &call) || open_view(ring, &view, sqe) != 0)
        return URING_NO_BOUNCE;
    bool direct = view.state == FD_DIRECT;
    fd_view_close(&view);
    return !direct ? URING_NO_BOUNCE : call.is_write ? URING_BOUNCED_WRITE : URING_BOUNCED_READ;
}

bool uring_closes_direct(const struct io_uring_sqe *sqe)
{
    if (sqe->opcode != IORING_OP_CLOSE || sqe->file_index != 0)
        return false;
    enum fd_state state = fd_word_state(fd_word(sqe->fd));
    return state == FD_DIRECT || state == FD_WATCHED;
}

/* Does it keep to the registered buffer that it names? If not, the kernel is to say so. */
static bool fits_buffer(struct uring *ring, const struct io_uring_sqe *sqe)
{
    return (sqe->opcode != IORING_OP_READ_FIXED && sqe->opcode != IORING_OP_WRITE_FIXED) ||
           uring_buffer_holds(ring, sqe->buf_index, sqe->addr, sqe->len);
}

/* ---- entries of the batch ---- */

static struct io_uring_sqe *real_entry(const struct uring_batch *batch, uint32_t index)
{
    const struct uring *ring = batch->ring;
    uint32_t tail = atomic_load_explicit(ring->real_sq.tail, memory_order_relaxed);
    return uring_sqe(ring->real_sqes, ring->sqe_size, (tail + index) & ring->real_sq.mask);
}

static bool has_room(const struct uring_batch *batch)
{
    return batch->count < batch->room && batch->real < batch->ring->real_sq.entries;
}

/* The kernel takes none behind an entry that it refuses: one that it may refuse is not to be the last of a helping. */
static void note_helping(struct uring_batch *batch, const struct slot *slot)
{
    const struct io_uring_sqe *real = real_entry(batch, batch->real);
    const unsigned refusable = IOSQE_IO_DRAIN | ~0U << 7; /* after silent entries; flags that are not known */
    const bool is_plain = slot && slot->request.kind != REQUEST_NONE && real->ioprio == 0 && real->personality == 0 &&
                          !(real->flags & refusable);
    if (is_plain)
        helping_add(&batch->helping, &slot->request, real->fd);
    else
        batch->helping = (struct helping){0};
}

static struct uring_staged *add(struct uring_batch *batch, struct slot *slot)
{
    note_helping(batch, slot);
    struct uring_staged *staged = &batch->staged[batch->count++];
    staged->slot = slot;
    staged->file = NULL;
    staged->chain = NULL;
    staged->was_held = false;
    staged->is_real = true;
    staged->taken = batch->taken;
    batch->real++;
    if (slot) {
        staged->handed = slot_hand_over(slot);
        staged->file = slot->request.view.file;
        staged->word = slot->request.view.word;
        staged->fd = slot->request.is_fixed ? slot->uring.sqe->fd : slot->request.view.fd;
        staged->is_fixed = slot->request.is_fixed;
        batch->requests += slot->request.kind != REQUEST_NONE;
    }
    return staged;
}

/* The entry cannot succeed, or need not be: its completion says what we say. */
static void speak(struct slot *slot, struct io_uring_sqe *real, int result, bool breaks_links)
{
    const unsigned flags = real->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_IO_DRAIN);
    const uint64_t user_data = real->user_data;
    memset(real, 0, sizeof *real);
    real->opcode = breaks_links ? IORING_OP_READ : IORING_OP_NOP;
    real->fd = -1;
    real->flags = (uint8_t)flags;
    real->user_data = user_data;
    slot->role = SLOT_VOICE;
    slot->refusal = result;
}

/* From the pages that it was prepared in. */
static void issue_from_pages(struct uring *ring, struct io_uring_sqe *real, const struct request *request, bool at_once)
{
    const bool is_write = request->kind == REQUEST_WRITE;
    const int buffer = at_once && !(real->flags & (IOSQE_ASYNC | IOSQE_IO_DRAIN))
                           ? uring_fixed_buffer(ring, request->data, request->length, request->flags & RWF_NOWAIT)
                           : -1;
    real->opcode = buffer < 0 ? (is_write ? IORING_OP_WRITE : IORING_OP_READ)
                              : (is_write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED);
    real->buf_index = buffer < 0 ? 0 : (uint16_t)buffer;
    real->addr = (uint64_t)(uintptr_t)request->data;
    real->len = (uint32_t)request->length;
    real->rw_flags = (uint32_t)request->flags;
}

/* A read or write that is ours, with the view open. The request is issued from the pages that hold it. */
static void stage_request(struct slot *slot, struct io_uring_sqe *real, struct fd_view *view,
                          const struct request_call *call, const struct uring_entry *entry)
{
    struct request *request = &slot->request;
    int road = request_prepare(request, view, call);
    slot->role = road == REQUEST_READY ? SLOT_REQUEST : SLOT_FOLLOWED;
    if (road < 0)
        speak(slot, real, road, entry->in_piece);
    slot->uring.ring->has_bounced = true;
    if (road != REQUEST_READY || request->keeps_memory)
        return;
    slot->uring.is_short = request->length < request->asked && !request->bad_memory;
    issue_from_pages(slot->uring.ring, real, request, entry->heads_piece);
}

/* @return false when there is no slot. */
static bool stage_read_or_write(struct uring *ring, struct slot **slot, struct io_uring_sqe *real,
                                const struct request_call *call, const struct uring_entry *entry)
{
    struct fd_view view;
    int error = open_view(ring, &view, real);
    if (error == 0 && (!is_ours(&view, call) || !fits_buffer(ring, real))) {
        if (view.state == FD_EXCLUDED)
            stats_add(STAT_passed_through, 1);
        fd_view_close(&view);
        return true;
    }
    if (!*slot && !(*slot = slot_take())) {
        if (error == 0)
            fd_view_close(&view);
        return false;
    }
    (*slot)->uring.ring = ring;
    slot_own(*slot, ring);
    if (error != 0)
        speak(*slot, real, error, entry->in_piece);
    else
        stage_request(*slot, real, &view, call, entry);
    return true;
}

/* Reads into buffers that the kernel chooses go through as they are. */
static void count_selected(struct uring *ring, const struct io_uring_sqe *sqe)
{
    struct fd_view view;
    const bool selects =
        sqe->opcode == URING_OP_READ_MULTISHOT ||
        ((sqe->flags & IOSQE_BUFFER_SELECT) && (sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_READV));
    if (!selects || open_view(ring, &view, sqe) != 0)
        return;
    if (view.state == FD_DIRECT && file_has_map(view.file))
        stats_add(STAT_blocks_unverified, (sqe->len + BLOCK_SIZE - 1) / BLOCK_SIZE);
    fd_view_close(&view);
}

/* Requests that name another one by its user_data. */
static void translate(const struct uring *ring, struct io_uring_sqe *sqe)
{
    enum { BY_FD = 1U << 1, BY_ANY = 1U << 2, BY_USER_DATA = 1U << 4 };
    switch (sqe->opcode) {
    case IORING_OP_ASYNC_CANCEL:
        if ((sqe->cancel_flags & (BY_FD | BY_ANY)) && !(sqe->cancel_flags & BY_USER_DATA))
            return;
        break;
    case IORING_OP_POLL_REMOVE:
    case IORING_OP_TIMEOUT_REMOVE:
        break;
    default:
        return;
    }
    sqe->addr = uring_name_in_kernel(ring, sqe->addr);
}

/* May it tell of another ring's completions? By its descriptor's readiness, or by reading an eventfd. */
static bool watches(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_POLL_ADD:
    case URING_OP_EPOLL_WAIT:
        return true;
    case IORING_OP_READ:
    case IORING_OP_READV:
    case URING_OP_READ_MULTISHOT:
        return !(sqe->flags & IOSQE_FIXED_FILE) && fd_word_state(fd_word(sqe->fd)) == FD_EVENT;
    default:
        return false;
    }
}

/* Everything that is not a read or write of a file. @return false when there is no slot. */
static bool stage_other(struct uring *ring, struct slot **slot, struct io_uring_sqe *real)
{
    if (!uring_is_followed(ring, real)) {
        translate(ring, real);
        count_selected(ring, real);
        return true;
    }
    if (!*slot && !(*slot = slot_take()))
        return false;
    (*slot)->uring.ring = ring;
    slot_own(*slot, ring);
    uring_follow(ring, *slot, real);
    return true;
}

/* What the slot must know of the program's entry, before that is changed. */
static void remember(struct slot *slot, struct uring *ring, const struct io_uring_sqe *sqe, bool heads_piece)
{
    slot->uring.ring = ring;
    slot->uring.user_data = sqe->user_data;
    slot->uring.heads_piece = heads_piece;
    if ((const void *)sqe != slot->uring.sqe)
        URING_COPY(slot->uring.sqe, sqe, ring->sqe_size, 64);
    slot_own(slot, ring);
}

struct uring_staged *uring_stage(struct uring_batch *batch, const struct uring_entry *entry)
{
    struct uring *ring = batch->ring;
    struct io_uring_sqe own[2]; /* read once: the program may be changing it */
    struct slot *slot = entry->slot;
    struct request_call call;

    if (!has_room(batch))
        return NULL;
    URING_COPY(own, entry->sqe, ring->sqe_size, 64);
    struct io_uring_sqe *real = real_entry(batch, batch->real);
    URING_COPY(real, own, ring->sqe_size, 64);
    const unsigned order = IOSQE_IO_LINK | IOSQE_IO_HARDLINK | (entry->drain ? 0U : IOSQE_IO_DRAIN);
    real->flags = (uint8_t)((real->flags & ~order) | entry->links);
    ring->has_silenced = ring->has_silenced || (real->flags & IOSQE_CQE_SKIP_SUCCESS);
    if (ring->has_silenced && (real->flags & IOSQE_IO_DRAIN)) /* which the kernel refuses, and may not know by now */
        real->flags |= IOSQE_CQE_SKIP_SUCCESS;
    const bool there =
        decode(real, &call) ? stage_read_or_write(ring, &slot, real, &call, entry) : stage_other(ring, &slot, real);
    if (watches(own))
        shadow_note_nested();
    if (!there || (!slot && entry->is_gate && !(slot = slot_take())))
        return NULL;
    if (!slot)
        return add(batch, NULL);
    if (slot->request.kind == REQUEST_NONE && slot->refusal == SLOT_NO_REFUSAL)
        slot->role = SLOT_FOLLOWED;
    remember(slot, ring, own, entry->heads_piece);
    real->user_data = slot_tag(slot);
    if (!(real->flags & IOSQE_IO_DRAIN))
        real->flags &= (uint8_t)~IOSQE_CQE_SKIP_SUCCESS;
    return add(batch, slot);
}

struct uring_staged *uring_stage_voice(struct uring_batch *batch, struct slot *slot, int result)
{
    if (!has_room(batch))
        return NULL;
    struct io_uring_sqe *real = real_entry(batch, batch->real);
    memset(real, 0, batch->ring->sqe_size);
    speak(slot, real, result, false);
    real->user_data = slot_tag(slot);
    return add(batch, slot);
}

struct uring_staged *uring_stage_gate(struct uring_batch *batch, struct uring_chain *chain)
{
    struct slot *slot = has_room(batch) ? slot_take() : NULL;
    if (!slot)
        return NULL;
    struct io_uring_sqe *real = real_entry(batch, batch->real);
    memset(real, 0, batch->ring->sqe_size);
    batch->ring->has_drained = true; /* the kernel starts later what it is given next */
    real->opcode = IORING_OP_NOP;
    real->flags = IOSQE_IO_DRAIN;
    real->user_data = slot_tag(slot);
    slot->role = SLOT_GATE;
    slot->uring.ring = batch->ring;
    slot_own(slot, batch->ring);
    slot->uring.chain = chain;
    return add(batch, slot);
}

void uring_unstage(struct slot *slot, bool keep)
{
    if (slot->request.kind != REQUEST_NONE)
        request_cancel(&slot->request);
    uring_unfollow(slot);
    slot->refusal = SLOT_NO_REFUSAL;
    slot->uring.chain = NULL;
    slot_take_back(slot);
    slot->uring.is_short = false;
    if (!keep)
        slot_give(slot);
}
