/*
 * Maps that cannot be trusted: damaged, foreign or somebody else's. Such a map is set aside and everything is unknown again; it
 * never makes the program fail.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { SUM = 1001 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;
static char map_path[FIXTURE_PATH];

/* A closed map of one recorded block. */
static void make_closed_map(void)
{
    map_fixture_new(&fixture, 1);
    words_set(map, 0, SUM, WORD_IDLE);
    snprintf(map_path, sizeof map_path, "%s", map_fixture_map_path(&fixture, map));
    locked_map_close(map, false);
}

static void patch(uint64_t offset, const void *data, size_t length)
{
    int fd = open(map_path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(pwrite(fd, data, length, (off_t)offset), (ssize_t)length);
    close(fd);
}

static struct map_header header_of_file(void)
{
    struct map_header header;
    int fd = open(map_path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(read(fd, &header, sizeof header), sizeof header);
    close(fd);
    return header;
}

/* Replace the identity by one that agrees with its own checksum. */
static void seal(const struct map_identity *identity)
{
    uint64_t sum = hash_bytes(HASH_START, identity, sizeof *identity);
    patch(offsetof(struct map_header, identity), identity, sizeof *identity);
    patch(offsetof(struct map_header, identity_sum), &sum, sizeof sum);
}

static bool is_set_aside(void)
{
    char bad[FIXTURE_PATH + 8];
    snprintf(bad, sizeof bad, "%s.bad", map_path);
    return access(bad, F_OK) == 0;
}

/* The next open finds the map unusable, keeps it for inspection, and starts again with everything unknown. */
static void assert_set_aside_and_begun_anew(void)
{
    uint64_t run;
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    ck_assert(is_set_aside());
    ck_assert_ptr_null(map_words(map, 0, &run));
    locked_map_close(map, false);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0); /* the new one is good */
}

START_TEST(resealing_an_identity_as_it_is_changes_nothing)
{
    make_closed_map();
    struct map_header header = header_of_file();
    seal(&header.identity);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_words(map, 0, SUM, WORD_IDLE);
    ck_assert(!is_set_aside());
}
END_TEST

START_TEST(a_flipped_bit_anywhere_in_the_identity_sets_the_map_aside)
{
    for (size_t byte = 0; byte < sizeof(struct map_identity) + 8; byte++) {
        if (!map->header)
            make_closed_map();
        else
            locked_map_close(map, false);
        struct map_header header = header_of_file();
        unsigned char flipped = ((unsigned char *)&header)[byte] ^ 0x10;
        patch(byte, &flipped, 1);
        assert_set_aside_and_begun_anew();
    }
}
END_TEST

START_TEST(flipped_bits_in_the_mutable_header_do_not_set_the_map_aside)
{
    const uint64_t garbage = 0x1234567890abcdef;
    make_closed_map();
    patch(offsetof(struct map_header, window_issue), &garbage, 8);
    patch(offsetof(struct map_header, window_completion), &garbage, 8);
    patch(offsetof(struct map_header, unsettled), &garbage, 8);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_words(map, 0, SUM, WORD_IDLE);
}
END_TEST

START_TEST(a_map_of_a_foreign_version_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.version = FORMAT_VERSION + 1;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_of_other_blocks_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.block_size = 2 * BLOCK_SIZE;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_of_another_inode_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.inode++;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_of_an_inode_born_at_another_time_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.birth_nanoseconds ^= 1;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_of_another_file_system_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.filesystem[3] ^= 1;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_without_an_id_is_set_aside)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.map_id = 0;
    seal(&header.identity);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_map_with_an_impossible_number_of_windows_is_set_aside)
{
    const uint64_t counts[] = {0, MAP_WINDOWS + 1, UINT64_MAX};
    make_closed_map();
    for (int i = 0; i < 3; i++) {
        patch(offsetof(struct map_header, windows), &counts[i], 8);
        assert_set_aside_and_begun_anew();
        locked_map_close(map, false);
    }
}
END_TEST

START_TEST(a_map_that_is_too_short_for_its_windows_is_set_aside)
{
    const uint64_t windows = 3;
    make_closed_map();
    patch(offsetof(struct map_header, windows), &windows, 8);
    ck_assert_int_eq(truncate(map_path, (off_t)(window_offset(2) + window_state_bytes(2) - 1)), 0);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(a_truncated_map_is_set_aside)
{
    const off_t sizes[] = {1, 4095, 4096, 8191};
    make_closed_map();
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(truncate(map_path, sizes[i]), 0);
        assert_set_aside_and_begun_anew();
        locked_map_close(map, false);
    }
}
END_TEST

