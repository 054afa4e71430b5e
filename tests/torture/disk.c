/*
 * The disk's server: one process, one request at a time, under a lock that disk_cut takes to look at an instant.
 */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "torture/control.h"

enum {
    DISK_NODE = 2,
    LONGEST_WRITE = 1 << 20,
    REQUEST_MAX = LONGEST_WRITE + 8192,
    WRITES_APART = 64, /* sectors that survive or are lost together, at most */
};

/* Source: include/uapi/linux/fs.h, which cannot be included: it defines BLOCK_SIZE. */
#define IOCTL_CLONE _IOW(0x94, 9, int)

/* Shared by the server and the process that cuts. */
struct disk {
    pthread_mutex_t lock; /* an instant */
    char directory[512];
    uint64_t bytes;
    unsigned sector;
    int image; /* flushed sectors */
    int fuse;
    pid_t server;
    unsigned char *cache;   /* unflushed sectors, at their place */
    unsigned char *pending; /* 1 for each of them */
};

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        support_die("no memory for a disk");
    return memory;
}

/* --- The medium --------------------------------------------------------------------------------------------------- */

static int read_sectors(const struct disk *disk, unsigned char *data, uint64_t offset, size_t length)
{
    if (offset + length > disk->bytes || pread(disk->image, data, length, (off_t)offset) != (ssize_t)length)
        return -EIO;
    for (size_t at = 0; at < length; at += disk->sector)
        if (disk->pending[(offset + at) / disk->sector])
            memcpy(data + at, disk->cache + offset + at, disk->sector);
    return 0;
}

static int write_sectors(struct disk *disk, const unsigned char *data, uint64_t offset, size_t length)
{
    if (offset + length > disk->bytes || offset % disk->sector != 0 || length % disk->sector != 0)
        return -EIO;
    memcpy(disk->cache + offset, data, length);
    memset(disk->pending + offset / disk->sector, 1, length / disk->sector);
    return 0;
}

/* Write pending sectors [first, end) to `fd`. */
static void put_sectors(const struct disk *disk, int fd, uint64_t first, uint64_t end)
{
    size_t length = (end - first) * disk->sector;
    uint64_t offset = first * disk->sector;

    if (pwrite(fd, disk->cache + offset, length, (off_t)offset) != (ssize_t)length)
        support_die("the disk's image is full");
}

/* Call put for each run of pending sectors, `longest` at most. */
static void each_run(struct disk *disk, uint64_t longest, void (*put)(struct disk *, uint64_t, uint64_t, void *),
                     void *argument)
{
    uint64_t sectors = disk->bytes / disk->sector, end;
    const unsigned char *found;

    for (uint64_t at = 0; at < sectors && (found = memchr(disk->pending + at, 1, sectors - at)); at = end) {
        uint64_t first = (uint64_t)(found - disk->pending);

        for (end = first; end < sectors && disk->pending[end] && end - first < longest; end++)
            ;
        put(disk, first, end, argument);
    }
}

static void flush_run(struct disk *disk, uint64_t first, uint64_t end, void *argument)
{
    (void)argument;
    put_sectors(disk, disk->image, first, end);
    memset(disk->pending + first, 0, end - first);
}

/* --- The server --------------------------------------------------------------------------------------------------- */

static void answer(const struct disk *disk, uint64_t unique, int error, const void *data, size_t length)
{
    struct fuse_out_header header = {
        .unique = unique, .error = error, .len = (uint32_t)(sizeof(header) + (error ? 0 : length))};
    struct iovec parts[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)data, error ? 0 : length}};

    if (writev(disk->fuse, parts, 2) < 0 && errno != ENOENT && errno != ENODEV)
        support_die("the disk cannot answer");
}

static struct fuse_attr attributes(const struct disk *disk, uint64_t node)
{
    bool file = node == DISK_NODE;

    return (struct fuse_attr){.ino = node,
                              .size = file ? disk->bytes : 0,
                              .blocks = file ? disk->bytes / 512 : 0,
                              .mode = file ? S_IFREG | 0600 : S_IFDIR | 0700,
                              .nlink = 1,
                              .blksize = BLOCK};
}

static void answer_start(const struct disk *disk, const struct fuse_in_header *request, const struct fuse_init_in *init)
{
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = init->minor < FUSE_KERNEL_MINOR_VERSION ? init->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = init->max_readahead,
        .flags = init->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_DIO),
        .max_background = 16,
        .congestion_threshold = 12,
        .max_write = LONGEST_WRITE,
        .max_pages = LONGEST_WRITE / BLOCK,
        .time_gran = 1};

    answer(disk, request->unique, 0, &out, sizeof(out));
}

static void answer_read(const struct disk *disk, const struct fuse_in_header *request, const struct fuse_read_in *in)
{
    static unsigned char data[LONGEST_WRITE];
    bool good = in->size <= sizeof(data) && in->offset % disk->sector == 0 && in->size % disk->sector == 0;

    answer(disk, request->unique, good ? read_sectors(disk, data, in->offset, in->size) : -EIO, data, in->size);
}

