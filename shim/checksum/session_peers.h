/*
 * What session.c and flight.c share: this process's view of all sessions of the store.
 */
#ifndef BOUNCEIO_CHECKSUM_SESSION_PEERS_H
#define BOUNCEIO_CHECKSUM_SESSION_PEERS_H

#include <stdbool.h>

#include "checksum/session.h"

/* Wiped in a forked child, which opens a session of its own. */
struct session_state {
    _Atomic(struct session_file *) self; /* NULL: no session yet */
    unsigned slot;
    uint64_t boot[2];
    _Atomic(struct session_file *) peers[STORE_SLOTS]; /* mapped on first sight, for good */
};
extern struct session_state *session_state;

/* Slots [0, count) may be in use. */
unsigned session_peer_count(void);

/* The file of a slot; NULL when it cannot be mapped, or when `nowait` and it is not mapped yet. */
struct session_file *session_peer(unsigned slot, bool nowait);

/* Does a process hold the slot? True when that cannot be found out. */
bool session_peer_is_alive(unsigned slot);

/* Is the file of this boot? Requests of another boot cannot be in flight. */
bool session_peer_counts(const struct session_file *file);

#endif
