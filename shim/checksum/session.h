/*
 * The session: this process's use of the store, and the tables of requests in flight of all sessions.
 *
 * A process holds one byte of the store's lock file for as long as it lives; a session whose byte can be locked is dead. Its
 * in-flight table is shared memory that other sessions look at when two requests meet on a block. An entry is live until its
 * owner leaves it, or, if the owner died, until it has been settled.
 *
 * flight_* functions are thread-safe, async-signal-safe, lock-free; they allocate nothing, but a look that meets a session
 * not seen before maps its file, unless told not to.
 */
#ifndef BOUNCEIO_CHECKSUM_SESSION_H
#define BOUNCEIO_CHECKSUM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "checksum/format.h"

/* Handle of an in-flight entry: its index, or FLIGHT_BEYOND when the table was full; FLIGHT_NONE: not entered. */
enum { FLIGHT_BEYOND = -1, FLIGHT_NONE = -2 };

/*
 * Open this process's session: the store, a slot, its file. Process lock held; idempotent.
 * @return 0, or -errno (said once by the store).
 */
int session_open(void);

/* Enter a request into the table, visible to everybody when this returns (sequentially consistent). Never fails. */
int flight_enter(uint64_t map_id, uint64_t first, uint64_t blocks, enum flight_kind kind,
                 enum flight_transport transport);

/*
 * The same; the handle is in *entry before anybody sees the request, for a clean-up that finds it there (FLIGHT_NONE until then), and in
 * *ticket what tells this use of the entry from the next. `now`: window_now(), or what it was a moment ago.
 */
void flight_enter_as(int *entry, uint64_t *ticket, uint64_t map_id, uint64_t first, uint64_t blocks,
                     enum flight_kind kind, enum flight_transport transport, int64_t now);
/* It is about to reach the kernel, at `now`: what it does to the file's mtime it does from here on. */
void flight_issue(int entry, int64_t now);
void flight_leave(int entry);

/* Leave, unless that has been done already. @return false when it had. (Beyond the table that cannot be told.) */
bool flight_leave_once(int entry, uint64_t ticket);

/*
 * Is another request than `self` over the block? `nowait`: a session that is not mapped yet counts as such a request.
 * Sequentially consistent with flight_enter.
 */
bool flight_others_over(uint64_t map_id, uint64_t block, int self, bool nowait);

/* Does a mutator's range cover the block? */
bool flight_mutator_covers(uint64_t map_id, uint64_t block, bool nowait);

/* Is any request at all over some block of the range? */
bool flight_any_in(uint64_t map_id, uint64_t first, uint64_t blocks);

/* Is any write or mutator of this map in flight, other than `self`? Then the time window of the last write is open-ended. */
bool flight_writers_of(uint64_t map_id, int self);

/* Register this session's use of a map, for gc, forget and the binding to a device. */
void session_use_map(uint64_t map_id);
void session_leave_map(uint64_t map_id);
bool session_others_live(void);
bool session_uses_map(uint64_t map_id);
bool session_others_use_map(uint64_t map_id);

#endif
