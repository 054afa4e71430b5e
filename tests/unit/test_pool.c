/*
 * The page pool. Every test runs in a child that libcheck forks, so each begins with no pool at all: the arena is wiped
 * on fork.
 */
#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "bounce/pool.h"
#include "support/support.h"

#define MIB ((size_t)1 << 20)

/* The counters are shared with forked children, which the tests are: each counts from where it configured its pool. */
static uint64_t counted_before[STAT_COUNT];

static uint64_t counted(enum stat_counter counter)
{
    return stats_get(counter) - counted_before[counter];
}

static void configure_pool(size_t initial, size_t maximum)
{
    config.pool = config.pool_ready = initial;
    config.pool_max = maximum;
    for (enum stat_counter counter = 0; counter < STAT_COUNT; counter++)
        counted_before[counter] = stats_get(counter);
}

static void build_pool(size_t initial, size_t maximum)
{
    configure_pool(initial, maximum);
    ck_assert_int_eq(pool_prepare(), 0);
}

/* Take extents of `bytes` until there is nothing free. @return how many; they are stored at `extents`. */
static size_t take_all(struct extent *extents, size_t bytes)
{
    size_t count = 0;
    while (pool_take(&extents[count], bytes, true) == 0)
        count++;
    return count;
}

static void give_all(struct extent *extents, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pool_give(&extents[i]);
}

static size_t end_of(const struct extent *extent)
{
    return (size_t)extent->base + (size_t)extent->pages * POOL_PAGE;
}

/* ---- Extents. ---- */

START_TEST(extents_are_aligned_and_long_enough)
{
    static const size_t sizes[] = {1, 512, 4095, 4096, 4097, 65536, 262144, 262145, MIB, 3 * MIB + 1, POOL_EXTENT_MAX};
    build_pool(16 * MIB, 16 * MIB);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct extent extent;
        ck_assert_int_eq(pool_take(&extent, sizes[i], true), 0);
        ck_assert_uint_eq((size_t)extent.base % POOL_PAGE, 0);
        ck_assert_uint_ge((size_t)extent.pages * POOL_PAGE, sizes[i]);
        memset(extent.base, 0x5a, (size_t)extent.pages * POOL_PAGE);
        pool_give(&extent);
        ck_assert_ptr_null(extent.base);
    }
}
END_TEST

static int by_base(const void *left, const void *right)
{
    const struct extent *a = left, *b = right;
    return (a->base > b->base) - (a->base < b->base);
}

START_TEST(extents_of_all_sizes_never_overlap)
{
    enum { COUNT = 400 };
    static struct extent extents[COUNT];
    build_pool(4 * MIB, 1024 * MIB);
    srand(1);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_int_eq(pool_take(&extents[i], 1 + (size_t)rand() % (i % 5 ? 70 * POOL_PAGE : POOL_EXTENT_MAX), false),
                         0);
    qsort(extents, COUNT, sizeof *extents, by_base);
    for (size_t i = 1; i < COUNT; i++)
        ck_assert_uint_le(end_of(&extents[i - 1]), (size_t)extents[i].base);
    give_all(extents, COUNT);
    ck_assert_uint_eq(pool_pages_taken(), 0);
}
END_TEST

START_TEST(a_freed_page_is_the_next_one_taken)
{
    struct extent first, second, again;
    build_pool(2 * MIB, 2 * MIB);
    pool_take(&first, POOL_PAGE, true);
    pool_take(&second, POOL_PAGE, true);
    void *base = first.base;
    pool_give(&first);
    ck_assert_int_eq(pool_take(&again, POOL_PAGE, true), 0);
    ck_assert_ptr_eq(again.base, base);
}
END_TEST

START_TEST(a_run_of_pages_is_found_between_taken_ones)
{
    static struct extent pages[513];
    struct extent run;
    build_pool(2 * MIB, 2 * MIB);
    ck_assert_uint_eq(take_all(pages, POOL_PAGE), 512);
    qsort(pages, 512, sizeof *pages, by_base);
    void *hole = pages[101].base;
    pool_give(&pages[60]); /* too short a hole before it */
    for (size_t i = 101; i < 108; i++)
        pool_give(&pages[i]);
    ck_assert_int_eq(pool_take(&run, 8 * POOL_PAGE, true), -EAGAIN);
    ck_assert_int_eq(pool_take(&run, 7 * POOL_PAGE, true), 0);
    ck_assert_ptr_eq(run.base, hole);
}
END_TEST

