/* A plugin as programs load them: RTLD_LOCAL, at any time, doing direct I/O of its own. Its calls look like any library's. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Write `length` bytes from `data` to a file of its own opening. @return bytes written, or -1. */
EXPORT ssize_t plugin_write(const char *path, const void *data, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    struct iovec vector = {(void *)(uintptr_t)data, length};
    ssize_t n = fd < 0 ? -1 : pwritev(fd, &vector, 1, 0);

    close(fd);
    return n;
}

/* Read `length` bytes into `data` from a descriptor of the program's. @return bytes read, or -1. */
EXPORT ssize_t plugin_read(int fd, void *data, size_t length)
{
    return pread(fd, data, length, 0);
}
