/*
 * Opening the store. Owns three descriptors (maps directory twice, lock file) and one shared page.
 */
#include "checksum/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/config.h"
#include "base/log.h"
#include "base/own.h"
#include "base/own_file.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/guard.h"
#include "bounce/pool.h"
#include "checksum/mapping.h"

/* The descriptors survive fork; the mapping does not. */
static struct own_file maps_file = {.fd = -1};
static struct own_file lock_file = {.fd = -1};
/* The maps directory once more: a number to give up when the program has used all of its own. Process lock. */
static struct own_file spare = {.fd = -1};

/* Wiped in a forked child. */
static struct store_state {
    _Atomic(struct store_shared *) shared;
    bool failed;
} * state;

static void store_start(void)
{
    state = process_arena(sizeof *state);
}
PROCESS_INITIALISER(store_start);

void store_complain(const char *what, int error)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&said))
        return;
    const char *remedy = error == ENOSPC   ? "free some space"
                         : error == EFBIG  ? "raise the limit on file sizes, ulimit -f"
                         : error == EROFS  ? "point BOUNCEIO_STORE to a writable directory"
                         : error == EACCES ? "point BOUNCEIO_STORE to a directory of your own"
                         : error == EPERM  ? "it must belong to you and have mode 0700"
                         : error == EAGAIN ? "a process that uses it is stopped, or waits for its disk"
                         : error == ESTALE ? "a process removes its maps, or is stopped while it does"
                         : error == EIO    ? "see whether its file system is full or damaged, or its files were cut off"
                                           : "set BOUNCEIO_STORE";
    log_warn("store=\"%s\": %s: %s; pages are stable but not checksummed (%s, or BOUNCEIO_STORE=none to silence this)",
             config.store ? config.store : "", what, strerrorname_np(error) ? strerrorname_np(error) : "error", remedy);
}

/* Make `path` and what leads to it. */
static void make_directories(const char *path)
{
    struct extent page;
    size_t length = strlen(path);
    if (length >= POOL_PAGE || pool_take(&page, POOL_PAGE, false) != 0)
        return;
    char *part = memcpy(page.base, path, length + 1);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        raw(SYS_mkdirat, AT_FDCWD, part, 0755);
        *slash = '/';
    }
    raw(SYS_mkdirat, AT_FDCWD, part, 0700);
    pool_give(&page);
}

int store_allocate(int fd, uint64_t offset, uint64_t length)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    struct stat status;
    raw(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit);
    if (limit.rlim_cur != RLIM_INFINITY && offset + length > limit.rlim_cur)
        return -EFBIG;
    long result = raw(SYS_fallocate, fd, 0, offset, length);
    if (result != -EOPNOTSUPP)
        return (int)result;
    /* A file system without fallocate: make the file long enough, and let a full disk be a SIGBUS. */
    if (fstat(fd, &status) != 0 || (uint64_t)status.st_size >= offset + length)
        return 0;
    return (int)raw(SYS_ftruncate, fd, offset + length);
}

int store_allocate_zeros(int fd, uint64_t offset, uint64_t length)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -EIO;
    if (offset < (uint64_t)status.st_size) {
        long error = raw(SYS_fallocate, fd, FALLOC_FL_ZERO_RANGE, offset, length);
        if (error == -EOPNOTSUPP)
            error = raw(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
        if (raw_failed(error) && error != -EOPNOTSUPP)
            return (int)error;
    }
    return store_allocate(fd, offset, length);
}

static int check_ours(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -EIO;
    if (status.st_uid != (uid_t)raw(SYS_geteuid) || (status.st_mode & 077) != 0)
        return -EPERM;
    return 0;
}

/* @return a descriptor of the store's directory, or -errno. */
static int open_root(bool create)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    long fd = raw(SYS_openat, AT_FDCWD, config.store, flags);
    if (fd == -ENOENT && create) {
        make_directories(config.store);
        fd = raw(SYS_openat, AT_FDCWD, config.store, flags);
    }
    if (raw_failed(fd))
        return (int)fd;
    int error = check_ours((int)fd);
    if (error == 0)
        return (int)fd;
    raw(SYS_close, fd);
    return error;
}

