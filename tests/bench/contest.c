#include "bench/contest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bounceio.h"

extern int bounceio_get_stats(struct bounceio_stats *stats, size_t size) __attribute__((weak));

/*
 * A round's requests of one side take about so long: much less than the scheduler gives a process at a time, so that on a busy machine too
 * the median is a round that nobody interrupted.
 */
#define SLICE_NANOSECONDS 250e3
#define LONG_NANOSECONDS 4e6
/* After so many rounds sides change memory: where pages lie makes up to a quarter of what a large request takes. */
enum { SWAP_ROUNDS = 4 };
/* So many rounds even beyond the time; beyond twice the time so many. */
enum { ROUNDS_WANTED = 9, ROUNDS_LEAST = 3, REQUESTS_MAX = 4096, BLOCK = 4096 };

struct player {
    void *door_state;
    struct work work;
    struct histogram latencies;
    double times[ROUNDS_MAX];
    double processor; /* sum over the rounds */
};

unsigned char *contest_memory(size_t bytes)
{
    static unsigned char *memory;
    static size_t length;
    uint64_t random = 88172645463325252u;

    if (bytes <= length)
        return memory;
    if (memory)
        munmap(memory, length);
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_die("%zu bytes of memory", bytes);
    length = bytes;
    for (size_t i = 0; i < bytes; i += sizeof(random)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memcpy(memory + i, &random, sizeof(random));
    }
    return memory;
}

uint64_t contest_covered_blocks(bool is_write)
{
    struct bounceio_stats stats = {0};

    if (bounceio_get_stats)
        bounceio_get_stats(&stats, sizeof(stats));
    return is_write ? stats.blocks_summed : stats.blocks_verified;
}

/* One side's turn. @return nanoseconds for each request. */
static double play(const struct side *side, struct player *player, unsigned requests, double *processor)
{
    double processor_before = clock_processor();
    double begin = clock_now();

    side->door->run(player->door_state, &player->work, requests);
    double end = clock_now();

    *processor = clock_processor() - processor_before;
    return (end - begin) / requests - side->door->clocks * clock_cost();
}

static void open_players(const struct contest *contest, struct player *players)
{
    const struct pattern *pattern = &contest->pattern;
    const size_t bytes = pattern->size * pattern->depth;
    /* Each its own: what one side leaves of it in which processor's cache is not to help or hinder the others. */
    unsigned char *memory = contest_memory(contest->count * bytes);

    for (unsigned i = 0; i < contest->count; i++) {
        const struct side *side = &contest->sides[i];

        players[i].door_state = side->door->open(side->through_shim, pattern->depth);
        players[i].work = (struct work){.fd = side->fd,
                                        .is_write = pattern->is_write,
                                        .is_random = pattern->is_random,
                                        .size = pattern->size,
                                        .depth = pattern->depth,
                                        .slots = pattern->file_bytes / pattern->size,
                                        .memory = memory + i * bytes,
                                        .latencies = &players[i].latencies};
    }
}

/* Everybody warms up. @return how many requests make a round of a good length. */
static unsigned warm_up(const struct contest *contest, struct player *players)
{
    unsigned depth = contest->pattern.depth, least = depth > 1 ? 2 * depth : 1;
    double processor, slowest = 1;

    for (int turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < contest->count; i++) {
            double time = play(&contest->sides[i], &players[i], depth, &processor);

            if (turn == 1 && time > slowest)
                slowest = time;
        }
    }
    for (unsigned i = 0; i < contest->count; i++)
        memset(&players[i].latencies, 0, sizeof(players[i].latencies));
    /* Twice the depth, so that it is not all beginning and end; but rather few requests than few rounds. */
    if (least * slowest > LONG_NANOSECONDS)
        least = depth;
    double fitting = SLICE_NANOSECONDS / slowest;

    if (fitting < least)
        return least;
    return fitting > REQUESTS_MAX ? REQUESTS_MAX : (unsigned)fitting;
}

static void play_rounds(struct contest *contest, struct player *players, double end, double last)
{
    unsigned count = contest->count;
    unsigned char *memory = players[0].work.memory;
    const size_t bytes = contest->pattern.size * contest->pattern.depth;

    for (contest->rounds = 0; contest->rounds < ROUNDS_MAX; contest->rounds++) {
        unsigned round = contest->rounds;

        double now = clock_now();

        if ((round >= ROUNDS_WANTED && now >= end) || (round >= ROUNDS_LEAST && now >= last))
            break;
        for (unsigned turn = 0; turn < count; turn++) {
            /* Each begins as often as the others, and each follows each. */
            unsigned i = (round / 2 + (round % 2 ? count - 1 - turn : turn)) % count;
            double processor;

            players[i].work.memory = memory + (i + round / SWAP_ROUNDS) % count * bytes;
            players[i].times[round] = play(&contest->sides[i], &players[i], contest->requests, &processor);
            players[i].processor += processor / contest->requests;
        }
    }
}

static void judge(struct contest *contest, struct player *players)
{
    static double first[ROUNDS_MAX], values[ROUNDS_MAX];
    unsigned rounds = contest->rounds;

    memcpy(first, players[0].times, rounds * sizeof(*first));
    for (unsigned i = 0; i < contest->count; i++) {
        struct outcome *outcome = &contest->outcomes[i];
        double *times = players[i].times;

        for (unsigned round = 0; round < rounds; round++)
            values[round] = first[round] / times[round];
        outcome->ratio = list_at(values, rounds, 0.5);
        outcome->ratio_low = list_at(values, rounds, 0.25);
        outcome->ratio_high = list_at(values, rounds, 0.75);
        for (unsigned round = 0; round < rounds; round++)
            values[round] = times[round] - first[round];
        outcome->added = list_at(values, rounds, 0.5);
        outcome->latency50 = histogram_at(&players[i].latencies, 0.5);
        outcome->latency99 = histogram_at(&players[i].latencies, 0.99);
        outcome->processor = players[i].processor / rounds;
        outcome->time = list_at(times, rounds, 0.5);
    }
}

void contest_run(struct contest *contest, double seconds)
{
    static struct player players[SIDES_MAX];
    double end = clock_now() + seconds * 1e9;
    uint64_t bounced = 0;

    memset(players, 0, sizeof(players));
    open_players(contest, players);
    contest->requests = warm_up(contest, players);
    uint64_t covered = contest_covered_blocks(contest->pattern.is_write);

    play_rounds(contest, players, end, end + seconds * 1e9);
    covered = contest_covered_blocks(contest->pattern.is_write) - covered;
    for (unsigned i = 0; i < contest->count; i++) {
        if (contest->sides[i].is_bounced)
            bounced += (uint64_t)contest->rounds * contest->requests * (contest->pattern.size / BLOCK);
        contest->sides[i].door->close(players[i].door_state);
    }
    contest->covered = bounced > 0 ? (double)covered / (double)bounced : 0;
    judge(contest, players);
}
