/*
 * Clocks that were set, and stores that were restored from a backup: what the map says of a file may be ahead of the file's times or behind them.
 * Never an EIO on healthy data; and as long as nobody else was at the file, damage is still found.
 */
#include <dirent.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/raw.h"
#include "checksum/format.h"
#include "support/actor.h"
#include "support/direct.h"
#include "support/intrusion.h"
#include "support/sequence.h"

enum { BLOCKS = INTRUSION_BLOCKS, OLD = 1, NEW = 2, NEWER = 3, HOUR = 3600 };

static const char all_verified[] = "vvvvvvvvvvvvvvvv";

struct scene {
    const char *fs;
    struct place place;
    const char *environment[2];
    int ahead; /* seconds: the clock's error while the file was written */
};

#define scene_that(scene, condition, format, ...)                                                                      \
    ck_assert_msg(condition, "on %s, clock %+d s: " format, (scene)->fs, (scene)->ahead __VA_OPT__(, ) __VA_ARGS__)

static const char *store_of(const struct scene *scene)
{
    return strchr(scene->environment[0], '=') + 1;
}

static void make_scene(struct scene *scene, const struct test_fs *fs)
{
    *scene =
        (struct scene){.fs = fs->name, .environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp")}};
    snprintf(scene->place.path, sizeof(scene->place.path), "%s", path_in(fs->path, "file"));
    snprintf(scene->place.other, sizeof(scene->place.other), "%s.other", scene->place.path);
    unlink(scene->place.path);
}

static void write_and_leave(const struct scene *scene, uint64_t seed)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->place.path);
    actor_writes(&writer, seed, 0, BLOCKS);
    actor_leaves(&writer);
}

/* It is written, and its writer dies in the middle of two blocks. */
static void write_and_die(const struct scene *scene, uint64_t seed)
{
    struct order order = {.act = ACT_WRITE, .seed = seed, .offset = 6 * BLOCK, .length = 2 * BLOCK};
    struct actor writer = actor_new(scene->environment);
    struct answer answer;

    actor_opens(&writer, scene->place.path);
    actor_writes(&writer, seed, 0, BLOCKS);
    actor_stops_at(&writer, "complete:kill");
    scene_that(scene, !actor_survives(&writer, &order, &answer), "it did not die");
}

static void expect_all_verified(const struct scene *scene, const char *when)
{
    struct answer answer = survey_of(scene->environment, scene->place.path, BLOCKS);

    scene_that(scene, strcmp(answer.survey, all_verified) == 0, "%s: \"%s\"", when, answer.survey);
}

static void expect_no_error(const struct scene *scene, const char *when)
{
    struct answer answer = survey_of(scene->environment, scene->place.path, BLOCKS);

    scene_that(scene, !strpbrk(answer.survey, "EMe"), "%s: \"%s\"", when, answer.survey);
}

static void expect_damage_found(const struct scene *scene, const char *when)
{
    flip_bit_behind(scene->place.path, 3 * BLOCK + 9, 2);
    struct answer answer = survey_of(scene->environment, scene->place.path, BLOCKS);

    scene_that(scene, answer.survey[3] == 'E', "%s, a flip in block 3: \"%s\"", when, answer.survey);
    flip_bit_behind(scene->place.path, 3 * BLOCK + 9, 2);
}

/* Written again, everything is known. */
static void life_goes_on(const struct scene *scene)
{
    write_and_leave(scene, NEWER);
    expect_all_verified(scene, "written again");
}

/* --- Clocks --------------------------------------------------------------------------------------------------------- */

/* The one map of the scene's store. */
static const char *map_of(const struct scene *scene)
{
    const char *maps = path_in(store_of(scene), "maps");
    const char *found = NULL;
    DIR *directory = opendir(maps);

    ck_assert_ptr_nonnull(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            found = path_in(maps, entry->d_name);
    closedir(directory);
    ck_assert_ptr_nonnull(found);
    return found;
}

static void move_stamp(const char *map, size_t offset, int seconds)
{
    int64_t stamp;

    ck_assert_uint_eq(read_behind(map, &stamp, sizeof(stamp), offset), sizeof(stamp));
    stamp += seconds * INT64_C(1000000000);
    write_behind(map, &stamp, sizeof(stamp), offset);
}

/* Let it all have happened while the clock was wrong: the file's times and the map's stamps are what they would be. */
static void move_the_past(struct scene *scene, int seconds)
{
    struct stat st;

    ck_assert_int_eq(stat(scene->place.path, &st), 0);
    st.st_atim.tv_sec += seconds;
    st.st_mtim.tv_sec += seconds;
    struct timespec times[2] = {st.st_atim, st.st_mtim};

    ck_assert_int_eq(raw(SYS_utimensat, AT_FDCWD, scene->place.path, times, 0), 0);
    move_stamp(map_of(scene), offsetof(struct map_header, window_issue), seconds);
    move_stamp(map_of(scene), offsetof(struct map_header, window_completion), seconds);
    scene->ahead = seconds;
}

static void clock_was_wrong(void (*play)(struct scene *scene))
{
    static const int errors[] = {HOUR, -HOUR, 2, -2};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    /* Every error on every file system in the full run; otherwise they take turns. */
    for (size_t i = 0; i < count; i++)
        for (size_t e = 0; e < rounds(2, sizeof(errors) / sizeof(errors[0])); e++) {
            struct scene scene;

            make_scene(&scene, &fs[i]);
            write_and_leave(&scene, NEW);
            move_the_past(&scene, errors[(e + i) % (sizeof(errors) / sizeof(errors[0]))]);
            play(&scene);
            life_goes_on(&scene);
        }
}

static void read_and_damage(struct scene *scene)
{
    expect_all_verified(scene, "read");
    expect_damage_found(scene, "read");
}

START_TEST(read_after_the_clock_was_set)
{
    clock_was_wrong(read_and_damage);
}
END_TEST

static void write_and_damage(struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->place.path);
    actor_does(&writer,
               &(struct order){.act = ACT_WRITE, .seed = NEWER, .offset = 5 * BLOCK + SECTOR, .length = SECTOR});
    expect_all_verified(scene, "while the writer has it open");
    actor_leaves(&writer);
    expect_all_verified(scene, "written");
    expect_damage_found(scene, "written");
}

