/*
 * Fault-exact copies: at every size, alignment and position of the bad page, what is said to be copied is copied, and
 * nothing else changes; in every situation in which a fault could be fatal.
 */
#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/copy.h"
#include "bounce/guard.h"
#include "support/support.h"

enum { PAGE = 4096, LARGEST = 4 << 20, MARGIN = 64, UNTOUCHED = 0xEE };

/* A 64-bit address whose upper bits are not copies of bit 47: it faults without telling where. */
#define NON_CANONICAL ((unsigned char *)0x8000000000000000)

static void install_guard(void)
{
    ck_assert(process_start());
    guard_install();
    guard_thread();
    ck_assert(guard_is_up());
}

static void choose_kernel_copies(void)
{
    ck_assert(process_start());
    config.copy = COPY_KERNEL;
}

static unsigned char *map_pages(size_t bytes)
{
    unsigned char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(pages, MAP_FAILED);
    return pages;
}

static bool all_untouched(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != UNTOUCHED)
            return false;
    return true;
}

/* @return an address with `good` bytes of memory before it, and none behind. */
static unsigned char *edge_new(size_t good)
{
    unsigned char *pages = map_pages(good + PAGE);
    ck_assert_int_eq(mprotect(pages + good, PAGE, PROT_NONE), 0);
    return pages + good;
}

/* Copy `length` bytes from a place where only `good` of them exist. `to` has MARGIN bytes around it. */
static void expect_source_fault(unsigned char *edge, unsigned char *to, size_t length, size_t good)
{
    size_t said = copy_from_user(to, edge - good, length);
    if (said != good || memcmp(to, edge - good, good) != 0 || !all_untouched(to - MARGIN, MARGIN) ||
        !all_untouched(to + good, length - good < MARGIN ? length - good : MARGIN))
        ck_abort_msg("length %zu, good %zu, destination %p: said %zu", length, good, (void *)to, said);
    memset(to, UNTOUCHED, good);
}

static void expect_destination_fault(unsigned char *edge, const unsigned char *from, size_t length, size_t good)
{
    size_t said = copy_to_user(edge - good, from, length);
    if (said != good || memcmp(edge - good, from, good) != 0 || !all_untouched(edge - good - MARGIN, MARGIN))
        ck_abort_msg("length %zu, good %zu, source %p: said %zu", length, good, (const void *)from, said);
    memset(edge - good, UNTOUCHED, good);
}

START_TEST(every_small_size_stops_at_the_exact_byte)
{
    install_guard();
    enum { SMALL = 4200, ROOM = 3 * PAGE };
    unsigned char *source_edge = edge_new(ROOM), *destination_edge = edge_new(ROOM);
    unsigned char *to = map_pages(ROOM) + MARGIN, *from = map_pages(ROOM);
    pattern_fill(source_edge - ROOM, ROOM, 1, 0);
    pattern_fill(from, ROOM, 2, 0);
    memset(to - MARGIN, UNTOUCHED, ROOM);
    memset(destination_edge - ROOM, UNTOUCHED, ROOM);

    for (size_t length = 1; length <= SMALL; length++) {
        size_t goods[] = {0, 1, 63, 64, 65, length / 2, length - 1, (length * 7919) % length, 4095, 4096};
        for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
            if (goods[i] >= length)
                continue;
            expect_source_fault(source_edge, to + length % MARGIN, length, goods[i]);
            expect_destination_fault(destination_edge, from + length % MARGIN, length, goods[i]);
        }
    }
}
END_TEST

START_TEST(every_alignment_of_both_sides_stops_at_the_exact_byte)
{
    install_guard();
    enum { ROOM = 4 * PAGE, ALIGNMENTS = 64 };
    unsigned char *source_edge = edge_new(ROOM), *destination_edge = edge_new(ROOM);
    unsigned char *to = map_pages(ROOM) + MARGIN, *from = map_pages(ROOM);
    pattern_fill(source_edge - ROOM, ROOM, 1, 0);
    pattern_fill(from, ROOM, 2, 0);
    memset(to - MARGIN, UNTOUCHED, ROOM);
    memset(destination_edge - ROOM, UNTOUCHED, ROOM);

    for (size_t one = 0; one < ALIGNMENTS; one++) {
        for (size_t other = 0; other < ALIGNMENTS; other++) {
            for (size_t base = 0; base <= 2 * PAGE; base += base < 256 ? 64 : base < PAGE ? PAGE - 256 : PAGE) {
                size_t good = base + one;
                expect_source_fault(source_edge, to + other, good + 300, good);
                expect_destination_fault(destination_edge, from + other, good + 300, good);
            }
        }
    }
}
END_TEST

