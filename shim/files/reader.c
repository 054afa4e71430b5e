/*
 * READERS slots, found by (device, inode). A slot is filled under the process lock, and read without it: its descriptor is stored last.
 */
#include "files/reader.h"

#include <errno.h>
#include <fcntl.h>

#include "base/log.h"
#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"

static struct reader {
    _Atomic uint64_t device, inode;
    _Atomic int fd; /* 0 or less: free */
} readers[READERS];

static struct reader *find(const struct file *file)
{
    for (int i = 0; i < READERS; i++) {
        struct reader *reader = &readers[i];
        /* Acquire: pairs with the store in own_keep, after device and inode. */
        if (atomic_load_explicit(&reader->fd, memory_order_acquire) > 0 &&
            atomic_load_explicit(&reader->inode, memory_order_relaxed) == file->inode &&
            atomic_load_explicit(&reader->device, memory_order_relaxed) == file->device)
            return reader;
    }
    return NULL;
}

static int open_reader(const struct file *file, int fd)
{
    char path[32];
    struct reader *reader = NULL;
    for (int i = 0; i < READERS && !reader; i++)
        if (atomic_load(&readers[i].fd) <= 0)
            reader = &readers[i];
    if (!reader)
        return -EMFILE;
    log_format(path, sizeof path, "/proc/self/fd/%d", fd);
    long opened = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (raw_failed(opened))
        return (int)opened;
    /* The number may have been closed and used again. */
    if (!file_is_behind(file, (int)opened)) {
        raw(SYS_close, opened);
        return -EBADF;
    }
    atomic_store(&reader->device, file->device);
    atomic_store(&reader->inode, file->inode);
    /* Not raised to a high number: that would close the low one. */
    int error = own_keep((int)opened, &reader->fd);
    return error != 0 ? error : atomic_load(&reader->fd);
}

int reader_of(const struct file *file, int fd)
{
    struct reader *reader = find(file);
    if (reader)
        return atomic_load(&reader->fd);
    uint64_t saved;
    process_lock(&saved);
    reader = find(file);
    int result = reader ? atomic_load(&reader->fd) : open_reader(file, fd);
    process_unlock(&saved);
    return result;
}

void reader_close(const struct file *file)
{
    struct reader *reader = find(file);
    if (reader)
        own_close(&reader->fd);
}
