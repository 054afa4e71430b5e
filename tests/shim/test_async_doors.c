/*
 * What must hold for every asynchronous read and write, by every front door (support/async.h), on every file system.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/async.h"
#include "support/command.h"
#include "support/direct.h"
#include "support/racer.h"

enum { DEPTH = 32, LENGTH = 16 * BLOCK, OLD = 1, NEW = 2 };

/* One door on one file system, with a file of DEPTH * LENGTH bytes of the pattern OLD, written directly. */
struct scene {
    const struct test_fs *fs;
    const struct async_door *door;
    struct async async;
    const char *path;
    int fd;
    unsigned char *memory; /* DEPTH * LENGTH bytes and a page, aligned */
};

enum { SIZE = DEPTH * LENGTH };

#define scene_that(scene, condition, format, ...)                                                                      \
    check_that(condition, "%s on %s: " format, (scene)->door->name, (scene)->fs->name __VA_OPT__(, ) __VA_ARGS__)

static bool scene_begin(struct scene *scene, const struct test_fs *fs, const struct async_door *door)
{
    *scene = (struct scene){.fs = fs, .door = door, .path = path_in(fs->path, "file")};
    if (!async_open(&scene->async, door, 2 * DEPTH))
        return false;
    scene->memory = buffer_new(SIZE + BLOCK);
    scene->fd = direct_open(scene->path, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(scene->fd, OLD, 0, SIZE);
    async_use(&scene->async, scene->fd, scene->memory, SIZE + BLOCK);
    return true;
}

static void scene_end(struct scene *scene)
{
    async_close(&scene->async);
    close(scene->fd);
    unlink(scene->path);
    buffer_free(scene->memory, SIZE + BLOCK);
}

/* Every block agrees with its checksum, by this program's reading and by scrub. */
static void expect_verified(const struct scene *scene)
{
    struct bounceio_stats before = counters();

    for (uint64_t at = 0; at < SIZE; at += LENGTH) {
        ssize_t n = pread(scene->fd, aligned_memory(), LENGTH, (off_t)at);

        scene_that(scene, n == LENGTH, "read at %llu gave %zd", (unsigned long long)at, n);
    }
    if (!counting())
        return;
    struct bounceio_stats after = counters();

    scene_that(scene, after.blocks_verified - before.blocks_verified == SIZE / BLOCK, "%llu blocks of %d verified",
               (unsigned long long)(after.blocks_verified - before.blocks_verified), SIZE / BLOCK);
    scene_that(scene, after.mismatches == before.mismatches, "mismatches");
    scene_that(scene, command_counts(0, NULL, "scrub", scene->path, "mismatches") == 0, "scrub");
}

/* Every request was bounced or read in place, none let through. */
static void expect_all_seen(const struct scene *scene, const struct bounceio_stats *before, uint64_t writes,
                            uint64_t reads)
{
    struct bounceio_stats after = counters();

    if (!counting())
        return;
    scene_that(scene, after.passed_through == before->passed_through, "requests passed through");
    scene_that(scene, after.direct_writes - before->direct_writes == writes, "%llu writes of %llu seen",
               (unsigned long long)(after.direct_writes - before->direct_writes), (unsigned long long)writes);
    scene_that(scene, after.direct_reads - before->direct_reads == reads, "%llu reads of %llu seen",
               (unsigned long long)(after.direct_reads - before->direct_reads), (unsigned long long)reads);
}

static void by_every_door(void (*play)(struct scene *scene))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (const struct async_door *door = async_doors; door->name; door++)
        for (size_t i = 0; i < count; i++) {
            struct scene scene;

            if (!scene_begin(&scene, &fs[i], door))
                continue;
            play(&scene);
            scene_end(&scene);
        }
}

