/*
 * Requests in flight when something ends: the ring or the context, the program, the use of an iocb; and what another process makes of
 * a ring that it has inherited.
 */
#include <errno.h>
#include <libaio.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/async.h"
#include "support/command.h"
#include "support/direct.h"

enum { MIB = 1 << 20, OLD = 1, NEW = 2, RUBBISH = 0xEE, PATIENCE = 20000 };

/* --- What is left on the file ----------------------------------------------------------------------------------------- */

/* Each block is all the one or all the other pattern. @return how many are new. */
static size_t count_new(const char *path, size_t size)
{
    static unsigned char chunk[MIB];
    size_t new = 0;

    for (size_t at = 0; at < size; at += BLOCK) {
        if (at % MIB == 0)
            check_that(read_behind(path, chunk, MIB, at) > 0, "the file is too short");
        const unsigned char *block = chunk + at % MIB;

        if (pattern_check(block, BLOCK, NEW, at) == BLOCK)
            new ++;
        else
            check_that(pattern_check(block, BLOCK, OLD, at) == BLOCK, "%s: the block at %zu is %02x %02x %02x ...",
                       path, at, block[0], block[1], block[2]);
    }
    return new;
}

/* No block is taken for damaged, by a program's reading and by scrub. */
static void expect_no_mismatch(const char *path, size_t size)
{
    int fd = direct_open(path, O_RDONLY);

    for (size_t at = 0; at < size; at += MIB) {
        ssize_t n = pread(fd, aligned_memory(), MIB, (off_t)at);

        check_that(n > 0, "%s: read at %zu gave %zd", path, at, n);
    }
    close(fd);
    if (counting())
        check_that(command_counts(0, NULL, "scrub", path, "mismatches") == 0, "scrub");
}

/* --- Left with writes in flight ---------------------------------------------------------------------------------------- */

static void left_in_flight(const struct test_fs *fs, const struct async_door *door, size_t size, size_t length)
{
    const char *path = path_in(fs->path, "left");
    unsigned count = (unsigned)(size / length);
    unsigned char *memory = buffer_new(size);
    struct async async;

    if (!async_open(&async, door, count))
        return;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    for (size_t at = 0; at < size; at += MIB)
        direct_write(fd, OLD, (off_t)at, MIB);
    pattern_fill(memory, size, NEW, 0);
    async_use(&async, fd, memory, size);
    for (unsigned i = 0; i < count; i++) {
        struct async_request write = async_write(fd, memory + i * length, length, i * length, i);

        check_that(async_submit(&async, &write, 1) == 1, "%s: submit %u", door->name, i);
    }
    async_close(&async);
    memset(memory, RUBBISH, size);
    fsync(fd);
    size_t new = count_new(path, size);

    printf("%s on %s: %zu of %zu blocks were written\n", door->name, fs->name, new, size / BLOCK);
    expect_no_mismatch(path, size);
    close(fd);
    unlink(path);
    buffer_free(memory, size);
}

START_TEST(a_ring_left_with_256_mib_of_writes_in_flight)
{
    struct test_fs fs;

    if (!test_filesystem("xfs", &fs) && !test_filesystem("disk", &fs))
        ck_abort_msg("no file system");
    left_in_flight(&fs, async_door("liburing"), 256 * MIB, MIB);
    left_in_flight(&fs, async_door("libaio"), 256 * MIB, MIB);
}
END_TEST

START_TEST(every_door_left_with_writes_in_flight)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            left_in_flight(&fs[i], door, 8 * MIB, 16 * BLOCK);
}
END_TEST

/* --- Programs that end ------------------------------------------------------------------------------------------------- */

enum { DEPTH = 64, LENGTH = 16 * BLOCK, SIZE = DEPTH * LENGTH };

static void end_by_exit(void)
{
    exit(0);
}

static void end_by_immediate_exit(void)
{
    _exit(0);
}

static void end_by_signal(void)
{
    kill(getpid(), SIGTERM);
}

static void end_by_kill(void)
{
    kill(getpid(), SIGKILL);
}

static void end_by_exec(void)
{
    execl("/bin/true", "true", (char *)NULL);
}

static void *exit_thread(void *argument)
{
    exit(0);
    return argument;
}

/* While the thread that has submitted goes on. */
static void end_by_another_thread(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, exit_thread, NULL);
    sleep(PATIENCE / 1000);
}

static const struct ending {
    const char *name;
    void (*end)(void);
} endings[] = {{"exit", end_by_exit},
               {"_exit", end_by_immediate_exit},
               {"a signal", end_by_signal},
               {"kill -9", end_by_kill},
               {"exec", end_by_exec},
               {"exit by another thread", end_by_another_thread},
               {NULL, NULL}};

