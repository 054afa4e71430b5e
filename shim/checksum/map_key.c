/*
 * Which inode a descriptor leads to. Owns nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/fnv.h"
#include "base/log.h"
#include "base/raw.h"
#include "bounce/pool.h"
#include "checksum/map.h"

/* Source: include/uapi/linux/fs.h, Linux 6.9; older headers do not have it. */
struct filesystem_uuid {
    uint8_t length;
    uint8_t uuid[16];
};
#define IOCTL_GET_FILESYSTEM_UUID _IOR(0x15, 0, struct filesystem_uuid)

enum { MAGIC_BTRFS = (int)0x9123683E }; /* include/uapi/linux/magic.h */

static bool read_uuid(int fd, uint8_t id[16])
{
    static const uint8_t none[16];
    struct filesystem_uuid uuid = {0};
    /* Images made by hand may have no UUID at all. */
    if (raw(SYS_ioctl, fd, IOCTL_GET_FILESYSTEM_UUID, &uuid) != 0 || uuid.length != sizeof uuid.uuid ||
        memcmp(uuid.uuid, none, sizeof none) == 0)
        return false;
    memcpy(id, uuid.uuid, sizeof uuid.uuid);
    return true;
}

static bool read_uuid_at(const char *path, uint64_t device, uint8_t id[16])
{
    struct stat status;
    long directory = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (raw_failed(directory))
        return false;
    bool found = fstat((int)directory, &status) == 0 && status.st_dev == device && read_uuid((int)directory, id);
    raw(SYS_close, directory);
    return found;
}

/* An O_PATH descriptor cannot be asked, but a directory above it can: the nearest that may be read. */
static bool read_uuid_above(int fd, uint64_t device, uint8_t id[16])
{
    struct extent page;
    char link[32];
    bool found = false;
    if (pool_take(&page, POOL_PAGE, false) != 0)
        return false;
    char *path = page.base;
    log_format(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = raw(SYS_readlinkat, AT_FDCWD, link, path, POOL_PAGE - 1);
    path[raw_failed(length) ? 0 : length] = '\0';
    for (char *slash = strrchr(path, '/'); slash && !found; slash = slash > path ? strrchr(path, '/') : NULL) {
        slash[slash == path ? 1 : 0] = '\0';
        found = read_uuid_at(path, device, id);
    }
    pool_give(&page);
    return found;
}

/*
 * btrfs: f_fsid is made of the UUID and the subvolume, and a file of a snapshot has the inode number and birth time of the original.
 */
static int filesystem_id(int fd, uint64_t device, uint8_t id[16])
{
    struct statfs status;
    long error = raw(SYS_fstatfs, fd, &status);
    if (raw_failed(error))
        return (int)error;
    long flags = raw(SYS_fcntl, fd, F_GETFL);
    bool is_path = !raw_failed(flags) && (flags & O_PATH);
    memset(id, 0, 16);
    if ((int)status.f_type != MAGIC_BTRFS && (is_path ? read_uuid_above(fd, device, id) : read_uuid(fd, id)))
        return 0;
    memcpy(id, &status.f_fsid, sizeof status.f_fsid);
    memcpy(id + 8, &status.f_type, sizeof status.f_type);
    return 0;
}

int map_filesystem_of(int directory, uint8_t id[16])
{
    return filesystem_id(directory, 0, id);
}

/*
 * Inode numbers are used again, on ext4 at once; birth times are those of the clock's tick, or not recorded at all (ext4 with inodes of
 * 128 bytes). But what a file system calls a file in a handle is never another file's: with the inode number goes a generation, on btrfs the
 * subvolume. Works for O_PATH as well. @return 0 when there are no handles (overlayfs, some containers): birth times must do.
 */
static uint64_t generation_of(int fd)
{
    struct {
        struct file_handle head;
        uint8_t bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount;
    if (raw(SYS_name_to_handle_at, fd, "", &handle, &mount, AT_EMPTY_PATH) != 0)
        return 0;
    return fnv_sum(handle.head.f_handle, handle.head.handle_bytes);
}

int map_key_of(int fd, struct map_key *key)
{
    struct statx status;
    long error = raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status);
    if (raw_failed(error))
        return (int)error;
    if ((status.stx_mode & 0170000) != 0100000)
        return -ENOTSUP;
    *key = (struct map_key){
        .inode = status.stx_ino,
        .device = makedev(status.stx_dev_major, status.stx_dev_minor),
        .generation = generation_of(fd),
        .modified = status.stx_mtime.tv_sec * INT64_C(1000000000) + status.stx_mtime.tv_nsec,
    };
    if (status.stx_mask & STATX_BTIME) {
        key->birth_seconds = status.stx_btime.tv_sec;
        key->birth_nanoseconds = status.stx_btime.tv_nsec;
    }
    return filesystem_id(fd, key->device, key->filesystem);
}
