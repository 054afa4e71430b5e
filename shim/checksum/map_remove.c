/* See map_remove.h. */
#include "checksum/map_remove.h"

#include <errno.h>
#include <fcntl.h>

#include "base/raw.h"
#include "base/step.h"
#include "checksum/map_turn.h"
#include "checksum/session.h"
#include "checksum/store.h"

bool map_is_unfinished(int fd)
{
    struct map_header header = {.identity_sum = 0};
    const unsigned char *bytes = (const unsigned char *)&header;
    bool zero = !raw_failed(raw(SYS_pread64, fd, &header, sizeof header, 0));
    for (size_t i = 0; i < sizeof header && zero; i++)
        zero = bytes[i] == 0;
    return zero;
}

int map_remove_unfinished(const char *name)
{
    const uint64_t no_id = 0;
    int maps = store_maps_directory();
    int error = maps < 0 ? maps : map_turn_try(no_id);
    if (error != 0)
        return error;
    long fd = raw(SYS_openat, maps, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    error = raw_failed(fd) ? (int)fd : map_is_unfinished((int)fd) ? 0 : -ESTALE;
    if (!raw_failed(fd))
        raw(SYS_close, fd);
    if (error == 0)
        error = (int)raw(SYS_unlinkat, maps, name, 0);
    map_turn_end(no_id);
    return error;
}

/* @return the id of the map that the name leads to, or 0. */
static uint64_t id_of(int maps, const char *name)
{
    struct map_identity identity;
    long fd = raw(SYS_openat, maps, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (raw_failed(fd))
        return 0;
    bool whole = raw(SYS_pread64, fd, &identity, sizeof identity, 0) == (long)sizeof identity;
    raw(SYS_close, fd);
    return whole ? identity.map_id : 0;
}

int map_remove(const char *name, uint64_t map_id)
{
    int maps = store_maps_directory();
    if (maps < 0)
        return maps;
    int error = map_turn_try(map_id);
    if (error != 0)
        return error;
    if (session_uses_map(map_id) || session_others_use_map(map_id)) {
        error = -EBUSY;
    } else if (id_of(maps, name) != map_id) {
        error = raw(SYS_faccessat, maps, name, 0 /* F_OK */) == -ENOENT ? -ENOENT : -ESTALE;
    } else {
        STEP("remove map");
        error = (int)raw(SYS_unlinkat, maps, name, 0);
    }
    map_turn_end(map_id);
    return error;
}
