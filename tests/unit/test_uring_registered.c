/*
 * Registered files and buffers of a ring: what is known of them, by whatever call they were registered, and when that is no longer believed.
 * The ring is a real one; its completions are nobody's business here.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/raw.h"
#include "files/classify.h"
#include "rings/uring_registered.h"
#include "support/map_fixture.h"
#include "support/support.h"

static struct map_fixture fixture;
static struct uring ring;

/* ---- Arranging. ---- */

static void make_ring(unsigned flags)
{
    struct io_uring_params params = {.flags = flags};
    long fd = raw(SYS_io_uring_setup, 4, &params);
    ck_assert_msg(fd >= 0, "io_uring_setup: %s", strerror((int)-fd));
    memset(&ring, 0, sizeof ring);
    ring.fd = (int)fd;
    ring.flags = flags;
    ring.control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(ring.control, MAP_FAILED);
    map_fixture_prepare(&fixture);
}

static int open_file(int flags)
{
    int fd = open(fixture.path, flags | O_CLOEXEC);
    ck_assert_msg(fd >= 0, "open: %s", strerror(errno));
    fd_opened(fd, flags, false);
    return fd;
}

static void close_number(int fd)
{
    uint64_t closing = fd_closing(fd);
    close(fd);
    fd_closed(fd, closing);
}

static void register_numbers(const int *numbers, unsigned count)
{
    long result = uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES, (void *)(uintptr_t)numbers, count);
    ck_assert_int_eq(result, 0);
}

static void register_number(int fd)
{
    register_numbers(&fd, 1);
}

static long update_numbers(unsigned offset, const int *numbers, unsigned count)
{
    struct io_uring_rsrc_update update = {.offset = offset, .data = (uint64_t)(uintptr_t)numbers};
    return uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES_UPDATE, &update, count);
}

/* What one request would see. The view is closed again: `file` is for comparing. */
static struct fd_view see(unsigned index)
{
    struct fd_view view;
    ck_assert_int_eq(uring_view_registered(&ring, &view, index, false), 0);
    struct fd_view seen = view;
    fd_view_close(&view);
    return seen;
}

static uint32_t references(int fd)
{
    return fd_word_file(fd_word(fd))->references;
}

/* ---- Files. ---- */

START_TEST(a_ring_without_registered_files_knows_none)
{
    make_ring(0);
    ck_assert_int_eq(see(0).state, FD_PLAIN);
    ck_assert_int_eq(see(77).state, FD_PLAIN);
}
END_TEST

START_TEST(a_registered_direct_file_is_direct_and_seen_by_its_number)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    struct file *file = fd_word_file(fd_word(fd));
    register_number(fd);
    struct fd_view view = see(0);
    ck_assert_int_eq(view.state, FD_DIRECT);
    ck_assert_int_eq(view.fd, fd);
    ck_assert_ptr_eq(view.file, file);
    ck_assert_uint_eq(view.flags, FD_READABLE | FD_WRITABLE);
    ck_assert(fd_view_is_current(&view));
    ck_assert(uring_registered_is(&ring, 0, &view));
    ck_assert_int_eq(see(1).state, FD_PLAIN);
}
END_TEST

START_TEST(a_registered_file_outlives_its_number)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    struct file *file = fd_word_file(fd_word(fd));
    register_number(fd);
    close_number(fd);
    struct fd_view view = see(0);
    ck_assert_int_eq(view.state, FD_DIRECT);
    ck_assert_ptr_eq(view.file, file);
    ck_assert_int_eq(view.fd, -1);
    ck_assert_uint_eq(file->references, 1);
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_UNREGISTER_FILES, NULL, 0), 0);
    ck_assert_uint_eq(file->references, 0);
}
END_TEST

START_TEST(a_number_that_leads_elsewhere_by_now_is_not_used)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    register_number(fd);
    close_number(fd);
    int other = map_fixture_file(&fixture, "other");
    ck_assert_int_eq(dup2(other, fd), fd);
    fd_opened(fd, O_RDWR, false);
    struct fd_view view = see(0);
    ck_assert_int_eq(view.state, FD_DIRECT);
    ck_assert_int_eq(view.fd, -1);
}
END_TEST

START_TEST(a_number_reopened_with_other_rights_is_not_used)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    register_number(fd);
    close_number(fd);
    ck_assert_int_eq(open_file(O_WRONLY | O_DIRECT), fd);
    ck_assert_int_eq(see(0).state, FD_DIRECT);
    ck_assert_int_eq(see(0).fd, -1);
}
END_TEST

