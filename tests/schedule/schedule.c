/*
 * The scheduler. Owns the participants, their sessions and the block.
 */
#include "schedule/schedule.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/step.h"
#include "checksum/announce.h"
#include "checksum/region.h"
#include "checksum/store.h"
#include "model/notation.h"
#include "schedule/explore.h"
#include "support/support.h"

enum { STACK_BYTES = 256 << 10, STEPS_MOST = 4000 };

static char store[4096];
struct map the_map;
struct disk disk;
struct actor actors[PARTICIPANTS_MOST];
const struct configuration *configured;

static struct actor *running; /* NULL: the scheduler itself */
static struct actor *acting;  /* whose session is the present one */
static jmp_buf scheduler;
static unsigned steps, deaths, preemptions;
static unsigned
    changes; /* moves, but for the steps of settlers, who would otherwise keep each other at work for ever */
static bool tracing;
static sigset_t signals;

/* ---- Sessions ---- */

int __wrap_store_lock_file(void);

/* In the place of store_lock_file: everybody has a description of the lock file of its own. */
int __wrap_store_lock_file(void)
{
    if (acting->lock < 0)
        acting->lock = open(path_in(store, "lock"), O_RDWR | O_CLOEXEC);
    return acting->lock < 0 ? -EBADF : acting->lock;
}

static void act_as(struct actor *actor)
{
    acting = actor;
    session_state = actor->session;
}

static void hold_slot(struct actor *actor)
{
    struct flock byte = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(actor->session->slot), .l_len = 1};
    act_as(actor);
    if (fcntl(__wrap_store_lock_file(), F_OFD_SETLK, &byte) != 0)
        support_die("cannot hold the slot of a session");
}

