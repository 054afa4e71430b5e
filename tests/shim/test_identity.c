/*
 * One map for one inode, and never another's: inode numbers that are used again, snapshots in which a file has the number and the birth
 * time of the original. A file that inherited a map would be called damaged wherever it differs.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { OLD = 31, NEW = 32, BYTES = 8 * BLOCK };

static struct child run(const char *mode, const char *path, const char *seed)
{
    return child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, NULL, (const char *const[]){mode, path, seed, NULL});
}

static void runs_well(const char *mode, const char *path, int seed)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", seed);
    struct child child = run(mode, path, text);

    ck_assert_msg(child_succeeded(&child), "%s %s", mode, path);
    child_free(&child);
}

/* FILE SEED: writes the pattern. */
static int writer(int argc, char **argv)
{
    check_that(argc == 2, "usage: --writer FILE SEED");
    direct_write(direct_open(argv[0], O_RDWR | O_CREAT), strtoull(argv[1], NULL, 10), 0, BYTES);
    return 0;
}

/* FILE SEED: finds the pattern, without a word of damage, and without anything being known of the blocks. */
static int stranger(int argc, char **argv)
{
    check_that(argc == 2, "usage: --stranger FILE SEED");
    direct_check(direct_open(argv[0], O_RDWR), strtoull(argv[1], NULL, 10), 0, BYTES);
    check_that(counters().mismatches == 0, "healthy data was called damaged");
    check_that(counters().changed_outside == 0, "a map of another file was believed");
    check_that(counters().blocks_verified == 0, "a map of another file was used");
    return 0;
}

/* FILE SEED: finds the pattern, and every block's checksum. */
static int owner(int argc, char **argv)
{
    check_that(argc == 2, "usage: --owner FILE SEED");
    direct_check(direct_open(argv[0], O_RDWR), strtoull(argv[1], NULL, 10), 0, BYTES);
    check_that(!counting() || counters().blocks_verified == BYTES / BLOCK, "not all blocks were verified");
    return 0;
}

static uint64_t inode_of(const char *path)
{
    struct stat status;

    ck_assert_int_eq(lstat(path, &status), 0);
    return status.st_ino;
}

/* --- Inode numbers that are used again ---------------------------------------------------------------------------- */

START_TEST(a_new_file_with_a_used_inode_number_where_no_birth_times_are_recorded)
{
    char image[4096], disk[4096], path[4200];
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    snprintf(image, sizeof(image), "%s", path_in(fs[0].path, "image"));
    snprintf(disk, sizeof(disk), "%s", path_in(fs[0].path, "disk"));
    snprintf(path, sizeof(path), "%s/file", disk);
    make_file_behind(image, 0, 0);
    ck_assert_int_eq(truncate(image, 32 << 20), 0);
    if (geteuid() != 0 || !system_command((const char *const[]){"mkfs.ext4", "-q", "-I", "128", image, NULL}) ||
        !image_mount("ext4", image, disk)) {
        test_skip("no ext4 with small inodes");
        return;
    }
    runs_well("--writer", path, OLD);
    uint64_t inode = inode_of(path);
    struct timespec times[2];
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    times[0] = status.st_atim;
    times[1] = status.st_mtim;
    ck_assert(system_command((const char *const[]){"rm", path, NULL}));
    make_file_behind(path, NEW, BYTES);
    ck_assert_uint_eq(inode_of(path), inode);
    /* A copy that keeps its times, of a file that was written in the same moment. */
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    runs_well("--stranger", path, NEW);
    filesystem_unmount(disk);
}
END_TEST

/* --- Snapshots ---------------------------------------------------------------------------------------------------- */

START_TEST(a_file_in_a_snapshot_has_a_map_of_its_own)
{
    char original[4200], copy[4200];
    struct test_fs fs;

    if (geteuid() != 0 || !test_filesystem("btrfs", &fs)) {
        test_skip("no btrfs");
        return;
    }
    snprintf(original, sizeof(original), "%s/sub/file", fs.path);
    snprintf(copy, sizeof(copy), "%s/snap/file", fs.path);
    const char *sub = path_in(fs.path, "sub"), *snap = path_in(fs.path, "snap");
    ck_assert(system_command((const char *const[]){"btrfs", "subvolume", "create", sub, NULL}));
    runs_well("--writer", original, OLD);
    ck_assert(system_command((const char *const[]){"btrfs", "subvolume", "snapshot", sub, snap, NULL}));
    ck_assert_uint_eq(inode_of(original), inode_of(copy));
    runs_well("--stranger", copy, OLD);
    runs_well("--writer", copy, NEW);
    runs_well("--owner", original, OLD);
    runs_well("--owner", copy, NEW);
    ck_assert(system_command((const char *const[]){"btrfs", "subvolume", "delete", snap, sub, NULL}));
}
END_TEST

START_TEST(a_file_keeps_its_map_when_its_file_system_is_mounted_again)
{
    char image[4200], disk[4200], path[4300];
    const char *const kinds[] = {"ext4", "xfs", "btrfs"};
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (int i = 0; i < 3; i++) {
        snprintf(image, sizeof(image), "%s/%s.image", fs[0].path, kinds[i]);
        snprintf(disk, sizeof(disk), "%s/%s", fs[0].path, kinds[i]);
        snprintf(path, sizeof(path), "%s/file", disk);
        if (!small_filesystem_mount(kinds[i], image, disk, i == 0 ? 32 : i == 1 ? 320 : 128)) {
            test_skip("no small %s", kinds[i]);
            continue;
        }
        runs_well("--writer", path, OLD);
        filesystem_unmount(disk);
        ck_assert(image_mount(kinds[i], image, disk));
        runs_well("--owner", path, OLD);
        filesystem_unmount(disk);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {
        {"--writer", writer}, {"--stranger", stranger}, {"--owner", owner}, {NULL, NULL}};
    const TTest *const tests[] = {a_new_file_with_a_used_inode_number_where_no_birth_times_are_recorded,
                                  a_file_in_a_snapshot_has_a_map_of_its_own,
                                  a_file_keeps_its_map_when_its_file_system_is_mounted_again, NULL};

    return support_main(argc, argv, "identity", 60, modes, tests);
}
