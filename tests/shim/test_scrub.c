/*
 * bounceio scrub: it finds what is damaged and nothing else, whatever programs under the shim do meanwhile; and it ends doubts that have
 * turned out to be unfounded.
 *
 * What each kind of damage looks like to it is asked by test_corruption.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/busy.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"

enum { BLOCKS = BUSY_BLOCKS, BYTES = BLOCKS * BLOCK };

#define BOOT_A "BOUNCEIO_TEST_BOOT_ID=00000000000000000000000000000001"
#define BOOT_B "BOUNCEIO_TEST_BOOT_ID=00000000000000000000000000000002"

/* A file of BLOCKS blocks of the pattern 1, written under the shim, and its store. */
struct scene {
    char path[4200];
    const char *environment[3];
};

static const char *scratch(void)
{
    return getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
}

static bool open_scene(struct scene *scene, const char *boot)
{
    struct test_fs fs[TEST_FS_MAX];

    if (!actors_can_play())
        return false;
    sequence_filesystems(fs);
    snprintf(scene->path, sizeof(scene->path), "%s", path_in(fs->path, "file"));
    scene->environment[0] = store_variable(scratch());
    scene->environment[1] = boot;
    scene->environment[2] = NULL;
    return true;
}

static void write_file(const struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, 1, 0, BLOCKS);
    actor_leaves(&writer);
    sequence_sleep(10);
}

static uint64_t scrub_counts(const struct scene *scene, int status, const char *key)
{
    return command_counts(status, scene->environment, "scrub", scene->path, key);
}

START_TEST(a_healthy_file_is_verified_block_by_block)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    struct child child = command_ends(0, scene.environment, (const char *const[]){"scrub", "--json", scene.path, NULL});

    ck_assert_uint_eq(command_total(&child, "blocks_verified"), BLOCKS);
    ck_assert_uint_eq(command_total(&child, "blocks_unverified"), 0);
    ck_assert_uint_eq(command_total(&child, "bytes_read"), BYTES);
    child_free(&child);
}
END_TEST

START_TEST(damage_is_named_by_range)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    flip_bit_behind(scene.path, 7 * BLOCK + 5, 3);
    flip_bit_behind(scene.path, 8 * BLOCK, 0);
    struct child child = command_ends(1, scene.environment, (const char *const[]){"scrub", "--json", scene.path, NULL});

    ck_assert_uint_eq(command_total(&child, "mismatches"), 2);
    ck_assert_ptr_nonnull(strstr(child.output, "\"offset\": 28672"));
    ck_assert_ptr_nonnull(strstr(child.output, "\"length\": 8192"));
    ck_assert_ptr_nonnull(strstr(child.errors, "offset=28672 length=4096 expected="));
    child_free(&child);
}
END_TEST

START_TEST(results_are_json)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    flip_bit_behind(scene.path, 0, 0);
    struct child child =
        command_ends(1, scene.environment, (const char *const[]){"scrub", "--json", scene.path, "/nowhere", NULL});
    char results[4220];

    snprintf(results, sizeof(results), "%s.json", scene.path);
    make_file_behind(results, 0, 0);
    write_behind(results, child.output, strlen(child.output), 0);
    ck_assert(system_command((const char *const[]){"python3", "-m", "json.tool", results, NULL}));
    child_free(&child);
}
END_TEST

START_TEST(a_directory_is_scrubbed_and_files_without_checksums_are_passed_over)
{
    struct scene scene;
    char directory[4300], inside[4400], linked[4400];

    if (!open_scene(&scene, NULL))
        return;
    snprintf(directory, sizeof(directory), "%s.d", scene.path);
    snprintf(inside, sizeof(inside), "%s/inside", directory);
    snprintf(linked, sizeof(linked), "%s/linked", directory);
    mkdir(directory, 0700);
    write_file(&scene);
    ck_assert_int_eq(rename(scene.path, inside), 0);
    ck_assert_int_eq(link(inside, linked), 0);
    make_file_behind(path_in(directory, "plain"), 1, BYTES);
    struct child child = command_ends(0, scene.environment, (const char *const[]){"scrub", "--json", directory, NULL});

    ck_assert_uint_eq(command_total(&child, "files"), 1);
    ck_assert_uint_eq(command_total(&child, "blocks_verified"), BLOCKS);
    ck_assert_uint_eq(command_total(&child, "files_without_checksums"), 1);
    child_free(&child);
}
END_TEST

