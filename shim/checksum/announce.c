/*
 * The write side of the protocol. Each step stands as in MAP.md §§3 and 4 and in the model; change one, run the model again.
 */
#include "checksum/announce.h"

#include "base/stats.h"
#include "base/step.h"
#include "checksum/window.h"

void word_count_down(_Atomic uint64_t *pending)
{
    uint64_t seen = atomic_load(pending);
    while (seen != WORD_IDLE && !atomic_compare_exchange_weak(pending, &seen, word_left(seen)))
        ;
}

void announce_open_at(struct announcement *announcement, struct map *map, uint64_t first, uint64_t blocks,
                      enum flight_kind kind, enum flight_transport transport, bool nowait, int64_t now)
{
    uint64_t run;
    struct block_words *words = map_words(map, first, &run);
    *announcement = (struct announcement){
        .words = words, .first = first, .run = words ? run : 0, .flight = FLIGHT_NONE, .nowait = nowait};
    atomic_signal_fence(memory_order_seq_cst);
    announcement->map = map;
    flight_enter_as(&announcement->flight, &announcement->ticket, map->id, first, blocks, kind, transport, now);
}

void announce_open(struct announcement *announcement, struct map *map, uint64_t first, uint64_t blocks,
                   enum flight_kind kind, enum flight_transport transport, bool nowait)
{
    announce_open_at(announcement, map, first, blocks, kind, transport, nowait, window_now());
}

/* map_words, which nearly always was asked before. */
static struct block_words *announced_words(const struct announcement *announcement, uint64_t block, uint64_t *run)
{
    uint64_t within = block - announcement->first;
    if (within >= announcement->run)
        return map_words(announcement->map, block, run);
    *run = announcement->run - within;
    return announcement->words + within;
}

void announce_close(struct announcement *announcement)
{
    flight_leave(announcement->flight);
    announcement->map = NULL;
}

void announce_lose(const struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    for (uint64_t block = first; block < first + blocks; block++) {
        struct block_words *words = announced_words(announcement, block, &run);
        uint64_t current = words ? atomic_load(&words->current) : WORD_UNKNOWN;
        while (current != WORD_UNKNOWN && current != WORD_POISON &&
               !atomic_compare_exchange_weak(&words->current, &current, WORD_UNKNOWN))
            ;
    }
}

void announce_abandon(struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    if (!announcement->map)
        return;
    announce_lose(announcement, first, blocks);
    flight_leave_once(announcement->flight, announcement->ticket);
    announcement->map = NULL;
}

/* The word is not idle, and no live request was seen over the block: take it over, if that is still so. @return sole owner? */
static bool claim_orphan(const struct announcement *announcement, uint64_t block, _Atomic uint64_t *pending,
                         uint64_t mine)
{
    uint64_t claimed = WORD_CLAIMED;
    if (flight_others_over(announcement->map->id, block, announcement->flight, announcement->nowait)) {
        STEP("CAS claimed->contended(2)");
        atomic_compare_exchange_strong(pending, &claimed, WORD_CONTENDED + 2);
        return false;
    }
    STEP("CAS claimed->new");
    return atomic_compare_exchange_strong(pending, &claimed, mine);
}

/* Put `mine` into the pending word, or join whoever is there. @return true for the sole owner. */
static bool take_pending(const struct announcement *announcement, uint64_t block, _Atomic uint64_t *pending,
                         uint64_t mine)
{
    for (;;) {
        uint64_t seen = WORD_IDLE;
        STEP("CAS pending 0->new");
        if (atomic_compare_exchange_strong(pending, &seen, mine))
            return true;
        if (flight_others_over(announcement->map->id, block, announcement->flight, announcement->nowait)) {
            STEP("CAS ->contended(n+1)");
            if (atomic_compare_exchange_strong(pending, &seen, word_joined(seen)))
                return false;
        } else {
            STEP("CAS orphan->claimed");
            if (atomic_compare_exchange_strong(pending, &seen, WORD_CLAIMED))
                return claim_orphan(announcement, block, pending, mine);
        }
    }
}

