/*
 * Who calls the shim: plugins loaded RTLD_LOCAL, libraries whose constructors run before the shim's, every name that the C
 * library has for a call, and the same calls through syscall().
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { SEED = 21, BYTES = 8 * BLOCK };

/* A library that is built beside this program. */
static const char *library(const char *name)
{
    char program[4096] = "";

    ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof(program) - 1), 0);
    *strrchr(program, '/') = 0;
    return path_in(program, name);
}

/* Direct requests that were bounced since `before`. */
static uint64_t requests_since(const struct bounceio_stats *before)
{
    struct bounceio_stats now = counters();

    ck_assert_uint_eq(now.passed_through, before->passed_through);
    ck_assert_uint_eq(now.mismatches, before->mismatches);
    return now.direct_writes + now.direct_reads - before->direct_writes - before->direct_reads;
}

/* --- Libraries ---------------------------------------------------------------------------------------------------- */

START_TEST(a_plugin_loaded_local_is_bounced)
{
    struct test_fs fs[TEST_FS_MAX];
    void *plugin = dlopen(library("lib_plugin.so"), RTLD_NOW | RTLD_LOCAL);

    ck_assert_msg(plugin != NULL, "%s", dlerror());
    ssize_t (*plugin_write)(const char *, const void *, size_t);
    ssize_t (*plugin_read)(int, void *, size_t);

    *(void **)&plugin_write = dlsym(plugin, "plugin_write");
    *(void **)&plugin_read = dlsym(plugin, "plugin_read");
    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "plugin");
    struct bounceio_stats before = counters();

    pattern_fill(direct_memory(), BYTES, SEED, 0);
    ck_assert_int_eq(plugin_write(path, direct_memory(), BYTES), BYTES);
    ck_assert(content_is(path, SEED, BYTES));
    int fd = direct_open(path, O_RDWR);

    memset(direct_memory(), 0, BYTES);
    ck_assert_int_eq(plugin_read(fd, direct_memory(), BYTES), BYTES);
    ck_assert_uint_eq(pattern_check(direct_memory(), BYTES, SEED, 0), BYTES);
    if (counting())
        ck_assert_uint_eq(requests_since(&before), 2);
    ck_assert_int_eq(dlclose(plugin), 0);
}
END_TEST

/* The program that is loaded with lib_early.so: its constructor has written `path`, before the shim was up. */
static int early_child(int argc, char **argv)
{
    const int *succeeded = dlsym(RTLD_DEFAULT, "early_succeeded");
    const int *early_fd = dlsym(RTLD_DEFAULT, "early_fd");
    char *memory = (char *)direct_memory();

    if (argc != 1 || !succeeded || !*succeeded)
        return 2;
    for (int i = 0; i < 2; i++) {
        int fd = i == 0 ? *early_fd : open(argv[0], O_RDWR | O_DIRECT);

        if (pread(fd, memory, BLOCK, 0) != BLOCK || memory[0] != 'e' || memory[BLOCK - 1] != 'e')
            return 3;
        memset(memory, 'e', 2 * BLOCK);
        if (pwrite(fd, memory, 2 * BLOCK, 0) != 2 * BLOCK || pread(fd, memory, 2 * BLOCK, 0) != 2 * BLOCK)
            return 4;
    }
    return 0;
}

START_TEST(direct_io_in_a_constructor_before_the_shims_own)
{
    struct test_fs fs[TEST_FS_MAX];
    char preload[8300], early[4200], report[4200];
    const char *shim = getenv("BOUNCEIO_SHIM");

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "early");

    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s:%s", counting() && shim ? shim : "", library("lib_early.so"));
    snprintf(early, sizeof(early), "BOUNCEIO_TEST_EARLY=%s", path);
    snprintf(report, sizeof(report), "BOUNCEIO_STATS=%s", path_in(fs[0].path, "stats"));
    struct child child = child_run_self(WITHOUT_SHIM, (const char *const[]){preload, early, report, NULL},
                                        (const char *const[]){"--early", path, NULL});

    ck_assert(child_succeeded(&child));
    ck_assert_uint_eq(size_behind(path), 2 * BLOCK);
    if (counting()) {
        ck_assert_int_ge(stats_read(path_in(fs[0].path, "stats"), "direct_writes"), 2);
        ck_assert_int_eq(stats_read(path_in(fs[0].path, "stats"), "mismatches"), 0);
    }
    child_free(&child);
}
END_TEST

