/* Where a map says that its file is. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum/locator.h"
#include "support/map_fixture.h"
#include "support/support.h"

static struct map_fixture fixture;
static char other_name[FIXTURE_PATH + 16];

static const struct map_locator *noted(void)
{
    locator_note(&fixture.map, fixture.fd);
    return map_locator(&fixture.map);
}

static void new_map(void)
{
    map_fixture_new(&fixture, 1);
    snprintf(other_name, sizeof other_name, "%s.other", fixture.path);
}

START_TEST(path_of_the_file_is_noted)
{
    new_map();
    ck_assert_str_eq(noted()->path, fixture.path);
}
END_TEST

START_TEST(renamed_file_is_noted_anew)
{
    new_map();
    noted();
    ck_assert_int_eq(rename(fixture.path, other_name), 0);
    ck_assert_str_eq(noted()->path, other_name);
}
END_TEST

START_TEST(handle_leads_to_the_file)
{
    struct stat expected, found;
    struct {
        struct file_handle head;
        uint8_t bytes[LOCATOR_HANDLE_BYTES];
    } handle;
    new_map();
    const struct map_locator *locator = noted();
    if (locator->handle_bytes == 0) {
        test_skip("file system without file handles");
        return;
    }
    handle.head.handle_bytes = locator->handle_bytes;
    handle.head.handle_type = locator->handle_type;
    memcpy(handle.head.f_handle, locator->handle, locator->handle_bytes);
    int mount = open(fixture.store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = open_by_handle_at(mount, &handle.head, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && geteuid() != 0) {
        test_skip("not root");
        return;
    }
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &found), 0);
    ck_assert_int_eq(fstat(fixture.fd, &expected), 0);
    ck_assert_uint_eq(found.st_ino, expected.st_ino);
}
END_TEST

START_TEST(torn_handle_has_a_wrong_sum)
{
    new_map();
    const struct map_locator *locator = noted();
    ck_assert_uint_eq(locator->handle_sum, locator_handle_sum(locator));
    struct map_locator torn = *locator;
    torn.handle[3] ^= 1;
    ck_assert_uint_ne(torn.handle_sum, locator_handle_sum(&torn));
}
END_TEST

START_TEST(file_without_a_name_is_not_noted)
{
    new_map();
    noted();
    ck_assert_int_eq(unlink(fixture.path), 0);
    ck_assert_str_eq(noted()->path, fixture.path);
}
END_TEST

START_TEST(file_that_has_no_name_yet_is_noted_by_its_handle)
{
    map_fixture_prepare(&fixture);
    char *slash = strrchr(fixture.path, '/');
    *slash = '\0';
    int fd = open(fixture.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        test_skip("file system without O_TMPFILE");
        return;
    }
    fixture.fd = fd;
    ck_assert_int_eq(map_key_of(fd, &fixture.key), 0);
    ck_assert_int_eq(locked_map_open(&fixture.map, &fixture.key, true), 0);
    ck_assert_str_eq(noted()->path, "");
    ck_assert_uint_gt(noted()->handle_bytes, 0);
}
END_TEST

START_TEST(name_that_was_deleted_is_not_noted_while_another_remains)
{
    new_map();
    noted();
    ck_assert_int_eq(link(fixture.path, other_name), 0);
    ck_assert_int_eq(unlink(fixture.path), 0);
    ck_assert_str_eq(noted()->path, fixture.path);
}
END_TEST

START_TEST(name_that_only_looks_deleted_is_noted)
{
    new_map();
    snprintf(other_name, sizeof other_name, "%s (deleted)", fixture.path);
    ck_assert_int_eq(rename(fixture.path, other_name), 0);
    ck_assert_str_eq(noted()->path, other_name);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {path_of_the_file_is_noted,
                                  renamed_file_is_noted_anew,
                                  handle_leads_to_the_file,
                                  torn_handle_has_a_wrong_sum,
                                  file_without_a_name_is_not_noted,
                                  file_that_has_no_name_yet_is_noted_by_its_handle,
                                  name_that_was_deleted_is_not_noted_while_another_remains,
                                  name_that_only_looks_deleted_is_noted,
                                  NULL};
    return support_main(argc, argv, "locator", 10, NULL, tests);
}