START_TEST(a_named_file_without_checksums_cannot_be_verified)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    make_file_behind(scene.path, 1, BYTES);
    struct child child = command_ends(2, scene.environment, (const char *const[]){"scrub", scene.path, NULL});

    ck_assert_ptr_nonnull(strstr(child.errors, "no checksums"));
    child_free(&child);
}
END_TEST

START_TEST(what_does_not_exist_cannot_be_verified)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    struct child child =
        command_ends(2, scene.environment, (const char *const[]){"scrub", "/nowhere/at/all", scene.path, NULL});

    ck_assert_ptr_nonnull(strstr(child.output, "64 verified"));
    child_free(&child);
}
END_TEST

/* --- While programs write ----------------------------------------------------------------------------------------- */

START_TEST(what_is_being_written_is_no_damage)
{
    struct scene scene;
    unsigned scrubs = 0;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    pid_t writers[2] = {busy_start(scene.environment, scene.path), busy_start(scene.environment, scene.path)};

    for (; busy_is_running(writers[0]); scrubs++) {
        ck_assert_uint_eq(scrub_counts(&scene, 0, "changed_outside"), 0);
        usleep(20 * 1000);
    }
    busy_end(writers[0]);
    busy_end(writers[1]);
    ck_assert_uint_gt(scrubs, 1);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "changed_outside"), 0);
}
END_TEST

/* --- Doubts ------------------------------------------------------------------------------------------------------- */

static void edit_outside(const char *path, uint64_t seed)
{
    char source[4300], input[4320], output[4320];

    snprintf(source, sizeof(source), "%s.edit", path);
    make_file_behind(source, seed, 2 * BLOCK);
    snprintf(input, sizeof(input), "if=%s", source);
    snprintf(output, sizeof(output), "of=%s", path);
    sequence_sleep(100);
    ck_assert(system_command(
        (const char *const[]){"dd", "bs=4096", "conv=notrunc,fsync", "status=none", input, output, NULL}));
    sequence_sleep(100);
}

START_TEST(a_file_changed_outside_is_adopted_and_then_believed_again)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    edit_outside(scene.path, 2);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "changed_outside"), 2);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "blocks_verified"), BLOCKS);
    flip_bit_behind(scene.path, 9 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 1, "mismatches"), 1);
}
END_TEST

START_TEST(a_file_that_was_only_touched_is_believed_again)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    sequence_sleep(100);
    ck_assert(system_command((const char *const[]){"touch", scene.path, NULL}));
    sequence_sleep(100);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "changed_outside"), 0);
    flip_bit_behind(scene.path, 9 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 1, "mismatches"), 1);
}
END_TEST

/* A program is killed while it has the file open; then the machine starts again. */
static void crash(struct scene *scene)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, 1, 0, BLOCKS);
    actor_is_killed(&writer);
    sequence_sleep(10);
    scene->environment[1] = BOOT_B;
}

START_TEST(what_an_unclean_stop_has_torn_is_recovered)
{
    struct scene scene;

    if (!open_scene(&scene, BOOT_A))
        return;
    crash(&scene);
    flip_bit_behind(scene.path, 5 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "recovered_blocks"), 1);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "blocks_verified"), BLOCKS);
}
END_TEST

START_TEST(a_region_found_whole_is_suspect_no_longer)
{
    struct scene scene;

    if (!open_scene(&scene, BOOT_A))
        return;
    crash(&scene);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "blocks_verified"), BLOCKS);
    flip_bit_behind(scene.path, 5 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 1, "mismatches"), 1);
}
END_TEST

