/*
 * Statistics: counters in memory shared with forked children, so that one report covers a whole tree of processes.
 *
 * A counter is spread over cache lines by thread, so that counting never makes two threads share a line.
 * stats_add is thread-safe, async-signal-safe, wait-free.
 */
#ifndef BOUNCEIO_BASE_STATS_H
#define BOUNCEIO_BASE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One list: the JSON keys, the fields of struct bounceio_stats (same order), the enum below. */
#define STATS_COUNTERS(X)                                                                                              \
    X(direct_reads)                                                                                                    \
    X(direct_writes)                                                                                                   \
    X(bytes_read)                                                                                                      \
    X(bytes_written)                                                                                                   \
    X(bytes_bounced)                                                                                                   \
    X(bytes_in_place)                                                                                                  \
    X(blocks_summed)                                                                                                   \
    X(blocks_verified)                                                                                                 \
    X(blocks_unverified)                                                                                               \
    X(mismatches)                                                                                                      \
    X(recovered_blocks)                                                                                                \
    X(changed_outside)                                                                                                 \
    X(suspicions)                                                                                                      \
    X(unstable_buffers)                                                                                                \
    X(nowait_eagain)                                                                                                   \
    X(short_copies)                                                                                                    \
    X(pool_grows)                                                                                                      \
    X(pool_overflows)                                                                                                  \
    X(pages_leaked)                                                                                                    \
    X(contended_blocks)                                                                                                \
    X(passed_through)

#define STATS_ENUM(name) STAT_##name,
enum stat_counter { STATS_COUNTERS(STATS_ENUM) STAT_COUNT };
#undef STATS_ENUM

enum { STATS_SHARDS = 16 };

struct stats_shard {
    _Atomic uint64_t counter[STAT_COUNT];
} __attribute__((aligned(64)));

/*
 * The counters of a process, as `bounceio stat PID` reads them out of its memory (session_file.stats_address): a reader believes them only if
 * magic and number of counters are what it knows.
 */
#define STATS_MAGIC "BNCESTA"
struct stats_shared {
    char magic[8];
    uint32_t counters;     /* STAT_COUNT */
    _Atomic bool reported; /* the process that loaded the shim has written its report */
    struct stats_shard shards[STATS_SHARDS];
};

/* Where they are; NULL when they could not be mapped. Shared with forked children. */
const struct stats_shared *stats_memory(void);

/* STATS_SHARDS shards; a private fallback until process_start has mapped the shared ones. */
extern struct stats_shard *stats_shards;
/* 1-based shard of this thread, 0 until its first count. */
extern _Thread_local unsigned stats_my_shard __attribute__((tls_model("initial-exec")));
unsigned stats_choose_shard(void);

static inline void stats_add(enum stat_counter counter, uint64_t amount)
{
    unsigned shard = stats_my_shard ? stats_my_shard : stats_choose_shard();
    /* Relaxed: a counter orders nothing. */
    atomic_fetch_add_explicit(&stats_shards[shard - 1].counter[counter], amount, memory_order_relaxed);
}

/* Sum of one counter over all shards. */
uint64_t stats_get(enum stat_counter counter);

/* Map the shared counters; called by process_start. */
void stats_start(void);

/*
 * Write the report that BOUNCEIO_STATS asks for: a JSON object, replacing a file atomically (temporary name, rename).
 * Called at exit by the process that loaded the shim, and by a forked child that outlives it. Not async-signal-safe.
 */
void stats_report(void);

#endif
