/*
 * Operations of a ring that open, close or change files without being reads or writes: what their blocking twins do in entry/{open,descriptors,
 * mutate,sync}.c, before they are submitted and when they are over.
 *
 * Followed is only what the shim would otherwise be wrong about. An open without O_DIRECT, a socket, an accepted connection give a number that is
 * unknown, and is looked at when it is first used; closing a number that is unknown changes nothing; unlinking and renaming never do.
 *
 * An fsync takes a sweep along, as a blocking one does: programs that write through a ring flush through it as well, and none of their regions would
 * ever be clean. It costs an msync of the swept regions' checksums when it is over, every 5 s at most; flushes of our own are left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/process.h"
#include "bounce/copy.h"
#include "engine/sweep.h"
#include "engine/transfer.h"
#include "rings/uring_ring.h"

/* Source: include/uapi/linux/io_uring.h. */
enum { MSG_SEND_FD = 1, ANY_SLOT = -1 /* IORING_FILE_INDEX_ALLOC */ };

static const void *user_pointer(uint64_t address)
{
    return (const void *)(uintptr_t)address; /* NOLINT: entries hold addresses */
}

/* ---- which ---- */

/* O_* of an OPENAT or OPENAT2; 0 when they cannot be read: the kernel will refuse it. */
static unsigned open_flags(const struct io_uring_sqe *sqe)
{
    uint64_t flags = 0; /* the first field of struct open_how */
    if (sqe->opcode == IORING_OP_OPENAT)
        return sqe->open_flags;
    return copy_from_user(&flags, user_pointer(sqe->off), sizeof flags) == sizeof flags ? (unsigned)flags : 0;
}

/* May the file of an entry that changes it have a map, as far as a look at its number tells? */
static bool may_have_map(const struct io_uring_sqe *sqe)
{
    return (sqe->flags & IOSQE_FIXED_FILE) || !fd_writes_pass(sqe->fd);
}

static bool may_be_swept(const struct io_uring_sqe *sqe)
{
    const unsigned ours = FD_STATES(FD_DIRECT) | FD_STATES(FD_WATCHED);
    return (sqe->flags & IOSQE_FIXED_FILE) || (ours >> fd_word_state(fd_word(sqe->fd)) & 1);
}

/* Is a slot of the registered files filled or emptied of which more is known than that it is no file? */
static bool touches_slot(struct uring *ring, const struct io_uring_sqe *sqe)
{
    return sqe->file_index != 0 && sqe->file_index != (uint32_t)ANY_SLOT &&
           uring_file_matters(ring, sqe->file_index - 1);
}

bool uring_is_followed(struct uring *ring, const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_OPENAT:
    case IORING_OP_OPENAT2:
        return sqe->file_index != 0 || (open_flags(sqe) & (O_DIRECT | O_TRUNC));
    case IORING_OP_CLOSE:
        return sqe->file_index != 0 ? touches_slot(ring, sqe)
                                    : own_is(sqe->fd) || fd_word_state(fd_word(sqe->fd)) != FD_UNKNOWN;
    case IORING_OP_SOCKET:
    case IORING_OP_ACCEPT:
    case URING_OP_PIPE:
        return touches_slot(ring, sqe);
    case IORING_OP_FILES_UPDATE:
        return true;
    case IORING_OP_MSG_RING:
        return sqe->addr == MSG_SEND_FD;
    case URING_OP_FTRUNCATE:
    case IORING_OP_FALLOCATE:
    case IORING_OP_SPLICE:
        return may_have_map(sqe);
    case IORING_OP_FSYNC:
        return may_be_swept(sqe);
    default:
        return false;
    }
}

bool uring_is_awaited(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_OPENAT:
    case IORING_OP_OPENAT2:
        return sqe->file_index != 0;
    case IORING_OP_FILES_UPDATE:
        return true;
    default:
        return false;
    }
}

/* ---- opening and closing ---- */

/* The truncation's number of ours must outlast the submission: out of the program's reach. */
static void keep_probe(struct slot_follow *follow)
{
    int probe = follow->change.probe;
    if (probe < 0)
        return;
    follow->change.probe = -1;
    follow->change.view.fd = own_keep(probe, &follow->own) == 0 ? probe : -1;
}

