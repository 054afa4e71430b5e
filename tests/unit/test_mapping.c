/*
 * Memory of the store that fails at a touch: its page becomes zeros, what it belongs to is used no more, and nobody dies. Here files are
 * cut off under their mappings; failing disks are in shim/test_store_faults.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "bounce/guard.h"
#include "checksum/announce.h"
#include "checksum/mapping.h"
#include "checksum/region.h"
#include "checksum/session_peers.h"
#include "checksum/store.h"
#include "support/map_fixture.h"
#include "support/support.h"

enum { SUM = 1001 };

static struct map_fixture fixture;
static struct map *const map = &fixture.map;

/* A map of `blocks` blocks, with the guard over it. Messages go to a pipe. */
static int messages[2];

static void set_up(uint64_t blocks)
{
    ck_assert(process_start());
    guard_install();
    map_fixture_new(&fixture, blocks);
    ck_assert_int_eq(pipe2(messages, O_NONBLOCK), 0);
    ck_assert_int_eq(dup2(messages[1], STDERR_FILENO), STDERR_FILENO);
}

/* How many lines have been said? The last one is left in `line`. */
static char line[4096];

static int lines_said(void)
{
    int count = 0;
    ssize_t length = read(messages[0], line, sizeof line - 1);
    line[length < 0 ? 0 : length] = '\0';
    for (const char *at = line; (at = strchr(at, '\n')) != NULL; at++)
        count++;
    return count;
}

static void cut_map_off(off_t size)
{
    ck_assert_int_eq(truncate(map_fixture_map_path(&fixture, map), size), 0);
}

static void cut_store_off(const char *name, off_t size)
{
    ck_assert_int_eq(truncate(path_in(fixture.store, name), size), 0);
}

