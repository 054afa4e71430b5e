/*
 * The end of a context: io_cancel, io_destroy, the end of the process. What is ours and in the kernel is reaped first: pages that were freed
 * earlier would put later contents on the file.
 */
#include <errno.h>

#include "base/process.h"
#include "base/raw.h"
#include "rings/aio.h"
#include "rings/aio_context.h"

/*
 * Waits of 20 ms. The limit is for requests that were given up by a jump out of io_submit, and which the kernel may never have taken: a device
 * that lets others wait longer costs them their checksums.
 */
enum { WAIT_MS = 20, IDLE_WAITS = 30 * 1000 / WAIT_MS };

/* Signals are held back: the kernel's io_destroy cannot be interrupted either. `put`: for those who still look into the shadow. */
static void reap_ours(struct aio *aio, bool put)
{
    static const struct timespec wait = {.tv_nsec = WAIT_MS * 1000000};
    struct io_event events[AIO_CHUNK];
    uint64_t saved;
    /* Acquire: pairs with the release of whoever finishes the last. */
    for (int idle = 0; atomic_load_explicit(&aio->ours, memory_order_acquire) > 0 && idle < IDLE_WAITS; idle++) {
        const long count = raw(SYS_io_getevents, aio->real, 1, AIO_CHUNK, events, &wait);
        int64_t over = 0;
        for (long i = 0; i < count; i++)
            aio_finish(aio, &events[i], &over);
        if (count > 0)
            idle = 0;
        if (count > 0 && put) {
            aio_take_turn(aio, &saved);
            aio_shadow_put(aio, events, (unsigned)count);
            aio_give_turn(aio, &saved);
        }
        if (count > 0)
            atomic_fetch_sub_explicit(&aio->in_kernel, (int32_t)count, memory_order_relaxed);
    }
}

static void lose(struct slot *slot, void *unused)
{
    (void)unused;
    if (slot->refusal == SLOT_NO_REFUSAL)
        request_lose(&slot->request);
    slot_give(slot);
}

/* What was submitted meanwhile, or given up: the kernel has waited for it, but its results are gone. */
static void lose_rest(struct aio *aio)
{
    static const struct timespec moment = {.tv_nsec = 1000000};
    /* Threads in io_submit are about to leave it; one that this has interrupted is not. */
    for (int i = 0; i < 1000 && atomic_load_explicit(&aio->submitters, memory_order_acquire) > 0; i++)
        raw(SYS_nanosleep, &moment, NULL);
    if (atomic_load_explicit(&aio->submitters, memory_order_acquire) == 0)
        slots_each(aio, lose, NULL);
}

long aio_destroy(aio_context_t context)
{
    struct aio *aio = aio_remove(context);
    uint64_t held, saved;
    if (!aio)
        return raw(SYS_io_destroy, context);
    process_hold_signals(&held);
    reap_ours(aio, false);
    aio_take_turn(aio, &saved);
    atomic_store_explicit(&aio->dead, true, memory_order_relaxed);
    aio_give_turn(aio, &saved);
    raw(SYS_io_destroy, aio->real);
    if (atomic_load_explicit(&aio->ours, memory_order_acquire) > 0)
        lose_rest(aio);
    aio_release(aio);
    process_release_signals(&held);
    return 0;
}

/*
 * Only what waits for something other than a disk can be cancelled, and that is never ours: the kernel, which knows ours by another address, says
 * of them what it says without us.
 */
long aio_cancel_iocb(aio_context_t context, struct iocb *iocb, struct io_event *result)
{
    struct aio *aio = aio_hold(context);
    const long answer = raw(SYS_io_cancel, aio ? aio->real : context, iocb, result);
    if (aio)
        aio_release(aio);
    return answer;
}

static void end(struct aio *aio)
{
    uint64_t held;
    process_hold_signals(&held);
    reap_ours(aio, true);
    process_release_signals(&held);
}

void aio_end(void)
{
    aio_each(end);
}