/* Under valgrind a copied megabyte takes a tenth of a second, and there are 30,000 to copy. */
static size_t largest(void)
{
    return getenv("BOUNCEIO_TEST_VALGRIND") ? 16 * PAGE : LARGEST;
}

/* Sizes around every power of two up to 4 MiB: each with the bad page in each of its pages, and with none. */
static size_t sampled_sizes(size_t sizes[static 64])
{
    size_t count = 0;
    for (size_t power = 2 * PAGE; power <= largest(); power *= 2) {
        sizes[count++] = power - 1;
        sizes[count++] = power;
        if (power < largest())
            sizes[count++] = power + 1;
    }
    return count;
}

/* Position of the first bad byte in a range that begins `lead` bytes into its first page. */
static size_t good_before(size_t page, size_t lead, size_t length)
{
    size_t good = page == 0 ? 0 : page * PAGE - lead;
    return good < length ? good : length;
}

START_TEST(a_bad_source_page_at_every_position_of_large_copies)
{
    install_guard();
    unsigned char *source = map_pages(LARGEST + 2 * PAGE), *to = map_pages(LARGEST + PAGE) + MARGIN;
    size_t sizes[64], count = sampled_sizes(sizes);
    pattern_fill(source, LARGEST + 2 * PAGE, 1, 0);

    for (size_t i = 0; i < count; i++) {
        size_t lead = i * 37 % 64;
        for (size_t page = 0; page * PAGE < sizes[i] + lead; page++) {
            size_t good = good_before(page, lead, sizes[i]);
            memset(to + good, UNTOUCHED, MARGIN);
            ck_assert_int_eq(mprotect(source + page * PAGE, PAGE, PROT_NONE), 0);
            size_t said = copy_from_user(to, source + lead, sizes[i]);
            ck_assert_int_eq(mprotect(source + page * PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
            ck_assert_uint_eq(said, good);
            ck_assert(all_untouched(to + good, MARGIN));
            /* Whole comparisons of every copy would take minutes: the last page of each, and all of the last copy. */
            size_t checked = good < PAGE ? good : PAGE;
            ck_assert_int_eq(memcmp(to + good - checked, source + lead + good - checked, checked), 0);
        }
        ck_assert_uint_eq(copy_from_user(to, source + lead, sizes[i]), sizes[i]);
        ck_assert_int_eq(memcmp(to, source + lead, sizes[i]), 0);
    }
}
END_TEST

START_TEST(a_bad_destination_page_at_every_position_of_large_copies)
{
    install_guard();
    unsigned char *to = map_pages(LARGEST + 2 * PAGE), *from = map_pages(LARGEST + PAGE);
    size_t sizes[64], count = sampled_sizes(sizes);
    pattern_fill(from, LARGEST + PAGE, 2, 0);

    for (size_t i = 0; i < count; i++) {
        size_t lead = i * 29 % 64;
        for (size_t page = 0; page * PAGE < sizes[i] + lead; page++) {
            size_t good = good_before(page, lead, sizes[i]);
            unsigned char *bad = to + page * PAGE;
            memset(bad, UNTOUCHED, 2 * PAGE);
            ck_assert_int_eq(mprotect(bad, PAGE, PROT_READ), 0);
            ck_assert_uint_eq(copy_to_user(to + lead, from, sizes[i]), good);
            ck_assert_int_eq(mprotect(bad, PAGE, PROT_READ | PROT_WRITE), 0);
            ck_assert(all_untouched(bad, 2 * PAGE));
            size_t checked = good < PAGE ? good : PAGE;
            ck_assert_int_eq(memcmp(to + lead + good - checked, from + good - checked, checked), 0);
        }
        ck_assert_uint_eq(copy_to_user(to + lead, from, sizes[i]), sizes[i]);
        ck_assert_int_eq(memcmp(to + lead, from, sizes[i]), 0);
    }
}
END_TEST

/*
 * Copies each way that meet a fault in their second page, twice; run in every situation below. Without assertions: libcheck's
 * take locks that a handler may find taken.
 */
static bool faults_are_survived(void)
{
    unsigned char mine[2 * PAGE];
    unsigned char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool good = pages != MAP_FAILED && mprotect(pages + PAGE, PAGE, PROT_NONE) == 0;
    if (!good)
        return false;
    pattern_fill(pages, PAGE, 3, 0);
    for (int round = 0; round < 2; round++) {
        good = good && copy_from_user(mine, pages, 2 * PAGE) == PAGE && pattern_check(mine, PAGE, 3, 0) == PAGE;
        good = good && copy_to_user(pages, mine, 2 * PAGE) == PAGE;
    }
    munmap(pages, 2 * PAGE);
    return good;
}

START_TEST(a_fault_leaves_nothing_armed_and_works_twice_in_a_row)
{
    install_guard();
    ck_assert(faults_are_survived());
}
END_TEST

static void *block_everything_and_fault(void *survived)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* really: this program's calls are not wrapped */
    return faults_are_survived() ? survived : NULL;
}

START_TEST(a_thread_that_has_blocked_every_signal_survives_a_bad_pointer)
{
    install_guard();
    pthread_t thread;
    static char token;
    ck_assert_int_eq(pthread_create(&thread, NULL, block_everything_and_fault, &token), 0);
    void *survived;
    pthread_join(thread, &survived);
    ck_assert_ptr_nonnull(survived);
}
END_TEST

/* ThreadSanitizer runs handlers late, with every signal really blocked: a bad pointer in one is fatal, and not our doing. */
static bool handlers_may_fault(void)
{
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");
    if (sanitizer == NULL || strcmp(sanitizer, "tsan") != 0)
        return true;
    test_skip("ThreadSanitizer blocks every signal in handlers");
    return false;
}

static volatile int handled;

static void fault_in_handler(int number)
{
    (void)number;
    if (faults_are_survived())
        handled++;
}

/* Raise a signal whose handler has a full mask and these flags. @return whether it survived its faults. */
static bool raise_with(int flags)
{
    struct sigaction action = {.sa_handler = fault_in_handler, .sa_flags = flags};
    sigfillset(&action.sa_mask);
    handled = 0;
    return guard_sigaction(SIGUSR1, &action, NULL) == 0 && raise(SIGUSR1) == 0 && handled == 1;
}

START_TEST(a_handler_with_a_full_mask_survives_a_bad_pointer)
{
    if (!handlers_may_fault())
        return;
    install_guard();
    ck_assert(raise_with(0));
}
END_TEST

static void use_alternate_stack(void)
{
    static unsigned char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    ck_assert_int_eq(sigaltstack(&alternate, NULL), 0);
}

START_TEST(a_handler_on_an_alternate_stack_survives_a_bad_pointer)
{
    if (!handlers_may_fault())
        return;
    install_guard();
    use_alternate_stack();
    ck_assert(raise_with(SA_ONSTACK));
}
END_TEST

static volatile bool survived_beneath;

static void fault_beneath(int number)
{
    (void)number;
    survived_beneath = raise_with(SA_NODEFER);
}

START_TEST(a_handler_that_interrupted_a_handler_survives_a_bad_pointer)
{
    if (!handlers_may_fault())
        return;
    install_guard();
    use_alternate_stack();
    struct sigaction action = {.sa_handler = fault_beneath, .sa_flags = SA_ONSTACK};
    ck_assert_int_eq(guard_sigaction(SIGUSR2, &action, NULL), 0);
    raise(SIGUSR2);
    ck_assert(survived_beneath);
}
END_TEST

START_TEST(an_interrupted_copy_goes_on_after_a_handler_whose_copies_fault)
{
    if (!handlers_may_fault())
        return;
    install_guard();
    static unsigned char mine[1 << 20];
    unsigned char *source = map_pages(sizeof(mine));
    struct itimerval every = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = fault_in_handler};
    ck_assert_int_eq(guard_sigaction(SIGALRM, &action, NULL), 0);
    pattern_fill(source, sizeof(mine), 4, 0);

    handled = 0;
    ck_assert_int_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
    do
        ck_assert_uint_eq(copy_from_user(mine, source, sizeof(mine)), sizeof(mine));
    while (handled < 200);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);

    ck_assert_uint_eq(pattern_check(mine, sizeof(mine), 4, 0), sizeof(mine));
}
END_TEST

