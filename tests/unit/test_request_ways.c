/*
 * Asynchronous requests that are not plain writes and reads at an offset: that must not wait, that append or use the file offset, of buffered
 * numbers; and those that end otherwise than by completion: jumped out of, lost, forked over.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/stats.h"
#include "bounce/pool.h"
#include "checksum/region.h"
#include "checksum/session_peers.h"
#include "checksum/window.h"
#include "engine/report.h"
#include "engine/request.h"
#include "support/request_fixture.h"
#include "support/support.h"

enum { BLOCKS = 16, LENGTH = BLOCKS * BLOCK };

static struct scene scene;
static struct request request;
static char *memory;

/* `blocks` known blocks of pattern 1, and a buffer of pattern 2. */
static void open_scene(int flags, uint64_t blocks)
{
    scene_open(&scene, flags);
    if (blocks > 0)
        scene_fill(&scene, 1, blocks);
    memory = buffer_new(LENGTH);
    pattern_fill(memory, LENGTH, 2, 0);
}

static void check_unknown(uint64_t first, uint64_t end)
{
    for (uint64_t block = first; block < end; block++)
        ck_assert_words(scene.map, block, WORD_UNKNOWN, WORD_IDLE);
}

static void check_known(uint64_t seed, uint64_t first, uint64_t end)
{
    for (uint64_t block = first; block < end; block++)
        ck_assert_words(scene.map, block, pattern_sum(seed, block), WORD_IDLE);
}

/* The only request in flight on the map: kind and transport, as other sessions see them. */
static struct flight_seen only_flight(void)
{
    struct flight_seen seen, found = {.kind = FLIGHT_FREE};
    const struct session_file *self = atomic_load(&session_state->self);
    for (unsigned i = 0; i < SESSION_FLIGHTS; i++)
        if (flight_read(&self->flights[i], &seen) && seen.map_id == scene.map->id) {
            ck_assert_int_eq(found.kind, FLIGHT_FREE);
            found = seen;
        }
    return found;
}

START_TEST(whoever_settles_it_learns_how_a_request_reaches_the_kernel)
{
    static const enum flight_transport transports[] = {TRANSPORT_LIBAIO, TRANSPORT_URING, TRANSPORT_BLOCKING};
    open_scene(O_RDWR, 1);
    int buffered = number_open(scene.fixture.path, O_WRONLY);
    int appending = number_open(scene.fixture.path, O_WRONLY | O_APPEND | O_DIRECT);
    for (int i = 0; i < 3; i++) {
        struct request_call call = writing(memory, BLOCK, 0);
        call.transport = transports[i];
        request_ready(&request, scene.fd, &call);
        ck_assert_int_eq(only_flight().kind, FLIGHT_WRITE);
        ck_assert_int_eq(only_flight().transport, transports[i]);
        request_cancel(&request);
        for (int fd = 0; fd < 2; fd++) {
            request_ready(&request, fd ? buffered : appending, &call);
            ck_assert_int_eq(only_flight().kind, FLIGHT_MUTATOR);
            ck_assert_int_eq(only_flight().transport, transports[i]);
            request_cancel(&request);
        }
    }
    check_known(1, 0, 1);
}
END_TEST

/* ---- without waiting ---- */

/* Take every page there is. */
static void exhaust_pool(void)
{
    static struct extent extents[1 << 16];
    for (int i = 0; pool_take(&extents[i], POOL_PAGE, true) == 0; i++)
        ck_assert_int_lt(i, (1 << 16) - 1);
}

