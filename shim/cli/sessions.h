/*
 * The sessions of the store, looked at from outside. The store must be open (cli_open_store); a session of our own is not needed.
 */
#ifndef BOUNCEIO_CLI_SESSIONS_H
#define BOUNCEIO_CLI_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "checksum/format.h"

/* Before the others: which boot this is. */
void sessions_look(void);

/* Slots [0, count) may be in use. */
unsigned sessions_count(void);

/* The session of a slot, if a process of this boot holds it, and it is not ours; else NULL. */
struct session_file *sessions_live(unsigned slot);

/* Its requests in flight. `map_id` 0: on any map. */
unsigned sessions_requests(const struct session_file *session, uint64_t map_id);

/* Who uses a map: "123 (qemu), 456 (fio)"; empty for nobody. @return how many */
enum { USERS_TEXT = 256 };
unsigned sessions_users_of(uint64_t map_id, char text[USERS_TEXT]);

/* Is it the boot that runs now? */
bool boot_is_this_one(const _Atomic uint64_t boot[2]);

#endif
