/*
 * A store that fails under a running program: its files are cut off, its disk breaks, fills, freezes or is gone. The program goes on with
 * stable pages and no checksums; its data is right, it never gets an error of the store's, and it is told once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"
#include "support/store_victim.h"
#include "support/support.h"

/* --- Running it --------------------------------------------------------------------------------------------------- */

static char data[4096], store[4096], disk[4096], image[4096];

/* The victim's file on the first file system, the store beside it. */
static void set_up(void)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    snprintf(data, sizeof(data), "%s", path_in(fs[0].path, "file"));
    snprintf(store, sizeof(store), "%s", path_in(fs[0].path, "store"));
    snprintf(disk, sizeof(disk), "%s", path_in(fs[0].path, "disk"));
    snprintf(image, sizeof(image), "%s", path_in(fs[0].path, "image"));
}

/* The store on a small file system of its own. @return false, having said so, where that cannot be had. */
static bool set_up_with_disk(const char *kind, unsigned megabytes)
{
    set_up();
    snprintf(store, sizeof(store), "%s", path_in(disk, "store"));
    if (small_filesystem_mount(kind, image, disk, megabytes))
        return true;
    test_skip("no small %s", kind);
    return false;
}

static struct child run(const char *mode, const char *argument)
{
    char variable[4200];

    snprintf(variable, sizeof(variable), "BOUNCEIO_STORE=%s", store);
    return child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, (const char *const[]){variable, NULL},
                          (const char *const[]){mode, data, argument, NULL});
}

static int lines_of(const char *text)
{
    int count = 0;

    for (; (text = strstr(text, "bounceio: ")) != NULL; text++)
        count++;
    return count;
}

/* The program gets through `command`, and is told `lines` times. */
static void gets_through(const char *mode, const char *command, int lines)
{
    struct child child = run(mode, command);

    ck_assert_msg(child_succeeded(&child), "%s", command);
    if (counting()) {
        ck_assert_msg(lines_of(child.errors) == lines, "%s: %d lines, not %d:\n%s", command, lines_of(child.errors),
                      lines, child.errors);
        ck_assert(lines == 0 || strstr(child.errors, store));
    }
    child_free(&child);
}

static void survives(const char *command, int lines)
{
    gets_through("--victim", command, lines);
}

static void later_runs_find_nothing_damaged(void)
{
    struct child child = run("--reader", NULL);

    ck_assert_msg(child_succeeded(&child), "the reader, with\n%s", child.errors);
    child_free(&child);
}

static const char *self(void)
{
    static char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

    ck_assert_int_gt(length, 0);
    return path;
}

/* --- Files that are cut off --------------------------------------------------------------------------------------- */

static void survives_cutting_off(const char *files, const char *size)
{
    char command[5 * 4096];

    set_up();
    snprintf(command, sizeof(command), "truncate -s %s %s/%s", size, store, files);
    survives(command, 1);
    later_runs_find_nothing_damaged();
}

START_TEST(a_map_that_loses_its_header)
{
    survives_cutting_off("maps/*", "0");
}
END_TEST

START_TEST(a_map_that_loses_its_region_words)
{
    survives_cutting_off("maps/*", "4096");
}
END_TEST

START_TEST(a_map_that_loses_its_block_words)
{
    survives_cutting_off("maps/*", "8192");
}
END_TEST

START_TEST(a_map_that_loses_its_second_window)
{
    survives_cutting_off("maps/*", "270336"); /* header, region words, block words of one region */
}
END_TEST

START_TEST(a_session_that_loses_its_file)
{
    survives_cutting_off("sessions/0", "0");
}
END_TEST

START_TEST(a_session_that_loses_its_table)
{
    survives_cutting_off("sessions/0", "4096");
}
END_TEST

START_TEST(a_store_that_loses_its_lock_file)
{
    survives_cutting_off("lock", "0");
}
END_TEST

START_TEST(a_store_that_loses_everything_at_once)
{
    survives_cutting_off("{lock,*/*}", "0");
}
END_TEST

START_TEST(a_thread_that_blocks_the_signal_and_is_the_first_to_meet_the_failure)
{
    char command[5 * 4096];

    set_up();
    snprintf(command, sizeof(command), "truncate -s 0 %s/sessions/0", store);
    gets_through("--latecomer", command, 1);
}
END_TEST

START_TEST(a_program_without_direct_io)
{
    char command[5 * 4096];

    set_up();
    survives("true", 0);
    snprintf(command, sizeof(command), "truncate -s 0 %s/{lock,*/*}", store);
    gets_through("--buffered-writer", command, 1);
    later_runs_find_nothing_damaged();
}
END_TEST

