/* See map_remove.h. */
#include "checksum/map_remove.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "base/raw.h"
#include "base/step.h"
#include "checksum/session.h"
#include "checksum/store.h"

enum { TURN_ATTEMPTS = 100 }; /* one millisecond apart */

static long lock_turn(uint64_t map_id, short type)
{
    struct flock byte = {.l_type = type, .l_whence = SEEK_SET, .l_start = STORE_MAP_BYTE(map_id), .l_len = 1};
    return raw(SYS_fcntl, store_lock_file(), F_OFD_SETLK, &byte);
}

int map_turn_take(uint64_t map_id, bool alone)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    for (int attempt = 0;; attempt++) {
        long error = lock_turn(map_id, alone ? F_WRLCK : F_RDLCK);
        if (error == -EACCES)
            error = -EAGAIN;
        if (error != -EAGAIN)
            return alone && raw_failed(error) ? (int)error : 0;
        if (alone || attempt == TURN_ATTEMPTS)
            return -EAGAIN;
        raw(SYS_nanosleep, &pause, NULL);
    }
}

void map_turn_end(uint64_t map_id)
{
    lock_turn(map_id, F_UNLCK);
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
    int error = map_turn_take(map_id, true);
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