/* Zeros, as long as the file was when the machine stopped. */
static void leave_unfinished(off_t size)
{
    ck_assert_int_eq(truncate(map_path, 0), 0);
    ck_assert_int_eq(truncate(map_path, size), 0);
}

START_TEST(a_map_that_was_never_finished_is_begun_anew_without_a_word)
{
    const off_t sizes[] = {0, 1, FORMAT_PAGE, 2 * FORMAT_PAGE, 2 * FORMAT_PAGE + UNIT_BYTES};
    uint64_t run;
    int messages[2];
    char line[64];
    make_closed_map();
    ck_assert_int_eq(pipe2(messages, O_NONBLOCK), 0);
    ck_assert_int_eq(dup2(messages[1], STDERR_FILENO), STDERR_FILENO);
    for (int i = 0; i < 5; i++) {
        leave_unfinished(sizes[i]);
        ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
        ck_assert(!is_set_aside());
        ck_assert_ptr_null(map_words(map, 0, &run));
        locked_map_close(map, false);
    }
    ck_assert_int_eq(read(messages[0], line, sizeof line), -1);
}
END_TEST

START_TEST(a_map_that_was_never_finished_is_not_there_for_who_only_looks)
{
    make_closed_map();
    leave_unfinished(2 * FORMAT_PAGE);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), -ENOENT);
    ck_assert_int_ne(access(map_path, F_OK), 0);
}
END_TEST

static bool open_the_map(struct peer *peer, void *opened)
{
    (void)peer;
    fixture.map = (struct map){0};
    peer_pause(peer);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    *(uint64_t *)opened = map->id;
    peer_pause(peer);
    locked_map_close(map, false);
    return true;
}

START_TEST(of_many_who_find_an_unfinished_map_all_use_the_same_new_one)
{
    enum { PEERS = 4 };
    struct peer peers[PEERS];
    uint64_t *ids = mmap(NULL, FORMAT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    make_closed_map();
    for (int i = 0; i < PEERS; i++) {
        peer_start(&peers[i], open_the_map, &ids[i]);
        peer_reach(&peers[i]);
    }
    leave_unfinished(2 * FORMAT_PAGE);
    for (int i = 0; i < PEERS; i++)
        peer_continue(&peers[i]);
    for (int i = 0; i < PEERS; i++) {
        peer_reach(&peers[i]);
        ck_assert_uint_eq(ids[i], ids[0]);
    }
    for (int i = 0; i < PEERS; i++) {
        peer_continue(&peers[i]);
        peer_end(&peers[i]);
    }
}
END_TEST

START_TEST(a_damaged_map_that_is_only_looked_for_is_set_aside_and_not_replaced)
{
    make_closed_map();
    ck_assert_int_eq(truncate(map_path, 1), 0);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), -ENOENT);
    ck_assert(is_set_aside());
    ck_assert_int_ne(access(map_path, F_OK), 0);
    ck_assert_ptr_null(map->header);
}
END_TEST

static bool open_another_map(struct peer *peer, void *argument)
{
    struct map_key key;
    struct map other = {0};
    (void)argument;
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &key), 0);
    ck_assert_int_eq(locked_map_open(&other, &key, true), 0);
    peer_pause(peer);
    return true;
}

START_TEST(a_damaged_map_is_left_where_it_is_while_somebody_else_uses_the_store)
{
    struct peer peer;
    make_closed_map();
    peer_start(&peer, open_another_map, NULL);
    peer_reach(&peer);
    ck_assert_int_eq(truncate(map_path, 1), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_ptr_null(map->header);
    ck_assert(!is_set_aside());
    peer_continue(&peer);
    peer_end(&peer);
    assert_set_aside_and_begun_anew();
}
END_TEST

START_TEST(units_that_the_file_does_not_reach_are_unknown_again)
{
    uint64_t run;
    map_fixture_new(&fixture, 2 * UNIT_BLOCKS);
    words_set(map, 0, SUM, WORD_IDLE);
    words_set(map, UNIT_BLOCKS, SUM, WORD_IDLE);
    snprintf(map_path, sizeof map_path, "%s", map_fixture_map_path(&fixture, map));
    locked_map_close(map, false);
    ck_assert_int_eq(truncate(map_path, 2 * FORMAT_PAGE + UNIT_BYTES), 0);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_words(map, 0, SUM, WORD_IDLE);
    ck_assert_ptr_null(map_words(map, UNIT_BLOCKS, &run));
    ck_assert_int_eq(locked_map_cover(map, UNIT_BLOCKS, 1), 0);
    ck_assert_words(map, UNIT_BLOCKS, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_map_of_another_machine_is_refused_and_left_alone)
{
    make_closed_map();
    struct map_header header = header_of_file();
    header.identity.machine[5] ^= 1;
    seal(&header.identity);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), -EXDEV);
    ck_assert_ptr_null(map->header);
    ck_assert(!is_set_aside());
    ck_assert_int_eq(access(map_path, F_OK), 0);
    header.identity.machine[5] ^= 1;
    seal(&header.identity);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
    ck_assert_words(map, 0, SUM, WORD_IDLE);
}
END_TEST

