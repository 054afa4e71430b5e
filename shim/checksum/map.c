/*
 * Opening, creating, checking and closing maps. Growth is in map_grow.c.
 */
#include "checksum/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "base/fnv.h"
#include "base/log.h"
#include "base/raw.h"
#include "base/step.h"
#include "checksum/map_grow.h"
#include "checksum/map_remove.h"
#include "checksum/map_turn.h"
#include "checksum/map_unheard.h"
#include "checksum/mapping.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/session_peers.h"
#include "checksum/settle.h"
#include "checksum/store.h"

/* Source: include/uapi/linux/fs.h and magic.h. */
#define IOCTL_GET_FLAGS _IOR('f', 1, long)
#define IOCTL_SET_FLAGS _IOW('f', 2, long)
enum { FLAG_NOCOW = 0x00800000, MAGIC_BTRFS = (int)0x9123683E };

enum { OPEN_ATTEMPTS = 10 }; /* each fails only if the map is removed at that very moment */

static const char map_magic[8] = "BNCEMAP";

void map_name(char name[MAP_NAME_BYTES], const struct map_key *key)
{
    size_t length = 0;
    for (int i = 0; i < 16; i++)
        length += log_format(name + length, MAP_NAME_BYTES - length, "%02x", key->filesystem[i]);
    log_format(name + length, MAP_NAME_BYTES - length, "-%llx-%llx.%x-%llx", (unsigned long long)key->inode,
               (unsigned long long)key->birth_seconds, key->birth_nanoseconds, (unsigned long long)key->generation);
}

void map_machine_id(uint8_t id[16])
{
    char text[32] = {0};
    memset(id, 0, 16);
    long fd = raw(SYS_openat, AT_FDCWD, "/etc/machine-id", O_RDONLY | O_CLOEXEC);
    if (raw_failed(fd))
        return;
    long length = raw(SYS_read, fd, text, sizeof text);
    raw(SYS_close, fd);
    for (long i = 0; i < length && i < 32; i++) {
        unsigned char c = (unsigned char)text[i];
        unsigned digit = c >= '0' && c <= '9' ? c - (unsigned)'0' : ((c | 32U) - 'a' + 10U) & 15;
        id[i / 2] = (uint8_t)((unsigned)id[i / 2] << 4 | digit);
    }
}

uint64_t map_identity_sum(const struct map_identity *identity)
{
    return fnv_sum(identity, sizeof *identity);
}

static void set_nocow(int fd)
{
    struct statfs status;
    long flags = 0;
    if (raw(SYS_fstatfs, fd, &status) != 0 || (int)status.f_type != MAGIC_BTRFS)
        return;
    if (raw(SYS_ioctl, fd, IOCTL_GET_FLAGS, &flags) == 0) {
        flags |= FLAG_NOCOW;
        raw(SYS_ioctl, fd, IOCTL_SET_FLAGS, &flags);
    }
}

/* The same, read once. Process lock held. */
static const uint8_t *this_machine(void)
{
    static uint8_t id[16];
    static bool known;
    if (!known)
        map_machine_id(id);
    known = true;
    return id;
}

static void fill_header(struct map_header *header, const struct map_key *key)
{
    *header = (struct map_header){.identity = {.version = FORMAT_VERSION,
                                               .block_size = BLOCK_SIZE,
                                               .inode = key->inode,
                                               .birth_seconds = key->birth_seconds,
                                               .birth_nanoseconds = key->birth_nanoseconds,
                                               .generation = key->generation}};
    struct map_identity *identity = &header->identity;
    memcpy(identity->magic, map_magic, sizeof map_magic);
    memcpy(identity->filesystem, key->filesystem, sizeof key->filesystem);
    memcpy(identity->machine, this_machine(), sizeof identity->machine);
    while (identity->map_id == 0)
        if (raw(SYS_getrandom, &identity->map_id, sizeof identity->map_id, 0) != sizeof identity->map_id)
            identity->map_id = key->inode ^ (uint64_t)key->modified ^ (uint64_t)raw(SYS_gettid) << 32;
    header->identity_sum = map_identity_sum(identity);
    header->boot[0] = session_state->boot[0];
    header->boot[1] = session_state->boot[1];
    header->bound_device = key->device;
    header->windows = 1;
    header->window_issue = header->window_completion = key->modified;
}

