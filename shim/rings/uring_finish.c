/*
 * One completion: what the kernel says of a request becomes what the program is told, after what had to be done first.
 */
#include <errno.h>

#include "rings/uring_stage.h"

enum { WAITALL = 0x100 }; /* MSG_WAITALL, include/linux/socket.h */

/*
 * What does its own work without telling whether that went well: since Linux 6.0 links behind it hold when the file system refuses it. When the kernel
 * does not even come to that, they break. (io_uring/sync.c, fs.c, xattr.c, statx.c, truncate.c, advise.c: without req_set_fail.)
 */
static bool fails_quietly(const struct slot *slot, int64_t result)
{
    const uint64_t such =
        UINT64_C(1) << IORING_OP_FSYNC | UINT64_C(1) << IORING_OP_SYNC_FILE_RANGE | UINT64_C(1) << IORING_OP_FALLOCATE |
        UINT64_C(1) << URING_OP_FTRUNCATE | UINT64_C(1) << IORING_OP_MADVISE | UINT64_C(1) << IORING_OP_STATX |
        UINT64_C(1) << IORING_OP_UNLINKAT | UINT64_C(1) << IORING_OP_RENAMEAT | UINT64_C(1) << IORING_OP_MKDIRAT |
        UINT64_C(1) << IORING_OP_SYMLINKAT | UINT64_C(1) << IORING_OP_LINKAT | UINT64_C(1) << IORING_OP_FSETXATTR |
        UINT64_C(1) << IORING_OP_SETXATTR | UINT64_C(1) << IORING_OP_FGETXATTR | UINT64_C(1) << IORING_OP_GETXATTR;
    const unsigned opcode = slot->uring.sqe->opcode;
    const bool came_to_it = result != -ECANCELED && result != -EBADF && result != -EINVAL && result != -EFAULT &&
                            result != -ENAMETOOLONG && result != -ENOMEM && result != -EINTR;
    return opcode < 64 && such >> opcode & 1 && came_to_it && (slot->uring.ring->features & URING_FEAT_REG_REG_RING);
}

/* Did the kernel, or would it, count the request as failed? Then links behind it break (io_req_complete_post, fail_links). */
static bool has_failed(const struct slot *slot, int64_t result)
{
    const struct io_uring_sqe *sqe = slot->uring.sqe;
    if (result < 0)
        return !(sqe->opcode == IORING_OP_TIMEOUT && result == -ETIME &&
                 (sqe->timeout_flags & URING_TIMEOUT_ETIME_SUCCESS)) &&
               !fails_quietly(slot, result);
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE_FIXED:
        return result < (int64_t)sqe->len;
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        return slot->request.asked != 0 && result < (int64_t)slot->request.asked;
    case IORING_OP_SEND:
    case IORING_OP_RECV:
        return (sqe->msg_flags & WAITALL) && result < (int64_t)sqe->len;
    default:
        return false;
    }
}

/*
 * Whether the number still led to the file when the kernel took the request: the submitter may not have come to look yet. Of linked entries
 * and those that go to a worker (IOSQE_ASYNC) the kernel looks up the file when it starts them.
 */
static void learn_whether_current(struct slot *slot)
{
    const bool late = !slot->uring.heads_piece || (slot->uring.sqe->flags & IOSQE_ASYNC);
    const enum slot_word word = slot_word(slot);
    slot->request.current = word != SLOT_STALE && ((word == SLOT_CURRENT && !late) || uring_is_current(slot));
}

struct slot *uring_plain_request(const struct uring *ring, uint64_t tag)
{
    struct slot *slot = slot_of(tag);
    const bool is_plain = slot && slot->role == SLOT_REQUEST && slot->uring.ring == ring && !slot->uring.chain &&
                          !slot->uring.follow.done && slot->refusal == SLOT_NO_REFUSAL &&
                          slot->request.kind != REQUEST_NONE && slot->request.kind != REQUEST_BUFFERED &&
                          !slot->request.bad_memory && !(slot->uring.sqe->flags & IOSQE_CQE_SKIP_SUCCESS);
    return is_plain ? slot : NULL;
}

int64_t uring_finish_request(struct slot *slot, int64_t result)
{
    learn_whether_current(slot);
    return request_complete(&slot->request, result);
}

/* @return what the program is told. */
static int64_t finish(struct uring *ring, struct slot *slot, int64_t result)
{
    if (slot->refusal != SLOT_NO_REFUSAL)
        return slot->refusal;
    if (slot->request.kind != REQUEST_NONE) {
        result = uring_finish_request(slot, result);
        atomic_fetch_sub_explicit(&ring->in_flight, 1, memory_order_release);
    }
    return slot->uring.follow.done ? slot->uring.follow.done(slot, result) : result;
}

enum uring_finish uring_finish(struct uring *ring, struct io_uring_cqe *told)
{
    struct slot *slot = slot_of(told->user_data);
    if (!slot)
        return slot_is_tag(told->user_data) ? URING_FOREIGN : URING_SHOW;
    if (slot->role == SLOT_CHAIN || slot->role == SLOT_OVER || slot->uring.ring != ring)
        return URING_SHOW;
    const bool more = (told->flags & IORING_CQE_F_MORE) != 0;
    const int64_t result = finish(ring, slot, told->res);
    const bool failed = has_failed(slot, result);
    const bool shown = slot->role != SLOT_GATE && slot->role != SLOT_LOOK &&
                       (failed || !(slot->uring.sqe->flags & IOSQE_CQE_SKIP_SUCCESS) || more);
    told->res = (int32_t)result;
    told->user_data = slot->uring.user_data;
    if (more)
        return URING_SHOW;
    if (slot->uring.chain)
        uring_chain_advance(ring, slot, failed, result);
    slot_give(slot);
    return shown ? URING_SHOW : URING_SWALLOW;
}

/* ---- the slots of a ring ---- */

struct search {
    uint64_t user_data;
    struct slot *found;
};

static void compare(struct slot *slot, void *argument)
{
    struct search *search = argument;
    const bool in_kernel = slot->role == SLOT_REQUEST || slot->role == SLOT_FOLLOWED || slot->role == SLOT_VOICE;
    if (in_kernel && slot->uring.user_data == search->user_data && slot_is_in_kernel(slot))
        search->found = slot;
}

uint64_t uring_name_in_kernel(const struct uring *ring, uint64_t user_data)
{
    struct search search = {.user_data = user_data};
    slots_each(ring, compare, &search);
    return search.found ? slot_tag(search.found) : user_data;
}

static void lose(struct slot *slot, void *unused)
{
    (void)unused;
    if (slot->role == SLOT_OVER)
        return;
    if (slot->request.kind != REQUEST_NONE)
        request_lose(&slot->request);
    uring_unfollow(slot);
    slot_give(slot);
}

void uring_abandon(struct uring *ring)
{
    uring_chain_drop(ring);
    slots_each(ring, lose, NULL);
    atomic_store(&ring->in_flight, atomic_load(&ring->ended));
}
