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

/* An O_PATH descriptor cannot be asked, but the directory it is in can. */
static bool read_uuid_of_directory(int fd, uint64_t device, uint8_t id[16])
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
    char *slash = strrchr(path, '/');
    if (slash) {
        slash[slash == path ? 1 : 0] = '\0';
        long directory = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat status;
        if (!raw_failed(directory)) {
            found = fstat((int)directory, &status) == 0 && status.st_dev == device && read_uuid((int)directory, id);
            raw(SYS_close, directory);
        }
    }
    pool_give(&page);
    return found;
}

static int filesystem_id(int fd, uint64_t device, uint8_t id[16])
{
    long flags = raw(SYS_fcntl, fd, F_GETFL);
    bool is_path = !raw_failed(flags) && (flags & O_PATH);
    memset(id, 0, 16);
    if (is_path ? read_uuid_of_directory(fd, device, id) : read_uuid(fd, id))
        return 0;
    struct statfs status;
    long error = raw(SYS_fstatfs, fd, &status);
    if (raw_failed(error))
        return (int)error;
    memcpy(id, &status.f_fsid, sizeof status.f_fsid);
    memcpy(id + 8, &status.f_type, sizeof status.f_type);
    return 0;
}

int map_filesystem_of(int directory, uint8_t id[16])
{
    return filesystem_id(directory, 0, id);
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
        .modified = status.stx_mtime.tv_sec * INT64_C(1000000000) + status.stx_mtime.tv_nsec,
    };
    if (status.stx_mask & STATX_BTIME) {
        key->birth_seconds = status.stx_btime.tv_sec;
        key->birth_nanoseconds = status.stx_btime.tv_nsec;
    }
    return filesystem_id(fd, key->device, key->filesystem);
}
