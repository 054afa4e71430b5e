/*
 * The protocol as a whole: writers of whole blocks and of parts, mutators and verifying readers, in threads of two processes, all
 * at the same few blocks of a model file.
 *
 * The model has no corruption in it. So no reader and no writer may ever come to the verdict of a mismatch; and whenever all rest,
 * every pending word is idle, and every recorded checksum is that of the content.
 */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/process.h"
#include "checksum/mutate.h"
#include "checksum/question.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { BLOCKS = 4, THREADS = 2, PROCESSES = 2, WORKERS = THREADS * PROCESSES, ROUNDS = 1200, OPERATIONS = 40 };

/* A block is two halves of few possible contents, so that it often returns to one that it had before. */
struct model {
    _Atomic uint64_t halves[BLOCKS][2];
    pthread_barrier_t barrier;
    _Atomic unsigned mismatches; /* verdicts that must not be */
    _Atomic unsigned decided;    /* questions answered: the block is good after all */
    _Atomic unsigned undecided;
    _Atomic unsigned untrue; /* words that are wrong at rest */
    _Atomic unsigned known;  /* recorded checksums at rest */
};

static unsigned rounds = ROUNDS;
static struct map_fixture fixture;
static struct map *const map = &fixture.map;
static struct model *model;

struct worker {
    struct random random;
    bool inspects;
    unsigned operations; /* bit mask of those it does */
    pthread_t thread;
};

static void dawdle(struct worker *worker)
{
    if (random_chance(&worker->random, 15))
        sched_yield();
}

static uint64_t sum_of(uint64_t block, uint64_t low, uint64_t high)
{
    return 1 + block * 100 + low * 10 + high;
}

/* Read the block as a disk would be read: not all at once. */
static uint64_t read_block(struct worker *worker, uint64_t block)
{
    uint64_t low = model->halves[block][0];
    dawdle(worker);
    return sum_of(block, low, model->halves[block][1]);
}

static uint64_t random_half(struct worker *worker)
{
    return random_below(&worker->random, 3);
}

static void choose_range(struct worker *worker, uint64_t *first, uint64_t *blocks)
{
    *first = random_below(&worker->random, BLOCKS);
    *blocks = 1 + random_below(&worker->random, BLOCKS - *first);
}

static void write_whole_blocks(struct worker *worker)
{
    struct announcement announcement;
    uint64_t first, blocks, sums[BLOCKS], halves[BLOCKS][2];
    choose_range(worker, &first, &blocks);
    for (uint64_t i = 0; i < blocks; i++) {
        halves[i][0] = random_half(worker);
        halves[i][1] = random_half(worker);
        sums[i] = sum_of(first + i, halves[i][0], halves[i][1]);
    }
    announce_open(&announcement, map, first, blocks, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, first, blocks, sums);
    dawdle(worker);
    /* Often all of it is written, sometimes none, or a part and half a block more. */
    uint64_t written = random_chance(&worker->random, 70) ? blocks : random_below(&worker->random, blocks + 1);
    for (uint64_t i = 0; i < written; i++) {
        model->halves[first + i][0] = halves[i][0];
        dawdle(worker);
        model->halves[first + i][1] = halves[i][1];
    }
    if (written == 0 && random_chance(&worker->random, 50)) {
        announce_withdraw(&announcement, first, blocks);
    } else {
        if (written < blocks)
            model->halves[first + written][0] = halves[written][0];
        announce_publish(&announcement, first, written);
        announce_forget(&announcement, first + written, blocks - written);
    }
    announce_close(&announcement);
}

/* Write one half over what the block is read to hold. */
static void write_half(struct worker *worker, const struct announcement *announcement, struct edge *edge)
{
    uint64_t halves[2], half = random_below(&worker->random, 2);
    for (int i = 0; i < 2; i++) {
        halves[i] = model->halves[edge->block][i];
        dawdle(worker);
    }
    if (edge_check(announcement, edge, sum_of(edge->block, halves[0], halves[1])) == EDGE_MISMATCH)
        model->mismatches++;
    unsigned ending = (unsigned)random_below(&worker->random, 10);
    if (ending == 0) {
        edge_withdraw(announcement, edge);
        return;
    }
    model->halves[edge->block][half] = halves[half] = random_half(worker);
    dawdle(worker);
    if (ending == 1)
        edge_forget(announcement, edge);
    else
        edge_publish(announcement, edge, sum_of(edge->block, halves[0], halves[1]));
}

