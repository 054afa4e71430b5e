/*
 * The settler's side of the protocol. Each step stands as in MAP.md §9 and in the model; change one, run the model again.
 *
 * A dead session is seized first: its lock byte is held while its entries are looked at, so that nobody else settles them and no new process
 * takes over the slot. Blocking and libaio requests have ended by then; for those of io_uring there is a barrier.
 */
#include "checksum/settle.h"

#include <string.h>

#include "base/process.h"
#include "base/step.h"
#include "checksum/announce.h"
#include "checksum/mutate.h"
#include "checksum/region.h"
#include "checksum/session_peers.h"
#include "checksum/window.h"

struct settling {
    struct map *map;
    const struct settle_file *file;
    struct flight_dead dead;
    int flight; /* our own entry */
    uint64_t torn;
};

/* ---- which sessions ---- */

/* Has the session anything on the map? */
static bool has_left(const struct session_file *file, uint64_t map_id)
{
    struct flight_seen seen;
    uint64_t high = atomic_load(&file->flights_high);
    for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
        if (flight_read(&file->flights[i], &seen) && seen.map_id == map_id)
            return true;
    return atomic_load(&file->flights_beyond) > 0 && session_lists_map(file, map_id);
}

/* The session of a slot, if it is another one of this boot that has something on the map. */
static struct session_file *debtor(unsigned slot, uint64_t map_id)
{
    struct session_file *file = slot == session_state->slot ? NULL : session_peer(slot, false);
    return file && session_peer_counts(file) && has_left(file, map_id) ? file : NULL;
}

bool settle_is_due(const struct map *map)
{
    for (unsigned slot = 0; slot < session_peer_count(); slot++)
        if (debtor(slot, map->id) && !session_peer_is_alive(slot))
            return true;
    return false;
}

static bool is_seized(const struct settling *settling, unsigned slot)
{
    return settling->dead.slots[slot / 64] >> slot % 64 & 1;
}

/* @return whether any session is dead and has something on the map. */
static bool seize_dead(struct settling *settling)
{
    bool any = false;
    for (unsigned slot = 0; slot < session_peer_count(); slot++) {
        STEP("seize the dead");
        if (!debtor(slot, settling->map->id) || !session_seize(slot))
            continue;
        settling->dead.slots[slot / 64] |= UINT64_C(1) << slot % 64;
        any = true;
    }
    return any;
}

static void release_dead(const struct settling *settling)
{
    for (unsigned slot = 0; slot < STORE_SLOTS; slot++)
        if (is_seized(settling, slot))
            session_release(slot);
}

/* Call `visit` for every entry that the dead have on the map. */
static void each_entry(struct settling *settling,
                       void (*visit)(struct settling *settling, struct flight *entry, const struct flight_seen *seen))
{
    struct flight_seen seen;
    for (unsigned slot = 0; slot < session_peer_count(); slot++) {
        struct session_file *file = is_seized(settling, slot) ? session_peer(slot, false) : NULL;
        uint64_t high = file ? atomic_load(&file->flights_high) : 0;
        for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++)
            if (flight_read(&file->flights[i], &seen) && seen.map_id == settling->map->id)
                visit(settling, &file->flights[i], &seen);
    }
}

/* ---- time window and barrier ---- */

static void stretch_window(struct settling *settling, struct flight *entry, const struct flight_seen *seen)
{
    (void)entry;
    int64_t modified = settling->file->modified(settling->file);
    /*
     * A shared mapping may have moved mtime at any time until its process died, and so may an edit ever since: of the two, rather a
     * file that is doubtful until it is scrubbed than an EIO on healthy data.
     */
    if (modified != WINDOW_CANNOT_TELL && (seen->kind == FLIGHT_WRITE || seen->kind == FLIGHT_MUTATOR))
        window_extend_for_dead(settling->map, modified, seen->issued);
}

static void wait_for_uring(struct settling *settling, struct flight *entry, const struct flight_seen *seen)
{
    (void)entry;
    if (seen->transport != TRANSPORT_URING)
        return;
    /* The barrier moves mtime. What somebody else has changed by now would be covered up. */
    bool first;
    window_changed_since_death(settling->map, settling->file->modified(settling->file), &settling->dead, &first);
    STEP("barrier");
    if (!settling->file->barrier(settling->file, seen->first, seen->blocks)) {
        settling->dead.uring_is_over = false;
        return;
    }
    int64_t modified = settling->file->modified(settling->file);
    if (modified != WINDOW_CANNOT_TELL)
        window_renew(settling->map, modified);
}

/* ---- one block ---- */

static bool living_over(const struct settling *settling, uint64_t block)
{
    return flight_living_over(settling->map->id, block, settling->flight, &settling->dead);
}

static bool release_claim(struct block_words *words)
{
    uint64_t claimed = WORD_CLAIMED;
    STEP("CAS claimed->0");
    return atomic_compare_exchange_strong(&words->pending, &claimed, WORD_IDLE);
}

static void make_unknown(struct block_words *words)
{
    STEP("current=unknown");
    atomic_store(&words->current, WORD_UNKNOWN);
}

/* Nobody has the block but the orphan, which is claimed. What is in it? */
static void judge_orphan(struct settling *settling, uint64_t block, struct block_words *words, uint64_t orphan)
{
    STEP("load current");
    uint64_t current = atomic_load(&words->current);
    /* A dead question, or a write of what was there: whatever the block holds, current is the word on it. */
    bool stands = orphan == current && word_is_sum(orphan);
    uint64_t sum = stands ? WORD_UNKNOWN : settling->file->sum(settling->file, block);
    if (!stands && sum != WORD_UNKNOWN && sum == orphan) {
        STEP("current=pending");
        atomic_store(&words->current, orphan);
        stands = true;
    } else if (!stands) {
        stands = sum != WORD_UNKNOWN && sum == current;
    }
    if (!stands) {
        settling->torn++;
        make_unknown(words);
    }
    if (release_claim(words))
        return;
    make_unknown(words);
    STEP("count down");
    word_count_down(&words->pending);
}

