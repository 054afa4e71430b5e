/* See own_file.h. */
#include "base/own_file.h"

#include <stddef.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/raw.h"

int own_file_keep(struct own_file *file, int fd)
{
    struct stat status = {0};
    raw(SYS_fstat, fd, &status);
    file->device = status.st_dev;
    file->inode = status.st_ino;
    return own_take(fd, &file->fd);
}

int own_file_get(const struct own_file *file)
{
    struct stat status;
    /* Relaxed: the number is checked below, whatever it is. */
    int fd = atomic_load_explicit(&file->fd, memory_order_relaxed);
    if (fd < 0 || raw_failed(raw(SYS_fstat, fd, &status)))
        return -1;
    return status.st_dev == file->device && status.st_ino == file->inode ? fd : -1;
}
