/*
 * Descriptors that come from elsewhere or go elsewhere: over exec, over a socket, through children that share our memory
 * (vfork), and programs that begin by closing everything they did not open.
 */
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

extern char **environ;

enum { SEED = 31, BYTES = 32 * BLOCK, INHERITED = 77 };

static int direct_new(const char *path)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, SEED, 0, BYTES);
    return fd;
}

/* Requests on `fd` are still bounced, and every checksum that was recorded for the file is there and right. */
static void still_verified(int fd)
{
    struct bounceio_stats before = counters();

    direct_check(fd, SEED, 0, BYTES);
    if (counting()) {
        struct bounceio_stats after = counters();

        ck_assert_uint_eq(after.direct_reads - before.direct_reads, 1);
        ck_assert_uint_eq(after.blocks_verified - before.blocks_verified, BYTES / BLOCK);
    }
}

/* The same after others may have written its blocks at the same time, which leaves no checksum. */
static void still_direct(int fd)
{
    direct_check(fd, SEED, 0, BYTES);
    direct_write(fd, SEED, 0, BYTES);
    still_verified(fd);
}

static void exited_well(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "the child ended with status %#x", (unsigned)status);
}

/* --- Children on our memory --------------------------------------------------------------------------------------- */

START_TEST(a_vfork_child_that_closes_direct_descriptors_leaves_ours_alone)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    int fd = direct_new(path_in(fs[0].path, "file"));
    int other = open(path_in(fs[0].path, "other"), O_RDWR | O_CREAT, 0600);

    for (int round = 0; round < 200; round++) {
        pid_t pid = vfork();

        if (pid == 0) {
            /* The number means another file from here on, in the child alone. */
            if (dup2(other, fd) != fd || write(fd, "odd", 3) != 3 || pwrite(fd, "odd", 3, 3 * BLOCK + 5) != 3)
                _exit(1);
            closefrom(3);
            _exit(0);
        }
        exited_well(pid);
    }
    still_verified(fd);
    still_direct(fd);
    ck_assert_int_eq(write(other, "odd", 3), 3);
    ck_assert_uint_eq(size_behind(path_in(fs[0].path, "other")), 3 * BLOCK + 8);
}
END_TEST

START_TEST(a_vfork_child_that_opens_direct_files_leaves_our_numbers_alone)
{
    struct test_fs fs[TEST_FS_MAX];
    int pair[2];

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");
    int fd = direct_new(path);
    pid_t pid = vfork();

    if (pid == 0) {
        int other = open(path, O_RDWR | O_DIRECT);

        _exit(other < 0 || dup2(other, other + 1) < 0);
    }
    exited_well(pid);
    /* The child's numbers were free with us, and get a socket now. */
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(write(pair[0], "odd", 3), 3);
    ck_assert_int_eq(read(pair[1], direct_memory(), 100), 3);
    still_direct(fd);
}
END_TEST

START_TEST(a_vfork_child_does_direct_io_itself)
{
    struct test_fs fs[TEST_FS_MAX];
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");

    if (sanitizer && strcmp(sanitizer, "tsan") == 0)
        return; /* its vfork is a fork: what the child reads is not in our memory */
    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");
    int fd = direct_new(path);
    unsigned char *memory = direct_memory();

    pattern_fill(memory, BLOCK, SEED, 0);
    pid_t pid = vfork();

    if (pid == 0)
        _exit(pwrite(fd, memory, BLOCK, 0) != BLOCK || pread(fd, memory, BLOCK, BLOCK) != BLOCK);
    exited_well(pid);
    ck_assert_uint_eq(pattern_check(memory, BLOCK, SEED, BLOCK), BLOCK);
    still_direct(fd);
    ck_assert(content_is(path, SEED, BYTES));
}
END_TEST

static atomic_bool spawning;

