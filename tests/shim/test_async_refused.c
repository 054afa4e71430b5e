/*
 * Asynchronous requests that cannot be done: no page and not allowed to wait, a damaged block, a full file system, a descriptor that has become
 * another file's. By every front door; each ends with a completion that wakes whoever sleeps for it.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/async.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/exhaust.h"
#include "support/sequence.h"

enum { BLOCKS = 64, SIZE = BLOCKS * BLOCK, OLD = 1, NEW = 2, DEPTH = 32, PATIENCE = 20000 };

/* --- No page ---------------------------------------------------------------------------------------------------------- */

struct sleeper {
    struct async *async;
    struct async_result result;
    int reaped;
};

static void *sleep_for_one(void *argument)
{
    struct sleeper *sleeper = argument;

    sleeper->reaped = async_reap(sleeper->async, &sleeper->result, 1, 1, PATIENCE);
    return NULL;
}

/* Submit it while another thread is asleep. @return the result that wakes it. */
static int64_t do_while_another_sleeps(struct async *async, const struct async_request *request)
{
    struct sleeper sleeper = {.async = async};
    pthread_t thread;

    /* Such a ring belongs to one thread. */
    if (async->door->setup & IORING_SETUP_SINGLE_ISSUER)
        return async_do(async, request);
    check_that(pthread_create(&thread, NULL, sleep_for_one, &sleeper) == 0, "no thread");
    usleep(20000);
    int submitted = async_submit(async, request, 1);

    check_that(submitted == 1, "%s: submitting gave %d", async->door->name, submitted);
    pthread_join(thread, NULL);
    check_that(sleeper.reaped == 1, "%s: the sleeper was not woken: %d", async->door->name, sleeper.reaped);
    check_that(sleeper.result.tag == request->tag, "%s: another request's completion", async->door->name);
    return sleeper.result.result;
}

/* The kernel refuses now and then as well (time stamps). */
static bool takes_nowait(struct async *async, int fd)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        struct async_request write = async_write(fd, direct_memory(), 2 * BLOCK, 0, 1);
        struct async_request read = async_read(fd, direct_memory(), 2 * BLOCK, 0, 2);

        direct_write(fd, OLD, 0, 2 * BLOCK);
        write.flags = read.flags = RWF_NOWAIT;
        if (async_do(async, &write) == 2 * BLOCK && async_do(async, &read) == 2 * BLOCK)
            return true;
    }
    return false;
}

/* @return false when the file system takes no RWF_NOWAIT at all. */
static bool refuse(const struct test_fs *fs, const struct async_door *door)
{
    const char *path = path_in(fs->path, "impatient");
    struct exhaust standing;
    struct async async;

    if (!async_open(&async, door, DEPTH))
        return true;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    check_that(fdatasync(fd) == 0, "fdatasync");
    async_use(&async, fd, direct_memory(), SIZE);
    if (!takes_nowait(&async, fd)) {
        printf("%s on %s: takes no RWF_NOWAIT at all\n", door->name, fs->name);
        async_close(&async);
        close(fd);
        return false;
    }
    check_that(exhaust_start(&standing, path_in(fs->path, "standing")), "userfaultfd");
    struct bounceio_stats before = counters();

    for (uint64_t i = 0; i < 4; i++) {
        pattern_fill(direct_memory(), 2 * BLOCK, NEW, 0);
        struct async_request request = async_write(fd, direct_memory(), 2 * BLOCK, 0, i);

        request.is_write = i % 2 == 0;
        request.flags = RWF_NOWAIT;
        int64_t result = i < 2 ? async_do(&async, &request) : do_while_another_sleeps(&async, &request);

        check_that(result == -EAGAIN, "%s on %s: %s with an empty pool gave %lld", door->name, fs->name,
                   request.is_write ? "write" : "read", (long long)result);
    }
    struct bounceio_stats after = counters();

    check_that(after.nowait_eagain == before.nowait_eagain + 4, "%s: refusals are counted", door->name);
    check_that(after.pool_grows == before.pool_grows && after.pool_overflows == before.pool_overflows,
               "%s: a refused request has allocated", door->name);
    check_that(content_is(path, OLD, SIZE), "%s: a refused write wrote", door->name);

    /* Whoever may wait is served, though nothing is in flight that could give pages back. */
    struct async_request request = async_write(fd, direct_memory(), BLOCK, 0, 9);

    pattern_fill(direct_memory(), BLOCK, NEW, 0);
    check_that(async_do(&async, &request) == BLOCK, "%s: write with an empty pool", door->name);
    request.is_write = false;
    check_that(async_do(&async, &request) == BLOCK, "%s: read with an empty pool", door->name);
    check_that(pattern_check(direct_memory(), BLOCK, NEW, 0) == BLOCK, "%s: content", door->name);
    check_that(counters().pool_overflows > after.pool_overflows, "%s: the pool was not empty", door->name);
    exhaust_end(&standing);
    check_that(takes_nowait(&async, fd), "%s: refused with a full pool", door->name);
    async_close(&async);
    close(fd);
    return true;
}