/* Reap `count` results of requests with tags below `tags`, each once. */
static void reap_all(struct scene *scene, unsigned count, int64_t *of_tag, unsigned tags)
{
    struct async_result results[2 * DEPTH];
    bool seen[2 * DEPTH] = {false};

    for (unsigned done = 0; done < count;) {
        int n = async_reap(&scene->async, results, 1, 2 * DEPTH, ASYNC_PATIENCE);

        scene_that(scene, n > 0, "%u results of %u, then %d", done, count, n);
        for (int i = 0; i < n; i++) {
            uint64_t tag = results[i].tag;

            scene_that(scene, tag < tags && !seen[tag], "result of tag %llu", (unsigned long long)tag);
            seen[tag] = true;
            of_tag[tag] = results[i].result;
        }
        done += (unsigned)n;
    }
}

static void submit_all(struct scene *scene, const struct async_request *list, unsigned count)
{
    for (unsigned done = 0; done < count;) {
        int n = async_submit(&scene->async, list + done, count - done);

        scene_that(scene, n > 0, "submitted %u of %u, then %d", done, count, n);
        done += (unsigned)n;
    }
}

/* --- Stable pages ------------------------------------------------------------------------------------------------- */

static void write_and_overwrite(struct scene *scene, unsigned char rubbish)
{
    struct async_request list[DEPTH];
    int64_t results[DEPTH];

    pattern_fill(scene->memory, SIZE, NEW, 0);
    for (unsigned i = 0; i < DEPTH; i++)
        list[i] = async_write(scene->fd, scene->memory + (size_t)i * LENGTH, LENGTH, (uint64_t)i * LENGTH, i);
    submit_all(scene, list, DEPTH);
    for (unsigned i = DEPTH; i-- > 0;) /* what was submitted last has been in flight for the shortest time */
        memset(scene->memory + (size_t)i * LENGTH, rubbish, LENGTH);
    reap_all(scene, DEPTH, results, DEPTH);
    for (unsigned i = 0; i < DEPTH; i++)
        scene_that(scene, results[i] == LENGTH, "write %u gave %lld", i, (long long)results[i]);
}

static void overwritten_at_once(struct scene *scene)
{
    struct bounceio_stats before = counters();
    size_t turns = rounds(4, 200);

    for (size_t turn = 0; turn < turns; turn++) {
        write_and_overwrite(scene, (unsigned char)turn);
        if (scene->door->setup &
            (1U << 1)) /* IORING_SETUP_SQPOLL: a request is taken when the queue's head has passed it */
            continue;
        scene_that(scene, content_is(scene->path, NEW, SIZE), "the file is not what was submitted");
    }
    expect_all_seen(scene, &before, turns * DEPTH, 0);
    expect_verified(scene);
}

START_TEST(buffers_overwritten_right_after_submission)
{
    by_every_door(overwritten_at_once);
}
END_TEST

/* Arguments: door, file. Prints 1 if what is on the file is not what was submitted. */
static int control(int argc, char **argv)
{
    static const struct test_fs here = {.name = "disk"};
    struct scene scene = {.fs = &here, .door = async_door(argv[0]), .path = argv[1], .memory = buffer_new(SIZE)};
    bool different = false;

    check_that(argc == 2, "usage: --control DOOR FILE");
    scene.fd = direct_open(scene.path, O_RDWR | O_CREAT | O_TRUNC);
    check_that(async_open(&scene.async, scene.door, DEPTH), "no %s", scene.door->name);
    /* On a quick device, or a busy processor, the writes may be over before the memory is overwritten. */
    const int64_t end = async_now() + 20000;

    for (unsigned attempt = 0; !different && async_now() < end; attempt++) {
        write_and_overwrite(&scene, (unsigned char)attempt);
        different = !content_is(scene.path, NEW, SIZE);
    }
    printf("%d\n", different);
    return 0;
}

