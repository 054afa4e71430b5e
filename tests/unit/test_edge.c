/*
 * Blocks of which only a part is written: the rest must be vouched for before the whole gets a checksum.
 */
#include <check.h>

#include "base/process.h"
#include "base/stats.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCK_INDEX = 4, OLD = 1001, NEW = 2002, OTHER = 3003 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

static struct announcement write_request;
static struct edge edge;

/* A partial write of the block, announced; `current` is what was recorded before. */
static void announce_edge(uint64_t current)
{
    if (!map->header)
        map_fixture_new(&fixture, 8);
    words_set(map, BLOCK_INDEX, current, WORD_IDLE);
    announce_open(&write_request, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce(&write_request, &edge, BLOCK_INDEX);
}

static void publish_edge(uint64_t sum)
{
    edge_publish(&write_request, &edge, sum);
    announce_close(&write_request);
}

/* Another writer of the whole block, from announcement to publication. */
static void write_whole_block(uint64_t sum)
{
    struct announcement whole;
    announce_open(&whole, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&whole, BLOCK_INDEX, 1, &sum);
    announce_publish(&whole, BLOCK_INDEX, 1);
    announce_close(&whole);
}

static void mutate_block(void)
{
    struct mutation mutation;
    mutate_open(&mutation, map, BLOCK_INDEX, 1, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, BLOCK_INDEX, 1);
}

START_TEST(a_partial_write_is_announced_as_contended_and_remembers_what_is_recorded)
{
    announce_edge(OLD);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_CONTENDED + 1);
    ck_assert(edge.sole);
    ck_assert_uint_eq(edge.base, OLD);
}
END_TEST

START_TEST(a_block_that_reads_as_recorded_gets_its_new_sum)
{
    announce_edge(OLD);
    ck_assert_int_eq(edge_check(&write_request, &edge, OLD), EDGE_AS_RECORDED);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, NEW, WORD_IDLE);
}
END_TEST

START_TEST(a_published_edge_counts_as_summed)
{
    announce_edge(OLD);
    uint64_t before = stats_get(STAT_blocks_summed);
    publish_edge(NEW);
    ck_assert_uint_eq(stats_get(STAT_blocks_summed) - before, 1);
}
END_TEST

START_TEST(unknown_stays_unknown)
{
    announce_edge(WORD_UNKNOWN);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_block_that_reads_otherwise_is_a_mismatch)
{
    announce_edge(OLD);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_MISMATCH);
}
END_TEST

START_TEST(a_mismatch_that_is_not_reported_leaves_the_block_unknown)
{
    announce_edge(OLD);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_MISMATCH);
    edge.base = WORD_UNKNOWN;
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_reported_mismatch_poisons_the_block_whatever_becomes_of_the_write)
{
    void (*const endings[])(const struct announcement *, struct edge *) = {edge_withdraw, edge_forget};
    for (int i = 0; i < 3; i++) {
        announce_edge(OLD);
        ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_MISMATCH);
        ck_assert(edge_poison(&edge));
        if (i < 2)
            endings[i](&write_request, &edge);
        else
            edge_publish(&write_request, &edge, NEW);
        announce_close(&write_request);
        ck_assert_words(map, BLOCK_INDEX, WORD_POISON, WORD_IDLE);
    }
}
END_TEST

START_TEST(a_block_that_was_repaired_meanwhile_is_not_poisoned)
{
    announce_edge(OLD);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_MISMATCH);
    atomic_store(&words_of(map, BLOCK_INDEX)->current, NEW);
    ck_assert(!edge_poison(&edge));
    ck_assert_words(map, BLOCK_INDEX, NEW, WORD_CONTENDED + 1);
    publish_edge(OTHER);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_poisoned_block_is_a_mismatch_for_the_next_partial_write_too)
{
    announce_edge(WORD_POISON);
    ck_assert_int_eq(edge_check(&write_request, &edge, OLD), EDGE_MISMATCH);
}
END_TEST

START_TEST(a_block_that_reads_otherwise_under_a_mutator_is_no_mismatch)
{
    struct mutation mutation;
    announce_edge(OLD);
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
    mutate_close(&mutation, 0, 0);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_block_that_reads_otherwise_after_a_mutator_is_no_mismatch)
{
    announce_edge(OLD);
    mutate_block();
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
}
END_TEST

