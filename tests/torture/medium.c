/* Images, loop devices and mounts. System calls throughout but for mkfs and chattr. */
#include "medium.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/sequence.h"
#include "torture/control.h"
#include "torture/disk.h"

enum { ATTEMPTS = 200, HOST_MEGABYTES = 8 << 10 };

/* Source: include/uapi/linux/fs.h, which cannot be included: it defines BLOCK_SIZE. */
#define IOCTL_CLONE _IOW(0x94, 9, int)
#define IOCTL_FIEMAP _IOWR('f', 11, struct fiemap)

/* A loop device over the image that goes with its last user. @return a descriptor of it; its path in `device`. */
static int attach(const char *image, bool sectors, char *device, size_t room)
{
    int backing = open(image, O_RDWR | O_CLOEXEC);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)backing, .block_size = sectors ? SECTOR : BLOCK};
    int fd = -1;

    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (sectors ? 0 : LO_FLAGS_DIRECT_IO);
    if (backing < 0 || control < 0)
        support_die("cannot attach %s to a loop device", image);
    /* Another process may take the free device between the two calls. */
    for (int i = 0; i < ATTEMPTS && fd < 0; i++) {
        snprintf(device, room, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
        fd = open(device, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) != 0) {
            close(fd);
            fd = -1;
            sleep_us(5000);
        }
    }
    close(backing);
    close(control);
    if (fd < 0)
        support_die("no loop device for %s", image);
    return fd;
}

static bool mount_image(const char *kind, bool sectors, const char *image, const char *directory, const char *options)
{
    char device[64];
    int fd = attach(image, sectors, device, sizeof(device));
    int result = mount(device, directory, strncmp(kind, "btrfs", 5) == 0 ? "btrfs" : kind, MS_NOATIME, options);
    int error = errno;

    close(fd);
    errno = error;
    return result == 0;
}

static void make_image(const char *kind, bool sectors, const char *image, unsigned megabytes)
{
    char mkfs[32];

    make_file_behind(image, 0, 0);
    if (truncate(image, (off_t)megabytes << 20) != 0)
        support_die("cannot make %s", image);
    snprintf(mkfs, sizeof(mkfs), "mkfs.%s", strncmp(kind, "btrfs", 5) == 0 ? "btrfs" : kind);
    const char *any[] = {mkfs, "-q", image, NULL};
    const char *large_xfs[] = {mkfs, "-q", "-s", "size=4096", image, NULL};
    const char *large_ext4[] = {mkfs, "-q", "-b", "4096", image, NULL};
    bool large = !sectors && strncmp(kind, "btrfs", 5) != 0;

    if (!system_command(!large ? any : strcmp(kind, "xfs") == 0 ? large_xfs : large_ext4))
        support_die("%s failed", mkfs);
}

bool media_open(struct media *media)
{
    const char *directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp";
    char image[MEDIUM_PATH];
    struct test_fs tmpfs;

    if (geteuid() != 0 || access("/dev/loop-control", W_OK) != 0 || !test_filesystem("tmpfs", &tmpfs)) {
        test_skip("power cuts need root, loop devices and a private mount namespace");
        return false;
    }
    if ((size_t)snprintf(media->root, sizeof(media->root), "%s", tmpfs.path) >= sizeof(media->root) - 32)
        support_die("%s is too long", tmpfs.path);
    snprintf(media->host, sizeof(media->host), "%s", path_in(media->root, "host"));
    snprintf(image, sizeof(image), "%s/bounceio-host.%d", directory, (int)getpid());
    make_image("xfs", false, image, HOST_MEGABYTES);
    mkdir(media->host, 0700);
    bool mounted = mount_image("xfs", false, image, media->host, "discard");

    unlink(image);
    if (!mounted)
        support_die("cannot mount %s", image);
    return true;
}

static void unmount(const char *directory)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        if (umount2(directory, 0) == 0)
            return;
        sleep_us(10000);
    }
    support_die("cannot unmount %s", directory);
}

void media_close(struct media *media)
{
    unmount(media->host);
}

void medium_new(struct medium *medium, const struct media *media, const char *name, const char *kind,
                unsigned megabytes, bool sectors, bool loses)
{
    medium->sectors = sectors;
    char disk_name[64];

    snprintf(disk_name, sizeof(disk_name), "%s-disk", name);
    snprintf(medium->kind, sizeof(medium->kind), "%s", kind);
    snprintf(medium->image, sizeof(medium->image), "%s", path_in(media->host, name));
    snprintf(medium->mounted, sizeof(medium->mounted), "%s", path_in(media->root, name));
    snprintf(medium->home, sizeof(medium->home), "%s", path_in(medium->mounted, "home"));
    make_image(kind, sectors, medium->image, megabytes);
    medium->disk = loses ? disk_new(medium->image, path_in(media->root, disk_name), sectors ? SECTOR : BLOCK) : NULL;
    mkdir(medium->mounted, 0700);
    if (!medium_mount(medium, medium->disk ? path_in(path_in(media->root, disk_name), "disk") : medium->image))
        support_die("cannot mount a new %s", kind);
    mkdir(medium->home, 0700);
    if (strcmp(kind, "btrfs-nocow") == 0)
        system_command((const char *const[]){"chattr", "+C", medium->home, NULL});
    int fd = open(medium->mounted, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || syncfs(fd) != 0)
        support_die("cannot sync a new %s", kind);
    close(fd);
}

void medium_clone(const struct medium *medium, const char *to, struct random *random)
{
    if (medium->disk) {
        disk_cut(medium->disk, to, random);
        return;
    }
    int from_fd = open(medium->image, O_RDONLY | O_CLOEXEC);
    int to_fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (from_fd < 0 || to_fd < 0 || ioctl(to_fd, IOCTL_CLONE, from_fd) != 0)
        support_die("cannot clone %s", medium->image);
    close(from_fd);
    close(to_fd);
}

void medium_unmount(struct medium *medium)
{
    unmount(medium->mounted);
    /* A clone is mounted without. */
    if (medium->disk)
        disk_free(medium->disk);
    medium->disk = NULL;
}

bool medium_mount(const struct medium *medium, const char *image)
{
    bool xfs = strcmp(medium->kind, "xfs") == 0;

    return mount_image(medium->kind, medium->sectors, image, medium->mounted, xfs ? "nouuid" : NULL);
}

void medium_remove(const char *image)
{
    unlink(image);
}

bool medium_address(const struct medium *medium, const char *path, uint64_t offset, uint64_t *address)
{
    union {
        struct fiemap map;
        char room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
    } ask = {.map = {.fm_start = offset, .fm_length = BLOCK, .fm_flags = FIEMAP_FLAG_SYNC, .fm_extent_count = 1}};
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    /* The addresses of btrfs are not those of its device. */
    if (strncmp(medium->kind, "btrfs", 5) == 0 || fd < 0 || ioctl(fd, IOCTL_FIEMAP, &ask) != 0 ||
        ask.map.fm_mapped_extents != 1) {
        close(fd);
        return false;
    }
    close(fd);
    const struct fiemap_extent *extent = &ask.map.fm_extents[0];
    const uint32_t unusable = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNWRITTEN |
                              FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_ENCODED;

    if ((extent->fe_flags & unusable) || extent->fe_logical > offset)
        return false;
    *address = extent->fe_physical + (offset - extent->fe_logical);
    return true;
}
