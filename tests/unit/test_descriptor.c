/*
 * The descriptor table: what each number is, when it is learned, when it is forgotten, and what it holds meanwhile. No wrapper is
 * at work here: the tests make the system calls and tell the table, as the wrappers do.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/config.h"
#include "base/own.h"
#include "base/process.h"
#include "files/classify.h"
#include "files/descriptor.h"
#include "support/map_fixture.h"
#include "support/support.h"

static struct map_fixture fixture;

/* Open the fixture's file and tell the table. */
static int open_file(int flags)
{
    int fd = open(fixture.path, flags | O_CLOEXEC);
    ck_assert_msg(fd >= 0, "open: %s", strerror(errno));
    fd_opened(fd, flags, false);
    return fd;
}

static int open_direct(void)
{
    if (!config.store || strcmp(config.store, fixture.store) != 0)
        map_fixture_prepare(&fixture);
    return open_file(O_RDWR | O_DIRECT);
}

static void close_number(int fd)
{
    uint64_t closing = fd_closing(fd);
    close(fd);
    fd_closed(fd, closing);
}

static int duplicate(int fd)
{
    int copy = dup(fd);
    fd_duplicated(copy, fd);
    return copy;
}

static enum fd_state state_of(int fd)
{
    return fd_word_state(fd_word(fd));
}

static struct file *file_of(int fd)
{
    return fd_word_file(fd_word(fd));
}

/* What one request would see. The view is closed again. */
static struct fd_view look(int fd)
{
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    struct fd_view seen = view;
    fd_view_close(&view);
    return seen;
}

/* ---- What a number is. ---- */

START_TEST(a_number_never_seen_is_unknown_and_nothing_passes_it)
{
    ck_assert_int_eq(state_of(77), FD_UNKNOWN);
    ck_assert(!fd_reads_pass(77) && !fd_writes_pass(77));
}
END_TEST

START_TEST(a_number_opened_with_o_direct_is_direct_at_once)
{
    int fd = open_direct();
    ck_assert_int_eq(state_of(fd), FD_DIRECT);
    ck_assert(!fd_reads_pass(fd) && !fd_writes_pass(fd));
    ck_assert_ptr_nonnull(file_of(fd));
    ck_assert(file_has_map(file_of(fd)));
    ck_assert_ptr_nonnull(fd_word_offset(fd_word(fd)));
    ck_assert_uint_eq(file_of(fd)->inode, fixture.key.inode);
}
END_TEST

START_TEST(a_view_of_a_direct_number_has_file_offset_and_flags)
{
    static const struct {
        int open;
        unsigned flags;
    } modes[] = {{O_RDONLY, FD_READABLE},
                 {O_WRONLY, FD_WRITABLE},
                 {O_RDWR, FD_READABLE | FD_WRITABLE},
                 {O_WRONLY | O_APPEND, FD_WRITABLE | FD_APPEND}};
    map_fixture_prepare(&fixture);
    for (int i = 0; i < 4; i++) {
        int fd = open_file(modes[i].open | O_DIRECT);
        struct fd_view view = look(fd);
        ck_assert_int_eq(view.state, FD_DIRECT);
        ck_assert_uint_eq(view.flags, modes[i].flags);
        ck_assert_ptr_eq(view.file, file_of(fd));
        ck_assert_ptr_nonnull(view.offset);
        ck_assert(fd_view_is_current(&view));
        ck_assert_int_eq(fd_view_open_at(&view, fd, false), 0);
        ck_assert(view.file == file_of(fd) && !view.offset);
        fd_view_close(&view);
    }
}
END_TEST

START_TEST(a_number_opened_plainly_is_not_looked_at_before_its_first_write)
{
    map_fixture_prepare(&fixture);
    int fd = open_file(O_RDWR);
    ck_assert_int_eq(state_of(fd), FD_NEW);
    ck_assert(fd_reads_pass(fd));
    ck_assert(!fd_writes_pass(fd));
}
END_TEST

START_TEST(a_plain_file_without_a_map_passes_from_its_first_write_on)
{
    map_fixture_prepare(&fixture);
    int fd = open_file(O_RDWR);
    ck_assert_int_eq(look(fd).state, FD_PLAIN);
    ck_assert_int_eq(state_of(fd), FD_FILE);
    ck_assert(fd_reads_pass(fd) && fd_writes_pass(fd));
    ck_assert_int_ne(access(fixture.store, F_OK), 0);
}
END_TEST