/* --- Names -------------------------------------------------------------------------------------------------------- */

typedef ssize_t plain_call(int, void *, size_t, ...);
typedef ssize_t vector_call(int, const struct iovec *, int, off_t, int);

/* Look a name up as the dynamic linker would for the program. */
static void *named(const char *name)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);

    ck_assert_msg(symbol != NULL, "no %s", name);
    return symbol;
}

static void moved_right(const char *name, bool writes, const char *path, const struct bounceio_stats *before)
{
    if (writes)
        ck_assert_msg(content_is(path, SEED, BYTES), "%s wrote something else", name);
    else
        ck_assert_msg(pattern_check(direct_memory(), BYTES, SEED, 0) == BYTES, "%s read something else", name);
    if (counting())
        ck_assert_msg(requests_since(before) == 1, "%s was not bounced", name);
}

/* Memory and file as they must be before a call: one has the pattern, the other has not. */
static int prepared(const char *path, bool writes)
{
    static const char nothing[BYTES];

    make_file_behind(path, SEED, BYTES);
    if (writes) {
        write_behind(path, nothing, BYTES, 0);
        pattern_fill(direct_memory(), BYTES, SEED, 0);
    } else {
        memset(direct_memory(), 0, BYTES);
    }
    return direct_open(path, O_RDWR);
}

START_TEST(every_name_of_read_and_write_is_bounced)
{
    static const char *const names[] = {"read",    "__read",    "write",  "__write",  "pread",
                                        "pread64", "__pread64", "pwrite", "pwrite64", "__pwrite64"};
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *path = path_in(fs[0].path, names[i]);
        bool writes = strstr(names[i], "write") != NULL;
        plain_call *call = (plain_call *)(uintptr_t)named(names[i]);
        int fd = prepared(path, writes);
        struct bounceio_stats before = counters();

        ck_assert_int_eq(call(fd, direct_memory(), BYTES, (off_t)0), BYTES);
        moved_right(names[i], writes, path, &before);
        close(fd);
    }
}
END_TEST

START_TEST(every_name_of_the_vectored_calls_is_bounced)
{
    static const char *const names[] = {"readv",     "writev",  "preadv",     "preadv64", "pwritev",
                                        "pwritev64", "preadv2", "preadv64v2", "pwritev2", "pwritev64v2"};
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *path = path_in(fs[0].path, names[i]);
        bool writes = strstr(names[i], "write") != NULL;
        vector_call *call = (vector_call *)(uintptr_t)named(names[i]);
        int fd = prepared(path, writes);
        struct iovec vector[2] = {{direct_memory(), BLOCK}, {direct_memory() + BLOCK, BYTES - BLOCK}};
        struct bounceio_stats before = counters();

        ck_assert_int_eq(call(fd, vector, 2, 0, 0), BYTES);
        moved_right(names[i], writes, path, &before);
        close(fd);
    }
}
END_TEST

START_TEST(fortified_reads_are_bounced_and_still_check)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"__read_chk", "__pread_chk", "__pread64_chk"};
        const char *path = path_in(fs[0].path, names[i]);
        int fd = prepared(path, false);
        struct bounceio_stats before = counters();
        void *symbol = named(names[i]);
        ssize_t n =
            i == 0 ? ((ssize_t(*)(int, void *, size_t, size_t))(uintptr_t)symbol)(fd, direct_memory(), BYTES, BYTES)
                   : ((ssize_t(*)(int, void *, size_t, off_t, size_t))(uintptr_t)symbol)(fd, direct_memory(), BYTES, 0,
                                                                                         BYTES);

        ck_assert_int_eq(n, BYTES);
        moved_right(names[i], false, path, &before);
        close(fd);
    }
}
END_TEST