START_TEST(a_long_extent_crosses_slab_borders)
{
    struct extent extent, other;
    build_pool(4 * MIB, 4 * MIB);
    ck_assert_int_eq(pool_take(&extent, 4 * MIB, true), 0);
    ck_assert_int_eq(pool_take(&other, POOL_PAGE, true), -EAGAIN);
    memset(extent.base, 1, 4 * MIB);
    pool_give(&extent);
    ck_assert_int_eq(pool_take(&other, POOL_PAGE, true), 0);
}
END_TEST

START_TEST(a_long_extent_that_does_not_fit_leaves_nothing_taken)
{
    struct extent pages[8], extent;
    build_pool(2 * MIB, 2 * MIB);
    for (size_t i = 0; i < 8; i++) /* one page in each word: 256 KiB steps */
        ck_assert_int_eq(pool_take(&pages[i], 64 * POOL_PAGE, true), 0);
    for (size_t i = 0; i < 8; i += 2)
        pool_give(&pages[i]);
    ck_assert_int_eq(pool_take(&extent, 65 * POOL_PAGE, true), -EAGAIN);
    ck_assert_uint_eq(pool_pages_taken(), 4 * 64);
}
END_TEST

START_TEST(nothing_in_an_empty_extent_is_given_back)
{
    struct extent nothing = {0};
    build_pool(2 * MIB, 2 * MIB);
    pool_give(&nothing);
    pool_leak(&nothing);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    ck_assert_uint_eq(counted(STAT_pages_leaked), 0);
}
END_TEST

/* ---- Running out. ---- */

START_TEST(nowait_without_a_pool_is_refused)
{
    struct extent extent;
    ck_assert_int_eq(pool_take(&extent, POOL_PAGE, true), -EAGAIN);
    ck_assert_ptr_null(pool_bad_address());
}
END_TEST

START_TEST(nowait_with_every_page_taken_is_refused)
{
    static struct extent extents[1025];
    struct extent extent;
    build_pool(4 * MIB, 64 * MIB);
    ck_assert_uint_eq(take_all(extents, POOL_PAGE), 1024);
    ck_assert_uint_eq(pool_pages_taken(), 1024);
    pool_give(&extents[700]);
    ck_assert_int_eq(pool_take(&extent, 2 * POOL_PAGE, true), -EAGAIN);
    ck_assert_int_eq(pool_take(&extent, POOL_PAGE, true), 0);
    ck_assert_uint_eq(counted(STAT_pool_grows) + counted(STAT_pool_overflows), 0);
}
END_TEST

START_TEST(nowait_never_gets_a_mapping_of_its_own)
{
    struct extent extent;
    build_pool(16 * MIB, 16 * MIB);
    ck_assert_int_eq(pool_take(&extent, POOL_EXTENT_MAX + 1, true), -EAGAIN);
}
END_TEST

/* Kill the process at any system call but the ones that end it. */
static void allow_no_system_call(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(2);
}

/* Valgrind makes system calls in the program's name, and warns of bad addresses handed to the kernel. */
static bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    if (!preload || !strstr(preload, "vgpreload"))
        return false;
    test_skip("not under valgrind");
    return true;
}

START_TEST(nowait_makes_no_system_call)
{
    if (under_valgrind())
        return;
    pid_t child = fork();
    if (child == 0) {
        static struct extent extents[1025];
        struct extent extent;
        build_pool(4 * MIB, 64 * MIB);
        allow_no_system_call();
        bool good = take_all(extents, POOL_PAGE) == 1024 && pool_take(&extent, 4 * MIB, true) == -EAGAIN &&
                    pool_take(&extent, POOL_EXTENT_MAX + 1, true) == -EAGAIN;
        give_all(extents, 1024);
        syscall(SYS_exit_group, good ? 0 : 1); /* sanitizers do more in _exit() */
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %x", (unsigned)status);
}
END_TEST

START_TEST(a_blocking_take_grows_the_pool)
{
    static struct extent extents[513];
    struct extent extent;
    build_pool(2 * MIB, 8 * MIB);
    ck_assert_uint_eq(take_all(extents, POOL_PAGE), 512);
    ck_assert_int_eq(pool_take(&extent, 4 * MIB, false), 0);
    ck_assert_int_ge(extent.first, 0);
    memset(extent.base, 1, 4 * MIB);
    ck_assert_uint_eq(counted(STAT_pool_grows), 2);
    ck_assert_uint_eq(counted(STAT_pool_overflows), 0);
}
END_TEST

START_TEST(the_initial_pool_is_committed_as_it_is_used_and_not_counted_as_growth)
{
    struct extent extents[8];
    configure_pool(16 * MIB, 64 * MIB);
    config.pool_ready = 6 * MIB;
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pool_prepare(), 0);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    ck_assert_uint_eq(take_all(extents, 2 * MIB), 3);
    for (int i = 3; i < 8; i++)
        ck_assert_int_eq(pool_take(&extents[i], 2 * MIB, false), 0);
    ck_assert_uint_eq(counted(STAT_pool_grows), 0);
}
END_TEST

