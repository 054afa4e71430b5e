/* How much of the pool is taken, as those ask who do otherwise when it is much. */
#include <check.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/pool.h"
#include "support/support.h"

#define MIB ((size_t)1 << 20)

START_TEST(whether_more_is_taken_is_told_to_the_page)
{
    struct extent extents[3];
    const size_t bytes[3] = {POOL_PAGE, 3 * MIB, 2 * MIB + 5 * POOL_PAGE};
    config.pool = config.pool_ready = config.pool_max = 8 * MIB;
    ck_assert(!pool_exceeds(0)); /* there is none yet */
    ck_assert_int_eq(pool_prepare(), 0);
    ck_assert(!pool_exceeds(0));
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(pool_take(&extents[i], bytes[i], true), 0);
    const size_t taken = pool_pages_taken() * POOL_PAGE;
    ck_assert_uint_ge(taken, bytes[0] + bytes[1] + bytes[2]);
    ck_assert(pool_exceeds(0) && pool_exceeds(2 * MIB) && pool_exceeds(taken - POOL_PAGE));
    ck_assert(!pool_exceeds(taken) && !pool_exceeds(SIZE_MAX));
    pool_give(&extents[1]);
    ck_assert(!pool_exceeds(taken - 3 * MIB));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {whether_more_is_taken_is_told_to_the_page, NULL};
    process_start();
    return support_main(argc, argv, "pool taken", 20, NULL, tests);
}