static int refuse_mode(int argc, char **argv)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    (void)argc;
    (void)argv;
    for (const struct async_door *door = async_doors; door->name; door++) {
        unsigned refused = 0;

        for (size_t i = 0; i < count; i++)
            refused += refuse(&fs[i], door);
        check_that(refused > 0, "%s: no file system takes RWF_NOWAIT", door->name);
    }
    return EXIT_SUCCESS;
}

START_TEST(nowait_with_an_exhausted_pool_is_refused)
{
    if (!exhaust_can())
        return;
    struct child child = child_run_self(WITH_SHIM, exhaust_pool, (const char *const[]){"--refuse", NULL});

    ck_assert(child_succeeded(&child));
    printf("%s", child.output);
    child_free(&child);
}
END_TEST

/* A refused read cancels what is linked to it. */
static int refuse_chain_mode(int argc, char **argv)
{
    const char *path = path_in(argv[0], "chained");
    int results[3] = {1, 1, 1};
    struct exhaust standing;
    struct io_uring ring;

    check_that(argc == 1, "usage: --refuse-chain DIRECTORY");
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    check_that(io_uring_queue_init(8, &ring, 0) == 0, "no ring");
    check_that(exhaust_start(&standing, path_in(argv[0], "standing")), "userfaultfd");
    for (unsigned i = 0; i < 3; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

        if (i == 0)
            io_uring_prep_read(sqe, fd, direct_memory(), BLOCK, 0);
        else
            io_uring_prep_write(sqe, fd, direct_memory(), BLOCK, i * BLOCK);
        sqe->rw_flags = i == 0 ? RWF_NOWAIT : 0;
        io_uring_sqe_set_flags(sqe, i < 2 ? IOSQE_IO_LINK : 0);
        io_uring_sqe_set_data64(sqe, i);
    }
    check_that(io_uring_submit(&ring) == 3, "submit");
    for (unsigned i = 0; i < 3; i++) {
        struct __kernel_timespec timeout = {.tv_sec = PATIENCE / 1000};
        struct io_uring_cqe *cqe;

        check_that(io_uring_wait_cqe_timeout(&ring, &cqe, &timeout) == 0, "completion %u", i);
        check_that(cqe->user_data == i, "completion %u is of %llu", i, (unsigned long long)cqe->user_data);
        results[i] = cqe->res;
        io_uring_cqe_seen(&ring, cqe);
    }
    check_that(results[0] == -EAGAIN && results[1] == -ECANCELED && results[2] == -ECANCELED, "%d, %d, %d", results[0],
               results[1], results[2]);
    exhaust_end(&standing);
    check_that(content_is(path, OLD, SIZE), "a cancelled write wrote");
    io_uring_queue_exit(&ring);
    return EXIT_SUCCESS;
}

START_TEST(a_refused_request_cancels_its_chain)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    if (!exhaust_can())
        return;
    for (size_t i = 0; i < count; i++) {
        struct child child =
            child_run_self(WITH_SHIM, exhaust_pool, (const char *const[]){"--refuse-chain", fs[i].path, NULL});

        ck_assert_msg(child_succeeded(&child), "%s", fs[i].name);
        child_free(&child);
    }
}
END_TEST

/* --- Damage ----------------------------------------------------------------------------------------------------------- */

enum { DAMAGED = 37, PIECE = 4 * BLOCK };

/* Arguments: door, file. Reads it all in pieces, all in flight at once; the one with the damaged block in it fails. */
static int damage_mode(int argc, char **argv)
{
    unsigned char *memory = buffer_new(SIZE + BLOCK);
    struct async_request list[SIZE / PIECE];
    struct async_result results[SIZE / PIECE];
    struct async async;
    int fd = direct_open(argv[1], O_RDONLY);

    check_that(argc == 2, "usage: --damage DOOR FILE");
    check_that(async_open(&async, async_door(argv[0]), DEPTH), "no %s", argv[0]);
    async_use(&async, fd, memory, SIZE + BLOCK);
    /* Once where it may be read in place, once through pages. */
    for (size_t shift = 0; shift < 2; shift++) {
        unsigned done = 0;

        for (unsigned i = 0; i < SIZE / PIECE; i++)
            list[i] = async_read(fd, memory + shift + i * PIECE, PIECE, i * PIECE, i);
        check_that(async_submit(&async, list, SIZE / PIECE) == SIZE / PIECE, "submit");
        while (done < SIZE / PIECE) {
            int n = async_reap(&async, results + done, 1, SIZE / PIECE - done, PATIENCE);

            check_that(n > 0, "%u of %d, then %d", done, SIZE / PIECE, n);
            done += (unsigned)n;
        }
        for (unsigned i = 0; i < SIZE / PIECE; i++) {
            int64_t expected = results[i].tag == DAMAGED * BLOCK / PIECE ? -EIO : PIECE;
            size_t at = results[i].tag * PIECE;

            check_that(results[i].result == expected, "piece %llu: %lld", (unsigned long long)results[i].tag,
                       (long long)results[i].result);
            check_that(expected < 0 || pattern_check(memory + shift + at, PIECE, OLD, at) == PIECE, "content");
        }
        check_that(counters().mismatches == shift + 1, "%llu mismatches", (unsigned long long)counters().mismatches);
    }
    async_close(&async);
    return EXIT_SUCCESS;
}