START_TEST(past_the_maximum_a_request_gets_a_mapping_of_its_own)
{
    static struct extent extents[513];
    struct extent extent;
    build_pool(2 * MIB, 2 * MIB);
    ck_assert_uint_eq(take_all(extents, POOL_PAGE), 512);
    ck_assert_int_eq(pool_take(&extent, 3 * POOL_PAGE, false), 0);
    ck_assert_int_eq(extent.first, -1);
    memset(extent.base, 1, 3 * POOL_PAGE);
    ck_assert_uint_eq(counted(STAT_pool_overflows), 1);

    void *base = extent.base;
    unsigned char resident[3];
    pool_give(&extent);
    ck_assert_int_eq(mincore(base, 3 * POOL_PAGE, resident), -1);
    ck_assert_int_eq(errno, ENOMEM);
}
END_TEST

START_TEST(a_request_longer_than_any_extent_gets_a_mapping_of_its_own)
{
    struct extent extent;
    build_pool(16 * MIB, 16 * MIB);
    ck_assert_int_eq(pool_take(&extent, POOL_EXTENT_MAX + 1, false), 0);
    ck_assert_int_eq(extent.first, -1);
    ck_assert_uint_eq((size_t)extent.pages * POOL_PAGE, POOL_EXTENT_MAX + POOL_PAGE);
    pool_give(&extent);
    ck_assert_int_eq(pool_take(&extent, SIZE_MAX, false), -ENOMEM);
}
END_TEST

/* ---- What is left behind. ---- */

START_TEST(leaked_pages_are_counted_and_never_used_again)
{
    static struct extent extents[513];
    struct extent lost;
    build_pool(2 * MIB, 2 * MIB);
    ck_assert_int_eq(pool_take(&lost, 5 * POOL_PAGE, true), 0);
    pool_leak(&lost);
    ck_assert_ptr_null(lost.base);
    ck_assert_uint_eq(counted(STAT_pages_leaked), 5);
    ck_assert_uint_eq(take_all(extents, POOL_PAGE), 507);
    give_all(extents, 507);
    ck_assert_uint_eq(pool_pages_taken(), 5);
}
END_TEST

START_TEST(the_bad_address_faults_on_reads_and_writes)
{
    if (under_valgrind())
        return;
    build_pool(2 * MIB, 4 * MIB);
    char *bad = pool_bad_address();
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_uint_eq((size_t)bad % POOL_PAGE, 0);
    for (size_t offset = 0; offset < POOL_PAGE; offset += 512) {
        ck_assert_int_eq((int)write(ends[1], bad + offset, 1), -1);
        ck_assert_int_eq(errno, EFAULT);
    }
    ck_assert_int_eq((int)write(ends[1], "x", 1), 1);
    ck_assert_int_eq((int)read(ends[0], bad, 1), -1);
    ck_assert_int_eq(errno, EFAULT);
}
END_TEST

/* ---- Threads. ---- */

enum { THREADS = 8 };

static atomic_uint_least64_t next_stamp = 1;
static atomic_uint broken_stamps;

/* Take an extent, stamp each of its pages, give others a chance, and look whether the stamps are still ours. */
static void stamp_once(unsigned *seed)
{
    struct extent extent;
    size_t limit = rand_r(seed) % 8 ? 20 * POOL_PAGE : POOL_EXTENT_MAX / 2;
    if (pool_take(&extent, 1 + (size_t)rand_r(seed) % limit, rand_r(seed) % 2))
        return;
    uint64_t stamp = atomic_fetch_add(&next_stamp, 1);
    for (size_t page = 0; page < extent.pages; page++)
        *(volatile uint64_t *)((char *)extent.base + page * POOL_PAGE) = stamp;
    if (rand_r(seed) % 4 == 0)
        sched_yield();
    for (size_t page = 0; page < extent.pages; page++)
        if (*(volatile uint64_t *)((char *)extent.base + page * POOL_PAGE) != stamp)
            atomic_fetch_add(&broken_stamps, 1);
    pool_give(&extent);
}

