/* Regions: DIRTY before the data, clean only when nothing is under way, suspect after a power cut. */
#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/process.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "checksum/region.h"
#include "checksum/window.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { SUM = 1001, REGIONS = 40 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;
static struct region_sweep sweep;

static uint64_t word(uint64_t region)
{
    return *map_region_word(map, region);
}

static bool is(uint64_t region, uint64_t bits)
{
    return (word(region) & (REGION_DIRTY | REGION_DURABLE | REGION_SUSPECT)) == bits;
}

static uint64_t sequence(uint64_t region)
{
    return word(region) >> REGION_SEQUENCE_SHIFT;
}

static void mark(uint64_t region)
{
    region_make_durable(map, region * REGION_BLOCKS, 1);
}

/* Sweep everything. @return how many regions were on their way. */
static unsigned sweep_all(bool flushed)
{
    uint64_t cursor = 0;
    unsigned count = region_sweep_open(&sweep, map, &cursor, true);
    region_sweep_close(&sweep, flushed);
    return count;
}

/* One unit in each of the first REGIONS regions, which are clean. */
static void cover_regions(void)
{
    for (uint64_t region = 0; region < REGIONS; region++)
        ck_assert_int_eq(locked_map_cover(map, region * REGION_BLOCKS, 8), 0);
    ck_assert_uint_eq(sweep_all(true), REGIONS);
}

static void new_map(void)
{
    map_fixture_new(&fixture, 8);
    cover_regions();
}

START_TEST(a_new_region_is_dirty_and_durable_with_its_first_unit)
{
    map_fixture_new(&fixture, 8);
    ck_assert(is(0, REGION_DIRTY | REGION_DURABLE));
    ck_assert(region_are_durable(map, 0, 8));
    ck_assert_int_eq(sweep_all(true), 1);
    ck_assert_int_eq(locked_map_cover(map, UNIT_BLOCKS, 8), 0);
    ck_assert_msg(is(0, 0), "a second unit must not make a clean region durable");
}
END_TEST

START_TEST(a_region_is_not_durable_until_it_was_made_so)
{
    new_map();
    ck_assert(!region_are_durable(map, 0, 1));
    mark(0);
    ck_assert(region_are_durable(map, 0, 1));
    ck_assert(is(0, REGION_DIRTY | REGION_DURABLE));
    ck_assert(!region_are_durable(map, REGION_BLOCKS - 1, 2));
}
END_TEST

START_TEST(every_setting_of_dirty_has_a_sequence_number_of_its_own)
{
    new_map();
    uint64_t before = sequence(3);
    mark(3);
    ck_assert_uint_eq(sequence(3), before + 1);
    mark(3); /* durable already */
    ck_assert_uint_eq(sequence(3), before + 1);
    atomic_fetch_and(map_region_word(map, 3), ~REGION_DURABLE);
    mark(3);
    ck_assert_uint_eq(sequence(3), before + 2);
}
END_TEST

START_TEST(a_range_to_the_end_marks_every_region_that_has_a_unit)
{
    new_map();
    region_make_durable(map, 5 * REGION_BLOCKS, FLIGHT_TO_END);
    ck_assert(is(4, 0) && is(5, REGION_DIRTY | REGION_DURABLE) && is(REGIONS - 1, REGION_DIRTY | REGION_DURABLE));
    ck_assert_msg(is(REGIONS, 0), "a region without a unit was marked");
    ck_assert(region_are_durable(map, 5 * REGION_BLOCKS, FLIGHT_TO_END));
}
END_TEST

START_TEST(regions_that_no_window_reaches_need_nothing)
{
    new_map();
    ck_assert(region_are_durable(map, MAP_BLOCKS_MAX - 1, 1));
    region_make_durable(map, MAP_BLOCKS_MAX - 1, 5);
    ck_assert(!region_any_dirty(map));
}
END_TEST