START_TEST(a_plain_writable_number_of_a_file_with_a_map_is_watched)
{
    open_direct();
    int fd = open_file(O_RDWR);
    struct fd_view view = look(fd);
    ck_assert_int_eq(view.state, FD_WATCHED);
    ck_assert_uint_eq(view.file->inode, fixture.key.inode);
    ck_assert(fd_reads_pass(fd));
    ck_assert(!fd_writes_pass(fd));
}
END_TEST

START_TEST(a_plain_number_that_cannot_write_is_not_watched)
{
    open_direct();
    int fd = open_file(O_RDONLY);
    ck_assert_int_eq(look(fd).state, FD_PLAIN);
    ck_assert_int_eq(state_of(fd), FD_FILE);
}
END_TEST

START_TEST(a_map_created_later_makes_plain_numbers_of_its_file_watched)
{
    map_fixture_prepare(&fixture);
    int other = map_fixture_file(&fixture, "other"), fd = open_file(O_RDWR);
    /* The store has to be there for its count of maps to be watched. */
    fd_opened(other, O_RDWR | O_DIRECT, false);
    ck_assert_int_eq(look(fd).state, FD_PLAIN);
    ck_assert(fd_writes_pass(fd));
    open_direct();
    ck_assert(!fd_writes_pass(fd));
    ck_assert_int_eq(look(fd).state, FD_WATCHED);
}
END_TEST

static bool open_directly(struct peer *peer, void *argument)
{
    (void)peer, (void)argument;
    return state_of(open_file(O_RDWR | O_DIRECT)) == FD_DIRECT;
}

START_TEST(a_map_created_by_another_process_makes_plain_numbers_of_its_file_watched)
{
    map_fixture_prepare(&fixture);
    int other = map_fixture_file(&fixture, "other"), fd = open_file(O_RDWR);
    fd_opened(other, O_RDWR | O_DIRECT, false);
    ck_assert_int_eq(look(fd).state, FD_PLAIN);
    peer_run(open_directly, NULL);
    ck_assert(!fd_writes_pass(fd));
    ck_assert_int_eq(look(fd).state, FD_WATCHED);
}
END_TEST

START_TEST(what_is_not_a_file_is_plain)
{
    int ends[2], sockets[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    const int numbers[] = {ends[0],          ends[1], sockets[0], open("/", O_RDONLY), open("/dev/null", O_RDWR),
                           open("/", O_PATH)};
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(look(numbers[i]).state, FD_PLAIN);
        ck_assert_int_eq(state_of(numbers[i]), FD_PLAIN);
        ck_assert(fd_reads_pass(numbers[i]) && fd_writes_pass(numbers[i]));
    }
    const int event = eventfd(0, 0); /* whose reads may tell of a completion */
    ck_assert_int_eq(look(event).state, FD_PLAIN);
    ck_assert(state_of(event) == FD_EVENT && fd_writes_pass(event) && !fd_reads_pass(event));
}
END_TEST

START_TEST(a_number_that_is_not_open_passes_and_is_not_remembered)
{
    close_number(500);
    ck_assert_int_eq(look(500).state, FD_PLAIN);
    ck_assert_int_eq(state_of(500), FD_UNKNOWN);
    ck_assert_int_eq(look(-1).state, FD_PLAIN);
    ck_assert_int_eq(look(FD_MAX).state, FD_PLAIN);
}
END_TEST