START_TEST(a_symbolic_link_in_the_place_of_a_map_is_refused)
{
    char elsewhere[FIXTURE_PATH + 8];
    make_closed_map();
    snprintf(elsewhere, sizeof elsewhere, "%s.moved", map_path);
    ck_assert_int_eq(rename(map_path, elsewhere), 0);
    ck_assert_int_eq(symlink(elsewhere, map_path), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_ptr_null(map->header);
}
END_TEST

START_TEST(what_is_not_a_file_in_the_place_of_a_map_is_refused)
{
    make_closed_map();
    ck_assert_int_eq(unlink(map_path), 0);
    ck_assert_int_eq(mkfifo(map_path, 0600), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_int_eq(unlink(map_path), 0);
    ck_assert_int_eq(mkdir(map_path, 0700), 0);
    ck_assert_int_lt(locked_map_open(map, &fixture.key, true), 0);
    ck_assert_ptr_null(map->header);
}
END_TEST

START_TEST(a_map_whose_name_is_gone_does_not_grow_and_is_not_used_any_more)
{
    map_fixture_new(&fixture, 1);
    ck_assert_int_eq(unlink(map_fixture_map_path(&fixture, map)), 0);
    ck_assert_int_lt(locked_map_cover(map, UNIT_BLOCKS, 1), 0);
    ck_assert(!map_is_usable(map));
}
END_TEST

START_TEST(a_map_whose_name_leads_to_another_file_does_not_grow_and_is_not_used_any_more)
{
    map_fixture_new(&fixture, 1);
    ck_assert_int_eq(unlink(map_fixture_map_path(&fixture, map)), 0);
    close(open(map_fixture_map_path(&fixture, map), O_CREAT | O_RDWR, 0600));
    ck_assert_int_lt(locked_map_cover(map, UNIT_BLOCKS, 1), 0);
    ck_assert(!map_is_usable(map));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        resealing_an_identity_as_it_is_changes_nothing,
        a_flipped_bit_anywhere_in_the_identity_sets_the_map_aside,
        flipped_bits_in_the_mutable_header_do_not_set_the_map_aside,
        a_map_of_a_foreign_version_is_set_aside,
        a_map_of_other_blocks_is_set_aside,
        a_map_of_another_inode_is_set_aside,
        a_map_of_an_inode_born_at_another_time_is_set_aside,
        a_map_of_another_file_system_is_set_aside,
        a_map_without_an_id_is_set_aside,
        a_map_with_an_impossible_number_of_windows_is_set_aside,
        a_map_that_is_too_short_for_its_windows_is_set_aside,
        a_truncated_map_is_set_aside,
        a_map_that_was_never_finished_is_begun_anew_without_a_word,
        a_map_that_was_never_finished_is_not_there_for_who_only_looks,
        of_many_who_find_an_unfinished_map_all_use_the_same_new_one,
        a_damaged_map_that_is_only_looked_for_is_set_aside_and_not_replaced,
        a_damaged_map_is_left_where_it_is_while_somebody_else_uses_the_store,
        units_that_the_file_does_not_reach_are_unknown_again,
        a_map_of_another_machine_is_refused_and_left_alone,
        a_symbolic_link_in_the_place_of_a_map_is_refused,
        what_is_not_a_file_in_the_place_of_a_map_is_refused,
        a_map_whose_name_is_gone_does_not_grow_and_is_not_used_any_more,
        a_map_whose_name_leads_to_another_file_does_not_grow_and_is_not_used_any_more,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "map_damage", 20, NULL, tests);
}
