/* See removal.h. */
#include "cli/removal.h"

#include <errno.h>
#include <time.h>

#include "base/process.h"
#include "checksum/map_remove.h"
#include "checksum/session.h"
#include "cli/cli.h"

enum { TURNS = 100 }; /* ten milliseconds apart */

int removal_begin(void)
{
    int status = cli_open_store(false);
    if (status != CLI_CLEAN)
        return status;
    uint64_t saved;
    process_lock(&saved);
    int error = session_open();
    process_unlock(&saved);
    return error == 0 ? CLI_CLEAN : CLI_FAILED; /* the store has said why */
}

int removal_of_map(const char *name, uint64_t map_id)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int error = -EAGAIN;
    for (int turn = 0; error == -EAGAIN && turn < TURNS; turn++) {
        uint64_t saved;
        if (turn > 0)
            nanosleep(&pause, NULL);
        process_lock(&saved);
        error = map_remove(name, map_id);
        process_unlock(&saved);
    }
    return error;
}

int removal_of_unfinished(const char *name)
{
    uint64_t saved;
    process_lock(&saved);
    int error = map_remove_unfinished(name);
    process_unlock(&saved);
    return error;
}
