/*
 * Session slots: taking one, and knowing the others. The tables of requests in flight are in flight.c.
 */
#include "checksum/session.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"
#include "base/stats.h"
#include "checksum/mapping.h"
#include "checksum/session_peers.h"
#include "checksum/store.h"

struct session_state *session_state;

static void session_start(void)
{
    session_state = process_arena(sizeof *session_state);
    /* A quiet child must not keep its parent's lock alive. */
    pthread_atfork(NULL, NULL, store_drop_inherited);
}
PROCESS_INITIALISER(session_start);

struct session_file *session_map_file(int fd)
{
    long address = mapping_make(fd, 0, sizeof(struct session_file), NULL);
    return raw_failed(address) ? NULL : (struct session_file *)address;
}

/* Has a dead session of this boot left requests that nobody has settled? Then its slot stays as it is. */
static bool is_unsettled(const struct session_file *file, const uint64_t boot[2])
{
    if (file->boot[0] != boot[0] || file->boot[1] != boot[1])
        return false;
    if (file->flights_beyond)
        return true;
    uint64_t high = file->flights_high < SESSION_FLIGHTS ? file->flights_high : SESSION_FLIGHTS;
    for (uint64_t i = 0; i < high; i++)
        if ((file->flights[i].state & 0xff) > FLIGHT_FILLING)
            return true;
    return false;
}

static void fill_header(struct session_file *file, unsigned slot, const uint64_t boot[2])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memcpy(file->magic, "BNCESES", 8);
    file->version = FORMAT_VERSION;
    file->slot = slot;
    file->pid = (uint64_t)raw(SYS_getpid);
    file->started = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    raw(SYS_prctl, 16 /* PR_GET_NAME */, file->command);
    file->stats_address = (uint64_t)(uintptr_t)stats_memory();
    file->boot[0] = boot[0];
    file->boot[1] = boot[1];
}

/*
 * Most of a session's tables is never used: a page that is zero is not written to, which would have it allocated, faulted in and later written to
 * the disk, for every process.
 */
static void clear_written(void *memory, size_t bytes)
{
    static const char zeros[512];
    char *from = memory, *end = from + bytes;
    for (size_t length; from < end; from += length) {
        length = (size_t)(end - from) < sizeof zeros ? (size_t)(end - from) : sizeof zeros;
        if (memcmp(from, zeros, length) != 0)
            memset(from, 0, length);
    }
}

/* @return 0 with session_state->self set; -EAGAIN when this slot cannot be had; another -errno. */
static int take_slot(int lock, unsigned slot, const uint64_t boot[2])
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(slot), .l_len = 1};
    long error = raw(SYS_fcntl, lock, F_OFD_SETLK, &byte);
    if (error == -EAGAIN || error == -EACCES)
        return -EAGAIN;
    if (raw_failed(error))
        return (int)error;
    int fd = store_open_session(slot, true);
    if (fd < 0) {
        byte.l_type = F_UNLCK;
        raw(SYS_fcntl, lock, F_OFD_SETLK, &byte);
        return fd;
    }
    struct session_file *file = NULL;
    error = store_allocate(fd, 0, sizeof(struct session_file));
    if (!raw_failed(error))
        file = session_map_file(fd);
    raw(SYS_close, fd);
    if (!file) {
        byte.l_type = F_UNLCK;
        raw(SYS_fcntl, lock, F_OFD_SETLK, &byte);
        return raw_failed(error) ? (int)error : -ENOMEM;
    }
    if (is_unsettled(file, boot)) {
        mapping_unmake(file, sizeof *file);
        byte.l_type = F_UNLCK;
        raw(SYS_fcntl, lock, F_OFD_SETLK, &byte);
        return -EAGAIN;
    }
    clear_written(file->flights, sizeof file->flights);
    clear_written(file->maps, sizeof file->maps);
    file->flights_beyond = file->maps_beyond = file->flights_high = 0;
    fill_header(file, slot, boot);
    session_state->slot = slot;
    atomic_store(&session_state->peers[slot], file);
    atomic_store_explicit(&session_state->self, file, memory_order_release);
    return 0;
}

int session_open(void)
{
    if (mapping_store_failed())
        return -EIO;
    if (atomic_load_explicit(&session_state->self, memory_order_relaxed))
        return 0;
    int error = store_open(true);
    if (error != 0)
        return error;
    int lock = store_lock_file();
    if (lock < 0)
        return lock;
    store_boot_id(session_state->boot);
    struct store_shared *shared = store_shared();
    error = -EAGAIN;
    unsigned slot = 0;
    for (; slot < STORE_SLOTS && error == -EAGAIN; slot++)
        error = take_slot(lock, slot, session_state->boot);
    if (error != 0) {
        store_complain("cannot open a session", error == -EAGAIN ? EUSERS : -error);
        return error;
    }
    uint64_t high = atomic_load(&shared->slots_high);
    while (high < slot && !atomic_compare_exchange_weak(&shared->slots_high, &high, slot))
        ;
    return 0;
}