START_TEST(without_a_free_page_nowait_says_so_and_takes_nothing)
{
    open_scene(O_RDWR, BLOCKS);
    exhaust_pool();
    const struct holdings before = holdings_of(&scene);
    const uint64_t refused = stats_get(STAT_nowait_eagain), grown = stats_get(STAT_pool_grows);
    struct request_call calls[] = {writing(memory, BLOCK, 0), reading(memory + 1, BLOCK, 0)};
    for (int i = 0; i < 2; i++) {
        calls[i].flags = RWF_NOWAIT;
        ck_assert_int_eq(request_ask(&request, scene.fd, &calls[i]), -EAGAIN);
        holdings_check(&scene, &before);
    }
    ck_assert_uint_eq(stats_get(STAT_nowait_eagain), refused + 2);
    ck_assert_uint_eq(stats_get(STAT_pool_grows), grown);
    for (int i = 0; i < 2; i++) {
        calls[i].flags = 0;
        ck_assert_int_eq(request_whole(scene.fd, &calls[i]), BLOCK);
    }
}
END_TEST

START_TEST(nowait_makes_the_map_no_longer_and_waits_for_no_disk)
{
    open_scene(O_RDWR, 1);
    const struct holdings before = holdings_of(&scene);
    struct request_call call = writing(memory, BLOCK, (int64_t)(REGION_BLOCKS * BLOCK_SIZE));
    call.flags = RWF_NOWAIT;
    ck_assert(!map_covers(scene.map, REGION_BLOCKS, 1));
    ck_assert_int_eq(request_ask(&request, scene.fd, &call), -EAGAIN);
    ck_assert(!map_covers(scene.map, REGION_BLOCKS, 1));
    holdings_check(&scene, &before);
    /* A region that is clean on disk has to be marked first. */
    struct region_sweep sweep;
    uint64_t cursor = 0;
    ck_assert_uint_gt(region_sweep_open(&sweep, scene.map, &cursor, true), 0);
    region_sweep_close(&sweep, true);
    call.offset = 0;
    ck_assert_int_eq(request_ask(&request, scene.fd, &call), -EAGAIN);
    holdings_check(&scene, &before);
    check_known(1, 0, 1);
}
END_TEST

START_TEST(a_nowait_read_that_is_suspected_is_told_to_come_again)
{
    open_scene(O_RDWR, 4);
    flip_bit_behind(scene.fixture.path, 100, 1);
    const struct holdings before = holdings_of(&scene);
    const uint64_t mismatches = stats_get(STAT_mismatches), refused = stats_get(STAT_nowait_eagain);
    for (int in_place = 0; in_place < 2; in_place++) {
        config.read = in_place ? READ_INPLACE : READ_BOUNCE;
        struct request_call call = reading(memory, 4 * BLOCK, 0);
        call.flags = RWF_NOWAIT;
        request_ready(&request, scene.fd, &call);
        ck_assert_int_eq(request.in_place, in_place);
        ck_assert_int_eq(request.flags, RWF_NOWAIT);
        ck_assert_int_eq(pread(scene.fd, request.data, 4 * BLOCK, 0), 4 * BLOCK); /* it was in memory */
        ck_assert_int_eq(request_complete(&request, 4 * BLOCK), -EAGAIN);
        holdings_check(&scene, &before);
    }
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    ck_assert_uint_eq(stats_get(STAT_nowait_eagain), refused + 2);
}
END_TEST

START_TEST(what_was_done_outside_is_seen_before_a_write_covers_it_up)
{
    open_scene(O_RDWR, 4);
    usleep(150 * 1000); /* our last write is long ago */
    int outside = open(scene.fixture.path, O_WRONLY);
    ck_assert_int_eq(pwrite(outside, memory, BLOCK, BLOCK), BLOCK);
    struct request_call call = writing(memory, BLOCK, 0);
    call.flags = RWF_NOWAIT;
    request_ready(&request, scene.fd, &call); /* which may not look */
    request_cancel(&request);
    ck_assert_uint_eq(atomic_load(&scene.map->header->flags) & MAP_CHANGED_OUTSIDE, 0);
    call.flags = 0;
    request_ready(&request, scene.fd, &call);
    ck_assert_uint_ne(atomic_load(&scene.map->header->flags) & MAP_CHANGED_OUTSIDE, 0);
    request_cancel(&request);
}
END_TEST

