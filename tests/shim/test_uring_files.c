/*
 * Registered files: their numbers are closed, used again, change their flags; slots change while requests are in flight, and on both sides of a fork.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/ring.h"

enum { ONE = 1, TWO = 2, THREE = 3, SIZE = 16 * BLOCK, FIXED = IOSQE_FIXED_FILE };

static void register_slots(const int *numbers, unsigned count)
{
    ck_assert_int_eq(io_uring_register_files(the_ring(), numbers, count), 0);
}

/* ---- Registered files. ---- */

static void closed_by_number(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT);
    register_slots(&fd, 1);
    ring_put(0, FIXED, ONE, 0, SIZE);
    close(fd);
    ring_put(0, FIXED, TWO, 0, SIZE);
    ring_check(0, FIXED, TWO, 0, SIZE);
    ring_bounced(scene, 3);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    ck_assert(content_is(scene->path, TWO, SIZE));
}

START_TEST(a_registered_file_is_bounced_and_verified_when_its_number_is_closed)
{
    ring_on_each_filesystem(0, closed_by_number);
}
END_TEST

static void reused_by_number(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT);
    register_slots(&fd, 1);
    close(fd);
    ck_assert_int_eq(direct_open(scene->other, O_RDWR | O_CREAT), fd);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ring_put(fd, 0, TWO, 0, SIZE);
    ring_check(0, FIXED, ONE, 0, SIZE);
    ring_check(fd, 0, TWO, 0, SIZE);
    ring_bounced(scene, 4);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    ring_finds_rot(scene, scene->other, fd, 0);
    close(fd);
}

START_TEST(a_registered_file_and_another_with_its_old_number_are_told_apart)
{
    ring_on_each_filesystem(0, reused_by_number);
}
END_TEST

static void updated(struct ring_scene *scene)
{
    int one = direct_open(scene->path, O_RDWR | O_CREAT), two = direct_open(scene->other, O_RDWR | O_CREAT);
    int none = -1;
    register_slots((int[]){one, one}, 2);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ck_assert_int_eq(io_uring_register_files_update(the_ring(), 0, &two, 1), 1);
    ring_put(0, FIXED, TWO, 0, SIZE);
    ring_check(1, FIXED, ONE, 0, SIZE);
    ring_check(0, FIXED, TWO, 0, SIZE);
    ring_finds_rot(scene, scene->other, 0, FIXED);
    ring_finds_rot(scene, scene->path, 1, FIXED);
    ck_assert_int_eq(io_uring_register_files_update(the_ring(), 0, &none, 1), 1);
    ck_assert_int_eq(ring_read(0, FIXED, aligned_memory(), BLOCK, 0), -EBADF);
    ck_assert_int_eq(io_uring_unregister_files(the_ring()), 0);
    ck_assert_int_eq(ring_read(1, FIXED, aligned_memory(), BLOCK, 0), -EBADF);
    ck_assert(content_is(scene->path, ONE, SIZE) && content_is(scene->other, TWO, SIZE));
    close(one);
    close(two);
}

START_TEST(a_slot_that_is_updated_is_the_new_file)
{
    ring_on_each_filesystem(0, updated);
}
END_TEST

static void gone_in_flight(struct ring_scene *scene)
{
    enum { WRITES = 16 };
    unsigned char *memory = direct_memory();
    for (unsigned turn = 0; turn < 8; turn++) {
        int fd = direct_open(scene->path, O_RDWR | O_CREAT);
        register_slots(&fd, 1);
        close(fd);
        pattern_fill(memory, WRITES * BLOCK, turn, 0);
        for (unsigned i = 0; i < WRITES; i++) {
            struct io_uring_sqe *sqe = ring_entry(IORING_OP_WRITE);
            sqe->flags = FIXED;
            sqe->addr = (uint64_t)(uintptr_t)(memory + i * BLOCK);
            sqe->len = BLOCK;
            sqe->off = (uint64_t)i * BLOCK;
        }
        ring_submit(WRITES);
        ck_assert_int_eq(io_uring_unregister_files(the_ring()), 0);
        for (unsigned i = 0; i < WRITES; i++)
            ck_assert_int_eq(ring_reap(NULL), BLOCK);
        ck_assert(content_is(scene->path, turn, WRITES * BLOCK));
    }
    int fd = direct_open(scene->path, O_RDWR);
    direct_check(fd, 7, 0, WRITES * BLOCK);
    /* Their checksums have outlived the slot. */
    ring_finds_rot(scene, scene->path, fd, 0);
    close(fd);
}

START_TEST(files_may_be_unregistered_with_writes_in_flight)
{
    ring_on_each_filesystem(0, gone_in_flight);
}
END_TEST

