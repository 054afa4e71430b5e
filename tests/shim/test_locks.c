/*
 * POSIX record locks belong to a process and a file: closing any descriptor of the file releases them (fcntl_locking(2)).
 * The shim opens files by itself at times, and must not release the program's locks by that.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

extern __typeof__(bounceio_verify_range) bounceio_verify_range __attribute__((weak));

enum { SEED = 41, BYTES = 4 * BLOCK };

/* Would another process be refused a lock on the file? */
static bool locked(const char *path)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK};
        long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR, 0);

        _exit(fd < 0 || fcntl((int)fd, F_GETLK, &lock) != 0 ? 2 : lock.l_type != F_UNLCK);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 1;
}

/* A file with checksums, open with `flags`, and locked as a whole. */
static int locked_file(const char *path, int flags)
{
    struct flock lock = {.l_type = F_WRLCK};
    int fd = direct_open(path, O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    close(fd);
    fd = open(path, flags | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_SETLK, &lock), 0);
    ck_assert(locked(path));
    return fd;
}

START_TEST(truncating_a_file_by_name_keeps_its_locks)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        int fd = locked_file(path, O_RDWR | O_DIRECT);

        ck_assert_int_eq(truncate(path, 2 * BLOCK), 0);
        ck_assert(locked(path));
        close(fd);
    }
}
END_TEST

START_TEST(setting_the_times_of_a_file_by_name_keeps_its_locks)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        int fd = locked_file(path, O_RDWR | O_DIRECT);

        ck_assert_int_eq(utimes(path, NULL), 0);
        ck_assert(locked(path));
        ck_assert_int_eq(utimensat(AT_FDCWD, path, NULL, 0), 0);
        ck_assert(locked(path));
        close(fd);
    }
}
END_TEST

START_TEST(writing_a_part_of_a_block_keeps_the_locks)
{
    static const int modes[] = {O_RDWR | O_DIRECT, O_WRONLY | O_DIRECT};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < 2 * count; i++) {
        const char *path = path_in(fs[i / 2].path, "file");
        int fd = locked_file(path, modes[i % 2]);

        ck_assert_int_eq(pwrite(fd, aligned_memory(), SECTOR, SECTOR), SECTOR);
        ck_assert_msg(locked(path), "no lock on %s, mode %#x", fs[i / 2].name, (unsigned)modes[i % 2]);
        close(fd);
    }
}
END_TEST

START_TEST(verifying_a_file_keeps_its_locks)
{
    static const int modes[] = {O_RDWR | O_DIRECT, O_WRONLY | O_DIRECT, O_RDWR};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = counting() ? test_filesystems(fs) : 0;

    for (size_t i = 0; i < 3 * count; i++) {
        struct bounceio_verify_result result;
        const char *path = path_in(fs[i / 3].path, "file");
        int fd = locked_file(path, modes[i % 3]);

        ck_assert_int_eq(bounceio_verify_range(fd, 0, 0, &result), 0);
        ck_assert_uint_eq(result.verified, BYTES / BLOCK);
        ck_assert_msg(locked(path), "no lock on %s, mode %#x", fs[i / 3].name, (unsigned)modes[i % 3]);
        close(fd);
    }
}
END_TEST

START_TEST(closing_a_descriptor_releases_the_locks_as_ever)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");
    int fd = locked_file(path, O_RDWR | O_DIRECT);

    close(open(path, O_RDONLY | O_DIRECT));
    ck_assert(!locked(path));
    close(fd);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        truncating_a_file_by_name_keeps_its_locks,       setting_the_times_of_a_file_by_name_keeps_its_locks,
        writing_a_part_of_a_block_keeps_the_locks,       verifying_a_file_keeps_its_locks,
        closing_a_descriptor_releases_the_locks_as_ever, NULL};

    return support_main(argc, argv, "locks", 30, NULL, tests);
}
