/*
 * Verifying reads: the first look, and the deciding read. A question is opened, the block is read again, the question is closed
 * with its sum; what happens in between decides.
 */
#include <check.h>

#include "base/process.h"
#include "checksum/mutate.h"
#include "checksum/question.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCK_INDEX = 4, RECORDED = 1001, READ = 2002, WRITTEN = 3003 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;
static struct question question;

/* A map whose block has the recorded sum. */
static void record(uint64_t current, uint64_t pending)
{
    if (!map->header)
        map_fixture_new(&fixture, 8);
    words_set(map, BLOCK_INDEX, current, pending);
}

static void ask(void)
{
    record(RECORDED, WORD_IDLE);
    ck_assert_int_eq(question_open(&question, map, BLOCK_INDEX, false), VERDICT_SUSPECT);
}

static void start_write(struct announcement *announcement, uint64_t sum)
{
    announce_open(announcement, map, BLOCK_INDEX, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(announcement, BLOCK_INDEX, 1, &sum);
}

static void end_write(struct announcement *announcement)
{
    announce_publish(announcement, BLOCK_INDEX, 1);
    announce_close(announcement);
}

/* ---- The first look. ---- */

START_TEST(a_block_that_agrees_with_its_record_is_good)
{
    record(RECORDED, WORD_IDLE);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, RECORDED), VERDICT_GOOD);
}
END_TEST

START_TEST(a_block_that_agrees_with_the_sum_being_written_is_good)
{
    record(RECORDED, WRITTEN);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, WRITTEN), VERDICT_GOOD);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, RECORDED), VERDICT_GOOD);
    record(WORD_UNKNOWN, WRITTEN);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, WRITTEN), VERDICT_GOOD);
}
END_TEST

START_TEST(a_block_that_differs_from_all_that_is_known_is_suspect)
{
    record(RECORDED, WORD_IDLE);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_SUSPECT);
    record(RECORDED, WRITTEN);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_SUSPECT);
}
END_TEST

START_TEST(a_block_of_which_nothing_is_known_is_unverified)
{
    record(WORD_UNKNOWN, WORD_IDLE);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_UNVERIFIED);
    record(WORD_UNKNOWN, WRITTEN);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_UNVERIFIED);
}
END_TEST

START_TEST(a_block_without_words_is_unverified)
{
    record(RECORDED, WORD_IDLE);
    ck_assert_int_eq(map_verify(map, UNIT_BLOCKS, READ), VERDICT_UNVERIFIED);
    ck_assert_int_eq(map_verify(map, MAP_BLOCKS_MAX, READ), VERDICT_UNVERIFIED);
}
END_TEST

START_TEST(a_differing_block_that_several_requests_are_at_is_unverified)
{
    record(RECORDED, WORD_CONTENDED + 1);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_UNVERIFIED);
    record(RECORDED, WORD_CONTENDED + 7);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_UNVERIFIED);
    record(RECORDED, WORD_CLAIMED);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, READ), VERDICT_UNVERIFIED);
}
END_TEST

START_TEST(a_block_that_agrees_is_good_though_others_are_at_it)
{
    record(RECORDED, WORD_CONTENDED + 2);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, RECORDED), VERDICT_GOOD);
}
END_TEST

START_TEST(poison_agrees_with_no_block)
{
    record(WORD_POISON, WORD_IDLE);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, 1), VERDICT_SUSPECT);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, WORD_SUM_MASK), VERDICT_SUSPECT);
}
END_TEST

/* ---- Asking. ---- */

START_TEST(a_question_is_announced_like_a_write)
{
    ask();
    ck_assert_words(map, BLOCK_INDEX, RECORDED, RECORDED);
    ck_assert(flight_others_over(map->id, BLOCK_INDEX, FLIGHT_BEYOND, false));
    question_close(&question, RECORDED);
}
END_TEST

START_TEST(nothing_of_a_question_is_left_when_it_is_closed)
{
    const uint64_t sums[] = {RECORDED, READ, 0};
    for (int i = 0; i < 3; i++) {
        ask();
        question_close(&question, sums[i]);
        ck_assert_words(map, BLOCK_INDEX, RECORDED, WORD_IDLE);
        ck_assert(!flight_others_over(map->id, BLOCK_INDEX, FLIGHT_BEYOND, false));
    }
}
END_TEST

