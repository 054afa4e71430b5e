/* Open files: one object for each inode, alive as long as somebody refers to it, and the map that goes with it. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/region.h"
#include "checksum/window.h"
#include "engine/sweep.h"
#include "files/file.h"
#include "support/map_fixture.h"
#include "support/support.h"

static struct map_fixture fixture;

static struct file *open_object(int fd, bool create_map)
{
    struct stat status;
    uint64_t saved;
    ck_assert_int_eq(fstat(fd, &status), 0);
    process_lock(&saved);
    struct file *file = file_open(fd, &status, create_map);
    process_unlock(&saved);
    ck_assert_ptr_nonnull(file);
    return file;
}

static void reap(void)
{
    uint64_t saved;
    process_lock(&saved);
    file_reap();
    process_unlock(&saved);
}

START_TEST(an_inode_has_one_object_whatever_name_and_number_lead_to_it)
{
    map_fixture_prepare(&fixture);
    char other[FIXTURE_PATH + 8];
    snprintf(other, sizeof other, "%s.link", fixture.path);
    ck_assert_int_eq(link(fixture.path, other), 0);
    struct file *file = open_object(fixture.fd, true);
    ck_assert_ptr_eq(open_object(open(other, O_RDONLY | O_CLOEXEC), true), file);
    ck_assert_uint_eq(file->references, 2);
    ck_assert_ptr_eq(file_at(file_index(file)), file);
}
END_TEST

START_TEST(inodes_have_objects_of_their_own)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true), *other = open_object(map_fixture_file(&fixture, "other"), true);
    ck_assert_ptr_ne(file, other);
    ck_assert_uint_ne(file->map.id, other->map.id);
}
END_TEST

START_TEST(a_map_is_made_only_when_it_is_wanted)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, false);
    ck_assert(!file_has_map(file));
    ck_assert_int_ne(access(fixture.store, F_OK), 0);
    file_release(file);
    reap();
    ck_assert(file_has_map(open_object(fixture.fd, true)));
}
END_TEST

/* The number was closed, or given to another file, after its status was taken. */
START_TEST(an_object_is_not_made_from_another_file_s_number)
{
    struct stat status;
    uint64_t saved;
    map_fixture_prepare(&fixture);
    ck_assert_int_eq(fstat(fixture.fd, &status), 0);
    const int numbers[] = {map_fixture_file(&fixture, "other"), -1};
    for (int i = 0; i < 2; i++) {
        process_lock(&saved);
        struct file *file = file_open(numbers[i], &status, true);
        process_unlock(&saved);
        ck_assert_ptr_null(file);
    }
    struct file *file = open_object(fixture.fd, true);
    ck_assert(file_has_map(file));
    ck_assert_uint_eq(file->map.header->identity.inode, fixture.key.inode);
}
END_TEST

START_TEST(direct_io_alignments_are_powers_of_two_of_the_file_s_own)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    ck_assert_uint_ge(file->offset_align, 1);
    ck_assert_uint_eq(file->offset_align & (file->offset_align - 1), 0);
    ck_assert_uint_ge(file->memory_align, 1);
    ck_assert_uint_eq(file->memory_align & (file->memory_align - 1), 0);
    ck_assert(!file->is_device);
}
END_TEST

START_TEST(an_object_without_references_is_closed_by_the_next_reap)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    ck_assert(!file_needs_reaping());
    file_release(file);
    ck_assert(file_needs_reaping());
    ck_assert(file->in_use);
    reap();
    ck_assert(!file->in_use);
    ck_assert(!file_has_map(file));
    ck_assert(!file_needs_reaping());
}
END_TEST

START_TEST(an_object_that_is_wanted_again_in_time_is_not_closed)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    file_hold(file);
    file_release(file);
    ck_assert(!file_needs_reaping());
    file_release(file);
    file_hold(file);
    reap();
    ck_assert(file->in_use);
    ck_assert(file_has_map(file));
}
END_TEST

START_TEST(closed_objects_are_used_again)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    file->suspicions = 5;
    file_release(file);
    struct file *other = open_object(map_fixture_file(&fixture, "other"), true);
    ck_assert_ptr_eq(other, file);
    ck_assert_uint_eq(other->suspicions, 0);
    ck_assert_uint_ne(other->inode, fixture.key.inode);
}
END_TEST

