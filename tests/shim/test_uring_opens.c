/*
 * Files that a ring opens and closes by itself: by number, or straight into a slot of its registered files, where no number leads to them.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/ring.h"

enum { ONE = 1, TWO = 2, SIZE = 16 * BLOCK, FIXED = IOSQE_FIXED_FILE };

static unsigned numbers_open(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* ---- Numbers and direct descriptors that the ring opens. ---- */

static struct io_uring_sqe *queue_open(const char *path, int flags, unsigned slot)
{
    struct io_uring_sqe *sqe = ring_entry(IORING_OP_OPENAT);
    sqe->fd = AT_FDCWD;
    sqe->addr = (uint64_t)(uintptr_t)path;
    sqe->len = 0600;
    sqe->open_flags = (unsigned)flags;
    sqe->file_index = slot;
    return sqe;
}

static int ring_openat(const char *path, int flags, unsigned slot)
{
    queue_open(path, flags, slot);
    return ring_do();
}

static int ring_close_number(int fd)
{
    ring_entry(IORING_OP_CLOSE)->fd = fd;
    return ring_do();
}

static int ring_close_slot(unsigned index)
{
    ring_entry(IORING_OP_CLOSE)->file_index = index + 1;
    return ring_do();
}

static void opened(struct ring_scene *scene)
{
    int fd = ring_openat(scene->path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ring_put(fd, 0, ONE, 0, SIZE);
    ring_check(fd, 0, ONE, 0, SIZE);
    direct_check(fd, ONE, 0, SIZE);
    ring_bounced(scene, 3);
    ring_finds_rot(scene, scene->path, fd, 0);
    ck_assert_int_eq(ring_close_number(fd), 0);
    ck_assert_int_eq(ring_close_number(fd), -EBADF);
}

START_TEST(a_number_opened_by_the_ring_is_bounced_and_verified)
{
    ring_on_each_filesystem(0, opened);
}
END_TEST

static void opened_by_openat2(struct ring_scene *scene)
{
    struct open_how how = {.flags = O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, .mode = 0600};
    struct io_uring_sqe *sqe = ring_entry(IORING_OP_OPENAT2);
    sqe->fd = AT_FDCWD;
    sqe->addr = (uint64_t)(uintptr_t)scene->path;
    sqe->len = sizeof how;
    sqe->off = (uint64_t)(uintptr_t)&how;
    int fd = ring_do();
    ck_assert_int_ge(fd, 0);
    ring_put(fd, 0, ONE, 0, SIZE);
    ring_bounced(scene, 1);
    ck_assert_int_eq(ring_close_number(fd), 0);
}

START_TEST(a_number_opened_by_openat2_is_bounced)
{
    ring_on_each_filesystem(0, opened_by_openat2);
}
END_TEST

static void register_one(int fd)
{
    ck_assert_int_eq(io_uring_register_files(the_ring(), &fd, 1), 0);
}

static void sparse_slots(unsigned count)
{
    ck_assert_int_eq(io_uring_register_files_sparse(the_ring(), count), 0);
}

static void opened_into_slot(struct ring_scene *scene)
{
    unsigned numbers = 0;
    sparse_slots(4);
    for (unsigned turn = 0; turn < 12; turn++) {
        ck_assert_int_eq(ring_openat(scene->path, O_RDWR | O_CREAT | O_DIRECT, 3), 0);
        ring_put(2, FIXED, turn, 0, SIZE);
        ring_check(2, FIXED, turn, 0, SIZE);
        ring_finds_rot(scene, scene->path, 2, FIXED);
        ck_assert_int_eq(ring_close_slot(2), 0);
        ck_assert_int_eq(ring_read(2, FIXED, aligned_memory(), BLOCK, 0), -EBADF);
        /* The shim has made its own, if any, with the first. */
        ck_assert(turn == 0 || numbers_open() == numbers);
        numbers = numbers_open();
    }
    ring_bounced(scene, counting() ? 12 * 4 : 12 * 2);
}

START_TEST(a_file_opened_into_a_slot_is_bounced_and_verified)
{
    ring_on_each_filesystem(0, opened_into_slot);
}
END_TEST

/* The next file in the same slot, also with another thread's eyes: whatever was known of the first is forgotten. */
static void opened_over(struct ring_scene *scene)
{
    sparse_slots(4);
    ck_assert_int_eq(ring_openat(scene->path, O_RDWR | O_CREAT | O_DIRECT, 1), 0);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ck_assert_int_eq(ring_openat(scene->other, O_RDWR | O_CREAT | O_DIRECT, 1), 0);
    ring_put(0, FIXED, TWO, 0, SIZE);
    ring_check(0, FIXED, TWO, 0, SIZE);
    ck_assert_int_eq(ring_openat(scene->path, O_RDWR | O_DIRECT, 1), 0);
    ring_check(0, FIXED, ONE, 0, SIZE);
    ring_bounced(scene, 4);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    ck_assert(content_is(scene->path, ONE, SIZE) && content_is(scene->other, TWO, SIZE));
}

START_TEST(a_slot_that_is_opened_over_is_the_new_file)
{
    ring_on_each_filesystem(0, opened_over);
}
END_TEST

static void opened_into_any_slot(struct ring_scene *scene)
{
    sparse_slots(4);
    ck_assert_int_eq(ring_openat(scene->path, O_RDWR | O_CREAT | O_DIRECT, IORING_FILE_INDEX_ALLOC), 0);
    int second = ring_openat(scene->other, O_RDWR | O_CREAT | O_DIRECT, IORING_FILE_INDEX_ALLOC);
    ck_assert_int_eq(second, 1);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ring_put(second, FIXED, TWO, 0, SIZE);
    ring_check(0, FIXED, ONE, 0, SIZE);
    ring_bounced(scene, 3);
    ring_finds_rot(scene, scene->other, second, FIXED);
}

START_TEST(a_file_opened_into_a_slot_of_the_kernels_choice_is_bounced)
{
    ring_on_each_filesystem(0, opened_into_any_slot);
}
END_TEST

/* As in io_uring_prep_openat_direct(3): the slot is used by what is linked to the open. */
static void opened_in_a_chain(struct ring_scene *scene)
{
    unsigned char *memory = direct_memory();
    sparse_slots(4);
    for (unsigned turn = 0; turn < 4; turn++) {
        pattern_fill(memory, SIZE, turn, 0);
        queue_open(turn % 2 ? scene->other : scene->path, O_RDWR | O_CREAT | O_DIRECT, 2)->flags = IOSQE_IO_LINK;
        for (unsigned i = 0; i < 2; i++) {
            struct io_uring_sqe *sqe = ring_entry(i == 0 ? IORING_OP_WRITE : IORING_OP_READ);
            sqe->flags = FIXED | IOSQE_IO_LINK;
            sqe->fd = 1;
            sqe->addr = (uint64_t)(uintptr_t)(memory + i * SIZE);
            sqe->len = SIZE;
            sqe->user_data = i + 1;
        }
        ring_entry(IORING_OP_CLOSE)->file_index = 2;
        ring_submit(4);
        for (unsigned i = 0; i < 4; i++) {
            uint64_t tag;
            int result = ring_reap(&tag);
            ck_assert_msg(result == (tag ? SIZE : 0), "%s: turn %u: %d for entry %u", scene->fs.name, turn, result, i);
        }
        ck_assert_uint_eq(pattern_check(memory + SIZE, SIZE, turn, 0), SIZE);
    }
    ring_bounced(scene, 8);
    ck_assert(content_is(scene->path, 2, SIZE) && content_is(scene->other, 3, SIZE));
}

START_TEST(what_is_linked_to_an_open_into_a_slot_uses_the_file_opened)
{
    ring_on_each_filesystem(0, opened_in_a_chain);
}
END_TEST

static void installed_by_update(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT);
    sparse_slots(4);
    for (unsigned turn = 0; turn < 2; turn++) {
        int numbers[1] = {fd};
        struct io_uring_sqe *sqe = ring_entry(IORING_OP_FILES_UPDATE);
        sqe->addr = (uint64_t)(uintptr_t)numbers;
        sqe->len = 1;
        sqe->off = turn == 0 ? 3 : IORING_FILE_INDEX_ALLOC;
        ck_assert_int_eq(ring_do(), 1);
        int slot = turn == 0 ? 3 : numbers[0];
        ring_put(slot, FIXED, turn, 0, SIZE);
        ring_check(slot, FIXED, turn, 0, SIZE);
    }
    ring_bounced(scene, 4);
    ring_finds_rot(scene, scene->path, 3, FIXED);
    close(fd);
}

