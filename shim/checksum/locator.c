/* See locator.h. */
#include "checksum/locator.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fnv.h"
#include "base/log.h"
#include "base/raw.h"
#include "bounce/pool.h"

uint64_t locator_handle_sum(const struct map_locator *locator)
{
    uint64_t kind = (uint64_t)(uint32_t)locator->handle_type << 32 | locator->handle_bytes;
    return fnv_sum(locator->handle, sizeof locator->handle) ^ kind;
}

static void note_handle(struct map_locator *locator, int fd)
{
    struct {
        struct file_handle head;
        uint8_t bytes[LOCATOR_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = LOCATOR_HANDLE_BYTES}};
    int mount;
    struct map_locator now = {.handle_bytes = 0};
    if (raw(SYS_name_to_handle_at, fd, "", &handle, &mount, AT_EMPTY_PATH) != 0)
        return; /* a file system without handles */
    now.handle_bytes = handle.head.handle_bytes;
    now.handle_type = handle.head.handle_type;
    memcpy(now.handle, handle.bytes, sizeof now.handle); /* zeros beyond what was filled in */
    now.handle_sum = locator_handle_sum(&now);
    const size_t length = offsetof(struct map_locator, path);
    if (memcmp(locator, &now, length) != 0)
        memcpy(locator, &now, length);
}

/* A deleted name does not, nor does what /proc makes up for a file that was opened by its handle. */
static bool leads_to(const char *path, const struct stat *file)
{
    struct stat status;
    return raw(SYS_newfstatat, AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_dev == file->st_dev &&
           status.st_ino == file->st_ino;
}

static void note_path(struct map_locator *locator, int fd, const struct stat *file)
{
    struct extent page;
    char link[32];
    if (pool_take(&page, POOL_PAGE, false) != 0)
        return;
    char *path = page.base;
    log_format(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = raw(SYS_readlinkat, AT_FDCWD, link, path, POOL_PAGE - 1);
    if (length > 0 && length < LOCATOR_PATH_BYTES && path[0] == '/') {
        path[length] = '\0';
        if (strcmp(path, locator->path) != 0 && leads_to(path, file))
            memcpy(locator->path, path, (size_t)length + 1);
    }
    pool_give(&page);
}

void locator_note(const struct map *map, int fd)
{
    struct stat status;
    if (!map_is_usable(map) || fstat(fd, &status) != 0)
        return;
    struct map_locator *locator = map_locator(map);
    note_handle(locator, fd);
    if (status.st_nlink > 0)
        note_path(locator, fd, &status);
}