START_TEST(without_the_shim_overwritten_buffers_reach_the_file)
{
    static const char *const doors[] = {"libaio", "liburing"};
    struct test_fs fs;

    if (!test_filesystem("xfs", &fs) && !test_filesystem("disk", &fs))
        ck_abort_msg("no file system");
    for (size_t i = 0; i < 2; i++) {
        struct child child =
            child_run_self(WITHOUT_SHIM, (const char *const[]){"BOUNCEIO_TEST_NATIVE=1", NULL},
                           (const char *const[]){"--control", doors[i], path_in(fs.path, "file"), NULL});

        ck_assert(child_succeeded(&child));
        ck_assert_msg(atoi(child.output) == 1, "%s", doors[i]);
        child_free(&child);
    }
}
END_TEST

static void racing(struct scene *scene)
{
    struct racer racer;
    struct async_request list[DEPTH];
    int64_t results[DEPTH];

    racer_start(&racer, scene->memory, SIZE);
    for (size_t turn = 0; turn < rounds(8, 1000); turn++) {
        for (unsigned i = 0; i < DEPTH; i++)
            list[i] = async_write(scene->fd, scene->memory + (size_t)i * LENGTH, LENGTH, (uint64_t)i * LENGTH, i);
        submit_all(scene, list, DEPTH);
        reap_all(scene, DEPTH, results, DEPTH);
        for (unsigned i = 0; i < DEPTH; i++)
            scene_that(scene, results[i] == LENGTH, "write %u gave %lld", i, (long long)results[i]);
    }
    racer_stop(&racer);
    expect_verified(scene);
}

START_TEST(racing_buffers_verify)
{
    by_every_door(racing);
}
END_TEST

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static void unaligned(struct scene *scene)
{
    static const size_t shifts[] = {1, 8, 512, 4095};
    struct bounceio_stats before = counters();

    if (!counting())
        return;
    for (size_t i = 0; i < 4; i++) {
        unsigned char *memory = scene->memory + shifts[i];
        uint64_t at = i * LENGTH;

        pattern_fill(memory, LENGTH, NEW + i, at);
        struct async_request write = async_write(scene->fd, memory, LENGTH, at, 1);

        scene_that(scene, async_do(&scene->async, &write) == LENGTH, "write from memory at +%zu", shifts[i]);
        memset(memory, 0, LENGTH);
        struct async_request read = async_read(scene->fd, memory, LENGTH, at, 2);

        scene_that(scene, async_do(&scene->async, &read) == LENGTH, "read into memory at +%zu", shifts[i]);
        scene_that(scene, pattern_check(memory, LENGTH, NEW + i, at) == LENGTH, "content at +%zu", shifts[i]);
    }
    expect_all_seen(scene, &before, 4, 4);
    expect_verified(scene);
}

START_TEST(unaligned_memory_works)
{
    by_every_door(unaligned);
}
END_TEST

static void vectors(struct scene *scene)
{
    size_t odd = counting() ? 100 : 0;
    struct iovec vector[] = {
        {scene->memory + LENGTH, BLOCK + odd}, {scene->memory + 2 * LENGTH, 0}, {scene->memory, 2 * BLOCK - odd}};
    size_t length = 3 * BLOCK;
    struct async_request request = {
        .is_write = true, .fd = scene->fd, .vector = vector, .segments = 3, .offset = 5 * BLOCK, .tag = 7};

    pattern_fill(vector[0].iov_base, vector[0].iov_len, NEW, 5 * BLOCK);
    pattern_fill(vector[2].iov_base, vector[2].iov_len, NEW, 5 * BLOCK + vector[0].iov_len);
    scene_that(scene, async_do(&scene->async, &request) == (int64_t)length, "vectored write");
    memset(scene->memory, 0, SIZE);
    request.is_write = false;
    scene_that(scene, async_do(&scene->async, &request) == (int64_t)length, "vectored read");
    scene_that(scene, pattern_check(vector[0].iov_base, vector[0].iov_len, NEW, 5 * BLOCK) == vector[0].iov_len,
               "first segment");
    scene_that(scene,
               pattern_check(vector[2].iov_base, vector[2].iov_len, NEW, 5 * BLOCK + vector[0].iov_len) ==
                   vector[2].iov_len,
               "last segment");
    expect_verified(scene);
}

