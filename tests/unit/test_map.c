/*
 * Maps: opening, creating, sharing, and what is done with a map that cannot be trusted. Growth is in test_map_grow.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "checksum/region.h"
#include "checksum/session.h"
#include "checksum/store.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { SUM = 1001 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

static bool is_zero(const void *memory, size_t length)
{
    const unsigned char *bytes = memory;
    while (length > 0 && *bytes == 0)
        bytes++, length--;
    return length == 0;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static bool locked_map_exists(const struct map_key *key)
{
    uint64_t saved;
    process_lock(&saved);
    bool found = map_exists(key);
    process_unlock(&saved);
    return found;
}

/* ---- Keys. ---- */

START_TEST(a_key_names_the_inode_its_device_and_its_time)
{
    struct stat status;
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(fstat(fixture.fd, &status), 0);
    ck_assert_uint_eq(fixture.key.inode, status.st_ino);
    ck_assert_uint_eq(fixture.key.device, status.st_dev);
    ck_assert_int_eq(fixture.key.modified, status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec);
    ck_assert(!is_zero(fixture.key.filesystem, sizeof fixture.key.filesystem));
}
END_TEST

START_TEST(all_names_and_descriptors_of_a_file_have_one_key)
{
    struct map_key key;
    map_fixture_prepare(&fixture);
    char other[FIXTURE_PATH + 8];
    snprintf(other, sizeof other, "%s.link", fixture.path);
    ck_assert_int_eq(link(fixture.path, other), 0);
    int fd = open(other, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(map_key_of(fd, &key), 0);
    ck_assert_mem_eq(&key, &fixture.key, sizeof key);
}
END_TEST

START_TEST(a_path_descriptor_below_a_directory_that_may_not_be_read_has_the_same_key)
{
    struct map_key key;
    char directory[FIXTURE_PATH + 8], path[FIXTURE_PATH + 16];
    if (geteuid() != 0) {
        test_skip("what only root may not read needs root");
        return;
    }
    map_fixture_prepare(&fixture);
    snprintf(directory, sizeof directory, "%s.dir", fixture.path);
    snprintf(path, sizeof path, "%s/file", directory);
    ck_assert_int_eq(mkdir(directory, 0711), 0);
    ck_assert_int_eq(rename(fixture.path, path), 0);
    ck_assert_int_eq(chdir(directory), 0);
    ck_assert(process_start());
    ck_assert_int_eq(seteuid(65534), 0);
    int fd = open("file", O_PATH | O_CLOEXEC);
    int error = map_key_of(fd, &key);
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(error, 0);
    ck_assert_mem_eq(&key, &fixture.key, sizeof key);
}
END_TEST

START_TEST(a_new_file_in_the_place_and_inode_of_another_has_another_key)
{
    struct map_key key;
    map_fixture_prepare(&fixture);
    for (int i = 0; i < 20; i++) {
        close(fixture.fd);
        ck_assert_int_eq(unlink(fixture.path), 0);
        fixture.fd = open(fixture.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ck_assert_int_eq(map_key_of(fixture.fd, &key), 0);
        ck_assert_uint_ne(key.generation, fixture.key.generation);
        fixture.key = key;
    }
}
END_TEST

START_TEST(files_have_keys_of_their_own)
{
    struct map_key key;
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &key), 0);
    ck_assert_uint_ne(key.inode, fixture.key.inode);
    ck_assert_mem_eq(key.filesystem, fixture.key.filesystem, sizeof key.filesystem);
}
END_TEST

START_TEST(only_regular_files_have_keys)
{
    struct map_key key;
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(map_key_of(ends[0], &key), -ENOTSUP);
    ck_assert_int_eq(map_key_of(open("/dev/null", O_RDWR | O_CLOEXEC), &key), -ENOTSUP);
    ck_assert_int_eq(map_key_of(open("/", O_RDONLY | O_CLOEXEC), &key), -ENOTSUP);
    ck_assert_int_eq(map_key_of(-1, &key), -EBADF);
}
END_TEST

/* ---- Opening. ---- */

