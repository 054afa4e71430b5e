/* What a life is made of. */
#include "support/life.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "support/direct.h"

enum { BYTES = INTRUSION_BLOCKS * BLOCK };

/* Remember, for the message of a failure. */
void life_tell(struct life *life, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(life->history[life->events++ % HISTORY], sizeof(life->history[0]), format, arguments);
    va_end(arguments);
}

void life_give_up(struct life *life, const char *what)
{
    for (size_t i = life->events < HISTORY ? 0 : life->events - HISTORY; i < life->events; i++)
        printf("  %s\n", life->history[i % HISTORY]);
    fflush(stdout);
    ck_abort_msg("on %s, event %zu: %s", life->fs->name, life->events, what);
}

ino_t life_inode(const struct life *life)
{
    struct stat st;

    ck_assert_int_eq(stat(life->place.path, &st), 0);
    return st.st_ino;
}

static void next_boot(struct life *life)
{
    snprintf(life->boot, sizeof(life->boot), "BOUNCEIO_TEST_BOOT_ID=%032x", ++life->boots);
    life->environment[1] = life->boot;
}

void life_open(struct life *life, unsigned i)
{
    life_tell(life, "actor %u opens", i);
    life->actors[i] = actor_new(life->environment);
    actor_opens(&life->actors[i], life->place.path);
    life->inode[i] = life_inode(life);
}

void life_leave_or_die(struct life *life, unsigned i)
{
    switch (random_below(&life->random, 3)) {
    case 0:
        life_tell(life, "actor %u closes and leaves", i);
        actor_does(&life->actors[i], &(struct order){.act = ACT_CLOSE});
        actor_leaves(&life->actors[i]);
        break;
    case 1:
        life_tell(life, "actor %u leaves", i);
        actor_leaves(&life->actors[i]);
        break;
    default:
        life_tell(life, "actor %u is killed", i);
        actor_is_killed(&life->actors[i]);
    }
}

static void mark_touched(struct life *life, const struct order *order)
{
    uint64_t begin = order->act == ACT_TRUNCATE ? order->length : order->offset;
    uint64_t end = order->act == ACT_TRUNCATE ? BYTES : order->offset + order->length;

    for (uint64_t block = begin / BLOCK; block < INTRUSION_BLOCKS && block * BLOCK < end; block++)
        life->touched[block] = true;
    /* A write beyond the end of the file fills up the block that holds it. */
    uint64_t size = size_behind(life->place.path);

    if (end > size && size < BYTES)
        life->touched[size / BLOCK] = true;
}

/* A request of the actor, in which it may die. */
void life_request(struct life *life, unsigned i)
{
    static const enum act acts[] = {ACT_WRITE, ACT_WRITE,    ACT_WRITE, ACT_WRITE,   ACT_WRITE,
                                    ACT_PUNCH, ACT_TRUNCATE, ACT_FSYNC, ACT_BUFFERED};
    size_t unit = random_chance(&life->random, 40) ? SECTOR : BLOCK;
    struct order order = {.act = acts[random_below(&life->random, sizeof(acts) / sizeof(acts[0]))],
                          .seed = ++life->seed,
                          .length = unit * (1 + random_below(&life->random, 5))};
    bool dies = random_chance(&life->random, 25);
    struct answer answer;
    char where[32];

    order.offset = random_below(&life->random, (BYTES - order.length) / unit + 1) * unit;
    if (order.act == ACT_TRUNCATE)
        order.length = random_below(&life->random, BYTES);
    if (order.act == ACT_BUFFERED && life->inode[i] != life_inode(life))
        return; /* it opens by name */
    mark_touched(life, &order);
    snprintf(where, sizeof(where), "*#%u:kill", 1 + (unsigned)random_below(&life->random, 25));
    actor_stops_at(&life->actors[i], dies ? where : "");
    bool survives = actor_survives(&life->actors[i], &order, &answer);

    life_tell(life, "actor %u: act %d at %llu, %llu bytes, of seed %llu%s%s", i, (int)order.act,
              (unsigned long long)order.offset, (unsigned long long)order.length, (unsigned long long)order.seed,
              survives ? "" : ", dies at ", survives ? "" : where);
    if (survives && answer.result < 0)
        life_give_up(life, "a request failed");
    if (survives)
        actor_stops_at(&life->actors[i], "");
}

void life_begin(struct life *life, const struct test_fs *fs, uint64_t seed)
{
    *life = (struct life){.fs = fs, .random = {seed}, .rsync = intrusion_has_rsync()};
    snprintf(life->place.path, sizeof(life->place.path), "%s", path_in(fs->path, "file"));
    snprintf(life->place.backup, sizeof(life->place.backup), "%s.backup", life->place.path);
    snprintf(life->place.other, sizeof(life->place.other), "%s.other", life->place.path);
    make_file_behind(life->place.path, ++life->seed, BYTES);
    make_file_behind(life->place.backup, ++life->seed, BYTES);
    life->environment[0] = store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    next_boot(life);
}

void life_stop_the_machine(struct life *life)
{
    for (unsigned i = 0; i < ACTORS; i++)
        if (life->actors[i].pid)
            actor_is_killed(&life->actors[i]);
    life_tell(life, "the machine stops");
    next_boot(life);
}