START_TEST(there_is_no_question_about_an_unknown_block)
{
    record(WORD_UNKNOWN, WORD_IDLE);
    ck_assert_int_eq(question_open(&question, map, BLOCK_INDEX, false), VERDICT_UNVERIFIED);
    ck_assert_int_eq(question_open(&question, map, UNIT_BLOCKS, false), VERDICT_UNVERIFIED);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
    ck_assert(!flight_others_over(map->id, BLOCK_INDEX, FLIGHT_BEYOND, false));
}
END_TEST

START_TEST(a_question_about_a_block_being_written_is_undecided_and_leaves_the_writer_alone)
{
    struct announcement write;
    record(RECORDED, WORD_IDLE);
    start_write(&write, WRITTEN);
    ck_assert_int_eq(question_open(&question, map, BLOCK_INDEX, false), VERDICT_UNDECIDED);
    end_write(&write);
    ck_assert_words(map, BLOCK_INDEX, WRITTEN, WORD_IDLE);
}
END_TEST

START_TEST(two_questions_about_one_block_do_not_run_together)
{
    struct question second;
    ask();
    ck_assert_int_eq(question_open(&second, map, BLOCK_INDEX, false), VERDICT_UNDECIDED);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_MISMATCH);
    ck_assert_int_eq(question_open(&second, map, BLOCK_INDEX, false), VERDICT_SUSPECT);
    ck_assert_int_eq(question_close(&second, READ), VERDICT_MISMATCH);
}
END_TEST

/* ---- The answer. ---- */

START_TEST(a_block_that_differs_again_and_was_left_alone_is_a_mismatch)
{
    ask();
    ck_assert_int_eq(question_close(&question, READ), VERDICT_MISMATCH);
}
END_TEST

START_TEST(a_block_that_agrees_when_read_again_is_good)
{
    ask();
    ck_assert_int_eq(question_close(&question, RECORDED), VERDICT_GOOD);
}
END_TEST

START_TEST(a_poisoned_block_is_a_mismatch_every_time)
{
    for (int i = 0; i < 2; i++) {
        record(WORD_POISON, WORD_IDLE);
        ck_assert_int_eq(question_open(&question, map, BLOCK_INDEX, false), VERDICT_SUSPECT);
        ck_assert_int_eq(question_close(&question, READ), VERDICT_MISMATCH);
        ck_assert_words(map, BLOCK_INDEX, WORD_POISON, WORD_IDLE);
    }
}
END_TEST

START_TEST(a_block_that_could_not_be_read_again_is_unverified)
{
    ask();
    ck_assert_int_eq(question_close(&question, 0), VERDICT_UNVERIFIED);
}
END_TEST

START_TEST(a_writer_that_joined_leaves_the_question_undecided)
{
    struct announcement write;
    ask();
    start_write(&write, WRITTEN);
    ck_assert_int_eq(question_close(&question, WRITTEN), VERDICT_UNDECIDED);
    ck_assert_words(map, BLOCK_INDEX, RECORDED, WORD_CONTENDED + 1);
    end_write(&write);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_writer_that_came_and_went_leaves_the_question_undecided)
{
    struct announcement write;
    ask();
    start_write(&write, WRITTEN);
    end_write(&write);
    ck_assert_int_eq(question_close(&question, WRITTEN), VERDICT_UNDECIDED);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

START_TEST(a_writer_that_came_and_withdrew_leaves_the_question_undecided)
{
    struct announcement write;
    ask();
    start_write(&write, WRITTEN);
    announce_withdraw(&write, BLOCK_INDEX, 1);
    announce_close(&write);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_UNDECIDED);
    ck_assert_words(map, BLOCK_INDEX, RECORDED, WORD_IDLE);
}
END_TEST

/* What fools a look at the entry before and after: it is the same, yet the content was another in between. */
START_TEST(a_block_that_toggles_between_two_contents_is_never_a_mismatch)
{
    struct announcement write;
    record(RECORDED, WORD_IDLE);
    /* A reader reads RECORDED's content; the block is toggled; the reader looks. */
    start_write(&write, WRITTEN);
    end_write(&write);
    ck_assert_int_eq(map_verify(map, BLOCK_INDEX, RECORDED), VERDICT_SUSPECT);
    ck_assert_int_eq(question_open(&question, map, BLOCK_INDEX, false), VERDICT_SUSPECT);
    /* Toggled back, then forth again, while the reader reads once more and finds RECORDED's content again. */
    start_write(&write, RECORDED);
    end_write(&write);
    start_write(&write, WRITTEN);
    end_write(&write);
    ck_assert_int_eq(question_close(&question, RECORDED), VERDICT_UNDECIDED);
}
END_TEST

