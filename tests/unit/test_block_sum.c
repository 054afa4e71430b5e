/*
 * Checksums of blocks. Maps on disk hold them, so they must never change: known values are written out here, from an XXH3 of
 * another origin (xxhsum -H3 0.8.1).
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "checksum/block_sum.h"
#include "support/support.h"

enum { BLOCKS = 16 };

#define XXH3_OF_ZEROS UINT64_C(0x93d76fe148c689ba)

/* The compiled variants; which of them can run here, block_sum.c decides. */
void block_sums_baseline(void *argument);
void block_sums_avx2(void *argument);
void block_sums_avx512(void *argument);

static unsigned char data[BLOCKS * BLOCK_SIZE + 64] __attribute__((aligned(64)));
static uint64_t sums[BLOCKS], others[BLOCKS];

/* 62 bits of XXH3's 64, combined with the index: what block_sum.h promises, from the two halves of its definition. */
static uint64_t folded(uint64_t xxh3, uint64_t index)
{
    uint64_t sum = xxh3 ^ ((index + 1) * UINT64_C(0x9E3779B97F4A7C15));
    return (sum ^ (sum >> 62)) & ((UINT64_C(1) << 62) - 1);
}

START_TEST(sums_are_xxh3_of_the_block_combined_with_its_index)
{
    static const struct {
        unsigned char byte;
        uint64_t xxh3;
    } known[] = {{0x00, XXH3_OF_ZEROS}, {0xff, 0x074cfac273851dd6}, {0x61, 0x88a30670e919701e}};
    for (int i = 0; i < 3; i++) {
        memset(data, known[i].byte, BLOCK_SIZE);
        ck_assert_uint_eq(block_sum(data, 0), folded(known[i].xxh3, 0));
        ck_assert_uint_eq(block_sum(data, 12345), folded(known[i].xxh3, 12345));
    }
}
END_TEST

START_TEST(known_sums_do_not_change)
{
    memset(data, 0, BLOCK_SIZE);
    ck_assert_uint_eq(block_sum(data, 0), 0xde01658378cf5af);
    ck_assert_uint_eq(block_sum(data, 1), 0x2fb99c93b6527192);
    ck_assert_uint_eq(block_sum(data, (UINT64_C(1) << 38) - 16385), 0x27e7ca8c283c49bb);
}
END_TEST

START_TEST(all_variants_agree)
{
    pattern_fill(data, sizeof data, 1, 0);
    block_sums_baseline(&(struct block_sums){.data = data, .blocks = BLOCKS, .first = 7, .sums = sums});
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        block_sums_avx2(&(struct block_sums){.data = data, .blocks = BLOCKS, .first = 7, .sums = others});
        ck_assert_mem_eq(sums, others, sizeof sums);
    }
    memset(others, 0, sizeof others);
    if (__builtin_cpu_supports("avx512f")) {
        block_sums_avx512(&(struct block_sums){.data = data, .blocks = BLOCKS, .first = 7, .sums = others});
        ck_assert_mem_eq(sums, others, sizeof sums);
    }
#endif
    block_sums(&(struct block_sums){.data = data, .blocks = BLOCKS, .first = 7, .sums = others});
    ck_assert_mem_eq(sums, others, sizeof sums);
}
END_TEST

START_TEST(the_sums_of_a_run_are_those_of_its_blocks)
{
    pattern_fill(data, sizeof data, 2, 0);
    block_sums(&(struct block_sums){.data = data, .blocks = BLOCKS, .first = 100, .sums = sums});
    for (uint64_t i = 0; i < BLOCKS; i++)
        ck_assert_uint_eq(sums[i], block_sum(data + i * BLOCK_SIZE, 100 + i));
}
END_TEST

START_TEST(unaligned_blocks_have_the_same_sums)
{
    unsigned char block[BLOCK_SIZE];
    pattern_fill(block, sizeof block, 3, 0);
    uint64_t sum = block_sum(block, 9);
    for (size_t shift = 0; shift < 64; shift++) {
        memcpy(data + shift, block, BLOCK_SIZE);
        ck_assert_uint_eq(block_sum(data + shift, 9), sum);
    }
}
END_TEST

