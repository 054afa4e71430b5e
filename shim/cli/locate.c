/* See locate.h. */
#include "cli/locate.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "checksum/locator.h"

enum { MAGIC_BTRFS = (int)0x9123683E };

/* ---- Mounts ---- */

struct mount {
    int directory; /* open for reading: open_by_handle_at wants that */
    dev_t device;
    uint8_t filesystem[16];
    bool many_roots; /* btrfs */
};

static struct mount *mounts;
static size_t mount_count;

/* Opening these blocks, or mounts something, or leads to no file that could have a map. */
static bool is_of_no_interest(const char *type)
{
    static const char *const types[] = {"autofs",  "proc",   "sysfs",   "cgroup",      "cgroup2", "devpts",
                                        "debugfs", "mqueue", "tracefs", "binfmt_misc", "bpf",     "securityfs"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

static bool look_at_mount(struct mount *mount, const char *path)
{
    struct stat status;
    struct statfs kind;
    mount->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    if (mount->directory < 0)
        return false;
    if (fstat(mount->directory, &status) == 0 && fstatfs(mount->directory, &kind) == 0 &&
        map_filesystem_of(mount->directory, mount->filesystem) == 0) {
        mount->device = status.st_dev;
        mount->many_roots = (int)kind.f_type == MAGIC_BTRFS;
        return true;
    }
    close(mount->directory);
    return false;
}

static void learn_mounts(void)
{
    char line[8192];
    struct mntent entry;
    FILE *table = mounts ? NULL : setmntent("/proc/self/mounts", "re");
    size_t room = 0;
    while (table && getmntent_r(table, &entry, line, sizeof line)) {
        if (is_of_no_interest(entry.mnt_type))
            continue;
        if (mount_count == room) {
            struct mount *more = realloc(mounts, (room + 64) * sizeof *mounts);
            if (!more)
                break;
            mounts = more;
            room += 64;
        }
        mount_count += look_at_mount(&mounts[mount_count], entry.mnt_dir);
    }
    if (table)
        endmntent(table);
}

void locate_end(void)
{
    for (size_t i = 0; i < mount_count; i++)
        close(mounts[i].directory);
    free(mounts);
    mounts = NULL;
    mount_count = 0;
}

/* On btrfs the identity has the number of the subvolume in its second word: any mount of the file system will do. */
static bool is_same_filesystem(const struct mount *mount, const uint8_t filesystem[16])
{
    return memcmp(mount->filesystem, filesystem, mount->many_roots ? 4 : 8) == 0 &&
           memcmp(mount->filesystem + 8, filesystem + 8, 8) == 0;
}

/* ---- The file ---- */

/* By the name of its map, which holds all that tells inodes apart. */
static bool is_the_file(int fd, const struct map_view *view)
{
    struct map_key key;
    char name[MAP_NAME_BYTES];
    if (map_key_of(fd, &key) != 0)
        return false;
    map_name(name, &key);
    return strcmp(name, view->map.name) == 0;
}

static int open_by_path(const struct map_view *view)
{
    const char *path = map_view_path(view);
    int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;
    if (fd >= 0 && !is_the_file(fd, view)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* @return a descriptor, or -errno. */
static int open_by_handle(const struct map_view *view, const struct mount *mount)
{
    const struct map_locator *locator = map_locator(&view->map);
    struct {
        struct file_handle head;
        uint8_t bytes[LOCATOR_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = locator->handle_bytes, .handle_type = locator->handle_type}};
    memcpy(handle.head.f_handle, locator->handle, locator->handle_bytes);
    int fd = open_by_handle_at(mount->directory, &handle.head, O_PATH | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static bool has_handle(const struct map_view *view)
{
    const struct map_locator *locator = map_locator(&view->map);
    return locator->handle_bytes > 0 && locator->handle_bytes <= LOCATOR_HANDLE_BYTES &&
           locator->handle_sum == locator_handle_sum(locator);
}

static bool is_on(const char *directory, dev_t device, const struct mount *mount)
{
    uint8_t filesystem[16];
    if (device == mount->device || !mount->many_roots)
        return device == mount->device;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    bool same = fd >= 0 && map_filesystem_of(fd, filesystem) == 0 && is_same_filesystem(mount, filesystem);
    if (fd >= 0)
        close(fd);
    return same;
}

/* Is the place where the file was, or the nearest directory above it that is there, on the same mounted file system? */
static bool place_is_on(const struct map_view *view, const struct mount *mount)
{
    char path[LOCATOR_PATH_BYTES];
    const char *noted = map_view_path(view);
    struct stat status;
    if (!noted)
        return false;
    strcpy(path, noted);
    for (char *slash = strrchr(path, '/'); slash; slash = strrchr(path, '/')) {
        slash[slash == path ? 1 : 0] = '\0';
        if (stat(path, &status) == 0)
            return is_on(path, status.st_dev, mount);
        if ((errno != ENOENT && errno != ENOTDIR) || slash == path)
            return false;
    }
    return false;
}

/* ---- The verdict ---- */

static void undecided(struct located *located, const char *reason)
{
    if (located->where != FILE_GONE) {
        located->where = FILE_UNDECIDED;
        located->reason = reason;
    }
}

/* @return true when the file is found. */
static bool look_on_mount(const struct map_view *view, const struct mount *mount, struct located *located)
{
    int fd = open_by_handle(view, mount);
    if (fd >= 0 && is_the_file(fd, view)) {
        *located = (struct located){.where = FILE_ALIVE, .fd = fd, .by_handle = true};
        return true;
    }
    if (fd >= 0) {
        close(fd);
        undecided(located, "its file handle leads to another file");
    } else if (fd == -EPERM) {
        undecided(located, "only root may look for files by their handle");
    } else if (fd != -ESTALE) {
        undecided(located, "its file handle cannot be looked up");
    } else if (place_is_on(view, mount)) {
        located->where = FILE_GONE;
    } else {
        undecided(located, "it is not on this mount of its file system, and was last seen elsewhere");
    }
    return false;
}

void locate(const struct map_view *view, struct located *located)
{
    *located = (struct located){.where = FILE_ABSENT, .fd = open_by_path(view)};
    if (located->fd >= 0) {
        located->where = FILE_ALIVE;
        return;
    }
    learn_mounts();
    for (size_t i = 0; i < mount_count; i++) {
        if (!is_same_filesystem(&mounts[i], view->map.header->identity.filesystem))
            continue;
        if (!has_handle(view))
            undecided(located, "it is not where it was, and its file system has no file handles to find it by");
        else if (look_on_mount(view, &mounts[i], located))
            return;
    }
}
