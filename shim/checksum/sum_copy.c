/*
 * The caller's side of copies that sum: vectors, and the choice between the compiled variants. A fault anywhere ends a run of blocks as if it had never begun;
 * who copies it again, byte by byte (bounce/copy.h), finds out where.
 */
#include "checksum/sum_copy.h"

#include <stdbool.h>

#if defined(__x86_64__)
#include <sys/platform/x86.h>
#endif

#include "base/process.h"
#include "checksum/block_sum.h"

typedef void sum_copy_function(void *argument);

/* NULL: nothing here is faster than copying first, and summing what is in cache then. */
static sum_copy_function *chosen, *chosen_to_stream;

/* What stores past the cache ask of the address, bytes. */
enum { STREAM_ALIGN = 64 };

#if defined(__x86_64__)
sum_copy_function sum_copy_avx2, sum_stream_avx2;
sum_copy_function sum_copy_avx512, sum_stream_avx512;

static void choose(void)
{
    if (CPU_FEATURE_ACTIVE(AVX512F)) {
        chosen = sum_copy_avx512;
        chosen_to_stream = sum_stream_avx512;
    } else if (CPU_FEATURE_ACTIVE(AVX2)) {
        chosen = sum_copy_avx2;
        chosen_to_stream = sum_stream_avx2;
    }
}
PROCESS_INITIALISER(choose);
#endif

/* What was stored past the cache, as far as it came, is seen by others not later than whatever is stored from here on. */
static void end_stream(void)
{
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

/* Whole blocks, at most `most`, that lie one after the other at the cursor. Moves it past segments that are used up. */
static size_t run_at(struct cursor *cursor, size_t most)
{
    while (cursor->segments > 0 && cursor->used == cursor->vector->iov_len) {
        cursor->vector++;
        cursor->segments--;
        cursor->used = 0;
    }
    if (cursor->segments == 0)
        return 0;
    size_t blocks = (cursor->vector->iov_len - cursor->used) / BLOCK_SIZE;
    return blocks < most ? blocks : most;
}

static size_t copy_runs(const struct sum_copy *work, struct cursor *cursor, bool gather)
{
    size_t done = 0;
    while (chosen && done < work->blocks) {
        struct sum_copy run = {
            .blocks = run_at(cursor, work->blocks - done), .first = work->first + done, .sums = work->sums + done};
        if (run.blocks == 0)
            break;
        char *user = (char *)cursor->vector->iov_base + cursor->used;
        run.to = gather ? (char *)work->to + done * BLOCK_SIZE : user;
        run.from = gather ? user : (const char *)work->from + done * BLOCK_SIZE;
        const bool streams = work->streams && (uintptr_t)run.to % STREAM_ALIGN == 0;
        const int error = copy_guarded_call(streams ? chosen_to_stream : chosen, &run);
        if (streams)
            end_stream();
        if (error != 0)
            break;
        cursor->used += run.blocks * BLOCK_SIZE;
        done += run.blocks;
    }
    return done;
}

size_t sum_copy_gather(const struct sum_copy *work, struct cursor *cursor)
{
    return copy_runs(work, cursor, true);
}

size_t sum_copy_scatter(const struct sum_copy *work, struct cursor *cursor)
{
    return copy_runs(work, cursor, false);
}