static void end_truncation(struct slot_follow *follow, bool changed)
{
    int probe = atomic_load(&follow->own);
    if (probe > 0)
        follow->change.view.fd = probe;
    change_close(&follow->change, changed);
    if (probe > 0)
        own_close(&follow->own);
}

static int64_t opened(struct slot *slot, int64_t result)
{
    struct slot_follow *follow = &slot->uring.follow;
    if (follow->flags & O_TRUNC)
        end_truncation(follow, result >= 0);
    if (result >= 0 && follow->index == 0)
        fd_opened((int)result, (int)follow->flags, false);
    else if (result >= 0)
        uring_file_opened(slot->uring.ring, follow->index == (unsigned)ANY_SLOT ? (unsigned)result : follow->index - 1,
                          (int)follow->flags);
    return result;
}

static void follow_open(struct slot_follow *follow, const struct io_uring_sqe *sqe)
{
    follow->done = opened;
    follow->index = sqe->file_index;
    follow->flags = open_flags(sqe);
    if (!(follow->flags & O_TRUNC))
        return;
    change_open_path_truncation(&follow->change, sqe->fd, user_pointer(sqe->addr), 0);
    keep_probe(follow);
}

/* Whatever came of it, the number is learned again. */
static int64_t closed(struct slot *slot, int64_t result)
{
    fd_closed(slot->uring.sqe->fd, slot->uring.follow.word);
    return result;
}

static void follow_close(struct slot_follow *follow, struct io_uring_sqe *sqe)
{
    if (own_is(sqe->fd)) { /* the program has not opened it */
        sqe->fd = -1;
        return;
    }
    if (fd_word_state(fd_word(sqe->fd)) == FD_DIRECT)
        sweep_at_close(sqe->fd);
    follow->done = closed;
    follow->word = fd_closing(sqe->fd);
}

/* ---- slots of the registered files ---- */

static int64_t slot_touched(struct slot *slot, int64_t result)
{
    if (result >= 0)
        uring_files_changed(slot->uring.ring, slot->uring.follow.index, 1);
    return result;
}

static void follow_slot(struct slot_follow *follow, const struct io_uring_sqe *sqe)
{
    follow->done = slot_touched;
    follow->index = sqe->file_index - 1;
}

/* The kernel has chosen the slots, and written them where the numbers were. */
static void allocated(struct uring *ring, uint64_t address, int64_t count)
{
    const int *slots = user_pointer(address);
    int index;
    for (int64_t i = 0; i < count && copy_from_user(&index, &slots[i], sizeof index) == sizeof index; i++)
        if (index >= 0)
            uring_files_changed(ring, (unsigned)index, 1);
}

static int64_t files_updated(struct slot *slot, int64_t result)
{
    const struct io_uring_sqe *sqe = slot->uring.sqe;
    if ((uint32_t)sqe->off == (uint32_t)ANY_SLOT)
        allocated(slot->uring.ring, sqe->addr, result);
    else if (result != SLOT_UNDONE)
        uring_files_changed(slot->uring.ring, (unsigned)sqe->off, sqe->len);
    return result;
}

/* A file has been sent to another ring's slots. */
static int64_t file_sent(struct slot *slot, int64_t result)
{
    const struct io_uring_sqe *sqe = slot->uring.sqe;
    struct uring *target = result >= 0 ? uring_of(sqe->fd) : NULL;
    if (target)
        uring_files_changed(target, sqe->file_index == (uint32_t)ANY_SLOT ? (unsigned)result : sqe->file_index - 1, 1);
    return result;
}

/* ---- changes ---- */

/* The entry's file, if it is one that the shim cares for. */
static void open_view(struct uring *ring, struct fd_view *view, const struct io_uring_sqe *sqe)
{
    int error = (sqe->flags & IOSQE_FIXED_FILE) ? uring_view_registered(ring, view, (unsigned)sqe->fd, false)
                                                : fd_view_open(view, sqe->fd, false);
    if (error != 0)
        *view = (struct fd_view){.state = FD_PLAIN, .fd = -1};
}

static int64_t truncated(struct slot *slot, int64_t result)
{
    change_close(&slot->uring.follow.change, result == 0);
    return result;
}

static int64_t space_allocated(struct slot *slot, int64_t result)
{
    change_close_allocation(&slot->uring.follow.change, result == SLOT_UNDONE ? -EINVAL : (int)result);
    return result;
}