START_TEST(vectors_are_gathered_and_scattered)
{
    by_every_door(vectors);
}
END_TEST

/* The first `good` of 8 pages can be used. */
static void partly_bad_write(struct scene *scene, size_t good)
{
    enum { ASKED = 8 * BLOCK, AT = 4 * BLOCK };
    unsigned char *memory = buffer_new(ASKED);
    static unsigned char content[SIZE];

    direct_write(scene->fd, OLD, 0, SIZE);
    pattern_fill(memory, ASKED, NEW, AT);
    check_that(mprotect(memory + good * BLOCK, ASKED - good * BLOCK, PROT_NONE) == 0, "mprotect");
    struct async_request request = async_write(scene->fd, memory, ASKED, AT, 3);
    int64_t result = async_do(&scene->async, &request);
    size_t written = result > 0 ? (size_t)result : 0;

    if (counting() && good > 0)
        scene_that(scene, result == (int64_t)(good * BLOCK), "%zu pages are good: %lld", good, (long long)result);
    scene_that(scene, result == -EFAULT || (written > 0 && written <= good * BLOCK), "%zu pages are good: %lld", good,
               (long long)result);
    check_that(read_behind(scene->path, content, SIZE, 0) == SIZE, "the size has changed");
    scene_that(scene, pattern_check(content, AT, OLD, 0) == AT, "changed before the write");
    scene_that(scene, pattern_check(content + AT, written, NEW, AT) == written, "not what was written");
    if (counting())
        scene_that(scene,
                   pattern_check(content + AT + written, SIZE - AT - written, OLD, AT + written) == SIZE - AT - written,
                   "changed behind %zu bytes", written);
    check_that(mprotect(memory, ASKED, PROT_READ | PROT_WRITE) == 0, "mprotect");
    buffer_free(memory, ASKED);
}

static void partly_bad_read(struct scene *scene, size_t good)
{
    enum { ASKED = 8 * BLOCK, AT = 4 * BLOCK };
    unsigned char *memory = buffer_new(ASKED);

    check_that(mprotect(memory + good * BLOCK, ASKED - good * BLOCK, PROT_READ) == 0, "mprotect");
    struct async_request request = async_read(scene->fd, memory, ASKED, AT, 4);
    int64_t result = async_do(&scene->async, &request);
    size_t got = result > 0 ? (size_t)result : 0;

    scene_that(scene, result == -EFAULT || (got > 0 && got <= good * BLOCK), "reading, %zu pages are good: %lld", good,
               (long long)result);
    scene_that(scene, pattern_check(memory, got, OLD, AT) == got, "not what is there");
    buffer_free(memory, ASKED);
}

static void bad_pointers(struct scene *scene)
{
    static void *const nowhere[] = {NULL, (void *)0x1000, (void *)0x8000000000000000, (void *)0xffffffff80000000};

    for (size_t good = 0; good < 8; good += good < 2 ? 1 : 3)
        partly_bad_write(scene, good);
    direct_write(scene->fd, OLD, 0, SIZE);
    for (size_t good = 0; good < 8; good += 3)
        partly_bad_read(scene, good);
    for (size_t i = 0; i < 4; i++) {
        struct async_request request = async_write(scene->fd, nowhere[i], BLOCK, 0, 5);

        scene_that(scene, async_do(&scene->async, &request) == -EFAULT, "write from %p", nowhere[i]);
        request.is_write = false;
        scene_that(scene, async_do(&scene->async, &request) == -EFAULT, "read into %p", nowhere[i]);
        request = (struct async_request){.fd = scene->fd, .vector = nowhere[1], .segments = 2, .tag = 6};
        scene_that(scene, async_do(&scene->async, &request) == -EFAULT, "segments at %p", nowhere[1]);
    }
    scene_that(scene, content_is(scene->path, OLD, SIZE), "a refused write wrote");
    expect_verified(scene);
}

START_TEST(bad_pointers_are_refused_or_cut_short)
{
    by_every_door(bad_pointers);
}
END_TEST