static void damage(const struct test_fs *fs, const struct async_door *door)
{
    const char *path = path_in(fs->path, "damaged");
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    struct async async;
    char line[4300];

    if (!async_open(&async, door, DEPTH))
        return;
    for (size_t at = 0; at < SIZE; at += PIECE) {
        pattern_fill(direct_memory(), PIECE, OLD, at);
        struct async_request request = async_write(fd, direct_memory(), PIECE, at, 1);

        check_that(async_do(&async, &request) == PIECE, "%s: write", door->name);
    }
    async_close(&async);
    close(fd);
    flip_bit_behind(path, DAMAGED * BLOCK + 1234, 5);
    struct child child = child_run_self(WITH_SHIM, NULL, (const char *const[]){"--damage", door->name, path, NULL});

    snprintf(line, sizeof(line), "checksum mismatch: path=\"%s\" offset=%d length=4096", path, DAMAGED * BLOCK);
    check_that(child_succeeded(&child), "%s on %s", door->name, fs->name);
    check_that(strstr(child.errors, line), "%s on %s: not logged:\n%s", door->name, fs->name, child.errors);
    child_free(&child);
    flip_bit_behind(path, DAMAGED * BLOCK + 1234, 5);
    check_that(command_counts(0, NULL, "scrub", path, "mismatches") == 0, "%s on %s: mended, but", door->name,
               fs->name);
}

START_TEST(a_damaged_block_fails_the_read_that_meets_it)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count && counting(); i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            damage(&fs[i], door);
}
END_TEST

/* --- A full file system ------------------------------------------------------------------------------------------------- */

/* Arguments: door, directory. Writes, many in flight, until nothing more fits. */
static int no_space_mode(int argc, char **argv)
{
    enum { LENGTH = 256 << 10, MOST = 512 << 20 };
    const char *path = path_in(argv[1], "big");
    unsigned char *memory = buffer_new((size_t)DEPTH * LENGTH);
    struct async_result results[DEPTH];
    unsigned refused = 0, in_flight = 0;
    struct async async;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    check_that(argc == 2, "usage: --no-space DOOR DIRECTORY");
    check_that(async_open(&async, async_door(argv[0]), DEPTH), "no %s", argv[0]);
    async_use(&async, fd, memory, (size_t)DEPTH * LENGTH);
    for (uint64_t at = 0; at < MOST && (refused == 0 || in_flight > 0);) {
        for (; refused == 0 && in_flight < DEPTH; in_flight++, at += LENGTH) {
            unsigned char *place = memory + at / LENGTH % DEPTH * LENGTH;

            pattern_fill(place, BLOCK, NEW, at);
            struct async_request request = async_write(fd, place, LENGTH, at, at / LENGTH);

            check_that(async_submit(&async, &request, 1) == 1, "submit");
        }
        int n = async_reap(&async, results, in_flight, DEPTH, PATIENCE);

        check_that(n == (int)in_flight, "%u in flight, %d reaped", in_flight, n);
        for (int i = 0; i < n; i++) {
            check_that(results[i].result == -ENOSPC || (results[i].result > 0 && results[i].result <= LENGTH),
                       "write gave %lld", (long long)results[i].result);
            refused += results[i].result == -ENOSPC;
        }
        in_flight = 0;
    }
    check_that(refused > 0, "there was space for everything");
    async_close(&async);
    close(fd);
    return EXIT_SUCCESS;
}

/* A ring's files are given back some time after the ring has gone. */
static void unmount_soon(const char *directory)
{
    int64_t deadline = async_now() + PATIENCE;

    while (umount2(directory, 0) != 0) {
        check_that(errno == EBUSY && async_now() < deadline, "cannot unmount %s", directory);
        usleep(10000);
    }
}

