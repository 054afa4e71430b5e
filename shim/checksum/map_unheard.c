/* See map_unheard.h. */
#include "checksum/map_unheard.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fnv.h"
#include "base/raw.h"
#include "checksum/store.h"

static int64_t byte_of(const char *name)
{
    return STORE_UNHEARD_BYTE(fnv_sum(name, strlen(name)));
}

static bool set_byte(int64_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int fd = store_lock_file();
    return fd >= 0 && !raw_failed(raw(SYS_fcntl, fd, F_OFD_SETLK, &lock));
}

/* A write beyond the program's RLIMIT_FSIZE would be a SIGXFSZ. */
static bool may_write_a_page(void)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    raw(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit);
    return limit.rlim_cur >= FORMAT_PAGE;
}

/*
 * By system calls: there may be no memory to map it. All flags are in one byte; one that is taken off meanwhile comes back, which is harmless.
 * @return whether nobody had said so yet.
 */
static bool mark(int fd, const struct map_key *key)
{
    struct map_header header;
    if (raw(SYS_pread64, fd, &header, sizeof header, 0) != (long)sizeof header ||
        header.identity_sum != map_identity_sum(&header.identity) || header.identity.version != FORMAT_VERSION ||
        header.bound_device != key->device || !may_write_a_page())
        return false;
    uint8_t flags = (uint8_t)(header.flags | MAP_CHANGED_OUTSIDE);
    return raw(SYS_pwrite64, fd, &flags, sizeof flags, offsetof(struct map_header, flags)) == (long)sizeof flags &&
           !(header.flags & MAP_CHANGED_OUTSIDE);
}

int64_t map_unheard_begin(const struct map_key *key, bool *first)
{
    *first = false;
    char name[MAP_NAME_BYTES];
    map_name(name, key);
    int64_t byte = byte_of(name);
    if (!set_byte(byte, F_RDLCK))
        return 0;
    int fd = store_open_map(name);
    if (fd >= 0) {
        *first = mark(fd, key);
        store_close_map(fd);
    }
    return byte;
}

void map_unheard_end(int64_t byte)
{
    set_byte(byte, F_UNLCK);
}

bool map_is_unheard(const struct map *map)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte_of(map->name), .l_len = 1};
    int fd = store_lock_file();
    if (fd < 0 || raw_failed(raw(SYS_fcntl, fd, F_OFD_GETLK, &lock)) || lock.l_type == F_UNLCK)
        return false;
    atomic_fetch_or(&map->header->flags, MAP_CHANGED_OUTSIDE);
    return true;
}
