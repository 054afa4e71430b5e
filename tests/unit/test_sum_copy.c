/*
 * Copies that sum: the bytes are those of a copy, the sums are those of the bytes that were stored, whatever the caller does to his meanwhile, and a fault
 * is where the caller of these goes on by himself.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "checksum/block_sum.h"
#include "checksum/sum_copy.h"
#include "support/support.h"

enum { BLOCKS = 16, BYTES = BLOCKS * BLOCK_SIZE, FIRST = 12345 };

/* The compiled variants; which of them can run here, sum_copy.c decides. */
void sum_copy_avx2(void *argument);
void sum_stream_avx2(void *argument);
void sum_copy_avx512(void *argument);
void sum_stream_avx512(void *argument);

static unsigned char ours[BYTES] __attribute__((aligned(BLOCK_SIZE)));
static uint64_t sums[BLOCKS], expected[BLOCKS];
/* Past the cache? */
static bool streams;

/* Does this machine copy in one pass? Prints why the test is skipped when not. */
static bool has_one_pass(void)
{
    guard_install();
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return true;
#endif
    test_skip("no AVX2");
    return false;
}

static struct cursor cursor_over(const struct iovec *vector, size_t segments)
{
    return (struct cursor){.vector = vector, .segments = segments};
}

static struct sum_copy work_of(size_t blocks)
{
    memset(sums, 0, sizeof sums);
    return (struct sum_copy){
        .to = ours, .from = ours, .blocks = blocks, .first = FIRST, .sums = sums, .streams = streams};
}

static void expect_sums_of(const void *data, size_t blocks)
{
    block_sums(&(struct block_sums){.data = data, .blocks = blocks, .first = FIRST, .sums = expected});
    ck_assert_mem_eq(sums, expected, blocks * sizeof *sums);
}

static size_t gather(const struct iovec *vector, size_t segments, size_t blocks, struct cursor *cursor)
{
    const struct sum_copy work = work_of(blocks);
    *cursor = cursor_over(vector, segments);
    return sum_copy_gather(&work, cursor);
}

static size_t scatter(const struct iovec *vector, size_t segments, size_t blocks, struct cursor *cursor)
{
    const struct sum_copy work = work_of(blocks);
    *cursor = cursor_over(vector, segments);
    return sum_copy_scatter(&work, cursor);
}

/* Through the cache, and past it. */
static void both_ways(void (*behaves)(void))
{
    if (!has_one_pass())
        return;
    for (int way = 0; way < 2; way++) {
        streams = way == 1;
        behaves();
    }
}

#if defined(__x86_64__)
static void expect_same(void (*variant)(void *argument), const void *data)
{
    memset(ours, 0, sizeof ours);
    const struct sum_copy work = work_of(BLOCKS);
    variant(&(struct sum_copy){.to = work.to, .from = data, .blocks = BLOCKS, .first = FIRST, .sums = sums});
    ck_assert_mem_eq(ours, data, BYTES);
    expect_sums_of(data, BLOCKS);
}

START_TEST(all_variants_copy_and_sum_alike)
{
    static unsigned char data[BYTES + 64];
    pattern_fill(data, sizeof data, 1, 0);
    for (size_t shift = 0; shift < 64; shift += 7) {
        if (__builtin_cpu_supports("avx2")) {
            expect_same(sum_copy_avx2, data + shift);
            expect_same(sum_stream_avx2, data + shift);
        }
        if (__builtin_cpu_supports("avx512f")) {
            expect_same(sum_copy_avx512, data + shift);
            expect_same(sum_stream_avx512, data + shift);
        }
    }
}
END_TEST
#endif

static void any_address_is_copied(void)
{
    unsigned char *user = buffer_new(BYTES + BLOCK_SIZE);
    for (size_t shift = 0; shift < 130; shift++) {
        struct iovec vector = {.iov_base = user + shift, .iov_len = BYTES};
        struct cursor cursor;
        pattern_fill(user, BYTES + BLOCK_SIZE, shift, 0);
        ck_assert_uint_eq(gather(&vector, 1, BLOCKS, &cursor), BLOCKS);
        ck_assert_uint_eq(cursor.used, BYTES);
        ck_assert_mem_eq(ours, user + shift, BYTES);
        expect_sums_of(ours, BLOCKS);
        memset(user, 0xEE, BYTES + BLOCK_SIZE);
        ck_assert_uint_eq(scatter(&vector, 1, BLOCKS, &cursor), BLOCKS);
        ck_assert_mem_eq(ours, user + shift, BYTES);
        expect_sums_of(ours, BLOCKS);
        for (size_t i = 0; i < shift; i++)
            ck_assert_uint_eq(user[i], 0xEE);
        ck_assert_uint_eq(user[shift + BYTES], 0xEE);
    }
    buffer_free(user, BYTES + BLOCK_SIZE);
}

START_TEST(memory_at_any_address_is_copied_both_ways)
{
    both_ways(any_address_is_copied);
}
END_TEST