/* @return 0; -EEXIST when there is one of that name; another -errno. */
static long give_name(int maps, const char *temporary, const char *name)
{
    long result = raw(SYS_renameat2, maps, temporary, maps, name, RENAME_NOREPLACE);
    if (!raw_failed(result))
        return 0;
    if (result == -EINVAL || result == -ENOSYS) /* a file system that can only rename over what is there */
        result = raw(SYS_linkat, maps, temporary, maps, name, 0);
    raw(SYS_unlinkat, maps, temporary, 0);
    return result;
}

/*
 * Write header and first window's states under a temporary name, then rename: a map is there whole or not at all.
 * @return a descriptor; -EEXIST when somebody else was first; another -errno.
 */
static int create_file(int maps, const char *name, const struct map_key *key)
{
    char temporary[MAP_NAME_BYTES + 32];
    log_format(temporary, sizeof temporary, "%s.new.%d", name, (int)raw(SYS_gettid));
    long fd = raw(SYS_openat, maps, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd == -EEXIST) {
        raw(SYS_unlinkat, maps, temporary, 0);
        fd = raw(SYS_openat, maps, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (raw_failed(fd))
        return (int)fd;
    set_nocow((int)fd);

    struct map_header header;
    fill_header(&header, key);
    long result = store_allocate((int)fd, 0, 2 * FORMAT_PAGE);
    if (!raw_failed(result)) {
        result = raw(SYS_pwrite64, fd, &header, sizeof header, 0);
        result = result == (long)sizeof header ? 0 : raw_failed(result) ? result : -ENOSPC;
    }
    if (raw_failed(result))
        raw(SYS_unlinkat, maps, temporary, 0);
    else
        result = give_name(maps, temporary, name);
    if (raw_failed(result)) {
        raw(SYS_close, fd);
        return (int)result;
    }
    atomic_fetch_add(&store_shared()->map_generation, 1);
    return (int)fd;
}

enum header_state { HEADER_GOOD, HEADER_DAMAGED, HEADER_FOREIGN, HEADER_UNFINISHED, HEADER_UNREADABLE };

static enum header_state check_header(int fd, const struct map_key *key, struct stat *status)
{
    struct map_header header;
    /* The size after the header: another session may add a window in between. */
    long length = raw(SYS_pread64, fd, &header, sizeof header, 0);
    if (raw_failed(length) || fstat(fd, status) != 0)
        return HEADER_UNREADABLE;
    if (map_is_unfinished(fd))
        return HEADER_UNFINISHED;
    if (length != (long)sizeof header)
        return HEADER_DAMAGED;
    const struct map_identity *identity = &header.identity;
    if (memcmp(identity->magic, map_magic, sizeof map_magic) != 0 || identity->version != FORMAT_VERSION ||
        identity->block_size != BLOCK_SIZE || header.identity_sum != map_identity_sum(identity) ||
        identity->map_id == 0)
        return HEADER_DAMAGED;
    if (identity->inode != key->inode || identity->birth_seconds != key->birth_seconds ||
        identity->birth_nanoseconds != key->birth_nanoseconds || identity->generation != key->generation ||
        memcmp(identity->filesystem, key->filesystem, sizeof key->filesystem) != 0)
        return HEADER_DAMAGED;
    if (header.windows < 1 || header.windows > MAP_WINDOWS || status->st_size < 2 * FORMAT_PAGE)
        return HEADER_DAMAGED;
    unsigned last = (unsigned)header.windows - 1;
    if ((uint64_t)status->st_size < window_offset(last) + window_state_bytes(last))
        return HEADER_DAMAGED;
    return memcmp(this_machine(), identity->machine, sizeof identity->machine) == 0 ? HEADER_GOOD : HEADER_FOREIGN;
}

/* Put a damaged map out of the way, unless somebody might use it: what it says of itself is not to be believed. */
static int set_aside(int maps, const char *name)
{
    char bad[MAP_NAME_BYTES + 8];
    if (session_others_live()) {
        log_warn(
            "map \"%s\" is damaged or of a foreign version, and the store is in use: it is left as it is, pages of its "
            "file are stable but not checksummed",
            name);
        return -EBUSY;
    }
    log_format(bad, sizeof bad, "%s.bad", name);
    long result = raw(SYS_renameat2, maps, name, maps, bad, 0);
    log_warn("map \"%s\" is damaged or of a foreign version: set aside as \"%s\", every block is unknown again", name,
             bad);
    return (int)result;
}

static bool is_of_this_boot(const struct map_header *header)
{
    return atomic_load(&header->boot[0]) == session_state->boot[0] &&
           atomic_load(&header->boot[1]) == session_state->boot[1];
}

/* In the map's turn. All of it is synced before the header says that it was done. */
static int enter_boot_alone(struct map *map, int fd, int64_t modified)
{
    struct map_header *header = map->header;
    int error = region_enter_boot(map, fd, modified);
    if (error != 0)
        return error;
    atomic_store(&header->unsettled, 0);
    atomic_store(&header->settle_lock, 0);
    STEP("boot id");
    atomic_store(&header->boot[0], session_state->boot[0]);
    atomic_store(&header->boot[1], session_state->boot[1]);
    return (int)raw(SYS_msync, header, FORMAT_PAGE, MS_SYNC);
}

/* First session of another boot: what was in flight then is lost, and what was not flushed may be. @return 0 or -errno. */
static int enter_boot(struct map *map, int fd, int64_t modified)
{
    if (is_of_this_boot(map->header))
        return 0;
    int error = map_turn_alone(map->id);
    if (error != 0)
        return error;
    if (!is_of_this_boot(map->header))
        error = enter_boot_alone(map, fd, modified);
    map_turn_end(map->id);
    return error;
}

/*
 * Register our use of the map, which binds it to `device` if nobody else uses it. `ours`: our own session has the map open already, for a
 * look-alike inode. In the map's turn when it is bound to another one: after a restart of the machine all who open it want to bind it, and
 * must not take each other for users of that other device.
 */
static int use_on_device(const struct map *map, uint64_t device, bool ours)
{
    _Atomic uint64_t *bound = &map->header->bound_device;
    if (atomic_load(bound) == device) {
        session_use_map(map->id);
        return atomic_load(bound) == device ? 0 : -EBUSY;
    }
    int turn = map_turn_alone(map->id), error = turn;
    if (turn == 0 && atomic_load(bound) != device && (ours || session_others_use_map(map->id)))
        error = -EBUSY;
    if (error == 0)
        atomic_store(bound, device);
    session_use_map(map->id);
    if (turn == 0)
        map_turn_end(map->id);
    return error;
}

static int attach(struct map *map, int fd, const struct map_key *key)
{
    const uint64_t first_bytes = FORMAT_PAGE + window_bytes(0);
    long base = mapping_make(fd, 0, first_bytes, map);
    if (raw_failed(base))
        return (int)base;
    map->header = (struct map_header *)base;
    map->id = map->header->identity.map_id;
    atomic_store_explicit(&map->windows[0], (char *)base + FORMAT_PAGE, memory_order_release);
    bool ours = session_uses_map(map->id);
    int error = use_on_device(map, key->device, ours);
    if (error == -EBUSY) {
        log_warn("map \"%s\" is in use for the same inode on another mount (a snapshot?): "
                 "pages of this one are stable but not checksummed",
                 map->name);
        return error;
    }
    if (error == 0)
        error = enter_boot(map, fd, key->modified);
    if (error == 0)
        error = map_attach_windows(map, fd);
    if (error != 0)
        return error;
    atomic_store(&map->dirtied, region_any_dirty(map));
    atomic_store(&map->settle_due, settle_is_due(map));
    return 0;
}

static int remove_unfinished(const char *name)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    int error = map_remove_unfinished(name);
    if (error == 0)
        log_info("map \"%s\" was never finished before the machine stopped: begun anew", name);
    if (error == -EAGAIN)
        raw(SYS_nanosleep, &pause, NULL);
    return error == 0 ? -ENOENT : error == -EAGAIN ? -ESTALE : error;
}

/* @return a descriptor; -ENOENT, -ESTALE (look again), or another -errno. */
static int open_file(int maps, struct map *map, const struct map_key *key, struct stat *status)
{
    long fd = raw(SYS_openat, maps, map->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (raw_failed(fd))
        return (int)fd;
    if (fstat((int)fd, status) != 0 || !S_ISREG(status->st_mode)) {
        raw(SYS_close, fd);
        return -EINVAL;
    }
    enum header_state header = check_header((int)fd, key, status);
    if (header == HEADER_GOOD)
        return (int)fd;
    raw(SYS_close, fd);
    if (header == HEADER_UNREADABLE)
        return -EIO;
    if (header == HEADER_UNFINISHED)
        return remove_unfinished(map->name);
    if (header == HEADER_DAMAGED)
        return set_aside(maps, map->name) == 0 ? -ENOENT : -EINVAL;
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        log_warn(
            "map \"%s\" belongs to another machine: pages are stable but not checksummed (a store is for one host)",
            map->name);
    return -EXDEV;
}

/* Nobody is known to use the new map yet: it may be removed at once. @return as open_file, but -ESTALE then. */
static int open_new_file(int maps, struct map *map, const struct map_key *key, struct stat *status)
{
    int fd = create_file(maps, map->name, key);
    STEP("open new map");
    if (fd == -EEXIST) {
        fd = open_file(maps, map, key, status);
        return fd == -ENOENT ? -ESTALE : fd;
    }
    if (fd >= 0 && fstat(fd, status) != 0) {
        raw(SYS_close, fd);
        return -EIO;
    }
    return fd;
}

bool map_exists(const struct map_key *key)
{
    char name[MAP_NAME_BYTES];
    if (store_open(false) != 0 || mapping_store_failed())
        return false;
    int maps = store_maps_directory();
    map_name(name, key);
    return maps >= 0 && raw(SYS_faccessat, maps, name, 0 /* F_OK */) == 0;
}

static bool still_has_its_name(int maps, const struct map *map)
{
    struct stat status;
    return fstatat(maps, map->name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_dev == map->file_device &&
           status.st_ino == map->file_inode;
}

/* Now that our use of it is known, nobody removes it any more; has it been removed before? See map_remove.h. */
static int check_in(int maps, const struct map *map)
{
    STEP("check in");
    int error = map_turn_share(map->id);
    if (error != 0)
        return error;
    error = still_has_its_name(maps, map) ? 0 : -ESTALE;
    map_turn_end(map->id);
    return error;
}

static int open_once(struct map *map, const struct map_key *key, bool create)
{
    int maps = store_maps_directory();
    if (maps < 0) {
        store_complain("it can no longer be reached", EIO);
        return maps;
    }
    map_name(map->name, key);
    struct stat status = {0};
    int fd = open_file(maps, map, key, &status);
    if (fd == -ENOENT && create)
        fd = open_new_file(maps, map, key, &status);
    if (fd < 0) {
        if ((create || fd != -ENOENT) && fd != -EXDEV && fd != -ESTALE)
            store_complain("cannot open a map", -fd);
        memset(map, 0, sizeof *map);
        return fd;
    }
    map->file_device = status.st_dev;
    map->file_inode = status.st_ino;
    STEP("use map");
    int error = attach(map, fd, key);
    raw(SYS_close, fd);
    if (error == 0)
        error = check_in(maps, map);
    if (error == 0 && (!map_is_usable(map) || mapping_store_failed()))
        error = -EIO;
    if (error == 0)
        map_is_unheard(map);
    /* What this process writes from now on is announced nowhere: those who have the map must not take it for damage. */
    if (error != 0 && error != -ESTALE && error != -EBUSY && map->header)
        map_break(map, error);
    if (error != 0)
        map_close(map, false);
    return error;
}

int map_open(struct map *map, const struct map_key *key, bool create)
{
    if (!create && !map_exists(key))
        return -ENOENT;
    int error = session_open();
    if (error != 0)
        return error;
    error = -ESTALE;
    for (int attempt = 0; error == -ESTALE && attempt < OPEN_ATTEMPTS; attempt++)
        error = open_once(map, key, create);
    if (error == -ESTALE)
        store_complain("cannot open a map", ESTALE);
    return error;
}

void map_break(struct map *map, int error)
{
    atomic_store(&map->broken, true);
    atomic_fetch_or(&map->header->flags, MAP_CHANGED_OUTSIDE);
    store_complain("cannot keep a map", -error);
}

void map_close(struct map *map, bool gone)
{
    if (map->header) {
        map_detach_windows(map);
        mapping_unmake(map->header, FORMAT_PAGE + window_bytes(0));
        session_leave_map(map->id);
        if (gone)
            map_remove(map->name, map->id);
    }
    memset(map, 0, sizeof *map);
}
