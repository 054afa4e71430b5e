/*
 * Corruption: whatever a disk can do to a file behind everybody's back, times and all. Every block that is not what was written is
 * reported at its exact place by whoever reads it, and by scrub, and no other; healed, everything is verified again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"

enum { BLOCKS = 192, BYTES = BLOCKS * BLOCK, BEFORE = 1, NOW = 2 };

/* What is on the medium, as it should be and as it is. */
struct image {
    unsigned char was[BYTES];     /* before the last write of each block */
    unsigned char written[BYTES]; /* acknowledged: what the checksums are of */
    unsigned char found[BYTES];   /* on the damaged medium */
    uint64_t size;                /* of the file on it */
    struct random random;
};

static uint64_t any_block(struct image *image)
{
    return random_below(&image->random, BLOCKS);
}

static unsigned char *block_of(unsigned char *bytes, uint64_t block)
{
    return bytes + block * BLOCK;
}

static void put(struct image *image, uint64_t block, const unsigned char *content, uint64_t from)
{
    memcpy(block_of(image->found, block), content + from * BLOCK, BLOCK);
}

/* --- What disks do ------------------------------------------------------------------------------------------------ */

static void flip_bits(struct image *image)
{
    for (int i = 0; i < 12; i++)
        image->found[random_below(&image->random, BYTES)] ^= (unsigned char)(1U << random_below(&image->random, 8));
}

static void swap_blocks(struct image *image)
{
    for (int i = 0; i < 4; i++) {
        uint64_t one = any_block(image), other = any_block(image);

        put(image, one, image->written, other);
        put(image, other, image->written, one);
    }
}

static void lose_writes(struct image *image)
{
    for (int i = 0; i < 8; i++) {
        uint64_t block = any_block(image);

        put(image, block, image->was, block);
    }
}

/* The content is where another block should be, and not where it should be. */
static void misdirect_writes(struct image *image)
{
    for (int i = 0; i < 4; i++) {
        uint64_t block = any_block(image);

        put(image, any_block(image), image->written, block);
        put(image, block, image->was, block);
    }
}

static void tear_writes(struct image *image)
{
    for (int i = 0; i < 8; i++) {
        uint64_t block = any_block(image);
        size_t sectors = 1 + random_below(&image->random, BLOCK / SECTOR - 1);

        memcpy(block_of(image->found, block), block_of(image->was, block), sectors * SECTOR);
    }
}

static void zero_blocks(struct image *image)
{
    for (int i = 0; i < 3; i++) {
        uint64_t first = any_block(image), blocks = 1 + random_below(&image->random, 5);

        if (first + blocks <= BLOCKS)
            memset(block_of(image->found, first), 0, blocks * BLOCK);
    }
}

static void zero_everything(struct image *image)
{
    memset(image->found, 0, BYTES);
}

static void move_everything(struct image *image)
{
    memmove(block_of(image->found, 1), image->written, BYTES - BLOCK);
}

static void cut_between_blocks(struct image *image)
{
    image->size = any_block(image) * BLOCK;
}

static void cut_inside_a_block(struct image *image)
{
    image->size = any_block(image) * BLOCK + 1 + random_below(&image->random, BLOCK - 1);
}

static void cut_everything(struct image *image)
{
    image->size = 0;
}

/* Cut, and as long as before: zeros at the end. */
static void cut_and_extend(struct image *image)
{
    uint64_t from = random_below(&image->random, BYTES);

    memset(image->found + from, 0, BYTES - from);
}

/* --- The scene ---------------------------------------------------------------------------------------------------- */

struct scene {
    const char *fs;
    const char *path;
    char log[4300];
    const char *environment[3];
    uint64_t log_read;
};

/* Write the image's blocks that differ from `old` to the medium, and its size. */
static void put_on_medium(const struct scene *scene, const unsigned char *from, const unsigned char *old, uint64_t size)
{
    uint64_t now = size_behind(scene->path);

    if (now != size)
        truncate_behind(scene->path, size);
    for (uint64_t begin = 0, end; begin < size; begin = end) {
        bool differs = memcmp(from + begin, old + begin, BLOCK) != 0 || begin + BLOCK > now;

        for (end = begin + BLOCK; end < size; end += BLOCK)
            if (differs != (memcmp(from + end, old + end, BLOCK) != 0 || end + BLOCK > now))
                break;
        if (differs)
            write_behind(scene->path, from + begin, (end < size ? end : size) - begin, begin);
    }
}

static bool is_damaged(const struct image *image, uint64_t block)
{
    static const unsigned char zeros[BLOCK];
    uint64_t offset = block * BLOCK;
    size_t length = offset >= image->size ? 0 : image->size - offset < BLOCK ? image->size - offset : BLOCK;

    /* What is missing of a block counts as zeros. */
    return memcmp(image->found + offset, image->written + offset, length) != 0 ||
           memcmp(image->written + offset + length, zeros, BLOCK - length) != 0;
}

/* Mismatch lines name these blocks and no others, each once. */
static void expect_lines(const struct scene *scene, const char *text, const char *survey, const char *kind)
{
    char logged[BLOCKS] = {0};

    for (const char *line = strstr(text, "checksum mismatch:"); line; line = strstr(line + 1, "checksum mismatch:")) {
        const char *offset = strstr(line, "offset=");

        ck_assert(offset && strncmp(strchr(offset, ' '), " length=4096 ", 13) == 0);
        logged[strtoull(offset + 7, NULL, 10) / BLOCK % BLOCKS]++;
    }
    for (uint64_t block = 0; block < BLOCKS; block++)
        ck_assert_msg(logged[block] == (survey[block] == 'E'), "on %s, %s: block %llu is named %d times", scene->fs,
                      kind, (unsigned long long)block, logged[block]);
}

