/*
 * A file's life with a failing disk: programs under the shim open, write, leave and die over it in any order, the machine stops now and then, and
 * nobody else touches it. So nothing is ever taken for a change from outside, and whatever was verified and has not been written since is found
 * when a bit of it flips, by whoever comes next.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/life.h"
#include "support/sequence.h"

enum { BLOCKS = INTRUSION_BLOCKS };

/* What the last reader has verified, of what nobody has touched since. */
static char known[BLOCKS];

/* Read by a new session, or by the first actor that is there. */
static struct answer survey(struct life *life, bool by_actor)
{
    struct answer answer;

    for (unsigned i = 0; by_actor && i < ACTORS; i++)
        if (life->actors[i].pid) {
            answer = actor_survey(&life->actors[i], BLOCKS);
            life_tell(life, "actor %u reads \"%s\"", i, answer.survey);
            return answer;
        }
    answer = survey_of(life->environment, life->place.path, BLOCKS);
    life_tell(life, "a new session reads \"%s\"", answer.survey);
    return answer;
}

/* By a new session, which settles what the dead have left before it reads: until then a block that agrees may still become unknown. */
static void remember(struct life *life)
{
    struct answer answer = survey(life, false);

    if (strpbrk(answer.survey, "EMeor"))
        life_give_up(life, "healthy data is doubted");
    memcpy(known, answer.survey, sizeof(known));
    memset(life->touched, 0, sizeof(life->touched));
}

static void read_it_all(struct life *life)
{
    struct answer answer = survey(life, true);

    if (strpbrk(answer.survey, "EMeor"))
        life_give_up(life, "healthy data is doubted");
}

/* @return the exit status. */
static int scrub(struct life *life)
{
    struct child child = child_run(
        WITHOUT_SHIM, life->environment,
        (const char *const[]){path_in(getenv("BOUNCEIO_TEST_BUILD"), "bounceio"), "scrub", life->place.path, NULL});
    int status = WIFEXITED(child.status) ? WEXITSTATUS(child.status) : -1;

    life_tell(life, "scrub: %d", status);
    child_free(&child);
    return status;
}

static void damage(struct life *life)
{
    uint64_t block = random_below(&life->random, BLOCKS);
    uint64_t size = size_behind(life->place.path);

    if (known[block] != 'v' || life->touched[block] || (block + 1) * BLOCK > size)
        return;
    uint64_t byte = block * BLOCK + random_below(&life->random, BLOCK);
    unsigned bit = (unsigned)random_below(&life->random, 8);

    life_tell(life, "a bit of block %llu flips", (unsigned long long)block);
    flip_bit_behind(life->place.path, byte, bit);
    if (random_chance(&life->random, 30) && scrub(life) != 1)
        life_give_up(life, "scrub did not find the damage");
    struct answer answer = survey(life, random_chance(&life->random, 50));

    if (answer.survey[block] != 'E')
        life_give_up(life, "the damage was not found");
    answer.survey[block] = 'v';
    if (strpbrk(answer.survey, "EMeor"))
        life_give_up(life, "healthy data is doubted beside the damage");
    flip_bit_behind(life->place.path, byte, bit);
    answer = survey(life, random_chance(&life->random, 50));
    if (answer.survey[block] != 'v')
        life_give_up(life, "the healed block is not verified");
}

/* What was dirty is doubtful then; a scrub that finds it whole ends that. */
static void stop_the_machine(struct life *life)
{
    life_stop_the_machine(life);
    if (scrub(life) == 1)
        life_give_up(life, "scrub is not content");
}

static void one_event(struct life *life)
{
    unsigned i = (unsigned)random_below(&life->random, ACTORS);

    if (!life->actors[i].pid) {
        life_open(life, i);
        return;
    }
    switch (random_below(&life->random, 16)) {
    case 0:
        if (random_chance(&life->random, 30))
            stop_the_machine(life);
        break;
    case 1:
        life_leave_or_die(life, i);
        break;
    case 2:
        read_it_all(life);
        break;
    case 3:
        remember(life);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        damage(life);
        break;
    case 8:
        sequence_sleep((unsigned)random_below(&life->random, 160));
        break;
    default:
        life_request(life, i);
    }
}

static void live(const struct test_fs *fs, uint64_t seed)
{
    static struct life life;

    life_begin(&life, fs, seed);
    memset(known, 'u', sizeof(known));
    for (size_t i = 0; i < rounds(150, 4000); i++)
        one_event(&life);
    for (unsigned i = 0; i < ACTORS; i++)
        if (life.actors[i].pid)
            actor_leaves(&life.actors[i]);
}

START_TEST(a_life_with_a_failing_disk)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++)
        live(&fs[i], random_run_seed() + i);
}
END_TEST

/* --- Changes that change nothing ------------------------------------------------------------------------------------ */

/* On some file systems they leave the times alone, on others not; and damage is found after them as before. */
static void damage_is_found_after(const struct order *order)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? test_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        const char *environment[] = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"), NULL};
        const char *path = path_in(fs[i].path, "still");
        struct actor actor = actor_new(environment);

        actor_opens(&actor, path);
        actor_does(&actor, &(struct order){.act = ACT_TRUNCATE, .length = 2 * BLOCKS * BLOCK});
        actor_writes(&actor, 1, 0, BLOCKS);
        sequence_sleep(30);
        for (int n = 0; n < 2; n++)
            actor_does(&actor, order);
        flip_bit_behind(path, 3 * BLOCK, 0);
        struct answer answer = actor_survey(&actor, BLOCKS);

        ck_assert_msg(answer.survey[3] == 'E', "on %s: \"%s\"", fs[i].name, answer.survey);
        actor_leaves(&actor);
    }
}

START_TEST(punching_a_hole_where_one_is)
{
    damage_is_found_after(&(struct order){.act = ACT_PUNCH, .offset = 20 * BLOCK, .length = 2 * BLOCK});
}
END_TEST

START_TEST(punching_beyond_the_end)
{
    damage_is_found_after(&(struct order){.act = ACT_PUNCH, .offset = 40 * BLOCK, .length = 2 * BLOCK});
}
END_TEST

START_TEST(truncating_to_the_same_size)
{
    damage_is_found_after(&(struct order){.act = ACT_TRUNCATE, .length = 2 * BLOCKS * BLOCK});
}
END_TEST

START_TEST(syncing_what_is_synced)
{
    damage_is_found_after(&(struct order){.act = ACT_FSYNC});
}
END_TEST

START_TEST(mapping_without_writing)
{
    damage_is_found_after(&(struct order){.act = ACT_MAP, .offset = 20 * BLOCK, .length = 2 * BLOCK});
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {a_life_with_a_failing_disk,
                                  punching_a_hole_where_one_is,
                                  punching_beyond_the_end,
                                  truncating_to_the_same_size,
                                  syncing_what_is_synced,
                                  mapping_without_writing,
                                  NULL};

    return support_main(argc, argv, "a life with a failing disk", getenv("BOUNCEIO_TEST_FULL") ? 3600 : 120, modes,
                        tests);
}