START_TEST(an_inherited_direct_number_is_learned_at_its_first_use)
{
    map_fixture_prepare(&fixture);
    int fd = open(fixture.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
    struct fd_view view = look(fd);
    ck_assert_int_eq(view.state, FD_DIRECT);
    ck_assert_int_eq(state_of(fd), FD_DIRECT);
    ck_assert_ptr_null(view.offset); /* anybody may share it */
    ck_assert(fd_view_is_current(&view));
}
END_TEST

START_TEST(a_number_received_from_somebody_has_an_offset_that_anybody_may_share)
{
    map_fixture_prepare(&fixture);
    fd_opened(fixture.fd, O_RDWR | O_DIRECT, true);
    ck_assert_int_eq(state_of(fixture.fd), FD_DIRECT);
    ck_assert_ptr_null(fd_word_offset(fd_word(fixture.fd)));
}
END_TEST

START_TEST(who_must_not_wait_learns_no_direct_number)
{
    struct fd_view view;
    int ends[2];
    map_fixture_prepare(&fixture);
    int fd = open(fixture.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    ck_assert_int_eq(fd_view_open(&view, fd, true), -EAGAIN);
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(fd_view_open(&view, ends[0], true), 0);
    fd_view_close(&view);
    look(fd);
    ck_assert_int_eq(fd_view_open(&view, fd, true), 0);
    ck_assert_int_eq(view.state, FD_DIRECT);
    fd_view_close(&view);
}
END_TEST

START_TEST(excluded_files_are_left_alone)
{
    map_fixture_prepare(&fixture);
    config.exclude = "/nowhere/*:*/fil?";
    int fd = open_file(O_RDWR | O_DIRECT);
    ck_assert_int_eq(state_of(fd), FD_EXCLUDED);
    ck_assert_int_eq(look(fd).state, FD_EXCLUDED);
    ck_assert_ptr_null(file_of(fd));
    ck_assert_int_ne(access(fixture.store, F_OK), 0);
}
END_TEST

START_TEST(only_included_files_are_touched)
{
    map_fixture_prepare(&fixture);
    config.include = "*/other";
    ck_assert_int_eq(state_of(open_file(O_RDWR | O_DIRECT)), FD_EXCLUDED);
    config.include = "*/file";
    ck_assert_int_eq(state_of(open_file(O_RDWR | O_DIRECT)), FD_DIRECT);
}
END_TEST

START_TEST(without_a_store_direct_numbers_are_direct_and_have_no_map)
{
    map_fixture_prepare(&fixture);
    config.store = NULL;
    int fd = open_file(O_RDWR | O_DIRECT);
    ck_assert_int_eq(state_of(fd), FD_DIRECT);
    ck_assert(!file_has_map(file_of(fd)));
}
END_TEST

START_TEST(a_block_device_is_direct_and_has_no_map)
{
    char path[64];
    map_fixture_prepare(&fixture);
    if (!block_device_new((size_t)1 << 20, path, sizeof path)) {
        test_skip("no block device");
        return;
    }
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    fd_opened(fd, O_RDWR | O_DIRECT, false);
    ck_assert_int_eq(state_of(fd), FD_DIRECT);
    ck_assert(file_of(fd)->is_device);
    ck_assert(!file_has_map(file_of(fd)));
    ck_assert_int_ne(access(fixture.store, F_OK), 0);
    close_number(fd);
    block_device_free(path);
}
END_TEST

static _Atomic int own_descriptor = -1;

START_TEST(the_shim_s_own_numbers_are_plain_and_not_remembered)
{
    map_fixture_prepare(&fixture);
    int fd = open(fixture.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    ck_assert_int_eq(own_take(fd, &own_descriptor), 0);
    ck_assert_int_eq(look(own_descriptor).state, FD_PLAIN);
    ck_assert_int_eq(state_of(own_descriptor), FD_UNKNOWN);
}
END_TEST

/* ---- Duplicates. ---- */

START_TEST(a_duplicate_shares_file_and_offset)
{
    int fd = open_direct(), copy = duplicate(fd);
    ck_assert_int_eq(state_of(copy), FD_DIRECT);
    ck_assert_ptr_eq(file_of(copy), file_of(fd));
    ck_assert_ptr_eq(fd_word_offset(fd_word(copy)), fd_word_offset(fd_word(fd)));
    ck_assert_uint_eq(file_of(fd)->references, 2);
}
END_TEST

START_TEST(two_opens_share_the_file_and_not_the_offset)
{
    int first = open_direct(), second = open_direct();
    ck_assert_ptr_eq(file_of(first), file_of(second));
    ck_assert_ptr_ne(fd_word_offset(fd_word(first)), fd_word_offset(fd_word(second)));
}
END_TEST

START_TEST(a_duplicate_outlives_the_original)
{
    int fd = open_direct(), copy = duplicate(fd);
    struct file *file = file_of(fd);
    close_number(fd);
    ck_assert_int_eq(look(copy).state, FD_DIRECT);
    ck_assert_ptr_eq(file_of(copy), file);
    ck_assert_uint_eq(file->references, 1);
}
END_TEST

START_TEST(a_duplicate_of_an_unknown_number_is_unknown)
{
    map_fixture_prepare(&fixture);
    int fd = open_direct(), unknown = dup(fd);
    close_number(fd);
    int copy = duplicate(unknown);
    ck_assert_int_eq(state_of(copy), FD_UNKNOWN);
    ck_assert_int_eq(look(copy).state, FD_DIRECT);
}
END_TEST

START_TEST(a_number_that_is_replaced_becomes_what_replaces_it)
{
    int ends[2], fd = open_direct();
    struct file *file = file_of(fd);
    ck_assert_int_eq(pipe(ends), 0);
    look(ends[0]);
    uint64_t replacing = fd_replacing(fd);
    ck_assert_int_eq(dup2(ends[0], fd), fd);
    fd_replaced(fd, ends[0], replacing, true);
    ck_assert_int_eq(state_of(fd), FD_PLAIN);
    ck_assert_uint_eq(file->references, 0);
    replacing = fd_replacing(ends[0]);
    int direct = open_direct();
    ck_assert_int_eq(dup2(direct, ends[0]), ends[0]);
    fd_replaced(ends[0], direct, replacing, true);
    ck_assert_int_eq(state_of(ends[0]), FD_DIRECT);
}
END_TEST

START_TEST(a_number_whose_replacement_failed_is_learned_again)
{
    int fd = open_direct();
    uint64_t replacing = fd_replacing(fd);
    ck_assert_int_eq(dup2(-1, fd), -1);
    fd_replaced(fd, -1, replacing, false);
    ck_assert_int_eq(look(fd).state, FD_DIRECT);
}
END_TEST

/* ---- Closing. ---- */

START_TEST(a_closed_number_is_unknown_and_holds_nothing)
{
    int fd = open_direct();
    struct file *file = file_of(fd);
    struct offset *offset = fd_word_offset(fd_word(fd));
    close_number(fd);
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
    ck_assert_ptr_null(file_of(fd));
    ck_assert_uint_eq(file->references, 0);
    ck_assert(!file->in_use);
    ck_assert_ptr_null(file->map.header);
    ck_assert_uint_eq(offset->references, 0);
}
END_TEST

START_TEST(a_number_being_closed_is_not_learned)
{
    int fd = open_direct();
    uint64_t closing = fd_closing(fd);
    struct fd_view view = look(fd);
    ck_assert_int_eq(view.state, FD_DIRECT); /* it still is */
    ck_assert_int_eq(state_of(fd), FD_CLOSING);
    close(fd);
    fd_closed(fd, closing);
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
}
END_TEST

START_TEST(what_opened_in_between_is_kept_when_the_close_ends)
{
    int fd = open_direct();
    uint64_t closing = fd_closing(fd);
    close(fd);
    /* Another thread is given the number before the closing one comes back. */
    ck_assert_int_eq(open_direct(), fd);
    fd_closed(fd, closing);
    ck_assert_int_eq(state_of(fd), FD_DIRECT);
}
END_TEST

START_TEST(a_second_close_under_way_is_not_ended_by_the_first)
{
    int fd = open_direct();
    uint64_t first = fd_closing(fd);
    close(fd);
    ck_assert_int_eq(open_direct(), fd);
    uint64_t second = fd_closing(fd);
    fd_closed(fd, first);
    ck_assert_int_eq(state_of(fd), FD_CLOSING);
    close(fd);
    fd_closed(fd, second);
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
}
END_TEST

START_TEST(a_request_keeps_its_file_when_the_number_is_closed_under_it)
{
    struct fd_view view;
    int fd = open_direct();
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    ck_assert(fd_view_is_current(&view));
    close_number(fd);
    ck_assert(!fd_view_is_current(&view));
    ck_assert_uint_eq(view.file->references, 1);
    ck_assert(view.file->in_use && file_has_map(view.file));
    struct file *file = view.file;
    fd_view_close(&view);
    ck_assert(file_needs_reaping());
    ck_assert_uint_eq(file->references, 0);
}
END_TEST

START_TEST(a_reused_number_is_not_what_it_was)
{
    struct fd_view view;
    int ends[2], fd = open_direct();
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    close_number(fd);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(ends[0], fd);
    ck_assert_int_eq(look(fd).state, FD_PLAIN);
    ck_assert(!fd_view_is_current(&view));
    fd_view_close(&view);
}
END_TEST

START_TEST(a_number_reopened_for_the_same_file_is_another_entry)
{
    struct fd_view view;
    int fd = open_direct();
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    close_number(fd);
    ck_assert_int_eq(open_direct(), fd);
    ck_assert(!fd_view_is_current(&view));
    fd_view_close(&view);
}
END_TEST

START_TEST(a_range_is_closed_from_end_to_end)
{
    int first = open_direct(), second = open_direct(), third = open_direct(), fourth = open_direct();
    ck_assert_int_eq(fourth - first, 3);
    fd_range_closing((unsigned)second, (unsigned)third);
    ck_assert_int_eq(state_of(second), FD_CLOSING);
    fd_range_closed((unsigned)second, (unsigned)third);
    ck_assert_int_eq(state_of(first), FD_DIRECT);
    ck_assert_int_eq(state_of(second), FD_UNKNOWN);
    ck_assert_int_eq(state_of(third), FD_UNKNOWN);
    ck_assert_int_eq(state_of(fourth), FD_DIRECT);
    fd_range_closing(0, UINT32_MAX);
    fd_range_closed(0, UINT32_MAX);
    ck_assert_int_eq(state_of(first), FD_UNKNOWN);
    ck_assert_int_eq(state_of(fourth), FD_UNKNOWN);
}
END_TEST

/* ---- Status flags. ---- */

START_TEST(o_direct_set_on_a_description_is_seen_by_all_its_numbers)
{
    map_fixture_prepare(&fixture);
    int fd = open_file(O_RDWR), copy = duplicate(fd);
    look(fd);
    look(copy);
    ck_assert_int_eq(fcntl(copy, F_SETFL, O_DIRECT), 0);
    fd_flags_changed();
    ck_assert_int_eq(look(fd).state, FD_DIRECT);
    ck_assert_int_eq(look(copy).state, FD_DIRECT);
}
END_TEST

START_TEST(o_direct_taken_off_leaves_a_watched_number)
{
    int fd = open_direct();
    struct file *file = file_of(fd);
    ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
    fd_flags_changed();
    ck_assert_int_eq(state_of(fd), FD_UNKNOWN);
    ck_assert_int_eq(look(fd).state, FD_WATCHED);
    ck_assert_uint_eq(file->references, 1);
}
END_TEST

START_TEST(a_description_keeps_its_offset_whatever_its_flags)
{
    int fd = open_direct();
    struct offset *offset = fd_word_offset(fd_word(fd));
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT | O_APPEND), 0);
    fd_flags_changed();
    struct fd_view view = look(fd);
    ck_assert_int_eq(view.state, FD_DIRECT);
    ck_assert_uint_eq(view.flags & FD_APPEND, FD_APPEND);
    ck_assert_ptr_eq(view.offset, offset);
    ck_assert_uint_eq(offset->references, 1);
    close_number(fd);
    ck_assert_uint_eq(offset->references, 0);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_number_never_seen_is_unknown_and_nothing_passes_it,
        a_number_opened_with_o_direct_is_direct_at_once,
        a_view_of_a_direct_number_has_file_offset_and_flags,
        a_number_opened_plainly_is_not_looked_at_before_its_first_write,
        a_plain_file_without_a_map_passes_from_its_first_write_on,
        a_plain_writable_number_of_a_file_with_a_map_is_watched,
        a_plain_number_that_cannot_write_is_not_watched,
        a_map_created_later_makes_plain_numbers_of_its_file_watched,
        a_map_created_by_another_process_makes_plain_numbers_of_its_file_watched,
        what_is_not_a_file_is_plain,

        a_number_that_is_not_open_passes_and_is_not_remembered,
        an_inherited_direct_number_is_learned_at_its_first_use,
        a_number_received_from_somebody_has_an_offset_that_anybody_may_share,
        who_must_not_wait_learns_no_direct_number,
        excluded_files_are_left_alone,
        only_included_files_are_touched,
        without_a_store_direct_numbers_are_direct_and_have_no_map,
        a_block_device_is_direct_and_has_no_map,
        the_shim_s_own_numbers_are_plain_and_not_remembered,
        a_duplicate_shares_file_and_offset,
        two_opens_share_the_file_and_not_the_offset,
        a_duplicate_outlives_the_original,
        a_duplicate_of_an_unknown_number_is_unknown,
        a_number_that_is_replaced_becomes_what_replaces_it,
        a_number_whose_replacement_failed_is_learned_again,
        a_closed_number_is_unknown_and_holds_nothing,
        a_number_being_closed_is_not_learned,
        what_opened_in_between_is_kept_when_the_close_ends,
        a_second_close_under_way_is_not_ended_by_the_first,
        a_request_keeps_its_file_when_the_number_is_closed_under_it,
        a_reused_number_is_not_what_it_was,
        a_number_reopened_for_the_same_file_is_another_entry,
        a_range_is_closed_from_end_to_end,
        o_direct_set_on_a_description_is_seen_by_all_its_numbers,
        o_direct_taken_off_leaves_a_watched_number,
        a_description_keeps_its_offset_whatever_its_flags,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "descriptor", 20, NULL, tests);
}