START_TEST(a_sequential_writer_has_twice_as_much_marked_each_time)
{
    new_map();
    mark(15);
    ck_assert(is(16, 0));
    mark(16);
    ck_assert(is(17, REGION_DIRTY | REGION_DURABLE) && is(18, 0));
    mark(18);
    ck_assert(is(19, REGION_DIRTY | REGION_DURABLE) && is(21, REGION_DIRTY | REGION_DURABLE) && is(22, 0));
    ck_assert_msg(!(word(21) & REGION_TOUCHED), "what is only marked ahead may be cleared");
}
END_TEST

START_TEST(a_region_that_nobody_writes_becomes_clean)
{
    new_map();
    mark(2);
    ck_assert_uint_eq(sweep_all(true), 1);
    ck_assert(is(2, 0));
    ck_assert(!region_any_dirty(map));
}
END_TEST

START_TEST(without_a_flush_a_region_stays_dirty)
{
    new_map();
    mark(2);
    ck_assert_uint_eq(sweep_all(false), 1);
    ck_assert(is(2, REGION_DIRTY));
    ck_assert(!region_are_durable(map, 2 * REGION_BLOCKS, 1));
}
END_TEST

/* The kernel tells of pages that did not reach the disk once. A page that is not there stands for them. */
START_TEST(words_that_cannot_be_written_are_not_clean_the_next_time_either)
{
    uint64_t run, cursor = 0;

    new_map();
    mark(2);
    char *page = (char *)map_words(map, 2 * REGION_BLOCKS, &run) + FORMAT_PAGE;
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    ck_assert_int_eq(munmap(page, FORMAT_PAGE), 0);
    region_sweep_close(&sweep, true);
    ck_assert_ptr_eq(mmap(page, FORMAT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     page);
    ck_assert(is(2, REGION_DIRTY));
    ck_assert(!map_is_usable(map));
    sweep_all(true);
    ck_assert(is(2, REGION_DIRTY));
}
END_TEST

/* From here on a signal comes into every wait for the disk. */
static void interrupt_msync(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_msync, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINTR),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(a_sweep_that_a_signal_interrupts_gives_no_map_up)
{
    uint64_t cursor = 0;

    new_map();
    mark(2);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    interrupt_msync();
    region_sweep_close(&sweep, true);
    ck_assert(is(2, REGION_DIRTY));
    ck_assert(map_is_usable(map));
}
END_TEST

START_TEST(a_region_with_a_request_in_flight_stays_durable)
{
    struct announcement announcement;
    new_map();
    mark(2);
    announce_open(&announcement, map, 3 * REGION_BLOCKS - 1, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    ck_assert_uint_eq(sweep_all(true), 0);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
    announce_close(&announcement);
    ck_assert_uint_eq(sweep_all(true), 1);
}
END_TEST

START_TEST(a_clearer_that_gives_durable_back_cannot_be_mistaken_for_nobody)
{
    new_map();
    mark(2);
    uint64_t before = word(2);
    words_set(map, 2 * REGION_BLOCKS + 5, WORD_UNKNOWN, SUM);
    ck_assert_uint_eq(sweep_all(true), 0);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
    ck_assert_uint_ne(word(2), before);
}
END_TEST

START_TEST(a_clearer_is_not_misled_by_a_second_one)
{
    struct region_sweep second;
    uint64_t cursor = 2, again = 2;
    new_map();
    mark(2);
    atomic_fetch_and(map_region_word(map, 2), ~REGION_DURABLE);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    /* A writer that set DIRTY before that says DURABLE only now, and the next one relies on it. */
    atomic_fetch_or(map_region_word(map, 2), REGION_DURABLE);
    ck_assert_uint_eq(region_sweep_open(&second, map, &again, true), 1);
    region_sweep_close(&sweep, true);
    ck_assert_msg(is(2, REGION_DIRTY), "cleared, though there was a write since the look");
    region_sweep_close(&second, true);
    ck_assert(is(2, 0));
}
END_TEST

START_TEST(a_region_with_a_pending_block_stays_dirty)
{
    new_map();
    mark(2);
    words_set(map, 2 * REGION_BLOCKS + 5, SUM, WORD_CONTENDED + 1);
    ck_assert_uint_eq(sweep_all(true), 0);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
}
END_TEST

START_TEST(a_write_during_the_flush_keeps_the_region_dirty)
{
    uint64_t cursor = 0;
    new_map();
    mark(2);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    ck_assert(!region_are_durable(map, 2 * REGION_BLOCKS, 1));
    mark(2);
    region_sweep_close(&sweep, true);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
}
END_TEST

START_TEST(a_mutator_in_between_keeps_the_region_dirty)
{
    uint64_t cursor = 0;
    struct mutation mutation;
    new_map();
    mark(2);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    mutate_open(&mutation, map, 2 * REGION_BLOCKS, 1, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, 2 * REGION_BLOCKS, 1);
    region_sweep_close(&sweep, true);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
}
END_TEST

START_TEST(a_touched_region_is_left_to_the_next_sweep)
{
    uint64_t cursor = 0;
    new_map();
    mark(2);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, false), 0);
    ck_assert(is(2, REGION_DIRTY | REGION_DURABLE));
    cursor = 0;
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, false), 1);
    region_sweep_close(&sweep, true);
    ck_assert(is(2, 0));
}
END_TEST

