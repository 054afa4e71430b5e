/*
 * libFuzzer target: nothing that a map, a session or the shared page says may harm the process that reads it.
 *
 * One input lays out a map's file, another session and their shared page (scene.h), opens the map with the real code, and goes through
 * operations of the protocol (one thread, and with no signal blocked, so that a fault is reported), between and inside of which words change under the code's hands, as other processes change them. A finding
 * is whatever the sanitizers, a signal or the time limit report, a pointer that leads out of a map, or a request left in the table.
 */
#include <stdio.h>
#include <stdlib.h>

#include "checksum/mutate.h"
#include "checksum/question.h"
#include "checksum/region.h"
#include "checksum/settle.h"
#include "checksum/window.h"
#include "fuzz/scene.h"

enum { OPERATIONS_MOST = 12, BLOCKS_MOST = 24, COVERED_MOST = 3 * REGION_BLOCKS };

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t few_blocks(struct input *input)
{
    return 1 + input_byte(input) % BLOCKS_MOST;
}

/* Words lie in the window of their region, and as many follow each other as was said. */
static void look_up(struct map *map, struct input *input)
{
    uint64_t run, block = scene_block(input);
    struct block_words *words = map_words(map, block, &run);
    EXPECT(run >= 1);
    if (!words)
        return;
    unsigned window = window_of_region(block / REGION_BLOCKS);
    const char *base = atomic_load(&map->windows[window]);
    EXPECT(run <= UNIT_BLOCKS);
    EXPECT((const char *)words >= base + window_state_bytes(window));
    EXPECT((const char *)(words + run) <= base + window_bytes(window));
}

static void verify(struct map *map, struct input *input)
{
    map_verify(map, scene_block(input), scene_word(input));
    map_covers(map, scene_block(input), few_blocks(input));
}

static void ask(struct map *map, struct input *input)
{
    struct question question;
    bool nowait = input_byte(input) & 1;
    uint64_t sum = scene_word(input);
    if (question_open(&question, map, scene_block(input), nowait) == VERDICT_SUSPECT)
        question_close(&question, sum);
}

static void cover(struct map *map, struct input *input)
{
    uint64_t block = scene_block(input), blocks = few_blocks(input) * 64;
    if (block < COVERED_MOST || block >= MAP_BLOCKS_MAX)
        map_cover(map, block, blocks);
}

static void announce(struct map *map, struct input *input)
{
    static uint64_t sums[BLOCKS_MOST];
    uint64_t first = scene_block(input), blocks = few_blocks(input);
    unsigned end = input_byte(input);
    struct announcement announcement;
    for (uint64_t i = 0; i < blocks; i++)
        sums[i] = 1 + (first + i) % 32;
    if (!map_covers(map, first, blocks))
        return;
    announce_open(&announcement, map, first, blocks, end & 128 ? FLIGHT_ADOPTION : FLIGHT_WRITE, TRANSPORT_BLOCKING,
                  end & 64);
    announce_sums(&announcement, first, blocks, sums);
    if (end % 3 == 0)
        announce_publish(&announcement, first, blocks);
    else if (end % 3 == 1)
        announce_forget(&announcement, first, blocks);
    else
        announce_withdraw(&announcement, first, blocks);
    announce_close(&announcement);
}

static void write_part(struct map *map, struct input *input)
{
    struct announcement announcement;
    struct edge edge;
    uint64_t block = scene_block(input), sum = 1 + block % 32;
    unsigned way = input_byte(input);
    if (!map_covers(map, block, 1))
        return;
    announce_open(&announcement, map, block, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING, way & 1);
    if (way & 2)
        edge_announce_whole(&announcement, &edge, block, sum);
    else
        edge_announce(&announcement, &edge, block);
    if ((way & 6) == 6)
        edge_downgrade(&edge, sum);
    if (!edge.whole && edge_check(&announcement, &edge, scene_word(input)) == EDGE_MISMATCH)
        edge_poison(&edge);
    if (way & 8)
        edge_publish(&announcement, &edge, sum);
    else if (way & 16)
        edge_forget(&announcement, &edge);
    else
        edge_withdraw(&announcement, &edge);
    announce_close(&announcement);
}