START_TEST(what_is_no_file_is_plain)
{
    make_ring(0);
    int fd = eventfd(0, EFD_CLOEXEC);
    register_number(fd);
    ck_assert_int_eq(see(0).state, FD_PLAIN);
    close(fd);
    /* The slot is an eventfd whatever becomes of the number. */
    ck_assert_int_eq(open_file(O_RDWR | O_DIRECT), fd);
    ck_assert_int_eq(see(0).state, FD_PLAIN);
}
END_TEST

START_TEST(a_plain_file_with_a_map_is_watched)
{
    make_ring(0);
    close_number(open_file(O_RDWR | O_DIRECT));
    int fd = open_file(O_RDWR);
    register_number(fd);
    ck_assert_int_eq(see(0).state, FD_WATCHED);
}
END_TEST

START_TEST(a_plain_file_is_not_believed_any_more_when_maps_have_been_made)
{
    make_ring(0);
    close_number(open_file(O_RDWR | O_DIRECT)); /* so that there is a store */
    int fd = map_fixture_file(&fixture, "buffered");
    register_number(fd);
    struct registered_look look;
    struct uring_registered *table = registered_of(&ring);
    ck_assert_int_eq(registered_read(registered_file(table, 0), &look, false), 0);
    ck_assert_int_eq(fd_word_state(look.known), FD_FILE);
    ck_assert(registered_holds(&ring, table, &look));
    char path[FIXTURE_PATH + 32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int direct = open(path, O_RDWR | O_DIRECT);
    fd_opened(direct, O_RDWR | O_DIRECT, false);
    ck_assert_int_eq(fd_word_state(fd_word(direct)), FD_DIRECT);
    ck_assert(!registered_holds(&ring, table, &look));
}
END_TEST

START_TEST(a_file_is_not_believed_any_more_when_flags_have_changed)
{
    make_ring(0);
    int fd = open_file(O_RDWR);
    register_number(fd);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
    fd_flags_changed();
    struct registered_look look;
    ck_assert_int_eq(registered_read(registered_file(registered_of(&ring), 0), &look, false), 0);
    ck_assert(!registered_holds(&ring, registered_of(&ring), &look));
}
END_TEST

START_TEST(updates_change_only_what_they_name)
{
    make_ring(0);
    int fds[4] = {open_file(O_RDWR | O_DIRECT), -1, open_file(O_RDONLY | O_DIRECT), eventfd(0, EFD_CLOEXEC)};
    register_numbers(fds, 4);
    ck_assert_uint_eq(references(fds[0]), 4);
    int updates[3] = {fds[2], IORING_REGISTER_FILES_SKIP, -1};
    ck_assert_int_eq(update_numbers(0, updates, 3), 3);
    ck_assert_uint_eq(see(0).flags, FD_READABLE);
    ck_assert_int_eq(see(1).state, FD_PLAIN);
    ck_assert_int_eq(see(2).state, FD_PLAIN);
    ck_assert_int_eq(update_numbers(1, &fds[0], 1), 1);
    ck_assert_uint_eq(see(1).flags, FD_READABLE | FD_WRITABLE);
    ck_assert_uint_eq(see(0).flags, FD_READABLE);
}
END_TEST

START_TEST(a_partial_update_is_learned_as_far_as_it_went)
{
    make_ring(0);
    int direct = open_file(O_RDWR | O_DIRECT);
    int fds[3] = {-1, direct, direct};
    register_numbers(fds, 3);
    int updates[3] = {direct, 9999, -1};
    ck_assert_int_eq(update_numbers(0, updates, 3), 1);
    ck_assert_int_eq(see(0).state, FD_DIRECT);
    ck_assert_int_eq(see(1).state, FD_PLAIN);
}
END_TEST

START_TEST(sparse_tables_and_tagged_updates_are_followed)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    struct io_uring_rsrc_register sparse = {.nr = 3000, .flags = IORING_RSRC_REGISTER_SPARSE};
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES2, &sparse, sizeof sparse), 0);
    ck_assert_int_eq(see(2999).state, FD_PLAIN);
    struct io_uring_rsrc_update2 update = {.offset = 2999, .nr = 1, .data = (uint64_t)(uintptr_t)&fd};
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES_UPDATE2, &update, sizeof update), 1);
    ck_assert_int_eq(see(2999).state, FD_DIRECT);
    ck_assert_int_eq(see(2998).state, FD_PLAIN);
    update.offset = 3000;
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES_UPDATE2, &update, sizeof update),
                     -EINVAL);
}
END_TEST

