/*
 * A file's life among others: programs under the shim open, write, leave and die over it, in any order; between whiles other programs do to it
 * whatever they like, the administrator scrubs, adopts and forgets, and the machine stops now and then. Nobody ever reads an EIO, and everybody reads what the file has.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/intrusion.h"
#include "support/sequence.h"

enum { BLOCKS = INTRUSION_BLOCKS, BYTES = BLOCKS * BLOCK, ACTORS = 3, HISTORY = 40 };

struct life {
    const struct test_fs *fs;
    struct random random;
    struct place place;
    char boot[64];
    const char *environment[3];
    unsigned boots;
    struct actor actors[ACTORS];
    ino_t inode[ACTORS]; /* of the file that each has open */
    uint64_t seed;
    bool rsync;
    char history[HISTORY][160];
    size_t events;
};

/* Remember, for the message of a failure. */
static void tell(struct life *life, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct life *life, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(life->history[life->events++ % HISTORY], sizeof(life->history[0]), format, arguments);
    va_end(arguments);
}

static void give_up(struct life *life, const char *what)
{
    for (size_t i = life->events < HISTORY ? 0 : life->events - HISTORY; i < life->events; i++)
        printf("  %s\n", life->history[i % HISTORY]);
    fflush(stdout);
    ck_abort_msg("on %s, event %zu: %s", life->fs->name, life->events, what);
}

static ino_t inode_of(const struct life *life)
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

/* Everything can be read by the actor, block by block and as a whole. */
static void read_it_all(struct life *life, struct actor *actor, bool this_file)
{
    static unsigned char content[BYTES];
    struct answer answer = actor_survey(actor, BLOCKS);

    tell(life, "read as \"%s\"", answer.survey);
    if (strpbrk(answer.survey, "EMe"))
        give_up(life, "an error on healthy data");
    answer = actor_do(actor, &(struct order){.act = ACT_READ, .length = BYTES});
    size_t length = read_behind(life->place.path, content, BYTES, 0);

    if (answer.result < 0)
        give_up(life, "an error on healthy data, read as a whole");
    if (this_file && (answer.result != (int64_t)length || answer.hash != hash_bytes(HASH_START, content, length)))
        give_up(life, "what was read is not what the file has");
}

static void read_by_a_new_session(struct life *life)
{
    struct actor reader = actor_new(life->environment);

    tell(life, "a new session");
    actor_opens(&reader, life->place.path);
    read_it_all(life, &reader, true);
    actor_leaves(&reader);
}

static void open_by(struct life *life, unsigned i)
{
    tell(life, "actor %u opens", i);
    life->actors[i] = actor_new(life->environment);
    actor_opens(&life->actors[i], life->place.path);
    life->inode[i] = inode_of(life);
}

static void leave_or_die(struct life *life, unsigned i)
{
    switch (random_below(&life->random, 3)) {
    case 0:
        tell(life, "actor %u closes and leaves", i);
        actor_does(&life->actors[i], &(struct order){.act = ACT_CLOSE});
        actor_leaves(&life->actors[i]);
        break;
    case 1:
        tell(life, "actor %u leaves", i);
        actor_leaves(&life->actors[i]);
        break;
    default:
        tell(life, "actor %u is killed", i);
        actor_is_killed(&life->actors[i]);
    }
}

/* A request of the actor, in which it may die. */
static void request_by(struct life *life, unsigned i)
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
    if (order.act == ACT_BUFFERED && life->inode[i] != inode_of(life))
        return; /* it opens by name */
    snprintf(where, sizeof(where), "*#%u:kill", 1 + (unsigned)random_below(&life->random, 25));
    actor_stops_at(&life->actors[i], dies ? where : "");
    bool survives = actor_survives(&life->actors[i], &order, &answer);

    tell(life, "actor %u: act %d at %llu, %llu bytes, of seed %llu%s%s", i, (int)order.act,
         (unsigned long long)order.offset, (unsigned long long)order.length, (unsigned long long)order.seed,
         survives ? "" : ", dies at ", survives ? "" : where);
    if (survives && answer.result < 0)
        give_up(life, "a request failed");
    if (survives)
        actor_stops_at(&life->actors[i], "");
}

