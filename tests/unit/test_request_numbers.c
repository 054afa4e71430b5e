/*
 * Descriptor numbers under asynchronous requests: closed, used again for another file, or unknown from the start. What such a number shows is
 * never called damage, and what may have gone elsewhere is never called known.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "engine/decide.h"
#include "engine/request.h"
#include "engine/verify.h"
#include "files/classify.h"
#include "support/request_fixture.h"
#include "support/support.h"

enum { BLOCKS = 16, LENGTH = BLOCKS * BLOCK };

static struct scene scene;
static struct request request;
static char *memory;
static uint64_t mismatches, unverified;

/* A file of four known blocks, and a buffer of another pattern. */
static void open_scene(void)
{
    scene_open(&scene, O_RDWR);
    scene_fill(&scene, 1, 4);
    memory = buffer_new(LENGTH);
    pattern_fill(memory, LENGTH, 2, 0);
    mismatches = stats_get(STAT_mismatches);
    unverified = stats_get(STAT_blocks_unverified);
}

static const char *other_path(void)
{
    static char path[FIXTURE_PATH + 8];
    snprintf(path, sizeof path, "%s.other", scene.fixture.path);
    return path;
}

/* Another file with a map, and the words of its blocks known. */
static struct map *make_other(uint64_t seed)
{
    int fd = number_open(other_path(), O_RDWR | O_CREAT | O_DIRECT);
    struct map *map = &fd_word_file(fd_word(fd))->map;
    char *content = buffer_new(4 * BLOCK);
    pattern_fill(content, 4 * BLOCK, seed, 0);
    struct request_call call = writing(content, 4 * BLOCK, 0);
    ck_assert_int_eq(request_whole(fd, &call), 4 * BLOCK);
    buffer_free(content, 4 * BLOCK);
    ck_assert_words(map, 1, pattern_sum(seed, 1), WORD_IDLE);
    return map;
}

static void check_known(const struct map *map, uint64_t seed, uint64_t first, uint64_t end)
{
    for (uint64_t block = first; block < end; block++)
        ck_assert_words(map, block, pattern_sum(seed, block), WORD_IDLE);
}

static void check_unknown(const struct map *map, uint64_t first, uint64_t end)
{
    for (uint64_t block = first; block < end; block++)
        ck_assert_words(map, block, WORD_UNKNOWN, WORD_IDLE);
}

/* ---- closed in flight ---- */

START_TEST(a_number_closed_after_the_kernel_took_a_write_changes_nothing)
{
    open_scene();
    struct request_call call = writing(memory, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    number_close(scene.fd);
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK);
    check_known(scene.map, 2, 0, 2);
    check_known(scene.map, 1, 2, 4);
    ck_assert_uint_eq(atomic_load(&scene.file->references), 0);
}
END_TEST

START_TEST(a_write_that_nobody_saw_taken_is_certain_only_while_the_number_stands)
{
    open_scene();
    struct request_call call = writing(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_int_eq(request_complete(&request, request_carry_out(&request, scene.fd)), BLOCK);
    check_known(scene.map, 2, 0, 1);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    number_close(scene.fd);
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_unknown(scene.map, 0, 1);
}
END_TEST

static void read_with_number_closed(size_t length, int64_t expected)
{
    struct request_call call = reading(memory, length, 0);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    number_close(scene.fd);
    ck_assert_int_eq(request_complete(&request, result), expected);
}

START_TEST(a_read_whose_number_was_closed_is_verified_by_another)
{
    open_scene();
    number_open(scene.fixture.path, O_WRONLY | O_DIRECT); /* of no use here */
    number_open(scene.fixture.path, O_RDONLY | O_DIRECT);
    flip_bit_behind(scene.fixture.path, BLOCK + 5, 1);
    read_with_number_closed(4 * BLOCK, -EIO);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches + 1);
}
END_TEST