START_TEST(what_the_kernel_refuses_changes_nothing)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT), other = eventfd(0, EFD_CLOEXEC), bad = 9999;
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES, &bad, 1), -EBADF);
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES, NULL, 2), -EFAULT);
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_UNREGISTER_FILES, NULL, 0), -ENXIO);
    register_number(fd);
    ck_assert_int_eq(uring_register_files(&ring, ring.fd, IORING_REGISTER_FILES, &other, 1), -EBUSY);
    ck_assert_int_eq(see(0).state, FD_DIRECT);
    ck_assert_uint_eq(references(fd), 2);
}
END_TEST

START_TEST(a_failed_update_leaves_its_slots_unknown)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    int fds[2] = {fd, fd}, bad = 9999;
    register_numbers(fds, 2);
    /* The kernel has emptied the slot. */
    ck_assert_int_eq(update_numbers(0, &bad, 1), -EBADF);
    ck_assert_int_eq(see(0).state, FD_PLAIN);
    ck_assert_int_eq(see(1).state, FD_DIRECT);
    ck_assert_uint_eq(references(fd), 2);
}
END_TEST

START_TEST(what_the_ring_has_changed_is_no_longer_known)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    int fds[3] = {fd, fd, fd};
    register_numbers(fds, 3);
    struct fd_view view;
    ck_assert_int_eq(uring_view_registered(&ring, &view, 1, false), 0);
    uring_files_changed(&ring, 1, 1);
    ck_assert_int_eq(see(0).state, FD_DIRECT);
    ck_assert_int_eq(see(1).state, FD_PLAIN);
    ck_assert_int_eq(see(2).state, FD_DIRECT);
    ck_assert(!uring_registered_is(&ring, 1, &view));
    ck_assert_uint_eq(references(fd), 1 + 2 + 1);
    fd_view_close(&view);
    uring_forget_registered(&ring);
    ck_assert_uint_eq(references(fd), 1);
    ck_assert_int_eq(see(0).state, FD_PLAIN);
}
END_TEST

START_TEST(who_must_not_wait_does_not_wait_for_a_registration)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT), own[REGISTERED_OWN];
    register_number(fd);
    uint64_t saved;
    process_lock(&saved);
    registered_forget(registered_of(&ring), 0, 1, REGISTERED_CHANGING, own);
    process_unlock(&saved);
    struct fd_view view;
    ck_assert_int_eq(uring_view_registered(&ring, &view, 0, true), -EAGAIN);
    /* Whoever registers it does not come back: after a while nothing is known of it. */
    ck_assert_ptr_null(see(0).file);
    ck_assert_int_eq(uring_view_registered(&ring, &view, 0, true), 0);
}
END_TEST

START_TEST(of_two_registrations_at_once_neither_is_believed)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT);
    register_number(fd);
    struct registered_look before;
    ck_assert_int_eq(registered_read(registered_file(registered_of(&ring), 0), &before, false), 0);
    ck_assert_int_eq(update_numbers(0, &fd, 1), 1);
    struct fd_view view;
    ck_assert_int_eq(fd_view_open(&view, fd, false), 0);
    registered_settle(&ring, 0, &view, fd, &before);
    ck_assert_ptr_null(see(0).file);
    ck_assert_uint_eq(references(fd), 1);
}
END_TEST

/* In a child whose exit status says whether all went well. */
#define IN_CHILD(statements)                                                                                           \
    do {                                                                                                               \
        pid_t child_ = fork();                                                                                         \
        ck_assert_int_ge(child_, 0);                                                                                   \
        if (child_ == 0) {                                                                                             \
            statements;                                                                                                \
            _exit(0);                                                                                                  \
        }                                                                                                              \
        int status_;                                                                                                   \
        ck_assert_int_eq(waitpid(child_, &status_, 0), child_);                                                        \
        ck_assert_msg(WIFEXITED(status_) && WEXITSTATUS(status_) == 0, "the child: status %#x", status_);              \
    } while (0)

START_TEST(a_child_does_not_use_its_parents_file_objects)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT), event = eventfd(0, EFD_CLOEXEC);
    int fds[2] = {fd, event};
    register_numbers(fds, 2);
    IN_CHILD({
        /* Not bounced, and counted, until the kernel has been asked. */
        if (see(0).state != FD_EXCLUDED || see(0).file || see(1).state != FD_PLAIN)
            _exit(1);
        uring_forget_registered(&ring);
        if (file_at(0)->references != 0)
            _exit(2);
    });
    ck_assert_int_eq(see(0).state, FD_DIRECT);
}
END_TEST

