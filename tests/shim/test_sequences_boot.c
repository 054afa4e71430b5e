/*
 * Sequence 8: the machine stops with writes that were not flushed; the first session of the next boot is killed before each single step
 * of opening the map. Whoever opens it then still knows which regions are doubtful: what did not survive is adopted, never reported;
 * and still trusts those that were clean: damage in them is found.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/sequence.h"

enum { BLOCKS = 8, BYTES = BLOCKS * BLOCK, OLD = 1, NEW = 2, NEWER = 3, STEPS_MAX = 400 };

struct scene {
    const char *fs;
    const char *path;
    const char *environment[3]; /* store, boot id */
    char boot[64];
    unsigned boots;
    int step;
};

#define scene_that(scene, condition, format, ...)                                                                      \
    ck_assert_msg(condition, "on %s, killed at step %d: " format, (scene)->fs, (scene)->step __VA_OPT__(, ) __VA_ARGS__)

static void make_scene(struct scene *scene, const struct test_fs *fs)
{
    *scene = (struct scene){.fs = fs->name,
                            .path = path_in(fs->path, "file"),
                            .environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp")}};
}

static void next_boot(struct scene *scene)
{
    snprintf(scene->boot, sizeof(scene->boot), "BOUNCEIO_TEST_BOOT_ID=%032x", ++scene->boots);
    scene->environment[1] = scene->boot;
}

/* The disk has an older version of a block, or the right one again. */
static void put_on_medium(const struct scene *scene, uint64_t block, uint64_t seed)
{
    unsigned char data[BLOCK];

    pattern_fill(data, BLOCK, seed, block * BLOCK);
    write_behind(scene->path, data, BLOCK, block * BLOCK);
}

static struct actor writer_of(const struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, OLD, 0, BLOCKS);
    actor_writes(&writer, NEW, 0, BLOCKS);
    return writer;
}

/* The first session of a boot opens and reads the file, and is killed at step scene->step. @return false when it came through. */
static bool first_session_dies(const struct scene *scene)
{
    char where[64];
    const char *environment[] = {scene->environment[0], scene->environment[1], where, NULL};
    struct order open = {.act = ACT_OPEN};
    struct answer answer;

    snprintf(where, sizeof(where), "BOUNCEIO_TEST_STOP=*#%d:kill", scene->step);
    snprintf(open.text, sizeof(open.text), "%s", scene->path);
    struct actor first = actor_new(environment);

    if (!actor_survives(&first, &open, &answer) ||
        !actor_survives(&first, &(struct order){.act = ACT_SURVEY, .length = BLOCKS}, &answer))
        return true;
    actor_leaves(&first);
    return false;
}

static void expect_survey(const struct scene *scene, const char *when, const char *pattern)
{
    struct answer answer = survey_of(scene->environment, scene->path, BLOCKS);

    for (int i = 0; i < BLOCKS; i++) {
        /* r: adopted now, or by the one that was killed. */
        bool as_expected = answer.survey[i] == pattern[i] || (pattern[i] == 'r' && answer.survey[i] == 'v') ||
                           (pattern[i] == '?' && strchr("vu", answer.survey[i]));

        scene_that(scene, as_expected, "%s: \"%s\" instead of \"%s\"", when, answer.survey, pattern);
    }
}

/* Written again, everything is known. */
static void life_goes_on(const struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, NEWER, 0, BLOCKS);
    actor_does(&writer, &(struct order){.act = ACT_CLOSE});
    actor_leaves(&writer);
    expect_survey(scene, "written again", "vvvvvvvv");
}

static void for_every_step(bool (*play)(struct scene *scene))
{
    struct scene scenes[TEST_FS_MAX];
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;
    bool died = count > 0;
    /* Each step in the full run; otherwise every other one, the odd ones or the even ones as the seed has it. */
    int step = 1 + (int)rounds(random_run_seed() % 2, 0);

    for (size_t i = 0; i < count; i++)
        make_scene(&scenes[i], &fs[i]);
    for (size_t turn = 0; died; step += (int)rounds(2, 1)) {
        ck_assert_int_lt(step, STEPS_MAX);
        for (size_t n = 0; n < rounds(1, count) && died; n++, turn++) {
            scenes[turn % count].step = step;
            died = play(&scenes[turn % count]);
        }
    }
    ck_assert_msg(count == 0 || step > 6, "opening a map has hardly any steps");
}

/* Cut while the region was dirty, and again before anybody has looked at it all. */
static bool cut_while_dirty(struct scene *scene)
{
    next_boot(scene);
    struct actor writer = writer_of(scene);

    actor_is_killed(&writer);
    put_on_medium(scene, 5, OLD);
    next_boot(scene);
    bool died = first_session_dies(scene);

    expect_survey(scene, "after the first cut", "vvvvvrvv");
    put_on_medium(scene, 6, OLD);
    next_boot(scene);
    expect_survey(scene, "after the second cut", "vvvvvvrv");
    life_goes_on(scene);
    return died;
}

START_TEST(doubts_outlive_a_first_session_that_is_killed)
{
    for_every_step(cut_while_dirty);
}
END_TEST

/* Cut after the last descriptor was closed: nothing is doubtful. */
static bool cut_while_clean(struct scene *scene)
{
    next_boot(scene);
    struct actor writer = writer_of(scene);

    actor_does(&writer, &(struct order){.act = ACT_CLOSE});
    actor_leaves(&writer);
    put_on_medium(scene, 5, OLD);
    next_boot(scene);
    bool died = first_session_dies(scene);

    expect_survey(scene, "after the cut", "vvvvvEvv");
    put_on_medium(scene, 5, NEW);
    expect_survey(scene, "healed", "vvvvvvvv");
    life_goes_on(scene);
    return died;
}

START_TEST(trust_outlives_a_first_session_that_is_killed)
{
    for_every_step(cut_while_clean);
}
END_TEST

/* Cut in the middle of requests: nothing of the last boot is in flight, whatever the tables and words say. */
static bool cut_in_flight(struct scene *scene)
{
    static const struct order write = {.act = ACT_WRITE, .seed = NEWER, .offset = 2 * BLOCK, .length = BLOCK};
    static const struct order edge = {.act = ACT_WRITE, .seed = NEWER, .offset = 4 * BLOCK, .length = SECTOR};
    static const struct order punch = {.act = ACT_PUNCH, .offset = 6 * BLOCK, .length = BLOCK};
    static const struct order *const orders[] = {&write, &edge, &punch};
    struct answer answer;

    next_boot(scene);
    for (int i = 0; i < 3; i++) {
        struct actor writer = writer_of(scene);

        actor_stops_at(&writer, i == 2 ? "lower count:kill" : i ? "issue:kill" : "complete:kill");
        scene_that(scene, !actor_survives(&writer, orders[i], &answer), "request %d does not die", i);
    }
    next_boot(scene);
    bool died = first_session_dies(scene);

    expect_survey(scene, "after the cut", "vv?v?v?v");
    life_goes_on(scene);
    return died;
}

START_TEST(requests_of_the_last_boot_are_in_nobodys_way)
{
    for_every_step(cut_in_flight);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {doubts_outlive_a_first_session_that_is_killed,
                                  trust_outlives_a_first_session_that_is_killed,
                                  requests_of_the_last_boot_are_in_nobodys_way, NULL};

    return support_main(argc, argv, "sequences of boots", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