/* Whoever else is there may be dead: the next blocking request looks. */
static void count_contended(const struct announcement *announcement, uint64_t blocks)
{
    stats_add(STAT_contended_blocks, blocks);
    atomic_store_explicit(&announcement->map->met, true, memory_order_relaxed);
}

void announce_sums(const struct announcement *announcement, uint64_t first, uint64_t blocks, const uint64_t *sums)
{
    uint64_t run, end = first + blocks, contended = 0;
    for (uint64_t block = first; block < end; block += run) {
        struct block_words *words = announced_words(announcement, block, &run);
        run = run < end - block ? run : end - block;
        for (uint64_t i = 0; words && i < run; i++)
            if (!take_pending(announcement, block + i, &words[i].pending, sums[block + i - first]))
                contended++;
    }
    if (contended)
        count_contended(announcement, contended);
}

static void forget_block(struct block_words *words)
{
    STEP("current=unknown");
    atomic_store(&words->current, WORD_UNKNOWN);
    STEP("count down");
    word_count_down(&words->pending);
}

/* @return true when the block's checksum is now recorded. */
static bool publish_block(const struct announcement *announcement, uint64_t block, struct block_words *words)
{
    STEP("publish");
    uint64_t mine = atomic_load(&words->pending);
    if (!word_is_sum(mine) || map_mutator_covers(announcement->map, block, announcement->nowait)) {
        forget_block(words);
        return false;
    }
    STEP("current=new");
    atomic_store(&words->current, mine);
    STEP("CAS pending new->0");
    if (atomic_compare_exchange_strong(&words->pending, &mine, WORD_IDLE))
        return true;
    forget_block(words);
    return false;
}

void announce_publish(const struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    uint64_t run, end = first + blocks, published = 0;
    for (uint64_t block = first; block < end; block += run) {
        struct block_words *words = announced_words(announcement, block, &run);
        run = run < end - block ? run : end - block;
        for (uint64_t i = 0; words && i < run; i++)
            published += publish_block(announcement, block + i, &words[i]);
    }
    if (published)
        stats_add(STAT_blocks_summed, published);
}

void announce_withdraw(const struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    for (uint64_t block = first; block < first + blocks; block++) {
        struct block_words *words = announced_words(announcement, block, &run);
        STEP("withdraw");
        if (words)
            word_count_down(&words->pending);
    }
}

void announce_forget(const struct announcement *announcement, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    for (uint64_t block = first; block < first + blocks; block++) {
        struct block_words *words = announced_words(announcement, block, &run);
        if (words)
            forget_block(words);
    }
}

void edge_announce(const struct announcement *announcement, struct edge *edge, uint64_t block)
{
    uint64_t run;
    *edge = (struct edge){.block = block, .words = announced_words(announcement, block, &run)};
    if (!edge->words)
        return;
    edge->sole = take_pending(announcement, block, &edge->words->pending, WORD_CONTENDED + 1);
    if (!edge->sole)
        count_contended(announcement, 1);
    STEP("load current");
    edge->base = atomic_load(&edge->words->current);
}

void edge_announce_whole(const struct announcement *announcement, struct edge *edge, uint64_t block, uint64_t sum)
{
    uint64_t run;
    *edge = (struct edge){.block = block, .words = announced_words(announcement, block, &run), .whole = true};
    if (!edge->words)
        return;
    edge->sole = take_pending(announcement, block, &edge->words->pending, sum);
    if (!edge->sole)
        count_contended(announcement, 1);
}

void edge_downgrade(struct edge *edge, uint64_t sum)
{
    edge->whole = false;
    if (!edge->words)
        return;
    STEP("CAS sum->contended(1)");
    edge->sole = edge->sole && atomic_compare_exchange_strong(&edge->words->pending, &sum, WORD_CONTENDED + 1);
    STEP("load current");
    edge->base = atomic_load(&edge->words->current);
}