START_TEST(another_session_of_the_file)
{
    char command[5 * 4096], end[4200];

    set_up();
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct child other = run("--companion", NULL);

        _exit(child_succeeded(&other) ? 0 : 1);
    }
    /* The shell's parent is the victim; the eight bytes at 32 of a session's file are its process id. */
    snprintf(command, sizeof(command),
             "for f in %s/sessions/*; do [ $(od -An -j32 -N8 -tu8 $f) != $PPID ] || truncate -s 0 $f; done", store);
    survives(command, 1);
    snprintf(end, sizeof(end), "%s.stop", data);
    make_file_behind(end, 0, 0);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    later_runs_find_nothing_damaged();
}
END_TEST

/* --- Disks -------------------------------------------------------------------------------------------------------- */

static void survives_a_shutdown(const char *kind)
{
    char command[5 * 4096];

    if (!set_up_with_disk(kind, strcmp(kind, "xfs") == 0 ? 320 : 64))
        return;
    snprintf(command, sizeof(command), "%s --shut-down %s", self(), disk);
    survives(command, 1);
    filesystem_unmount(disk);
    ck_assert(image_mount(kind, image, disk));
    later_runs_find_nothing_damaged();
    filesystem_unmount(disk);
}

START_TEST(an_ext4_that_is_pulled_out)
{
    survives_a_shutdown("ext4");
}
END_TEST

START_TEST(an_xfs_that_is_pulled_out)
{
    survives_a_shutdown("xfs");
}
END_TEST

START_TEST(a_disk_that_is_full_when_copy_on_write_wants_space)
{
    char command[5 * 4096];

    if (!set_up_with_disk("btrfs", 128))
        return;
    /* What a snapshot shares must be copied when it is written, NOCOW or not. */
    ck_assert(system_command((const char *const[]){"btrfs", "subvolume", "create", path_in(disk, "sub"), NULL}));
    snprintf(store, sizeof(store), "%s", path_in(disk, "sub/store"));
    snprintf(command, sizeof(command),
             "sync; btrfs -q subvolume snapshot %s/sub %s/snap; "
             "dd if=/dev/zero of=%s/full bs=1M 2>/dev/null; dd if=/dev/zero of=%s/fuller bs=4k 2>/dev/null; sync; true",
             disk, disk, disk, disk);
    survives(command, 1);
    later_runs_find_nothing_damaged();
    filesystem_unmount(disk);
}
END_TEST

/* Where on its disk a file's byte is. */
static uint64_t place_on_disk(const char *path, uint64_t offset)
{
    _Alignas(struct fiemap) char room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)] = {0};
    struct fiemap *query = (struct fiemap *)room;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    *query =
        (struct fiemap){.fm_start = offset, .fm_length = BLOCK, .fm_flags = FIEMAP_FLAG_SYNC, .fm_extent_count = 1};
    ck_assert_int_eq(ioctl(fd, FS_IOC_FIEMAP, query), 0);
    ck_assert_uint_eq(query->fm_mapped_extents, 1);
    close(fd);
    return query->fm_extents[0].fe_physical + offset - query->fm_extents[0].fe_logical;
}

/* Make the image end at that byte, for the disk too. */
static bool cut_disk_off(uint64_t bytes)
{
    char command[5 * 4096];

    ck_assert_int_eq(truncate(image, (off_t)bytes), 0);
    snprintf(command, sizeof(command), "losetup -c $(findmnt -n -o SOURCE %s)", disk);
    return system_command((const char *const[]){"sh", "-c", command, NULL});
}

/*
 * The store's disk, which ends where that byte of the victim's map is. Without a journal: one beyond the end of the disk would make it
 * read-only. @return false, having said so, where that cannot be had.
 */
static bool set_up_with_map_unreadable_from(uint64_t offset)
{
    char command[5 * 4096];

    set_up();
    snprintf(store, sizeof(store), "%s", path_in(disk, "store"));
    make_file_behind(image, 0, 0);
    ck_assert_int_eq(truncate(image, 64 << 20), 0);
    if (geteuid() != 0 ||
        !system_command((const char *const[]){"mkfs.ext4", "-q", "-O", "^has_journal", image, NULL}) ||
        !image_mount("ext4", image, disk)) {
        test_skip("no small ext4");
        return false;
    }
    survives("true", 0);
    snprintf(command, sizeof(command), "ls -S %s/maps/* | head -1 | tr -d '\\n'", store);
    struct child child = child_run(WITHOUT_SHIM, NULL, (const char *const[]){"sh", "-c", command, NULL});
    uint64_t place = place_on_disk(child.output, offset);

    ck_assert_uint_ge(place, place_on_disk(child.output, 0)); /* what is before it can be read */
    child_free(&child);
    filesystem_unmount(disk);
    ck_assert(image_mount("ext4", image, disk));
    ck_assert(cut_disk_off(place));
    return true;
}