/* Arguments: door, file, ending. The file exists. */
static int end_mode(int argc, char **argv)
{
    const struct ending *ending = &endings[strtoul(argv[2], NULL, 0)];
    unsigned char *memory = buffer_new(SIZE);
    struct async async;

    check_that(argc == 3, "usage: --end DOOR FILE ENDING");
    check_that(async_open(&async, async_door(argv[0]), DEPTH), "no %s", argv[0]);
    int fd = direct_open(argv[1], O_RDWR);

    direct_write(fd, OLD, 0, SIZE);
    pattern_fill(memory, SIZE, NEW, 0);
    async_use(&async, fd, memory, SIZE);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct async_request write = async_write(fd, memory + i * LENGTH, LENGTH, i * LENGTH, i);

        check_that(async_submit(&async, &write, 1) == 1, "submit %u", i);
    }
    memset(memory, RUBBISH, SIZE);
    ending->end();
    return EXIT_FAILURE;
}

static bool ended_well(const struct child *child, const struct ending *ending)
{
    if (WIFSIGNALED(child->status))
        return ending->end == end_by_kill || ending->end == end_by_signal;
    return child_succeeded(child);
}

START_TEST(programs_end_with_writes_in_flight)
{
    static const char *const kinds[] = {"ext4", "btrfs-nocow", "tmpfs"};
    struct test_fs fs;

    for (size_t i = 0; i < 3; i++) {
        if (!test_filesystem(kinds[i], &fs))
            continue;
        const char *path = path_in(fs.path, "file");

        for (const struct async_door *door = async_doors; door->name; door++)
            for (const struct ending *ending = endings; ending->name; ending++) {
                char number[4] = {(char)('0' + (ending - endings)), 0};

                /* Each of them on one file system at least. */
                if (rounds(0, 1) == 0 && ((size_t)(ending - endings) + (size_t)(door - async_doors)) % 3 != i)
                    continue;

                make_file_behind(path, OLD, SIZE);
                struct child child = child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, NULL,
                                                    (const char *const[]){"--end", door->name, path, number, NULL});

                ck_assert_msg(ended_well(&child, ending), "%s on %s, ended by %s: %x %s", door->name, fs.name,
                              ending->name, (unsigned)child.status, child.errors);
                ck_assert_msg(child.seconds < PATIENCE / 1000, "%s on %s, ended by %s: %f s", door->name, fs.name,
                              ending->name, child.seconds);
                count_new(path, SIZE);
                expect_no_mismatch(path, SIZE);
                child_free(&child);
            }
    }
}
END_TEST

/* --- A ring on both sides of a fork ------------------------------------------------------------------------------------- */

/* Two processes that take turns: each waits for the other's byte. */
struct turns {
    int mine[2], other[2];
};

static void turn_over(const struct turns *turns)
{
    check_that(write(turns->other[1], "", 1) == 1, "turn over");
}

static void turn_await(const struct turns *turns)
{
    char byte;

    alarm(PATIENCE / 1000);
    check_that(read(turns->mine[0], &byte, 1) == 1, "the other process has gone");
    alarm(0);
}

/* Ends like an assertion in the test's own process. */
static void child_ends_well(pid_t pid)
{
    int status;

    check_that(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "the child ended with status %x", (unsigned)status);
}

static void one_turn(struct async *async, int fd, uint64_t i)
{
    unsigned char *memory = direct_memory();
    uint64_t at = i * LENGTH;

    pattern_fill(memory, LENGTH, NEW, at);
    struct async_request request = async_write(fd, memory, LENGTH, at, 1);

    check_that(async_do(async, &request) == LENGTH, "%s: write", async->door->name);
    memset(memory, 0, LENGTH);
    request = async_read(fd, memory, LENGTH, at, 2);
    check_that(async_do(async, &request) == LENGTH, "%s: read", async->door->name);
    check_that(pattern_check(memory, LENGTH, NEW, at) == LENGTH, "%s: content", async->door->name);
}