START_TEST(a_write_between_two_sweeps_touches_the_region_again)
{
    uint64_t cursor = 0;
    new_map();
    mark(2);
    region_sweep_open(&sweep, map, &cursor, false);
    ck_assert(region_are_durable(map, 2 * REGION_BLOCKS, 1)); /* what a write asks */
    cursor = 0;
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, false), 0);
}
END_TEST

START_TEST(a_nowait_mutator_does_not_wait_for_the_store)
{
    struct mutation mutation;
    new_map();
    ck_assert_int_eq(mutate_open(&mutation, map, 0, 1, TRANSPORT_BLOCKING, true), -EAGAIN);
    ck_assert_uint_eq(map->header->unsettled, 0);
    ck_assert(!flight_mutator_covers(map->id, 0, false));
    ck_assert(is(0, 0));
    mark(0);
    ck_assert_int_eq(mutate_open(&mutation, map, 0, 1, TRANSPORT_BLOCKING, true), 0);
    mutate_close(&mutation, 0, 1);
}
END_TEST

/* ---- Another boot. ---- */

static bool dirty_in_boot_1(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    pretend_boot(1);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, true), 0);
    cover_regions();
    mark(3);
    mark(9);
    mark(20);
    uint64_t cursor = 9;
    region_sweep_open(&sweep, map, &cursor, true);
    sweep.count = 1; /* region 9 becomes clean; 20 is left between the steps */
    region_sweep_close(&sweep, true);
    return true;
}

static void open_in_boot(unsigned boot)
{
    pretend_boot(boot);
    ck_assert_int_eq(locked_map_open(map, &fixture.key, false), 0);
}

START_TEST(what_was_dirty_in_another_boot_is_suspect_and_nothing_else)
{
    map_fixture_prepare(&fixture);
    peer_run(dirty_in_boot_1, NULL);
    open_in_boot(2);
    for (uint64_t region = 0; region < REGIONS; region++)
        ck_assert_msg(is(region, region == 3 || region == 20 ? REGION_SUSPECT : 0), "region %d", (int)region);
}
END_TEST

START_TEST(a_suspect_region_that_is_written_and_swept_stays_suspect)
{
    map_fixture_prepare(&fixture);
    peer_run(dirty_in_boot_1, NULL);
    open_in_boot(2);
    mark(3);
    sweep_all(true);
    ck_assert(is(3, REGION_SUSPECT));
    region_trust(map, 3);
    ck_assert(is(3, 0));
}
END_TEST

static bool lose_a_unit_s_bit(struct peer *peer, void *argument)
{
    dirty_in_boot_1(peer, argument);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS + UNIT_BLOCKS, 1), 0);
    words_set(map, 3 * REGION_BLOCKS + UNIT_BLOCKS, SUM, WORD_IDLE);
    atomic_fetch_and(map_region_word(map, 3), ~REGION_UNIT(1));
    return true;
}

