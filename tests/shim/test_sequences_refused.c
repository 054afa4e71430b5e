/*
 * Sequence 1: a quota, or the device, refuses in the middle of writes. What was written can be read, whatever the request
 * returned, and no block is called damaged.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/async.h"
#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { MEGABYTE = 1 << 20, MEGABYTES = 12, OLD = 1, NEW = 2 };

/* Is a block what was there before, what was being written, or still a hole? */
static bool plausible(const unsigned char *block, uint64_t offset)
{
    static const unsigned char zeros[BLOCK];

    return pattern_check(block, BLOCK, OLD, offset) == BLOCK || pattern_check(block, BLOCK, NEW, offset) == BLOCK ||
           memcmp(block, zeros, BLOCK) == 0;
}

/* Write each megabyte; @return how many failed or were cut short. */
static int write_all(int fd)
{
    int refused = 0;

    for (off_t at = 0; at < (off_t)MEGABYTES * MEGABYTE; at += MEGABYTE) {
        pattern_fill(direct_memory(), MEGABYTE, NEW, (uint64_t)at);
        refused += pwrite(fd, direct_memory(), MEGABYTE, at) != MEGABYTE;
    }
    return refused;
}

static void read_all(int fd, const char *path)
{
    uint64_t size = size_behind(path);

    for (uint64_t at = 0; at < size; at += BLOCK) {
        ssize_t n = pread(fd, direct_memory(), BLOCK, (off_t)at);

        check_that(n > 0, "reading at %llu gave %zd", (unsigned long long)at, n);
        check_that(n < BLOCK || plausible(direct_memory(), at), "block at %llu is neither old nor new",
                   (unsigned long long)at);
    }
    sequence_no_mismatch();
}

/* arguments: file, where not all of it has room. */
static int refused(int argc, char **argv)
{
    check_that(argc == 1, "usage: --refused FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);

    /* The first quarter of some megabytes is known, and has its space. */
    for (off_t at = 0; at < 4 * MEGABYTE; at += MEGABYTE)
        direct_write(fd, OLD, at, MEGABYTE / 4);
    check_that(fsync(fd) == 0, "fsync");
    check_that(write_all(fd) > 0, "nothing was refused");
    read_all(fd, argv[0]);
    return 0;
}

/*
 * arguments: file. Writes beyond its end of a length that no device can write: ext4 finds that out at the second extent, when what goes to
 * the first is under way.
 */
static int odd(int argc, char **argv)
{
    enum { LENGTH = 2 * BLOCK + 100 };

    check_that(argc == 1, "usage: --odd FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);

    direct_write(fd, OLD, 0, 2 * BLOCK);
    pattern_fill(direct_memory(), LENGTH, NEW, 0);
    check_that(pwrite(fd, direct_memory(), LENGTH, 0) != 0, "pwrite");
    read_all(fd, argv[0]);
    for (const struct async_door *door = async_doors; door->name; door++) {
        struct async async;
        struct async_result result;
        struct async_request write = {.is_write = true, .fd = fd, .memory = direct_memory(), .length = LENGTH};

        check_that(ftruncate(fd, 0) == 0, "ftruncate");
        direct_write(fd, OLD, 0, 2 * BLOCK);
        if (!async_open(&async, door, 1))
            continue;
        pattern_fill(direct_memory(), LENGTH, NEW, 0);
        async_use(&async, fd, direct_memory(), LENGTH);
        check_that(async_submit(&async, &write, 1) == 1 && async_reap(&async, &result, 1, 1, 10000) == 1, "%s",
                   door->name);
        async_close(&async);
        read_all(fd, argv[0]);
    }
    return 0;
}

enum { POURED = 2 * BLOCK + 100, ASKED = 16 * BLOCK };

/* A direct file of two blocks, OLD. */
static int two_old_blocks(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, 2 * BLOCK);
    return fd;
}

static int new_pipe(void)
{
    int ends[2];

    check_that(pipe(ends) == 0, "pipe");
    check_that(write(ends[1], direct_memory(), POURED) == POURED, "write to a pipe");
    close(ends[1]);
    return ends[0];
}

/* arguments: file, source. The same, of what the kernel pours into the file: the source has fewer bytes than are asked for. */
static int poured(int argc, char **argv)
{
    check_that(argc == 2, "usage: --poured FILE SOURCE");
    int source = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    off64_t at = 0, source_at = 0;

    pattern_fill(direct_memory(), POURED, NEW, 0);
    check_that(write(source, direct_memory(), POURED) == POURED, "write");
    int fd = two_old_blocks(argv[0]);
    sendfile(fd, source, &(off_t){0}, ASKED);
    read_all(fd, argv[0]);
    close(fd);
    fd = two_old_blocks(argv[0]);
    copy_file_range(source, &source_at, fd, &at, ASKED, 0);
    read_all(fd, argv[0]);
    close(fd);
    fd = two_old_blocks(argv[0]);
    pattern_fill(direct_memory(), POURED, NEW, 0);
    at = 0;
    splice(new_pipe(), NULL, fd, &at, ASKED, 0);
    read_all(fd, argv[0]);
    return 0;
}

/* arguments: file. The same, where the limit of file sizes makes a length odd that is not. */
static int limited(int argc, char **argv)
{
    const struct rlimit limit = {POURED, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};

    check_that(argc == 1, "usage: --limited FILE");
    int fd = two_old_blocks(argv[0]);

    pattern_fill(direct_memory(), 3 * BLOCK, NEW, 0);
    check_that(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    ssize_t result = pwrite(fd, direct_memory(), 3 * BLOCK, 0);
    check_that(setrlimit(RLIMIT_FSIZE, &none) == 0, "setrlimit");
    check_that(result < 3 * BLOCK, "it was written");
    read_all(fd, argv[0]);
    return 0;
}

struct trigger {
    const char *path;
    useconds_t after;
};

static void *pull(void *argument)
{
    const struct trigger *trigger = argument;
    int fd = open(trigger->path, O_WRONLY | O_CLOEXEC);

    usleep(trigger->after);
    check_that(fd >= 0 && write(fd, "1", 1) == 1, "%s", trigger->path);
    close(fd);
    return NULL;
}

/* arguments: file, what makes its file system read-only, after how many microseconds. */
static int turned(int argc, char **argv)
{
    check_that(argc == 3, "usage: --turned FILE TRIGGER MICROSECONDS");
    struct trigger trigger = {argv[1], (useconds_t)strtoul(argv[2], NULL, 10)};
    struct iovec vector = {direct_memory(), MEGABYTE};
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    pthread_t puller;
    ssize_t result;

    direct_write(fd, OLD, 0, MEGABYTE);
    check_that(fsync(fd) == 0, "fsync");
    check_that(pthread_create(&puller, NULL, pull, &trigger) == 0, "pthread_create");
    for (int round = 0;; round++) {
        pattern_fill(direct_memory(), MEGABYTE, round % 2 ? OLD : NEW, 0);
        result = pwritev2(fd, &vector, 1, 0, RWF_DSYNC);
        if (result < 0)
            break;
    }
    check_that(errno == EROFS || errno == EIO, "the file system is still writable");
    pthread_join(puller, NULL);
    read_all(fd, argv[0]);
    return 0;
}

START_TEST(the_device_refuses_in_the_middle_of_a_write)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        sequence_run((const char *const[]){"--odd", path_in(fs[i].path, "odd"), NULL});
}
END_TEST

START_TEST(the_device_refuses_in_the_middle_of_a_copy)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        sequence_run(
            (const char *const[]){"--poured", path_in(fs[i].path, "odd"), path_in(fs[i].path, "source"), NULL});
}
END_TEST