START_TEST(a_cancelled_write_does_not_move_the_time_window)
{
    bool first;
    struct stat status;
    open_scene(O_RDWR | O_APPEND, 0);
    int fd = number_open(scene.fixture.path, O_RDWR | O_DIRECT);
    struct request_call fill = writing(memory, 4 * BLOCK, 0), call = writing(memory, BLOCK, 0);
    ck_assert_int_eq(request_whole(fd, &fill), 4 * BLOCK);
    for (int appends = 0; appends < 2; appends++) {
        usleep(100 * 1000); /* many ticks */
        request_ready(&request, appends ? scene.fd : fd, &call);
        ck_assert_int_eq(request_complete(&request, -ECANCELED), -ECANCELED);
        ck_assert_int_eq(fstat(fd, &status), 0);
        int64_t modified = status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec;
        ck_assert(!window_changed_outside(scene.map, modified, FLIGHT_BEYOND, &first));
    }
    check_unknown(0, 1); /* somebody may cancel what has begun */
    check_known(2, 1, 4);
}
END_TEST

/* ---- appends and the file offset ---- */

START_TEST(an_append_makes_everything_from_the_end_of_file_on_unknown)
{
    struct request second;
    open_scene(O_RDWR | O_APPEND, 0);
    int fd = number_open(scene.fixture.path, O_RDWR | O_DIRECT);
    struct request_call fill = writing(memory, 12 * BLOCK, 0), call = writing(memory, BLOCK, 0);
    ck_assert_int_eq(request_whole(fd, &fill), 12 * BLOCK);
    ck_assert_int_eq(ftruncate(fd, 4 * BLOCK), 0);
    request_ready(&request, scene.fd, &call);
    request_ready(&second, scene.fd, &call);
    ck_assert_uint_eq(atomic_load(&scene.map->header->unsettled), 2);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_known(2, 0, 4);
    check_unknown(4, 12); /* the second may land anywhere behind, and others behind it */
    result = request_carry_out(&second, scene.fd);
    request_issued(&second);
    ck_assert_int_eq(request_complete(&second, result), BLOCK);
    check_known(2, 0, 4);
    ck_assert_uint_eq(atomic_load(&scene.map->header->unsettled), 0);
    ck_assert_uint_eq(size_behind(scene.fixture.path), 6 * BLOCK);
}
END_TEST

START_TEST(an_append_without_a_number_left_is_unknown_from_the_end_on)
{
    open_scene(O_RDWR, 4);
    struct request_call call = writing(memory, BLOCK, 0);
    call.flags = RWF_APPEND;
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    number_close(scene.fd);
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
    check_known(1, 0, 4);
    check_unknown(4, 5);
}
END_TEST

static void write_at_file_offset(int64_t seek_to, bool closes)
{
    struct request_call call = writing(memory, BLOCK, TRANSFER_FILE_OFFSET);
    ck_assert_int_eq(lseek(scene.fd, 2 * BLOCK, SEEK_SET), 2 * BLOCK);
    request_ready(&request, scene.fd, &call);
    ck_assert_int_eq(request.offset, TRANSFER_FILE_OFFSET);
    ssize_t result = write(scene.fd, request.data, request.length);
    request_issued(&request);
    if (seek_to >= 0) {
        struct offset_use seek;
        offset_enter_seek(&seek, request.view.offset);
        ck_assert_int_eq(lseek(scene.fd, seek_to, SEEK_SET), seek_to);
        offset_leave(&seek);
    }
    if (closes) {
        number_reuse(scene.fd, "/proc/self/exe", O_RDONLY);
        lseek(scene.fd, 3 * BLOCK, SEEK_SET); /* as if it were the same file's */
    }
    ck_assert_int_eq(request_complete(&request, result), BLOCK);
}

