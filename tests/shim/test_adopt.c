/*
 * Adoption: blocks take the checksum of the content that they have, by the command or at their first read (BOUNCEIO_ADOPT=1), and
 * whoever writes or changes them meanwhile, no checksum is ever recorded that is not the content's.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/busy.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"

enum { BLOCKS = BUSY_BLOCKS, BYTES = BLOCKS * BLOCK };

struct scene {
    char path[4200];
    const char *environment[4];
};

/* A store of its own, and a file of the pattern 1 that nobody under the shim has ever seen. */
static bool open_scene(struct scene *scene)
{
    struct test_fs fs[TEST_FS_MAX];

    if (!actors_can_play())
        return false;
    sequence_filesystems(fs);
    *scene = (struct scene){.environment = {store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp")}};
    snprintf(scene->path, sizeof(scene->path), "%s", path_in(fs->path, "file"));
    make_file_behind(scene->path, 1, BYTES);
    return true;
}

static uint64_t counts(const struct scene *scene, const char *what, int status, const char *key)
{
    return command_counts(status, scene->environment, what, scene->path, key);
}

static void trust(const struct scene *scene)
{
    struct child child =
        command_ends(0, scene->environment, (const char *const[]){"adopt", "--trust", scene->path, NULL});

    child_free(&child);
}

/* --- The command -------------------------------------------------------------------------------------------------- */

START_TEST(every_block_takes_a_checksum)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    ck_assert_uint_eq(counts(&scene, "adopt", 0, "blocks_adopted"), BLOCKS);
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS);
    flip_bit_behind(scene.path, 11 * BLOCK, 0);
    ck_assert_uint_eq(counts(&scene, "scrub", 1, "mismatches"), 1);
}
END_TEST

START_TEST(a_block_that_the_file_ends_in_is_adopted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    make_file_behind(scene.path, 1, BYTES - 100);
    ck_assert_uint_eq(counts(&scene, "adopt", 0, "blocks_adopted"), BLOCKS);
    flip_bit_behind(scene.path, BYTES - 101, 0);
    ck_assert_uint_eq(counts(&scene, "scrub", 1, "mismatches"), 1);
}
END_TEST

START_TEST(a_program_under_the_shim_agrees_with_what_was_adopted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    ck_assert_uint_eq(counts(&scene, "adopt", 0, "blocks_adopted"), BLOCKS);
    struct answer answer = survey_of(scene.environment, scene.path, BLOCKS);

    ck_assert_uint_eq(strspn(answer.survey, "v"), BLOCKS);
}
END_TEST

START_TEST(a_damaged_block_is_not_adopted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    flip_bit_behind(scene.path, 11 * BLOCK, 0);
    ck_assert_uint_eq(counts(&scene, "adopt", 0, "blocks_adopted"), 0);
    ck_assert_uint_eq(counts(&scene, "scrub", 1, "mismatches"), 1);
}
END_TEST

START_TEST(a_damaged_block_is_adopted_when_it_is_trusted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    flip_bit_behind(scene.path, 11 * BLOCK, 0);
    trust(&scene);
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS);
}
END_TEST

START_TEST(the_end_of_a_file_that_was_cut_off_is_forgotten_when_the_rest_is_trusted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    truncate_behind(scene.path, BYTES / 2);
    ck_assert_uint_eq(counts(&scene, "scrub", 1, "mismatches"), BLOCKS / 2);
    trust(&scene);
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS / 2);
}
END_TEST

START_TEST(a_file_changed_outside_is_believed_again_when_it_is_trusted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    sequence_sleep(100);
    make_file_behind(scene.path, 2, BYTES);
    sequence_sleep(100);
    trust(&scene);
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "changed_outside"), 0);
    flip_bit_behind(scene.path, 11 * BLOCK, 0);
    ck_assert_uint_eq(counts(&scene, "scrub", 1, "mismatches"), 1);
}
END_TEST

START_TEST(a_large_hole_stays_without_checksums)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    truncate_behind(scene.path, (uint64_t)64 << 20);
    struct child child = command_ends(0, scene.environment, (const char *const[]){"adopt", "--json", scene.path, NULL});

    ck_assert_uint_eq(command_total(&child, "blocks_adopted") + command_total(&child, "blocks_in_holes"), 16384);
    ck_assert_uint_eq(command_total(&child, "blocks_in_holes"), 15 * 1024);
    child_free(&child);
}
END_TEST

START_TEST(the_store_itself_is_not_adopted)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    struct child child = command_ends(
        0, scene.environment, (const char *const[]){"adopt", "--json", strchr(scene.environment[0], '=') + 1, NULL});

    ck_assert_uint_eq(command_total(&child, "files"), 0);
    child_free(&child);
}
END_TEST