static void *direct_traffic(void *path)
{
    int fd = direct_open(path, O_RDWR);
    uintptr_t done = 0;

    for (; atomic_load(&spawning); done++) {
        direct_write(fd, SEED, (off_t)(done % 8) * BLOCK, 4 * BLOCK);
        direct_check(fd, SEED, 0, BYTES);
    }
    close(fd);
    return (void *)done;
}

START_TEST(processes_are_spawned_while_threads_do_direct_io)
{
    struct test_fs fs[TEST_FS_MAX];
    pthread_t threads[2];
    void *done;

    test_filesystems(fs);
    char *path = strdup(path_in(fs[0].path, "file"));
    int fd = direct_new(path);

    atomic_store(&spawning, true);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, direct_traffic, path), 0);
    for (int i = 0; i < 100; i++) {
        posix_spawn_file_actions_t actions;
        char *argv[] = {"true", NULL};
        pid_t pid;

        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
        posix_spawn_file_actions_addclose(&actions, fd);
        posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        ck_assert_int_eq(posix_spawnp(&pid, "true", &actions, NULL, argv, environ), 0);
        posix_spawn_file_actions_destroy(&actions);
        exited_well(pid);
    }
    atomic_store(&spawning, false);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &done), 0);
        ck_assert_uint_gt((uintptr_t)done, 0);
    }
    still_direct(fd);
    free(path);
}
END_TEST

/* --- Descriptors from elsewhere ----------------------------------------------------------------------------------- */

/* The program at the other end of exec: it finds a direct descriptor at number INHERITED and uses it at once. */
static int inheritor(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    unsigned char *memory = direct_memory();

    if (pread(INHERITED, memory, BYTES, 0) != BYTES || pattern_check(memory, BYTES, SEED, 0) != BYTES)
        return 2;
    if (lseek(INHERITED, BLOCK, SEEK_SET) != BLOCK || read(INHERITED, memory, BLOCK) != BLOCK)
        return 3;
    if (write(INHERITED, memory, BLOCK) != BLOCK)
        return 4;
    pattern_fill(memory, BLOCK, SEED, 2 * BLOCK);
    return pwrite(INHERITED, memory, BLOCK, 2 * BLOCK) == BLOCK ? 0 : 5;
}

START_TEST(a_descriptor_inherited_over_exec_is_direct)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        char report[4200];
        int fd = direct_new(path_in(fs[i].path, "file"));

        ck_assert_int_eq(dup2(fd, INHERITED), INHERITED);
        snprintf(report, sizeof(report), "BOUNCEIO_STATS=%s", path_in(fs[i].path, "stats"));
        struct child child = child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, (const char *const[]){report, NULL},
                                            (const char *const[]){"--inheritor", NULL});

        ck_assert(child_succeeded(&child));
        if (counting()) {
            const char *path = path_in(fs[i].path, "stats");

            ck_assert_int_eq(stats_read(path, "direct_reads"), 2);
            ck_assert_int_eq(stats_read(path, "direct_writes"), 2);
            ck_assert_int_eq(stats_read(path, "blocks_verified"), BYTES / BLOCK + 1);
            ck_assert_int_eq(stats_read(path, "passed_through"), 0);
        }
        child_free(&child);
        close(INHERITED);
        struct bounceio_stats before = counters();

        direct_check(fd, SEED, 0, BLOCK);
        direct_check(fd, SEED, 3 * BLOCK, BYTES - 3 * BLOCK);
        ck_assert_uint_eq(counters().mismatches, before.mismatches);
        close(fd);
    }
}
END_TEST

static void send_descriptor(int socket, int fd)
{
    char byte = 'x';
    struct iovec vector = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    control.header =
        (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(socket, &message, 0), 1);
}