START_TEST(a_write_at_the_file_offset_is_unknown_where_it_can_have_landed)
{
    open_scene(O_RDWR, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    write_at_file_offset(-1, false);
    check_known(1, 0, 2);
    check_unknown(2, 3);
    check_known(1, 3, BLOCKS);
    holdings_check(&scene, &before);
}
END_TEST

START_TEST(a_write_at_a_file_offset_that_was_moved_may_have_landed_anywhere)
{
    open_scene(O_RDWR, BLOCKS);
    write_at_file_offset(8 * BLOCK, false); /* forward, as if by another write */
    check_unknown(0, BLOCKS);
}
END_TEST

START_TEST(a_write_at_the_offset_of_a_number_that_is_gone_may_have_landed_anywhere)
{
    open_scene(O_RDWR, BLOCKS);
    write_at_file_offset(-1, true);
    check_unknown(0, BLOCKS);
}
END_TEST

START_TEST(nobody_is_alone_at_the_file_offset_beside_an_asynchronous_request)
{
    open_scene(O_RDWR, BLOCKS);
    struct offset_use blocking;
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, scene.fd, false), 0);
    ck_assert_int_eq(offset_enter(&blocking, view.offset, false), 0);
    ck_assert(blocking.exclusive);
    struct request_call call = reading(memory, BLOCK, TRANSFER_FILE_OFFSET);
    request_ready(&request, scene.fd, &call); /* does not wait for the other */
    ck_assert(!offset_was_exclusive(&blocking));
    offset_leave(&blocking);
    ck_assert_int_eq(offset_enter(&blocking, view.offset, false), 0);
    ck_assert(!blocking.exclusive);
    offset_leave(&blocking);
    request_cancel(&request);
    fd_view_close(&view);
}
END_TEST

START_TEST(a_read_at_the_file_offset_proves_nothing)
{
    open_scene(O_RDWR, 4);
    flip_bit_behind(scene.fixture.path, BLOCK + 5, 2);
    const uint64_t mismatches = stats_get(STAT_mismatches), unverified = stats_get(STAT_blocks_unverified);
    struct request_call call = reading(memory, 2 * BLOCK, TRANSFER_FILE_OFFSET);
    request_ready(&request, scene.fd, &call);
    ck_assert(!request.in_place);
    ssize_t result = read(scene.fd, request.data, request.length);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK);
    ck_assert_uint_eq(stats_get(STAT_mismatches), mismatches);
    ck_assert_uint_gt(stats_get(STAT_blocks_unverified), unverified);
}
END_TEST

/* ---- buffered numbers ---- */

START_TEST(a_buffered_write_is_a_mutator_and_keeps_its_memory)
{
    open_scene(O_RDWR, 4);
    int fd = number_open(scene.fixture.path, O_WRONLY);
    struct request_call call = writing(memory, 100, BLOCK + 10);
    request_ready(&request, fd, &call);
    ck_assert_int_eq(request.kind, REQUEST_BUFFERED);
    ck_assert(request.keeps_memory);
    ck_assert_uint_eq(pool_pages_taken(), 0);
    ck_assert_uint_eq(atomic_load(&scene.map->header->unsettled), 1);
    struct request_call racing = writing(memory, 2 * BLOCK, 0); /* whose second block cannot be known */
    ck_assert_int_eq(request_whole(scene.fd, &racing), 2 * BLOCK);
    check_unknown(1, 2);
    ck_assert_int_eq(pwrite(fd, memory, 100, BLOCK + 10), 100);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, 100), 100);
    check_known(2, 0, 1);
    check_unknown(1, 2);
    check_known(1, 2, 4);
    ck_assert_uint_eq(atomic_load(&scene.map->header->unsettled), 0);
    request_ready(&request, fd, &call);
    ck_assert_int_eq(request_complete(&request, -EINVAL), -EINVAL);
    check_known(1, 2, 4);
}
END_TEST

/* ---- detection ---- */

START_TEST(a_buffer_changed_in_flight_is_reported_at_completion)
{
    open_scene(O_RDWR, 4);
    config.detect = true;
    const uint64_t unstable = stats_get(STAT_unstable_buffers);
    struct request_call call = writing(memory, 2 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &call), 2 * BLOCK);
    ck_assert_uint_eq(stats_get(STAT_unstable_buffers), unstable);
    request_ready(&request, scene.fd, &call);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    memory[BLOCK + 7] ^= 1;
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK);
    ck_assert_uint_eq(stats_get(STAT_unstable_buffers), unstable + 1);
    check_known(2, 0, 2);
}
END_TEST