static void in_turns(const struct test_fs *fs, const struct async_door *door)
{
    const char *path = path_in(fs->path, "forked");
    struct turns turns;
    struct async async;

    if (door->is_fixed || door->setup & (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SQPOLL) ||
        !async_open(&async, door, 8))
        return;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    one_turn(&async, fd, 0);
    check_that(pipe(turns.mine) == 0 && pipe(turns.other) == 0, "pipes");
    pid_t pid = fork();

    if (pid == 0) {
        const struct turns mirrored = {{turns.other[0], turns.other[1]}, {turns.mine[0], turns.mine[1]}};

        for (uint64_t i = 0; i < DEPTH / 2; i++) {
            turn_await(&mirrored);
            async_resume(&async);
            one_turn(&async, fd, 2 * i + 1);
            turn_over(&mirrored);
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < DEPTH / 2; i++) {
        turn_over(&turns);
        turn_await(&turns);
        async_resume(&async);
        one_turn(&async, fd, 2 * i);
    }
    child_ends_well(pid);
    check_that(count_new(path, SIZE) == SIZE / BLOCK, "%s: what is missing", door->name);
    expect_no_mismatch(path, SIZE);
    async_close(&async);
    close(fd);
    for (int i = 0; i < 2; i++) {
        close(turns.mine[i]);
        close(turns.other[i]);
    }
}

START_TEST(a_ring_is_used_by_parent_and_child_in_turns)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            if (door->is_uring)
                in_turns(&fs[i], door);
}
END_TEST

/* The child submits a read into memory of its own and does not reap; the parent reaps both. */
static void reaped_by_the_other(const struct test_fs *fs, const struct async_door *door)
{
    const char *path = path_in(fs->path, "reaped");
    unsigned char *memory = buffer_new(2 * LENGTH);
    struct async_result results[2];
    struct turns turns;
    struct async async;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    check_that(async_open(&async, door, 8), "no ring");
    check_that(pipe(turns.mine) == 0 && pipe(turns.other) == 0, "pipes");
    pid_t pid = fork();

    if (pid == 0) {
        const struct turns mirrored = {{turns.other[0], turns.other[1]}, {turns.mine[0], turns.mine[1]}};
        struct async_request read = async_read(fd, memory + 1, LENGTH, 0, 1);

        if (!counting())
            read.memory = memory;
        check_that(async_submit(&async, &read, 1) == 1, "the child's submission");
        turn_over(&mirrored);
        turn_await(&mirrored);
        check_that(pattern_check(read.memory, LENGTH, OLD, 0) == LENGTH, "%s: what the child has read", door->name);
        _exit(0);
    }
    turn_await(&turns);
    async_resume(&async);
    struct async_request read = async_read(fd, memory, LENGTH, LENGTH, 2);

    check_that(async_submit(&async, &read, 1) == 1, "the parent's submission");
    int n = async_reap(&async, results, 2, 2, PATIENCE);

    check_that(n == 2, "%s on %s: %d of 2 completions", door->name, fs->name, n);
    check_that(results[0].tag + results[1].tag == 3 && results[0].result == LENGTH && results[1].result == LENGTH,
               "%s: completions %llu: %lld, %llu: %lld", door->name, (unsigned long long)results[0].tag,
               (long long)results[0].result, (unsigned long long)results[1].tag, (long long)results[1].result);
    check_that(pattern_check(memory, LENGTH, OLD, LENGTH) == LENGTH, "%s: what the parent has read", door->name);
    turn_over(&turns);
    child_ends_well(pid);
    async_close(&async);
    close(fd);
    buffer_free(memory, 2 * LENGTH);
}

START_TEST(a_childs_completion_is_reaped_by_its_parent)
{
    static const char *const doors[] = {"liburing", "uring-calls"};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < 2 * count; i++)
        reaped_by_the_other(&fs[i / 2], async_door(doors[i % 2]));
}
END_TEST

/* A child comes and goes while its parent's requests are in flight. */
static void child_in_between(const struct test_fs *fs, const struct async_door *door)
{
    const char *path = path_in(fs->path, "between");
    unsigned char *memory = buffer_new(SIZE);
    struct async_result results[DEPTH];
    struct async async;

    if (!async_open(&async, door, DEPTH))
        return;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    pattern_fill(memory, SIZE, NEW, 0);
    async_use(&async, fd, memory, SIZE);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct async_request write = async_write(fd, memory + i * LENGTH, LENGTH, i * LENGTH, i);

        check_that(async_submit(&async, &write, 1) == 1, "submit %u", i);
    }
    pid_t pid = fork();

    if (pid == 0) {
        /* libaio's contexts are not inherited. */
        if (!door->is_uring)
            check_that(async_reap(&async, results, 1, 1, 10) == -EINVAL, "%s: in the child", door->name);
        _exit(0);
    }
    child_ends_well(pid);
    for (unsigned done = 0; done < DEPTH;) {
        int n = async_reap(&async, results, 1, DEPTH, PATIENCE);

        check_that(n > 0, "%s on %s: %u of %d, then %d", door->name, fs->name, done, DEPTH, n);
        for (int i = 0; i < n; i++)
            check_that(results[i].result == LENGTH, "%s: %lld", door->name, (long long)results[i].result);
        done += (unsigned)n;
    }
    check_that(count_new(path, SIZE) == SIZE / BLOCK, "%s: what is missing", door->name);
    expect_no_mismatch(path, SIZE);
    async_close(&async);
    close(fd);
    buffer_free(memory, SIZE);
}