static void expect_nothing_copied(unsigned char *bad)
{
    unsigned char mine[300];
    memset(mine, UNTOUCHED, sizeof(mine));
    for (size_t length = 1; length <= sizeof(mine); length++) {
        ck_assert_uint_eq(copy_from_user(mine, bad, length), 0);
        ck_assert_uint_eq(copy_to_user(bad, mine, length), 0);
    }
    ck_assert(all_untouched(mine, sizeof(mine)));
}

START_TEST(a_non_canonical_pointer_copies_nothing)
{
    install_guard();
    expect_nothing_copied(NON_CANONICAL);
    expect_nothing_copied(NON_CANONICAL + 1);
    expect_nothing_copied((unsigned char *)0x0000800000000000 + 17);
}
END_TEST

START_TEST(null_and_addresses_of_the_kernel_copy_nothing)
{
    install_guard();
    expect_nothing_copied(NULL);
    expect_nothing_copied((unsigned char *)0xffff888000000000);
    expect_nothing_copied((unsigned char *)-4096L);
}
END_TEST

START_TEST(memory_of_a_truncated_file_ends_the_copy_where_the_file_ends)
{
    install_guard();
    static unsigned char mine[4 * PAGE];
    int fd = memfd_create("file", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, 4 * PAGE), 0);
    unsigned char *file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(file, MAP_FAILED);
    pattern_fill(file, 4 * PAGE, 5, 0);
    ck_assert_int_eq(ftruncate(fd, 2 * PAGE), 0);

    ck_assert_uint_eq(copy_from_user(mine, file + 5, 3 * PAGE), 2 * PAGE - 5);
    ck_assert_uint_eq(pattern_check(mine, 2 * PAGE - 5, 5, 5), 2 * PAGE - 5);
    ck_assert_uint_eq(copy_to_user(file + 5, mine, 3 * PAGE), 2 * PAGE - 5);
    close(fd);
}
END_TEST

