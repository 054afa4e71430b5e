/*
 * Standing mutators: stdio streams and writable shared mappings of files that have a map. Mappings are told to the table with their
 * addresses, as the wrappers do; only where the table itself looks for them, they are real.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/announce.h"
#include "files/classify.h"
#include "files/descriptor.h"
#include "files/standing.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCKS = 64, SUM = 1001, PAGE = 4096 };

static struct map_fixture fixture;
static struct file *file;
static struct map *map;

/* Where mappings are said to be. */
static char *const place = (char *)(uintptr_t)0x10000000;

static int open_number(int flags)
{
    int fd = open(fixture.path, flags | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    fd_opened(fd, flags, false);
    return fd;
}

static void close_number(int fd)
{
    uint64_t closing = fd_closing(fd);
    close(fd);
    fd_closed(fd, closing);
}

/* Open the file with O_DIRECT, which makes its map, and record all its blocks. */
static int make_direct(void)
{
    int fd = open_number(O_RDWR | O_DIRECT);
    file = fd_word_file(fd_word(fd));
    ck_assert_ptr_nonnull(file);
    map = &file->map;
    ck_assert_int_eq(locked_map_cover(map, 0, BLOCKS), 0);
    for (uint64_t block = 0; block < BLOCKS; block++)
        words_set(map, block, SUM, WORD_IDLE);
    return fd;
}

static int prepare_direct(void)
{
    map_fixture_prepare(&fixture);
    return make_direct();
}

static uint64_t standing(void)
{
    return map->header->unsettled;
}

static bool stands_over(uint64_t block)
{
    return map_mutator_covers(map, block, false);
}

/* How many blocks are recorded, from the first on and in all. */
static uint64_t recorded(void)
{
    uint64_t count = 0;
    for (uint64_t block = 0; block < BLOCKS; block++)
        count += words_of(map, block)->current == SUM;
    return count;
}

/* ---- Streams. ---- */

START_TEST(a_stream_stands_over_the_whole_file_until_it_is_closed)
{
    prepare_direct();
    int fd = open_number(O_WRONLY);
    fd_stream_opened(fd, NULL);
    ck_assert_uint_eq(standing(), 1);
    ck_assert(stands_over(0) && stands_over(BLOCKS));
    ck_assert_uint_eq(recorded(), BLOCKS);
    close_number(fd);
    ck_assert_uint_eq(standing(), 0);
    ck_assert(!stands_over(0));
    ck_assert_uint_eq(recorded(), 0);
}
END_TEST

START_TEST(a_stream_keeps_its_file_open)
{
    int direct = prepare_direct(), fd = open_number(O_WRONLY);
    fd_stream_opened(fd, NULL);
    close_number(direct);
    ck_assert(file->in_use && file_has_map(file));
    close_number(fd);
    ck_assert_uint_eq(file->references, 0);
}
END_TEST

START_TEST(a_stream_that_was_opened_before_the_map_stands_from_then_on)
{
    map_fixture_prepare(&fixture);
    int fd = open_number(O_WRONLY);
    fd_stream_opened(fd, NULL);
    make_direct();
    ck_assert_uint_eq(standing(), 1);
    close_number(fd);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

START_TEST(a_stream_on_another_file_does_not_stand)
{
    map_fixture_prepare(&fixture);
    int fd = map_fixture_file(&fixture, "other");
    fd_stream_opened(fd, NULL);
    make_direct();
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

START_TEST(standard_output_and_error_are_streams)
{
    map_fixture_prepare(&fixture);
    int fd = open_number(O_WRONLY);
    ck_assert_int_eq(dup2(fd, 1), 1);
    ck_assert_int_eq(dup2(fd, 2), 2);
    close_number(fd);
    make_direct();
    ck_assert_uint_eq(standing(), 2);
}
END_TEST

START_TEST(a_stream_follows_its_number_to_another_file)
{
    prepare_direct();
    int fd = open_number(O_WRONLY), other = map_fixture_file(&fixture, "other");
    fd_stream_opened(fd, NULL);
    uint64_t replacing = fd_replacing(fd);
    ck_assert_int_eq(dup2(other, fd), fd);
    fd_replaced(fd, other, replacing, true);
    ck_assert_uint_eq(standing(), 0);
    ck_assert_uint_eq(recorded(), 0);
    int back = open_number(O_WRONLY);
    replacing = fd_replacing(fd);
    ck_assert_int_eq(dup2(back, fd), fd);
    fd_replaced(fd, back, replacing, true);
    ck_assert_uint_eq(standing(), 1);
    close_number(fd);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

/* ---- Mappings. ---- */

START_TEST(a_writable_mapping_stands_until_it_is_gone)
{
    prepare_direct();
    standing_mapping_made(place, 4 * PAGE, file, 8 * PAGE, true);
    ck_assert_uint_eq(standing(), 1);
    ck_assert(!stands_over(7) && stands_over(8) && stands_over(11));
    ck_assert_uint_eq(recorded(), BLOCKS);
    standing_mapping_gone(place, 4 * PAGE);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

START_TEST(a_mapping_that_is_gone_leaves_its_own_blocks_unknown)
{
    prepare_direct();
    standing_mapping_made(place, 3 * PAGE + 1, file, 8 * PAGE, true);
    standing_mapping_gone(place, 3 * PAGE + 1);
    ck_assert_uint_eq(recorded(), BLOCKS - 4);
    for (uint64_t block = 8; block < 12; block++)
        ck_assert_words(map, block, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mapping_that_may_not_be_written_does_not_stand)
{
    prepare_direct();
    standing_mapping_made(place, 4 * PAGE, file, 0, false);
    ck_assert_uint_eq(standing(), 0);
    standing_mapping_gone(place, 4 * PAGE);
    ck_assert_uint_eq(recorded(), BLOCKS);
}
END_TEST

START_TEST(a_mapping_stands_once_a_part_of_it_becomes_writable)
{
    prepare_direct();
    standing_mapping_made(place, 4 * PAGE, file, 0, false);
    standing_mapping_writable(place + 4 * PAGE, PAGE);
    ck_assert_uint_eq(standing(), 0);
    standing_mapping_writable(place + 2 * PAGE, PAGE);
    ck_assert_uint_eq(standing(), 1);
    standing_mapping_writable(place, PAGE);
    ck_assert_uint_eq(standing(), 1);
    standing_mapping_gone(place, 4 * PAGE);
    ck_assert_uint_eq(standing(), 0);
    ck_assert_uint_eq(recorded(), BLOCKS - 4);
}
END_TEST

START_TEST(unmapping_elsewhere_leaves_a_mapping_standing)
{
    prepare_direct();
    standing_mapping_made(place, 4 * PAGE, file, 0, true);
    standing_mapping_gone(place - PAGE, PAGE);
    standing_mapping_gone(place + 4 * PAGE, PAGE);
    ck_assert_uint_eq(standing(), 1);
}
END_TEST

START_TEST(a_mapping_unmapped_in_pieces_stands_until_the_last)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 3, 1, 2}};
    prepare_direct();
    for (int i = 0; i < 3; i++) {
        standing_mapping_made(place, 4 * PAGE, file, 0, true);
        for (int piece = 0; piece < 4; piece++) {
            ck_assert_uint_eq(standing(), 1);
            standing_mapping_gone(place + orders[i][piece] * PAGE, PAGE);
        }
        ck_assert_uint_eq(standing(), 0);
    }
}
END_TEST

START_TEST(a_mapping_with_a_hole_still_stands)
{
    prepare_direct();
    standing_mapping_made(place, 4 * PAGE, file, 0, true);
    standing_mapping_gone(place + PAGE, PAGE);
    ck_assert_uint_eq(standing(), 1);
    standing_mapping_gone(place, PAGE);
    ck_assert_uint_eq(standing(), 1);
    ck_assert(stands_over(3));
    standing_mapping_gone(place, 4 * PAGE);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

START_TEST(one_unmapping_ends_all_mappings_it_covers)
{
    prepare_direct();
    for (int i = 0; i < 5; i++)
        standing_mapping_made(place + i * 2 * PAGE, PAGE, file, 0, true);
    ck_assert_uint_eq(standing(), 5);
    standing_mapping_gone(place, 10 * PAGE);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

START_TEST(a_mapping_that_moves_and_grows_is_found_where_it_went)
{
    prepare_direct();
    char *const elsewhere = place + 1024 * PAGE;
    standing_mapping_made(place, 2 * PAGE, file, 0, true);
    standing_mapping_moved(place, elsewhere, 8 * PAGE);
    ck_assert(stands_over(7));
    standing_mapping_gone(place, 2 * PAGE);
    ck_assert_uint_eq(standing(), 1);
    standing_mapping_gone(elsewhere, 8 * PAGE);
    ck_assert_uint_eq(standing(), 0);
    for (uint64_t block = 0; block < 8; block++)
        ck_assert_words(map, block, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mapping_that_shrank_makes_all_blocks_unknown_that_it_ever_reached)
{
    prepare_direct();
    standing_mapping_made(place, 8 * PAGE, file, 0, true);
    standing_mapping_moved(place, place, PAGE);
    standing_mapping_gone(place, PAGE);
    ck_assert_uint_eq(standing(), 0);
    for (uint64_t block = 0; block < 8; block++)
        ck_assert_words(map, block, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mapping_keeps_its_file_open)
{
    int fd = prepare_direct();
    standing_mapping_made(place, PAGE, file, 0, true);
    close_number(fd);
    ck_assert(file->in_use && file_has_map(file));
    standing_mapping_gone(place, PAGE);
    ck_assert_uint_eq(file->references, 0);
}
END_TEST

START_TEST(mappings_beyond_the_table_stand_until_the_process_ends)
{
    enum { MAPPINGS = 300 };
    prepare_direct();
    for (int i = 0; i < MAPPINGS; i++)
        standing_mapping_made(place + i * PAGE, PAGE, file, 0, true);
    ck_assert_uint_eq(standing(), MAPPINGS);
    standing_mapping_gone(place, MAPPINGS * PAGE);
    ck_assert_uint_gt(standing(), 0);
    ck_assert(stands_over(0));
    ck_assert_uint_eq(file->references, 1);
}
END_TEST

/* ---- Mappings that were there before the map. ---- */

static void *map_file(int protection, off_t offset)
{
    int fd = open(fixture.path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, 16 * PAGE), 0);
    void *mapped = mmap(NULL, 4 * PAGE, protection, MAP_SHARED, fd, offset);
    ck_assert(mapped != MAP_FAILED);
    close(fd);
    standing_mapping_noted();
    return mapped;
}

START_TEST(a_mapping_that_was_made_before_the_map_stands_from_then_on)
{
    map_fixture_prepare(&fixture);
    char *mapped = map_file(PROT_READ | PROT_WRITE, 8 * PAGE);
    make_direct();
    ck_assert_uint_eq(standing(), 1);
    ck_assert(!stands_over(7) && stands_over(8));
    standing_mapping_gone(mapped, 4 * PAGE);
    ck_assert_uint_eq(standing(), 0);
    ck_assert_uint_eq(recorded(), BLOCKS - 4);
}
END_TEST

START_TEST(a_mapping_that_was_made_before_the_map_and_becomes_writable_later_stands)
{
    map_fixture_prepare(&fixture);
    char *mapped = map_file(PROT_READ, 0);
    make_direct();
    ck_assert_uint_eq(standing(), 0);
    standing_mapping_writable(mapped, PAGE);
    ck_assert_uint_eq(standing(), 1);
}
END_TEST

START_TEST(private_mappings_do_not_stand)
{
    map_fixture_prepare(&fixture);
    int fd = open(fixture.path, O_RDWR | O_CLOEXEC);
    ck_assert(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    standing_mapping_noted();
    make_direct();
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

/* Lines of /proc/self/maps that are longer than any buffer on a small stack. */
START_TEST(mappings_are_found_behind_files_with_very_long_names)
{
    map_fixture_prepare(&fixture);
    char name[256], path[FIXTURE_PATH];
    memset(name, 'd', 250);
    name[250] = '\0';
    snprintf(path, sizeof path, "%.1000s.d", fixture.path);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(mkdir(path, 0700), 0);
        snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", name);
    }
    /* On both sides of the file's own mapping. */
    for (int i = 0; i < 8; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ck_assert_int_eq(ftruncate(fd, PAGE), 0);
        ck_assert(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
        close(fd);
        if (i == 4)
            map_file(PROT_READ | PROT_WRITE, 0);
    }
    make_direct();
    ck_assert_uint_eq(standing(), 1);
}
END_TEST

/* ---- The end. ---- */

START_TEST(all_that_stands_is_settled_at_the_end)
{
    prepare_direct();
    int fd = open_number(O_WRONLY);
    fd_stream_opened(fd, NULL);
    standing_mapping_made(place, PAGE, file, 0, true);
    standing_mapping_made(place + PAGE, PAGE, file, 0, false);
    standing_end();
    ck_assert_uint_eq(standing(), 0);
    ck_assert_uint_eq(recorded(), 0);
    ck_assert(!flight_others_over(map->id, 0, FLIGHT_BEYOND, false));
}
END_TEST

START_TEST(a_stream_writes_out_what_it_holds_before_it_is_settled)
{
    prepare_direct();
    int fd = open_number(O_WRONLY);
    FILE *stream = fdopen(fd, "w");
    fd_stream_opened(fd, stream);
    ck_assert_int_ge(fputs("held", stream), 0);
    ck_assert_uint_eq(size_behind(fixture.path), 0);
    standing_end();
    ck_assert_uint_eq(size_behind(fixture.path), 4);
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

static atomic_bool locked, finished;

static void *lock_stream(void *stream)
{
    flockfile(stream);
    locked = true;
    while (!finished)
        usleep(1000);
    funlockfile(stream);
    return NULL;
}

START_TEST(a_stream_that_another_thread_has_locked_is_left_standing)
{
    pthread_t thread;
    prepare_direct();
    int fd = open_number(O_WRONLY);
    FILE *stream = fdopen(fd, "w");
    fd_stream_opened(fd, stream);
    ck_assert_int_eq(pthread_create(&thread, NULL, lock_stream, stream), 0);
    while (!locked)
        usleep(1000);
    standing_end();
    ck_assert_uint_eq(standing(), 1);
    finished = true;
    pthread_join(thread, NULL);
    standing_end();
    ck_assert_uint_eq(standing(), 0);
}
END_TEST

/* ---- Threads. ---- */

static void *map_and_unmap(void *argument)
{
    char *mine = argument;
    for (int i = 0; i < 200; i++) {
        standing_mapping_made(mine, 2 * PAGE, file, 0, i % 2);
        standing_mapping_writable(mine, PAGE);
        standing_mapping_gone(mine, PAGE);
        standing_mapping_moved(mine + PAGE, mine, PAGE);
        standing_mapping_gone(mine, PAGE);
    }
    return NULL;
}

START_TEST(threads_that_map_and_unmap_leave_nothing_standing)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    prepare_direct();
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, map_and_unmap, place + i * 16 * PAGE), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(standing(), 0);
    ck_assert_uint_eq(file->references, 1);
    ck_assert(!flight_others_over(map->id, 0, FLIGHT_BEYOND, false));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_stream_stands_over_the_whole_file_until_it_is_closed,
        a_stream_keeps_its_file_open,
        a_stream_that_was_opened_before_the_map_stands_from_then_on,
        a_stream_on_another_file_does_not_stand,
        standard_output_and_error_are_streams,
        a_stream_follows_its_number_to_another_file,
        a_writable_mapping_stands_until_it_is_gone,
        a_mapping_that_is_gone_leaves_its_own_blocks_unknown,
        a_mapping_that_may_not_be_written_does_not_stand,
        a_mapping_stands_once_a_part_of_it_becomes_writable,
        unmapping_elsewhere_leaves_a_mapping_standing,
        a_mapping_unmapped_in_pieces_stands_until_the_last,
        a_mapping_with_a_hole_still_stands,
        one_unmapping_ends_all_mappings_it_covers,
        a_mapping_that_moves_and_grows_is_found_where_it_went,
        a_mapping_that_shrank_makes_all_blocks_unknown_that_it_ever_reached,
        a_mapping_keeps_its_file_open,
        mappings_beyond_the_table_stand_until_the_process_ends,
        a_mapping_that_was_made_before_the_map_stands_from_then_on,
        a_mapping_that_was_made_before_the_map_and_becomes_writable_later_stands,
        private_mappings_do_not_stand,
        mappings_are_found_behind_files_with_very_long_names,
        all_that_stands_is_settled_at_the_end,
        a_stream_writes_out_what_it_holds_before_it_is_settled,
        a_stream_that_another_thread_has_locked_is_left_standing,
        threads_that_map_and_unmap_leave_nothing_standing,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "standing", 20, NULL, tests);
}