/* --- Files -------------------------------------------------------------------------------------------------------- */

/* A blocking read of the same says what is right. */
static void end_of_file(struct scene *scene)
{
    static const uint64_t beyond[] = {0, SECTOR, BLOCK - 100, BLOCK, 5 * BLOCK + 1};

    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        off_t size = (off_t)(8 * BLOCK + beyond[i]);

        check_that(ftruncate(scene->fd, 0) == 0, "ftruncate");
        direct_write(scene->fd, NEW, 0, 16 * BLOCK);
        check_that(ftruncate(scene->fd, size) == 0, "ftruncate");
        for (off_t at = 0; at < size + 3 * BLOCK; at += BLOCK) {
            struct async_request request = async_read(scene->fd, scene->memory, 4 * BLOCK, (uint64_t)at, 1);
            ssize_t expected = pread(scene->fd, aligned_memory(), 4 * BLOCK, at);
            int64_t result = async_do(&scene->async, &request);

            scene_that(scene, result == expected, "size %lld, read at %lld: %lld, not %zd", (long long)size,
                       (long long)at, (long long)result, expected);
            scene_that(scene, pattern_check(scene->memory, (size_t)result, NEW, (uint64_t)at) == (size_t)result,
                       "content at %lld", (long long)at);
        }
    }
    if (counting())
        scene_that(scene, command_counts(0, NULL, "scrub", scene->path, "mismatches") == 0, "scrub");
}

START_TEST(reads_end_where_the_file_ends)
{
    by_every_door(end_of_file);
}
END_TEST

/* Writes beyond the end, out of order, in flight together. */
static void growing(struct scene *scene)
{
    struct async_request list[DEPTH];
    int64_t results[DEPTH];

    check_that(ftruncate(scene->fd, 0) == 0, "ftruncate");
    pattern_fill(scene->memory, SIZE, NEW, 0);
    for (unsigned i = 0; i < DEPTH; i++) {
        unsigned place = i * 5 % DEPTH;

        list[i] = async_write(scene->fd, scene->memory + (size_t)place * LENGTH, LENGTH, (uint64_t)place * LENGTH, i);
    }
    submit_all(scene, list, DEPTH);
    reap_all(scene, DEPTH, results, DEPTH);
    for (unsigned i = 0; i < DEPTH; i++)
        scene_that(scene, results[i] == LENGTH, "write %u gave %lld", i, (long long)results[i]);
    scene_that(scene, content_is(scene->path, NEW, SIZE), "content");
    expect_verified(scene);
}

START_TEST(files_grow)
{
    by_every_door(growing);
}
END_TEST