/* ---- jumps ---- */

START_TEST(a_jump_out_of_the_preparation_leaves_nothing_behind)
{
    open_scene(O_RDWR, 4);
    const struct holdings before = holdings_of(&scene);
    flip_bit_behind(scene.fixture.path, 2 * BLOCK + 2000, 1);
    report_set_callback(scene_jump_out, NULL);
    struct request_call call = writing(memory, 2 * BLOCK + 512, 0); /* the rest of the last block is read */
    if (setjmp(scene_way_out) == 0) {
        request_ask(&request, scene.fd, &call);
        ck_abort_msg("the damage was not met");
    }
    ck_assert_int_eq(request.kind, REQUEST_NONE);
    const struct holdings after = holdings_of(&scene);
    ck_assert_uint_eq(after.flights, before.flights);
    ck_assert_uint_eq(after.references, before.references);
    ck_assert_uint_eq(after.unsettled, before.unsettled);
    ck_assert_uint_le(after.pages, before.pages + 1); /* the report's own page, in which it was interrupted */
    for (uint64_t block = 0; block < 2; block++)
        ck_assert_uint_eq(words_of(scene.map, block)->current, WORD_UNKNOWN);
    ck_assert_words(scene.map, 3, pattern_sum(1, 3), WORD_IDLE);
}
END_TEST

START_TEST(a_jump_out_of_the_completion_leaves_nothing_behind)
{
    open_scene(O_RDWR, BLOCKS);
    flip_bit_behind(scene.fixture.path, 2 * BLOCK + 2000, 1);
    report_set_callback(scene_jump_out, NULL);
    for (int in_place = 0; in_place < 2; in_place++) {
        const struct holdings before = holdings_of(&scene);
        struct request_call call = reading(memory, in_place ? 4 * BLOCK : LENGTH, 0);
        config.read = in_place ? READ_INPLACE : READ_BOUNCE;
        request_ready(&request, scene.fd, &call);
        ck_assert_int_eq(request.in_place, in_place);
        if (setjmp(scene_way_out) == 0) {
            request_complete(&request, request_carry_out(&request, scene.fd));
            ck_abort_msg("the damage was not met");
        }
        ck_assert_int_eq(request.kind, REQUEST_NONE);
        ck_assert_int_eq(request.told, -EINTR);
        const struct holdings after = holdings_of(&scene);
        ck_assert_uint_eq(after.flights, before.flights);
        ck_assert_uint_eq(after.references, before.references);
        ck_assert_uint_le(after.pages, before.pages + 1);
    }
}
END_TEST

/* ---- other ends ---- */

START_TEST(a_lost_write_is_never_taken_for_another)
{
    open_scene(O_RDWR, 4);
    const struct holdings before = holdings_of(&scene);
    const uint64_t leaked = stats_get(STAT_pages_leaked);
    struct request_call call = writing(memory, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    request_issued(&request);
    request_lose(&request);
    ck_assert_uint_eq(stats_get(STAT_pages_leaked), leaked + 2);
    ck_assert_uint_eq(holdings_of(&scene).pages, before.pages + 2);
    ck_assert_uint_eq(words_of(scene.map, 0)->current, WORD_UNKNOWN);
    /* It may still land, over a later write, which therefore cannot be known. */
    struct request_call later = writing(memory + 8 * BLOCK, 2 * BLOCK, 0), read_call = reading(memory, 4 * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene.fd, &later), 2 * BLOCK);
    for (uint64_t block = 0; block < 2; block++)
        ck_assert_uint_eq(words_of(scene.map, block)->current, WORD_UNKNOWN);
    ck_assert_int_eq(pwrite(scene.fd, memory, 2 * BLOCK, 0), 2 * BLOCK);
    ck_assert_int_eq(request_whole(scene.fd, &read_call), 4 * BLOCK);
    check_known(1, 2, 4);
}
END_TEST