static void follow_change(struct uring *ring, struct slot_follow *follow, const struct io_uring_sqe *sqe)
{
    struct fd_view view;
    struct change *change = &follow->change;
    open_view(ring, &view, sqe);
    change_find_view(change, &view, TRANSPORT_URING);
    if (!change->view.file)
        return;
    follow->done = sqe->opcode == URING_OP_FTRUNCATE ? truncated : space_allocated;
    if (sqe->opcode == URING_OP_FTRUNCATE)
        change_open_truncation(change, (int64_t)sqe->off);
    else
        change_open_allocation(change, (int)sqe->len, (int64_t)sqe->off, (int64_t)sqe->addr);
}

static int64_t flowed(struct slot *slot, int64_t result)
{
    inflow_close(&slot->uring.follow.inflow, result == SLOT_UNDONE ? LANDING_CANCELLED : (ssize_t)result);
    return result;
}

static void follow_splice(struct uring *ring, struct slot_follow *follow, const struct io_uring_sqe *sqe)
{
    struct fd_view view;
    open_view(ring, &view, sqe);
    if (!view.file) {
        fd_view_close(&view);
        return;
    }
    follow->done = flowed;
    inflow_open(&follow->inflow, &view, sqe->off == UINT64_MAX ? TRANSFER_FILE_OFFSET : (int64_t)sqe->off, sqe->len,
                TRANSPORT_URING);
}

/* ---- fsync ---- */

static int64_t synced(struct slot *slot, int64_t result)
{
    struct slot_follow *follow = &slot->uring.follow;
    struct extent page = follow->sync.page;
    if (page.base) {
        sweep_close_briefly(page.base, result == 0);
        pool_give(&page);
    }
    int unsaid = result == 0 ? sweep_unsaid_of(follow->sync.view.file) : 0;
    fd_view_close(&follow->sync.view);
    return unsaid != 0 ? -unsaid : result;
}

/* A sweep that goes along needs the whole file and its times flushed. It lies in a page of the pool: a slot has no room for it. */
static void follow_sync(struct uring *ring, struct slot_follow *follow, struct io_uring_sqe *sqe)
{
    struct fd_view *view = &follow->sync.view;
    struct extent *page = &follow->sync.page;
    _Static_assert(sizeof(struct sweep) <= POOL_PAGE, "a sweep must fit into a page");
    open_view(ring, view, sqe);
    page->base = NULL;
    if (!view->file) {
        fd_view_close(view);
        return;
    }
    follow->done = synced;
    if (sqe->off != 0 || sqe->len != 0 || pool_take(page, POOL_PAGE, true) != 0)
        return;
    struct fd_view another = *view;
    another.offset = NULL;
    file_hold(another.file);
    sweep_open_view(page->base, &another);
    if (sweep_is_open(page->base))
        sqe->fsync_flags &= ~IORING_FSYNC_DATASYNC;
    else
        pool_give(page);
}

/* ---- */

void uring_follow(struct uring *ring, struct slot *slot, struct io_uring_sqe *sqe)
{
    struct slot_follow *follow = &slot->uring.follow;
    memset(follow, 0, sizeof *follow);
    switch (sqe->opcode) {
    case IORING_OP_OPENAT:
    case IORING_OP_OPENAT2:
        follow_open(follow, sqe);
        break;
    case IORING_OP_CLOSE:
        if (sqe->file_index != 0)
            follow_slot(follow, sqe);
        else
            follow_close(follow, sqe);
        break;
    case IORING_OP_FILES_UPDATE:
        follow->done = files_updated;
        break;
    case IORING_OP_MSG_RING:
        follow->done = file_sent;
        break;
    case URING_OP_FTRUNCATE:
    case IORING_OP_FALLOCATE:
        follow_change(ring, follow, sqe);
        break;
    case IORING_OP_SPLICE:
        follow_splice(ring, follow, sqe);
        break;
    case IORING_OP_FSYNC:
        follow_sync(ring, follow, sqe);
        break;
    default:
        follow_slot(follow, sqe);
    }
}

void uring_unfollow(struct slot *slot)
{
    int64_t (*done)(struct slot *, int64_t) = slot->uring.follow.done;
    slot->uring.follow.done = NULL;
    if (done)
        done(slot, SLOT_UNDONE);
}
