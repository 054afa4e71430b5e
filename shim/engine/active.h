/*
 * Requests under way in this thread: what is held by calls that a signal handler of the program's may jump out of.
 *
 * A handler that has interrupted us can leave by longjmp, setcontext or pthread_exit. By then the system call is over, for a handler runs
 * at its end; but pages, references and in-flight entries stay where they are, for ever. So each holder of such things puts a record of
 * its own stack frame on this list, and the wrappers of those calls run the clean-ups of the records that the jump leaves.
 *
 * A handler may come between any two instructions. So in-flight entries carry a ticket, which tells whether they have been left; what is
 * else held is disowned before it is given back (atomic_signal_fence keeps the compiler to that): at worst it leaks, never is it given back
 * twice.
 * What the jump has left is as a dead session's (MAP.md §9): blocks become unknown, and their pending words are orphans that the next writer
 * takes over; nothing is counted down that might have been counted down already.
 */
#ifndef BOUNCEIO_ENGINE_ACTIVE_H
#define BOUNCEIO_ENGINE_ACTIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bounce/pool.h"
#include "files/offset.h"

struct active {
    struct active *outer;
    void (*clean_up)(void *argument); /* async-signal-safe */
    void *argument;
};

extern _Thread_local struct active *active_top __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* From here on `clean_up(argument)` is run when a jump leaves the frame that `active` lies in. Innermost first. */
static inline void active_open(struct active *active, void (*clean_up)(void *argument), void *argument)
{
    *active = (struct active){.outer = active_top, .clean_up = clean_up, .argument = argument};
    atomic_signal_fence(memory_order_seq_cst);
    active_top = active;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void active_close(const struct active *active)
{
    atomic_signal_fence(memory_order_seq_cst);
    active_top = active->outer;
}

/* Pages that are given back when a jump leaves their holder. */
struct active_pages {
    struct extent extent;
    struct active active;
};

/* pool_take and pool_give. @return as pool_take. */
int active_take(struct active_pages *pages, size_t bytes, bool nowait);
void active_give(struct active_pages *pages);

/* offset_enter, offset_enter_seek and offset_leave; all zero: the file offset is not used. */
struct active_offset {
    struct offset_use use;
    struct active active;
};
int active_enter(struct active_offset *held, struct offset *offset, bool nowait);
void active_enter_seek(struct active_offset *held, struct offset *offset);
void active_exit(struct active_offset *held);

/* A jump to a frame at `stack` is about to be made; ACTIVE_EVERYTHING: the thread ends. One load unless a request is interrupted. */
#define ACTIVE_EVERYTHING UINTPTR_MAX
void active_leave(uintptr_t stack);

/* active_leave(ACTIVE_EVERYTHING), for pthread_cleanup_push. */
void active_end_thread(void *unused);

#endif
