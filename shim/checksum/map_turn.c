/* See map_turn.h. */
#include "checksum/map_turn.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "base/raw.h"
#include "checksum/store.h"

enum { ATTEMPTS = 100 }; /* one millisecond apart */

static int lock_turn(uint64_t map_id, short type)
{
    struct flock byte = {.l_type = type, .l_whence = SEEK_SET, .l_start = STORE_MAP_BYTE(map_id), .l_len = 1};
    long error = raw(SYS_fcntl, store_lock_file(), F_OFD_SETLK, &byte);
    return error == -EACCES ? -EAGAIN : (int)error;
}

static int take(uint64_t map_id, short type)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    int error = lock_turn(map_id, type);
    for (int attempt = 0; error == -EAGAIN && attempt < ATTEMPTS; attempt++) {
        raw(SYS_nanosleep, &pause, NULL);
        error = lock_turn(map_id, type);
    }
    return raw_failed(error) ? error : 0;
}

int map_turn_share(uint64_t map_id)
{
    return take(map_id, F_RDLCK);
}

int map_turn_alone(uint64_t map_id)
{
    return take(map_id, F_WRLCK);
}

int map_turn_try(uint64_t map_id)
{
    int error = lock_turn(map_id, F_WRLCK);
    return raw_failed(error) ? error : 0;
}

void map_turn_end(uint64_t map_id)
{
    lock_turn(map_id, F_UNLCK);
}