START_TEST(a_map_whose_words_cannot_be_read)
{
    if (!set_up_with_map_unreadable_from(8192))
        return;
    survives("true", 1);
    filesystem_unmount(disk);
}
END_TEST

START_TEST(commands_that_meet_words_that_cannot_be_read_say_that_they_could_not)
{
    char variable[4200];

    if (!set_up_with_map_unreadable_from(8192))
        return;
    snprintf(variable, sizeof(variable), "BOUNCEIO_STORE=%s", store);
    const char *const environment[] = {variable, NULL};
    const char *const commands[][4] = {{"stat", data, NULL},
                                       {"scrub", data, NULL},
                                       {"adopt", data, NULL},
                                       {"adopt", "--trust", data, NULL},
                                       {"gc", NULL}};
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        struct child child = command_ends(2, environment, commands[i]);

        ck_assert_msg(strstr(child.errors, store), "%s: %s", commands[i][0], child.errors);
        child_free(&child);
    }
    filesystem_unmount(disk);
}
END_TEST

START_TEST(a_map_whose_header_cannot_be_read_is_not_taken_for_a_damaged_one)
{
    if (!set_up_with_map_unreadable_from(0))
        return;
    survives("true", 1);
    ck_assert(system_command((const char *const[]){"sh", "-c", "! ls \"$0\"/maps/*.bad 2>/dev/null", store, NULL}));
    filesystem_unmount(disk);
}
END_TEST

START_TEST(a_disk_that_is_frozen_for_a_while)
{
    char command[5 * 4096];

    if (!set_up_with_disk("ext4", 64))
        return;
    snprintf(command, sizeof(command), "fsfreeze -f %s && { (sleep 0.5; fsfreeze -u %s) & }", disk, disk);
    survives(command, 0);
    later_runs_find_nothing_damaged();
    filesystem_unmount(disk);
}
END_TEST

START_TEST(a_disk_that_is_read_only_when_the_program_starts)
{
    if (!set_up_with_disk("ext4", 64))
        return;
    survives("true", 0);
    ck_assert(system_command((const char *const[]){"mount", "-o", "remount,ro", disk, NULL}));
    survives("true", 1);
    ck_assert(system_command((const char *const[]){"mount", "-o", "remount,rw", disk, NULL}));
    later_runs_find_nothing_damaged();
    filesystem_unmount(disk);
}
END_TEST

START_TEST(a_disk_that_is_unmounted_lazily)
{
    char command[5 * 4096];

    if (!set_up_with_disk("ext4", 64))
        return;
    snprintf(command, sizeof(command), "umount -l %s", disk);
    survives(command, 0);
}
END_TEST

START_TEST(a_store_that_is_removed)
{
    char command[5 * 4096];

    set_up();
    snprintf(command, sizeof(command), "rm -rf %s", store);
    survives(command, 1);
    later_runs_find_nothing_damaged();
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {STORE_VICTIM_MODES, {NULL, NULL}};
    const TTest *const tests[] = {a_map_that_loses_its_header,
                                  a_map_that_loses_its_region_words,
                                  a_map_that_loses_its_block_words,
                                  a_map_that_loses_its_second_window,
                                  a_session_that_loses_its_file,
                                  a_session_that_loses_its_table,
                                  a_store_that_loses_its_lock_file,
                                  a_store_that_loses_everything_at_once,
                                  a_thread_that_blocks_the_signal_and_is_the_first_to_meet_the_failure,
                                  a_program_without_direct_io,
                                  another_session_of_the_file,
                                  an_ext4_that_is_pulled_out,
                                  an_xfs_that_is_pulled_out,
                                  a_disk_that_is_full_when_copy_on_write_wants_space,
                                  a_map_whose_words_cannot_be_read,
                                  commands_that_meet_words_that_cannot_be_read_say_that_they_could_not,
                                  a_map_whose_header_cannot_be_read_is_not_taken_for_a_damaged_one,
                                  a_disk_that_is_frozen_for_a_while,
                                  a_disk_that_is_read_only_when_the_program_starts,
                                  a_disk_that_is_unmounted_lazily,
                                  a_store_that_is_removed,
                                  NULL};

    return support_main(argc, argv, "store faults", 60, modes, tests);
}