static int receive_descriptor(int socket)
{
    char byte;
    struct iovec vector = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int fd;

    ck_assert_int_eq(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
    memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    return fd;
}

START_TEST(a_descriptor_received_over_a_socket_is_direct)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (size_t i = 0; i < count; i++) {
        /* The number it will get was direct, closed, and plain before. */
        int fd = direct_new(path_in(fs[i].path, "file"));
        int plain = open("/dev/null", O_RDWR);

        ck_assert_int_eq(write(plain, "odd", 3), 3);
        send_descriptor(pair[0], fd);
        close(plain);
        int received = receive_descriptor(pair[1]);

        ck_assert_int_eq(received, plain);
        close(fd);
        still_direct(received);
        send_descriptor(pair[0], received);
        close(received);
        received = receive_descriptor(pair[1]);
        still_direct(received);
        close(received);
    }
}
END_TEST

/* --- Programs that close everything ------------------------------------------------------------------------------- */

static void close_each(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t end = limit.rlim_cur < 65536 ? limit.rlim_cur : 65536;

    for (rlim_t fd = 3; fd < end; fd++)
        close((int)fd);
}

static void close_by_range(void)
{
    close_range(3, ~0U, 0);
}

static void close_from_three(void)
{
    closefrom(3);
}

static void close_by_system_call(void)
{
    syscall(SYS_close_range, 3L, (long)~0U, 0L);
}

static void (*const sweeps[])(void) = {close_each, close_by_range, close_from_three, close_by_system_call};

enum { SWEEPS = sizeof(sweeps) / sizeof(sweeps[0]) };

/* arguments: which sweep, file. Direct I/O before the sweep, after it, and a flipped bit that must be noticed. */
static int sweeper(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const char *path = argv[1];
    int fd = direct_new(path);

    sweeps[atoi(argv[0])]();
    if (pwrite(fd, direct_memory(), BLOCK, 0) != -1 || errno != EBADF)
        return 3;
    /* Numbers that the shim may have had are ours now. */
    for (int i = 0; i < 8; i++) {
        int null = open("/dev/null", O_RDWR);

        if (write(null, "odd", 3) != 3)
            return 4;
    }
    fd = direct_new(path);
    direct_check(fd, SEED, 0, BYTES);
    if (!counting())
        return 0;
    flip_bit_behind(path, 5 * BLOCK + 17, 3);
    if (pread(fd, direct_memory(), BYTES, 0) != -1 || errno != EIO)
        return 5;
    return counters().mismatches == 1 ? 0 : 6;
}

START_TEST(a_program_that_closes_every_descriptor_keeps_its_checksums)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count * SWEEPS; i++) {
        char which[8], report[4200];

        /* A file system whose own checksums come first would report the bit itself. */
        if (strcmp(fs[i / SWEEPS].name, "tmpfs") == 0)
            continue;
        snprintf(which, sizeof(which), "%zu", i % SWEEPS);
        snprintf(report, sizeof(report), "BOUNCEIO_STATS=%s", path_in(fs[i / SWEEPS].path, "stats"));
        unlink(path_in(fs[i / SWEEPS].path, "stats"));
        struct child child =
            child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, (const char *const[]){report, NULL},
                           (const char *const[]){"--sweeper", which, path_in(fs[i / SWEEPS].path, "file"), NULL});

        ck_assert(child_succeeded(&child));
        if (counting()) {
            ck_assert_msg(strstr(child.errors, "bounceio: checksum mismatch: path=") != NULL, "no log line: %s",
                          child.errors);
            ck_assert_int_eq(stats_read(path_in(fs[i / SWEEPS].path, "stats"), "mismatches"), 1);
        }
        child_free(&child);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--inheritor", inheritor}, {"--sweeper", sweeper}, {NULL, NULL}};
    const TTest *const tests[] = {a_vfork_child_that_closes_direct_descriptors_leaves_ours_alone,
                                  a_vfork_child_that_opens_direct_files_leaves_our_numbers_alone,
                                  a_vfork_child_does_direct_io_itself,
                                  processes_are_spawned_while_threads_do_direct_io,
                                  a_descriptor_inherited_over_exec_is_direct,
                                  a_descriptor_received_over_a_socket_is_direct,
                                  a_program_that_closes_every_descriptor_keeps_its_checksums,
                                  NULL};

    return support_main(argc, argv, "inheritance", 60, modes, tests);
}