/* Requests that a killed program had in flight, at this step, when the machine stopped. @return the scene under the next boot. */
static bool leave_in_flight(struct scene *scene, const char *step, const struct order *request)
{
    struct answer answer;

    if (!open_scene(scene, BOOT_A))
        return false;
    unlink(scene->path);
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, 1, 0, BLOCKS);
    actor_stops_at(&writer, step);
    ck_assert(!actor_survives(&writer, request, &answer));
    sequence_sleep(10);
    scene->environment[1] = BOOT_B;
    return true;
}

/* Whatever was in flight: one scrub, and every block has a checksum that holds. */
static void scrub_settles(const char *step, const struct order *request, uint64_t recovered)
{
    struct scene scene;

    if (!leave_in_flight(&scene, step, request))
        return;
    ck_assert_uint_eq(scrub_counts(&scene, 0, "recovered_blocks"), recovered);
    ck_assert_uint_eq(scrub_counts(&scene, 0, "blocks_verified"), BLOCKS);
    flip_bit_behind(scene.path, 3 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 1, "mismatches"), 1);
}

START_TEST(a_write_that_a_stop_has_kept_from_the_disk_is_settled)
{
    scrub_settles("issue:kill", &(struct order){.act = ACT_WRITE, .seed = 2, .offset = 2 * BLOCK, .length = 4 * BLOCK},
                  0);
}
END_TEST

START_TEST(a_write_that_was_on_the_disk_when_the_machine_stopped_is_settled)
{
    scrub_settles("complete:kill",
                  &(struct order){.act = ACT_WRITE, .seed = 2, .offset = 2 * BLOCK, .length = 4 * BLOCK}, 0);
}
END_TEST

START_TEST(parts_of_blocks_that_were_on_the_disk_when_the_machine_stopped_are_recovered)
{
    scrub_settles("complete:kill",
                  &(struct order){.act = ACT_WRITE, .seed = 2, .offset = 2 * BLOCK + SECTOR, .length = 4 * BLOCK}, 2);
}
END_TEST

START_TEST(a_suspect_region_that_is_trusted_is_suspect_no_longer)
{
    struct scene scene;

    if (!open_scene(&scene, BOOT_A))
        return;
    crash(&scene);
    flip_bit_behind(scene.path, 5 * BLOCK, 0);
    struct child child =
        command_ends(0, scene.environment, (const char *const[]){"adopt", "--trust", scene.path, NULL});

    child_free(&child);
    flip_bit_behind(scene.path, 6 * BLOCK, 0);
    ck_assert_uint_eq(scrub_counts(&scene, 1, "mismatches"), 1);
}
END_TEST

/* A scrub that stands between the first and the second half of the file's blocks. */
static pid_t start_half_a_scrub(const struct scene *scene)
{
    char stop[64];
    int status;

    snprintf(stop, sizeof(stop), "BOUNCEIO_TEST_STOP=load pending#%d:stop", BLOCKS / 2);
    command_use("steps");
    const char *stopping[] = {scene->environment[0], stop, NULL};
    pid_t scrub =
        command_start(stopping, (const char *const[]){"scrub", "--jobs", "1", scene->path, NULL}, "/dev/null");

    ck_assert_int_eq(waitpid(scrub, &status, WUNTRACED), scrub);
    ck_assert_msg(WIFSTOPPED(status), "status %x", (unsigned)status);
    return scrub;
}

static int end_scrub(pid_t scrub)
{
    int status;

    kill(scrub, SIGCONT);
    ck_assert_int_eq(waitpid(scrub, &status, 0), scrub);
    ck_assert_msg(WIFEXITED(status), "status %x", (unsigned)status);
    return WEXITSTATUS(status);
}

