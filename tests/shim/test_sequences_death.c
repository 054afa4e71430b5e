/*
 * Sequence 5: a process is killed before each single step of a request, alone and beside others, and while it settles what another one
 * left. Whatever the moment: no EIO, what was acknowledged before is verified, nothing stays in the way of the next writer, and damage
 * is still found. Sequence 10, a bit that flips after the kill, is the end of each of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum/format.h"
#include "support/actor.h"
#include "support/direct.h"
#include "support/sequence.h"

enum { BLOCKS = 12, BYTES = BLOCKS * BLOCK, FIRST = 4, LAST = 6, OLD = 1, NEW = 2, NEWER = 3, STEPS_MAX = 400 };

/* What the victim dies of. */
struct request {
    const char *name;
    bool mutates;   /* leaves blocks unknown, whatever it has written */
    uint64_t first; /* blocks that may not be as they were: [first, end) */
    uint64_t end;
    struct order order;
};

enum { WHOLE, PART, EDGES, PUNCH, BUFFERED, APPEND, TRUNCATION };

static const struct request requests[] = {
    [WHOLE] = {"whole blocks", false, 4, 6, {.act = ACT_WRITE, .seed = NEW, .offset = 4 * BLOCK, .length = 2 * BLOCK}},
    [PART] = {"part of a block",
              false,
              5,
              6,
              {.act = ACT_WRITE, .seed = NEW, .offset = 5 * BLOCK + SECTOR, .length = SECTOR}},
    [EDGES] =
        {"two edges", false, 4, 7, {.act = ACT_WRITE, .seed = NEW, .offset = 4 * BLOCK + 2048, .length = 2 * BLOCK}},
    [PUNCH] = {"a punch", true, 4, 6, {.act = ACT_PUNCH, .offset = 4 * BLOCK, .length = 2 * BLOCK}},
    [BUFFERED] =
        {"a buffered write", true, 4, 6, {.act = ACT_BUFFERED, .seed = NEW, .offset = 4 * BLOCK, .length = 2 * BLOCK}},
    [APPEND] =
        {"an append", true, BLOCKS, BLOCKS + 1, {.act = ACT_APPEND, .seed = NEW, .offset = BYTES, .length = BLOCK}},
    [TRUNCATION] = {"a truncation", true, 10, BLOCKS, {.act = ACT_TRUNCATE, .length = 10 * BLOCK + 100}},
};

/* One run of the sequence, for messages. */
struct scene {
    const char *fs;
    const char *path;
    const char *environment[3];
    const struct request *request;
    const char *where; /* the victim dies, as in BOUNCEIO_TEST_STOP; NULL: at step `step` of any name */
    int step;
    struct actor bystander; /* pid 0: nobody else has the file open */
};

#define scene_that(scene, condition, format, ...)                                                                      \
    ck_assert_msg(condition, "on %s, %s killed at step %d: " format, (scene)->fs, (scene)->request->name,              \
                  (scene)->step __VA_OPT__(, ) __VA_ARGS__)

static bool is_unchanged(const struct scene *scene, uint64_t block)
{
    unsigned char data[BLOCK];

    return read_behind(scene->path, data, BLOCK, block * BLOCK) == BLOCK &&
           pattern_check(data, BLOCK, OLD, block * BLOCK) == BLOCK;
}

/* Nothing that was acknowledged before is lost or doubted, and nothing healthy is called damaged. */
static void expect_as_after_death(const struct scene *scene, const struct answer *answer, bool settled)
{
    uint64_t blocks = (size_behind(scene->path) + BLOCK - 1) / BLOCK;

    for (uint64_t block = 0; block < blocks; block++) {
        bool in_doubt = block >= scene->request->first && block < scene->request->end;
        char letter = answer->survey[block];

        scene_that(scene, letter == 'v' || (letter == 'u' && in_doubt), "block %llu of \"%s\"",
                   (unsigned long long)block, answer->survey);
        if (!in_doubt || scene->request->mutates || !settled)
            continue;
        /* What is as it was recorded stays so; a whole block that has arrived is recorded. */
        bool part = scene->request->order.length < BLOCK || scene->request->order.offset % BLOCK != 0;

        scene_that(scene, letter == 'v' || (part && !is_unchanged(scene, block)),
                   "block %llu of \"%s\" has lost its sum", (unsigned long long)block, answer->survey);
    }
}