START_TEST(what_a_child_registers_makes_the_parents_knowledge_void)
{
    make_ring(0);
    int fd = open_file(O_RDWR | O_DIRECT), event = eventfd(0, EFD_CLOEXEC);
    int fds[2] = {fd, fd};
    register_numbers(fds, 2);
    ck_assert_int_eq(see(1).state, FD_DIRECT);
    IN_CHILD({
        if (update_numbers(0, &event, 1) != 1)
            _exit(1);
    });
    ck_assert_ptr_null(see(0).file);
    ck_assert_ptr_null(see(1).file);
}
END_TEST

/* ---- Buffers. ---- */

static char memory[3][8192];

static void register_memory(void)
{
    struct iovec vector[3] = {{memory[0], 8192}, {NULL, 0}, {memory[2], 4096}};
    ck_assert_int_eq(uring_register_buffers(&ring, ring.fd, IORING_REGISTER_BUFFERS, vector, 3), 0);
}

static bool holds(unsigned index, const char *address, uint64_t length)
{
    return uring_buffer_holds(&ring, index, (uint64_t)(uintptr_t)address, length);
}

START_TEST(a_registered_buffer_holds_its_own_bytes_only)
{
    make_ring(0);
    ck_assert(!holds(0, memory[0], 1));
    register_memory();
    ck_assert(holds(0, memory[0], 8192));
    ck_assert(holds(0, memory[0] + 8191, 1));
    ck_assert(holds(0, memory[0] + 8192, 0));
    ck_assert(!holds(0, memory[0] + 1, 8192));
    ck_assert(!holds(2, memory[1] + 8191, 2));
    ck_assert(!holds(0, memory[0], UINT64_MAX));
    ck_assert(!holds(1, memory[1], 1));
    ck_assert(holds(2, memory[2], 4096));
    ck_assert(!holds(2, memory[2] + 1, 4096));
    ck_assert(!holds(3, memory[0], 1));
}
END_TEST

START_TEST(updated_buffers_are_followed)
{
    make_ring(0);
    struct io_uring_rsrc_register sparse = {.nr = 2000, .flags = IORING_RSRC_REGISTER_SPARSE};
    ck_assert_int_eq(uring_register_buffers(&ring, ring.fd, IORING_REGISTER_BUFFERS2, &sparse, sizeof sparse), 0);
    ck_assert(!holds(1999, memory[1], 1));
    struct iovec vector[2] = {{memory[1], 8192}, {memory[2], 8192}};
    struct io_uring_rsrc_update2 update = {.offset = 1998, .nr = 2, .data = (uint64_t)(uintptr_t)vector};
    ck_assert_int_eq(uring_register_buffers(&ring, ring.fd, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update), 2);
    ck_assert(holds(1998, memory[1], 8192));
    ck_assert(holds(1999, memory[2], 8192));
    ck_assert(!holds(1999, memory[1], 8192));
    ck_assert_int_eq(uring_register_buffers(&ring, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0), 0);
    ck_assert(!holds(1998, memory[1], 8192));
}
END_TEST

START_TEST(nothing_is_known_of_buffers_that_another_process_has_registered)
{
    make_ring(0);
    register_memory();
    IN_CHILD({
        if (uring_register_buffers(&ring, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0) != 0)
            _exit(1);
    });
    ck_assert(holds(0, memory[1], 1));
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_ring_without_registered_files_knows_none,
        a_registered_direct_file_is_direct_and_seen_by_its_number,
        a_registered_file_outlives_its_number,
        a_number_that_leads_elsewhere_by_now_is_not_used,
        a_number_reopened_with_other_rights_is_not_used,
        what_is_no_file_is_plain,
        a_plain_file_with_a_map_is_watched,
        a_plain_file_is_not_believed_any_more_when_maps_have_been_made,
        a_file_is_not_believed_any_more_when_flags_have_changed,
        updates_change_only_what_they_name,
        a_partial_update_is_learned_as_far_as_it_went,
        sparse_tables_and_tagged_updates_are_followed,
        what_the_kernel_refuses_changes_nothing,
        a_failed_update_leaves_its_slots_unknown,
        what_the_ring_has_changed_is_no_longer_known,
        who_must_not_wait_does_not_wait_for_a_registration,
        of_two_registrations_at_once_neither_is_believed,
        a_child_does_not_use_its_parents_file_objects,
        what_a_child_registers_makes_the_parents_knowledge_void,
        a_registered_buffer_holds_its_own_bytes_only,
        updated_buffers_are_followed,
        nothing_is_known_of_buffers_that_another_process_has_registered,
        NULL,
    };
    process_start();
    return support_main(argc, argv, "uring_registered", 20, NULL, tests);
}
