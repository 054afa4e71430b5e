/*
 * Never crying wolf: what other programs do to a file, in every way an administrator has, while nobody uses it, while a program under the
 * shim has it open but does not write, and after such a program was killed in the middle of a write. What the file has then is what
 * is read, without an EIO, and it can be written and is known again.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/intrusion.h"
#include "support/sequence.h"

enum { BLOCKS = INTRUSION_BLOCKS, BYTES = BLOCKS * BLOCK, WRITTEN = 1, BACKED_UP = 2, NEWER = 4 };

/* --- Where the shim was meanwhile ---------------------------------------------------------------------------------- */

enum state { CLOSED, OPEN_AND_IDLE, KILLED, KILLED_BESIDE_ANOTHER, STATES };

static const char *const state_names[STATES] = {"while closed", "while open and idle", "after a kill",
                                                "after a kill beside another"};

struct scene {
    const struct test_fs *fs;
    const struct intrusion *intrusion;
    enum state state;
    struct place place;
    const char *environment[2];
    struct actor idle; /* has had the file open all the time */
};

#define scene_that(scene, condition, format, ...)                                                                      \
    ck_assert_msg(condition, "on %s, %s %s: " format, (scene)->fs->name, (scene)->intrusion->name,                     \
                  state_names[(scene)->state] __VA_OPT__(, ) __VA_ARGS__)

static void make_place(struct scene *scene)
{
    struct place *place = &scene->place;
    struct actor writer = actor_new(scene->environment);

    snprintf(place->path, sizeof(place->path), "%s/file-%td", scene->fs->path, scene->intrusion - intrusions);
    snprintf(place->backup, sizeof(place->backup), "%s.backup", place->path);
    snprintf(place->other, sizeof(place->other), "%s.other", place->path);
    unlink(place->path);
    actor_opens(&writer, place->path);
    actor_writes(&writer, BACKED_UP, 0, BLOCKS);
    actor_leaves(&writer);
    scene_that(scene, system_command((const char *const[]){"cp", "-p", place->path, place->backup, NULL}), "no backup");
    sequence_sleep(20);
}

/* The file is open and holds WRITTEN. */
static struct actor writer_of(const struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->place.path);
    actor_writes(&writer, WRITTEN, 0, BLOCKS);
    return writer;
}

static void die_in_a_write(const struct scene *scene, struct actor *writer)
{
    struct order order = {.act = ACT_WRITE, .seed = NEWER, .offset = 6 * BLOCK, .length = 2 * BLOCK};
    struct answer answer;

    actor_stops_at(writer, "complete:kill");
    scene_that(scene, !actor_survives(writer, &order, &answer), "it did not die");
}

/* Everything can be read, block by block and as a whole, and is what the file has. */
static void read_it_all(const struct scene *scene, struct actor *reader, bool by_this_name)
{
    static unsigned char content[BYTES];
    struct answer answer = actor_survey(reader, BLOCKS);

    scene_that(scene, !strpbrk(answer.survey, "EMe"), "read as \"%s\"", answer.survey);
    answer = actor_do(reader, &(struct order){.act = ACT_READ, .length = BYTES});
    scene_that(scene, answer.result >= 0, "reading it whole: %s", strerror(answer.error));
    if (!by_this_name)
        return;
    size_t length = read_behind(scene->place.path, content, BYTES, 0);

    scene_that(scene, answer.result == (int64_t)length && answer.hash == hash_bytes(HASH_START, content, length),
               "what was read is not what the file has");
}

/* Part of a block over what others left, then everything: it is all known again. */
static void write_again(const struct scene *scene)
{
    static const char all_verified[] = "vvvvvvvvvvvvvvvv";
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->place.path);
    actor_does(&writer,
               &(struct order){.act = ACT_WRITE, .seed = NEWER, .offset = 7 * BLOCK + SECTOR, .length = SECTOR});
    read_it_all(scene, &writer, true);
    actor_writes(&writer, NEWER, 0, BLOCKS);
    actor_leaves(&writer);
    struct answer answer = survey_of(scene->environment, scene->place.path, BLOCKS);

    scene_that(scene, strcmp(answer.survey, all_verified) == 0, "written again, but \"%s\"", answer.survey);
}

/* Until the shim is where it is to be while others change the file. */
static void begin(struct scene *scene)
{
    struct actor writer;

    make_place(scene);
    if (scene->state == KILLED_BESIDE_ANOTHER) {
        scene->idle = actor_new(scene->environment);
        actor_opens(&scene->idle, scene->place.path);
        actor_survey(&scene->idle, BLOCKS);
    }
    writer = writer_of(scene);
    if (scene->state == CLOSED)
        actor_leaves(&writer);
    else if (scene->state == OPEN_AND_IDLE)
        scene->idle = writer;
    else
        die_in_a_write(scene, &writer);
}