START_TEST(a_file_that_an_operation_of_the_ring_registers_is_bounced)
{
    ring_on_each_filesystem(0, installed_by_update);
}
END_TEST

static void sent_to_another_ring(struct ring_scene *scene)
{
    struct io_uring source;
    int fd = direct_open(scene->path, O_RDWR | O_CREAT);
    ck_assert_int_eq(io_uring_queue_init(4, &source, 0), 0);
    ck_assert_int_eq(io_uring_register_files(&source, &fd, 1), 0);
    sparse_slots(4);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&source);
    ck_assert_ptr_nonnull(sqe);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_MSG_RING;
    sqe->fd = the_ring()->ring_fd;
    sqe->addr = 1; /* IORING_MSG_SEND_FD */
    sqe->addr3 = 0;
    sqe->file_index = 3;
    sqe->msg_ring_flags = 1; /* IORING_MSG_RING_CQE_SKIP */
    ck_assert_int_eq(io_uring_submit(&source), 1);
    struct io_uring_cqe *cqe;
    ck_assert_int_eq(io_uring_wait_cqe(&source, &cqe), 0);
    ck_assert_int_eq(cqe->res, 0);
    io_uring_cqe_seen(&source, cqe);
    close(fd);
    ring_put(2, FIXED, ONE, 0, SIZE);
    ring_check(2, FIXED, ONE, 0, SIZE);
    ring_bounced(scene, 2);
    ring_finds_rot(scene, scene->path, 2, FIXED);
    io_uring_queue_exit(&source);
}