START_TEST(a_new_map_knows_nothing)
{
    uint64_t run;
    map_fixture_new(&fixture, 0);
    ck_assert(map_is_usable(map));
    ck_assert_ptr_null(map_words(map, 0, &run));
    ck_assert_uint_eq(map->header->flags, 0);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert_uint_eq(map->header->windows, 1);
    ck_assert_uint_ne(map->id, 0);
    ck_assert_int_eq(map->header->window_issue, fixture.key.modified);
    ck_assert_int_eq(map->header->window_completion, fixture.key.modified);
}
END_TEST

START_TEST(blocks_that_were_just_covered_are_unknown_and_idle)
{
    map_fixture_new(&fixture, UNIT_BLOCKS);
    for (uint64_t block = 0; block < UNIT_BLOCKS; block++)
        ck_assert_words(map, block, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(opening_without_creating_makes_nothing)
{
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), -ENOENT);
    ck_assert(is_zero(map, sizeof *map));
    ck_assert(!exists(fixture.store));
}
END_TEST

START_TEST(a_map_exists_once_it_was_created)
{
    struct map_key other;
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &other), 0);
    ck_assert(!locked_map_exists(&fixture.key));
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    ck_assert(locked_map_exists(&fixture.key));
    ck_assert(!locked_map_exists(&other));
}
END_TEST

START_TEST(creating_a_map_raises_the_store_s_generation_and_opening_one_does_not)
{
    map_fixture_new(&fixture, 0);
    uint64_t generation = store_shared()->map_generation;
    struct map again = {0}, second = {0};
    struct map_key other;
    ck_assert_int_eq(locked_map_open(&again, &fixture.key, true), 0);
    ck_assert_uint_eq(store_shared()->map_generation, generation);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &other), 0);
    ck_assert_int_eq(locked_map_open(&second, &other, true), 0);
    ck_assert_uint_eq(store_shared()->map_generation, generation + 1);
}
END_TEST

START_TEST(maps_of_two_files_are_apart)
{
    struct map second = {0};
    struct map_key other;
    map_fixture_new(&fixture, 1);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &other), 0);
    ck_assert_int_eq(locked_map_open(&second, &other, true), 0);
    ck_assert_int_eq(locked_map_cover(&second, 0, 1), 0);
    ck_assert_uint_ne(second.id, map->id);
    words_set(map, 0, SUM, WORD_IDLE);
    ck_assert_words(&second, 0, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(what_is_recorded_outlives_closing)
{
    map_fixture_new(&fixture, 8);
    uint64_t id = map->id;
    words_set(map, 5, SUM, WORD_IDLE);
    locked_map_close(map, false);
    ck_assert(is_zero(map, sizeof *map));
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_uint_eq(map->id, id);
    ck_assert_words(map, 5, SUM, WORD_IDLE);
}
END_TEST

START_TEST(two_opens_of_one_map_share_its_words)
{
    struct map again = {0};
    map_fixture_new(&fixture, 8);
    ck_assert_int_eq(locked_map_open(&again, &fixture.key, false), 0);
    ck_assert_uint_eq(again.id, map->id);
    words_set(map, 5, SUM, SUM + 1);
    ck_assert_words(&again, 5, SUM, SUM + 1);
    locked_map_close(map, false);
    ck_assert_words(&again, 5, SUM, SUM + 1);
}
END_TEST

static bool record_block_5(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    words_set(map, 5, SUM, WORD_IDLE);
    return true;
}

START_TEST(processes_share_one_map)
{
    map_fixture_new(&fixture, 8);
    peer_run(record_block_5, NULL);
    ck_assert_words(map, 5, SUM, WORD_IDLE);
}
END_TEST

START_TEST(nobody_else_can_read_or_write_a_store)
{
    struct stat status;
    map_fixture_new(&fixture, 8);
    const char *const directories[] = {fixture.store, path_in(fixture.store, "maps"),
                                       path_in(fixture.store, "sessions")};
    const char *const files[] = {map_fixture_map_path(&fixture, map), path_in(fixture.store, "lock"),
                                 path_in(fixture.store, "sessions/0")};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(stat(directories[i], &status), 0);
        ck_assert_uint_eq(status.st_mode & 07777, 0700);
        ck_assert_int_eq(stat(files[i], &status), 0);
        ck_assert_uint_eq(status.st_mode & 07777, 0600);
    }
}
END_TEST