START_TEST(a_read_only_destination_takes_nothing)
{
    install_guard();
    unsigned char mine[300] = {1};
    unsigned char *page = map_pages(PAGE);
    ck_assert_int_eq(mprotect(page, PAGE, PROT_READ), 0);
    ck_assert_uint_eq(copy_to_user(page, mine, sizeof(mine)), 0);
    ck_assert_uint_eq(copy_from_user(mine, page, sizeof(mine)), sizeof(mine));
}
END_TEST

START_TEST(a_copy_of_nothing_touches_nothing)
{
    install_guard();
    ck_assert_uint_eq(copy_from_user(NULL, NULL, 0), 0);
    ck_assert_uint_eq(copy_to_user(NON_CANONICAL, NULL, 0), 0);
}
END_TEST

START_TEST(gathering_joins_the_segments_and_remembers_where_it_stopped)
{
    install_guard();
    unsigned char source[1000], mine[1000];
    pattern_fill(source, sizeof(source), 6, 0);
    struct iovec vector[] = {{source, 10}, {NULL, 0}, {source + 10, 500}, {NON_CANONICAL, 0}, {source + 510, 490}};
    struct cursor cursor = {vector, 5, 0};

    ck_assert_uint_eq(copy_gather(mine, &cursor, 7), 7);
    ck_assert_uint_eq(copy_gather(mine + 7, &cursor, 600), 600);
    ck_assert_uint_eq(copy_gather(mine + 607, &cursor, 1000), 393);
    ck_assert_uint_eq(copy_gather(mine, &cursor, 1), 0);

    ck_assert_uint_eq(pattern_check(mine, sizeof(mine), 6, 0), sizeof(mine));
}
END_TEST

START_TEST(gathering_ends_at_a_bad_segment_and_stays_there)
{
    install_guard();
    unsigned char source[100], mine[300];
    pattern_fill(source, sizeof(source), 7, 0);
    struct iovec vector[] = {{source, 100}, {NON_CANONICAL, 100}, {source, 100}};
    struct cursor cursor = {vector, 3, 0};

    ck_assert_uint_eq(copy_gather(mine, &cursor, 300), 100);
    ck_assert_uint_eq(copy_gather(mine + 100, &cursor, 200), 0);
    ck_assert_uint_eq(cursor.segments, 2);
    ck_assert_uint_eq(cursor.used, 0);
}
END_TEST

START_TEST(scattering_fills_the_segments_and_nothing_between)
{
    install_guard();
    unsigned char from[200], to[300];
    pattern_fill(from, sizeof(from), 8, 0);
    memset(to, UNTOUCHED, sizeof(to));
    struct iovec vector[] = {{to, 50}, {to + 100, 50}, {to + 200, 100}};
    struct cursor cursor = {vector, 3, 0};

    ck_assert_uint_eq(copy_scatter(&cursor, from, 120), 120);
    ck_assert_uint_eq(copy_scatter(&cursor, from + 120, 80), 80);

    ck_assert_uint_eq(pattern_check(to, 50, 8, 0), 50);
    ck_assert(all_untouched(to + 50, 50));
    ck_assert_uint_eq(pattern_check(to + 100, 50, 8, 50), 50);
    ck_assert(all_untouched(to + 150, 50));
    ck_assert_uint_eq(pattern_check(to + 200, 100, 8, 100), 100);
}
END_TEST

