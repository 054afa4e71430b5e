/*
 * The search. Owns the table of states seen: an array of them in the order found, the index of each one's predecessor, and a hash
 * table of indices.
 */
#include "model/search.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHOICES_MOST = 8, FIRST_TABLE = 1 << 16, NO_STATE = UINT32_MAX };

static struct {
    const struct search *search;
    char *states;
    uint32_t *parents;
    uint32_t *table;
    size_t count, table_size;
} seen;

/* ---- Choices: the answers given in the current run of a step, and how many there were to choose from ---- */

static struct {
    unsigned made, answer[CHOICES_MOST], ways[CHOICES_MOST];
} choices;
static const char *said;

unsigned search_choose(unsigned ways)
{
    unsigned at = choices.made++;
    if (at >= CHOICES_MOST)
        abort();
    choices.ways[at] = ways;
    return choices.answer[at];
}

void search_say(const char *step)
{
    said = step;
}

/* On to the next combination of answers. @return false when all have been given. */
static bool next_choices(void)
{
    while (choices.made > 0) {
        unsigned last = choices.made - 1;
        if (++choices.answer[last] < choices.ways[last]) {
            choices.made = 0;
            return true;
        }
        choices.answer[last] = 0;
        choices.made = last;
    }
    return false;
}

/* ---- States seen ---- */

static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("model: no memory");
        exit(2);
    }
    return memory;
}

static char *state_at(size_t index)
{
    return seen.states + index * seen.search->bytes;
}

static uint64_t hash_of(const char *state)
{
    uint64_t hash = 0xcbf29ce484222325U;
    size_t at = 0;
    for (; at + 8 <= seen.search->bytes; at += 8) {
        uint64_t word;
        memcpy(&word, state + at, 8);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    for (; at < seen.search->bytes; at++)
        hash = (hash ^ (unsigned char)state[at]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

static uint32_t *slot_of(const char *state)
{
    size_t mask = seen.table_size - 1, at = hash_of(state) & mask;
    while (seen.table[at] != NO_STATE && memcmp(state_at(seen.table[at]), state, seen.search->bytes) != 0)
        at = (at + 1) & mask;
    return &seen.table[at];
}

static void resize_table(size_t size)
{
    if (seen.table)
        munmap(seen.table, seen.table_size * sizeof *seen.table);
    seen.table_size = size;
    seen.table = reserve(size * sizeof *seen.table);
    memset(seen.table, 0xff, size * sizeof *seen.table);
    for (size_t i = 0; i < seen.count; i++)
        *slot_of(state_at(i)) = (uint32_t)i;
}

/* Remember the state, unless it is known. */
static void add(const char *state, uint32_t parent)
{
    uint32_t *slot = slot_of(state);
    if (*slot != NO_STATE)
        return;
    *slot = (uint32_t)seen.count;
    memcpy(state_at(seen.count), state, seen.search->bytes);
    seen.parents[seen.count++] = parent;
    if (seen.count * 2 > seen.table_size)
        resize_table(seen.table_size * 2);
}

/* ---- The search itself ---- */

/* Call `found` with every state that one step leads to. @return false when there is none, or when `found` had enough. */
static bool for_each_step(const char *from, bool (*found)(const char *state, unsigned mover, const void *argument),
                          const void *argument)
{
    bool any = false;
    char *state = malloc(seen.search->bytes);
    for (unsigned mover = 0; mover < seen.search->movers; mover++) {
        memset(&choices, 0, sizeof choices);
        do {
            choices.made = 0;
            memcpy(state, from, seen.search->bytes);
            said = "";
            if (!seen.search->move(state, mover))
                continue;
            any = true;
            if (!found(state, mover, argument)) {
                free(state);
                return any;
            }
        } while (next_choices());
    }
    free(state);
    return any;
}

static bool add_successor(const char *state, unsigned mover, const void *argument)
{
    (void)mover;
    add(state, *(const uint32_t *)argument);
    return true;
}

static bool print_step_to(const char *state, unsigned mover, const void *argument)
{
    if (memcmp(state, argument, seen.search->bytes) != 0)
        return true;
    printf("      %-12s %-34s ", seen.search->mover_name(mover), said);
    seen.search->print(state);
    return false;
}

static void print_way_to(uint32_t index)
{
    if (seen.parents[index] == NO_STATE) {
        printf("      %-12s %-34s ", "", "");
        seen.search->print(state_at(index));
        return;
    }
    print_way_to(seen.parents[index]);
    for_each_step(state_at(seen.parents[index]), print_step_to, state_at(index));
}

struct search_result search_run(const struct search *search, const void *first, bool trace)
{
    struct search_result result = {0};
    size_t room = search->limit + 1024;
    memset(&seen, 0, sizeof seen);
    seen.search = search;
    seen.states = reserve(room * search->bytes);
    seen.parents = reserve(room * sizeof *seen.parents);
    resize_table(FIRST_TABLE);
    add(first, NO_STATE);
    for (uint32_t i = 0; i < seen.count && !result.violated && !result.gave_up; i++) {
        bool stuck = !for_each_step(state_at(i), add_successor, &i);
        result.violated = search->judge(state_at(i), stuck);
        if (result.violated && trace)
            print_way_to(i);
        result.gave_up = seen.count > search->limit;
    }
    result.states = seen.count;
    munmap(seen.states, room * search->bytes);
    munmap(seen.parents, room * sizeof *seen.parents);
    munmap(seen.table, seen.table_size * sizeof *seen.table);
    return result;
}