/* What the kernel says of impossible requests. */
static void refusals(struct scene *scene)
{
    int plain = open(scene->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    struct async_request request = async_write(plain, scene->memory, BLOCK, 0, 1);

    scene_that(scene, async_do(&scene->async, &request) == -EBADF, "write by a descriptor for reading");
    close(plain);
    request = async_write(plain, scene->memory, BLOCK, 0, 1);
    scene_that(scene, async_do(&scene->async, &request) == -EBADF, "write by a closed descriptor");
    request = async_write(-1, scene->memory, BLOCK, 0, 1);
    scene_that(scene, async_do(&scene->async, &request) == -EBADF, "write by descriptor -1");
    request = async_write(scene->fd, scene->memory, BLOCK, 100, 1);
    if (pwrite(scene->fd, scene->memory, BLOCK, 100) < 0)
        scene_that(scene, async_do(&scene->async, &request) == -EINVAL, "write at an odd offset");
    direct_write(scene->fd, OLD, 0, SIZE);
    request = async_write(scene->fd, scene->memory, 0, 0, 1);
    scene_that(scene, async_do(&scene->async, &request) == 0, "write of nothing");
    request = async_read(scene->fd, scene->memory, BLOCK, 0, 1);
    request.flags = 1 << 30;
    int64_t result = async_do(&scene->async, &request);

    scene_that(scene, result == -EOPNOTSUPP || result == -EINVAL, "unknown flag: %lld", (long long)result);
    scene_that(scene, content_is(scene->path, OLD, SIZE), "a refused write wrote");
    expect_verified(scene);
}

START_TEST(impossible_requests_get_the_kernels_errors)
{
    by_every_door(refusals);
}
END_TEST

/* --- Cancellation ------------------------------------------------------------------------------------------------- */

/* Cancel every third. @return how many results that has brought. */
static unsigned cancel_some(struct scene *scene, int64_t *of_tag, unsigned many)
{
    struct async_result others[2 * DEPTH];
    unsigned brought = 0;

    for (unsigned i = 0; i < many; i += 3) {
        unsigned count;
        int result = async_cancel(&scene->async, i, others, &count);

        scene_that(scene,
                   result == 0 || result == -EINVAL || result == -EAGAIN || result == -ENOENT || result == -EALREADY,
                   "cancelling gave %d", result);
        for (unsigned k = 0; k < count; k++)
            of_tag[others[k].tag] = others[k].result;
        brought += count;
    }
    return brought;
}

/* Every request has one end, and is all there or cancelled. */
static void cancelled(struct scene *scene)
{
    enum { MANY = 16, NOTHING = 1 };
    struct async_request list[MANY];
    int64_t results[MANY];

    pattern_fill(scene->memory, SIZE, NEW, 0);
    for (unsigned i = 0; i < MANY; i++) {
        results[i] = NOTHING;
        list[i] = async_write(scene->fd, scene->memory + (size_t)i * LENGTH, LENGTH, (uint64_t)i * LENGTH, i);
    }
    submit_all(scene, list, MANY);
    unsigned brought = cancel_some(scene, results, MANY);

    reap_all(scene, MANY - brought, results, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        scene_that(scene, results[i] == LENGTH || results[i] == -ECANCELED, "write %u gave %lld", i,
                   (long long)results[i]);
        if (results[i] == -ECANCELED)
            continue;
        struct async_request read = async_read(scene->fd, scene->memory, LENGTH, (uint64_t)i * LENGTH, 1);

        scene_that(scene, async_do(&scene->async, &read) == LENGTH, "reading back");
        scene_that(scene, pattern_check(scene->memory, LENGTH, NEW, (uint64_t)i * LENGTH) == LENGTH, "content");
    }
    if (counting())
        scene_that(scene, command_counts(0, NULL, "scrub", scene->path, "mismatches") == 0, "scrub");
}

START_TEST(requests_that_are_cancelled_end_once)
{
    by_every_door(cancelled);
}
END_TEST

/* --- The doors themselves ----------------------------------------------------------------------------------------- */

/* What happens after an io_uring_queue_exit, to a thread that has gone on to something else. */
START_TEST(closed_rings_interrupt_no_reaping)
{
    struct async context, ring;
    struct async_result result;

    if (!async_open(&context, async_door("libaio"), 1))
        return;
    for (int round = 0; round < 200; round++) {
        if (!async_open(&ring, async_door("liburing"), 1))
            return;
        async_close(&ring);
        int n = async_reap(&context, &result, 1, 1, 2);

        check_that(n == 0, "round %d: reaping gave %d", round, n);
    }
    async_close(&context);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--control", control}, {NULL, NULL}};
    const TTest *const tests[] = {buffers_overwritten_right_after_submission,
                                  without_the_shim_overwritten_buffers_reach_the_file,
                                  racing_buffers_verify,
                                  unaligned_memory_works,
                                  vectors_are_gathered_and_scattered,
                                  bad_pointers_are_refused_or_cut_short,
                                  reads_end_where_the_file_ends,
                                  files_grow,
                                  impossible_requests_get_the_kernels_errors,
                                  requests_that_are_cancelled_end_once,
                                  closed_rings_interrupt_no_reaping,
                                  NULL};

    return support_main(argc, argv, "every front door", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
