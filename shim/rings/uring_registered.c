/*
 * Registered files: what the kernel has accepted, learned from the numbers that it was given.
 *
 * A slot keeps a reference to the file object, because the program may close the number at once. What the number's description is can change
 * afterwards: its flags (F_SETFL through whatever number is left), a map that is made of the file, the slot itself by an operation of the ring. Each
 * of these is counted somewhere, and what was learned under another count is void: the slot is looked at again (uring_look.c).
 */
#include "rings/uring_registered.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/guard.h"

/* Not 0; another one in each process of a family. In wiped memory: 0 in a new child. */
static _Atomic uint32_t *epoch;
static _Atomic uint32_t last_epoch;

static void registered_start(void)
{
    epoch = process_arena(sizeof *epoch);
}
PROCESS_INITIALISER(registered_start);

enum { PATIENCE = 2000 }; /* steps of 50 microseconds */

static uint32_t epoch_now(void)
{
    uint32_t now = atomic_load_explicit(epoch, memory_order_relaxed);
    if (now != 0)
        return now;
    uint32_t next = atomic_fetch_add(&last_epoch, 1) + 1;
    return atomic_compare_exchange_strong(epoch, &now, next) ? next : now;
}

void *registered_memory(size_t length)
{
    long base = raw(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return raw_failed(base) ? NULL : (void *)base; /* NOLINT: the kernel gives an address */
}

struct uring_registered *registered_make(struct uring *ring)
{
    struct uring_registered *table = registered_of(ring);
    if (table || !(table = registered_memory(sizeof *table)))
        return table;
    uint32_t changes = atomic_load(&ring->control->registered);
    atomic_store(&table->seen, changes);
    atomic_store(&table->lost, changes);
    atomic_store(&table->buffers_known, changes == 0); /* there are none */
    atomic_store(&table->answer, REGISTERED_NO_ANSWER);
    atomic_store_explicit(&ring->registered, table, memory_order_release);
    return table;
}

/* Make room for `files` slots. Process lock held. @return 0 or -ENOMEM. */
static int make_files(struct uring_registered *table, unsigned files)
{
    for (unsigned i = 0; i < (files + REGISTERED_CHUNK - 1) / REGISTERED_CHUNK; i++) {
        if (atomic_load(&table->file_chunk[i]))
            continue;
        struct registered_file *chunk = registered_memory(REGISTERED_CHUNK * sizeof *chunk);
        if (!chunk)
            return -ENOMEM;
        for (unsigned j = 0; j < REGISTERED_CHUNK; j++) {
            atomic_store_explicit(&chunk[j].number, -1, memory_order_relaxed);
            atomic_store_explicit(&chunk[j].own, -1, memory_order_relaxed);
        }
        atomic_store_explicit(&table->file_chunk[i], chunk, memory_order_release);
    }
    return 0;
}

/* ---- one slot ---- */

static bool read_once(const struct registered_file *file, struct registered_look *look)
{
    /* Acquire, all of them: whoever has read something new sees that the version has moved. Pairs with the
     * releases in forget and learn. */
    look->version = atomic_load_explicit(&file->version, memory_order_acquire);
    look->known = atomic_load_explicit(&file->known, memory_order_acquire);
    look->file = atomic_load_explicit(&file->file, memory_order_acquire);
    look->changes = atomic_load_explicit(&file->changes, memory_order_acquire);
    look->flag_changes = atomic_load_explicit(&file->flag_changes, memory_order_acquire);
    look->epoch = atomic_load_explicit(&file->epoch, memory_order_acquire);
    look->number = atomic_load_explicit(&file->number, memory_order_acquire);
    look->own = atomic_load_explicit(&file->own, memory_order_acquire);
    look->maps = atomic_load_explicit(&file->maps, memory_order_acquire);
    look->device = atomic_load_explicit(&file->device, memory_order_acquire);
    look->inode = atomic_load_explicit(&file->inode, memory_order_acquire);
    return !(look->version & 1) && atomic_load_explicit(&file->version, memory_order_relaxed) == look->version;
}

int registered_read(struct registered_file *file, struct registered_look *look, bool nowait)
{
    const struct timespec step = {.tv_nsec = 50000};
    for (int i = 0; !read_once(file, look) || (look->known & REGISTERED_CHANGING); i++) {
        uint32_t changing = REGISTERED_CHANGING;
        if (nowait)
            return -EAGAIN;
        /* Whoever registers it has been interrupted for good, or by this very thread. */
        if (i >= PATIENCE)
            atomic_compare_exchange_strong(&file->known, &changing, REGISTERED_NOT_KNOWN);
        raw(SYS_nanosleep, &step, NULL);
    }
    return 0;
}

bool registered_holds(struct uring *ring, struct uring_registered *table, const struct registered_look *look)
{
    const enum fd_state state = fd_word_state(look->known);
    uint32_t changes = atomic_load_explicit(&ring->control->registered, memory_order_acquire);
    if (state == FD_UNKNOWN || atomic_load_explicit(&table->seen, memory_order_relaxed) != changes ||
        (int32_t)(look->changes - atomic_load_explicit(&table->lost, memory_order_relaxed)) < 0)
        return false;
    if (state == FD_PLAIN)
        return true;
    if (look->flag_changes != fd_flag_changes())
        return false;
    if (state == FD_FILE)
        return !(look->known & FD_WRITABLE) || look->maps == fd_maps_created();
    return look->file == 0 || look->epoch == epoch_now();
}

/* A slot becomes unknown, and `known` says why. Process lock held. @return a number of ours that it had, or -1. */
static int forget(struct registered_file *file, uint32_t known)
{
    uint32_t version = atomic_load_explicit(&file->version, memory_order_relaxed);
    uint32_t object = atomic_load_explicit(&file->file, memory_order_relaxed);
    atomic_store_explicit(&file->version, version + 1, memory_order_relaxed);
    atomic_store_explicit(&file->known, known, memory_order_release);
    atomic_store_explicit(&file->file, 0, memory_order_release);
    atomic_store_explicit(&file->number, -1, memory_order_release);
    int own = atomic_load_explicit(&file->own, memory_order_relaxed);
    atomic_store_explicit(&file->own, -1, memory_order_release);
    atomic_store_explicit(&file->version, version + 2, memory_order_release);
    if (object != 0 && atomic_load_explicit(&file->epoch, memory_order_relaxed) == epoch_now())
        file_release(file_at(object - 1));
    return own;
}

/* Count a change of what is registered, made here. Process lock held. */
void registered_count_change(struct uring *ring, struct uring_registered *table)
{
    uint32_t before = atomic_fetch_add(&ring->control->registered, 1);
    /* Release: pairs with the load in registered_holds, which reads the ring's count first. */
    if (atomic_load_explicit(&table->seen, memory_order_relaxed) == before)
        atomic_store_explicit(&table->seen, before + 1, memory_order_release);
}

void registered_note(struct uring *ring, struct registered_look *look)
{
    look->changes = atomic_load(&ring->control->registered);
    look->flag_changes = fd_flag_changes();
    look->maps = fd_maps_created();
}

/* Process lock held; the slot has been forgotten. The view's reference moves to it. */
static void learn(struct registered_file *file, struct fd_view *view, int number, int own,
                  const struct registered_look *counts)
{
    uint32_t version = atomic_load_explicit(&file->version, memory_order_relaxed);
    atomic_store_explicit(&file->version, version + 1, memory_order_relaxed);
    uint32_t numberless = view->file && number < 0 && own < 0 ? REGISTERED_NUMBERLESS : 0;
    atomic_store_explicit(&file->known, (uint32_t)view->state | view->flags | numberless, memory_order_release);
    atomic_store_explicit(&file->file, view->file ? file_index(view->file) + 1 : 0, memory_order_release);
    atomic_store_explicit(&file->number, number, memory_order_release);
    atomic_store_explicit(&file->own, own, memory_order_release);
    atomic_store_explicit(&file->changes, counts->changes, memory_order_release);
    atomic_store_explicit(&file->flag_changes, counts->flag_changes, memory_order_release);
    atomic_store_explicit(&file->maps, counts->maps, memory_order_release);
    atomic_store_explicit(&file->device, counts->device, memory_order_release);
    atomic_store_explicit(&file->inode, counts->inode, memory_order_release);
    atomic_store_explicit(&file->epoch, epoch_now(), memory_order_release);
    atomic_store_explicit(&file->version, version + 2, memory_order_release);
    view->file = NULL;
}

void registered_learn(struct uring *ring, unsigned index, struct fd_view *view, int number, int own,
                      const struct registered_look *before)
{
    uint64_t saved;
    struct uring_registered *table = registered_of(ring);
    struct registered_file *file = registered_file(table, index);
    process_lock(&saved);
    if (file && atomic_load_explicit(&file->version, memory_order_relaxed) == before->version &&
        !(before->known & REGISTERED_CHANGING)) {
        int old = forget(file, REGISTERED_NOT_KNOWN);
        learn(file, view, number, own, before);
        own = old;
    }
    process_unlock(&saved);
    fd_view_close(view);
    registered_dismiss(own);
}

void registered_settle(struct uring *ring, unsigned index, struct fd_view *view, int number,
                       const struct registered_look *before)
{
    uint64_t saved;
    int own = -1;
    struct registered_file *file = registered_file(registered_of(ring), index);
    process_lock(&saved);
    if (file) {
        bool same = atomic_load_explicit(&file->version, memory_order_relaxed) == before->version;
        own = forget(file, REGISTERED_NOT_KNOWN);
        if (same && view)
            learn(file, view, number, -1, before);
    }
    process_unlock(&saved);
    if (view)
        fd_view_close(view);
    registered_dismiss(own);
}

/* ---- numbers of ours ---- */

static struct own_number {
    _Atomic bool taken, parked; /* parked: to be closed when that harms nobody */
    _Atomic int fd;
} own_numbers[REGISTERED_OWN];

int registered_own_number(int own)
{
    return own < 0 ? -1 : atomic_load_explicit(&own_numbers[own].fd, memory_order_relaxed);
}

/* Does anybody hold a POSIX lock on the file? Asked as the owner that this process's own locks are not. */
static bool is_locked(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return raw(SYS_fcntl, fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void close_parked(void)
{
    for (int i = 0; i < REGISTERED_OWN; i++) {
        struct own_number *number = &own_numbers[i];
        bool parked = true;
        if (!atomic_load_explicit(&number->parked, memory_order_relaxed) || is_locked(atomic_load(&number->fd)) ||
            !atomic_compare_exchange_strong(&number->parked, &parked, false))
            continue;
        own_close(&number->fd);
        atomic_store(&number->taken, false);
    }
}

int registered_keep(int fd)
{
    close_parked();
    for (int i = 0; i < REGISTERED_OWN; i++) {
        bool taken = false;
        if (!atomic_compare_exchange_strong(&own_numbers[i].taken, &taken, true))
            continue;
        /* Out of the program's way, where that takes nothing from it: moving a number means closing one. */
        if ((is_locked(fd) ? own_keep : own_take)(fd, &own_numbers[i].fd) == 0)
            return i;
        atomic_store(&own_numbers[i].taken, false);
        return -1;
    }
    raw(SYS_close, fd);
    return -1;
}

void registered_dismiss(int own)
{
    if (own >= 0)
        atomic_store(&own_numbers[own].parked, true);
    close_parked();
}

void registered_close_number(int fd)
{
    if (is_locked(fd))
        registered_dismiss(registered_keep(fd));
    else
        raw(SYS_close, fd);
}

/* ---- views ---- */

/* A number of the process that leads to the slot's file, and what the table says of it. */
static void find_number(struct fd_view *view, const struct registered_look *look)
{
    view->fd = look->number;
    view->word = fd_word(look->number);
    if (fd_leads_to(look->number, view->file, view->state, view->flags))
        return;
    view->fd = registered_own_number(look->own);
    view->word = fd_word(view->fd);
}

/* A slot that is not known: is it one whose requests ought to be bounced, as far as anything is said of it? */
static bool was_direct(const struct registered_look *look)
{
    const unsigned ours = FD_STATES(FD_DIRECT) | FD_STATES(FD_WATCHED);
    return (look->known & (REGISTERED_DIRECT | REGISTERED_UNSEEN)) || (ours >> fd_word_state(look->known) & 1);
}

int uring_view_registered(struct uring *ring, struct fd_view *view, unsigned index, bool nowait)
{
    struct uring_registered *table = registered_of(ring);
    struct registered_file *slot = table ? registered_file(table, index) : NULL;
    struct registered_look look;
    for (;;) {
        *view = (struct fd_view){.state = FD_PLAIN, .fd = -1};
        if (!slot || process_is_foreign())
            return 0;
        int error = registered_read(slot, &look, nowait);
        if (error != 0)
            return error;
        const bool holds = registered_holds(ring, table, &look);
        if (!holds || look.file == 0) {
            const bool excluded = holds ? fd_word_state(look.known) == FD_EXCLUDED : was_direct(&look);
            view->state = excluded ? FD_EXCLUDED : FD_PLAIN;
            return 0;
        }
        /* The slot's own reference has kept the object alive if the slot is still the same. */
        struct file *file = file_at(look.file - 1);
        file_hold(file);
        if (atomic_load(&slot->version) == look.version) {
            view->file = file;
            break;
        }
        file_release(file);
    }
    guard_thread(); /* the request will touch the file's map */
    view->state = fd_word_state(look.known);
    view->flags = look.known & (FD_APPEND | FD_WRITABLE | FD_READABLE);
    find_number(view, &look);
    return 0;
}

bool uring_registered_is(struct uring *ring, unsigned index, const struct fd_view *view)
{
    struct uring_registered *table = registered_of(ring);
    struct registered_file *slot = table ? registered_file(table, index) : NULL;
    struct registered_look look;
    return slot && view->file && read_once(slot, &look) && registered_holds(ring, table, &look) &&
           look.file == file_index(view->file) + 1;
}

bool uring_file_matters(struct uring *ring, unsigned index)
{
    struct uring_registered *table = registered_of(ring);
    const struct registered_file *slot = table ? registered_file(table, index) : NULL;
    uint32_t known = slot ? atomic_load_explicit(&slot->known, memory_order_relaxed) : REGISTERED_NOT_KNOWN;
    return known != REGISTERED_NOT_KNOWN && fd_word_state(known) != FD_PLAIN;
}

/* ---- changes ---- */

unsigned registered_forget(struct uring_registered *table, unsigned first, unsigned count, uint32_t known,
                           int own[REGISTERED_OWN])
{
    unsigned found = 0, files = atomic_load(&table->files);
    for (unsigned i = 0; i < count && first + i < files; i++) {
        struct registered_file *file = registered_file(table, first + i);
        int number = file ? forget(file, known) : -1;
        if (number >= 0)
            own[found++] = number;
    }
    return found;
}

void uring_files_changed(struct uring *ring, unsigned first, unsigned count)
{
    uint64_t saved;
    int own[REGISTERED_OWN];
    struct uring_registered *table = registered_of(ring);
    if (!table) {
        atomic_fetch_add(&ring->control->registered, 1);
        return;
    }
    process_lock(&saved);
    registered_count_change(ring, table);
    unsigned found = registered_forget(table, first, count, REGISTERED_NOT_KNOWN, own);
    process_unlock(&saved);
    while (found > 0)
        registered_dismiss(own[--found]);
}

void uring_file_opened(struct uring *ring, unsigned index, int flags)
{
    uint64_t saved;
    uring_files_changed(ring, index, 1);
    struct uring_registered *table = registered_of(ring);
    struct registered_file *file = table ? registered_file(table, index) : NULL;
    if (!file || !(flags & O_DIRECT))
        return;
    process_lock(&saved);
    uint32_t nothing = REGISTERED_NOT_KNOWN;
    atomic_compare_exchange_strong(&file->known, &nothing, REGISTERED_DIRECT);
    process_unlock(&saved);
}

int registered_resize(struct uring_registered *table, unsigned files)
{
    int error = files > REGISTERED_FILES ? -ENOMEM : make_files(table, files);
    if (error == 0)
        atomic_store_explicit(&table->files, files, memory_order_release);
    return error;
}

void uring_forget_registered(struct uring *ring)
{
    struct uring_registered *table = registered_of(ring);
    if (!table)
        return;
    atomic_store(&ring->registered, NULL);
    for (unsigned i = 0; i < REGISTERED_FILES / REGISTERED_CHUNK; i++) {
        struct registered_file *chunk = atomic_load(&table->file_chunk[i]);
        for (unsigned j = 0; chunk && j < REGISTERED_CHUNK; j++)
            registered_dismiss(forget(&chunk[j], REGISTERED_NOT_KNOWN));
        if (chunk)
            raw(SYS_munmap, chunk, REGISTERED_CHUNK * sizeof *chunk);
    }
    for (unsigned i = 0; i < REGISTERED_BUFFERS / REGISTERED_CHUNK; i++) {
        struct registered_buffer *chunk = atomic_load(&table->buffer_chunk[i]);
        if (chunk)
            raw(SYS_munmap, chunk, REGISTERED_CHUNK * sizeof *chunk);
    }
    raw(SYS_munmap, table, sizeof *table);
}