static uint64_t flags_on_disk(void)
{
    struct map_header header;
    int fd = open(map_fixture_map_path(&fixture, map), O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(pread(fd, &header, sizeof header, 0), sizeof header);
    close(fd);
    return header.flags;
}

/* --- Maps --------------------------------------------------------------------------------------------------------- */

START_TEST(words_that_their_file_no_longer_has_are_unknown_and_the_map_is_broken)
{
    set_up(1);
    struct block_words *words = words_of(map, 0);
    words->current = SUM;
    cut_map_off(2 * FORMAT_PAGE);
    ck_assert_uint_eq(words->current, WORD_UNKNOWN);
    ck_assert(!map_is_usable(map));
}
END_TEST

START_TEST(errno_survives_a_repair)
{
    set_up(1);
    struct block_words *words = words_of(map, 0);
    cut_map_off(2 * FORMAT_PAGE);
    errno = 12345;
    words->pending = SUM;
    ck_assert_int_eq(errno, 12345);
    ck_assert_uint_eq(words->pending, SUM);
}
END_TEST

START_TEST(other_sessions_are_told_that_we_write_without_announcing)
{
    set_up(1);
    struct block_words *words = words_of(map, 0);
    cut_map_off(2 * FORMAT_PAGE);
    words->current = SUM;
    ck_assert_uint_eq(flags_on_disk() & MAP_CHANGED_OUTSIDE, MAP_CHANGED_OUTSIDE);
}
END_TEST

START_TEST(a_header_that_is_gone_takes_nothing_else_with_it)
{
    set_up(1);
    cut_map_off(0);
    ck_assert_uint_eq(map->header->windows, 0); /* of the page of zeros in its place */
    ck_assert(!map_is_usable(map));
    ck_assert(!mapping_store_failed());
    locked_map_close(map, false);
}
END_TEST

START_TEST(a_window_added_later_is_repaired_as_well)
{
    set_up(0);
    ck_assert_int_eq(locked_map_cover(map, REGION_BLOCKS, 1), 0);
    struct block_words *words = words_of(map, REGION_BLOCKS);
    cut_map_off((off_t)window_offset(1));
    words->current = SUM;
    ck_assert(!map_is_usable(map));
    ck_assert_uint_eq(flags_on_disk() & MAP_CHANGED_OUTSIDE, MAP_CHANGED_OUTSIDE);
}
END_TEST

START_TEST(words_beside_the_failed_page_stay_in_the_file)
{
    const uint64_t in_a_page = FORMAT_PAGE / sizeof(struct block_words);
    set_up(2 * in_a_page);
    struct block_words *kept = words_of(map, in_a_page - 1), *lost = words_of(map, in_a_page), on_disk;
    kept->pending = SUM;
    cut_map_off(3 * FORMAT_PAGE);
    lost->pending = WORD_IDLE;
    kept->pending = WORD_IDLE;
    kept->current = SUM + 1;
    int fd = open(map_fixture_map_path(&fixture, map), O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(pread(fd, &on_disk, sizeof on_disk, 3 * FORMAT_PAGE - sizeof on_disk), sizeof on_disk);
    ck_assert_uint_eq(on_disk.pending, WORD_IDLE);
    ck_assert_uint_eq(on_disk.current, SUM + 1);
}
END_TEST

START_TEST(a_request_in_flight_completes_over_a_map_that_breaks)
{
    const uint64_t sums[3] = {SUM, SUM + 1, SUM + 2};
    struct announcement announcement;
    set_up(3);
    announce_open(&announcement, map, 0, 3, FLIGHT_WRITE, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, 0, 2, sums);
    cut_map_off(2 * FORMAT_PAGE);
    announce_sums(&announcement, 2, 1, &sums[2]);
    announce_publish(&announcement, 0, 1);
    announce_withdraw(&announcement, 1, 1);
    announce_forget(&announcement, 2, 1);
    announce_close(&announcement);
    ck_assert(!map_is_usable(map));
    locked_map_close(map, false);
}
END_TEST

START_TEST(a_region_of_a_map_that_breaks_stays_dirty)
{
    struct region_sweep sweep;
    uint64_t cursor = 0;
    set_up(1);
    struct block_words *words = words_of(map, 0);
    atomic_fetch_or(map_region_word(map, 0), REGION_DIRTY);
    ck_assert_uint_eq(region_sweep_open(&sweep, map, &cursor, true), 1);
    cut_map_off(2 * FORMAT_PAGE);
    words->current = SUM; /* never reaches the file */
    region_sweep_close(&sweep, true);
    ck_assert_uint_eq(atomic_load(map_region_word(map, 0)) & REGION_DIRTY, REGION_DIRTY);
}
END_TEST

START_TEST(a_view_that_breaks_changes_nothing_of_the_map)
{
    struct map view = {0};
    set_up(1);
    int fd = open(map_fixture_map_path(&fixture, map), O_RDONLY | O_CLOEXEC);
    const uint64_t length = 2 * FORMAT_PAGE + UNIT_BYTES;
    long address = mapping_make_view(fd, length, &view);
    ck_assert_int_gt(address, 0);
    view.header = (struct map_header *)address;
    cut_map_off(2 * FORMAT_PAGE);
    ck_assert_uint_eq(*(volatile uint64_t *)(address + 2 * FORMAT_PAGE), 0);
    ck_assert(!map_is_usable(&view));
    ck_assert(map_is_usable(map));
    ck_assert_uint_eq(map->header->flags, 0);
    mapping_unmake((void *)address, length);
}
END_TEST

START_TEST(a_broken_map_leaves_others_alone)
{
    struct map_key key;
    struct map other = {0};
    set_up(1);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "other"), &key), 0);
    ck_assert_int_eq(locked_map_open(&other, &key, true), 0);
    struct block_words *words = words_of(map, 0);
    cut_map_off(0);
    words->current = SUM;
    ck_assert(map_is_usable(&other));
    ck_assert_uint_eq(other.header->flags, 0);
    locked_map_close(&other, false);
}
END_TEST

START_TEST(memory_that_is_nobodys_is_not_repaired)
{
    set_up(1);
    int fd = map_fixture_file(&fixture, "short");
    volatile char *page = mmap(NULL, FORMAT_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert(page != MAP_FAILED);
    ck_assert(!guard_repair((void *)page));
    locked_map_close(map, false);
    ck_assert(!guard_repair((void *)map));
}
END_TEST

/* --- What all maps depend on -------------------------------------------------------------------------------------- */

/* Two maps; `failing` memory breaks both, and no other can be opened. */
static struct map second;

static void open_second(void)
{
    struct map_key key;
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "second"), &key), 0);
    ck_assert_int_eq(locked_map_open(&second, &key, true), 0);
}