static void became_direct(struct ring_scene *scene)
{
    int fd = open(scene->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    register_slots(&fd, 1);
    ck_assert_int_eq(ring_write(0, FIXED, direct_memory(), BLOCK, 0), BLOCK);
    ring_bounced(scene, 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
    ring_put(0, FIXED, ONE, 0, SIZE);
    ring_check(0, FIXED, ONE, 0, SIZE);
    ring_bounced(scene, 2);
    ring_finds_rot(scene, scene->path, 0, FIXED);
    ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
    /* Now buffered: its checksums may not outlive it. */
    ring_put(0, FIXED, TWO, 0, SIZE);
    ck_assert_int_eq(fsync(fd), 0);
    close(fd);
    fd = direct_open(scene->path, O_RDWR);
    direct_check(fd, TWO, 0, SIZE);
    close(fd);
}

START_TEST(o_direct_may_be_set_and_taken_off_after_registration)
{
    ring_on_each_filesystem(0, became_direct);
}
END_TEST

/* Written buffered through its slot: registered before anybody gave the file a map. */
static void mapped_later(struct ring_scene *scene)
{
    int plain = open(scene->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    register_slots(&plain, 1);
    close(plain);
    int fd = direct_open(scene->path, O_RDWR);
    direct_write(fd, ONE, 0, SIZE);
    ring_put(0, FIXED, TWO, 0, BLOCK);
    ck_assert_int_eq(fsync(fd), 0);
    direct_check(fd, TWO, 0, BLOCK);
    direct_check(fd, ONE, BLOCK, SIZE - BLOCK);
    close(fd);
}

START_TEST(a_registered_plain_file_that_gets_a_map_is_watched)
{
    ring_on_each_filesystem(0, mapped_later);
}
END_TEST

/* The number that the program gets next is the one that it would get without the shim. */
static void lowest_number(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT);
    register_slots(&fd, 1);
    close(fd);
    ring_put(0, FIXED, ONE, 0, SIZE);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(next, fd);
    close(next);
}

START_TEST(looking_at_a_slot_takes_no_number_of_the_program_s)
{
    ring_on_each_filesystem(0, lowest_number);
}
END_TEST

/* ---- Threads. ---- */

struct switching {
    int files[2];
    _Atomic bool over;
};

/* The slot is one file, then the other. */
static void *switch_files(void *argument)
{
    struct switching *switching = argument;
    for (unsigned turn = 0; !switching->over; turn++) {
        int result = (int)syscall(
            SYS_io_uring_register, the_ring()->ring_fd, IORING_REGISTER_FILES_UPDATE,
            &(struct io_uring_files_update){.offset = 0, .fds = (uint64_t)(uintptr_t)&switching->files[turn % 2]}, 1);
        check_that(result == 1, "an update: %d", result);
    }
    return NULL;
}

/* Which file a write reaches is nobody's business; that no checksum is another file's is. */
static void switched(struct ring_scene *scene)
{
    struct switching switching = {
        .files = {direct_open(scene->path, O_RDWR | O_CREAT), direct_open(scene->other, O_RDWR | O_CREAT)}};
    pthread_t thread;
    direct_write(switching.files[0], ONE, 0, SIZE);
    direct_write(switching.files[1], ONE, 0, SIZE);
    register_slots(switching.files, 1);
    ck_assert_int_eq(pthread_create(&thread, NULL, switch_files, &switching), 0);
    for (unsigned turn = 0; turn < rounds(200, 20000); turn++) {
        ring_put(0, FIXED, turn, 0, 2 * BLOCK);
        ck_assert_int_eq(ring_read(0, FIXED, direct_memory(), SIZE, 0), SIZE);
    }
    switching.over = true;
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 2; i++) {
        direct_check(switching.files[i], ONE, 2 * BLOCK, SIZE - 2 * BLOCK);
        ck_assert_int_eq(pread(switching.files[i], direct_memory(), SIZE, 0), SIZE);
        close(switching.files[i]);
    }
}

START_TEST(a_slot_may_be_updated_while_another_thread_uses_it)
{
    ring_on_each_filesystem(0, switched);
}
END_TEST

/* ---- Fork. ---- */

/* Both sides submit to the ring in turn; each completes what it submitted. */
static void forked(struct ring_scene *scene)
{
    int fd = direct_open(scene->path, O_RDWR | O_CREAT), status;
    register_slots(&fd, 1);
    close(fd);
    ring_put(0, FIXED, ONE, 0, SIZE);
    pid_t child = fork();
    if (child == 0) {
        ring_check(0, FIXED, ONE, 0, SIZE);
        ring_put(0, FIXED, TWO, 0, SIZE);
        /* Another file in the parent's slot. */
        int other = direct_open(scene->other, O_RDWR | O_CREAT);
        _exit(io_uring_register_files_update(the_ring(), 0, &other, 1) == 1 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(status == 0, "%s: the child: %#x", scene->fs.name, status);
    /* liburing's own copies of the indices: the child has moved the queue's. */
    the_ring()->sq.sqe_head = the_ring()->sq.sqe_tail = *the_ring()->sq.ktail;
    ring_put(0, FIXED, THREE, 0, SIZE);
    ring_check(0, FIXED, THREE, 0, SIZE);
    ring_bounced(scene, 5);
    ck_assert(content_is(scene->path, TWO, SIZE) && content_is(scene->other, THREE, SIZE));
    ring_finds_rot(scene, scene->other, 0, FIXED);
}

START_TEST(registered_files_are_used_and_changed_on_both_sides_of_a_fork)
{
    ring_on_each_filesystem(0, forked);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        a_registered_file_is_bounced_and_verified_when_its_number_is_closed,
        a_registered_file_and_another_with_its_old_number_are_told_apart,
        a_slot_that_is_updated_is_the_new_file,
        files_may_be_unregistered_with_writes_in_flight,
        o_direct_may_be_set_and_taken_off_after_registration,
        a_registered_plain_file_that_gets_a_map_is_watched,
        looking_at_a_slot_takes_no_number_of_the_program_s,
        a_slot_may_be_updated_while_another_thread_uses_it,
        registered_files_are_used_and_changed_on_both_sides_of_a_fork,
        NULL,
    };
    return support_main(argc, argv, "uring files", 120, NULL, tests);
}