START_TEST(a_record_that_was_replaced_leaves_the_question_undecided)
{
    ask();
    atomic_store(&words_of(map, BLOCK_INDEX)->current, WRITTEN);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_UNDECIDED);
}
END_TEST

START_TEST(a_differing_block_under_a_mutator_is_unverified)
{
    struct mutation mutation;
    ask();
    mutate_open(&mutation, map, 0, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_UNVERIFIED);
    mutate_close(&mutation, 0, 0);
}
END_TEST

START_TEST(a_mutator_elsewhere_does_not_excuse_a_mismatch)
{
    struct mutation mutation;
    ask();
    mutate_open(&mutation, map, BLOCK_INDEX + 1, FLIGHT_TO_END, TRANSPORT_BLOCKING, false);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_MISMATCH);
    mutate_close(&mutation, BLOCK_INDEX + 1, 0);
}
END_TEST

START_TEST(a_mutator_that_came_and_went_leaves_the_question_undecided)
{
    struct mutation mutation;
    ask();
    mutate_open(&mutation, map, BLOCK_INDEX, 1, TRANSPORT_BLOCKING, false);
    mutate_close(&mutation, BLOCK_INDEX, 1);
    ck_assert_int_eq(question_close(&question, READ), VERDICT_UNDECIDED);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

static bool ask_and_pause(struct peer *peer, void *argument)
{
    struct question asked;
    (void)argument;
    map_fixture_reopen(&fixture);
    if (question_open(&asked, map, BLOCK_INDEX, false) != VERDICT_SUSPECT)
        return false;
    peer_pause(peer);
    return question_close(&asked, READ) == VERDICT_UNDECIDED;
}

START_TEST(a_question_of_another_process_is_joined_by_a_writer_here)
{
    struct peer peer;
    struct announcement write;
    record(RECORDED, WORD_IDLE);
    peer_start(&peer, ask_and_pause, NULL);
    peer_reach(&peer);
    start_write(&write, WRITTEN);
    ck_assert_words(map, BLOCK_INDEX, RECORDED, WORD_CONTENDED + 2);
    peer_continue(&peer);
    peer_end(&peer);
    end_write(&write);
    ck_assert_words(map, BLOCK_INDEX, WORD_UNKNOWN, WORD_IDLE);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_block_that_agrees_with_its_record_is_good,
        a_block_that_agrees_with_the_sum_being_written_is_good,
        a_block_that_differs_from_all_that_is_known_is_suspect,
        a_block_of_which_nothing_is_known_is_unverified,
        a_block_without_words_is_unverified,
        a_differing_block_that_several_requests_are_at_is_unverified,
        a_block_that_agrees_is_good_though_others_are_at_it,
        poison_agrees_with_no_block,
        a_question_is_announced_like_a_write,
        nothing_of_a_question_is_left_when_it_is_closed,
        there_is_no_question_about_an_unknown_block,
        a_question_about_a_block_being_written_is_undecided_and_leaves_the_writer_alone,
        two_questions_about_one_block_do_not_run_together,
        a_block_that_differs_again_and_was_left_alone_is_a_mismatch,
        a_block_that_agrees_when_read_again_is_good,
        a_poisoned_block_is_a_mismatch_every_time,
        a_block_that_could_not_be_read_again_is_unverified,
        a_writer_that_joined_leaves_the_question_undecided,
        a_writer_that_came_and_went_leaves_the_question_undecided,
        a_writer_that_came_and_withdrew_leaves_the_question_undecided,
        a_block_that_toggles_between_two_contents_is_never_a_mismatch,
        a_record_that_was_replaced_leaves_the_question_undecided,
        a_differing_block_under_a_mutator_is_unverified,
        a_mutator_elsewhere_does_not_excuse_a_mismatch,
        a_mutator_that_came_and_went_leaves_the_question_undecided,
        a_question_of_another_process_is_joined_by_a_writer_here,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "question", 20, NULL, tests);
}