START_TEST(a_read_in_place_whose_number_was_closed_is_read_again_by_another)
{
    open_scene();
    number_open(scene.fixture.path, O_RDONLY | O_DIRECT);
    struct request_call call = reading(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert(request.in_place);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    number_close(scene.fd);
    memory[0] ^= 1;
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    ck_assert_uint_eq(pattern_check(memory, BLOCK, 1, 0), BLOCK);
}
END_TEST

/* Closed, and used for another file, after the bytes in place had raised a suspicion: they are better than the other file's. */
START_TEST(a_read_is_not_made_again_from_another_file)
{
    open_scene();
    make_other(2);
    struct request_call call = reading(memory, BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    ck_assert_int_eq(request_carry_out(&request, scene.fd), BLOCK);
    request_issued(&request);
    number_reuse(scene.fd, other_path(), O_RDWR | O_DIRECT);
    ssize_t told;
    ck_assert(!part_read_again(&request.part, &told));
    ck_assert_uint_eq(pattern_check(memory, BLOCK, 1, 0), BLOCK);
    ck_assert_int_eq(request_complete(&request, BLOCK), BLOCK);
    ck_assert_uint_eq(pattern_check(memory, BLOCK, 1, 0), BLOCK);
}
END_TEST

/* Some description's flags were changed: no number is known any more. */
START_TEST(a_read_whose_number_was_forgotten_learns_it_again)
{
    open_scene();
    flip_bit_behind(scene.fixture.path, BLOCK + 5, 1);
    for (int in_place = 0; in_place < 2; in_place++) {
        struct request_call call = reading(memory, in_place ? 4 * BLOCK : LENGTH, 0);
        config.read = in_place ? READ_INPLACE : READ_BOUNCE;
        request_ready(&request, scene.fd, &call);
        ck_assert_int_eq(request.in_place, in_place);
        ssize_t result = request_carry_out(&request, scene.fd);
        request_issued(&request);
        fd_flags_changed();
        ck_assert_int_eq(request_complete(&request, result), -EIO);
        ck_assert_uint_eq(stats_get(STAT_mismatches), ++mismatches);
    }
}
END_TEST

START_TEST(a_read_in_place_whose_readable_numbers_were_closed_is_unverified)
{
    open_scene();
    number_open(scene.fixture.path, O_WRONLY | O_DIRECT);
    flip_bit_behind(scene.fixture.path, 5, 1);
    read_with_number_closed(BLOCK, BLOCK);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    ck_assert_uint_eq(stats_get(STAT_blocks_unverified), unverified + 1);
}
END_TEST

START_TEST(a_read_whose_last_number_was_closed_is_unverified)
{
    for (int way = 0; way < 2; way++) {
        size_t length = way ? LENGTH : 4 * BLOCK;
        config.read = way ? READ_BOUNCE : READ_INPLACE;
        if (way == 0)
            open_scene();
        else
            scene.fd = number_open(scene.fixture.path, O_RDWR | O_DIRECT);
        flip_bit_behind(scene.fixture.path, BLOCK + 5, (unsigned)way);
        read_with_number_closed(length, 4 * BLOCK);
        ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
        ck_assert_uint_gt(stats_get(STAT_blocks_unverified), unverified);
        unverified = stats_get(STAT_blocks_unverified);
    }
}
END_TEST

/* ---- used again ---- */

/* What a read brought is old by the time it completes, which only a look at the file can tell from damage. */
static void read_of_what_changes_meanwhile(size_t length, void (*between)(void))
{
    struct request_call call = reading(memory, length, 0);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    char *newer = buffer_new(BLOCK);
    pattern_fill(newer, BLOCK, 9, 0);
    struct request_call write_call = writing(newer, BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &write_call), BLOCK);
    between();
    ck_assert_int_eq(request_complete(&request, result), result);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    buffer_free(newer, BLOCK);
}

static void let_number_lead_elsewhere(void)
{
    number_reuse(scene.fd, other_path(), O_RDWR | O_DIRECT);
}

START_TEST(another_file_s_content_is_not_taken_for_damage)
{
    open_scene();
    make_other(7);
    config.read = READ_BOUNCE;
    read_of_what_changes_meanwhile(LENGTH, let_number_lead_elsewhere); /* to the end of the file */
    ck_assert_uint_eq(pattern_check(memory, 4 * BLOCK, 1, 0), 4 * BLOCK);
    number_reuse(scene.fd, scene.fixture.path, O_RDWR | O_DIRECT);
    scene_fill(&scene, 1, 4);
    config.read = READ_INPLACE;
    read_of_what_changes_meanwhile(4 * BLOCK, let_number_lead_elsewhere);
    ck_assert_uint_eq(pattern_check(memory, 4 * BLOCK, 1, 0), 4 * BLOCK);
}
END_TEST

START_TEST(a_shorter_file_under_the_number_is_not_taken_for_a_cut)
{
    open_scene();
    struct request_call call = reading(memory, LENGTH, BLOCK);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    ck_assert_int_eq(result, 3 * BLOCK);
    request_issued(&request);
    scene_fill(&scene, 1, 8); /* the file grows, and its new blocks are known */
    number_reuse(scene.fd, other_path(), O_RDWR | O_CREAT | O_DIRECT);
    ck_assert_int_eq(request_complete(&request, result), 3 * BLOCK);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
}
END_TEST

/* The number goes between the completion's look at it and the read that decides. */
START_TEST(a_decision_by_a_number_that_leads_elsewhere_is_none)
{
    struct fd_view view;
    open_scene();
    make_other(7);
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0);
    let_number_lead_elsewhere();
    pattern_fill(memory, BLOCK, 3, 0);
    const struct block_part part = {.block = 0, .bytes = memory, .length = BLOCK};
    ck_assert_int_eq(decide_block(&view, &part, false), DECIDED_UNVERIFIED);
    ck_assert_uint_eq(pattern_check(memory, BLOCK, 3, 0), BLOCK); /* what was read there is nobody's business */
    number_close(scene.fd);
    ck_assert_int_eq(decide_block(&view, &part, false), DECIDED_UNVERIFIED); /* nor is it unreadable */
    number_open(other_path(), O_RDWR | O_DIRECT);                            /* the same number again */
    const struct readout readout = {
        .view = &view, .data = memory, .offset = 512, .length = 512, .certain = true, .scratch = memory + BLOCK};
    memcpy(memory + 2 * BLOCK, memory, 512);
    ck_assert_int_eq(verify_readout(&readout), 0); /* of which the whole block is read */
    ck_assert_mem_eq(memory, memory + 2 * BLOCK, 512);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    ck_assert_uint_eq(atomic_load(&scene.map->header->flags) & MAP_CHANGED_OUTSIDE, 0);
    fd_view_close(&view);
}
END_TEST

