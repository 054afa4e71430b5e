/* A loop device for tests of block devices, over a file of memory that nobody else can see. */
#include "support.h"

#include "base/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ATTEMPTS = 16 };

/* Attach `backing` to a free device. @return its number, or -1. */
static int attach(int backing)
{
    struct loop_config config = {.fd = (uint32_t)backing, .block_size = SECTOR};
    long control = raw(SYS_openat, AT_FDCWD, "/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = -1;

    if (raw_failed(control))
        return -1;
    /* Another process may take the free device between the two calls. */
    for (int i = 0; i < ATTEMPTS && number < 0; i++) {
        char path[64];
        long free_number = raw(SYS_ioctl, control, LOOP_CTL_GET_FREE);

        if (raw_failed(free_number))
            break;
        snprintf(path, sizeof(path), "/dev/loop%ld", free_number);
        long device = raw(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);

        if (raw_failed(device))
            break;
        if (!raw_failed(raw(SYS_ioctl, device, LOOP_CONFIGURE, &config)))
            number = (int)free_number;
        raw(SYS_close, device);
    }
    raw(SYS_close, control);
    return number;
}

bool block_device_new(size_t bytes, char *path, size_t room)
{
    int backing = memfd_create("block device", MFD_CLOEXEC);
    int number = -1;

    if (backing >= 0 && ftruncate(backing, (off_t)bytes) == 0)
        number = attach(backing);
    if (backing >= 0)
        close(backing);
    if (number < 0)
        return false;
    snprintf(path, room, "/dev/loop%d", number);
    return true;
}

void block_device_free(const char *path)
{
    long device = raw(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);

    if (!raw_failed(device))
        raw(SYS_ioctl, device, LOOP_CLR_FD);
    raw(SYS_close, device);
}