static int open_parts(int root, bool create)
{
    if (create) {
        raw(SYS_mkdirat, root, "maps", 0700);
        raw(SYS_mkdirat, root, "sessions", 0700);
    }
    long maps = raw(SYS_openat, root, "maps", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (raw_failed(maps))
        return (int)maps;
    int error = check_ours((int)maps);
    if (error != 0) {
        raw(SYS_close, maps);
        return error;
    }
    error = own_file_keep(&maps_file, (int)maps);
    if (error != 0)
        return error;
    long lock = raw(SYS_openat, root, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (raw_failed(lock))
        return (int)lock;
    error = check_ours((int)lock);
    if (error == 0)
        error = store_allocate((int)lock, 0, FORMAT_PAGE);
    if (error != 0) {
        raw(SYS_close, lock);
        return error;
    }
    return own_file_keep(&lock_file, (int)lock);
}

/* Everybody who finds an empty page writes the same. By system calls: the guard may not be up yet. */
static int check_shared_page(int fd)
{
    struct store_shared page;
    static const struct store_shared fresh = {.magic = "BNCESTO", .version = FORMAT_VERSION};
    if (raw(SYS_pread64, fd, &page, sizeof page, 0) != (long)sizeof page)
        return -EIO;
    if (page.magic[0] == '\0') {
        const size_t constant = offsetof(struct store_shared, slots_high);
        return raw(SYS_pwrite64, fd, &fresh, constant, 0) == (long)constant ? 0 : -EIO;
    }
    return memcmp(page.magic, fresh.magic, sizeof page.magic) == 0 && page.version == FORMAT_VERSION &&
                   page.slots_high <= STORE_SLOTS
               ? 0
               : -EPROTONOSUPPORT;
}

static int map_shared_page(void)
{
    int error = check_shared_page(own_file_get(&lock_file));
    if (error != 0)
        return error;
    long page = mapping_make(own_file_get(&lock_file), 0, FORMAT_PAGE, NULL);
    if (raw_failed(page))
        return (int)page;
    /* Release: pairs with the acquire in store_shared. */
    atomic_store_explicit(&state->shared, (struct store_shared *)page, memory_order_release);
    return 0;
}

static void keep_spare(void)
{
    int maps = store_maps_directory();
    if (maps < 0 || own_file_get(&spare) >= 0)
        return;
    long fd = raw(SYS_fcntl, maps, F_DUPFD_CLOEXEC, maps);
    if (raw_failed(fd))
        return;
    spare.device = maps_file.device;
    spare.inode = maps_file.inode;
    own_keep((int)fd, &spare.fd);
}

int store_open_map(const char *name)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int maps = store_maps_directory();
    if (maps < 0)
        return maps;
    long fd = raw(SYS_openat, maps, name, flags);
    if (fd != -EMFILE || own_file_get(&spare) < 0)
        return (int)fd;
    own_close(&spare.fd);
    fd = raw(SYS_openat, maps, name, flags);
    if (raw_failed(fd))
        keep_spare();
    return (int)fd;
}

void store_close_map(int fd)
{
    raw(SYS_close, fd);
    keep_spare();
}

void store_drop_inherited(void)
{
    own_close(&spare.fd);
    own_close(&lock_file.fd);
    own_close(&maps_file.fd);
}

int store_open(bool create)
{
    if (atomic_load_explicit(&state->shared, memory_order_relaxed))
        return 0;
    if (state->failed)
        return -ENODEV;
    if (!config.store)
        return -ENOENT;
    store_drop_inherited(); /* a child made by a raw clone still has them */
    int root = open_root(create);
    if (root == -ENOENT && !create)
        return -ENOENT;
    int error = root < 0 ? root : open_parts(root, create);
    if (error == -ENOENT && !create) {
        raw(SYS_close, root);
        return -ENOENT;
    }
    if (error == 0)
        error = map_shared_page();
    if (root >= 0)
        raw(SYS_close, root);
    if (error == 0)
        keep_spare();
    if (error != 0) {
        state->failed = true;
        store_complain("cannot open", -error);
    }
    return error;
}

bool store_prepare(void)
{
    if (!config.store)
        return false;
    if (!store_shared()) {
        uint64_t saved;
        process_lock(&saved);
        store_open(false);
        process_unlock(&saved);
    }
    if (!store_shared())
        return false;
    guard_install();
    return true;
}

struct store_shared *store_shared(void)
{
    /* Acquire: pairs with the release in map_shared_page. */
    return atomic_load_explicit(&state->shared, memory_order_acquire);
}

int store_maps_directory(void)
{
    int fd = own_file_get(&maps_file);
    return fd < 0 ? -EBADF : fd;
}

int store_lock_file(void)
{
    int fd = own_file_get(&lock_file);
    return fd < 0 ? -EBADF : fd;
}

int store_open_session(unsigned slot, bool create)
{
    char path[64];
    log_format(path, sizeof path, "../sessions/%u", slot);
    int maps = store_maps_directory();
    if (maps < 0)
        return maps;
    return (int)raw(SYS_openat, maps, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
}

static unsigned hex_digit(char c)
{
    return c >= '0' && c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10) & 15;
}

void store_boot_id(uint64_t boot[2])
{
    char text[64] = {0};
    const char *injected = getenv("BOUNCEIO_TEST_BOOT_ID");
    if (injected) {
        strncpy(text, injected, sizeof text - 1);
    } else {
        long fd = raw(SYS_openat, AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        if (!raw_failed(fd)) {
            raw(SYS_read, fd, text, sizeof text - 1);
            raw(SYS_close, fd);
        }
    }
    boot[0] = boot[1] = 0;
    unsigned digits = 0;
    for (const char *c = text; *c && digits < 32; c++) {
        if (*c == '-' || *c == '\n')
            continue;
        boot[digits / 16] = boot[digits / 16] << 4 | hex_digit(*c);
        digits++;
    }
}
