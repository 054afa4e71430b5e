/*
 * Sessions for unit tests: one of this process in a store of its own, those of peers beside it, and requests in flight in them.
 *
 * Linked with the shim's objects, so for unit tests only. What fails here ends the test.
 */
#ifndef BOUNCEIO_TESTS_SESSION_FIXTURE_H
#define BOUNCEIO_TESTS_SESSION_FIXTURE_H

#include "checksum/session.h"
#include "support/map_fixture.h"

/* Maps that requests are of and sessions use; there need not be any. */
enum { MAP_ID = 77, OTHER_MAP = 78 };

/* Make a fresh store, which nobody has opened; the same, and open this process's session. */
void session_fixture_prepare(void);
void session_fixture_open(void);

/* session_open, with the process lock. */
int locked_session_open(void);

/* flight_enter and flight_others_over, of MAP_ID. */
int enter(uint64_t first, uint64_t blocks, enum flight_kind kind);
bool others_over(uint64_t block, int self);

/* Bodies of peers that open a session and pause; and that end with a request over the blocks 10 to 14, of the kind that `argument` points to. */
bool session_open_and_pause(struct peer *peer, void *argument);
bool session_open_enter_and_die(struct peer *peer, void *argument);

#endif