static void write_part_of_a_block(struct worker *worker)
{
    struct announcement announcement;
    struct edge edge;
    uint64_t block = random_below(&worker->random, BLOCKS), halves[2] = {random_half(worker), random_half(worker)};
    uint64_t sum = sum_of(block, halves[0], halves[1]);
    announce_open(&announcement, map, block, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    switch (random_below(&worker->random, 4)) {
    case 0: /* the last block of a file, that stays so: as good as whole */
        edge_announce_whole(&announcement, &edge, block, sum);
        for (int i = 0; i < 2; i++) {
            model->halves[block][i] = halves[i];
            dawdle(worker);
        }
        edge_publish(&announcement, &edge, sum);
        break;
    case 1: /* the last block, that turns out not to be */
        edge_announce_whole(&announcement, &edge, block, sum);
        dawdle(worker);
        edge_downgrade(&edge, sum);
        write_half(worker, &announcement, &edge);
        break;
    default:
        edge_announce(&announcement, &edge, block);
        write_half(worker, &announcement, &edge);
    }
    announce_close(&announcement);
}

static void read_and_verify(struct worker *worker)
{
    struct question question;
    uint64_t block = random_below(&worker->random, BLOCKS);
    uint64_t sum = read_block(worker, block);
    dawdle(worker);
    if (map_verify(map, block, sum) != VERDICT_SUSPECT)
        return;
    enum verdict verdict = question_open(&question, map, block, false);
    if (verdict == VERDICT_SUSPECT) {
        dawdle(worker);
        verdict = question_close(&question, read_block(worker, block));
        model->decided += verdict == VERDICT_GOOD;
    }
    model->undecided += verdict == VERDICT_UNDECIDED;
    model->mismatches += verdict == VERDICT_MISMATCH;
}

static void change_without_checksums(struct worker *worker)
{
    struct mutation mutation;
    uint64_t first, blocks;
    choose_range(worker, &first, &blocks);
    mutate_open(&mutation, map, first, random_chance(&worker->random, 50) ? blocks : FLIGHT_TO_END, TRANSPORT_BLOCKING,
                false);
    for (uint64_t i = 0; i < blocks; i++) {
        model->halves[first + i][random_below(&worker->random, 2)] = random_half(worker);
        dawdle(worker);
    }
    mutate_close(&mutation, first, blocks);
}

static void (*const operations[])(struct worker *) = {write_whole_blocks, write_part_of_a_block, read_and_verify,
                                                      change_without_checksums};
enum { WHOLE = 1 << 0, PART = 1 << 1, READ = 1 << 2, MUTATE = 1 << 3, ALL = WHOLE | PART | READ | MUTATE };

/* Everybody else waits at the barrier. */
static void inspect(void)
{
    for (uint64_t block = 0; block < BLOCKS; block++) {
        struct block_words *words = words_of(map, block);
        uint64_t content = sum_of(block, model->halves[block][0], model->halves[block][1]);
        model->known += words->current != WORD_UNKNOWN;
        model->untrue += words->pending != WORD_IDLE || (words->current != WORD_UNKNOWN && words->current != content) ||
                         flight_others_over(map->id, block, FLIGHT_BEYOND, false);
    }
    model->untrue += map->header->unsettled != 0;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned done = 0; done < OPERATIONS;) {
            unsigned operation = (unsigned)random_below(&worker->random, 4);
            if (!(worker->operations >> operation & 1))
                continue;
            operations[operation](worker);
            done++;
        }
        pthread_barrier_wait(&model->barrier);
        if (worker->inspects)
            inspect();
        pthread_barrier_wait(&model->barrier);
    }
    return NULL;
}

/* The threads of one process; the first worker of the first process inspects. */
static void work_in_threads(unsigned process, unsigned operation_mask)
{
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.random = {random_run_seed() + process * THREADS + i},
                                     .inspects = process == 0 && i == 0,
                                     .operations = operation_mask};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
}

static bool work_in_another_process(struct peer *peer, void *argument)
{
    (void)peer;
    map_fixture_reopen(&fixture);
    work_in_threads(1, *(const unsigned *)argument);
    return true;
}

static void run_model(unsigned operation_mask)
{
    pthread_barrierattr_t shared;
    struct peer peer;
    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(model != MAP_FAILED);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    ck_assert_int_eq(pthread_barrier_init(&model->barrier, &shared, WORKERS), 0);
    map_fixture_new(&fixture, BLOCKS);
    peer_start(&peer, work_in_another_process, &operation_mask);
    work_in_threads(0, operation_mask);
    peer_end(&peer);
    ck_assert_uint_eq(model->mismatches, 0);
    ck_assert_uint_eq(model->untrue, 0);
}

START_TEST(racing_whole_writers_leave_idle_true_words)
{
    run_model(WHOLE);
    ck_assert_uint_gt(model->known, 0);
}
END_TEST

START_TEST(racing_whole_and_partial_writers_leave_idle_true_words)
{
    run_model(WHOLE | PART);
    ck_assert_uint_gt(model->known, 0);
}
END_TEST

START_TEST(readers_of_toggling_blocks_never_see_a_mismatch)
{
    run_model(WHOLE | READ);
    ck_assert_uint_gt(model->known, 0);
    ck_assert_uint_gt(model->decided, 0);
    ck_assert_uint_gt(model->undecided, 0);
}
END_TEST

START_TEST(writers_and_mutators_leave_idle_true_words)
{
    run_model(WHOLE | PART | MUTATE);
    ck_assert_uint_gt(model->known, 0);
}
END_TEST

START_TEST(all_together_never_see_a_mismatch_and_leave_idle_true_words)
{
    run_model(ALL);
    ck_assert_uint_gt(model->known, 0);
    ck_assert_uint_gt(model->undecided, 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        racing_whole_writers_leave_idle_true_words,
        racing_whole_and_partial_writers_leave_idle_true_words,
        readers_of_toggling_blocks_never_see_a_mismatch,
        writers_and_mutators_leave_idle_true_words,
        all_together_never_see_a_mismatch_and_leave_idle_true_words,
        NULL,
    };
    process_start();
    if (getenv("BOUNCEIO_TEST_VALGRIND"))
        rounds = ROUNDS / 20;
    random_run_seed(); /* one for all tests and processes */
    return support_main(argc, argv, "protocol", 60, NULL, tests);
}
