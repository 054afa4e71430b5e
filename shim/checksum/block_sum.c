/*
 * The choice between the compiled variants of the block hash. The variants give the same sums; only their speed differs.
 */
#include "checksum/block_sum.h"

#include "base/process.h"
#include "bounce/copy.h"

typedef void block_sums_function(void *argument);

block_sums_function block_sums_baseline;
#if defined(__x86_64__)
block_sums_function block_sums_avx2;
block_sums_function block_sums_avx512;
#endif

static block_sums_function *chosen = block_sums_baseline;

static void choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        chosen = block_sums_avx512;
    else if (__builtin_cpu_supports("avx2"))
        chosen = block_sums_avx2;
#endif
}
PROCESS_INITIALISER(choose);

void block_sums(struct block_sums *work)
{
    chosen(work);
}

uint64_t block_sum(const void *data, uint64_t index)
{
    uint64_t sum;
    chosen(&(struct block_sums){.data = data, .blocks = 1, .first = index, .sums = &sum});
    return sum;
}

int block_sums_of_user(struct block_sums *work)
{
    return copy_guarded_call(chosen, work);
}
