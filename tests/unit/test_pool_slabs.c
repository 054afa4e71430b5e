/*
 * The slabs of the page pool, as those see them who tell the kernel of them.
 */
#include <check.h>
#include <stdlib.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/pool.h"
#include "support/support.h"

START_TEST(a_slab_is_found_by_what_lies_in_it)
{
    struct extent extent = {0};
    ck_assert_int_eq(pool_slab_of(&extent, 1), -1); /* no pool yet */
    config.pool = config.pool_ready = config.pool_max = 4 * POOL_SLAB;
    ck_assert_int_eq(pool_prepare(), 0);
    ck_assert_int_eq(pool_take(&extent, POOL_PAGE, true), 0);
    char *slab = pool_slab(0);
    int first = pool_slab_of(extent.base, POOL_PAGE);
    ck_assert_int_ge(first, 0);
    ck_assert_ptr_eq((char *)pool_slab(first) + (size_t)extent.first % (POOL_SLAB / POOL_PAGE) * POOL_PAGE,
                     extent.base);
    ck_assert_int_eq(pool_slab_of(slab, POOL_SLAB), 0);
    ck_assert_int_eq(pool_slab_of(slab + 1, POOL_SLAB), -1);
    ck_assert_int_eq(pool_slab_of(slab + POOL_SLAB - 1, 1), 0);
    ck_assert_int_eq(pool_slab_of(slab + POOL_SLAB - 1, 2), -1);
    ck_assert_int_eq(pool_slab_of(slab + POOL_SLAB, POOL_SLAB), 1);
    ck_assert_int_eq(pool_slab_of(slab - 1, 1), -1);
    ck_assert_int_eq(pool_slab_of(slab + 4 * POOL_SLAB, 1), -1);
    ck_assert_int_eq(pool_slab_of(pool_bad_address(), POOL_PAGE), -1);
    ck_assert_int_eq(pool_slab_of(&extent, 1), -1);
    pool_give(&extent);
}
END_TEST

int main(int argc, char **argv)
{
    process_start();
    return support_main(argc, argv, "slabs of the pool", 10, NULL,
                        (const TTest *const[]){a_slab_is_found_by_what_lies_in_it, NULL});
}