START_TEST(a_block_that_reads_otherwise_while_shared_is_no_mismatch)
{
    struct announcement other;
    const uint64_t sum = OTHER;
    announce_edge(OLD);
    announce_open(&other, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&other, BLOCK_INDEX, 1, &sum);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
}
END_TEST

START_TEST(a_block_that_reads_otherwise_after_another_writer_came_and_went_is_no_mismatch)
{
    announce_edge(OLD);
    write_whole_block(OTHER);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
}
END_TEST

START_TEST(a_second_partial_writer_is_not_sole_and_never_reports)
{
    struct announcement second_request;
    struct edge second;
    announce_edge(OLD);
    announce_open(&second_request, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce(&second_request, &second, BLOCK_INDEX);
    ck_assert(!second.sole);
    edge_withdraw(&write_request, &edge); /* the first leaves: the word says contended(1) again */
    announce_close(&write_request);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_CONTENDED + 1);
    ck_assert_int_eq(edge_check(&second_request, &second, OTHER), EDGE_UNKNOWN);
    edge_publish(&second_request, &second, NEW);
    announce_close(&second_request);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_second_partial_writer_publishes_nothing_though_it_is_alone_in_the_end)
{
    struct announcement second_request;
    struct edge second;
    announce_edge(OLD);
    announce_open(&second_request, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce(&second_request, &second, BLOCK_INDEX);
    edge_withdraw(&write_request, &edge);
    announce_close(&write_request);
    ck_assert_int_eq(edge_check(&second_request, &second, OLD), EDGE_AS_RECORDED);
    edge_publish(&second_request, &second, NEW);
    announce_close(&second_request);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_writer_that_joins_after_the_check_leaves_the_block_unknown)
{
    announce_edge(OLD);
    ck_assert_int_eq(edge_check(&write_request, &edge, OLD), EDGE_AS_RECORDED);
    write_whole_block(OTHER);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

/* The word can be contended(1) again and current another: a question and a joiner that both left in between. */
START_TEST(a_recorded_sum_that_changed_since_it_was_read_leaves_the_block_unknown)
{
    announce_edge(OLD);
    atomic_store(&words_of(map, BLOCK_INDEX)->current, OTHER);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mutator_at_work_while_an_edge_is_published_leaves_it_unknown)
{
    struct mutation mutation;
    announce_edge(OLD);
    mutate_open(&mutation, map, BLOCK_INDEX, 1, TRANSPORT_BLOCKING, false);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
    mutate_close(&mutation, BLOCK_INDEX, 1);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_mutator_that_came_and_went_leaves_an_edge_unknown)
{
    announce_edge(OLD);
    mutate_block();
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_withdrawn_edge_leaves_what_was_recorded)
{
    announce_edge(OLD);
    edge_withdraw(&write_request, &edge);
    announce_close(&write_request);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_IDLE);
}
END_TEST

START_TEST(a_forgotten_edge_is_unknown)
{
    announce_edge(OLD);
    edge_forget(&write_request, &edge);
    announce_close(&write_request);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

/* ---- The rest of the block lies beyond the end of the file. ---- */

static void announce_whole_edge(uint64_t current)
{
    map_fixture_new(&fixture, 8);
    words_set(map, BLOCK_INDEX, current, WORD_IDLE);
    announce_open(&write_request, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce_whole(&write_request, &edge, BLOCK_INDEX, NEW);
}

START_TEST(a_last_block_is_announced_and_published_like_a_whole_one)
{
    announce_whole_edge(WORD_UNKNOWN);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, NEW);
    uint64_t before = stats_get(STAT_blocks_summed);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, NEW, WORD_IDLE);
    ck_assert_uint_eq(stats_get(STAT_blocks_summed) - before, 1);
}
END_TEST

START_TEST(a_last_block_that_somebody_joined_is_unknown)
{
    announce_whole_edge(OLD);
    write_whole_block(OTHER);
    publish_edge(NEW);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_withdrawn_last_block_leaves_what_was_recorded_and_a_forgotten_one_is_unknown)
{
    announce_whole_edge(OLD);
    edge_withdraw(&write_request, &edge);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_IDLE);
    edge_announce_whole(&write_request, &edge, BLOCK_INDEX, NEW);
    edge_forget(&write_request, &edge);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
    announce_close(&write_request);
}
END_TEST