static void assert_all_broken(void)
{
    struct map_key key;
    struct map third = {0};
    ck_assert(mapping_store_failed());
    ck_assert(!map_is_usable(map));
    ck_assert(!map_is_usable(&second));
    ck_assert_uint_eq(map->header->flags & MAP_CHANGED_OUTSIDE, MAP_CHANGED_OUTSIDE);
    ck_assert_uint_eq(second.header->flags & MAP_CHANGED_OUTSIDE, MAP_CHANGED_OUTSIDE);
    ck_assert_int_eq(map_key_of(map_fixture_file(&fixture, "third"), &key), 0);
    ck_assert_int_eq(locked_map_open(&third, &key, true), -EIO);
    ck_assert_ptr_null(third.header);
    ck_assert(!map_exists(&fixture.key));
    locked_map_close(&second, false);
}

START_TEST(a_session_file_that_fails_breaks_every_map)
{
    set_up(1);
    open_second();
    cut_store_off("sessions/0", 0);
    flight_leave(flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING));
    assert_all_broken();
}
END_TEST

START_TEST(the_shared_page_that_fails_breaks_every_map)
{
    set_up(1);
    open_second();
    cut_store_off("lock", 0);
    ck_assert_uint_eq(store_shared()->slots_high, 0);
    assert_all_broken();
}
END_TEST

static bool have_a_session(struct peer *peer, void *argument)
{
    (void)argument;
    map_fixture_reopen(&fixture);
    peer_pause(peer);
    return true;
}

START_TEST(a_peers_session_file_that_fails_breaks_every_map)
{
    struct peer peer;
    set_up(1);
    open_second();
    peer_start(&peer, have_a_session, NULL);
    peer_reach(&peer);
    ck_assert_ptr_nonnull(session_peer(1, false));
    cut_store_off("sessions/1", FORMAT_PAGE);
    flight_others_over(map->id, 0, FLIGHT_BEYOND, false);
    ck_assert_int_eq(ftruncate(fixture.fd, 0), 0);
    session_others_use_map(map->id);
    peer_kill(&peer);
    assert_all_broken();
}
END_TEST

START_TEST(a_forked_child_starts_with_a_store_that_works)
{
    struct peer peer;
    set_up(1);
    cut_store_off("sessions/0", 0);
    flight_leave(flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING));
    ck_assert(mapping_store_failed());
    peer_start(&peer, have_a_session, NULL);
    peer_reach(&peer);
    peer_continue(&peer);
    peer_end(&peer);
}
END_TEST

/* --- What is said ------------------------------------------------------------------------------------------------- */

START_TEST(it_is_said_once_with_the_store_and_a_remedy)
{
    set_up(1);
    struct block_words *words = words_of(map, 0);
    ck_assert_int_eq(lines_said(), 0);
    cut_map_off(0);
    words->current = SUM;
    cut_store_off("sessions/0", 0);
    flight_leave(flight_enter(map->id, 0, 1, FLIGHT_WRITE, TRANSPORT_BLOCKING));
    ck_assert_int_eq(lines_said(), 1);
    ck_assert_ptr_nonnull(strstr(line, fixture.store));
    ck_assert_ptr_nonnull(strstr(line, "file system"));
}
END_TEST

/* --- Under the lock ----------------------------------------------------------------------------------------------- */

START_TEST(memory_that_fails_under_the_lock_is_repaired)
{
    uint64_t saved;
    set_up(1);
    struct block_words *words = words_of(map, 0);
    cut_map_off(0);
    process_lock(&saved);
    words->current = SUM;
    process_unlock(&saved);
    ck_assert(!map_is_usable(map));
}
END_TEST

/* In a new thread, which has both signals blocked from the beginning. */
static void *touch_under_the_lock(void *words)
{
    uint64_t saved;
    process_lock(&saved);
    ((struct block_words *)words)->current = SUM;
    process_unlock(&saved);
    return NULL;
}