START_TEST(a_file_sent_to_another_ring_is_bounced_there)
{
    ring_on_each_filesystem(0, sent_to_another_ring);
}
END_TEST

/* ---- What closing must not do. ---- */

static void reused_by_socket(struct ring_scene *scene)
{
    for (unsigned turn = 0; turn < 100; turn++) {
        int pair[2];
        char byte = 0;
        int fd = direct_open(scene->path, O_RDWR | O_CREAT);
        ring_put(fd, 0, ONE, 0, BLOCK);
        ck_assert_int_eq(ring_close_number(fd), 0);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        ck_assert_int_eq(pair[0], fd);
        ck_assert_int_eq(write(pair[0], "x", 1), 1);
        ck_assert_int_eq(ring_read(pair[1], 0, &byte, 1, 0), 1);
        ck_assert_int_eq(ring_write(pair[1], 0, "y", 1, 0), 1);
        ck_assert_int_eq(read(pair[0], &byte, 1), 1);
        ck_assert_int_eq(byte, 'y');
        close(pair[0]);
        close(pair[1]);
    }
    ring_bounced(scene, 100);
}

START_TEST(a_number_closed_by_the_ring_may_become_a_socket)
{
    ring_on_each_filesystem(0, reused_by_socket);
}
END_TEST

/* Writes and the close of their number in one submission: they are as good as any other. */
static void closed_behind_writes(struct ring_scene *scene)
{
    unsigned char *memory = direct_memory();
    for (unsigned linked = 0; linked < 2; linked++) {
        int fd = direct_open(scene->path, O_RDWR | O_CREAT);
        pattern_fill(memory, 4 * BLOCK, linked, 0);
        for (unsigned i = 0; i < 4; i++) {
            struct io_uring_sqe *sqe = ring_entry(IORING_OP_WRITE);
            sqe->fd = fd;
            sqe->flags = linked ? IOSQE_IO_LINK : 0;
            sqe->addr = (uint64_t)(uintptr_t)(memory + i * BLOCK);
            sqe->len = BLOCK;
            sqe->off = (uint64_t)i * BLOCK;
            sqe->user_data = i + 1;
        }
        ring_entry(IORING_OP_CLOSE)->fd = fd;
        ring_submit(5);
        for (unsigned i = 0; i < 5; i++) {
            uint64_t tag;
            int result = ring_reap(&tag);
            ck_assert_int_eq(result, tag ? BLOCK : 0);
        }
        ck_assert(content_is(scene->path, linked, 4 * BLOCK));
        fd = direct_open(scene->path, O_RDWR);
        if (counting()) {
            flip_bit_behind(scene->path, 2 * BLOCK + 9, 1);
            ck_assert_int_eq(ring_read(fd, 0, memory, 4 * BLOCK, 0), -EIO);
        }
        close(fd);
    }
}

