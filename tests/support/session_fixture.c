/* Sessions, peers and requests in flight for unit tests. */
#include "support/session_fixture.h"

#include "base/process.h"

void session_fixture_prepare(void)
{
    static struct map_fixture fixture;
    map_fixture_prepare(&fixture);
}

void session_fixture_open(void)
{
    session_fixture_prepare();
    ck_assert_int_eq(locked_session_open(), 0);
}

int locked_session_open(void)
{
    uint64_t saved;
    process_lock(&saved);
    int error = session_open();
    process_unlock(&saved);
    return error;
}

int enter(uint64_t first, uint64_t blocks, enum flight_kind kind)
{
    return flight_enter(MAP_ID, first, blocks, kind, TRANSPORT_BLOCKING);
}

bool others_over(uint64_t block, int self)
{
    return flight_others_over(MAP_ID, block, self, false);
}

bool session_open_and_pause(struct peer *peer, void *argument)
{
    (void)argument;
    ck_assert_int_eq(locked_session_open(), 0);
    peer_pause(peer);
    return true;
}

bool session_open_enter_and_die(struct peer *peer, void *argument)
{
    (void)peer;
    ck_assert_int_eq(locked_session_open(), 0);
    enter(10, 5, *(const enum flight_kind *)argument);
    return true;
}
