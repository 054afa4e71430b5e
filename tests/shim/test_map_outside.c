/*
 * Changes from outside: programs without the shim edit a file, or restore it with the times it had. What they wrote is adopted, never
 * reported; and what the program itself does to its file's times is not taken for such a change.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { BYTES = SEQUENCE_BYTES, BLOCKS = BYTES / BLOCK };

/* Another program, without the shim, writes `count` blocks of the pattern `seed` from block `first` on. */
static void edit_outside(const char *path, uint64_t seed, size_t first, size_t count)
{
    char source[4200], input[4220], output[4220], skip[32], seek[32], blocks[32];

    snprintf(source, sizeof(source), "%s.edit", path);
    make_file_behind(source, seed, BYTES);
    snprintf(input, sizeof(input), "if=%s", source);
    snprintf(output, sizeof(output), "of=%s", path);
    snprintf(skip, sizeof(skip), "skip=%zu", first);
    snprintf(seek, sizeof(seek), "seek=%zu", first);
    snprintf(blocks, sizeof(blocks), "count=%zu", count);
    check_that(system_command((const char *const[]){"dd", "bs=4096", "conv=notrunc,fsync", "status=none", input, output,
                                                    skip, seek, blocks, NULL}),
               "dd");
}

START_TEST(edited_outside_while_closed)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");

        sequence_run((const char *const[]){"--write", path, "1", NULL});
        sequence_sleep(50);
        edit_outside(path, 2, 0, BLOCKS);
        sequence_run((const char *const[]){"--check", path, "2", "1", NULL});
        sequence_idle_entries_are_true(path, BLOCKS);
    }
}
END_TEST

/* What the program does to its file between the edit and the read: it must not cover the edit up. */
static void cover(int fd, const char *path, const char *how)
{
    if (strcmp(how, "write") == 0)
        direct_write(fd, 1, 20 * BLOCK, BLOCK);
    else if (strcmp(how, "allocate") == 0)
        check_that(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, BYTES) == 0, "fallocate");
    else if (strcmp(how, "times") == 0)
        check_that(futimens(fd, NULL) == 0, "futimens");
    else if (strcmp(how, "times by path") == 0)
        check_that(utimensat(AT_FDCWD, path, NULL, 0) == 0, "utimensat");
}

/* arguments: file, what to do between the edit and the read. */
static int edited_while_open(int argc, char **argv)
{
    check_that(argc == 2, "usage: --edited-while-open FILE HOW");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);

    for (uint64_t round = 0; round < 3; round++) {
        direct_write(fd, 1, 0, BYTES);
        direct_check(fd, 1, 0, BYTES);
        sequence_sleep(150);
        edit_outside(argv[0], 2 + round, 3, 4);
        cover(fd, argv[0], argv[1]);
        direct_check(fd, 2 + round, 3 * BLOCK, 4 * BLOCK);
        direct_check(fd, 1, 0, 3 * BLOCK);
        direct_check(fd, 1, 7 * BLOCK, BYTES - 7 * BLOCK);
        check_that(!counting() || counters().changed_outside > 0, "the change was not noticed");
        sequence_no_mismatch();
    }
    return 0;
}

static void edit_while_open(const char *how)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");

        sequence_run((const char *const[]){"--edited-while-open", path, how, NULL});
        sequence_idle_entries_are_true(path, BLOCKS);
    }
}

START_TEST(edited_outside_while_open_and_idle)
{
    edit_while_open("idle");
}
END_TEST

START_TEST(an_own_write_does_not_cover_up_an_outside_edit)
{
    edit_while_open("write");
}
END_TEST

START_TEST(an_own_allocation_does_not_cover_up_an_outside_edit)
{
    edit_while_open("allocate");
}
END_TEST

START_TEST(times_set_by_the_program_do_not_cover_up_an_outside_edit)
{
    edit_while_open("times");
    edit_while_open("times by path");
}
END_TEST

/* How a file goes back to what it was, with the times it had. */
enum restore { CP_P, RSYNC_INPLACE, RSYNC, STEPPED_BACK };