START_TEST(a_killed_adoption_is_settled_by_whoever_comes_next)
{
    static const char *const places[] = {"announce adoption", "CAS pending 0->new#9", "read again",
                                         "publish#9",         "current=new#9",        "leave in-flight"};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct scene scene;
        char stop[64];
        int status;

        if (!open_scene(&scene))
            return;
        snprintf(stop, sizeof(stop), "BOUNCEIO_TEST_STOP=%s:kill", places[i]);
        const char *killing[] = {scene.environment[0], stop, NULL};

        command_use("steps");
        pid_t adoption = command_start(killing, (const char *const[]){"adopt", scene.path, NULL}, "/dev/null");

        ck_assert_int_eq(waitpid(adoption, &status, 0), adoption);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", places[i], (unsigned)status);
        counts(&scene, "adopt", 0, "blocks_adopted");
        ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS);
    }
}
END_TEST

START_TEST(what_is_written_while_it_is_adopted_has_its_own_checksum)
{
    struct scene scene;
    unsigned adoptions = 0;

    if (!open_scene(&scene))
        return;
    command_use("steps");
    scene.environment[1] = "BOUNCEIO_TEST_DELAYS=300:8";
    pid_t writers[2] = {busy_start(scene.environment, scene.path), busy_start(scene.environment, scene.path)};

    for (; busy_is_running(writers[0]); adoptions++) {
        counts(&scene, "adopt", 0, "blocks_adopted");
        if (adoptions % 4 == 3)
            trust(&scene);
    }
    busy_end(writers[0]);
    busy_end(writers[1]);
    ck_assert_uint_gt(adoptions, 1);
    counts(&scene, "adopt", 0, "blocks_adopted");
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS);
}
END_TEST

/* --- BOUNCEIO_ADOPT=1 --------------------------------------------------------------------------------------------- */

static struct iovec vector_of(void *memory, size_t length)
{
    return (struct iovec){.iov_base = memory, .iov_len = length};
}

/* arguments: file, how to read it (pages, place, nowait), how many blocks are verified by a second reading. */
static int read_twice(int argc, char **argv)
{
    check_that(argc == 3, "usage: --read-twice FILE HOW VERIFIED");
    int fd = direct_open(argv[0], O_RDONLY);
    uint64_t verified = 0;

    for (int reading = 0; reading < 2; reading++) {
        verified = counters().blocks_verified;
        for (off_t at = 0; at < BYTES; at += 4 * BLOCK) {
            struct iovec vector =
                vector_of(strcmp(argv[1], "pages") == 0 ? direct_memory() : aligned_memory(), 4 * BLOCK);
            ssize_t n = preadv2(fd, &vector, 1, at, argv[1][0] == 'n' ? RWF_NOWAIT : 0);

            check_that(n == 4 * BLOCK || (argv[1][0] == 'n' && n == -1 && errno == EAGAIN), "reading gave %zd", n);
        }
    }
    verified = counters().blocks_verified - verified;
    check_that(!counting() || (counters().bytes_in_place > 0) == (strcmp(argv[1], "pages") != 0), "read otherwise");
    check_that(!counting() || verified == strtoull(argv[2], NULL, 10), "%llu blocks verified",
               (unsigned long long)verified);
    sequence_no_mismatch();
    return 0;
}

static void read_adopts(const char *how, const char *verified)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    /* Of a file without a map nothing is read in place. */
    struct actor writer = actor_new(scene.environment);

    actor_opens(&writer, scene.path);
    actor_writes(&writer, 1, BLOCKS, 1);
    actor_leaves(&writer);
    scene.environment[1] = "BOUNCEIO_ADOPT=1";
    scene.environment[2] = "BOUNCEIO_READ=inplace"; /* where memory is aligned */
    sequence_run_with(scene.environment, (const char *const[]){"--read-twice", scene.path, how, verified, NULL});
}

START_TEST(blocks_read_through_pages_are_adopted)
{
    read_adopts("pages", "64");
}
END_TEST

START_TEST(blocks_read_in_place_are_adopted)
{
    read_adopts("place", "64");
}
END_TEST

START_TEST(nothing_is_adopted_under_nowait)
{
    read_adopts("nowait", "0");
}
END_TEST

