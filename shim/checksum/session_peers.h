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
    _Atomic bool settling;                             /* one settler in a process at a time */
    _Atomic(struct session_file *) peers[STORE_SLOTS]; /* mapped on first sight, for good */
};
extern struct session_state *session_state;

/* Slots [0, count) may be in use. */
unsigned session_peer_count(void);

/* The file of a slot; NULL when it cannot be mapped, or when `nowait` and it is not mapped yet. */
struct session_file *session_peer(unsigned slot, bool nowait);

/* Has the slot a file that cannot be mapped now: no number to open it by, no memory? What it says counts all the same. */
bool session_peer_is_hidden(unsigned slot);

/* Does a process hold the slot? True when that cannot be found out. */
bool session_peer_is_alive(unsigned slot);

/* Is the file of this boot? Requests of another boot cannot be in flight. */
bool session_peer_counts(const struct session_file *file);

/* Does the session use the map? */
bool session_lists_map(const struct session_file *file, uint64_t map_id);

/* An in-flight entry as it was at one moment. */
struct flight_seen {
    uint64_t state; /* the word that it was read under */
    enum flight_kind kind;
    enum flight_transport transport;
    uint64_t map_id, first, blocks;
    int64_t issued;
};

/* @return false when the entry is free, or being filled. */
bool flight_read(const struct flight *flight, struct flight_seen *seen);

/* Sessions known to be dead and kept from being taken over: a bit for each slot. */
struct flight_dead {
    uint64_t slots[STORE_SLOTS / 64];
    bool uring_is_over; /* no io_uring request of theirs can land any more */
};

/* flight_others_over, but for the requests of the dead that are over. */
bool flight_living_over(uint64_t map_id, uint64_t block, int self, const struct flight_dead *dead);

/* flight_writers_of, likewise. `dead` may be NULL. */
bool flight_living_writers_of(uint64_t map_id, int self, const struct flight_dead *dead);

/* Take the lock byte of a dead session's slot, so that nobody else settles it or moves in; and give it back. @return false when it is alive. */
bool session_seize(unsigned slot);
void session_release(unsigned slot);

#endif