static void restore(const char *backup, const char *path, enum restore how)
{
    char temporary[4200];

    switch (how) {
    case CP_P:
        check_that(system_command((const char *const[]){"cp", "-p", backup, path, NULL}), "cp");
        break;
    case RSYNC_INPLACE:
        edit_outside(path, 1, 0, BLOCKS);
        check_that(system_command((const char *const[]){"touch", "-r", backup, path, NULL}), "touch");
        break;
    case RSYNC:
        snprintf(temporary, sizeof(temporary), "%s.temporary", path);
        check_that(system_command((const char *const[]){"cp", "-p", backup, temporary, NULL}), "cp");
        check_that(system_command((const char *const[]){"mv", temporary, path, NULL}), "mv");
        break;
    case STEPPED_BACK:
        edit_outside(path, 1, 0, BLOCKS);
        check_that(system_command((const char *const[]){"touch", "-d", "2001-01-01", path, NULL}), "touch");
    }
}

static void restored_from_a_backup(enum restore how)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        const char *backup = path_in(fs[i].path, "backup");

        sequence_run((const char *const[]){"--write", path, "1", NULL});
        check_that(system_command((const char *const[]){"cp", "-p", path, backup, NULL}), "cp");
        sequence_sleep(50);
        sequence_run((const char *const[]){"--write", path, "2", NULL});
        sequence_sleep(50);
        restore(backup, path, how);
        /* A new file in the old one's place has no map to disagree with. */
        sequence_run((const char *const[]){"--check", path, "1", how == RSYNC ? "0" : "1", NULL});
        sequence_idle_entries_are_true(path, how == RSYNC ? 0 : BLOCKS);
    }
}

START_TEST(restored_with_cp_p)
{
    restored_from_a_backup(CP_P);
}
END_TEST

START_TEST(restored_in_place_with_its_times)
{
    restored_from_a_backup(RSYNC_INPLACE);
}
END_TEST

START_TEST(replaced_by_a_renamed_copy)
{
    restored_from_a_backup(RSYNC);
}
END_TEST

START_TEST(edited_while_the_clock_was_behind)
{
    restored_from_a_backup(STEPPED_BACK);
}
END_TEST

/* arguments: file. A program that sets its file's times itself has not been changed outside, and damage is still noticed. */
static int own_times(int argc, char **argv)
{
    static const struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000, .tv_nsec = 5}};

    check_that(argc == 1, "usage: --own-times FILE");
    direct_write(direct_open(argv[0], O_RDWR | O_CREAT), 1, 0, BYTES);
    for (int way = 0; counting() && way < 3; way++) {
        int fd = direct_open(argv[0], O_RDWR | O_CREAT);

        direct_write(fd, 1, 0, BYTES);
        if (way == 0)
            check_that(futimens(fd, past) == 0, "futimens");
        else if (way == 1)
            check_that(utimensat(AT_FDCWD, argv[0], past, 0) == 0, "utimensat");
        else
            check_that(futimens(fd, NULL) == 0, "futimens");
        direct_check(fd, 1, 0, BYTES);
        flip_bit_behind(argv[0], 9 * BLOCK, 0);
        check_that(pread(fd, direct_memory(), BYTES, 0) == -1 && errno == EIO, "way %d: a flipped bit was not noticed",
                   way);
        check_that(counters().mismatches == (uint64_t)way + 1 && counters().changed_outside == 0, "way %d", way);
        flip_bit_behind(argv[0], 9 * BLOCK, 0);
        direct_check(fd, 1, 0, BYTES);
        close(fd);
    }
    return 0;
}

START_TEST(a_program_that_sets_its_own_times_keeps_its_checksums)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        struct child child = child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, NULL,
                                            (const char *const[]){"--own-times", path, NULL});

        ck_assert_msg(child_succeeded(&child), "on %s", fs[i].name);
        child_free(&child);
        sequence_idle_entries_are_true(path, BLOCKS);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {
        SEQUENCE_MODES, {"--edited-while-open", edited_while_open}, {"--own-times", own_times}, {NULL, NULL}};
    const TTest *const tests[] = {edited_outside_while_closed,
                                  edited_outside_while_open_and_idle,
                                  an_own_write_does_not_cover_up_an_outside_edit,
                                  an_own_allocation_does_not_cover_up_an_outside_edit,
                                  times_set_by_the_program_do_not_cover_up_an_outside_edit,
                                  restored_with_cp_p,
                                  restored_in_place_with_its_times,
                                  replaced_by_a_renamed_copy,
                                  edited_while_the_clock_was_behind,
                                  a_program_that_sets_its_own_times_keeps_its_checksums,
                                  NULL};

    return support_main(argc, argv, "map outside", 120, modes, tests);
}