START_TEST(writes_that_are_submitted_with_the_close_of_their_number_keep_their_checksums)
{
    ring_on_each_filesystem(0, closed_behind_writes);
}
END_TEST

/* Does some process hold a lock on the file, as another process sees it? */
static bool is_locked(const char *path)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR | O_CLOEXEC);
        _exit(fd < 0 || fcntl(fd, F_GETLK, &lock) != 0 ? 2 : lock.l_type != F_UNLCK);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 1;
}

static void locked(struct ring_scene *scene)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(scene->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(fcntl(fd, F_SETLK, &lock), 0);
    sparse_slots(4);
    ck_assert_int_eq(ring_openat(scene->path, O_RDWR | O_DIRECT, 1), 0);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ck_assert(is_locked(scene->path));
    ck_assert_int_eq(ring_close_slot(0), 0);
    ck_assert(is_locked(scene->path));
    close(fd);
    ck_assert(!is_locked(scene->path));
}

START_TEST(direct_descriptors_take_no_locks_of_the_program_s_away)
{
    ring_on_each_filesystem(0, locked);
}
END_TEST

/* ---- Kernels, and rings, that do not tell what a registered file is. ---- */

/* A ring that lets the program do no more than this test does: nor the shim. */
static bool restricted_ring(void)
{
    static const unsigned opcodes[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_OPENAT, IORING_OP_CLOSE};
    struct io_uring_restriction list[8] = {{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = FIXED},
                                           {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = 13}};
    for (unsigned i = 0; i < 4; i++) {
        list[2 + i].opcode = IORING_RESTRICTION_SQE_OP;
        list[2 + i].sqe_op = (unsigned char)opcodes[i];
    }
    list[6].opcode = IORING_RESTRICTION_REGISTER_OP;
    list[6].register_op = IORING_REGISTER_FILES_UPDATE;
    list[7].opcode = IORING_RESTRICTION_REGISTER_OP;
    list[7].register_op = IORING_REGISTER_ENABLE_RINGS;
    /* The library's functions for these are missing from some builds of it. */
    return syscall(SYS_io_uring_register, the_ring()->ring_fd, IORING_REGISTER_RESTRICTIONS, list, 8) == 0 &&
           syscall(SYS_io_uring_register, the_ring()->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0;
}

static void untold(struct ring_scene *scene)
{
    int fd = open(scene->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert(restricted_ring());
    sparse_slots(4);
    ck_assert_int_eq(io_uring_register_files_update(the_ring(), 0, &fd, 1), 1);
    ck_assert_int_eq(ring_write(0, FIXED, direct_memory(), BLOCK, 0), BLOCK);
    ring_bounced(scene, 0);
    /* The number tells, as long as it leads to the same file. */
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ring_check(0, FIXED, ONE, 0, SIZE);
    ring_bounced(scene, 2);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    close(fd);
    /* Then nothing does: what is known of the file is still true, and nothing can be read again. */
    ring_put(0, FIXED, TWO, 0, SIZE);
    ring_check(0, FIXED, TWO, 0, SIZE);
    ck_assert(content_is(scene->path, TWO, SIZE));
    if (!counting())
        return;
    /* A file without a number: its requests pass as they are, and are counted. */
    struct bounceio_stats before = counters();
    ck_assert_int_eq(ring_openat(scene->other, O_RDWR | O_CREAT | O_DIRECT, 2), 0);
    pattern_fill(aligned_memory(), SIZE, ONE, 0);
    ck_assert_int_eq(ring_write(1, FIXED, aligned_memory(), SIZE, 0), SIZE);
    ck_assert(content_is(scene->other, ONE, SIZE));
    ck_assert_uint_eq(counters().direct_writes, before.direct_writes);
    ck_assert_uint_eq(counters().passed_through, before.passed_through + 1);
}

START_TEST(where_the_kernel_does_not_tell_numbers_do_and_the_rest_is_counted)
{
    ring_on_each_filesystem(IORING_SETUP_R_DISABLED, untold);
}
END_TEST

/* A drained entry that waits is before every later one in the kernel, ours included. */
static void behind_a_drain(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT), pipes[2];
    char byte;
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    register_one(fd);
    close(fd);
    struct io_uring_sqe *sqe = ring_entry(IORING_OP_READ);
    sqe->fd = pipes[0];
    sqe->addr = (uint64_t)(uintptr_t)&byte;
    sqe->len = 1;
    ring_entry(IORING_OP_NOP)->flags = IOSQE_IO_DRAIN;
    ring_submit(2);
    pattern_fill(aligned_memory(), BLOCK, ONE, 0);
    sqe = ring_entry(IORING_OP_WRITE);
    sqe->flags = FIXED;
    sqe->addr = (uint64_t)(uintptr_t)aligned_memory();
    sqe->len = BLOCK;
    ring_submit(1);
    ck_assert_int_eq(write(pipes[1], "x", 1), 1);
    int sum = 0;
    for (int i = 0; i < 3; i++)
        sum += ring_reap(NULL);
    ck_assert_int_eq(sum, 1 + 0 + BLOCK);
    ck_assert(content_is(scene->path, ONE, BLOCK));
    /* The answer has come meanwhile. */
    ring_put(0, FIXED, TWO, 0, SIZE);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    close(pipes[0]);
    close(pipes[1]);
}

START_TEST(a_look_that_waits_behind_a_drain_is_given_up_and_taken_later)
{
    ring_on_each_filesystem(0, behind_a_drain);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_number_opened_by_the_ring_is_bounced_and_verified,
        a_number_opened_by_openat2_is_bounced,
        a_file_opened_into_a_slot_is_bounced_and_verified,
        a_slot_that_is_opened_over_is_the_new_file,
        a_file_opened_into_a_slot_of_the_kernels_choice_is_bounced,
        what_is_linked_to_an_open_into_a_slot_uses_the_file_opened,
        a_file_that_an_operation_of_the_ring_registers_is_bounced,
        a_file_sent_to_another_ring_is_bounced_there,
        a_number_closed_by_the_ring_may_become_a_socket,
        writes_that_are_submitted_with_the_close_of_their_number_keep_their_checksums,
        direct_descriptors_take_no_locks_of_the_program_s_away,
        where_the_kernel_does_not_tell_numbers_do_and_the_rest_is_counted,
        a_look_that_waits_behind_a_drain_is_given_up_and_taken_later,
        NULL,
    };
    return support_main(argc, argv, "uring opens", 120, NULL, tests);
}