static void *stamp_pages(void *argument)
{
    unsigned seed = *(unsigned *)argument;
    for (int round = 0; round < 20000; round++)
        stamp_once(&seed);
    return NULL;
}

static void run_threads(void *(*body)(void *))
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, body, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

START_TEST(no_page_is_ever_in_two_extents)
{
    build_pool(4 * MIB, 64 * MIB); /* never past the maximum */
    run_threads(stamp_pages);
    ck_assert_uint_eq(atomic_load(&broken_stamps), 0);
    ck_assert_uint_eq(pool_pages_taken(), 0);
}
END_TEST

static pthread_barrier_t together;
static struct extent grown[THREADS][64];

static void *grow_at_once(void *argument)
{
    struct extent *mine = grown[*(unsigned *)argument - 1];
    pthread_barrier_wait(&together);
    pool_prepare();
    for (size_t i = 0; i < 64; i++) {
        pool_take(&mine[i], 64 * POOL_PAGE, false);
        memset(mine[i].base, 1, 64 * POOL_PAGE);
    }
    return NULL;
}

START_TEST(threads_build_and_grow_the_pool_at_the_same_time)
{
    configure_pool(4 * MIB, 256 * MIB);
    pthread_barrier_init(&together, NULL, THREADS);
    run_threads(grow_at_once);
    ck_assert_uint_eq(pool_pages_taken(), (size_t)THREADS * 64 * 64);
    ck_assert_uint_eq(counted(STAT_pool_overflows), 0);
    for (size_t thread = 0; thread < THREADS; thread++)
        give_all(grown[thread], 64);
    ck_assert_uint_eq(pool_pages_taken(), 0);
}
END_TEST

/* ---- Fork. ---- */

