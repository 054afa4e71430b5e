/* Programs without the shim at work on a file. */
#include "support/intrusion.h"

#include <stdio.h>

#include "support/sequence.h"

enum { BYTES = INTRUSION_BLOCKS * BLOCK, EDITED = 99 };

#define run(...) system_command((const char *const[]){__VA_ARGS__, NULL})

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

const struct intrusion intrusions[INTRUSIONS] = {
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

bool intrusion_has_rsync(void)
{
    return run("rsync", "--version");
}