static struct session_file *map_peer(unsigned slot)
{
    int fd = store_open_session(slot, false);
    if (fd < 0)
        return NULL;
    struct stat status;
    struct session_file *file = NULL;
    if (fstat(fd, &status) == 0 && status.st_size >= (off_t)sizeof *file)
        file = session_map_file(fd);
    raw(SYS_close, fd);
    if (!file)
        return NULL;
    if (memcmp(file->magic, "BNCESES", 8) != 0 || file->version != FORMAT_VERSION) {
        mapping_unmake(file, sizeof *file);
        return NULL;
    }
    struct session_file *other = NULL;
    if (!atomic_compare_exchange_strong(&session_state->peers[slot], &other, file)) {
        mapping_unmake(file, sizeof *file);
        return other;
    }
    return file;
}

unsigned session_peer_count(void)
{
    struct store_shared *shared = store_shared();
    uint64_t high = shared ? atomic_load(&shared->slots_high) : 0;
    return high < STORE_SLOTS ? (unsigned)high : STORE_SLOTS;
}

struct session_file *session_peer(unsigned slot, bool nowait)
{
    struct session_file *file = atomic_load_explicit(&session_state->peers[slot], memory_order_acquire);
    if (!file && !nowait)
        file = map_peer(slot);
    return file;
}

bool session_peer_is_hidden(unsigned slot)
{
    char magic[8];
    int fd = store_open_session(slot, false);
    if (fd < 0)
        return fd != -ENOENT;
    bool is_one =
        raw(SYS_pread64, fd, magic, sizeof magic, 0) == (long)sizeof magic && memcmp(magic, "BNCESES", 8) == 0;
    raw(SYS_close, fd);
    return is_one;
}

bool session_peer_counts(const struct session_file *file)
{
    /* Acquire: a session's boot id is stored last when it takes its slot. */
    return atomic_load_explicit(&file->boot[0], memory_order_acquire) == session_state->boot[0] &&
           atomic_load_explicit(&file->boot[1], memory_order_acquire) == session_state->boot[1];
}

bool session_peer_is_alive(unsigned slot)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(slot), .l_len = 1};
    int lock = store_lock_file();
    return lock < 0 || raw_failed(raw(SYS_fcntl, lock, F_OFD_GETLK, &byte)) || byte.l_type != F_UNLCK;
}

static bool lock_slot(unsigned slot, short type)
{
    struct flock byte = {.l_type = type, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(slot), .l_len = 1};
    int lock = store_lock_file();
    return lock >= 0 && !raw_failed(raw(SYS_fcntl, lock, F_OFD_SETLK, &byte));
}

bool session_seize(unsigned slot)
{
    return slot != session_state->slot && lock_slot(slot, F_WRLCK);
}

void session_release(unsigned slot)
{
    lock_slot(slot, F_UNLCK);
}

void session_use_map(uint64_t map_id)
{
    struct session_file *self = atomic_load(&session_state->self);
    for (unsigned i = 0; i < SESSION_MAPS; i++) {
        uint64_t nobody = 0;
        if (atomic_compare_exchange_strong(&self->maps[i], &nobody, map_id))
            return;
    }
    atomic_fetch_add(&self->maps_beyond, 1);
}

void session_leave_map(uint64_t map_id)
{
    struct session_file *self = atomic_load(&session_state->self);
    for (unsigned i = 0; i < SESSION_MAPS; i++) {
        uint64_t expected = map_id;
        if (atomic_compare_exchange_strong(&self->maps[i], &expected, 0))
            return;
    }
    atomic_fetch_sub(&self->maps_beyond, 1);
}

bool session_lists_map(const struct session_file *file, uint64_t map_id)
{
    bool uses = atomic_load(&file->maps_beyond) > 0;
    for (unsigned i = 0; i < SESSION_MAPS && !uses; i++)
        uses = atomic_load_explicit(&file->maps[i], memory_order_relaxed) == map_id;
    return uses;
}

bool session_others_live(void)
{
    for (unsigned slot = 0; slot < session_peer_count(); slot++)
        if (slot != session_state->slot && session_peer_is_alive(slot))
            return true;
    return false;
}

bool session_uses_map(uint64_t map_id)
{
    return session_lists_map(atomic_load(&session_state->self), map_id);
}

bool session_others_use_map(uint64_t map_id)
{
    unsigned count = session_peer_count();
    for (unsigned slot = 0; slot < count; slot++) {
        if (slot == session_state->slot)
            continue;
        struct session_file *file = session_peer(slot, false);
        bool may_use =
            file ? session_peer_counts(file) && session_lists_map(file, map_id) : session_peer_is_hidden(slot);
        if (may_use && session_peer_is_alive(slot))
            return true;
    }
    return false;
}