/* A store and the map of an empty file in $TMPDIR. */
static void make_map(void)
{
    struct test_fs fs[TEST_FS_MAX];
    struct map_key key;
    uint64_t saved;
    unsetenv("BOUNCEIO_TEST_FS");
    test_filesystems(fs);
    snprintf(store, sizeof store, "%s", path_in(fs->path, "store"));
    config.store = store;
    int fd = open(path_in(fs->path, "file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    process_lock(&saved);
    if (fd < 0 || map_key_of(fd, &key) != 0 || map_open(&the_map, &key, true) != 0 || map_cover(&the_map, 0, 8) != 0)
        support_die("cannot make a map");
    process_unlock(&saved);
    close(fd);
}

static struct block_words *words(void)
{
    uint64_t run;
    return map_words(&the_map, BLOCK_INDEX, &run);
}

void schedule_prepare(void)
{
    for (unsigned i = 0; i < PARTICIPANTS_MOST; i++)
        actors[i].lock = -1;
    actors[0].session = session_state;
    act_as(&actors[0]);
    sigprocmask(SIG_BLOCK, NULL, &signals);
    make_map();
    for (unsigned i = 0; i < PARTICIPANTS_MOST; i++) {
        struct actor *actor = &actors[i];
        if (!actor->session)
            actor->session = calloc(1, sizeof *actor->session);
        act_as(actor);
        uint64_t saved;
        process_lock(&saved);
        int error = session_open();
        process_unlock(&saved);
        actor->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (error != 0 || actor->session->slot != i || actor->stack == MAP_FAILED)
            support_die("cannot make session %u", i);
    }
}

/* Has the actor's session anything in flight? What it was still filling is not there yet. */
static bool is_in_flight(const struct actor *actor)
{
    const struct session_file *file = actor->session->self;
    bool any = file->flights_beyond != 0;
    for (uint64_t i = 0; i < file->flights_high; i++)
        any |= (file->flights[i].state & 0xff) > FLIGHT_FILLING;
    return any;
}

/* ---- Steps ---- */

void schedule_step(const char *name)
{
    if (!running)
        return;
    running->step = name;
    if (_setjmp(running->place) == 0)
        _longjmp(scheduler, 1);
}

void schedule_wait(const char *name, bool (*may_go_on)(const struct actor *actor))
{
    struct actor *actor = running;
    actor->may_go_on = may_go_on;
    schedule_step(name);
    actor->may_go_on = NULL;
    if (may_go_on == schedule_may_settle)
        actor->tried_at = changes;
}

bool schedule_may_settle(const struct actor *actor)
{
    bool due = false;
    for (unsigned i = 0; i < configured->participants; i++)
        due |= actors[i].dead && is_in_flight(&actors[i]);
    return due && actor->tried_at != changes;
}

static void begin(void)
{
    role_play(running);
    running->finished = true;
    running->step = "end";
    _longjmp(scheduler, 1);
}

/* Until its next step. A context is only for the beginning: jumps leave the signal mask alone, which takes system calls. */
static __attribute__((noinline)) void switch_to(struct actor *actor)
{
    if (_setjmp(scheduler) != 0)
        return;
    if (actor->steps > 0)
        _longjmp(actor->place, 1);
    setcontext(&actor->context);
}

/* ---- Moves ---- */

enum move_kind { MOVE_STEP, MOVE_DIE, MOVE_LAND };
struct move {
    enum move_kind kind;
    struct actor *actor;
};

static void trace(const struct actor *actor, const char *what)
{
    if (tracing)
        printf("      %c%ld  %-34s current=%llx pending=%llx disk=%u%u size=%u count=%llu\n",
               notation_role(actor->part->role), (long)(actor - actors), what, (unsigned long long)words()->current,
               (unsigned long long)words()->pending, disk.sector[0], disk.sector[1], disk.size,
               (unsigned long long)the_map.header->unsettled);
}

static void take_step(struct actor *actor)
{
    const char *step = actor->step;
    act_as(actor);
    running = actor;
    switch_to(actor);
    running = NULL;
    actor->steps++;
    trace(actor, step);
}

static void die(struct actor *actor)
{
    actor->dead = true;
    deaths++;
    if (!actor->part->asynchronous)
        actor->landing = 0;
    close(actor->lock);
    actor->lock = -1;
    trace(actor, "is killed");
}

static void land_late(struct actor *actor)
{
    role_land(actor, actor->landing == BOTH ? explore_choose(2) : actor->landing >> 1);
    trace(actor, "the disk writes, too late");
}

static void make(const struct move *move)
{
    static void (*const moves[])(struct actor *) = {[MOVE_STEP] = take_step, [MOVE_DIE] = die, [MOVE_LAND] = land_late};
    moves[move->kind](move->actor);
    steps++;
    changes += move->kind != MOVE_STEP || move->actor->part->role != SETTLER;
}

static bool can_step(const struct actor *actor)
{
    return !actor->dead && !actor->finished && (!actor->may_go_on || actor->may_go_on(actor));
}

/* It may die where it stands. What it has not begun need not die. */
static bool can_die(const struct actor *actor)
{
    return actor->part->may_die && !actor->dead && !actor->finished && actor->steps > 0 &&
           deaths < configured->deaths && actor->may_go_on != schedule_may_settle;
}

/* What can be done next: first to go on with `last`. Anything else, while it could, is a preemption; its death is not. */
static unsigned list_moves(struct move *moves, struct actor *last)
{
    unsigned count = 0;
    bool goes_on = last && can_step(last);
    if (goes_on)
        moves[count++] = (struct move){MOVE_STEP, last};
    if (last && can_die(last))
        moves[count++] = (struct move){MOVE_DIE, last};
    for (unsigned i = 0; i < configured->participants && (!goes_on || preemptions > 0); i++) {
        if (actors[i].dead && actors[i].landing != 0)
            moves[count++] = (struct move){MOVE_LAND, &actors[i]};
        if (&actors[i] != last && can_step(&actors[i]))
            moves[count++] = (struct move){MOVE_STEP, &actors[i]};
    }
    return count;
}

/* ---- What must never be ---- */

static bool is_known(uint64_t current)
{
    return current != WORD_UNKNOWN && current <= WORD_SUM_MASK;
}

/* One more writer of the whole block, alone. */
static bool returns_to_idle(void)
{
    struct announcement announcement;
    const uint64_t sum = sum_of(3, 3);
    act_as(&actors[configured->participants]);
    announce_open(&announcement, &the_map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, BLOCK_INDEX, 1, &sum);
    announce_publish(&announcement, BLOCK_INDEX, 1);
    announce_close(&announcement);
    return words()->pending == WORD_IDLE;
}

static const char *judge(void)
{
    const bool damaged = configured->start == START_DAMAGED;
    bool holds_damage = disk.sector[0] == DAMAGE || disk.sector[1] == DAMAGE;
    bool is_true = words()->current == sum_of(disk.size > 0 ? disk.sector[0] : 0, disk.size > 1 ? disk.sector[1] : 0);
    for (unsigned i = 0; i < configured->participants; i++) {
        const struct actor *actor = &actors[i];
        if (!actor->dead && !actor->finished && actor->part->role != SETTLER)
            return "deadlock";
        if (is_in_flight(actor))
            return actor->dead ? "what the dead have left is never settled" : "an entry stays in flight";
    }
    if (disk.mismatch && !damaged)
        return "a mismatch without damage";
    if (words()->pending == WORD_IDLE && is_known(words()->current) && !is_true && !damaged)
        return "an idle checksum is untrue";
    if (words()->pending != WORD_IDLE && is_known(words()->current))
        return "a known block is never idle again";
    if (damaged && is_known(words()->current) && is_true && holds_damage)
        return "damage got a fresh checksum";
    if (deaths == 0 && the_map.header->unsettled != 0)
        return "the count of mutators stays up";
    if (words()->pending != WORD_IDLE && !returns_to_idle())
        return "a contended block cannot return to idle";
    return NULL;
}

/* ---- One schedule ---- */

/* A settler that was left in the middle holds those of the dead. */
static void release_slots(void)
{
    for (unsigned i = 0; i < configured->participants; i++) {
        if (actors[i].lock >= 0)
            close(actors[i].lock);
        actors[i].lock = -1;
    }
}

static void reset_block(void)
{
    enum { A = 1 };
    enum start start = configured->start;
    disk = (struct disk){.size = start == START_EMPTY ? 0 : start == START_SHORT ? 1 : 2};
    for (unsigned sector = 0; sector < disk.size; sector++)
        disk.sector[sector] = A;
    bool known = start != START_UNKNOWN && disk.size > 0;
    words()->current = known ? sum_of(disk.sector[0], disk.sector[1]) : WORD_UNKNOWN;
    words()->pending = WORD_IDLE;
    if (start == START_DAMAGED)
        disk.sector[0] = DAMAGE;
    the_map.header->unsettled = the_map.header->settle_lock = 0;
    atomic_fetch_or(map_region_word(&the_map, 0), REGION_DIRTY | REGION_DURABLE | REGION_TOUCHED);
}

static void reset_actor(struct actor *actor, const struct part *part)
{
    struct session_file *file = actor->session->self;
    actor->part = part;
    actor->finished = actor->dead = false;
    actor->landing = 0;
    actor->steps = 0;
    actor->tried_at = UINT32_MAX;
    actor->step = "begin";
    actor->may_go_on = part->role == SETTLER ? schedule_may_settle : NULL;
    actor->session->settling = false;
    memset(file->flights, 0, file->flights_high * sizeof *file->flights);
    file->flights_high = file->flights_beyond = 0;
    if (actor->lock < 0)
        hold_slot(actor);
    getcontext(&actor->context); /* of which makecontext keeps what is not set here */
    actor->context.uc_stack.ss_sp = actor->stack;
    actor->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&actor->context, begin, 0);
}

const char *schedule_run(const struct configuration *wanted, unsigned most_preemptions, bool with_trace)
{
    struct move moves[3 * PARTICIPANTS_MOST];
    struct actor *last = NULL;
    unsigned count;
    configured = wanted;
    tracing = with_trace;
    steps = deaths = changes = 0;
    /* Settlers that died had signals blocked. */
    sigprocmask(SIG_SETMASK, &signals, NULL);
    preemptions = most_preemptions;
    reset_block();
    for (unsigned i = 0; i < configured->participants; i++)
        reset_actor(&actors[i], &configured->part[i]);
    /* The spare one, for the last question. */
    store_shared()->slots_high = configured->participants + 1;
    step_hook = schedule_step;
    while ((count = list_moves(moves, last)) > 0) {
        const struct move *move = &moves[explore_choose(count)];
        if (last && move->actor != last && can_step(last))
            preemptions--;
        make(move);
        last = move->actor;
        if (steps > STEPS_MOST) {
            release_slots();
            return "it does not end";
        }
    }
    step_hook = NULL;
    return judge();
}