START_TEST(written_after_the_clock_was_set)
{
    clock_was_wrong(write_and_damage);
}
END_TEST

static void edit(struct scene *scene)
{
    for (int i = 0; i < INTRUSIONS; i++)
        if (strcmp(intrusions[i].name, "edit") == 0)
            scene_that(scene, intrusions[i].intrude(&scene->place), "the edit failed");
    expect_no_error(scene, "edited");
}

START_TEST(edited_after_the_clock_was_set)
{
    clock_was_wrong(edit);
}
END_TEST

/* An outsider's edit, a write of ours that knows nothing of it, and only then a look at what was edited. */
static void edit_and_write(struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->place.path);
    for (int i = 0; i < INTRUSIONS; i++)
        if (strcmp(intrusions[i].name, "edit") == 0)
            scene_that(scene, intrusions[i].intrude(&scene->place), "the edit failed");
    actor_writes(&writer, NEWER, 15, 1);
    actor_leaves(&writer);
    expect_no_error(scene, "edited, then written");
}

START_TEST(edited_and_written_after_the_clock_was_set)
{
    clock_was_wrong(edit_and_write);
}
END_TEST

/* --- Stores --------------------------------------------------------------------------------------------------------- */

static void back_up_store(const struct scene *scene)
{
    char backup[4400];

    snprintf(backup, sizeof(backup), "%s.backup", store_of(scene));
    ck_assert(system_command((const char *const[]){"rm", "-rf", backup, NULL}));
    ck_assert(system_command((const char *const[]){"cp", "-a", store_of(scene), backup, NULL}));
}

static void restore_store(const struct scene *scene)
{
    char backup[4400];

    snprintf(backup, sizeof(backup), "%s.backup", store_of(scene));
    ck_assert(system_command((const char *const[]){"rm", "-rf", store_of(scene), NULL}));
    ck_assert(system_command((const char *const[]){"mv", backup, store_of(scene), NULL}));
}

static void for_every_filesystem(void (*play)(struct scene *scene))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++) {
        struct scene scene;

        make_scene(&scene, &fs[i]);
        play(&scene);
        life_goes_on(&scene);
    }
}

static void restored_store(struct scene *scene)
{
    write_and_leave(scene, OLD);
    back_up_store(scene);
    restore_store(scene);
    expect_all_verified(scene, "a store restored at once");
    back_up_store(scene);
    sequence_sleep(30);
    write_and_leave(scene, NEW);
    restore_store(scene);
    expect_no_error(scene, "a store older than the file");
}

START_TEST(a_store_restored_from_a_backup)
{
    for_every_filesystem(restored_store);
}
END_TEST

/* The store as it is while a request is under way: to whoever gets the copy, that request's process is dead. */
static void store_of_a_living(struct scene *scene)
{
    struct order order = {.act = ACT_WRITE, .seed = NEW, .offset = 6 * BLOCK, .length = 2 * BLOCK};
    struct actor writer = actor_new(scene->environment);
    char where[4400];

    write_and_leave(scene, OLD);
    snprintf(where, sizeof(where), "issue:wait=%s", scene->place.other);
    actor_opens(&writer, scene->place.path);
    actor_stops_at(&writer, where);
    actor_begin(&writer, &order);
    sequence_sleep(20);
    back_up_store(scene);
    make_file_behind(scene->place.other, 0, 0);
    ck_assert_int_eq(actor_finish(&writer).result, 2 * BLOCK);
    actor_leaves(&writer);
    unlink(scene->place.other);
    restore_store(scene);
    expect_no_error(scene, "a store backed up in the middle of a write");
    sequence_sleep(1200);
    back_up_store(scene);
    write_and_leave(scene, NEW);
    restore_store(scene);
    expect_no_error(scene, "and again");
}

START_TEST(a_store_backed_up_in_the_middle_of_a_write)
{
    for_every_filesystem(store_of_a_living);
}
END_TEST

/* Killed over it, restored, and opened. */
static void store_of_the_dead(struct scene *scene)
{
    write_and_die(scene, OLD);
    back_up_store(scene);
    write_and_leave(scene, NEW);
    sequence_sleep(1200);
    write_and_leave(scene, NEWER);
    restore_store(scene);
    expect_no_error(scene, "a store older than the file, with a dead session");
}

START_TEST(a_store_with_a_dead_session_restored_from_a_backup)
{
    for_every_filesystem(store_of_the_dead);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {read_after_the_clock_was_set,
                                  written_after_the_clock_was_set,
                                  edited_after_the_clock_was_set,
                                  edited_and_written_after_the_clock_was_set,
                                  a_store_restored_from_a_backup,
                                  a_store_backed_up_in_the_middle_of_a_write,
                                  a_store_with_a_dead_session_restored_from_a_backup,
                                  NULL};

    return support_main(argc, argv, "times", 120, modes, tests);
}
