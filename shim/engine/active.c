/* See active.h. Owns the head of the list. */
#include "engine/active.h"

#include <pthread.h>
#include <signal.h>

#include "base/process.h"
#include "base/raw.h"

_Thread_local struct active *active_top;

static void give(void *extent)
{
    pool_give(extent);
}

int active_take(struct active_pages *pages, size_t bytes, bool nowait)
{
    pages->extent.base = NULL;
    active_open(&pages->active, give, &pages->extent);
    int error = pool_take(&pages->extent, bytes, nowait);
    if (error != 0)
        active_close(&pages->active);
    return error;
}

void active_give(struct active_pages *pages)
{
    pool_give(&pages->extent);
    active_close(&pages->active);
}

static void exit_offset(void *use)
{
    offset_leave(use);
}

int active_enter(struct active_offset *held, struct offset *offset, bool nowait)
{
    *held = (struct active_offset){0};
    active_open(&held->active, exit_offset, &held->use);
    int error = offset_enter(&held->use, offset, nowait);
    if (error != 0)
        active_close(&held->active);
    return error;
}

void active_enter_seek(struct active_offset *held, struct offset *offset)
{
    *held = (struct active_offset){0};
    active_open(&held->active, exit_offset, &held->use);
    offset_enter_seek(&held->use, offset);
}

void active_exit(struct active_offset *held)
{
    if (!held->active.clean_up)
        return;
    offset_leave(&held->use);
    active_close(&held->active);
}

/* A stack pointer is beyond the end of its stack at first, and never at the beginning. */
static bool is_on(const stack_t *alternate, uintptr_t address)
{
    return !(alternate->ss_flags & SS_DISABLE) && address - (uintptr_t)alternate->ss_sp - 1 < alternate->ss_size;
}

/* Stacks grow downwards. A handler's own stack is left by every jump to another one, and what lies there never leaves the other by a jump within. */
static bool is_left(const stack_t *alternate, uintptr_t frame, uintptr_t stack)
{
    if (is_on(alternate, stack))
        return is_on(alternate, frame) && frame < stack;
    return is_on(alternate, frame) || frame < stack;
}

static __attribute__((noinline)) void leave(uintptr_t stack)
{
    stack_t alternate = {.ss_flags = SS_DISABLE};
    raw(SYS_sigaltstack, NULL, &alternate);
    /* No handler may jump out of a clean-up; but faults in a map's memory must get through. */
    uint64_t saved, others = ~(UINT64_C(1) << (SIGSEGV - 1) | UINT64_C(1) << (SIGBUS - 1));
    raw(SYS_rt_sigprocmask, SIG_BLOCK, &others, &saved, sizeof others);
    while (active_top && is_left(&alternate, (uintptr_t)active_top, stack)) {
        struct active *left = active_top;
        active_top = left->outer;
        left->clean_up(left->argument);
    }
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &saved, NULL, sizeof saved);
}

void active_leave(uintptr_t stack)
{
    if (active_top)
        leave(stack);
}

void active_end_thread(void *unused)
{
    (void)unused;
    active_leave(ACTIVE_EVERYTHING);
}

/* In a forked child nothing of its parent's requests is there any more. */
static void forget_in_child(void)
{
    active_top = NULL;
}

static void active_start(void)
{
    pthread_atfork(NULL, NULL, forget_in_child);
}
PROCESS_INITIALISER(active_start);