static void write_after_reuse(bool is_seen)
{
    open_scene();
    struct map *other = make_other(7);
    struct request_call call = writing(memory, BLOCK, BLOCK);
    request_ready(&request, scene.fd, &call);
    let_number_lead_elsewhere();
    ssize_t result = request_carry_out(&request, scene.fd);
    if (is_seen) {
        request_issued(&request);
        ck_assert_uint_eq(atomic_load(&other->header->unsettled), 1); /* the other file's readers know */
    }
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_unknown(scene.map, 1, 2);
    check_known(scene.map, 1, 2, 4);
    check_unknown(other, 1, 2);
    check_known(other, 7, 2, 4);
    ck_assert_uint_eq(atomic_load(&other->header->unsettled), 0);
}

START_TEST(a_write_that_went_to_another_file_is_unknown_in_both)
{
    write_after_reuse(true);
}
END_TEST

START_TEST(a_write_that_may_have_gone_to_another_file_is_unknown_in_both)
{
    write_after_reuse(false);
}
END_TEST

START_TEST(a_buffered_write_that_went_to_another_file_is_unknown_there)
{
    open_scene();
    struct map *other = make_other(7);
    int fd = number_open(scene.fixture.path, O_WRONLY);
    struct request_call call = writing(memory, BLOCK, BLOCK);
    request_ready(&request, fd, &call);
    number_reuse(fd, other_path(), O_WRONLY);
    ck_assert_int_eq(pwrite(fd, memory, BLOCK, BLOCK), BLOCK);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, BLOCK), BLOCK);
    check_unknown(other, 1, 2);
    check_known(other, 7, 2, 4);
}
END_TEST

/* ---- registered files ---- */

/* As a ring finds it: the file, and no number. */
static void take_number_away(struct fd_view *view, int fd)
{
    ck_assert_int_eq(fd_view_open(view, fd, false), 0);
    view->fd = -1;
    view->word = 0;
}

START_TEST(a_registered_file_needs_no_number)
{
    open_scene();
    struct fd_view view;
    int registered = dup(scene.fd); /* what the ring holds: not in the table */
    take_number_away(&view, scene.fd);
    number_close(scene.fd);
    struct request_call call = writing(memory, 2 * BLOCK + 512, 512); /* both blocks at the ends are partly written */
    call.is_fixed = true;
    ck_assert_int_eq(request_prepare(&request, &view, &call), REQUEST_READY);
    ssize_t result = request_carry_out(&request, registered);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK + 512);
    check_unknown(scene.map, 0, 1);
    check_unknown(scene.map, 2, 3);
    ck_assert_uint_ne(words_of(scene.map, 1)->current, WORD_UNKNOWN);
    ck_assert_uint_ne(words_of(scene.map, 1)->current, pattern_sum(1, 1));
}
END_TEST