START_TEST(no_space_left)
{
    static const struct {
        const char *kind;
        unsigned megabytes;
    } small[] = {{"ext4", 64}, {"xfs", 320}, {"btrfs", 160}};
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        const char *image = path_in(fs[0].path, "image"), *directory = path_in(fs[0].path, "small");
        /* All doors on the smallest, one of each family on the others. */
        static const char *const some[] = {"libaio", "uring-calls"};

        for (const struct async_door *door = async_doors; door->name; door++) {
            if (i > 0 && strcmp(door->name, some[0]) != 0 && strcmp(door->name, some[1]) != 0)
                continue;
            if (!small_filesystem_mount(small[i].kind, image, directory, small[i].megabytes)) {
                test_skip("no small file system of kind %s", small[i].kind);
                break;
            }
            struct child child = child_run_self(counting() ? WITH_SHIM : WITHOUT_SHIM, NULL,
                                                (const char *const[]){"--no-space", door->name, directory, NULL});

            ck_assert_msg(child_succeeded(&child), "%s on %s", door->name, small[i].kind);
            child_free(&child);
            if (counting())
                sequence_idle_entries_are_true(path_in(directory, "big"), 256);
            unmount_soon(directory);
            unlink(image);
        }
    }
}
END_TEST

/* --- Descriptors that become others ------------------------------------------------------------------------------------- */

/* The descriptor is closed while writes are in flight, and its number becomes another file's, and then a socket's. */
static void renumbered(const struct test_fs *fs, const struct async_door *door)
{
    enum { LENGTH = SIZE / DEPTH };
    const char *path = path_in(fs->path, "first"), *other = path_in(fs->path, "other");
    unsigned char *memory = buffer_new(SIZE);
    struct async_result results[DEPTH];
    struct async async;
    int sockets[2];

    if (!async_open(&async, door, DEPTH))
        return;
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);

    direct_write(fd, OLD, 0, SIZE);
    close(fd);
    fd = direct_open(other, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(fd, OLD, 0, SIZE);
    close(fd);
    for (int turn = 0; turn < 4; turn++) {
        int number = direct_open(path, O_RDWR);

        pattern_fill(memory, SIZE, NEW + (uint64_t)turn, 0);
        if (turn == 0)
            async_use(&async, number, memory, SIZE);
        for (unsigned i = 0; i < DEPTH; i++) {
            struct async_request write = async_write(number, memory + i * LENGTH, LENGTH, i * LENGTH, i);

            check_that(async_submit(&async, &write, 1) == 1, "submit %u", i);
        }
        close(number);
        if (turn % 2 == 0) {
            fd = direct_open(other, O_RDWR);
        } else {
            check_that(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "sockets");
            fd = sockets[0];
        }
        /* Registered files keep the number free of nobody else's. */
        check_that(fd == number || door->is_fixed, "number %d instead of %d", fd, number);
        int n = async_reap(&async, results, DEPTH, DEPTH, PATIENCE);

        check_that(n == DEPTH, "%s on %s: %d of %d", door->name, fs->name, n, DEPTH);
        for (int i = 0; i < n; i++)
            check_that(results[i].result == LENGTH, "%s: write gave %lld", door->name, (long long)results[i].result);
        check_that(content_is(path, NEW + (uint64_t)turn, SIZE), "%s on %s: the file", door->name, fs->name);
        check_that(content_is(other, OLD, SIZE), "%s on %s: the other file", door->name, fs->name);
        close(fd);
        if (turn % 2 == 1)
            close(sockets[1]);
    }
    async_close(&async);
    if (counting()) {
        check_that(command_counts(0, NULL, "scrub", path, "mismatches") == 0, "%s on %s: scrub", door->name, fs->name);
        check_that(command_counts(0, NULL, "scrub", other, "mismatches") == 0, "%s: scrub", door->name);
    }
    fd = direct_open(other, O_RDONLY);
    direct_check(fd, OLD, 0, SIZE);
    close(fd);
    fd = direct_open(path, O_RDONLY);
    direct_check(fd, NEW + 3, 0, SIZE);
    close(fd);
    buffer_free(memory, SIZE);
}

START_TEST(a_number_is_used_again_while_writes_are_in_flight)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        for (const struct async_door *door = async_doors; door->name; door++)
            renumbered(&fs[i], door);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--refuse", refuse_mode},
                                                {"--refuse-chain", refuse_chain_mode},
                                                {"--damage", damage_mode},
                                                {"--no-space", no_space_mode},
                                                SEQUENCE_MODES,
                                                {NULL, NULL}};
    const TTest *const tests[] = {
        nowait_with_an_exhausted_pool_is_refused,          a_refused_request_cancels_its_chain,
        a_damaged_block_fails_the_read_that_meets_it,      no_space_left,
        a_number_is_used_again_while_writes_are_in_flight, NULL};

    return support_main(argc, argv, "requests that cannot be done", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 240, modes,
                        tests);
}