static void in_a_thread_that_blocks(int number, void *(*body)(void *), void *argument)
{
    pthread_t thread;
    uint64_t set = UINT64_C(1) << (number - 1);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, sizeof set);
    ck_assert_int_eq(pthread_create(&thread, NULL, body, argument), 0);
    pthread_join(thread, NULL);
    syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof set);
}

START_TEST(memory_that_fails_under_the_lock_of_a_thread_that_blocks_the_signal_is_repaired)
{
    set_up(1);
    struct block_words *words = words_of(map, 0);
    cut_map_off(0);
    in_a_thread_that_blocks(SIGBUS, touch_under_the_lock, words);
    ck_assert(!map_is_usable(map));
}
END_TEST

/* Cuts the map off, again and again, until it is killed. */
static bool cut_off_for_ever(struct peer *peer, void *path)
{
    const pid_t parent = getppid();
    peer_pause(peer);
    while (getppid() == parent)
        syscall(SYS_truncate, path, 0);
    return true;
}

START_TEST(opening_maps_that_are_cut_off_meanwhile_is_survived)
{
    static char path[FIXTURE_PATH];
    struct peer peer;
    int opened = 0;
    set_up(1);
    snprintf(path, sizeof path, "%s", map_fixture_map_path(&fixture, map));
    peer_start(&peer, cut_off_for_ever, path);
    peer_reach(&peer);
    locked_map_close(map, false);
    peer_continue(&peer);
    for (int i = 0; i < 300; i++) {
        if (locked_map_open(map, &fixture.key, true) != 0)
            continue;
        opened++;
        locked_map_cover(map, 0, 1);
        locked_map_close(map, false);
    }
    peer_kill(&peer);
    ck_assert(!mapping_store_failed());
    printf("%d of 300 were opened\n", opened);
}
END_TEST

static volatile sig_atomic_t handled;
static volatile bool held_when_handled;

static void count_signal(int number)
{
    (void)number;
    handled++;
    held_when_handled = process_holds_signals();
}

static void send_to_ourselves(int number)
{
    syscall(SYS_tgkill, getpid(), gettid(), number);
}

static void handle_both(void)
{
    const struct sigaction action = {.sa_handler = count_signal};
    ck_assert_int_eq(guard_sigaction(SIGSEGV, &action, NULL), 0);
    ck_assert_int_eq(guard_sigaction(SIGBUS, &action, NULL), 0);
}

START_TEST(signals_sent_under_the_lock_wait_until_it_is_released)
{
    uint64_t saved;
    set_up(1);
    handle_both();
    process_lock(&saved);
    send_to_ourselves(SIGSEGV);
    send_to_ourselves(SIGBUS);
    ck_assert_int_eq(handled, 0);
    process_unlock(&saved);
    ck_assert_int_eq(handled, 2);
    ck_assert(!held_when_handled);
}
END_TEST

START_TEST(a_signal_sent_under_the_lock_and_blocked_by_the_program_waits_for_the_program)
{
    uint64_t saved;
    sigset_t set;
    set_up(1);
    handle_both();
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    guard_sigmask(SIG_BLOCK, &set, NULL);
    process_lock(&saved);
    send_to_ourselves(SIGBUS);
    process_unlock(&saved);
    ck_assert_int_eq(handled, 0);
    guard_sigmask(SIG_UNBLOCK, &set, NULL);
    ck_assert_int_eq(handled, 1);
}
END_TEST

START_TEST(other_signals_wait_in_the_kernel_while_the_lock_is_held)
{
    uint64_t saved;
    set_up(1);
    const struct sigaction action = {.sa_handler = count_signal};
    ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
    process_lock(&saved);
    send_to_ourselves(SIGUSR1);
    ck_assert_int_eq(handled, 0);
    process_unlock(&saved);
    usleep(1); /* where ThreadSanitizer delivers signals */
    ck_assert_int_eq(handled, 1);
}
END_TEST