static void answer_write(struct disk *disk, const struct fuse_in_header *request, const struct fuse_write_in *in)
{
    struct fuse_write_out out = {.size = in->size};

    answer(disk, request->unique, write_sectors(disk, (const unsigned char *)(in + 1), in->offset, in->size), &out,
           sizeof(out));
}

static void serve(struct disk *disk, const struct fuse_in_header *request)
{
    const void *body = request + 1;
    struct fuse_entry_out entry = {
        .nodeid = DISK_NODE, .attr_valid = 3600, .entry_valid = 3600, .attr = attributes(disk, DISK_NODE)};
    struct fuse_attr_out attr = {.attr_valid = 3600, .attr = attributes(disk, request->nodeid)};
    struct fuse_open_out opened = {.open_flags = FOPEN_DIRECT_IO};

    switch (request->opcode) {
    case FUSE_INIT:
        return answer_start(disk, request, body);
    case FUSE_LOOKUP:
        return answer(disk, request->unique, strcmp(body, "disk") == 0 ? 0 : -ENOENT, &entry, sizeof(entry));
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        return answer(disk, request->unique, 0, &attr, sizeof(attr));
    case FUSE_OPEN:
        return answer(disk, request->unique, 0, &opened, sizeof(opened));
    case FUSE_READ:
        return answer_read(disk, request, body);
    case FUSE_WRITE:
        return answer_write(disk, request, body);
    case FUSE_FSYNC:
        each_run(disk, UINT64_MAX, flush_run, NULL);
        return answer(disk, request->unique, 0, NULL, 0);
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_ACCESS:
        return answer(disk, request->unique, 0, NULL, 0);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        return;
    default:
        return answer(disk, request->unique, -ENOSYS, NULL, 0);
    }
}

/* Until the mount is gone. */
static _Noreturn void run_server(struct disk *disk)
{
    static unsigned char request[REQUEST_MAX] __attribute__((aligned(8)));

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        ssize_t n = read(disk->fuse, request, sizeof(request));

        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (n < (ssize_t)sizeof(struct fuse_in_header))
            _exit(0);
        pthread_mutex_lock(&disk->lock);
        serve(disk, (const struct fuse_in_header *)request);
        pthread_mutex_unlock(&disk->lock);
    }
}

/* --- From outside ------------------------------------------------------------------------------------------------- */

struct disk *disk_new(const char *image, const char *directory, unsigned sector)
{
    struct disk *disk = shared_memory(sizeof(*disk));
    pthread_mutexattr_t attribute;
    char options[128];

    *disk = (struct disk){.sector = sector, .bytes = size_behind(image)};
    disk->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (disk->fuse < 0) {
        munmap(disk, sizeof(*disk));
        return NULL;
    }
    snprintf(disk->directory, sizeof(disk->directory), "%s", directory);
    disk->image = open(image, O_RDWR | O_CLOEXEC);
    disk->cache = shared_memory(disk->bytes);
    disk->pending = shared_memory(disk->bytes / sector);
    pthread_mutexattr_init(&attribute);
    pthread_mutexattr_setpshared(&attribute, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&disk->lock, &attribute);
    mkdir(directory, 0700);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", disk->fuse);
    if (disk->image < 0 || mount("bounceio-disk", directory, "fuse", MS_NOSUID | MS_NODEV, options) != 0)
        support_die("cannot mount a disk on %s", directory);
    fflush(NULL);
    pid_t server = fork();

    if (server < 0)
        support_die("cannot fork");
    if (server == 0)
        run_server(disk);
    disk->server = server;
    /* The server's alone: the mount must not outlive it. */
    close(disk->fuse);
    return disk;
}

struct survival {
    int fd;
    struct random *random;
    unsigned percent;
};

static void survive(struct disk *disk, uint64_t first, uint64_t end, void *argument)
{
    const struct survival *survival = argument;

    if (random_chance(survival->random, survival->percent))
        put_sectors(disk, survival->fd, first, end);
}

void disk_cut(struct disk *disk, const char *to, struct random *random)
{
    static const unsigned percents[] = {0, 10, 50, 90, 100};
    struct survival survival = {open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), random,
                                percents[random_below(random, 5)]};

    pthread_mutex_lock(&disk->lock);
    if (survival.fd < 0 || ioctl(survival.fd, IOCTL_CLONE, disk->image) != 0)
        support_die("cannot clone the disk's image");
    each_run(disk, 1 + random_below(random, WRITES_APART), survive, &survival);
    pthread_mutex_unlock(&disk->lock);
    close(survival.fd);
}

void disk_free(struct disk *disk)
{
    for (int i = 0; umount2(disk->directory, 0) != 0; i++) {
        if (i == 500)
            support_die("cannot unmount %s", disk->directory);
        sleep_us(10000);
    }
    kill(disk->server, SIGKILL);
    waitpid(disk->server, NULL, 0);
    close(disk->image);
    munmap(disk->pending, disk->bytes / disk->sector);
    munmap(disk->cache, disk->bytes);
    munmap(disk, sizeof(*disk));
}