/* Run `body` in a child. @return its exit status, or -1 when it died. */
static int in_child(int (*body)(struct extent *), struct extent *inherited)
{
    pid_t child = fork();
    if (child == 0)
        _exit(body(inherited));
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int take_nowait_then_blocking(struct extent *inherited)
{
    struct extent extent;
    (void)inherited;
    if (pool_take(&extent, POOL_PAGE, true) != -EAGAIN || pool_take(&extent, MIB, false) != 0)
        return 1;
    memset(extent.base, 2, MIB);
    return pool_pages_taken() == 256 ? 0 : 2;
}

START_TEST(a_forked_child_builds_its_own_pool_at_its_first_blocking_take)
{
    struct extent extent;
    build_pool(4 * MIB, 8 * MIB);
    ck_assert_int_eq(pool_take(&extent, MIB, false), 0);
    memset(extent.base, 1, MIB);
    ck_assert_int_eq(in_child(take_nowait_then_blocking, &extent), 0);
    ck_assert_int_eq(((char *)extent.base)[MIB - 1], 1);
    ck_assert_uint_eq(pool_pages_taken(), 256);
}
END_TEST

static int inherited_memory_is_gone(struct extent *inherited)
{
    unsigned char resident;
    return mincore(inherited->base, POOL_PAGE, &resident) == -1 && errno == ENOMEM ? 0 : 1;
}

START_TEST(a_forked_child_does_not_inherit_pages)
{
    struct extent pooled, mapped;
    build_pool(2 * MIB, 2 * MIB);
    ck_assert_int_eq(pool_take(&pooled, POOL_PAGE, false), 0);
    ck_assert_int_eq(pool_take(&mapped, POOL_EXTENT_MAX + 1, false), 0);
    ck_assert_int_eq(in_child(inherited_memory_is_gone, &pooled), 0);
    ck_assert_int_eq(in_child(inherited_memory_is_gone, &mapped), 0);
}
END_TEST

/* Put something where the parent's extent was, then give that extent back: what is there now must not suffer. */
static int give_inherited(struct extent *inherited)
{
    static struct extent mine[2049];
    if (inherited->first < 0) {
        char *here = mmap(inherited->base, POOL_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        pool_give(inherited);
        unsigned char resident;
        return mincore(here, POOL_PAGE, &resident);
    }
    pool_prepare();
    size_t count = take_all(mine, POOL_PAGE);
    pool_give(inherited);
    return pool_pages_taken() == count ? 0 : 1;
}

START_TEST(an_extent_given_back_by_a_forked_child_is_ignored)
{
    struct extent pooled, mapped;
    build_pool(4 * MIB, 8 * MIB);
    ck_assert_int_eq(pool_take(&pooled, MIB, false), 0);
    ck_assert_int_eq(pool_take(&mapped, POOL_EXTENT_MAX + 1, false), 0);
    ck_assert_int_eq(in_child(give_inherited, &pooled), 0);
    ck_assert_int_eq(in_child(give_inherited, &mapped), 0);
}
END_TEST

/* ---- Scarce address space. ---- */

/* Leave the process `bytes` of address space beyond what it uses now. */
static void limit_address_space(size_t bytes)
{
    size_t pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    ck_assert(statm && fscanf(statm, "%zu", &pages) == 1);
    fclose(statm);
    struct rlimit limit = {.rlim_cur = pages * POOL_PAGE + bytes, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

START_TEST(a_maximum_beyond_the_address_space_is_halved_until_it_fits)
{
    struct extent extent;
    limit_address_space(100 * MIB);
    build_pool(2 * MIB, 1024 * MIB);
    ck_assert_int_eq(pool_take(&extent, MIB, true), 0);
    memset(extent.base, 1, MIB);
}
END_TEST

START_TEST(of_a_limited_address_space_most_is_left_to_the_program)
{
    struct rlimit limit = {.rlim_cur = 1024 * MIB, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    void *most = mmap(NULL, 800 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (most == MAP_FAILED || getenv("BOUNCEIO_TEST_VALGRIND")) {
        limit.rlim_cur = RLIM_INFINITY;
        setrlimit(RLIMIT_AS, &limit);
        test_skip("this program alone has more than the limit, as under a sanitizer or valgrind");
        return;
    }
    munmap(most, 800 * MIB);
    build_pool(2 * MIB, 1024 * MIB);
    ck_assert_ptr_nonnull(pool_bad_address());
    ck_assert_ptr_ne(mmap(NULL, 800 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
}
END_TEST

START_TEST(without_address_space_for_a_pool_requests_get_mappings_of_their_own)
{
    struct extent extent;
    configure_pool(2 * MIB, 1024 * MIB);
    limit_address_space(4 * MIB); /* a slab, its alignment and the bad page are more */
    ck_assert_int_eq(pool_prepare(), -ENOMEM);
    ck_assert_int_eq(pool_take(&extent, POOL_PAGE, true), -EAGAIN);
    ck_assert_int_eq(pool_take(&extent, 16 * POOL_PAGE, false), 0);
    ck_assert_int_eq(extent.first, -1);
    ck_assert_int_eq(pool_take(&extent, 8 * MIB, false), -ENOMEM);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        extents_are_aligned_and_long_enough,
        extents_of_all_sizes_never_overlap,
        a_freed_page_is_the_next_one_taken,
        a_run_of_pages_is_found_between_taken_ones,
        a_long_extent_crosses_slab_borders,
        a_long_extent_that_does_not_fit_leaves_nothing_taken,
        nothing_in_an_empty_extent_is_given_back,
        nowait_without_a_pool_is_refused,
        nowait_with_every_page_taken_is_refused,
        nowait_never_gets_a_mapping_of_its_own,
        nowait_makes_no_system_call,
        a_blocking_take_grows_the_pool,
        the_initial_pool_is_committed_as_it_is_used_and_not_counted_as_growth,
        past_the_maximum_a_request_gets_a_mapping_of_its_own,
        a_request_longer_than_any_extent_gets_a_mapping_of_its_own,
        leaked_pages_are_counted_and_never_used_again,
        the_bad_address_faults_on_reads_and_writes,
        no_page_is_ever_in_two_extents,
        threads_build_and_grow_the_pool_at_the_same_time,
        a_forked_child_builds_its_own_pool_at_its_first_blocking_take,
        a_forked_child_does_not_inherit_pages,
        an_extent_given_back_by_a_forked_child_is_ignored,
        a_maximum_beyond_the_address_space_is_halved_until_it_fits,
        of_a_limited_address_space_most_is_left_to_the_program,
        without_address_space_for_a_pool_requests_get_mappings_of_their_own,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "pool", 60, NULL, tests);
}