START_TEST(no_temporary_file_is_left_behind)
{
    char command[FIXTURE_PATH + 64];
    map_fixture_new(&fixture, 8);
    snprintf(command, sizeof command, "test \"$(ls '%s/maps' | wc -l)\" = 1", fixture.store);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(the_map_of_a_file_that_is_gone_goes_with_it)
{
    map_fixture_new(&fixture, 8);
    const char *path = map_fixture_map_path(&fixture, map);
    locked_map_close(map, true);
    ck_assert(!exists(path));
}
END_TEST

static bool use_map(struct peer *peer, void *argument)
{
    (void)argument;
    map_fixture_reopen(&fixture);
    peer_pause(peer);
    words_of(map, 7);
    return true;
}

START_TEST(the_map_of_a_file_that_is_gone_stays_while_another_process_uses_it)
{
    struct peer peer;
    map_fixture_new(&fixture, 8);
    const char *path = map_fixture_map_path(&fixture, map);
    peer_start(&peer, use_map, NULL);
    peer_reach(&peer);
    locked_map_close(map, true);
    ck_assert(exists(path));
    peer_continue(&peer);
    peer_end(&peer);
}
END_TEST

/* ---- Another boot. ---- */

static bool create_in_boot_1(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    pretend_boot(1);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_int_eq(locked_map_cover(map, 0, 8), 0);
    words_set(map, 5, SUM, WORD_IDLE);
    region_make_durable(map, 0, 8);
    map->header->unsettled = 3;
    return true;
}

START_TEST(the_dirty_regions_of_another_boot_are_suspect_and_nobody_is_at_work)
{
    map_fixture_prepare(&fixture);
    peer_run(create_in_boot_1, NULL);
    pretend_boot(2);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert(region_is_suspect(map, 5));
    ck_assert(!region_any_dirty(map));
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert_uint_eq(map->header->boot[1], 2);
    ck_assert_words(map, 5, SUM, WORD_IDLE);
}
END_TEST

START_TEST(a_map_of_this_boot_is_not_suspect)
{
    map_fixture_prepare(&fixture);
    peer_run(create_in_boot_1, NULL);
    pretend_boot(1);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert(!region_is_suspect(map, 5));
    ck_assert(region_any_dirty(map));
    ck_assert_uint_eq(map->header->unsettled, 3);
}
END_TEST

static bool open_in_boot_2(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    pretend_boot(2);
    map_fixture_reopen(&fixture);
    return region_is_suspect(map, 5);
}

START_TEST(a_suspect_region_stays_suspect)
{
    map_fixture_prepare(&fixture);
    peer_run(create_in_boot_1, NULL);
    peer_run(open_in_boot_2, NULL);
    peer_run(open_in_boot_2, NULL);
}
END_TEST

/* ---- Another device. ---- */

START_TEST(a_map_that_nobody_uses_is_bound_to_the_device_it_is_opened_for)
{
    map_fixture_new(&fixture, 8);
    locked_map_close(map, false);
    fixture.key.device++;
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_uint_eq(map->header->bound_device, fixture.key.device);
}
END_TEST

START_TEST(a_map_in_use_is_refused_to_the_same_inode_on_another_device)
{
    struct peer peer;
    map_fixture_new(&fixture, 8);
    locked_map_close(map, false);
    peer_start(&peer, use_map, NULL);
    peer_reach(&peer);
    fixture.key.device++;
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), -EBUSY);
    ck_assert(is_zero(map, sizeof *map));
    fixture.key.device--;
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    peer_continue(&peer);
    peer_end(&peer);
}
END_TEST

START_TEST(a_refused_map_is_not_counted_as_used)
{
    struct peer peer;
    map_fixture_new(&fixture, 8);
    uint64_t id = map->id;
    locked_map_close(map, false);
    peer_start(&peer, use_map, NULL);
    peer_reach(&peer);
    fixture.key.device++;
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), -EBUSY);
    ck_assert(session_others_use_map(id));
    peer_continue(&peer);
    peer_end(&peer);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
}
END_TEST

