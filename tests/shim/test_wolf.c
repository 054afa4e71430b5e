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
#include "support/sequence.h"

enum { BLOCKS = 16, BYTES = BLOCKS * BLOCK, WRITTEN = 1, BACKED_UP = 2, EDITED = 3, NEWER = 4 };

/* The file, and what lies about it. */
struct place {
    char path[4150];
    char backup[4300]; /* an older state of it, with the times it had then */
    char other[4300];  /* a name for a while */
};

#define run(...) system_command((const char *const[]){__VA_ARGS__, NULL})

/* --- What others do ----------------------------------------------------------------------------------------------- */

static bool touch(const struct place *place)
{
    return run("touch", place->path);
}

static bool touch_into_the_past(const struct place *place)
{
    return run("touch", "-d", "2001-01-01 00:00:01", place->path);
}

static bool chmod_it(const struct place *place)
{
    return run("chmod", "640", place->path);
}

static bool rename_away_and_back(const struct place *place)
{
    return run("mv", place->path, place->other) && run("mv", place->other, place->path);
}

static bool hard_link(const struct place *place)
{
    return run("ln", place->path, place->other) && run("rm", place->other);
}

static bool become_the_other_link(const struct place *place)
{
    return run("ln", place->path, place->other) && run("rm", place->path) && run("mv", place->other, place->path);
}

static bool reflink_over_it(const struct place *place)
{
    return run("cp", "--reflink=auto", place->backup, place->path);
}

static bool reflink_from_it(const struct place *place)
{
    return run("cp", "--reflink=auto", place->path, place->other) && run("rm", place->other);
}

static bool cp_p(const struct place *place)
{
    return run("cp", "-p", place->backup, place->path);
}

static bool rsync_inplace(const struct place *place)
{
    return run("rsync", "--inplace", "--ignore-times", place->backup, place->path);
}

static bool rsync_inplace_with_times(const struct place *place)
{
    return run("rsync", "--inplace", "-t", "--ignore-times", place->backup, place->path);
}

static bool rsync_inplace_block_by_block(const struct place *place)
{
    return run("rsync", "--inplace", "-t", "--no-whole-file", "--ignore-times", place->backup, place->path);
}

static bool rsync_to_a_new_file(const struct place *place)
{
    return run("rsync", "-t", "--ignore-times", place->backup, place->path);
}

static bool restore_by_rename(const struct place *place)
{
    return run("cp", "-p", place->backup, place->other) && run("mv", place->other, place->path);
}

/* A few blocks in the middle, by a program without the shim. */
static bool edit(const struct place *place)
{
    char source[4400], input[4420], output[4220];

    snprintf(source, sizeof(source), "%s.edit", place->path);
    make_file_behind(source, EDITED, BYTES);
    snprintf(input, sizeof(input), "if=%s", source);
    snprintf(output, sizeof(output), "of=%s", place->path);
    return run("dd", "bs=4096", "conv=notrunc,fsync", "status=none", "skip=5", "seek=5", "count=6", input, output);
}

static bool edit_while_the_clock_is_behind(const struct place *place)
{
    return edit(place) && touch_into_the_past(place);
}

/* By a program without the shim that bypasses the page cache as well. */
static bool edit_directly(const struct place *place)
{
    char output[4220];

    snprintf(output, sizeof(output), "of=%s", place->path);
    return run("dd", "bs=4096", "conv=notrunc", "oflag=direct", "status=none", "seek=3", "count=7", "if=/dev/zero",
               output);
}

static bool punch(const struct place *place)
{
    return run("fallocate", "--punch-hole", "--offset", "8192", "--length", "20000", place->path);
}

static bool zero(const struct place *place)
{
    char output[4220];

    snprintf(output, sizeof(output), "of=%s", place->path);
    return run("dd", "bs=4096", "conv=notrunc", "status=none", "count=16", "if=/dev/zero", output);
}

static bool make_it_shorter(const struct place *place)
{
    return run("truncate", "--size", "30000", place->path);
}

static bool make_it_longer(const struct place *place)
{
    return run("truncate", "--size", "100000", place->path);
}

static bool shorter_and_longer(const struct place *place)
{
    return make_it_shorter(place) && make_it_longer(place);
}

static const struct intrusion {
    const char *name;
    bool (*intrude)(const struct place *place);
    bool needs_rsync;
} intrusions[] = {
    {"touch", touch, false},
    {"touch -d", touch_into_the_past, false},
    {"chmod", chmod_it, false},
    {"mv away and back", rename_away_and_back, false},
    {"ln", hard_link, false},
    {"ln, rm and mv", become_the_other_link, false},
    {"cp --reflink over it", reflink_over_it, false},
    {"cp --reflink from it", reflink_from_it, false},
    {"cp -p", cp_p, false},
    {"rsync --inplace", rsync_inplace, true},
    {"rsync -t --inplace", rsync_inplace_with_times, true},
    {"rsync -t --inplace --no-whole-file", rsync_inplace_block_by_block, true},
    {"rsync -t", rsync_to_a_new_file, true},
    {"cp -p and mv", restore_by_rename, false},
    {"edit", edit, false},
    {"edit while the clock is behind", edit_while_the_clock_is_behind, false},
    {"edit directly", edit_directly, false},
    {"punch", punch, false},
    {"zero", zero, false},
    {"make it shorter", make_it_shorter, false},
    {"make it longer", make_it_longer, false},
    {"make it shorter, then longer", shorter_and_longer, false},
};
enum { INTRUSIONS = sizeof(intrusions) / sizeof(intrusions[0]) };

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
    scene_that(scene, run("cp", "-p", place->path, place->backup), "no backup");
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
    bool rsync = count > 0 && run("rsync", "--version");

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

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {changed_by_others_while_closed, changed_by_others_while_open_and_idle,
                                  changed_by_others_after_a_kill, changed_by_others_after_a_kill_beside_another_session,
                                  NULL};

    return support_main(argc, argv, "wolf", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
