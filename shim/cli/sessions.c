/* See sessions.h. */
#include "cli/sessions.h"

#include <stdio.h>
#include <string.h>

#include "checksum/session_peers.h"
#include "checksum/store.h"

void sessions_look(void)
{
    store_boot_id(session_state->boot);
}

unsigned sessions_count(void)
{
    return session_peer_count();
}

struct session_file *sessions_live(unsigned slot)
{
    bool ours = atomic_load(&session_state->self) && slot == session_state->slot;
    struct session_file *session = ours ? NULL : session_peer(slot, false);
    return session && session_peer_counts(session) && session_peer_is_alive(slot) ? session : NULL;
}

unsigned sessions_requests(const struct session_file *session, uint64_t map_id)
{
    unsigned requests = (unsigned)atomic_load(&session->flights_beyond);
    uint64_t high = atomic_load(&session->flights_high);
    for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
        if ((atomic_load(&session->flights[i].state) & 0xff) > FLIGHT_FILLING &&
            (map_id == 0 || atomic_load(&session->flights[i].map_id) == map_id))
            requests++;
    return requests;
}

unsigned sessions_users_of(uint64_t map_id, char text[USERS_TEXT])
{
    unsigned users = 0;
    size_t used = 0;
    text[0] = '\0';
    for (unsigned slot = 0; slot < sessions_count(); slot++) {
        const struct session_file *session = sessions_live(slot);
        if (!session || !session_lists_map(session, map_id))
            continue;
        int length = snprintf(text + used, USERS_TEXT - used, "%s%llu (%.15s)", users ? ", " : "",
                              (unsigned long long)atomic_load(&session->pid), session->command);
        if (length > 0 && used + (size_t)length < USERS_TEXT)
            used += (size_t)length;
        users++;
    }
    text[used] = '\0';
    return users;
}

bool boot_is_this_one(const _Atomic uint64_t boot[2])
{
    return atomic_load(&boot[0]) == session_state->boot[0] && atomic_load(&boot[1]) == session_state->boot[1];
}