/* The victim writes the file and dies of its request. @return false when it came through: there are no more steps. */
static bool victim_dies(const struct scene *scene)
{
    struct actor victim = actor_new(scene->environment);
    struct answer answer;
    char where[32];

    actor_opens(&victim, scene->path);
    actor_does(&victim, &(struct order){.act = ACT_TRUNCATE, .length = BYTES});
    actor_writes(&victim, OLD, 0, BLOCKS);
    snprintf(where, sizeof(where), "*#%d:kill", scene->step);
    actor_stops_at(&victim, scene->where ? scene->where : where);
    if (!actor_survives(&victim, &scene->request->order, &answer))
        return true;
    scene_that(scene, answer.result >= 0, "it failed: %s", strerror(answer.error));
    actor_leaves(&victim);
    return false;
}

/* Whoever comes next can write, and what it writes is known; a bit that flips is found. */
static void life_goes_on(const struct scene *scene, struct actor *writer)
{
    static const char all_verified[] = "vvvvvvvvvvvv";
    char expected[BLOCKS + 1] = "vvvvvvvvvvvv";

    actor_writes(writer, NEWER, 0, BLOCKS);
    struct answer answer = survey_of(scene->environment, scene->path, BLOCKS);

    scene_that(scene, strcmp(answer.survey, all_verified) == 0, "written again, but \"%s\"", answer.survey);
    flip_bit_behind(scene->path, 9 * BLOCK + 77, 3);
    expected[9] = 'E';
    answer = survey_of(scene->environment, scene->path, BLOCKS);
    scene_that(scene, strcmp(answer.survey, expected) == 0, "after a flip in block 9: \"%s\"", answer.survey);
    flip_bit_behind(scene->path, 9 * BLOCK + 77, 3);
}

/* Has it all happened before the kill? Then the flip is looked for at once, while nobody has written since. */
static void flip_is_found_at_once(const struct scene *scene)
{
    flip_bit_behind(scene->path, 1 * BLOCK + 5, 6);
    struct answer answer = survey_of(scene->environment, scene->path, BLOCKS);

    scene_that(scene, answer.survey[1] == 'E', "a flip in block 1 was not found: \"%s\"", answer.survey);
    flip_bit_behind(scene->path, 1 * BLOCK + 5, 6);
}

/* `settled`: nobody has died over the dead one's requests. */
static void killed_alone(struct scene *scene, bool settled)
{
    struct actor next;

    flip_is_found_at_once(scene);
    next = actor_new(scene->environment);
    actor_opens(&next, scene->path);
    struct answer answer = actor_survey(&next, BLOCKS + 1);

    expect_as_after_death(scene, &answer, settled);
    life_goes_on(scene, &next);
    actor_leaves(&next);
}

/* The bystander has had the file open all the time. */
static void killed_beside(struct scene *scene)
{
    struct answer answer = actor_survey(&scene->bystander, BLOCKS + 1);

    expect_as_after_death(scene, &answer, false);
    answer = survey_of(scene->environment, scene->path, BLOCKS + 1);
    expect_as_after_death(scene, &answer, true);
    life_goes_on(scene, &scene->bystander);
}

static void make_scene(struct scene *scene, const struct test_fs *fs, const struct request *request, bool beside)
{
    *scene = (struct scene){.fs = fs->name,
                            .path = path_in(fs->path, beside ? "file beside" : "file"),
                            .environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"), NULL},
                            .request = request};
    unlink(scene->path);
    if (!beside)
        return;
    scene->bystander = actor_new(scene->environment);
    actor_opens(&scene->bystander, scene->path);
    actor_writes(&scene->bystander, OLD, 0, BLOCKS);
}

/*
 * The next step to be killed at: each of the first ones, then fewer and fewer (a truncation visits every word of the map); in the quick run every
 * other one from the tenth on, the odd ones or the even ones as the seed has it.
 */
static int next_step(int step)
{
    if (step == 10)
        return step + 1 + (int)rounds(random_run_seed() % 2, 0);
    return step + (step < 10 ? 1 : (int)rounds(2, 1)) + (step > 30 ? step / 6 : 0);
}

/* Each step in every scene in the full run; otherwise the scenes take turns. */
static void killed_at_every_step(const struct request *request)
{
    struct scene scenes[2 * TEST_FS_MAX];
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? 2 * sequence_filesystems(fs) : 0;
    bool died = count > 0;
    int step = 1;

    for (size_t i = 0; i < count; i++)
        make_scene(&scenes[i], &fs[i / 2], request, i % 2);
    for (size_t turn = 0; died; step = next_step(step)) {
        for (size_t n = 0; n < rounds(1, count) && died; n++, turn++) {
            struct scene *scene = &scenes[turn % count];

            scene->step = step;
            died = victim_dies(scene);
            if (died && scene->bystander.pid)
                killed_beside(scene);
            else if (died)
                killed_alone(scene, true);
        }
    }
    ck_assert_msg(count == 0 || step > 6, "%s has hardly any steps", request->name);
    for (size_t i = 0; i < count; i++)
        if (scenes[i].bystander.pid)
            actor_leaves(&scenes[i].bystander);
}

