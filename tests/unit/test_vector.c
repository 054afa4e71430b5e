/* The program's iovec array: copied, checked, cut. What the kernel must judge is left to the kernel. */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "engine/vector.h"
#include "support/support.h"

static struct iovec segments[IOV_MAX + 1];
static char memory[64];
static struct vector vector;

static void fill(int count, size_t length)
{
    for (int i = 0; i < count; i++)
        segments[i] = (struct iovec){memory + i % 64, length};
}

static int begin(int count)
{
    guard_install();
    return vector_begin(&vector, segments, count, false);
}

START_TEST(segments_are_copied_and_summed)
{
    for (int count = 1; count <= IOV_MAX; count = count < 16 ? count + 1 : count * 2) {
        fill(count, 512);
        ck_assert_int_eq(begin(count), 0);
        ck_assert_uint_eq(vector.count, (size_t)count);
        ck_assert_uint_eq(vector.length, (size_t)count * 512);
        ck_assert_mem_eq(vector.segments, segments, (size_t)count * sizeof *segments);
        vector_end(&vector);
    }
}
END_TEST

START_TEST(what_the_program_changes_later_does_not_matter)
{
    for (int count = 1; count <= 100; count += 99) {
        fill(count, 512);
        ck_assert_int_eq(begin(count), 0);
        memset(segments, 0xff, sizeof segments);
        ck_assert_ptr_eq(vector.segments[count - 1].iov_base, memory + (count - 1) % 64);
        ck_assert_uint_eq(vector.segments[count - 1].iov_len, 512);
        vector_end(&vector);
    }
}
END_TEST

START_TEST(a_few_segments_need_no_pages_and_many_give_theirs_back)
{
    fill(IOV_MAX, 512);
    ck_assert_int_eq(begin(VECTOR_INLINE), 0);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    vector_end(&vector);
    ck_assert_int_eq(begin(VECTOR_INLINE + 1), 0);
    ck_assert_uint_eq(pool_pages_taken(), 1);
    vector_end(&vector);
    ck_assert_uint_eq(pool_pages_taken(), 0);
}
END_TEST

START_TEST(no_segments_are_no_bytes)
{
    ck_assert_int_eq(begin(0), 0);
    ck_assert_uint_eq(vector.count, 0);
    ck_assert_uint_eq(vector.length, 0);
    ck_assert_int_eq(vector_begin(&vector, NULL, 0, true), 0);
}
END_TEST

START_TEST(empty_segments_may_be_anywhere)
{
    fill(4, 512);
    segments[0].iov_len = segments[2].iov_len = 0;
    segments[2].iov_base = NULL;
    ck_assert_int_eq(begin(4), 0);
    ck_assert_uint_eq(vector.length, 1024);
}
END_TEST

START_TEST(impossible_counts_are_left_to_the_kernel)
{
    fill(IOV_MAX + 1, 1);
    ck_assert_int_eq(begin(-1), -EINVAL);
    ck_assert_int_eq(begin(INT_MIN), -EINVAL);
    ck_assert_int_eq(begin(IOV_MAX + 1), -EINVAL);
    ck_assert_int_eq(begin(INT_MAX), -EINVAL);
}
END_TEST

START_TEST(an_array_that_cannot_be_read_is_left_to_the_kernel)
{
    guard_install();
    char *pages = buffer_new(4096);
    struct iovec *last = (struct iovec *)(void *)(pages + 4096) - 1;
    *last = (struct iovec){memory, 1};
    ck_assert_int_eq(vector_begin(&vector, last, 1, false), 0);
    ck_assert_int_eq(vector_begin(&vector, last, 2, false), -EINVAL);
    ck_assert_int_eq(vector_begin(&vector, last, 100, false), -EINVAL);
    ck_assert_int_eq(vector_begin(&vector, NULL, 1, false), -EINVAL);
    ck_assert_int_eq(vector_begin(&vector, (void *)UINT64_C(0x8000000000000000), 1, false), -EINVAL);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    buffer_free(pages, 4096);
}
END_TEST

START_TEST(impossible_segments_are_left_to_the_kernel)
{
    static const struct iovec bad[] = {
        {memory, SIZE_MAX},
        {memory, (size_t)SSIZE_MAX + 1},
        {memory, SSIZE_MAX},
        {(void *)UINTPTR_MAX, 2},
        {(void *)UINT64_C(0x8000000000000000), 0},
        {(void *)UINT64_C(0xffff800000000000), 512},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int at = 0; at < 12; at += 11) {
            fill(12, 1);
            segments[at] = bad[i];
            ck_assert_int_eq(begin(12), -EINVAL);
            ck_assert_uint_eq(pool_pages_taken(), 0);
        }
}
END_TEST

START_TEST(a_transfer_is_cut_where_the_kernel_cuts_it)
{
    const size_t third = (size_t)1 << 30;
    fill(4, third);
    ck_assert_int_eq(begin(4), 0);
    ck_assert_uint_eq(vector.length, TRANSFER_MOST);
    ck_assert_uint_eq(vector.segments[0].iov_len, third);
    ck_assert_uint_eq(vector.segments[1].iov_len, TRANSFER_MOST - third);
    ck_assert_uint_eq(vector.segments[2].iov_len, 0);
    ck_assert_uint_eq(vector.segments[3].iov_len, 0);
}
END_TEST

START_TEST(a_segment_that_is_too_long_is_cut_and_not_refused)
{
    fill(1, (size_t)1 << 40);
    ck_assert_int_eq(begin(1), 0);
    ck_assert_uint_eq(vector.length, TRANSFER_MOST);
}
END_TEST

START_TEST(without_free_pages_many_segments_must_wait)
{
    static struct extent extents[1024];
    config.pool = config.pool_max = (size_t)2 << 20;
    size_t count = 0;
    while (count < 1024 && pool_take(&extents[count], POOL_PAGE, true) == 0)
        count++;
    fill(VECTOR_INLINE + 1, 1);
    ck_assert_int_eq(vector_begin(&vector, segments, VECTOR_INLINE + 1, true), -EAGAIN);
    ck_assert_int_eq(vector_begin(&vector, segments, VECTOR_INLINE, true), 0);
    if (count > 0)
        pool_give(&extents[0]);
}
END_TEST

START_TEST(addresses_that_no_process_has_are_told)
{
    ck_assert(vector_is_addressable(memory, sizeof memory));
    ck_assert(vector_is_addressable(NULL, 0));
    ck_assert(vector_is_addressable(NULL, (size_t)INTPTR_MAX));
    ck_assert(!vector_is_addressable(NULL, (size_t)INTPTR_MAX + 1));
    ck_assert(!vector_is_addressable(memory, SIZE_MAX));
    ck_assert(!vector_is_addressable((void *)UINTPTR_MAX, 1));
    ck_assert(!vector_is_addressable((void *)UINTPTR_MAX, 0));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        segments_are_copied_and_summed,
        what_the_program_changes_later_does_not_matter,
        a_few_segments_need_no_pages_and_many_give_theirs_back,
        no_segments_are_no_bytes,
        empty_segments_may_be_anywhere,
        impossible_counts_are_left_to_the_kernel,
        an_array_that_cannot_be_read_is_left_to_the_kernel,
        impossible_segments_are_left_to_the_kernel,
        a_transfer_is_cut_where_the_kernel_cuts_it,
        a_segment_that_is_too_long_is_cut_and_not_refused,
        without_free_pages_many_segments_must_wait,
        addresses_that_no_process_has_are_told,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "vector", 20, NULL, tests);
}
