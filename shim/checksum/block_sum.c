/*
 * The choice between the compiled variants of the block hash. The variants give the same sums; only their speed differs.
 */
#include "checksum/block_sum.h"

#if defined(__x86_64__)
#include <sys/platform/x86.h>
#endif

#include "base/process.h"
#include "bounce/copy.h"

typedef void block_sums_function(void *argument);

block_sums_function block_sums_baseline;
#if defined(__x86_64__)
block_sums_function block_sums_avx2;
block_sums_function block_sums_avx512;
#endif

static block_sums_function *chosen = block_sums_baseline;

/*
 * What the dynamic linker knows of the processor. The compiler's own __builtin_cpu_supports asks it again in a constructor, twenty times by
 * CPUID, which a virtual machine traps: 0.1 ms in every program.
 */
static void choose(void)
{
#if defined(__x86_64__)
    if (CPU_FEATURE_ACTIVE(AVX512F))
        chosen = block_sums_avx512;
    else if (CPU_FEATURE_ACTIVE(AVX2))
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