START_TEST(a_thousand_files_are_told_apart)
{
    enum { FILES = 1000 };
    static struct file *files[FILES];
    map_fixture_prepare(&fixture);
    for (int i = 0; i < FILES; i++) {
        char name[16];
        struct stat status;
        snprintf(name, sizeof name, "%d", i);
        int fd = map_fixture_file(&fixture, name);
        ck_assert_int_eq(fstat(fd, &status), 0);
        files[i] = open_object(fd, false);
        ck_assert_uint_eq(files[i]->inode, status.st_ino);
        ck_assert_uint_eq(files[i]->references, 1);
        close(fd);
    }
    for (int i = 0; i < FILES; i += 2)
        file_release(files[i]);
    reap();
    for (int i = 0; i < FILES; i++)
        ck_assert_int_eq(files[i]->in_use, i % 2);
}
END_TEST

/* What a program has just begun to write is not left alone yet: a sweep would find nothing that it can clear. */
START_TEST(a_sweep_is_due_half_a_minute_after_the_opening_and_not_before)
{
    const int64_t second = INT64_C(1000000000);
    map_fixture_prepare(&fixture);
    int64_t before = window_now();
    struct file *file = open_object(fixture.fd, true);
    int64_t after = window_now();
    atomic_store(&file->map.dirtied, true);
    ck_assert(!sweep_is_due(file, after));
    ck_assert(!sweep_is_due(file, before + 29 * second));
    ck_assert(sweep_is_due(file, after + 30 * second));
}
END_TEST

static bool leave_dirty(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    map_fixture_reopen(&fixture);
    region_make_durable(&fixture.map, 0, 1);
    return true;
}

/* Programs that write a little, fsync and leave: none of them comes to the end of an interval. */
START_TEST(what_others_have_left_dirty_is_swept_at_once)
{
    map_fixture_new(&fixture, 1);
    locked_map_close(&fixture.map, false);
    peer_run(leave_dirty, NULL);
    struct file *file = open_object(fixture.fd, false);
    ck_assert(file_has_map(file));
    ck_assert(sweep_is_due(file, window_now()));
}
END_TEST

static const char *map_path_of(const struct file *file)
{
    return map_fixture_map_path(&fixture, &file->map);
}

START_TEST(the_map_of_a_file_without_a_name_goes_with_its_object)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    const char *path = map_path_of(file);
    ck_assert_int_eq(access(path, F_OK), 0);
    file->unlinked = true;
    file_release(file);
    reap();
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(the_map_of_a_file_with_a_name_stays)
{
    map_fixture_prepare(&fixture);
    struct file *file = open_object(fixture.fd, true);
    const char *path = map_path_of(file);
    file_release(file);
    reap();
    ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(the_path_of_a_descriptor_is_absolute)
{
    struct file_path path;
    map_fixture_prepare(&fixture);
    file_path_begin(&path, fixture.fd);
    ck_assert_str_eq(path.text, fixture.path);
    file_path_end(&path);
    file_path_begin(&path, -1);
    ck_assert_str_eq(path.text, "?");
    file_path_end(&path);
    ck_assert_uint_eq(pool_pages_taken(), 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        an_inode_has_one_object_whatever_name_and_number_lead_to_it,
        inodes_have_objects_of_their_own,
        a_map_is_made_only_when_it_is_wanted,
        an_object_is_not_made_from_another_file_s_number,
        direct_io_alignments_are_powers_of_two_of_the_file_s_own,
        an_object_without_references_is_closed_by_the_next_reap,
        an_object_that_is_wanted_again_in_time_is_not_closed,
        closed_objects_are_used_again,
        a_thousand_files_are_told_apart,
        a_sweep_is_due_half_a_minute_after_the_opening_and_not_before,
        what_others_have_left_dirty_is_swept_at_once,
        the_map_of_a_file_without_a_name_goes_with_its_object,
        the_map_of_a_file_with_a_name_stays,
        the_path_of_a_descriptor_is_absolute,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "file", 20, NULL, tests);
}
