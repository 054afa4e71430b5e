/* How many of the requests of one call go to the kernel at a time. */
#include <check.h>

#include "engine/helping.h"
#include "support/support.h"

enum { FD = 7, KIB = 1 << 10 };

/* @return of `count` requests of `size` bytes, each `step` bytes behind the one before, how many are in the first helping. */
static unsigned first_helping(enum request_kind kind, unsigned count, size_t size, int64_t step)
{
    struct helping helping = {0};
    struct file file = {.is_in_memory = false};
    struct request request = {.kind = kind, .length = size, .view.file = &file};

    for (unsigned i = 0; i < count; i++) {
        if (helping_is_complete(&helping, HELPING_AIO, count - i, FD, request.offset))
            return i;
        helping_add(&helping, &request, FD);
        request.offset += step;
    }
    return count;
}

START_TEST(the_device_begins_while_others_are_prepared)
{
    ck_assert_uint_eq(first_helping(REQUEST_WRITE, 16, 4 * KIB, 64 * KIB), HELPING_AIO / (4 * KIB));
    ck_assert_uint_eq(first_helping(REQUEST_READ, 16, 4 * KIB, 64 * KIB), HELPING_AIO / (4 * KIB));
    ck_assert_uint_eq(first_helping(REQUEST_WRITE, 16, 64 * KIB, -64 * KIB), 1);
}
END_TEST

START_TEST(neighbours_stay_together)
{
    ck_assert_uint_eq(first_helping(REQUEST_READ, 16, 4 * KIB, 4 * KIB), 16);
    ck_assert_uint_eq(first_helping(REQUEST_READ, 16, 16 * KIB, 16 * KIB), 16);
    ck_assert_uint_eq(first_helping(REQUEST_READ, 64, 16 * KIB, 16 * KIB), HELPING_MOST / (16 * KIB));
    ck_assert_uint_eq(first_helping(REQUEST_READ, 16, 1024 * KIB, 1024 * KIB), 1);
}
END_TEST

START_TEST(neighbours_that_are_written_go_in_halves)
{
    ck_assert_uint_eq(first_helping(REQUEST_WRITE, 16, 4 * KIB, 4 * KIB), 8);
    ck_assert_uint_eq(first_helping(REQUEST_WRITE, 16, 16 * KIB, 16 * KIB), 8);
    ck_assert_uint_eq(first_helping(REQUEST_WRITE, 8, 4 * KIB, 4 * KIB), 8); /* too little for two */
}
END_TEST

START_TEST(neighbours_are_of_one_file)
{
    struct helping helping = {0};
    struct file file = {.is_in_memory = false};
    const struct request request = {.kind = REQUEST_READ, .length = HELPING_AIO, .view.file = &file};

    helping_add(&helping, &request, FD);
    ck_assert(!helping_is_complete(&helping, HELPING_AIO, 9, FD, HELPING_AIO));
    ck_assert(helping_is_complete(&helping, HELPING_AIO, 9, FD + 1, HELPING_AIO));
}
END_TEST

START_TEST(what_is_not_ours_does_not_count)
{
    ck_assert_uint_eq(first_helping(REQUEST_NONE, 64, 64 * KIB, 0), 64);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *tests[] = {
        the_device_begins_while_others_are_prepared,
        neighbours_stay_together,
        neighbours_that_are_written_go_in_halves,
        neighbours_are_of_one_file,
        what_is_not_ours_does_not_count,
        NULL,
    };
    return support_main(argc, argv, "helping", 20, NULL, tests);
}
