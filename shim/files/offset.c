/*
 * The table of file offsets, in wiped memory. A free object has no references; objects are handed out under the process lock.
 */
#include "files/offset.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "base/process.h"
#include "base/raw.h"

static struct offset_table {
    uint32_t high;
    struct offset offsets[OFFSET_MAX];
} * table;
struct offset *offset_first;

/* Its address tells threads apart. */
static _Thread_local const char this_thread __attribute__((tls_model("initial-exec")));

/* Forks by the C library's fork. A fork by raw system call is not seen here, but offset_was_exclusive's caller compares. */
static _Atomic uint32_t forks;

static void count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void offset_start(void)
{
    table = process_arena(sizeof *table);
    offset_first = table->offsets;
    pthread_atfork(count_fork, NULL, NULL);
}
PROCESS_INITIALISER(offset_start);

uint32_t offset_index(const struct offset *offset)
{
    return (uint32_t)(offset - table->offsets);
}

struct offset *offset_new(void)
{
    struct offset *found = NULL;
    for (uint32_t i = 0; i < table->high && !found; i++)
        if (atomic_load(&table->offsets[i].references) == 0)
            found = &table->offsets[i];
    if (!found && table->high < OFFSET_MAX)
        found = &table->offsets[table->high++];
    if (!found)
        return NULL;
    atomic_fetch_add(&found->references, 1);
    atomic_store(&found->users, 0);
    atomic_store(&found->seekers, 0);
    atomic_store(&found->shared, false);
    found->forks = atomic_load(&forks);
    return found;
}

/*
 * The request that was there first believes that it is alone, and has announced the blocks at the offset it saw. Let it finish,
 * as the kernel's own lock on the file position would. It may have been abandoned (longjmp), so not for ever.
 */
static void wait_for_the_first(struct offset *offset)
{
    for (int round = 0; round < 10000 && atomic_load(&offset->users) > 1; round++) {
        struct timespec pause = {.tv_nsec = 100 * 1000};
        raw(SYS_nanosleep, &pause, NULL);
    }
}

/* In this order: an lseek that is missed as under way is over, or counts as one more. */
static void look_for_seeks(struct offset_use *use, struct offset *offset)
{
    use->seeks = atomic_load(&offset->seeks);
    use->seeking = atomic_load(&offset->seekers) > 0;
}

int offset_enter(struct offset_use *use, struct offset *offset, bool nowait)
{
    *use = (struct offset_use){0};
    if (!offset)
        return 0;
    if (nowait && atomic_load(&offset->users) > 0 && !atomic_load(&offset->shared))
        return -EAGAIN;
    look_for_seeks(use, offset);
    use->arrivals = atomic_fetch_add(&offset->arrivals, 1) + 1;
    bool alone = atomic_fetch_add(&offset->users, 1) == 0;
    atomic_signal_fence(memory_order_seq_cst);
    use->offset = offset;
    if (offset->forks != atomic_load(&forks))
        atomic_store(&offset->shared, true);
    if (alone)
        atomic_store(&offset->first, &this_thread);
    /* A signal handler must not wait for the request that it interrupted. */
    else if (!atomic_exchange(&offset->shared, true) && !nowait && atomic_load(&offset->first) != &this_thread)
        wait_for_the_first(offset);
    use->exclusive = alone && !atomic_load(&offset->shared);
    return 0;
}

void offset_share(struct offset_use *use, struct offset *offset)
{
    *use = (struct offset_use){0};
    if (!offset)
        return;
    look_for_seeks(use, offset);
    use->offset = offset;
    atomic_store(&offset->shared, true);
    use->arrivals = atomic_fetch_add(&offset->arrivals, 1) + 1;
}

void offset_enter_seek(struct offset_use *use, struct offset *offset)
{
    offset_enter(use, offset, false);
    if (!offset)
        return;
    atomic_fetch_add(&offset->seekers, 1);
    use->is_seek = true;
    atomic_fetch_add(&offset->seeks, 1);
}

void offset_leave(struct offset_use *use)
{
    struct offset *offset = use->offset;
    bool is_seek = use->is_seek;
    /* First: whoever jumps out of us must not leave it again. */
    use->offset = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    if (offset && is_seek)
        atomic_fetch_sub(&offset->seekers, 1);
    if (offset)
        atomic_fetch_sub(&offset->users, 1);
}

bool offset_was_exclusive(const struct offset_use *use)
{
    return use->exclusive && atomic_load(&use->offset->arrivals) == use->arrivals;
}

bool offset_was_sought(const struct offset_use *use)
{
    return use->offset && (use->seeking || atomic_load(&use->offset->seeks) != use->seeks);
}