static int by_value(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static void assert_all_differ(uint64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    for (size_t i = 1; i < count; i++)
        ck_assert_uint_ne(values[i - 1], values[i]);
}

START_TEST(the_same_content_elsewhere_has_another_sum)
{
    enum { PLACES = 10000 };
    static uint64_t found[PLACES + 40];
    size_t count = 0;
    pattern_fill(data, BLOCK_SIZE, 4, 0);
    for (uint64_t index = 0; index < PLACES; index++)
        found[count++] = block_sum(data, index);
    for (unsigned bit = 14; bit < 52; bit++)
        found[count++] = block_sum(data, UINT64_C(1) << bit);
    assert_all_differ(found, count);
}
END_TEST

START_TEST(every_single_bit_makes_another_sum)
{
    static uint64_t found[BLOCK_SIZE * 8 + 1];
    pattern_fill(data, BLOCK_SIZE, 5, 0);
    for (size_t bit = 0; bit < BLOCK_SIZE * 8; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        found[bit] = block_sum(data, 0);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    found[BLOCK_SIZE * 8] = block_sum(data, 0);
    assert_all_differ(found, BLOCK_SIZE * 8 + 1);
}
END_TEST

START_TEST(sums_have_at_most_62_bits_and_use_all_of_them)
{
    uint64_t seen = 0;
    for (uint64_t index = 0; index < 10000; index++)
        seen |= block_sum(data, index);
    ck_assert_uint_eq(seen, (UINT64_C(1) << 62) - 1);
}
END_TEST

/* The index at which XXH3 and the combination cancel out: index + 1 = XXH3 / 0x9E3779B97F4A7C15 modulo 2^64. */
START_TEST(a_sum_is_never_zero)
{
    uint64_t inverse = 1;
    for (int i = 0; i < 6; i++) /* Newton's iteration doubles the correct bits */
        inverse *= 2 - UINT64_C(0x9E3779B97F4A7C15) * inverse;
    memset(data, 0, BLOCK_SIZE);
    uint64_t index = XXH3_OF_ZEROS * inverse - 1;
    ck_assert_uint_eq(folded(XXH3_OF_ZEROS, index), 0);
    ck_assert_uint_ne(block_sum(data, index), 0);
}
END_TEST

/* ---- In the caller's memory. ---- */

static int sum_of_user(const void *user, size_t blocks)
{
    return block_sums_of_user(&(struct block_sums){.data = user, .blocks = blocks, .sums = others});
}

START_TEST(sums_of_the_caller_s_memory_are_the_same)
{
    guard_install();
    pattern_fill(data, sizeof data, 6, 0);
    block_sums(&(struct block_sums){.data = data + 3, .blocks = BLOCKS, .sums = sums});
    ck_assert_int_eq(sum_of_user(data + 3, BLOCKS), 0);
    ck_assert_mem_eq(sums, others, sizeof sums);
}
END_TEST

START_TEST(a_bad_page_anywhere_in_the_caller_s_memory_is_a_fault)
{
    guard_install();
    unsigned char *pages = buffer_new(4 * BLOCK_SIZE);
    for (size_t bad = 0; bad < 4; bad++) {
        ck_assert_int_eq(mprotect(pages + bad * BLOCK_SIZE, BLOCK_SIZE, PROT_NONE), 0);
        ck_assert_int_eq(sum_of_user(pages, 4), -EFAULT);
        ck_assert_int_eq(mprotect(pages + bad * BLOCK_SIZE, BLOCK_SIZE, PROT_READ), 0);
        ck_assert_int_eq(sum_of_user(pages, 4), 0);
    }
    ck_assert_int_eq(sum_of_user(pages + 1, 4), -EFAULT); /* its last byte */
    buffer_free(pages, 4 * BLOCK_SIZE);
}
END_TEST

START_TEST(an_address_that_cannot_be_is_a_fault)
{
    guard_install();
    ck_assert_int_eq(sum_of_user(NULL, 1), -EFAULT);
    ck_assert_int_eq(sum_of_user((void *)UINT64_C(0x8000000000000000), 1), -EFAULT);
    ck_assert_int_eq(sum_of_user((void *)(UINTPTR_MAX - BLOCK_SIZE), 1), -EFAULT);
}
END_TEST

START_TEST(memory_beyond_the_end_of_a_mapped_file_is_a_fault)
{
    guard_install();
    FILE *file = tmpfile();
    ck_assert_int_eq(ftruncate(fileno(file), BLOCK_SIZE), 0);
    void *mapped = mmap(NULL, 2 * BLOCK_SIZE, PROT_READ, MAP_SHARED, fileno(file), 0);
    ck_assert_int_eq(sum_of_user(mapped, 1), 0);
    ck_assert_int_eq(sum_of_user(mapped, 2), -EFAULT);
}
END_TEST

START_TEST(without_the_guard_the_caller_s_memory_is_left_to_copies)
{
    config.copy = COPY_KERNEL;
    ck_assert_int_eq(sum_of_user(data, 1), -EFAULT);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        sums_are_xxh3_of_the_block_combined_with_its_index,
        known_sums_do_not_change,
        all_variants_agree,
        the_sums_of_a_run_are_those_of_its_blocks,
        unaligned_blocks_have_the_same_sums,
        the_same_content_elsewhere_has_another_sum,
        every_single_bit_makes_another_sum,
        sums_have_at_most_62_bits_and_use_all_of_them,
        a_sum_is_never_zero,
        sums_of_the_caller_s_memory_are_the_same,
        a_bad_page_anywhere_in_the_caller_s_memory_is_a_fault,
        an_address_that_cannot_be_is_a_fault,
        memory_beyond_the_end_of_a_mapped_file_is_a_fault,
        without_the_guard_the_caller_s_memory_is_left_to_copies,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "block_sum", 20, NULL, tests);
}