static void intrude(struct life *life)
{
    const struct intrusion *intrusion = &intrusions[random_below(&life->random, INTRUSIONS)];

    if (intrusion->needs_rsync && !life->rsync)
        return;
    /* What the dead have left is settled, so that nobody waits for a second. */
    read_by_a_new_session(life);
    /* Who writes ten times a second is writing all the time. */
    sequence_sleep(130);
    tell(life, "others: %s", intrusion->name);
    if (!intrusion->intrude(&life->place))
        give_up(life, "the intrusion failed");
}

/* The administrator's hand: any command, while programs have the file open or not. */
static void administrate(struct life *life)
{
    static const char *const commands[] = {"scrub", "scrub", "adopt", "gc", "forget"};
    const char *command = commands[random_below(&life->random, sizeof(commands) / sizeof(commands[0]))];
    bool takes_path = strcmp(command, "gc") != 0;
    struct child child = child_run(WITHOUT_SHIM, life->environment,
                                   (const char *const[]){path_in(getenv("BOUNCEIO_TEST_BUILD"), "bounceio"), command,
                                                         takes_path ? life->place.path : NULL, NULL});
    int status = WIFEXITED(child.status) ? WEXITSTATUS(child.status) : -1;

    tell(life, "bounceio %s: %d", command, status);
    /* 2: in use, or nothing to verify. */
    if (status != 0 && status != 2) {
        printf("%s%s", child.output, child.errors);
        give_up(life, "the command is not content");
    }
    child_free(&child);
}

static void stop_the_machine(struct life *life)
{
    for (unsigned i = 0; i < ACTORS; i++)
        if (life->actors[i].pid)
            actor_is_killed(&life->actors[i]);
    tell(life, "the machine stops");
    next_boot(life);
}

static void one_event(struct life *life)
{
    unsigned i = (unsigned)random_below(&life->random, ACTORS);

    if (!life->actors[i].pid) {
        open_by(life, i);
        return;
    }
    switch (random_below(&life->random, 20)) {
    case 0:
        stop_the_machine(life);
        break;
    case 1:
    case 2:
        leave_or_die(life, i);
        break;
    case 3:
    case 4:
    case 5:
        intrude(life);
        break;
    case 6:
    case 7:
        read_by_a_new_session(life);
        break;
    case 8:
    case 9:
        administrate(life);
        break;
    case 10:
        tell(life, "actor %u reads", i);
        read_it_all(life, &life->actors[i], life->inode[i] == inode_of(life));
        break;
    default:
        request_by(life, i);
    }
}

/* All is written once more: nothing is unknown then. */
static void end(struct life *life)
{
    struct actor last = actor_new(life->environment);

    actor_opens(&last, life->place.path);
    actor_writes(&last, ++life->seed, 0, BLOCKS);
    struct answer answer = actor_survey(&last, BLOCKS);

    tell(life, "written again: \"%s\"", answer.survey);
    if (strcmp(answer.survey, "vvvvvvvvvvvvvvvv") != 0)
        give_up(life, "something stays unknown");
    actor_leaves(&last);
    for (unsigned i = 0; i < ACTORS; i++)
        if (life->actors[i].pid)
            actor_leaves(&life->actors[i]);
}

static void live(const struct test_fs *fs, uint64_t seed)
{
    static struct life life;

    life = (struct life){.fs = fs, .random = {seed}, .rsync = intrusion_has_rsync()};
    snprintf(life.place.path, sizeof(life.place.path), "%s", path_in(fs->path, "file"));
    snprintf(life.place.backup, sizeof(life.place.backup), "%s.backup", life.place.path);
    snprintf(life.place.other, sizeof(life.place.other), "%s.other", life.place.path);
    make_file_behind(life.place.path, ++life.seed, BYTES);
    make_file_behind(life.place.backup, ++life.seed, BYTES);
    life.environment[0] = store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    next_boot(&life);
    for (size_t i = 0; i < rounds(90, 3000); i++)
        one_event(&life);
    end(&life);
}

START_TEST(a_life_among_others)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++)
        live(&fs[i], random_run_seed() + i);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {a_life_among_others, NULL};

    return support_main(argc, argv, "a life among others", getenv("BOUNCEIO_TEST_FULL") ? 3600 : 120, modes, tests);
}
