/* What processes that ended have left in the store. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/session_peers.h"
#include "checksum/store.h"
#include "cli/gc.h"

/* Numbers of all maps there are. */
struct map_ids {
    uint64_t *id;
    size_t count;
};

static int compare(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return one < other ? -1 : one > other;
}

/* @return false when some map cannot be read: then no number can be said to be nobody's. */
static bool read_ids(struct map_ids *ids)
{
    char **names;
    int count = map_names(&names);
    bool whole = count >= 0;
    *ids = (struct map_ids){.id = calloc((size_t)(whole ? count : 0) + 1, sizeof *ids->id)};
    for (int i = 0; whole && ids->id && i < count; i++) {
        struct map_view view;
        if (!map_name_is_plain(names[i]))
            continue;
        int error = map_view_open(&view, names[i]);
        if (error == 0) {
            ids->id[ids->count++] = view.map.id;
            map_view_close(&view);
        }
        whole = error == 0 || error == -ENOENT;
    }
    if (count >= 0)
        map_names_free(names, count);
    if (ids->id)
        qsort(ids->id, ids->count, sizeof *ids->id, compare);
    return whole && ids->id;
}

/* Drop the requests on maps that are not there. The slot is seized: its entries are ours to leave. @return how many requests remain. */
static uint64_t drop_requests(struct gc *gc, struct session_file *session, const struct map_ids *ids)
{
    uint64_t remain = atomic_load(&session->flights_beyond), high = atomic_load(&session->flights_high);
    for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++) {
        struct flight *flight = &session->flights[i];
        uint64_t state = atomic_load(&flight->state), id = atomic_load(&flight->map_id);
        if ((state & 0xff) <= FLIGHT_FILLING)
            continue;
        if (!ids->id || bsearch(&id, ids->id, ids->count, sizeof id, compare)) {
            remain++;
            continue;
        }
        gc->requests_dropped++;
        if (gc->dry_run)
            remain++;
        else
            atomic_store(&flight->state, (state & ~UINT64_C(0xffff)) + FLIGHT_SEQUENCE);
    }
    return remain;
}

static bool has_requests(const struct session_file *session)
{
    uint64_t high = atomic_load(&session->flights_high);
    for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
        if ((atomic_load(&session->flights[i].state) & 0xff) > FLIGHT_FILLING)
            return true;
    return false;
}

/* The header stays, so that the file is still known for what it is; the tables are zero then, as they are for the next one who moves in. */
static void empty(struct gc *gc, unsigned slot)
{
    struct stat before, after;
    int fd = store_open_session(slot, false);
    if (fd < 0)
        return;
    if (fstat(fd, &before) == 0 && before.st_size > FORMAT_PAGE && before.st_blocks * 512 > FORMAT_PAGE) {
        off_t rest = before.st_size - FORMAT_PAGE;
        bool done = gc->dry_run || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FORMAT_PAGE, rest) == 0;
        gc->sessions_emptied += done;
        if (gc->dry_run)
            gc->bytes += (uint64_t)rest;
        else if (done && fstat(fd, &after) == 0 && after.st_blocks < before.st_blocks)
            gc->bytes += (uint64_t)(before.st_blocks - after.st_blocks) * 512;
    }
    close(fd);
}

static void look_at_slot(struct gc *gc, unsigned slot)
{
    struct session_file *session = session_peer(slot, false);
    if (!session)
        return;
    uint64_t remain = 0;
    bool is_of_another_boot = !session_peer_counts(session);
    if (!is_of_another_boot && (has_requests(session) || atomic_load(&session->flights_beyond))) {
        /* Read now that the slot is seized: it can know no map that was made later. */
        struct map_ids ids;
        if (!read_ids(&ids)) {
            free(ids.id);
            ids.id = NULL;
        }
        remain = drop_requests(gc, session, &ids);
        free(ids.id);
    }
    if (remain == 0)
        empty(gc, slot);
}

void gc_sessions(struct gc *gc)
{
    for (unsigned slot = 0; slot < session_peer_count(); slot++) {
        uint64_t saved;
        process_lock(&saved);
        bool seized = session_seize(slot);
        process_unlock(&saved);
        if (!seized)
            continue; /* alive */
        look_at_slot(gc, slot);
        process_lock(&saved);
        session_release(slot);
        process_unlock(&saved);
    }
}