START_TEST(a_unit_whose_bit_was_lost_comes_back_empty)
{
    map_fixture_prepare(&fixture);
    peer_run(lose_a_unit_s_bit, NULL);
    open_in_boot(2);
    ck_assert_int_eq(locked_map_cover(map, 3 * REGION_BLOCKS + UNIT_BLOCKS, 1), 0);
    ck_assert_words(map, 3 * REGION_BLOCKS + UNIT_BLOCKS, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

static bool lose_the_count_of_windows(struct peer *peer, void *argument)
{
    dirty_in_boot_1(peer, argument);
    atomic_store(&map->header->windows, 1);
    return true;
}

START_TEST(windows_that_the_header_does_not_know_are_entered_as_well)
{
    map_fixture_prepare(&fixture);
    peer_run(lose_the_count_of_windows, NULL);
    open_in_boot(2);
    ck_assert(is(20, REGION_SUSPECT));
}
END_TEST

static bool set_times_in_boot_1(struct peer *peer, void *argument)
{
    const int64_t *lag = argument;
    dirty_in_boot_1(peer, NULL);
    map->header->window_issue = map->header->window_completion = fixture.key.modified - *lag;
    return true;
}

/* Is a file whose mtime is `lag` after the header's window taken for changed outside in the next boot? */
static bool looks_changed_after(int64_t lag)
{
    bool first;
    map_fixture_prepare(&fixture);
    peer_run(set_times_in_boot_1, &lag);
    open_in_boot(2);
    return window_changed_outside(map, fixture.key.modified, FLIGHT_BEYOND, &first);
}

START_TEST(a_header_that_is_older_than_the_last_writes_is_no_outside_change)
{
    ck_assert(!looks_changed_after(INT64_C(30) * 1000000000));
}
END_TEST

START_TEST(times_that_were_not_flushed_are_no_outside_change)
{
    ck_assert(!looks_changed_after(INT64_C(-30) * 1000000000));
}
END_TEST

START_TEST(an_edit_long_after_the_power_cut_is_an_outside_change)
{
    ck_assert(looks_changed_after(INT64_C(300) * 1000000000));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_new_region_is_dirty_and_durable_with_its_first_unit,
        a_region_is_not_durable_until_it_was_made_so,
        every_setting_of_dirty_has_a_sequence_number_of_its_own,
        a_range_to_the_end_marks_every_region_that_has_a_unit,
        regions_that_no_window_reaches_need_nothing,
        a_sequential_writer_has_twice_as_much_marked_each_time,
        a_region_that_nobody_writes_becomes_clean,
        without_a_flush_a_region_stays_dirty,
        words_that_cannot_be_written_are_not_clean_the_next_time_either,
        a_sweep_that_a_signal_interrupts_gives_no_map_up,
        a_region_with_a_request_in_flight_stays_durable,
        a_clearer_that_gives_durable_back_cannot_be_mistaken_for_nobody,
        a_clearer_is_not_misled_by_a_second_one,
        a_region_with_a_pending_block_stays_dirty,
        a_write_during_the_flush_keeps_the_region_dirty,
        a_mutator_in_between_keeps_the_region_dirty,
        a_touched_region_is_left_to_the_next_sweep,
        a_write_between_two_sweeps_touches_the_region_again,
        a_nowait_mutator_does_not_wait_for_the_store,
        what_was_dirty_in_another_boot_is_suspect_and_nothing_else,
        a_suspect_region_that_is_written_and_swept_stays_suspect,
        a_unit_whose_bit_was_lost_comes_back_empty,
        windows_that_the_header_does_not_know_are_entered_as_well,
        a_header_that_is_older_than_the_last_writes_is_no_outside_change,
        times_that_were_not_flushed_are_no_outside_change,
        an_edit_long_after_the_power_cut_is_an_outside_change,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "region", 20, NULL, tests);
}
