/*
 * Waits that may be told of a completion, and the end of the process: see shadow.h.
 *
 * A handler of the program's may interrupt the pump and wait itself: the word of its thread tells, and the handler's wait pumps nothing; the
 * one it has interrupted goes on where it was. A handler that jumps out of it clears the word on its way (engine/active.h).
 */
#include "rings/shadow.h"

#include <errno.h>

#include "base/process.h"
#include "engine/active.h"
#include "engine/cancel.h"
#include "rings/aio.h"
#include "rings/uring.h"

_Atomic unsigned shadow_count;
_Atomic bool shadow_nested;

static _Thread_local volatile bool pumping __attribute__((tls_model("initial-exec")));

static void clean_up(void *cancel)
{
    pumping = false;
    cancel_leave(*(const struct cancel *)cancel);
}

/* Run `work` with errno kept, thread cancellation held off, and not inside itself. */
static void at_the_rings(void (*work)(void))
{
    if (pumping)
        return;
    int error = errno;
    struct cancel cancel = cancel_hold();
    struct active active;
    active_open(&active, clean_up, &cancel);
    pumping = true;
    work();
    pumping = false;
    active_close(&active);
    errno = error;
    cancel_restore(cancel);
}

static void pump_all(void)
{
    aio_pump_all();
    uring_pump_all();
}

void shadow_before_wait(void)
{
    at_the_rings(uring_sync_all);
}

void shadow_after_wait(void)
{
    at_the_rings(pump_all);
}

/* After the program's own exit handlers, which may still wait for something; before the report of the statistics (base/process.c). */
static __attribute__((destructor)) void end_with_the_program(void)
{
    if (!shadow_any() || !process_owns_tables())
        return;
    /* A handler that calls exit does not come back to what it has interrupted; the pump, for one, would be waited for. */
    active_leave(ACTIVE_EVERYTHING);
    aio_end();
    uring_end();
}
