/*
 * What participants do: as engine/write.c, verify.c, decide.c and change.c do it, with a disk of one block in memory.
 */
#include "checksum/mutate.h"
#include "checksum/question.h"
#include "checksum/settle.h"
#include "checksum/window.h"
#include "schedule/explore.h"
#include "schedule/schedule.h"

enum { ROUNDS = 3 };

uint64_t sum_of(unsigned first, unsigned second)
{
    return 1001 + first * 10 + second;
}

static uint8_t content_of(unsigned sector)
{
    return sector < disk.size ? disk.sector[sector] : 0;
}

struct reading {
    uint8_t sector[SECTORS];
};

static struct reading read_block(void)
{
    struct reading reading;
    schedule_step("read the first sector");
    reading.sector[0] = content_of(0);
    schedule_step("read the second sector");
    reading.sector[1] = content_of(1);
    return reading;
}

static uint64_t sum_as_read(const struct reading *reading)
{
    return sum_of(reading->sector[0], reading->sector[1]);
}

/* ---- Writing ---- */

static bool is_whole(const struct part *part)
{
    return part->role == WHOLE_WRITER;
}

static uint8_t end_of(const struct part *part)
{
    return is_whole(part) ? SECTORS : part->sector + 1;
}

void role_land(struct actor *actor, unsigned sector)
{
    actor->landing &= (uint8_t) ~(1U << sector);
    disk.sector[sector] = actor->part->content[sector];
}

enum outcome { WRITTEN, FAILED, REFUSED };

static enum outcome fail(struct actor *actor, uint8_t all)
{
    bool refused = actor->landing == all && explore_choose(2) == 1;
    for (unsigned sector = disk.size; sector < SECTORS; sector++)
        if ((all & ~actor->landing) >> sector & 1)
            disk.sector[sector] = 0;
    actor->landing = 0;
    return refused ? REFUSED : FAILED;
}

static enum outcome transfer(struct actor *actor)
{
    const struct part *part = actor->part;
    const uint8_t all = is_whole(part) ? BOTH : (uint8_t)(1U << part->sector);
    schedule_step("issue");
    actor->landing = all;
    while (actor->landing != 0) {
        schedule_step("the disk writes");
        if (part->may_fail && explore_choose(2) == 1)
            return fail(actor, all);
        role_land(actor, actor->landing == BOTH ? explore_choose(2) : actor->landing >> 1);
    }
    if (disk.size < end_of(part)) {
        schedule_step("the size moves");
        if (disk.size < end_of(part))
            disk.size = end_of(part);
    }
    return WRITTEN;
}

static void open_request(struct announcement *announcement, const struct actor *actor, enum flight_kind kind)
{
    announce_open(announcement, &the_map, BLOCK_INDEX, 1, kind,
                  actor->part->asynchronous ? TRANSPORT_URING : TRANSPORT_BLOCKING, false);
}

static void write_whole(struct actor *actor)
{
    struct announcement announcement;
    uint64_t sum = sum_of(actor->part->content[0], actor->part->content[1]);
    open_request(&announcement, actor, FLIGHT_WRITE);
    announce_sums(&announcement, BLOCK_INDEX, 1, &sum);
    enum outcome outcome = transfer(actor);
    if (outcome == REFUSED)
        announce_withdraw(&announcement, BLOCK_INDEX, 1);
    else if (outcome == FAILED)
        announce_forget(&announcement, BLOCK_INDEX, 1);
    else
        announce_publish(&announcement, BLOCK_INDEX, 1);
    announce_close(&announcement);
}

static bool rest_is_beyond_end(const struct part *part)
{
    return (part->sector == 0 || disk.size == 0) && (part->sector == 1 || disk.size <= 1);
}

static uint64_t sum_overlaid(const struct part *part, const struct reading *rest)
{
    return part->sector == 0 ? sum_of(part->content[0], rest->sector[1]) : sum_of(rest->sector[0], part->content[1]);
}

static struct reading read_edge(const struct announcement *announcement, struct edge *edge)
{
    struct reading rest = {{0}};
    if (edge->base == WORD_UNKNOWN)
        return rest;
    rest = read_block();
    if (edge_check(announcement, edge, sum_as_read(&rest)) == EDGE_MISMATCH)
        disk.mismatch |= edge_poison(edge);
    return rest;
}