static void go_on(struct scene *scene)
{
    struct stat before, after;
    struct actor next;

    ck_assert_int_eq(stat(scene->place.path, &before), 0);
    scene_that(scene, scene->intrusion->intrude(&scene->place), "the intrusion failed");
    ck_assert_int_eq(stat(scene->place.path, &after), 0);
    if (scene->idle.pid)
        read_it_all(scene, &scene->idle, before.st_ino == after.st_ino);
    next = actor_new(scene->environment);
    actor_opens(&next, scene->place.path);
    read_it_all(scene, &next, true);
    actor_leaves(&next);
    write_again(scene);
    if (scene->idle.pid)
        actor_leaves(&scene->idle);
}

/* Every intrusion on every file system in the full run; otherwise the file systems take turns. */
static void nobody_cries_wolf(enum state state)
{
    static struct scene scenes[INTRUSIONS];
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;
    bool rsync = count > 0 && intrusion_has_rsync();

    for (size_t n = 0; count > 0 && n < rounds(1, count); n++) {
        for (size_t i = 0; i < INTRUSIONS; i++) {
            scenes[i] = (struct scene){.fs = &fs[(i + state + n) % count],
                                       .intrusion = &intrusions[i],
                                       .state = state,
                                       .environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp")}};
            begin(&scenes[i]);
        }
        /* Whoever comes within a second of a death may be taken for the dead program; later, or after an orderly end, nobody. */
        sequence_sleep(state < KILLED ? 50 : 1200);
        for (size_t i = 0; i < INTRUSIONS; i++) {
            if (intrusions[i].needs_rsync && !rsync)
                test_skip("no rsync");
            else
                go_on(&scenes[i]);
        }
    }
}

START_TEST(changed_by_others_while_closed)
{
    nobody_cries_wolf(CLOSED);
}
END_TEST

START_TEST(changed_by_others_while_open_and_idle)
{
    nobody_cries_wolf(OPEN_AND_IDLE);
}
END_TEST

START_TEST(changed_by_others_after_a_kill)
{
    nobody_cries_wolf(KILLED);
}
END_TEST

START_TEST(changed_by_others_after_a_kill_beside_another_session)
{
    nobody_cries_wolf(KILLED_BESIDE_ANOTHER);
}
END_TEST

/* --- What a program changes itself after others have ---------------------------------------------------------------- */

static void change_covers_up_no_edit(enum act act)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        struct scene scene = {.fs = &fs[i],
                              .intrusion = &intrusions[0],
                              .state = OPEN_AND_IDLE,
                              .environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp")}};

        for (; strcmp(scene.intrusion->name, "edit") != 0; scene.intrusion++)
            ;
        begin(&scene);
        sequence_sleep(150);
        scene_that(&scene, scene.intrusion->intrude(&scene.place), "the intrusion failed");
        actor_does(&scene.idle, &(struct order){.act = act,
                                                .seed = NEWER,
                                                .offset = act == ACT_APPEND ? BYTES : 14 * BLOCK,
                                                .length = act == ACT_TRUNCATE ? 15 * BLOCK : BLOCK});
        read_it_all(&scene, &scene.idle, true);
        actor_leaves(&scene.idle);
    }
}

START_TEST(a_direct_write_covers_up_no_edit)
{
    change_covers_up_no_edit(ACT_WRITE);
}
END_TEST

START_TEST(an_append_covers_up_no_edit)
{
    change_covers_up_no_edit(ACT_APPEND);
}
END_TEST

START_TEST(a_buffered_write_covers_up_no_edit)
{
    change_covers_up_no_edit(ACT_BUFFERED);
}
END_TEST

START_TEST(a_punch_covers_up_no_edit)
{
    change_covers_up_no_edit(ACT_PUNCH);
}
END_TEST

START_TEST(a_truncation_covers_up_no_edit)
{
    change_covers_up_no_edit(ACT_TRUNCATE);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {
        changed_by_others_while_closed,     changed_by_others_while_open_and_idle,
        changed_by_others_after_a_kill,     changed_by_others_after_a_kill_beside_another_session,
        a_direct_write_covers_up_no_edit,   an_append_covers_up_no_edit,
        a_buffered_write_covers_up_no_edit, a_punch_covers_up_no_edit,
        a_truncation_covers_up_no_edit,     NULL};

    return support_main(argc, argv, "wolf", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