/* A file and its snapshot, opened by one program: one of them must go without checksums. */
START_TEST(a_map_this_process_uses_is_refused_to_the_same_inode_on_another_device)
{
    struct map snapshot = {0};
    map_fixture_new(&fixture, 8);
    fixture.key.device++;
    ck_assert_int_eq(locked_map_open(&snapshot, &fixture.key, true), -EBUSY);
    ck_assert_uint_eq(map->header->bound_device, fixture.key.device - 1);
}
END_TEST

/* ---- Stores that cannot be used. ---- */

START_TEST(without_a_store_there_is_no_map)
{
    map_fixture_prepare(&fixture);
    config.store = NULL;
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert(is_zero(map, sizeof *map));
    ck_assert(!locked_map_exists(&fixture.key));
}
END_TEST

START_TEST(directories_on_the_way_to_a_store_are_made)
{
    struct stat status;
    map_fixture_prepare(&fixture);
    strcat(fixture.store, "/a/b");
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_int_eq(stat(fixture.store, &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0700);
}
END_TEST

START_TEST(a_store_below_a_file_is_refused)
{
    map_fixture_prepare(&fixture);
    strcpy(fixture.store, fixture.path);
    strcat(fixture.store, "/store");
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), -ENOTDIR);
    ck_assert(is_zero(map, sizeof *map));
}
END_TEST

START_TEST(a_store_that_others_can_enter_is_refused)
{
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(mkdir(fixture.store, 0700), 0);
    ck_assert_int_eq(chmod(fixture.store, 0710), 0);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), -EPERM);
}
END_TEST

START_TEST(a_store_behind_a_symbolic_link_is_refused)
{
    map_fixture_prepare(&fixture);
    char elsewhere[FIXTURE_PATH + 8];
    snprintf(elsewhere, sizeof elsewhere, "%s.real", fixture.store);
    ck_assert_int_eq(mkdir(elsewhere, 0700), 0);
    ck_assert_int_eq(symlink(elsewhere, fixture.store), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert(!exists(path_in(elsewhere, "maps")));
}
END_TEST

START_TEST(a_store_whose_lock_file_is_foreign_is_refused)
{
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(mkdir(fixture.store, 0700), 0);
    int fd = open(path_in(fixture.store, "lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(write(fd, "something else, and longer", 26), 26);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), -EPROTONOSUPPORT);
}
END_TEST

START_TEST(a_refused_store_is_not_asked_again)
{
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(mkdir(fixture.store, 0755), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_int_eq(chmod(fixture.store, 0700), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_key_names_the_inode_its_device_and_its_time,
        all_names_and_descriptors_of_a_file_have_one_key,
        a_path_descriptor_below_a_directory_that_may_not_be_read_has_the_same_key,
        a_new_file_in_the_place_and_inode_of_another_has_another_key,
        files_have_keys_of_their_own,
        only_regular_files_have_keys,
        a_new_map_knows_nothing,
        blocks_that_were_just_covered_are_unknown_and_idle,
        opening_without_creating_makes_nothing,
        a_map_exists_once_it_was_created,
        creating_a_map_raises_the_store_s_generation_and_opening_one_does_not,
        maps_of_two_files_are_apart,
        what_is_recorded_outlives_closing,
        two_opens_of_one_map_share_its_words,
        processes_share_one_map,
        nobody_else_can_read_or_write_a_store,
        no_temporary_file_is_left_behind,
        the_map_of_a_file_that_is_gone_goes_with_it,
        the_map_of_a_file_that_is_gone_stays_while_another_process_uses_it,
        the_dirty_regions_of_another_boot_are_suspect_and_nobody_is_at_work,
        a_map_of_this_boot_is_not_suspect,
        a_suspect_region_stays_suspect,
        a_map_that_nobody_uses_is_bound_to_the_device_it_is_opened_for,
        a_map_in_use_is_refused_to_the_same_inode_on_another_device,
        a_refused_map_is_not_counted_as_used,
        a_map_this_process_uses_is_refused_to_the_same_inode_on_another_device,
        without_a_store_there_is_no_map,
        directories_on_the_way_to_a_store_are_made,
        a_store_below_a_file_is_refused,
        a_store_that_others_can_enter_is_refused,
        a_store_behind_a_symbolic_link_is_refused,
        a_store_whose_lock_file_is_foreign_is_refused,
        a_refused_store_is_not_asked_again,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "map", 20, NULL, tests);
}