static void mutate(struct map *map, struct input *input)
{
    struct mutation mutation;
    uint64_t first = scene_block(input), blocks = input_byte(input) % 16 == 0 ? scene_block(input) : few_blocks(input);
    first = first < FLIGHT_TO_END ? first : FLIGHT_TO_END;
    blocks = blocks < FLIGHT_TO_END ? blocks : FLIGHT_TO_END;
    unsigned way = input_byte(input);
    if (mutate_open(&mutation, map, first, blocks, TRANSPORT_BLOCKING, way & 2) == 0)
        mutate_close(&mutation, first, way & 1 ? blocks : 0);
}

static void stamp(struct map *map, struct input *input)
{
    bool first;
    unsigned way = input_byte(input);
    int64_t time = (int64_t)scene_word(input);
    if (way & 1)
        window_renew(map, window_now());
    if (way & 2)
        window_extend(map);
    if (way & 4)
        window_move(map, time);
    if (way & 8)
        window_is_stale(map, window_now());
    window_changed_outside(map, time, FLIGHT_BEYOND, &first);
}

static void mark(struct map *map, struct input *input)
{
    uint64_t first = scene_block(input), blocks = few_blocks(input) * 1024;
    if (!region_are_durable(map, first, blocks))
        region_make_durable(map, first, blocks);
    region_is_suspect(map, scene_block(input));
    uint64_t region = scene_block(input);
    if (region < region_count(map))
        region_trust(map, region);
}

static void sweep(struct map *map, struct input *input)
{
    struct region_sweep regions;
    unsigned way = input_byte(input);
    uint64_t cursor = 0;
    region_any_dirty(map);
    for (unsigned rounds = 0; rounds < 4 && region_sweep_open(&regions, map, &cursor, way & 1) > 0; rounds++)
        region_sweep_close(&regions, way & 2);
}

/* A file whose blocks have the sums of their numbers. */
static uint64_t sum_of(const struct settle_file *file, uint64_t block)
{
    (void)file;
    return block % 3 == 0 ? WORD_UNKNOWN : 1 + block % 32;
}

static bool barrier_of(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file;
    return (first ^ blocks) & 1;
}

static int64_t modified_of(const struct settle_file *file)
{
    (void)file;
    return scene_key.modified;
}

static void settle(struct map *map, struct input *input)
{
    const struct settle_file file = {.sum = sum_of, .barrier = barrier_of, .modified = modified_of};
    if (settle_is_due(map) || (input_byte(input) & 1))
        settle_map(map, &file);
}

static void refresh(struct map *map, struct input *input)
{
    (void)input;
    map_refresh(map);
}

static void poke(struct map *map, struct input *input)
{
    (void)map;
    unsigned after = input_byte(input);
    scene_poke(input, after & 1 ? 0 : after / 2 % 32);
}

static void (*const operations[])(struct map *map, struct input *input) = {
    look_up, verify, ask, cover, announce, write_part, mutate, mark, sweep, settle, stamp, refresh, poke, poke, poke,
};

static void operate(struct map *map, struct input *input)
{
    for (unsigned done = 0; done < OPERATIONS_MOST && input->left > 0; done++)
        operations[input_byte(input) % (sizeof operations / sizeof operations[0])](map, input);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    scene_make();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.bytes = data, .left = size};
    struct map map = {0};
    scene_set(&input);
    int error = map_open(&map, &scene_key, input_byte(&input) % 4 == 0);
    EXPECT(error <= 0 && (error == 0) == (map.header != NULL));
    if (error == 0)
        operate(&map, &input);
    map_close(&map, false);
    EXPECT(map.header == NULL);
    scene_reset();
    return 0;
}