/* Each request in its own test; alone, and beside a session that has the file open. */
#define KILLED_IN(name, index)                                                                                         \
    START_TEST(name)                                                                                                   \
    {                                                                                                                  \
        killed_at_every_step(&requests[index]);                                                                        \
    }                                                                                                                  \
    END_TEST

KILLED_IN(killed_at_every_step_of_writing_whole_blocks, WHOLE)
KILLED_IN(killed_at_every_step_of_writing_part_of_a_block, PART)
KILLED_IN(killed_at_every_step_of_writing_two_edges, EDGES)
KILLED_IN(killed_at_every_step_of_a_punch, PUNCH)
KILLED_IN(killed_at_every_step_of_a_buffered_write, BUFFERED)
KILLED_IN(killed_at_every_step_of_an_append, APPEND)
KILLED_IN(killed_at_every_step_of_a_truncation, TRUNCATION)

/* --- Death over damage --------------------------------------------------------------------------------------------- */

/* A block is damaged, and whoever is about to find that out is killed. @return false when it came through. */
static bool finder_dies(const struct scene *scene, const struct order *order)
{
    struct actor finder = actor_new(scene->environment);
    struct answer answer;
    char where[32];

    actor_opens(&finder, scene->path);
    actor_writes(&finder, OLD, 0, BLOCKS);
    flip_bit_behind(scene->path, 4 * BLOCK + 2000, 1);
    snprintf(where, sizeof(where), "*#%d:kill", scene->step);
    actor_stops_at(&finder, where);
    if (!actor_survives(&finder, order, &answer))
        return true;
    actor_leaves(&finder);
    return false;
}

/* `letters`: what may be said of the damaged block afterwards. */
static void killed_over_damage(const struct request *request, const char *letters)
{
    struct scene scenes[TEST_FS_MAX];
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;
    bool died = count > 0;
    int step = 1;

    for (size_t i = 0; i < count; i++)
        make_scene(&scenes[i], &fs[i], request, false);
    for (size_t turn = 0; died; step++) {
        for (size_t n = 0; n < rounds(1, count) && died; n++, turn++) {
            struct scene *scene = &scenes[turn % count];

            scene->step = step;
            died = finder_dies(scene, &request->order);
            struct answer answer = survey_of(scene->environment, scene->path, BLOCKS);
            char letter = answer.survey[4];

            scene_that(scene, strchr(letters, letter), "the damaged block is %c", letter);
            answer.survey[4] = 'v';
            scene_that(scene, strcmp(answer.survey, "vvvvvvvvvvvv") == 0, "the others are \"%s\"", answer.survey);
        }
    }
    ck_assert_msg(count == 0 || step > 4, "%s has hardly any steps", request->name);
}

START_TEST(killed_at_every_step_of_finding_damage)
{
    static const struct request reading = {.name = "a read of a damaged block",
                                           .order = {.act = ACT_READ, .offset = 4 * BLOCK, .length = BLOCK}};

    killed_over_damage(&reading, "E");
}
END_TEST

/* Who dies over a part of a block may have torn it: then nothing is known of it. But nobody vouches for it. */
START_TEST(killed_at_every_step_of_writing_over_damage)
{
    static const struct request writing = {
        .name = "a write to a damaged block",
        .order = {.act = ACT_WRITE, .seed = NEW, .offset = 4 * BLOCK, .length = SECTOR}};

    killed_over_damage(&writing, "Eu");
}
END_TEST

/* --- Death of who settles ----------------------------------------------------------------------------------------- */

/* A session that opens the file and reads it, and is killed at its own step `step`. @return false when it came through. */
static bool settler_dies(const struct scene *scene, int step)
{
    char where[64];
    const char *environment[4] = {scene->environment[0], where, NULL};
    struct order open = {.act = ACT_OPEN};
    struct answer answer;

    snprintf(where, sizeof(where), "BOUNCEIO_TEST_STOP=*#%d:kill", step);
    snprintf(open.text, sizeof(open.text), "%s", scene->path);
    struct actor settler = actor_new(environment);

    if (!actor_survives(&settler, &open, &answer) ||
        !actor_survives(&settler, &(struct order){.act = ACT_SURVEY, .length = BLOCKS}, &answer))
        return true;
    actor_leaves(&settler);
    return false;
}