START_TEST(a_file_that_is_changed_outside_once_more_while_it_is_scrubbed_stays_doubtful)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    edit_outside(scene.path, 2);
    pid_t scrub = start_half_a_scrub(&scene);

    edit_outside(scene.path, 3);
    ck_assert_int_eq(end_scrub(scrub), 0);
    flip_bit_behind(scene.path, 9 * BLOCK, 0);
    ck_assert_uint_ge(scrub_counts(&scene, 0, "changed_outside"), 1);
}
END_TEST

/* --- Failure ------------------------------------------------------------------------------------------------------ */

/* Cut off every map of the store. */
static void cut_maps(const struct scene *scene)
{
    char command[4400];

    snprintf(command, sizeof(command), "truncate -s 0 \"%s\"/maps/*", strchr(scene->environment[0], '=') + 1);
    ck_assert(system_command((const char *const[]){"sh", "-c", command, NULL}));
}

START_TEST(checksums_that_fail_under_a_scrub_verify_nothing)
{
    struct scene scene;

    if (!open_scene(&scene, NULL))
        return;
    write_file(&scene);
    pid_t scrub = start_half_a_scrub(&scene);

    cut_maps(&scene);
    ck_assert_int_eq(end_scrub(scrub), 2);
}
END_TEST

/* --- Interruption ------------------------------------------------------------------------------------------------- */

START_TEST(an_interrupted_scrub_says_what_was_done_and_leaves_nothing_behind)
{
    struct scene scene;
    char results[4220];
    int status;

    if (!open_scene(&scene, NULL))
        return;
    struct actor writer = actor_new(scene.environment);

    actor_opens(&writer, scene.path);
    for (uint64_t first = 0; first < 64 * 1024; first += 1024)
        actor_writes(&writer, 1, first, 1024);
    actor_leaves(&writer);
    snprintf(results, sizeof(results), "%s.json", scene.path);
    for (unsigned wait = 1; wait < 1000; wait *= 2) {
        pid_t pid = command_start(scene.environment,
                                  (const char *const[]){"scrub", "--json", "--jobs", "1", scene.path, NULL}, results);

        usleep(wait * 1000);
        kill(pid, SIGINT);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
            break;
    }
    ck_assert_msg(WIFEXITED(status) && (WEXITSTATUS(status) == 130 || WEXITSTATUS(status) == 0), "status %x", status);
    ck_assert(system_command((const char *const[]){"python3", "-m", "json.tool", results, NULL}));
    ck_assert_uint_eq(scrub_counts(&scene, 0, "blocks_verified"), 64 * 1024);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, BUSY_MODE, {NULL, NULL}};
    const TTest *const tests[] = {a_healthy_file_is_verified_block_by_block,
                                  damage_is_named_by_range,
                                  results_are_json,
                                  a_directory_is_scrubbed_and_files_without_checksums_are_passed_over,
                                  a_named_file_without_checksums_cannot_be_verified,
                                  what_does_not_exist_cannot_be_verified,
                                  what_is_being_written_is_no_damage,
                                  a_file_changed_outside_is_adopted_and_then_believed_again,
                                  a_file_that_was_only_touched_is_believed_again,
                                  what_an_unclean_stop_has_torn_is_recovered,
                                  a_region_found_whole_is_suspect_no_longer,
                                  a_write_that_a_stop_has_kept_from_the_disk_is_settled,
                                  a_write_that_was_on_the_disk_when_the_machine_stopped_is_settled,
                                  parts_of_blocks_that_were_on_the_disk_when_the_machine_stopped_are_recovered,
                                  a_suspect_region_that_is_trusted_is_suspect_no_longer,
                                  a_file_that_is_changed_outside_once_more_while_it_is_scrubbed_stays_doubtful,
                                  checksums_that_fail_under_a_scrub_verify_nothing,
                                  an_interrupted_scrub_says_what_was_done_and_leaves_nothing_behind,
                                  NULL};

    return support_main(argc, argv, "scrub", 120, modes, tests);
}