/* @return false when somebody else is at the block: later. */
static bool settle_block(struct settling *settling, uint64_t block, struct block_words *words)
{
    STEP("load pending");
    uint64_t orphan = atomic_load(&words->pending);
    if (living_over(settling, block))
        return false;
    if (orphan == WORD_IDLE)
        return true;
    uint64_t seen = orphan;
    STEP("CAS orphan->claimed");
    if (!atomic_compare_exchange_strong(&words->pending, &seen, WORD_CLAIMED))
        return false;
    if (living_over(settling, block)) {
        make_unknown(words);
        STEP("count down");
        word_count_down(&words->pending);
        return true;
    }
    judge_orphan(settling, block, words, orphan);
    return true;
}

/* ---- one entry ---- */

static void drop(struct flight *entry, uint64_t state)
{
    STEP("drop dead entry");
    atomic_compare_exchange_strong(&entry->state, &state, (state & ~UINT64_C(0xffff)) + FLIGHT_SEQUENCE);
}

static void settle_mutator(struct settling *settling, struct flight *entry, const struct flight_seen *seen)
{
    mutate_unknown(settling->map, seen->first, seen->blocks);
    drop(entry, seen->state);
    STEP("lower count");
    atomic_fetch_sub(&settling->map->header->unsettled, 1);
}

static void settle_entry(struct settling *settling, struct flight *entry, const struct flight_seen *seen)
{
    if (seen->transport == TRANSPORT_URING && !settling->dead.uring_is_over)
        return;
    if (seen->kind == FLIGHT_MUTATOR) {
        settle_mutator(settling, entry, seen);
        return;
    }
    bool all = true;
    settling->flight = flight_enter(settling->map->id, seen->first, seen->blocks, FLIGHT_SETTLER, TRANSPORT_BLOCKING);
    region_make_durable(settling->map, seen->first, seen->blocks);
    uint64_t run, end = map_range_end(settling->map, seen->first, seen->blocks);
    for (uint64_t block = seen->first; block < end; block += run) {
        struct block_words *words = map_words(settling->map, block, &run);
        run = run < end - block ? run : end - block;
        for (uint64_t i = 0; words && i < run; i++)
            all &= settle_block(settling, block + i, &words[i]);
    }
    if (all)
        drop(entry, seen->state);
    flight_leave(settling->flight);
}

/* Requests that found their session's table full: nobody knows where they were. */
static void settle_beyond(struct settling *settling)
{
    for (unsigned slot = 0; slot < session_peer_count(); slot++) {
        struct session_file *file = is_seized(settling, slot) ? session_peer(slot, false) : NULL;
        if (!file || atomic_load(&file->flights_beyond) == 0 || !session_lists_map(file, settling->map->id))
            continue;
        mutate_unknown(settling->map, 0, FLIGHT_TO_END);
        bool listed = false;
        for (unsigned i = 0; i < SESSION_MAPS; i++) {
            uint64_t id = settling->map->id;
            if (!atomic_compare_exchange_strong(&file->maps[i], &id, 0))
                listed |= id != 0;
        }
        if (!listed)
            atomic_store(&file->flights_beyond, 0);
    }
}

/* ---- the map ---- */

/* Who settles a map: slot and start of the session, so that a later one in the same slot is not taken for it. */
static uint64_t token_of(const struct session_file *file, unsigned slot)
{
    return (atomic_load(&file->started) << 13) | (slot + 1);
}

static bool settler_is_dead(uint64_t token)
{
    unsigned slot = (unsigned)(token & 0x1fff) - 1;
    const struct session_file *file = slot < STORE_SLOTS ? session_peer(slot, false) : NULL;
    return !file || token_of(file, slot) != token || (slot != session_state->slot && !session_peer_is_alive(slot));
}

static bool lock_map(struct map *map, uint64_t token)
{
    uint64_t holder = 0;
    STEP("settle try-lock");
    if (atomic_compare_exchange_strong(&map->header->settle_lock, &holder, token))
        return true;
    return settler_is_dead(holder) && atomic_compare_exchange_strong(&map->header->settle_lock, &holder, token);
}

static void settle_seized(struct settling *settling)
{
    settling->dead.uring_is_over = true;
    each_entry(settling, stretch_window);
    each_entry(settling, wait_for_uring);
    each_entry(settling, settle_entry);
    settle_beyond(settling);
}

uint64_t settle_map(struct map *map, const struct settle_file *file)
{
    struct settling settling = {.map = map, .file = file};
    bool busy = false;
    uint64_t saved;
    if (!atomic_compare_exchange_strong(&session_state->settling, &busy, true))
        return 0;
    /* A handler must not jump out of here with a dead session seized. */
    process_hold_signals(&saved);
    uint64_t token = token_of(atomic_load(&session_state->self), session_state->slot);
    if (lock_map(map, token)) {
        map_refresh(map);
        if (seize_dead(&settling))
            settle_seized(&settling);
        STEP("unlock");
        release_dead(&settling);
        atomic_compare_exchange_strong(&map->header->settle_lock, &token, 0);
    }
    process_release_signals(&saved);
    atomic_store(&session_state->settling, false);
    return settling.torn;
}