START_TEST(a_registered_file_is_looked_at_by_any_number_of_its_own)
{
    open_scene();
    struct fd_view view;
    take_number_away(&view, scene.fd);
    struct request_call call = writing(memory, 1024, 0);
    call.is_fixed = true;
    ck_assert_int_eq(request_prepare(&request, &view, &call), REQUEST_READY);
    ck_assert_int_eq(request.view.fd, scene.fd);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), 1024);
    ck_assert_uint_ne(words_of(scene.map, 0)->current, WORD_UNKNOWN);
    struct request_call read_call = reading(memory, BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &read_call), BLOCK);
    ck_assert_uint_eq(stats_get(STAT_blocks_unverified), unverified);
}
END_TEST

START_TEST(a_registered_file_appends_whatever_other_numbers_do)
{
    open_scene();
    struct fd_view view;
    int appending = number_open(scene.fixture.path, O_WRONLY | O_APPEND | O_DIRECT);
    take_number_away(&view, appending);
    struct request_call call = writing(memory, BLOCK, 0);
    call.is_fixed = true;
    ck_assert_int_eq(request_prepare(&request, &view, &call), REQUEST_READY);
    ssize_t result = request_carry_out(&request, appending);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_known(scene.map, 1, 0, 4);
    check_unknown(scene.map, 4, 5);
    ck_assert_uint_eq(size_behind(scene.fixture.path), 5 * BLOCK);
}
END_TEST

START_TEST(a_registered_file_has_a_file_offset_of_its_own)
{
    open_scene();
    struct fd_view view;
    int registered = open(scene.fixture.path, O_RDWR | O_DIRECT);
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0); /* only to look at the file by */
    struct request_call call = writing(memory, BLOCK, TRANSFER_FILE_OFFSET);
    call.is_fixed = true;
    ck_assert_int_eq(lseek(scene.fd, BLOCK, SEEK_SET), BLOCK);
    ck_assert_int_eq(request_prepare(&request, &view, &call), REQUEST_READY);
    ck_assert_int_eq(lseek(scene.fd, 2 * BLOCK, SEEK_SET), 2 * BLOCK);
    ssize_t result = write(registered, request.data, request.length);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_unknown(scene.map, 0, 4);
}
END_TEST

START_TEST(a_registered_file_that_was_exchanged_is_not_certain)
{
    open_scene();
    struct fd_view view;
    struct request_call call = writing(memory, BLOCK, 0);
    call.is_fixed = true;
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0);
    ck_assert_int_eq(request_prepare(&request, &view, &call), REQUEST_READY);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    request.current = false; /* the ring has seen it */
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_unknown(scene.map, 0, 1);
}
END_TEST

/* ---- numbers that the table does not remember ---- */

START_TEST(a_number_without_an_entry_is_told_by_its_file)
{
    open_scene();
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0);
    view.fd = dup(scene.fd);
    view.word = 0;
    ck_assert(fd_view_leads(&view));
    int other = open(other_path(), O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(dup2(other, view.fd), view.fd);
    ck_assert(!fd_view_leads(&view));
    ck_assert(fd_view_renew(&view, false));
    ck_assert_int_eq(view.fd, scene.fd);
    number_close(scene.fd);
    ck_assert(!fd_view_renew(&view, false));
    ck_assert_int_eq(view.fd, -1);
    ck_assert(!fd_view_leads(&view) && !fd_view_is_current(&view));
    fd_view_close(&view);
    view.fd = other; /* of a request that has given everything back, which a jump may clean up after once more */
    ck_assert(!fd_view_leads(&view));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_number_closed_after_the_kernel_took_a_write_changes_nothing,
        a_write_that_nobody_saw_taken_is_certain_only_while_the_number_stands,
        a_read_whose_number_was_closed_is_verified_by_another,
        a_read_in_place_whose_number_was_closed_is_read_again_by_another,
        a_read_is_not_made_again_from_another_file,
        a_read_whose_number_was_forgotten_learns_it_again,
        a_read_in_place_whose_readable_numbers_were_closed_is_unverified,
        a_read_whose_last_number_was_closed_is_unverified,
        another_file_s_content_is_not_taken_for_damage,
        a_shorter_file_under_the_number_is_not_taken_for_a_cut,
        a_decision_by_a_number_that_leads_elsewhere_is_none,
        a_write_that_went_to_another_file_is_unknown_in_both,
        a_write_that_may_have_gone_to_another_file_is_unknown_in_both,
        a_buffered_write_that_went_to_another_file_is_unknown_there,
        a_registered_file_needs_no_number,
        a_registered_file_is_looked_at_by_any_number_of_its_own,
        a_registered_file_appends_whatever_other_numbers_do,
        a_registered_file_has_a_file_offset_of_its_own,
        a_registered_file_that_was_exchanged_is_not_certain,
        a_number_without_an_entry_is_told_by_its_file,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "request numbers", 20, NULL, tests);
}