START_TEST(a_child_comes_and_goes_while_requests_are_in_flight)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            child_in_between(&fs[i], door);
}
END_TEST

/* --- iocbs that others use again ------------------------------------------------------------------------------------- */

enum { BLOCKS = 256, FILESYSTEMS = 2 };

struct recycled {
    struct iocb iocb;
    _Atomic bool free;
    unsigned char *memory;
};

struct recycling {
    io_context_t context;
    int fd;
    struct recycled iocbs[4];
    uint64_t requests;
};

/* An iocb is anybody's as soon as its event is there, which may be before io_submit has returned. */
static void *recycler(void *argument)
{
    struct recycling *all = argument;
    struct io_event events[4];

    for (uint64_t done = 0; done < all->requests;) {
        struct timespec timeout = {PATIENCE / 1000, 0};
        int n = io_getevents(all->context, 1, 4, events, &timeout);

        check_that(n > 0, "asleep after %llu requests: %d", (unsigned long long)done, n);
        for (int i = 0; i < n; i++) {
            struct recycled *of = (struct recycled *)(void *)events[i].obj;

            check_that(of >= all->iocbs && of < all->iocbs + 4 && !atomic_load(&of->free), "obj %p", (void *)of);
            check_that(events[i].res == BLOCK && events[i].data == of->memory, "event of another request");
            memset(&of->iocb, 0xEE, sizeof(of->iocb));
            atomic_store(&of->free, true);
        }
        done += (uint64_t)n;
    }
    return NULL;
}

static void recycle(struct recycling *all)
{
    for (uint64_t i = 0; i < all->requests; i++) {
        int64_t deadline = async_now() + PATIENCE;
        struct recycled *one = &all->iocbs[i % 4];
        struct iocb *list = &one->iocb;

        while (!atomic_load(&one->free))
            check_that(async_now() < deadline, "request %llu never ends", (unsigned long long)i);
        pattern_fill(one->memory, BLOCK, NEW, i % BLOCKS * BLOCK);
        atomic_store(&one->free, false);
        io_prep_pwrite(&one->iocb, all->fd, one->memory, BLOCK, (long long)(i % BLOCKS * BLOCK));
        one->iocb.data = one->memory;
        check_that(io_submit(all->context, 1, &list) == 1, "io_submit");
    }
}

START_TEST(iocbs_used_again_before_io_submit_returns)
{
    static const char *const kinds[] = {"xfs", "tmpfs", "disk"};
    struct test_fs fs;

    for (size_t i = 0; i < 3; i++) {
        if (!test_filesystem(kinds[i], &fs))
            continue;
        const char *path = path_in(fs.path, "recycled");
        struct recycling all = {.fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC), .requests = rounds(5000, 200000)};
        unsigned char *memory = buffer_new(4 * BLOCK);
        pthread_t thread;

        for (size_t k = 0; k < 4; k++) {
            all.iocbs[k].memory = memory + k * BLOCK;
            all.iocbs[k].free = true;
        }
        ck_assert_int_eq(io_setup(16, &all.context), 0);
        check_that(pthread_create(&thread, NULL, recycler, &all) == 0, "no thread");
        recycle(&all);
        pthread_join(thread, NULL);
        ck_assert_int_eq(io_destroy(all.context), 0);
        ck_assert_msg(content_is(path, NEW, BLOCKS * BLOCK), "%s", fs.name);
        expect_no_mismatch(path, BLOCKS * BLOCK);
        close(all.fd);
        buffer_free(memory, 4 * BLOCK);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--end", end_mode}, {NULL, NULL}};
    const TTest *const tests[] = {
        a_ring_left_with_256_mib_of_writes_in_flight, every_door_left_with_writes_in_flight,
        programs_end_with_writes_in_flight,           a_ring_is_used_by_parent_and_child_in_turns,
        a_childs_completion_is_reaped_by_its_parent,  a_child_comes_and_goes_while_requests_are_in_flight,
        iocbs_used_again_before_io_submit_returns,    NULL};

    return support_main(argc, argv, "requests in flight when something ends", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 240,
                        modes, tests);
}