START_TEST(the_same_calls_through_syscall_are_bounced)
{
    static const struct {
        long number;
        bool writes, vectored;
    } calls[] = {{SYS_read, false, false},    {SYS_write, true, false},  {SYS_pread64, false, false},
                 {SYS_pwrite64, true, false}, {SYS_readv, false, true},  {SYS_writev, true, true},
                 {SYS_preadv, false, true},   {SYS_pwritev, true, true}, {SYS_preadv2, false, true},
                 {SYS_pwritev2, true, true}};
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        char name[32];

        snprintf(name, sizeof(name), "syscall-%ld", calls[i].number);
        const char *path = path_in(fs[0].path, name);
        int fd = prepared(path, calls[i].writes);
        struct iovec vector[2] = {{direct_memory(), BLOCK}, {direct_memory() + BLOCK, BYTES - BLOCK}};
        struct bounceio_stats before = counters();
        long n = calls[i].vectored ? syscall(calls[i].number, fd, vector, 2L, 0L, 0L, 0L)
                                   : syscall(calls[i].number, fd, direct_memory(), (long)BYTES, 0L);

        ck_assert_int_eq(n, BYTES);
        moved_right(name, calls[i].writes, path, &before);
        close(fd);
    }
}
END_TEST

START_TEST(syscall_returns_errno_and_passes_other_calls_on)
{
    ck_assert_int_eq(syscall(SYS_getpid), getpid());
    ck_assert_int_eq(syscall(SYS_close, -1), -1);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_int_eq(syscall(SYS_pwrite64, -1, "x", 1, 0), -1);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_int_eq(syscall(100000), -1);
    ck_assert_int_eq(errno, ENOSYS);
}
END_TEST

/* --- Ways to open ------------------------------------------------------------------------------------------------- */

/* Open `path` for direct I/O in the way numbered `way`. @return -2 when there are no more ways. */
static int open_way(int way, const char *path)
{
    enum { FLAGS = O_RDWR | O_CREAT | O_DIRECT };
    int fd;

    switch (way) {
    case 0:
        return open(path, FLAGS, 0600);
    case 1:
        return ((int (*)(const char *, int, ...))(uintptr_t)named("open64"))(path, FLAGS, 0600);
    case 2:
        return openat(AT_FDCWD, path, FLAGS, 0600);
    case 3:
        return ((int (*)(int, const char *, int, ...))(uintptr_t)named("openat64"))(AT_FDCWD, path, FLAGS, 0600);
    case 4:
        return ((int (*)(const char *, int))(uintptr_t)named("__open_2"))(path, O_RDWR | O_DIRECT);
    case 5:
        return ((int (*)(const char *, int))(uintptr_t)named("__open64_2"))(path, O_RDWR | O_DIRECT);
    case 6:
        return ((int (*)(int, const char *, int))(uintptr_t)named("__openat_2"))(AT_FDCWD, path, O_RDWR | O_DIRECT);
    case 7:
        return ((int (*)(int, const char *, int))(uintptr_t)named("__openat64_2"))(AT_FDCWD, path, O_RDWR | O_DIRECT);
    case 8:
        return (int)syscall(SYS_open, path, FLAGS, 0600);
    case 9:
        return (int)syscall(SYS_openat, AT_FDCWD, path, FLAGS, 0600);
    case 10: {
        struct {
            uint64_t flags, mode, resolve;
        } how = {FLAGS, 0600, 0};

        return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    }
    case 11:
        fd = creat(path, 0600);
        ck_assert_int_eq(close(fd), 0);
        fd = open(path, O_RDWR);
        ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
        return fd;
    case 12:
        fd = fileno(fopen(path, "r+"));
        ck_assert_int_eq(fcntl(fd, F_SETFL, O_DIRECT), 0);
        return fd;
    default:
        return -2;
    }
}

