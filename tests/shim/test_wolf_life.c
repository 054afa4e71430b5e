/*
 * A file's life among others: programs under the shim open, write, leave and die over it, in any order; between whiles other programs do to it
 * whatever they like, the administrator scrubs, adopts and forgets, and the machine stops now and then. Nobody ever reads an EIO, and everybody reads what the file has.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/life.h"
#include "support/sequence.h"

enum { BLOCKS = INTRUSION_BLOCKS, BYTES = BLOCKS * BLOCK };

/* Everything can be read by the actor, block by block and as a whole. */
static void read_it_all(struct life *life, struct actor *actor, bool this_file)
{
    static unsigned char content[BYTES];
    struct answer answer = actor_survey(actor, BLOCKS);

    life_tell(life, "read as \"%s\"", answer.survey);
    if (strpbrk(answer.survey, "EMe"))
        life_give_up(life, "an error on healthy data");
    answer = actor_do(actor, &(struct order){.act = ACT_READ, .length = BYTES});
    size_t length = read_behind(life->place.path, content, BYTES, 0);

    if (answer.result < 0)
        life_give_up(life, "an error on healthy data, read as a whole");
    if (this_file && (answer.result != (int64_t)length || answer.hash != hash_bytes(HASH_START, content, length)))
        life_give_up(life, "what was read is not what the file has");
}

static void read_by_a_new_session(struct life *life)
{
    struct actor reader = actor_new(life->environment);

    life_tell(life, "a new session");
    actor_opens(&reader, life->place.path);
    read_it_all(life, &reader, true);
    actor_leaves(&reader);
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
    life_tell(life, "others: %s", intrusion->name);
    if (!intrusion->intrude(&life->place))
        life_give_up(life, "the intrusion failed");
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

    life_tell(life, "bounceio %s: %d", command, status);
    /* 2: in use, or nothing to verify. */
    if (status != 0 && status != 2) {
        printf("%s%s", child.output, child.errors);
        life_give_up(life, "the command is not content");
    }
    child_free(&child);
}

static void one_event(struct life *life)
{
    unsigned i = (unsigned)random_below(&life->random, ACTORS);

    if (!life->actors[i].pid) {
        life_open(life, i);
        return;
    }
    switch (random_below(&life->random, 20)) {
    case 0:
        life_stop_the_machine(life);
        break;
    case 1:
    case 2:
        life_leave_or_die(life, i);
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
        life_tell(life, "actor %u reads", i);
        read_it_all(life, &life->actors[i], life->inode[i] == life_inode(life));
        break;
    default:
        life_request(life, i);
    }
}

/* All is written once more: nothing is unknown then. */
static void end(struct life *life)
{
    struct actor last = actor_new(life->environment);

    actor_opens(&last, life->place.path);
    actor_writes(&last, ++life->seed, 0, BLOCKS);
    struct answer answer = actor_survey(&last, BLOCKS);

    life_tell(life, "written again: \"%s\"", answer.survey);
    if (strcmp(answer.survey, "vvvvvvvvvvvvvvvv") != 0)
        life_give_up(life, "something stays unknown");
    actor_leaves(&last);
    for (unsigned i = 0; i < ACTORS; i++)
        if (life->actors[i].pid)
            actor_leaves(&life->actors[i]);
}

static void live(const struct test_fs *fs, uint64_t seed)
{
    static struct life life;

    life_begin(&life, fs, seed);
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