static struct reading prepare_edge(const struct part *part, const struct announcement *announcement, struct edge *edge)
{
    struct reading rest = {{0}};
    schedule_step("look at the size");
    if (rest_is_beyond_end(part)) {
        uint64_t sum = sum_overlaid(part, &rest);
        edge_announce_whole(announcement, edge, BLOCK_INDEX, sum);
        schedule_step("look at the size");
        if (rest_is_beyond_end(part))
            return rest;
        edge_downgrade(edge, sum);
    } else {
        edge_announce(announcement, edge, BLOCK_INDEX);
    }
    return read_edge(announcement, edge);
}

static void write_part(struct actor *actor)
{
    struct announcement announcement;
    struct edge edge;
    open_request(&announcement, actor, FLIGHT_WRITE);
    struct reading rest = prepare_edge(actor->part, &announcement, &edge);
    enum outcome outcome = transfer(actor);
    if (outcome == REFUSED)
        edge_withdraw(&announcement, &edge);
    else if (outcome == FAILED)
        edge_forget(&announcement, &edge);
    else
        edge_publish(&announcement, &edge, sum_overlaid(actor->part, &rest));
    announce_close(&announcement);
}

/* ---- Reading ---- */

static void read_and_verify(struct actor *actor)
{
    (void)actor;
    struct reading reading = read_block();
    if (map_verify(&the_map, BLOCK_INDEX, sum_as_read(&reading)) != VERDICT_SUSPECT)
        return;
    enum verdict verdict = VERDICT_UNDECIDED;
    for (int round = 0; round < ROUNDS && verdict == VERDICT_UNDECIDED; round++) {
        struct question question;
        verdict = question_open(&question, &the_map, BLOCK_INDEX, false);
        if (verdict != VERDICT_SUSPECT)
            continue;
        reading = read_block();
        verdict = question_close(&question, sum_as_read(&reading));
    }
    disk.mismatch |= verdict == VERDICT_MISMATCH;
}

static void adopt(struct actor *actor)
{
    struct announcement announcement;
    struct reading reading = read_block();
    uint64_t run, sum = sum_as_read(&reading);
    schedule_step("load current");
    if (map_words(&the_map, BLOCK_INDEX, &run)->current != WORD_UNKNOWN)
        return;
    open_request(&announcement, actor, FLIGHT_ADOPTION);
    announce_sums(&announcement, BLOCK_INDEX, 1, &sum);
    reading = read_block();
    if (sum_as_read(&reading) == sum)
        announce_publish(&announcement, BLOCK_INDEX, 1);
    else
        announce_forget(&announcement, BLOCK_INDEX, 1);
    announce_close(&announcement);
}

/* ---- Changing without checksums ---- */

static void mutate(struct actor *actor)
{
    struct mutation mutation;
    mutate_open(&mutation, &the_map, BLOCK_INDEX, 1, TRANSPORT_BLOCKING, false);
    if (actor->part->role == TRUNCATOR) {
        disk.size = disk.sector[0] = disk.sector[1] = 0;
    } else {
        unsigned second = explore_choose(2);
        schedule_step("the disk empties a sector");
        disk.sector[second] = 0;
        schedule_step("the disk empties a sector");
        disk.sector[1 - second] = 0;
    }
    mutate_close(&mutation, BLOCK_INDEX, 1);
}

/* ---- Settling ---- */

static uint64_t sum_for_settler(const struct settle_file *file, uint64_t block)
{
    (void)file;
    (void)block;
    struct reading reading = read_block();
    return sum_as_read(&reading);
}

static bool nothing_lands(const struct actor *actor)
{
    bool lands = false;
    for (unsigned i = 0; i < configured->participants; i++)
        lands |= actors[i].dead && actors[i].landing != 0;
    (void)actor;
    return !lands;
}

static bool wait_for_landing(const struct settle_file *file, uint64_t first, uint64_t blocks)
{
    (void)file;
    (void)first;
    (void)blocks;
    schedule_wait("wait in the barrier", nothing_lands);
    return true;
}

static int64_t no_time(const struct settle_file *file)
{
    (void)file;
    return WINDOW_CANNOT_TELL;
}

static void settle(struct actor *actor)
{
    static const struct settle_file file = {.sum = sum_for_settler, .barrier = wait_for_landing, .modified = no_time};
    (void)actor;
    for (;;) {
        schedule_wait("wait for work", schedule_may_settle);
        settle_map(&the_map, &file);
    }
}

void role_play(struct actor *actor)
{
    static void (*const roles[])(struct actor *) = {
        [WHOLE_WRITER] = write_whole, [PARTIAL_WRITER] = write_part, [READER] = read_and_verify, [ADOPTER] = adopt,
        [MUTATOR] = mutate,           [TRUNCATOR] = mutate,          [SETTLER] = settle};
    roles[actor->part->role](actor);
}