START_TEST(every_way_to_open_is_noticed)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");

        make_file_behind(path, SEED + 1, BYTES);
        for (int way = 0;; way++) {
            int fd = open_way(way, path);

            if (fd == -2)
                break;
            ck_assert_msg(fd >= 0, "cannot open in way %d", way);
            struct bounceio_stats before = counters();

            direct_write(fd, SEED, 0, BYTES);
            direct_check(fd, SEED, 0, BYTES);
            if (counting())
                ck_assert_msg(requests_since(&before) == 2, "way %d was not noticed", way);
            close(fd);
        }
        ck_assert(content_is(path, SEED, BYTES));
    }
}
END_TEST

START_TEST(a_file_without_a_name_is_bounced_and_keeps_its_checksums_when_named)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "named");
        char link[64];
        int fd = direct_open(fs[i].path, O_RDWR | O_TMPFILE);

        direct_write(fd, SEED, 0, BYTES);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ck_assert_int_eq(linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW), 0);
        close(fd);
        fd = direct_open(path, O_RDONLY);
        struct bounceio_stats before = counters();

        direct_check(fd, SEED, 0, BYTES);
        if (counting())
            ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, BYTES / BLOCK);
        close(fd);
        ck_assert(content_is(path, SEED, BYTES));
    }
}
END_TEST

/* Open a new loop device over `backing` for direct I/O; it goes away when it is closed. @return -1 when there is none. */
static int open_loop_device(const char *backing)
{
    struct child attach =
        child_run(WITHOUT_SHIM, NULL, (const char *const[]){"losetup", "--find", "--show", backing, NULL});
    int fd = -1;

    attach.output[strcspn(attach.output, "\n")] = 0;
    if (attach.status == 0) {
        fd = open(attach.output, O_RDWR | O_DIRECT | O_CLOEXEC);
        /* Detaching a device that is open waits for its last close. */
        struct child detach =
            child_run(WITHOUT_SHIM, NULL, (const char *const[]){"losetup", "--detach", attach.output, NULL});

        child_free(&detach);
    }
    child_free(&attach);
    return fd;
}

START_TEST(a_block_device_is_bounced_without_checksums)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    const char *backing = path_in(fs[0].path, "device");

    make_file_behind(backing, SEED + 1, 64 * BLOCK);
    int fd = open_loop_device(backing);

    if (fd < 0) {
        test_skip("no loop device");
        return;
    }
    struct bounceio_stats before = counters();

    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
    ck_assert_int_eq(lseek(fd, BYTES, SEEK_SET), BYTES);
    ck_assert_int_eq(read(fd, direct_memory(), SECTOR), SECTOR);
    ck_assert_uint_eq(pattern_check(direct_memory(), SECTOR, SEED + 1, BYTES), SECTOR);
    ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), BYTES + SECTOR);
    ck_assert_int_eq(fsync(fd), 0);
    if (counting()) {
        struct bounceio_stats after = counters();

        ck_assert_uint_eq(requests_since(&before), 3);
        ck_assert_uint_eq(after.blocks_summed, before.blocks_summed);
        ck_assert_uint_eq(after.blocks_verified, before.blocks_verified);
    }
    close(fd);
    unsigned char *written = buffer_new(BYTES);

    ck_assert_uint_eq(read_behind(backing, written, BYTES, 0), BYTES);
    ck_assert_uint_eq(pattern_check(written, BYTES, SEED, 0), BYTES);
    buffer_free(written, BYTES);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--early", early_child}, {NULL, NULL}};
    const TTest *const tests[] = {a_plugin_loaded_local_is_bounced,
                                  direct_io_in_a_constructor_before_the_shims_own,
                                  every_name_of_read_and_write_is_bounced,
                                  every_name_of_the_vectored_calls_is_bounced,
                                  fortified_reads_are_bounced_and_still_check,
                                  the_same_calls_through_syscall_are_bounced,
                                  syscall_returns_errno_and_passes_other_calls_on,
                                  every_way_to_open_is_noticed,
                                  a_file_without_a_name_is_bounced_and_keeps_its_checksums_when_named,
                                  a_block_device_is_bounced_without_checksums,
                                  NULL};

    return support_main(argc, argv, "loading", 60, modes, tests);
}
