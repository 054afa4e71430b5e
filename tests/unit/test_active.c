/*
 * The list of requests under way: which clean-ups a jump runs, and in which order.
 */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "engine/active.h"
#include "support/support.h"

enum { FRAMES = 4, ALTERNATE = 64 << 10 };

/* Records as they would lie in frames of one stack, the outermost at the highest address. */
static struct active frames[FRAMES];
static char ran[FRAMES * 4];
static size_t runs;

static void note(void *name)
{
    ran[runs++] = *(const char *)name;
}

static char names[] = "0123";

static struct active *frame(unsigned depth)
{
    return &frames[FRAMES - 1 - depth];
}

static void open_frames(void)
{
    for (unsigned depth = 0; depth < FRAMES; depth++)
        active_open(frame(depth), note, &names[depth]);
}

START_TEST(a_jump_cleans_up_the_frames_that_it_leaves_innermost_first)
{
    open_frames();
    active_leave((uintptr_t)frame(0)); /* to the outermost frame, which stays */
    ck_assert_str_eq(ran, "321");
    active_leave(ACTIVE_EVERYTHING);
    ck_assert_str_eq(ran, "3210");
}
END_TEST

START_TEST(a_jump_within_the_handler_leaves_requests_alone)
{
    open_frames();
    active_leave((uintptr_t)frame(3) - 64);
    ck_assert_str_eq(ran, "");
}
END_TEST

START_TEST(what_has_been_closed_is_not_cleaned_up)
{
    open_frames();
    active_close(frame(3));
    active_close(frame(2));
    active_leave(ACTIVE_EVERYTHING);
    ck_assert_str_eq(ran, "10");
}
END_TEST

START_TEST(nothing_is_cleaned_up_twice)
{
    open_frames();
    active_leave(ACTIVE_EVERYTHING);
    active_leave(ACTIVE_EVERYTHING);
    ck_assert_str_eq(ran, "3210");
}
END_TEST

static char *use_alternate_stack(void)
{
    char *stack = mmap(NULL, ALTERNATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(stack, MAP_FAILED);
    ck_assert_int_eq(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = ALTERNATE}, NULL), 0);
    return stack;
}

START_TEST(a_jump_off_the_alternate_stack_cleans_up_what_lies_there_and_below_its_target)
{
    char *stack = use_alternate_stack();
    struct active *inner = (struct active *)(stack + ALTERNATE / 2);
    open_frames();
    active_open(inner, note, "i");
    active_leave((uintptr_t)frame(1));
    ck_assert_str_eq(ran, "i32");
}
END_TEST

START_TEST(a_jump_on_the_alternate_stack_leaves_the_other_stack_alone)
{
    char *stack = use_alternate_stack();
    struct active *inner = (struct active *)(stack + ALTERNATE / 4);
    open_frames();
    active_open(inner, note, "i");
    active_leave((uintptr_t)stack + ALTERNATE / 2);
    ck_assert_str_eq(ran, "i");
}
END_TEST

START_TEST(the_empty_alternate_stack_is_left_by_a_jump_to_where_it_begins)
{
    char *stack = use_alternate_stack();
    active_open((struct active *)(stack + ALTERNATE - 64), note, "i");
    active_leave((uintptr_t)stack + ALTERNATE); /* the handler's first frame */
    ck_assert_str_eq(ran, "i");
}
END_TEST

static bool blocks(int number)
{
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    return sigismember(&now, number);
}

static void look_at_mask(void *unused)
{
    (void)unused;
    ck_assert(blocks(SIGALRM));
    ck_assert(!blocks(SIGSEGV));
    ck_assert(!blocks(SIGBUS));
    runs++;
}

START_TEST(no_handler_can_jump_out_of_a_clean_up_but_faults_get_through)
{
    struct active active;
    active_open(&active, look_at_mask, NULL);
    active_leave(ACTIVE_EVERYTHING);
    ck_assert_uint_eq(runs, 1);
    ck_assert(!blocks(SIGALRM));
}
END_TEST

START_TEST(pages_are_given_back_by_a_jump)
{
    struct active_pages pages;
    ck_assert_int_eq(active_take(&pages, 5 * POOL_PAGE, false), 0);
    ck_assert_uint_eq(pool_pages_taken(), 5);
    active_leave(ACTIVE_EVERYTHING);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    ck_assert_ptr_null(pages.extent.base);
}
END_TEST

START_TEST(a_forked_child_has_no_requests_under_way)
{
    open_frames();
    pid_t child = fork();
    if (child == 0) {
        active_leave(ACTIVE_EVERYTHING);
        _exit(runs == 0 ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_jump_cleans_up_the_frames_that_it_leaves_innermost_first,
        a_jump_within_the_handler_leaves_requests_alone,
        what_has_been_closed_is_not_cleaned_up,
        nothing_is_cleaned_up_twice,
        a_jump_off_the_alternate_stack_cleans_up_what_lies_there_and_below_its_target,
        a_jump_on_the_alternate_stack_leaves_the_other_stack_alone,
        the_empty_alternate_stack_is_left_by_a_jump_to_where_it_begins,
        no_handler_can_jump_out_of_a_clean_up_but_faults_get_through,
        pages_are_given_back_by_a_jump,
        a_forked_child_has_no_requests_under_way,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "active", 10, NULL, tests);
}