static void expect_in_log(struct scene *scene, const char *survey, const char *kind)
{
    static char text[BLOCKS * 400];
    size_t n = read_behind(scene->log, text, sizeof(text) - 1, scene->log_read);

    text[n] = 0;
    scene->log_read += n;
    expect_lines(scene, text, survey, kind);
}

static void expect_by_scrub(const struct scene *scene, const char *survey, const char *kind)
{
    char command[4200];

    snprintf(command, sizeof(command), "%s/bounceio", getenv("BOUNCEIO_TEST_BUILD"));
    struct child scrub =
        child_run(WITHOUT_SHIM, (const char *const[]){scene->environment[0], "BOUNCEIO_LOG_FILE", NULL},
                  (const char *const[]){command, "scrub", "--quiet", scene->path, NULL});

    ck_assert_msg(WIFEXITED(scrub.status) && WEXITSTATUS(scrub.status) == (strchr(survey, 'E') != NULL),
                  "on %s, %s: scrub ended with %#x: %s%s", scene->fs, kind, (unsigned)scrub.status, scrub.output,
                  scrub.errors);
    expect_lines(scene, scrub.errors, survey, kind);
    child_free(&scrub);
}

static void damage_is_found(struct scene *scene, struct image *image, const char *kind, void (*damage)(struct image *))
{
    char expected[BLOCKS + 1] = {0};

    memcpy(image->found, image->written, BYTES);
    image->size = BYTES;
    damage(image);
    put_on_medium(scene, image->found, image->written, image->size);
    for (uint64_t block = 0; block < BLOCKS; block++)
        expected[block] = is_damaged(image, block) ? 'E' : 'v';
    struct answer answer = survey_of(scene->environment, scene->path, BLOCKS);

    ck_assert_msg(strcmp(answer.survey, expected) == 0, "on %s, %s:\n%s instead of\n%s", scene->fs, kind, answer.survey,
                  expected);
    expect_in_log(scene, expected, kind);
    struct child scrub = command_ends(strchr(expected, 'E') ? 1 : 0, scene->environment,
                                      (const char *const[]){"scrub", "--quiet", scene->path, NULL});

    child_free(&scrub);
    expect_in_log(scene, expected, kind);
    expect_by_scrub(scene, expected, kind);
    put_on_medium(scene, image->written, image->found, BYTES);
    memset(expected, 'v', BLOCKS);
    answer = survey_of(scene->environment, scene->path, BLOCKS);
    ck_assert_msg(strcmp(answer.survey, expected) == 0, "on %s, healed of %s:\n%s", scene->fs, kind, answer.survey);
}

/* Both versions of the file are written by a program under the shim. */
static void write_image(const struct scene *scene, struct image *image)
{
    struct actor writer = actor_new(scene->environment);

    actor_opens(&writer, scene->path);
    actor_writes(&writer, BEFORE, 0, BLOCKS);
    actor_writes(&writer, NOW, 0, BLOCKS);
    actor_leaves(&writer);
    pattern_fill(image->was, BYTES, BEFORE, 0);
    pattern_fill(image->written, BYTES, NOW, 0);
    sequence_sleep(10);
}

static void found_everywhere(const char *kind, void (*damage)(struct image *))
{
    static struct image image;
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? test_filesystems(fs) : 0;

    image.random.state = random_run_seed();
    /* Every file system in the full run; otherwise every other one, the other ones for the other kinds. */
    for (size_t i = rounds(strlen(kind) % 2, 0); i < count; i += rounds(2, 1)) {
        struct scene scene = {.fs = fs[i].name, .path = path_in(fs[i].path, "file")};

        snprintf(scene.log, sizeof(scene.log), "BOUNCEIO_LOG_FILE=%s.log", scene.path);
        scene.environment[0] = store_variable(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        scene.environment[1] = strdup(scene.log);
        memmove(scene.log, strchr(scene.log, '=') + 1, strlen(strchr(scene.log, '=')));
        make_file_behind(scene.log, 0, 0);
        write_image(&scene, &image);
        for (size_t round = 0; round < rounds(1, 30); round++)
            damage_is_found(&scene, &image, kind, damage);
    }
}

#define FOUND(name, damage)                                                                                            \
    START_TEST(name)                                                                                                   \
    {                                                                                                                  \
        found_everywhere(#name, damage);                                                                               \
    }                                                                                                                  \
    END_TEST

FOUND(flipped_bits, flip_bits)
FOUND(swapped_blocks, swap_blocks)
FOUND(lost_writes, lose_writes)
FOUND(misdirected_writes, misdirect_writes)
FOUND(torn_writes, tear_writes)
FOUND(zeroed_blocks, zero_blocks)
FOUND(a_file_of_zeros, zero_everything)
FOUND(a_file_shifted_by_one_block, move_everything)
FOUND(a_file_cut_between_blocks, cut_between_blocks)
FOUND(a_file_cut_inside_a_block, cut_inside_a_block)
FOUND(an_empty_file, cut_everything)
FOUND(a_file_cut_and_extended, cut_and_extend)

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES, ACTOR_MODE, {NULL, NULL}};
    const TTest *const tests[] = {flipped_bits,
                                  swapped_blocks,
                                  lost_writes,
                                  misdirected_writes,
                                  torn_writes,
                                  zeroed_blocks,
                                  a_file_of_zeros,
                                  a_file_shifted_by_one_block,
                                  a_file_cut_between_blocks,
                                  a_file_cut_inside_a_block,
                                  an_empty_file,
                                  a_file_cut_and_extended,
                                  NULL};

    return support_main(argc, argv, "corruption", getenv("BOUNCEIO_TEST_FULL") ? 3600 : 120, modes, tests);
}
