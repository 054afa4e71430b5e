/*
 * Files, read and changed by system calls that no wrapper sees: the part of a failing disk, or of the plain truth.
 */
#include "support.h"

#include "base/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

static int open_behind(const char *path, int flags)
{
    long fd = raw(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);

    if (raw_failed(fd)) {
        errno = (int)-fd;
        support_die("cannot open %s behind the shim", path);
    }
    return (int)fd;
}

static void checked(long result, const char *what, const char *path)
{
    if (!raw_failed(result))
        return;
    errno = (int)-result;
    support_die("cannot %s %s behind the shim", what, path);
}

static struct stat stat_behind(int fd, const char *path)
{
    struct stat st;

    checked(raw(SYS_fstat, fd, &st), "stat", path);
    return st;
}

static void pwrite_all(int fd, const void *data, size_t length, uint64_t offset, const char *path)
{
    const char *from = data;

    while (length) {
        long n = raw(SYS_pwrite64, fd, from, length, offset);

        checked(n, "write", path);
        from += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
}

void write_behind(const char *path, const void *data, size_t length, uint64_t offset)
{
    int fd = open_behind(path, O_RDWR);
    struct stat before = stat_behind(fd, path);
    struct timespec times[2] = {before.st_atim, before.st_mtim};

    pwrite_all(fd, data, length, offset, path);
    /* Before the times are restored: writing back may stamp the inode again. */
    checked(raw(SYS_fdatasync, fd), "flush", path);
    checked(raw(SYS_utimensat, fd, NULL, times, 0), "restore the times of", path);
    checked(raw(SYS_fsync, fd), "flush", path);
    raw(SYS_close, fd);
}

void truncate_behind(const char *path, uint64_t size)
{
    int fd = open_behind(path, O_RDWR);
    struct stat before = stat_behind(fd, path);
    struct timespec times[2] = {before.st_atim, before.st_mtim};

    checked(raw(SYS_ftruncate, fd, size), "truncate", path);
    checked(raw(SYS_utimensat, fd, NULL, times, 0), "restore the times of", path);
    checked(raw(SYS_fsync, fd), "flush", path);
    raw(SYS_close, fd);
}

void flip_bit_behind(const char *path, uint64_t offset, unsigned bit)
{
    unsigned char byte;

    if (read_behind(path, &byte, 1, offset) != 1)
        support_die("%s has no byte %llu to flip", path, (unsigned long long)offset);
    byte = (unsigned char)(byte ^ (1u << (bit % 8)));
    write_behind(path, &byte, 1, offset);
}

size_t read_behind(const char *path, void *data, size_t length, uint64_t offset)
{
    int fd = open_behind(path, O_RDONLY | O_NOATIME);
    size_t done = 0;

    while (done < length) {
        long n = raw(SYS_pread64, fd, (char *)data + done, length - done, offset + done);

        checked(n, "read", path);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    raw(SYS_close, fd);
    return done;
}

uint64_t size_behind(const char *path)
{
    int fd = open_behind(path, O_RDONLY);
    /* Not fstat, which says 0 for a block device. */
    long size = raw(SYS_lseek, fd, 0, SEEK_END);

    checked(size, "measure", path);
    raw(SYS_close, fd);
    return (uint64_t)size;
}

uint64_t hash_behind(const char *path)
{
    static _Thread_local unsigned char chunk[CHUNK];
    uint64_t hash = HASH_START;
    uint64_t offset = 0;
    size_t n;

    do {
        n = read_behind(path, chunk, sizeof(chunk), offset);
        hash = hash_bytes(hash, chunk, n);
        offset += n;
    } while (n == sizeof(chunk));
    return hash;
}

void make_file_behind(const char *path, uint64_t seed, size_t length)
{
    static _Thread_local unsigned char chunk[CHUNK];
    int fd = open_behind(path, O_RDWR | O_CREAT | O_TRUNC);

    for (size_t done = 0; done < length;) {
        size_t n = length - done < sizeof(chunk) ? length - done : sizeof(chunk);

        pattern_fill(chunk, n, seed, done);
        pwrite_all(fd, chunk, n, done, path);
        done += n;
    }
    checked(raw(SYS_fsync, fd), "flush", path);
    raw(SYS_close, fd);
}
