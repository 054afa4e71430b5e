/* Stalled disks, and one way to leave a write on its way to them. */
#include "support/stall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/sequence.h"
#include "support/support.h"

/* Source: include/uapi/linux/fs.h, which cannot be included: it defines BLOCK_SIZE. */
#define FREEZE _IOWR('X', 119, int)
#define THAW _IOWR('X', 120, int)

/* Nobody's group, so that no signal to the test reaches it: a frozen file system would stay so for good. */
static _Noreturn void guard(int wire, int fd)
{
    char byte;

    setsid();
    while (read(wire, &byte, 1) == -1 && errno == EINTR)
        ;
    ioctl(fd, THAW, 0);
    _exit(0);
}

bool stalled_disk_new(struct stalled_disk *disk, const char *kind, const char *base)
{
    char image[4300];
    int ends[2];

    snprintf(disk->outer, sizeof(disk->outer), "%s/outer", base);
    snprintf(disk->directory, sizeof(disk->directory), "%s/inner", base);
    snprintf(image, sizeof(image), "%s/image", disk->outer);
    if (!small_filesystem_mount("ext4", path_in(base, "outer image"), disk->outer, 512))
        return false;
    if (!small_filesystem_mount(kind, image, disk->directory, 320)) {
        filesystem_unmount(disk->outer);
        return false;
    }
    disk->outer_fd = open(disk->outer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->outer_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        support_die("cannot look after %s", disk->outer);
    fflush(NULL);
    disk->guardian = fork();
    if (disk->guardian == 0) {
        close(ends[0]);
        guard(ends[1], disk->outer_fd);
    }
    close(ends[1]);
    disk->wire = ends[0];
    return true;
}

/* The kernel closes the files of a ring some time after its process is gone. */
static void unmount_when_idle(const char *directory)
{
    for (int i = 0; umount2(directory, 0) != 0; i++) {
        if (errno != EBUSY || i == 5000)
            support_die("cannot unmount %s", directory);
        usleep(1000);
    }
}

void stalled_disk_free(struct stalled_disk *disk)
{
    close(disk->outer_fd);
    /* A child of the test may hold the wire as well. */
    shutdown(disk->wire, SHUT_RDWR);
    close(disk->wire);
    waitpid(disk->guardian, NULL, 0);
    unmount_when_idle(disk->directory);
    unmount_when_idle(disk->outer);
}

void disk_stall(struct stalled_disk *disk)
{
    if (ioctl(disk->outer_fd, FREEZE, 0) != 0)
        support_die("cannot freeze %s", disk->outer);
}

void disk_go_on(struct stalled_disk *disk)
{
    if (ioctl(disk->outer_fd, THAW, 0) != 0)
        support_die("cannot thaw %s", disk->outer);
}

/* "loop7": the device that is mounted on the directory. */
static bool device_of(const char *directory, char name[64])
{
    char line[8600], on[4300];
    FILE *mounts = fopen("/proc/self/mounts", "re");
    bool found = false;

    while (mounts && !found && fgets(line, sizeof(line), mounts))
        found = sscanf(line, "/dev/%63s %4299s", name, on) == 2 && strcmp(on, directory) == 0;
    if (mounts)
        fclose(mounts);
    return found;
}

unsigned disk_writes_under_way(const struct stalled_disk *disk)
{
    char name[64], path[128];
    unsigned reads = 0, writes = 0;

    if (!device_of(disk->directory, name))
        support_die("%s is not mounted", disk->directory);
    snprintf(path, sizeof(path), "/sys/block/%s/inflight", name);
    FILE *file = fopen(path, "re");

    if (!file || fscanf(file, "%u %u", &reads, &writes) != 2)
        support_die("cannot read %s", path);
    fclose(file);
    return writes;
}

bool uring_write(int fd, const void *data, size_t length, off_t offset)
{
    struct io_uring_params parameters = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);

    if (ring < 0)
        return false;
    size_t bytes = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    char *queue = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry =
        mmap(NULL, sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring, (off_t)IORING_OFF_SQES);

    if (queue == MAP_FAILED || entry == MAP_FAILED)
        support_die("cannot map a ring");
    *entry = (struct io_uring_sqe){
        .opcode = IORING_OP_WRITE, .fd = fd, .addr = (uintptr_t)data, .len = (unsigned)length, .off = (uint64_t)offset};
    ((unsigned *)(queue + parameters.sq_off.array))[0] = 0;
    /* Release: the entry is there before the kernel may look. */
    __atomic_store_n((unsigned *)(queue + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
    return syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) == 1;
}