START_TEST(the_device_refuses_what_a_limit_has_cut)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        sequence_run((const char *const[]){"--limited", path_in(fs[i].path, "odd"), NULL});
}
END_TEST

static const char *scratch(const struct test_fs *fs, const char *name)
{
    return path_in(fs->path, name);
}

START_TEST(a_quota_refuses_in_the_middle_of_a_write)
{
    struct test_fs fs[TEST_FS_MAX];

    sequence_filesystems(fs);
    const char *image = scratch(fs, "image"), *directory = scratch(fs, "small");
    const char *limited = path_in(directory, "limited");

    if (!small_filesystem_mount("btrfs", image, directory, 200)) {
        test_skip("no small btrfs");
        return;
    }
    if (system_command((const char *const[]){"btrfs", "quota", "enable", directory, NULL}) &&
        system_command((const char *const[]){"btrfs", "-q", "subvolume", "create", limited, NULL}) &&
        system_command((const char *const[]){"btrfs", "qgroup", "limit", "6m", limited, NULL}) &&
        system_command((const char *const[]){"chattr", "+C", limited, NULL})) {
        sequence_run((const char *const[]){"--refused", path_in(limited, "file"), NULL});
        sequence_idle_entries_are_true(path_in(limited, "file"), 64);
    } else {
        test_skip("no quotas here");
    }
    filesystem_unmount(directory);
}
END_TEST

/* The file that provokes an error of the ext4 mounted there, or an empty string. */
static void find_trigger(char path[128], const char *directory)
{
    struct stat status;
    char link[64], device[256];

    path[0] = '\0';
    if (stat(directory, &status) != 0)
        return;
    snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(status.st_dev), minor(status.st_dev));
    ssize_t length = readlink(link, device, sizeof(device) - 1);
    if (length < 0)
        return;
    device[length] = '\0';
    snprintf(path, 128, "/sys/fs/ext4/%.32s/trigger_fs_error",
             strrchr(device, '/') ? strrchr(device, '/') + 1 : device);
    if (access(path, W_OK) != 0)
        path[0] = '\0';
}

START_TEST(an_error_turns_the_file_system_read_only_in_the_middle_of_writes)
{
    enum { TIMES = 14 }; /* some are turned while data is being written */
    struct test_fs fs[TEST_FS_MAX];

    sequence_filesystems(fs);
    const char *image = scratch(fs, "turned-image"), *directory = scratch(fs, "turned");

    for (int i = 0; i < TIMES; i++) {
        char trigger[128], after[16];

        if (!small_filesystem_mount("ext4", image, directory, 64)) {
            test_skip("no small ext4");
            return;
        }
        snprintf(after, sizeof(after), "%d", 4000 + i * 1700);
        find_trigger(trigger, directory);
        bool can = trigger[0] &&
                   system_command((const char *const[]){"mount", "-o", "remount,errors=remount-ro", directory, NULL});
        if (can)
            sequence_run((const char *const[]){"--turned", path_in(directory, "file"), trigger, after, NULL});
        filesystem_unmount(directory);
        unlink(image);
        if (!can) {
            test_skip("no errors can be provoked here");
            return;
        }
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES,       {"--refused", refused}, {"--odd", odd},
                                                {"--poured", poured}, {"--limited", limited}, {"--turned", turned},
                                                {NULL, NULL}};
    const TTest *const tests[] = {a_quota_refuses_in_the_middle_of_a_write,
                                  the_device_refuses_in_the_middle_of_a_write,
                                  the_device_refuses_in_the_middle_of_a_copy,
                                  the_device_refuses_what_a_limit_has_cut,
                                  an_error_turns_the_file_system_read_only_in_the_middle_of_writes,
                                  NULL};

    return support_main(argc, argv, "refusals", 60, modes, tests);
}