START_TEST(what_lies_under_a_lost_append_or_buffered_write_stays_unknown)
{
    open_scene(O_RDWR, 4);
    int buffered = number_open(scene.fixture.path, O_WRONLY);
    struct request_call append = writing(memory, BLOCK, 0), call = writing(memory, 8 * BLOCK, 0);
    append.flags = RWF_APPEND;
    request_ready(&request, scene.fd, &append);
    request_lose(&request);
    request_ready(&request, buffered, &(struct request_call){.is_write = true, .address = memory, .length = 10});
    request_lose(&request);
    ck_assert_uint_eq(atomic_load(&scene.map->header->unsettled), 2);
    ck_assert_int_eq(request_whole(scene.fd, &call), 8 * BLOCK);
    check_unknown(0, 1);
    check_known(2, 1, 4);
    check_unknown(4, 8);
}
END_TEST

START_TEST(a_lost_read_leaks_its_pages_and_nothing_else)
{
    open_scene(O_RDWR, BLOCKS);
    const struct holdings before = holdings_of(&scene);
    const uint64_t leaked = stats_get(STAT_pages_leaked);
    struct request_call call = reading(memory, LENGTH, 0);
    request_ready(&request, scene.fd, &call);
    request_lose(&request);
    ck_assert_uint_eq(stats_get(STAT_pages_leaked), leaked + BLOCKS);
    struct holdings expected = before;
    expected.pages += BLOCKS;
    holdings_check(&scene, &expected);
}
END_TEST

START_TEST(a_fork_in_between_leaves_a_request_to_its_issuer)
{
    open_scene(O_RDWR, 4);
    struct request_call call = writing(memory, 2 * BLOCK, 0);
    request_ready(&request, scene.fd, &call);
    pid_t child = fork();
    if (child == 0) {
        struct request own;
        struct request_call child_call = writing(memory, 2 * BLOCK, 2 * BLOCK);
        int fd = open(scene.fixture.path, O_RDWR | O_DIRECT);
        fd_opened(fd, O_RDWR | O_DIRECT, false);
        bool good = request_ask(&own, fd, &child_call) == REQUEST_READY &&
                    request_complete(&own, request_carry_out(&own, fd)) == 2 * BLOCK;
        _exit(good ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ssize_t result = request_carry_out(&request, scene.fd);
    request_issued(&request);
    ck_assert_int_eq(request_complete(&request, result), 2 * BLOCK);
    check_known(2, 0, 2);
    ck_assert_uint_ne(words_of(scene.map, 2)->current, pattern_sum(1, 2));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        whoever_settles_it_learns_how_a_request_reaches_the_kernel,
        without_a_free_page_nowait_says_so_and_takes_nothing,
        nowait_makes_the_map_no_longer_and_waits_for_no_disk,
        a_nowait_read_that_is_suspected_is_told_to_come_again,
        what_was_done_outside_is_seen_before_a_write_covers_it_up,
        a_cancelled_write_does_not_move_the_time_window,
        an_append_makes_everything_from_the_end_of_file_on_unknown,
        an_append_without_a_number_left_is_unknown_from_the_end_on,
        a_write_at_the_file_offset_is_unknown_where_it_can_have_landed,
        a_write_at_a_file_offset_that_was_moved_may_have_landed_anywhere,
        a_write_at_the_offset_of_a_number_that_is_gone_may_have_landed_anywhere,
        nobody_is_alone_at_the_file_offset_beside_an_asynchronous_request,
        a_read_at_the_file_offset_proves_nothing,
        a_buffered_write_is_a_mutator_and_keeps_its_memory,
        a_buffer_changed_in_flight_is_reported_at_completion,
        a_jump_out_of_the_preparation_leaves_nothing_behind,
        a_jump_out_of_the_completion_leaves_nothing_behind,
        a_lost_write_is_never_taken_for_another,
        what_lies_under_a_lost_append_or_buffered_write_stays_unknown,
        a_lost_read_leaks_its_pages_and_nothing_else,
        a_fork_in_between_leaves_a_request_to_its_issuer,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "request ways", 20, NULL, tests);
}