/* The block as read differs from what is recorded. Looked at in this order, as by a question. */
static bool is_mismatch(const struct announcement *announcement, const struct edge *edge)
{
    if (map_mutator_covers(announcement->map, edge->block, announcement->nowait) || !edge->sole)
        return false;
    STEP("pending still exactly that");
    if (atomic_load(&edge->words->pending) != WORD_CONTENDED + 1)
        return false;
    STEP("current still that");
    return atomic_load(&edge->words->current) == edge->base;
}

enum edge_verdict edge_check(const struct announcement *announcement, struct edge *edge, uint64_t sum)
{
    if (edge->base == WORD_UNKNOWN)
        return EDGE_UNKNOWN;
    if (sum == edge->base)
        return EDGE_AS_RECORDED;
    STEP("block as read differs: decide");
    if (is_mismatch(announcement, edge))
        return EDGE_MISMATCH;
    edge->base = WORD_UNKNOWN;
    return EDGE_UNKNOWN;
}

bool edge_poison(struct edge *edge)
{
    STEP("poison");
    uint64_t recorded = edge->base;
    edge->poisoned = atomic_compare_exchange_strong(&edge->words->current, &recorded, WORD_POISON);
    if (!edge->poisoned)
        edge->base = WORD_UNKNOWN;
    return edge->poisoned;
}

/* Leave the pending word at `mine`, or whatever it has become; current is unknown. */
static void edge_forget_as(struct edge *edge, uint64_t mine)
{
    STEP("current=unknown");
    atomic_store(&edge->words->current, WORD_UNKNOWN);
    STEP("release");
    if (atomic_compare_exchange_strong(&edge->words->pending, &mine, WORD_IDLE))
        return;
    STEP("count down");
    word_count_down(&edge->words->pending);
}

/* Is the block still what it was when the rest of it was vouched for? */
static bool still_stands(const struct announcement *announcement, const struct edge *edge)
{
    if (map_mutator_covers(announcement->map, edge->block, announcement->nowait))
        return false;
    STEP("current still that");
    return atomic_load(&edge->words->current) == edge->base;
}

void edge_publish(const struct announcement *announcement, struct edge *edge, uint64_t sum)
{
    if (!edge->words)
        return;
    if (edge->poisoned) {
        STEP("count down");
        word_count_down(&edge->words->pending);
        return;
    }
    if (edge->whole) {
        if (publish_block(announcement, edge->block, edge->words))
            stats_add(STAT_blocks_summed, 1);
        return;
    }
    uint64_t mine = WORD_CONTENDED + 1;
    STEP("CAS contended(1)->newsum");
    if (!edge->sole || edge->base == WORD_UNKNOWN ||
        !atomic_compare_exchange_strong(&edge->words->pending, &mine, sum)) {
        forget_block(edge->words);
        return;
    }
    if (!still_stands(announcement, edge)) {
        edge_forget_as(edge, sum);
        return;
    }
    STEP("current=newsum");
    atomic_store(&edge->words->current, sum);
    uint64_t published = sum;
    STEP("CAS newsum->0");
    if (atomic_compare_exchange_strong(&edge->words->pending, &published, WORD_IDLE))
        stats_add(STAT_blocks_summed, 1);
    else
        forget_block(edge->words);
}

void edge_withdraw(const struct announcement *announcement, struct edge *edge)
{
    (void)announcement;
    if (!edge->words)
        return;
    STEP("withdraw");
    word_count_down(&edge->words->pending);
}

void edge_forget(const struct announcement *announcement, struct edge *edge)
{
    (void)announcement;
    if (!edge->words)
        return;
    if (!edge->poisoned) {
        forget_block(edge->words);
        return;
    }
    STEP("count down");
    word_count_down(&edge->words->pending);
}