START_TEST(scattering_ends_at_a_bad_segment)
{
    install_guard();
    unsigned char from[200] = {1}, to[100];
    struct iovec vector[] = {{to, 100}, {NULL, 100}};
    struct cursor cursor = {vector, 2, 0};
    ck_assert_uint_eq(copy_scatter(&cursor, from, 200), 100);
}
END_TEST

START_TEST(kernel_copies_stop_at_the_exact_byte)
{
    enum { ROOM = 3 * PAGE };
    choose_kernel_copies();
    unsigned char *source_edge = edge_new(ROOM), *destination_edge = edge_new(ROOM);
    unsigned char *to = map_pages(2 * ROOM) + MARGIN, *from = map_pages(2 * ROOM);
    pattern_fill(source_edge - ROOM, ROOM, 1, 0);
    pattern_fill(from, ROOM, 2, 0);
    memset(to - MARGIN, UNTOUCHED, ROOM);
    memset(destination_edge - ROOM, UNTOUCHED, ROOM);

    for (size_t good = 0; good <= 2 * PAGE; good += good % 64 == 1 ? 63 : 1) {
        expect_source_fault(source_edge, to, good + 1, good);
        expect_source_fault(source_edge, to, good + PAGE, good);
        expect_destination_fault(destination_edge, from, good + 1, good);
        expect_destination_fault(destination_edge, from, good + PAGE, good);
    }
    ck_assert(!guard_is_up());
}
END_TEST

START_TEST(kernel_copies_of_bad_pointers_copy_nothing)
{
    choose_kernel_copies();
    expect_nothing_copied(NULL);
    expect_nothing_copied(NON_CANONICAL);
    expect_nothing_copied((unsigned char *)-4096L);
}
END_TEST

/* What a container's system call filter does to programs without CAP_SYS_PTRACE. */
static void refuse_process_vm(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

START_TEST(good_buffers_are_copied_where_a_sandbox_refuses_kernel_copies)
{
    unsigned char from[1000], mine[1000], to[1000];
    choose_kernel_copies();
    pattern_fill(from, sizeof(from), 9, 0);
    refuse_process_vm();
    ck_assert_uint_eq(copy_from_user(mine, from, sizeof(mine)), sizeof(mine));
    ck_assert_uint_eq(copy_to_user(to, mine, sizeof(mine)), sizeof(mine));
    ck_assert_uint_eq(pattern_check(to, sizeof(to), 9, 0), sizeof(to));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        every_small_size_stops_at_the_exact_byte,
        every_alignment_of_both_sides_stops_at_the_exact_byte,
        a_bad_source_page_at_every_position_of_large_copies,
        a_bad_destination_page_at_every_position_of_large_copies,
        a_fault_leaves_nothing_armed_and_works_twice_in_a_row,
        a_thread_that_has_blocked_every_signal_survives_a_bad_pointer,
        a_handler_with_a_full_mask_survives_a_bad_pointer,
        a_handler_on_an_alternate_stack_survives_a_bad_pointer,
        a_handler_that_interrupted_a_handler_survives_a_bad_pointer,
        an_interrupted_copy_goes_on_after_a_handler_whose_copies_fault,
        a_non_canonical_pointer_copies_nothing,
        null_and_addresses_of_the_kernel_copy_nothing,
        memory_of_a_truncated_file_ends_the_copy_where_the_file_ends,
        a_read_only_destination_takes_nothing,
        a_copy_of_nothing_touches_nothing,
        gathering_joins_the_segments_and_remembers_where_it_stopped,
        gathering_ends_at_a_bad_segment_and_stays_there,
        scattering_fills_the_segments_and_nothing_between,
        scattering_ends_at_a_bad_segment,
        kernel_copies_stop_at_the_exact_byte,
        kernel_copies_of_bad_pointers_copy_nothing,
        good_buffers_are_copied_where_a_sandbox_refuses_kernel_copies,
        NULL,
    };
    return support_main(argc, argv, "copy", 60, NULL, tests);
}
