/* Slots of requests in flight: taken, found by their tags, given back, and not inherited. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "rings/slot.h"
#include "support/support.h"

START_TEST(a_slot_is_found_by_its_tag_as_long_as_it_is_in_use)
{
    struct slot *slot = slot_take();
    ck_assert_ptr_nonnull(slot);
    ck_assert_ptr_eq(slot_of(slot_tag(slot)), slot);
    ck_assert(slot_is_tag(slot_tag(slot)));
    slot_give(slot);
    ck_assert_ptr_null(slot_of(slot_tag(slot)));
    ck_assert(slot_is_tag(slot_tag(slot)));
}
END_TEST

START_TEST(what_is_no_slot_s_address_is_no_tag)
{
    struct slot *slot = slot_take();
    uint64_t strange[] = {0,
                          1,
                          UINT64_MAX,
                          slot_tag(slot) + 1,
                          slot_tag(slot) + 8,
                          slot_tag(slot) - 64,
                          (uint64_t)(uintptr_t)&slot,
                          slot_tag(slot) + (UINT64_C(1) << 40)};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        ck_assert_ptr_null(slot_of(strange[i]));
        ck_assert(!slot_is_tag(strange[i]));
    }
    slot_give(slot);
}
END_TEST

START_TEST(before_the_first_slot_nothing_is_a_tag)
{
    ck_assert_ptr_null(slot_of(0));
    ck_assert(!slot_is_tag(4096));
    ck_assert_uint_eq(slots_taken(), 0);
}
END_TEST

START_TEST(a_slot_that_was_used_comes_back_as_new)
{
    struct slot *slot = slot_take();
    memset(&slot->role, 0xff, sizeof *slot - offsetof(struct slot, role));
    slot_give(slot);
    struct slot *again = slot_take();
    static const struct slot zero;
    ck_assert_ptr_eq(again, slot);
    ck_assert_int_eq(again->role, SLOT_REQUEST);
    ck_assert_int_eq(again->refusal, SLOT_NO_REFUSAL);
    ck_assert_ptr_null(again->next);
    ck_assert_int_eq(again->request.kind, REQUEST_NONE);
    ck_assert(!again->request.is_fixed && again->request.asked == 0);
    ck_assert_mem_eq(&again->request.view, &zero.request.view, sizeof zero.request.view);
    ck_assert_mem_eq(&again->uring, &zero.uring, offsetof(struct slot_uring, is_short) + sizeof(bool));
    ck_assert(!again->uring.follow.done);
    ck_assert_mem_eq(again->uring.sqe, zero.uring.sqe, sizeof *zero.uring.sqe);
    slot_give(again);
}
END_TEST

START_TEST(there_are_as_many_as_promised_and_all_are_different)
{
    struct slot **all = calloc(SLOT_MAX, sizeof(*all));
    for (unsigned i = 0; i < SLOT_MAX; i++) {
        all[i] = slot_take();
        ck_assert_ptr_nonnull(all[i]);
        ck_assert_ptr_null(all[i]->next);
        all[i]->next = all[i];
    }
    ck_assert_ptr_null(slot_take());
    ck_assert_uint_eq(slots_taken(), SLOT_MAX);
    for (unsigned i = 0; i < SLOT_MAX; i++) {
        ck_assert_ptr_eq(all[i]->next, all[i]);
        slot_give(all[i]);
    }
    ck_assert_uint_eq(slots_taken(), 0);
    ck_assert_ptr_nonnull(slot_take());
    free(all);
}
END_TEST

static void count_and_give(struct slot *slot, void *count)
{
    ++*(unsigned *)count;
    slot_give(slot);
}

START_TEST(every_slot_of_an_owner_is_visited_and_may_be_given_back_there)
{
    static const char owner, another;
    unsigned visited = 0;
    struct slot *slots[10];
    for (int i = 0; i < 10; i++) {
        slots[i] = slot_take();
        slot_own(slots[i], i < 6 ? &owner : &another);
    }
    for (int i = 0; i < 10; i += 2)
        slot_give(slots[i]);
    slot_take(); /* nobody's yet, though somebody's it was */
    slots_each(&owner, count_and_give, &visited);
    ck_assert_uint_eq(visited, 3);
    ck_assert_uint_eq(slots_taken(), 3);
}
END_TEST

START_TEST(a_child_has_none_of_its_parent_s_but_knows_their_tags)
{
    struct slot *slot = slot_take();
    const uint64_t tag = slot_tag(slot);
    int status;
    pid_t child = fork();
    if (child == 0) {
        bool unknown = slots_taken() == 0 && !slot_of(tag) && slot_is_tag(tag);
        struct slot *own = slot_take();
        /* At the same address, and yet another. */
        _exit(unknown && own == slot && slot_of(slot_tag(own)) == own && !slot_of(tag) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_ptr_eq(slot_of(slot_tag(slot)), slot);
    slot_give(slot);
}
END_TEST

enum { THREADS = 4, HELD = 3 };

/* Take some, mark them, find the marks, give them back: two holders of one slot overwrite each other's. */
static void *take_and_give(void *argument)
{
    struct slot *held[HELD];
    const int mark = *(int *)argument;
    for (size_t i = 0; i < 200000; i++) {
        for (int n = 0; n < HELD; n++) {
            held[n] = slot_take();
            if (!held[n] || held[n]->refusal != SLOT_NO_REFUSAL)
                return "not a fresh slot";
            held[n]->refusal = mark;
        }
        for (int n = 0; n < HELD; n++) {
            if (held[n]->refusal != mark || slot_of(slot_tag(held[n])) != held[n])
                return "somebody else has the slot";
            slot_give(held[n]);
        }
    }
    return NULL;
}

START_TEST(threads_never_share_a_slot)
{
    pthread_t threads[THREADS];
    int marks[THREADS];
    for (int i = 0; i < THREADS; i++) {
        marks[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_and_give, &marks[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *trouble;
        pthread_join(threads[i], &trouble);
        ck_assert_msg(trouble == NULL, "%s", (const char *)trouble);
    }
    ck_assert_uint_eq(slots_taken(), 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {before_the_first_slot_nothing_is_a_tag,
                                  a_slot_is_found_by_its_tag_as_long_as_it_is_in_use,
                                  what_is_no_slot_s_address_is_no_tag,
                                  a_slot_that_was_used_comes_back_as_new,
                                  there_are_as_many_as_promised_and_all_are_different,
                                  every_slot_of_an_owner_is_visited_and_may_be_given_back_there,
                                  a_child_has_none_of_its_parent_s_but_knows_their_tags,
                                  threads_never_share_a_slot,
                                  NULL};

    process_start();
    return support_main(argc, argv, "slot", 60, NULL, tests);
}
