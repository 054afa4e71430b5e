/*
 * Threads with requests in flight, and blocking ones, on numbers that another thread keeps giving to other files. All data is healthy: whatever any of them is told
 * of damage is a lie, and so is every checksum that is not its block's.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/process.h"
#include "base/stats.h"
#include "checksum/block_sum.h"
#include "engine/request.h"
#include "files/classify.h"
#include "support/request_fixture.h"
#include "support/support.h"

enum { FILES = 2, NUMBERS = 4, THREADS = 3, DEPTH = 4, BLOCKS = 32, MOST = 8 * BLOCK, MILLISECONDS = 1200 };

static struct scene scene;
static char paths[FILES][FIXTURE_PATH + 8];
static int numbers[NUMBERS];
static _Atomic bool stop;

/* A program may close a number under a request in flight, but not while it submits by it. */
static pthread_rwlock_t submission = PTHREAD_RWLOCK_INITIALIZER;

struct slot {
    struct request request;
    ssize_t result;
    char *memory;
};

struct worker {
    pthread_t thread;
    struct random random;
    struct slot slots[DEPTH];
    uint64_t completed, damaged;
};

static struct request_call some_call(struct worker *worker, char *memory)
{
    const bool whole = random_chance(&worker->random, 70), is_write = random_chance(&worker->random, 50);
    const size_t unit = whole ? BLOCK : SECTOR;
    const int64_t offset = (int64_t)(random_below(&worker->random, (BLOCKS - 9) * (uint64_t)BLOCK / unit) * unit);
    const size_t length = (1 + random_below(&worker->random, MOST / unit)) * unit;
    if (is_write)
        pattern_fill(memory, length, random_next(&worker->random), 0);
    if (is_write)
        return writing(memory, length, offset);
    return reading(memory + random_below(&worker->random, 2), length, offset);
}

/* The same call, blocking, between the others. */
static void block(struct worker *worker, int fd, const struct request_call *call)
{
    const struct iovec segment = {.iov_base = (void *)(uintptr_t)call->address, .iov_len = call->length};
    const struct transfer transfer = {
        .vector = &segment, .segments = 1, .length = call->length, .offset = call->offset};
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    ssize_t result = call->is_write ? transfer_write(&view, &transfer) : transfer_read(&view, &transfer);
    worker->damaged += result == -EIO;
    fd_view_close(&view);
}

/* @return false when it is over already. */
static bool submit(struct worker *worker, struct slot *slot)
{
    struct request_call call = some_call(worker, slot->memory);
    int fd = numbers[random_below(&worker->random, NUMBERS)];
    const bool blocks = random_chance(&worker->random, 20);
    pthread_rwlock_rdlock(&submission);
    bool taken = !blocks && request_ask(&slot->request, fd, &call) == REQUEST_READY;
    if (blocks)
        block(worker, fd, &call);
    if (taken) {
        slot->result = request_carry_out(&slot->request, fd);
        if (random_chance(&worker->random, 70))
            request_issued(&slot->request);
    }
    pthread_rwlock_unlock(&submission);
    return taken;
}

static void complete(struct worker *worker, struct slot *slot)
{
    worker->completed++;
    worker->damaged += request_complete(&slot->request, slot->result) == -EIO;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    bool busy[DEPTH] = {false};
    while (!atomic_load(&stop)) {
        unsigned i = (unsigned)random_below(&worker->random, DEPTH);
        if (busy[i])
            complete(worker, &worker->slots[i]);
        busy[i] = !busy[i] && submit(worker, &worker->slots[i]);
    }
    for (int i = 0; i < DEPTH; i++)
        if (busy[i])
            complete(worker, &worker->slots[i]);
    return NULL;
}

static void exchange_numbers(struct random *random)
{
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        pthread_rwlock_wrlock(&submission);
        number_reuse(numbers[random_below(random, NUMBERS)], paths[random_below(random, FILES)], O_RDWR | O_DIRECT);
        pthread_rwlock_unlock(&submission);
        usleep((useconds_t)random_below(random, 300));
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < MILLISECONDS);
    atomic_store(&stop, true);
}

/* @return how many checksums are known. */
static unsigned check_file(const char *path)
{
    static char page[BLOCK];
    unsigned known = 0;
    int fd = number_open(path, O_RDWR | O_DIRECT);
    struct map *map = &fd_word_file(fd_word(fd))->map;
    for (uint64_t block = 0; block < BLOCKS; block++) {
        const struct block_words *words = words_of(map, block);
        memset(page, 0, sizeof page);
        read_behind(path, page, BLOCK, block * BLOCK);
        ck_assert_uint_eq(words->pending, WORD_IDLE);
        if (words->current == WORD_UNKNOWN)
            continue;
        ck_assert_uint_eq(words->current, block_sum(page, block));
        known++;
    }
    ck_assert_uint_eq(atomic_load(&map->header->unsettled), 0);
    return known;
}

START_TEST(numbers_that_change_hands_in_flight_show_no_damage)
{
    static struct worker workers[THREADS];
    struct random random = {random_run_seed()};
    scene_open(&scene, O_RDWR);
    for (int i = 0; i < FILES; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.%d", scene.fixture.path, i);
        make_file_behind(paths[i], (uint64_t)i, BLOCKS * BLOCK);
    }
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = number_open(paths[i % FILES], O_RDWR | O_DIRECT);
    const struct holdings before = holdings_of(&scene);
    const uint64_t mismatches = stats_get(STAT_mismatches);
    for (int i = 0; i < THREADS; i++) {
        workers[i].random.state = random_next(&random);
        for (int j = 0; j < DEPTH; j++)
            workers[i].slots[j].memory = buffer_new(MOST + BLOCK);
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    exchange_numbers(&random);
    uint64_t completed = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        completed += workers[i].completed;
        ck_assert_uint_eq(workers[i].damaged, 0);
    }
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    holdings_check(&scene, &before);
    ck_assert_uint_gt(check_file(paths[0]) + check_file(paths[1]), 0);
    ck_assert_uint_gt(completed, 100);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {numbers_that_change_hands_in_flight_show_no_damage, NULL};
    process_start();
    return support_main(argc, argv, "request races", 30, NULL, tests);
}