START_TEST(without_the_guard_the_lock_blocks_signals_of_faults_too)
{
    uint64_t saved;
    const struct sigaction action = {.sa_handler = count_signal};
    ck_assert(process_start());
    ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
    process_lock(&saved);
    send_to_ourselves(SIGSEGV);
    ck_assert_int_eq(handled, 0);
    process_unlock(&saved);
    ck_assert_int_eq(handled, 1);
}
END_TEST

/* --- Two at once -------------------------------------------------------------------------------------------------- */

static _Atomic bool stop;

static _Atomic(void *) target;

/* What a handler does for a fault at an address that another thread is about to unmap. */
static void *repair_for_ever(void *nothing)
{
    while (!stop)
        guard_repair(target);
    return nothing;
}

START_TEST(a_repair_never_reaches_what_is_mapped_next_at_the_same_place)
{
    pthread_t thread;
    struct map broken = {0};
    set_up(0);
    int good = map_fixture_file(&fixture, "good");
    ck_assert_int_eq(ftruncate(good, FORMAT_PAGE), 0);
    pthread_create(&thread, NULL, repair_for_ever, NULL);
    for (int i = 0; i < 6000; i++) {
        long page = mapping_make(good, 0, FORMAT_PAGE, &broken);
        ck_assert_int_gt(page, 0);
        target = (void *)page;
        if (i % 2)
            sched_yield();
        mapping_unmake((void *)page, FORMAT_PAGE);
        void *next = mmap((void *)page, FORMAT_PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, good, 0);
        ck_assert_msg(next == (void *)page, "round %d: something is mapped there", i);
        munmap(next, FORMAT_PAGE);
    }
    stop = true;
    pthread_join(thread, NULL);
    ck_assert(broken.broken);
}
END_TEST

/* Nobody else in the process is to be told that there are none left. */
START_TEST(the_program_keeps_half_of_the_mappings_that_it_may_have)
{
    long address = 0;
    unsigned made = 0;
    set_up(1);
    for (; made < 100000 && address >= 0; made++)
        address = mapping_make(fixture.fd, 0, FORMAT_PAGE, NULL);
    ck_assert_int_eq(address, -ENOMEM);
    ck_assert_uint_gt(made, 30000);
    /* Of two kinds in turn, so that the kernel does not make one of them. */
    for (unsigned i = 0; i < 30000; i++)
        ck_assert_ptr_ne(
            mmap(NULL, FORMAT_PAGE, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
            MAP_FAILED);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {words_that_their_file_no_longer_has_are_unknown_and_the_map_is_broken,
                                  errno_survives_a_repair,
                                  other_sessions_are_told_that_we_write_without_announcing,
                                  a_header_that_is_gone_takes_nothing_else_with_it,
                                  a_window_added_later_is_repaired_as_well,
                                  words_beside_the_failed_page_stay_in_the_file,
                                  a_request_in_flight_completes_over_a_map_that_breaks,
                                  a_region_of_a_map_that_breaks_stays_dirty,
                                  a_view_that_breaks_changes_nothing_of_the_map,
                                  a_broken_map_leaves_others_alone,
                                  memory_that_is_nobodys_is_not_repaired,
                                  a_session_file_that_fails_breaks_every_map,
                                  the_shared_page_that_fails_breaks_every_map,
                                  a_peers_session_file_that_fails_breaks_every_map,
                                  a_forked_child_starts_with_a_store_that_works,
                                  it_is_said_once_with_the_store_and_a_remedy,
                                  memory_that_fails_under_the_lock_is_repaired,
                                  memory_that_fails_under_the_lock_of_a_thread_that_blocks_the_signal_is_repaired,
                                  opening_maps_that_are_cut_off_meanwhile_is_survived,
                                  signals_sent_under_the_lock_wait_until_it_is_released,
                                  a_signal_sent_under_the_lock_and_blocked_by_the_program_waits_for_the_program,
                                  other_signals_wait_in_the_kernel_while_the_lock_is_held,
                                  without_the_guard_the_lock_blocks_signals_of_faults_too,
                                  a_repair_never_reaches_what_is_mapped_next_at_the_same_place,
                                  the_program_keeps_half_of_the_mappings_that_it_may_have,
                                  NULL};

    return support_main(argc, argv, "mapping", 60, NULL, tests);
}