START_TEST(a_last_block_that_is_not_the_last_any_more_becomes_a_part_of_a_block)
{
    announce_whole_edge(OLD);
    edge_downgrade(&edge, NEW);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_CONTENDED + 1);
    ck_assert_int_eq(edge_check(&write_request, &edge, OLD), EDGE_AS_RECORDED);
    publish_edge(OTHER);
    ck_assert_words(map, BLOCK_INDEX, OTHER, WORD_IDLE);
}
END_TEST

START_TEST(a_last_block_of_unknown_checksum_stays_unknown_when_it_is_not_the_last_any_more)
{
    announce_whole_edge(WORD_UNKNOWN);
    edge_downgrade(&edge, NEW);
    publish_edge(OTHER);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_last_block_that_somebody_joined_before_it_was_the_last_no_more_is_unknown)
{
    announce_whole_edge(OLD);
    write_whole_block(OTHER);
    atomic_store(&words_of(map, BLOCK_INDEX)->current, OLD);
    edge_downgrade(&edge, NEW);
    ck_assert_int_eq(edge_check(&write_request, &edge, OTHER), EDGE_UNKNOWN);
    publish_edge(OTHER);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(an_orphan_is_taken_over_by_a_partial_write)
{
    map_fixture_new(&fixture, 8);
    words_set(map, BLOCK_INDEX, OLD, OTHER);
    announce_open(&write_request, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    edge_announce(&write_request, &edge, BLOCK_INDEX);
    ck_assert(edge.sole);
    ck_assert_words(map, BLOCK_INDEX, OLD, WORD_CONTENDED + 1);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_partial_write_is_announced_as_contended_and_remembers_what_is_recorded,
        a_block_that_reads_as_recorded_gets_its_new_sum,
        a_published_edge_counts_as_summed,
        unknown_stays_unknown,
        a_block_that_reads_otherwise_is_a_mismatch,
        a_mismatch_that_is_not_reported_leaves_the_block_unknown,
        a_reported_mismatch_poisons_the_block_whatever_becomes_of_the_write,
        a_block_that_was_repaired_meanwhile_is_not_poisoned,
        a_poisoned_block_is_a_mismatch_for_the_next_partial_write_too,
        a_block_that_reads_otherwise_under_a_mutator_is_no_mismatch,
        a_block_that_reads_otherwise_after_a_mutator_is_no_mismatch,
        a_block_that_reads_otherwise_while_shared_is_no_mismatch,
        a_block_that_reads_otherwise_after_another_writer_came_and_went_is_no_mismatch,
        a_second_partial_writer_is_not_sole_and_never_reports,
        a_second_partial_writer_publishes_nothing_though_it_is_alone_in_the_end,
        a_writer_that_joins_after_the_check_leaves_the_block_unknown,
        a_recorded_sum_that_changed_since_it_was_read_leaves_the_block_unknown,
        a_mutator_at_work_while_an_edge_is_published_leaves_it_unknown,
        a_mutator_that_came_and_went_leaves_an_edge_unknown,
        a_withdrawn_edge_leaves_what_was_recorded,
        a_forgotten_edge_is_unknown,
        a_last_block_is_announced_and_published_like_a_whole_one,
        a_last_block_that_somebody_joined_is_unknown,
        a_withdrawn_last_block_leaves_what_was_recorded_and_a_forgotten_one_is_unknown,
        a_last_block_that_is_not_the_last_any_more_becomes_a_part_of_a_block,
        a_last_block_of_unknown_checksum_stays_unknown_when_it_is_not_the_last_any_more,
        a_last_block_that_somebody_joined_before_it_was_the_last_no_more_is_unknown,
        an_orphan_is_taken_over_by_a_partial_write,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "edge", 20, NULL, tests);
}