static void blocks_of_segments_are_copied(void)
{
    unsigned char *user = buffer_new(BYTES);
    struct cursor cursor;
    pattern_fill(user, BYTES, 2, 0);
    const struct iovec whole[] = {{user, 0}, {user, BLOCK_SIZE}, {user, 0}, {user + BLOCK_SIZE, BYTES - BLOCK_SIZE}};
    ck_assert_uint_eq(gather(whole, 4, BLOCKS, &cursor), BLOCKS);
    ck_assert_mem_eq(ours, user, BYTES);
    expect_sums_of(ours, BLOCKS);
    const struct iovec cut[] = {{user, 2 * BLOCK_SIZE + 512},
                                {user + 2 * BLOCK_SIZE + 512, BYTES - 2 * BLOCK_SIZE - 512}};
    ck_assert_uint_eq(gather(cut, 2, BLOCKS, &cursor), 2);
    ck_assert_ptr_eq(cursor.vector, cut);
    ck_assert_uint_eq(cursor.used, 2 * BLOCK_SIZE);
    expect_sums_of(user, 2);
    ck_assert_uint_eq(gather(cut, 1, BLOCKS, &cursor), 2); /* the vector's end */
    buffer_free(user, BYTES);
}

START_TEST(a_vector_is_copied_as_far_as_blocks_lie_in_one_segment)
{
    both_ways(blocks_of_segments_are_copied);
}
END_TEST

static void bad_page_ends_it(void)
{
    unsigned char *user = buffer_new(BYTES);
    pattern_fill(user, BYTES, 3, 0);
    const struct iovec halves[] = {{user, BYTES / 2}, {user + BYTES / 2, BYTES / 2}};
    for (size_t bad = 0; bad < BLOCKS; bad++) {
        struct cursor cursor;
        const size_t good = bad < BLOCKS / 2 ? 0 : BLOCKS / 2;
        ck_assert_int_eq(mprotect(user + bad * BLOCK_SIZE, BLOCK_SIZE, PROT_NONE), 0);
        ck_assert_uint_eq(gather(halves, 2, BLOCKS, &cursor), good);
        ck_assert_int_eq(mprotect(user + bad * BLOCK_SIZE, BLOCK_SIZE, PROT_READ), 0);
        ck_assert_mem_eq(ours, user, good * BLOCK_SIZE);
        expect_sums_of(user, good);
        pattern_fill(ours, BYTES, 3, 0);
        ck_assert_uint_eq(scatter(halves, 2, BLOCKS, &cursor), good);
        ck_assert_int_eq(mprotect(user + bad * BLOCK_SIZE, BLOCK_SIZE, PROT_READ | PROT_WRITE), 0);
        ck_assert_uint_eq((size_t)(cursor.vector - halves) * (BYTES / 2) + cursor.used, good * BLOCK_SIZE);
        ck_assert_uint_eq(gather(halves, 2, BLOCKS, &cursor), BLOCKS);
    }
    buffer_free(user, BYTES);
}

START_TEST(a_bad_page_ends_it_before_the_run_that_has_it)
{
    both_ways(bad_page_ends_it);
}
END_TEST

START_TEST(with_kernel_copies_nothing_is_touched)
{
    const struct iovec bad = {.iov_base = (void *)UINT64_C(0x8000000000000000), .iov_len = BYTES};
    struct cursor cursor;
    config.copy = COPY_KERNEL;
    ck_assert_uint_eq(gather(&bad, 1, BLOCKS, &cursor), 0);
    ck_assert_uint_eq(scatter(&bad, 1, BLOCKS, &cursor), 0);
    ck_assert_uint_eq(cursor.used, 0);
}
END_TEST

/* ---- A caller who changes his buffer meanwhile. ---- */

static _Atomic bool over;

static void *scribble(void *memory)
{
    _Atomic uint64_t *words = memory;
    for (uint64_t i = 0; !atomic_load(&over); i++)
        atomic_fetch_add_explicit(&words[i * 8 % (BYTES / sizeof *words)], i, memory_order_relaxed);
    return NULL;
}

static bool was_changed(unsigned char *user)
{
    _Atomic uint64_t *theirs = (void *)user;
    const uint64_t *copied = (const void *)ours;
    for (size_t i = 0; i < BYTES / sizeof *copied; i++)
        if (atomic_load_explicit(&theirs[i], memory_order_relaxed) != copied[i])
            return true;
    return false;
}

START_TEST(sums_are_of_what_was_stored_while_the_caller_changes_his_bytes)
{
    if (!has_one_pass())
        return;
    enum { ROUNDS = 20000 };
    unsigned char *user = buffer_new(BYTES);
    const struct iovec vector = {.iov_base = user, .iov_len = BYTES};
    pthread_t thread;
    size_t changed = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, scribble, user), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct cursor cursor;
        ck_assert_uint_eq(gather(&vector, 1, BLOCKS, &cursor), BLOCKS);
        expect_sums_of(ours, BLOCKS);
        changed += was_changed(user);
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(changed, 0);
    buffer_free(user, BYTES);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
#if defined(__x86_64__)
        all_variants_copy_and_sum_alike,
#endif
        memory_at_any_address_is_copied_both_ways,
        a_vector_is_copied_as_far_as_blocks_lie_in_one_segment,
        a_bad_page_ends_it_before_the_run_that_has_it,
        with_kernel_copies_nothing_is_touched,
        sums_are_of_what_was_stored_while_the_caller_changes_his_bytes,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "sum_copy", 30, NULL, tests);
}