/* Whatever somebody else does to the first blocks while an adopting reader stands before this step, nothing wrong is recorded. */
static void disturb(const struct scene *scene, const char *step, const struct order *disturbance)
{
    const char *adopting[] = {scene->environment[0], "BOUNCEIO_ADOPT=1", NULL};
    struct actor reader = actor_new(adopting), other = actor_new(scene->environment);
    char where[64];

    actor_opens(&reader, scene->path);
    actor_opens(&other, scene->path);
    /* Unknown. */
    actor_does(&other, &(struct order){.act = ACT_BUFFERED, .seed = 1, .length = 4 * BLOCK});
    actor_does(&other, &(struct order){.act = ACT_FSYNC});
    snprintf(where, sizeof(where), "%s:stop", step);
    actor_stops_at(&reader, where);
    actor_begin(&reader, &(struct order){.act = ACT_READ, .length = 4 * BLOCK});
    actor_await_stop(&reader);
    actor_do(&other, disturbance);
    actor_continue(&reader);
    ck_assert_int_ge(actor_finish(&reader).result, 0);
    struct answer answer = actor_survey(&other, 4);

    ck_assert_msg(!strpbrk(answer.survey, "EMeo"), "%d before \"%s\": \"%s\"", disturbance->act, step, answer.survey);
    actor_leaves(&reader);
    actor_leaves(&other);
}

START_TEST(whatever_is_done_between_two_steps_of_an_adoption_is_seen)
{
    static const char *const steps[] = {
        "load pending",       "choose what to adopt", "announce adoption", "enter in-flight",
        "CAS pending 0->new", "read again",           "conclude",          "publish",
        "current=new",        "CAS pending new->0",   "leave in-flight",
    };
    static const struct order disturbances[] = {
        {.act = ACT_WRITE, .seed = 2, .length = 2 * BLOCK},
        {.act = ACT_WRITE, .seed = 2, .offset = SECTOR, .length = 2 * BLOCK},
        {.act = ACT_BUFFERED, .seed = 2, .length = 2 * BLOCK},
        {.act = ACT_PUNCH, .length = 2 * BLOCK},
        {.act = ACT_TRUNCATE, .length = 2 * BLOCK + 100},
    };
    struct scene scene;

    if (!open_scene(&scene))
        return;
    counts(&scene, "adopt", 0, "blocks_adopted");
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        for (size_t j = 0; j < sizeof(disturbances) / sizeof(disturbances[0]); j++)
            disturb(&scene, steps[i], &disturbances[j]);
}
END_TEST

/* arguments: file. Reads it, in place and through pages, with BOUNCEIO_ADOPT=1, as long as others are busy. */
static int read_on(int argc, char **argv)
{
    check_that(argc == 1, "usage: --read-on FILE");
    int fd = direct_open(argv[0], O_RDONLY);

    for (size_t turn = 0; turn < 300; turn++) {
        void *memory = turn % 2 ? direct_memory() : aligned_memory();

        check_that(pread(fd, memory, 4 * BLOCK, (off_t)(turn % 16 * 4 * BLOCK)) >= 0, "reading");
        usleep(1000);
    }
    sequence_no_mismatch();
    return 0;
}

START_TEST(what_is_written_while_readers_adopt_has_its_own_checksum)
{
    struct scene scene;

    if (!open_scene(&scene))
        return;
    scene.environment[1] = "BOUNCEIO_ADOPT=1";
    scene.environment[2] = "BOUNCEIO_READ=inplace";
    pid_t writers[2] = {busy_start(scene.environment, scene.path), busy_start(scene.environment, scene.path)};

    while (busy_is_running(writers[0]))
        sequence_run_with(scene.environment, (const char *const[]){"--read-on", scene.path, NULL});
    busy_end(writers[0]);
    busy_end(writers[1]);
    sequence_run_with(scene.environment, (const char *const[]){"--read-on", scene.path, NULL});
    ck_assert_uint_eq(counts(&scene, "scrub", 0, "blocks_verified"), BLOCKS);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {
        SEQUENCE_MODES, ACTOR_MODE, BUSY_MODE, {"--read-twice", read_twice}, {"--read-on", read_on}, {NULL, NULL}};
    const TTest *const tests[] = {every_block_takes_a_checksum,
                                  a_block_that_the_file_ends_in_is_adopted,
                                  a_program_under_the_shim_agrees_with_what_was_adopted,
                                  a_damaged_block_is_not_adopted,
                                  a_damaged_block_is_adopted_when_it_is_trusted,
                                  the_end_of_a_file_that_was_cut_off_is_forgotten_when_the_rest_is_trusted,
                                  a_file_changed_outside_is_believed_again_when_it_is_trusted,
                                  a_large_hole_stays_without_checksums,
                                  the_store_itself_is_not_adopted,
                                  a_killed_adoption_is_settled_by_whoever_comes_next,
                                  what_is_written_while_it_is_adopted_has_its_own_checksum,
                                  blocks_read_through_pages_are_adopted,
                                  blocks_read_in_place_are_adopted,
                                  nothing_is_adopted_under_nowait,
                                  whatever_is_done_between_two_steps_of_an_adoption_is_seen,
                                  what_is_written_while_readers_adopt_has_its_own_checksum,
                                  NULL};

    return support_main(argc, argv, "adopt", 120, modes, tests);
}