/* The victim dies in `request` where it says; then whoever settles that dies as well, at each of its steps. */
static void settler_killed_at_every_step(const struct request *request, const char *where)
{
    struct scene scenes[TEST_FS_MAX];
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;
    bool died = count > 0;
    int step = 1;

    for (size_t i = 0; i < count; i++) {
        make_scene(&scenes[i], &fs[i], request, false);
        scenes[i].where = where;
    }
    for (size_t turn = 0; died; step = next_step(step)) {
        for (size_t n = 0; n < rounds(1, count) && died; n++, turn++) {
            struct scene *scene = &scenes[turn % count];

            scene->step = step;
            scene_that(scene, victim_dies(scene), "it does not die at %s", where);
            died = settler_dies(scene, step);
            killed_alone(scene, false);
        }
    }
    ck_assert_msg(count == 0 || step > 6, "settling %s has hardly any steps", request->name);
}

START_TEST(killed_while_settling_written_blocks)
{
    settler_killed_at_every_step(&requests[WHOLE], "complete:kill");
}
END_TEST

START_TEST(killed_while_settling_a_mutator)
{
    settler_killed_at_every_step(&requests[PUNCH], "leave in-flight:kill");
}
END_TEST

/* --- Children ------------------------------------------------------------------------------------------------------ */

START_TEST(a_quiet_child_does_not_keep_its_dead_parents_requests_alive)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        struct scene scene;
        struct answer answer;

        make_scene(&scene, &fs[i], &requests[WHOLE], false);
        struct actor parent = actor_new(scene.environment);

        actor_opens(&parent, scene.path);
        actor_writes(&parent, OLD, 0, BLOCKS);
        pid_t child = (pid_t)actor_do(&parent, &(struct order){.act = ACT_FORK}).result;

        actor_stops_at(&parent, "complete:kill");
        ck_assert(!actor_survives(&parent, &scene.request->order, &answer));
        ck_assert_int_eq(kill(child, 0), 0);
        killed_alone(&scene, true);
        ck_assert_int_eq(kill(child, SIGKILL), 0);
    }
}
END_TEST

/* Does a process hold the session slot? As another process sees it. */
static bool slot_is_held(const struct scene *scene, int slot)
{
    struct flock byte = {.l_type = F_WRLCK, .l_start = STORE_LOCK_BYTE(slot), .l_len = 1};
    int fd = open(path_in(strchr(scene->environment[0], '=') + 1, "lock"), O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &byte), 0);
    close(fd);
    return byte.l_type != F_UNLCK;
}

START_TEST(a_child_that_writes_and_leaves_does_not_end_its_parents_session)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        struct scene scene;
        char where[4300], go[4200];

        make_scene(&scene, &fs[i], &requests[WHOLE], false);
        snprintf(go, sizeof(go), "%s", path_in(fs[i].path, "go"));
        struct actor parent = actor_new(scene.environment);
        struct actor other = actor_new(scene.environment);

        actor_opens(&parent, scene.path);
        actor_writes(&parent, OLD, 0, BLOCKS);
        actor_does(&parent, &(struct order){.act = ACT_FORK_AND_WRITE, .seed = OLD, .length = BYTES});
        ck_assert(slot_is_held(&scene, 0));
        snprintf(where, sizeof(where), "issue:wait=%s", go);
        actor_stops_at(&parent, where);
        actor_begin(&parent, &scene.request->order);
        sequence_sleep(20);
        /* The parent is in the middle of its write: who writes the same blocks must see it. */
        actor_opens(&other, scene.path);
        actor_writes(&other, NEWER, FIRST, LAST - FIRST);
        make_file_behind(go, 0, 0);
        ck_assert_int_eq(actor_finish(&parent).result, 2 * BLOCK);
        struct answer answer = actor_survey(&other, BLOCKS);

        ck_assert_msg(strcmp(answer.survey, "vvvvuuvvvvvv") == 0, "on %s: \"%s\"", fs[i].name, answer.survey);
        life_goes_on(&scene, &other);
        actor_leaves(&parent);
        actor_leaves(&other);
        unlink(go);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {killed_at_every_step_of_writing_whole_blocks,
                                  killed_at_every_step_of_writing_part_of_a_block,
                                  killed_at_every_step_of_writing_two_edges,
                                  killed_at_every_step_of_a_punch,
                                  killed_at_every_step_of_a_buffered_write,
                                  killed_at_every_step_of_an_append,
                                  killed_at_every_step_of_a_truncation,
                                  killed_at_every_step_of_finding_damage,
                                  killed_at_every_step_of_writing_over_damage,
                                  killed_while_settling_written_blocks,
                                  killed_while_settling_a_mutator,
                                  a_quiet_child_does_not_keep_its_dead_parents_requests_alive,
                                  a_child_that_writes_and_leaves_does_not_end_its_parents_session,
                                  NULL};

    return support_main(argc, argv, "sequences of death", 120, modes, tests);
}
