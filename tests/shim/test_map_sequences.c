/*
 * Sequences that end in an EIO on healthy data if a rule of the map is missing: a full file system in the middle of a write,
 * sessions that open at once, inodes that come back, file systems that look alike, two stores for one file, and an append that
 * lands where the file is cut meanwhile.
 */
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { BYTES = SEQUENCE_BYTES, MEGABYTE = 1 << 20 };

/* --- No space left in the middle of a write ------------------------------------------------------------------------ */

enum { HOLES = 24, OLD = 1, NEW = 2 };

/* Is a block of the holes what was there before, what was being written, or still a hole? */
static bool plausible(const unsigned char *block, uint64_t offset)
{
    static const unsigned char zeros[BLOCK];

    return pattern_check(block, BLOCK, OLD, offset) == BLOCK || pattern_check(block, BLOCK, NEW, offset) == BLOCK ||
           memcmp(block, zeros, BLOCK) == 0;
}

/* Leave about `spare` bytes on the file system. */
static void fill_up(const char *directory, off_t spare)
{
    struct statvfs space;
    int fd = open(path_in(directory, "ballast"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    check_that(statvfs(directory, &space) == 0, "statvfs");
    off_t length = (off_t)(space.f_bavail * space.f_bsize) - spare;

    while (length > 0 && posix_fallocate(fd, 0, length) != 0)
        length -= MEGABYTE;
    close(fd);
}

/* arguments: directory of a small file system. */
static int no_space(int argc, char **argv)
{
    check_that(argc == 1, "usage: --no-space DIRECTORY");
    int holes = direct_open(path_in(argv[0], "holes"), O_RDWR | O_CREAT);
    int big = direct_open(path_in(argv[0], "big"), O_RDWR | O_CREAT);
    unsigned char *memory = direct_memory();
    off_t end = 0;
    size_t failures = 0;

    /* One known block in the middle of each hole. */
    for (off_t hole = 0; hole < HOLES; hole++)
        direct_write(holes, OLD, hole * MEGABYTE + 64 * BLOCK, BLOCK);
    fill_up(argv[0], 24 * MEGABYTE);
    for (ssize_t n = MEGABYTE; n == MEGABYTE; end += n) {
        pattern_fill(memory, MEGABYTE, NEW, (uint64_t)end);
        n = pwrite(big, memory, MEGABYTE, end);
        check_that(n > 0 || errno == ENOSPC, "write at %lld gave %zd", (long long)end, n);
        if (n < 0)
            break;
    }
    for (off_t hole = 0; hole < HOLES; hole++) {
        off_t at = hole * MEGABYTE;

        /* A little room, not enough for the whole hole. */
        check_that(end < 4 * MEGABYTE || ftruncate(big, end -= 80 * BLOCK) == 0, "ftruncate");
        pattern_fill(memory, MEGABYTE, NEW, (uint64_t)at);
        ssize_t n = pwrite(holes, memory, MEGABYTE, at);

        check_that(n > 0 || errno == ENOSPC, "write at %lld gave %zd", (long long)at, n);
        failures += n < MEGABYTE;
        n = pread(holes, memory, 65 * BLOCK, at);
        check_that(n >= 65 * BLOCK, "read of hole %lld gave %zd", (long long)hole, n);
        for (off_t block = 0; block < 65; block++)
            check_that(plausible(memory + block * BLOCK, (uint64_t)(at + block * BLOCK)), "hole %lld, block %lld",
                       (long long)hole, (long long)block);
    }
    check_that(failures > 0, "the file system was never full");
    for (off_t at = 0; at + MEGABYTE <= end; at += MEGABYTE)
        direct_check(big, NEW, at, MEGABYTE);
    /* Blocks that have their space can still be written. */
    direct_write(holes, NEW, 64 * BLOCK, BLOCK);
    sequence_no_mismatch();
    return 0;
}

START_TEST(no_space_left_in_the_middle_of_a_write)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);
    const char *image = path_in(fs[0].path, "image");
    char directory[4200];

    snprintf(directory, sizeof(directory), "%s/small", fs[0].path);
    for (size_t i = 0; i < count; i++) {
        /* The smallest that mkfs makes. */
        unsigned megabytes = strcmp(fs[i].name, "xfs") == 0 ? 320 : strcmp(fs[i].name, "ext4") == 0 ? 64 : 160;

        if (strcmp(fs[i].name, "disk") == 0 || !small_filesystem_mount(fs[i].name, image, directory, megabytes)) {
            test_skip("no small file system of kind %s", fs[i].name);
            continue;
        }
        sequence_run((const char *const[]){"--no-space", directory, NULL});
        sequence_idle_entries_are_true(path_in(directory, "big"), 256);
        sequence_idle_entries_are_true(path_in(directory, "holes"), 1);
        filesystem_unmount(directory);
    }
}
END_TEST

/* --- Sessions, inodes, look-alikes ---------------------------------------------------------------------------------- */

enum { SESSIONS = 8, PART = BYTES / SESSIONS };

/* arguments: file, number of the session. */
static int one_session(int argc, char **argv)
{
    check_that(argc == 2, "usage: --session FILE NUMBER");
    int fd = direct_open(argv[0], O_RDWR);
    off_t part = atoi(argv[1]) * PART;

    for (int i = 0; i < 5; i++) {
        direct_write(fd, 1, part, PART);
        direct_check(fd, 1, 0, BYTES);
    }
    sequence_no_mismatch();
    return 0;
}

/* arguments: file. Sessions that begin at once: half of them by fork alone, half by exec. */
static int crowd(int argc, char **argv)
{
    check_that(argc == 1, "usage: --crowd FILE");
    for (size_t round = 0; round < rounds(8, 200); round++) {
        pid_t pids[SESSIONS];

        for (int i = 0; i < SESSIONS; i++) {
            char number[8];

            snprintf(number, sizeof(number), "%d", i);
            pids[i] = fork();
            if (pids[i] == 0 && i % 2)
                _exit(one_session(2, (char *[]){argv[0], number}));
            if (pids[i] == 0) {
                execl("/proc/self/exe", "session", "--session", argv[0], number, NULL);
                _exit(127);
            }
        }
        for (int i = 0; i < SESSIONS; i++) {
            int status;

            check_that(waitpid(pids[i], &status, 0) == pids[i] && status == 0, "session %d ended with status %#x", i,
                       (unsigned)status);
        }
    }
    return 0;
}

static size_t maps_found;

static int count_map(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    ck_assert_msg(!strstr(path, ".bad"), "%s was set aside", path);
    maps_found += type == FTW_F;
    return 0;
}

START_TEST(sessions_that_open_at_once_share_one_map)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        const char *store = path_in(fs[i].path, "store");
        char variable[4300];

        mkdir(store, 0700);
        snprintf(variable, sizeof(variable), "BOUNCEIO_STORE=%s", store);
        make_file_behind(path, 1, BYTES);
        sequence_run_with((const char *const[]){variable, NULL}, (const char *const[]){"--crowd", path, NULL});
        sequence_run_with((const char *const[]){variable, NULL}, (const char *const[]){"--reread", path, "32", NULL});
        if (counting()) {
            maps_found = 0;
            ck_assert_int_eq(nftw(path_in(store, "maps"), count_map, 8, FTW_PHYS), 0);
            ck_assert_uint_eq(maps_found, 1);
        }
    }
}
END_TEST

/* arguments: directory. Files made and removed with the shim, until an inode comes back for one made without it. */
static int recycle(int argc, char **argv)
{
    struct stat mine, other;
    int recycled = 0;

    check_that(argc == 1, "usage: --recycle DIRECTORY");
    const char *path = path_in(argv[0], "recycled");

    for (int i = 0; i < 300 && recycled < 20; i++) {
        int fd = direct_open(path, O_RDWR | O_CREAT | O_EXCL);

        direct_write(fd, 1, 0, BYTES);
        check_that(fstat(fd, &mine) == 0 && close(fd) == 0 && unlink(path) == 0, "remove");
        make_file_behind(path, 2, BYTES);
        check_that(stat(path, &other) == 0, "stat");
        fd = direct_open(path, O_RDWR);
        direct_check(fd, 2, 0, BYTES);
        direct_write(fd, 3, 0, BYTES);
        direct_check(fd, 3, 0, BYTES);
        check_that(close(fd) == 0 && unlink(path) == 0, "remove");
        recycled += mine.st_ino == other.st_ino;
    }
    sequence_no_mismatch();
    printf("%d\n", recycled);
    return 0;
}

START_TEST(an_inode_that_comes_back_has_no_old_checksums)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++)
        sequence_run((const char *const[]){"--recycle", fs[i].path, NULL});
}
END_TEST

/* arguments: two files that have the same inode, birth time and file system id, with different content from now on. */
static int beside(int argc, char **argv)
{
    check_that(argc == 2, "usage: --beside FILE FILE");
    int one = direct_open(argv[0], O_RDWR);
    int other = direct_open(argv[1], O_RDWR);

    /* At once, so that the times of the files do not tell which is which. */
    direct_write(one, 2, 0, BYTES);
    direct_write(other, 3, 0, BYTES);
    direct_check(one, 2, 0, BYTES);
    direct_check(other, 3, 0, BYTES);
    direct_write(one, 4, 0, BYTES);
    direct_check(other, 3, 0, BYTES);
    direct_check(one, 4, 0, BYTES);
    direct_write(one, 1, 0, BYTES);
    direct_write(other, 1, 0, BYTES);
    sequence_no_mismatch();
    return 0;
}

static void look_alikes_are_told_apart(const char *one, const char *other)
{
    /* At full speed: delays would let the times of the files tell them apart. */
    static const char *const at_once[] = {"BOUNCEIO_TEST_DELAYS=0", NULL};

    for (int i = 0; i < 2; i++) {
        sequence_run_with(at_once, (const char *const[]){"--beside", one, other, NULL});
        sequence_sleep(50);
        sequence_run((const char *const[]){"--write", other, "1", NULL});
        sequence_run_with(at_once, (const char *const[]){"--beside", other, one, NULL});
        sequence_sleep(50);
        sequence_run((const char *const[]){"--write", one, "1", NULL});
    }
}

START_TEST(a_snapshot_beside_its_origin)
{
    struct test_fs fs;

    if (!test_filesystem("btrfs-nocow", &fs)) {
        test_skip("no btrfs");
        return;
    }
    const char *origin = path_in(fs.path, "origin");
    const char *snapshot = path_in(fs.path, "snapshot");

    ck_assert(system_command((const char *const[]){"btrfs", "-q", "subvolume", "create", origin, NULL}));
    ck_assert(system_command((const char *const[]){"chattr", "+C", origin, NULL}));
    sequence_run((const char *const[]){"--write", path_in(origin, "file"), "1", NULL});
    ck_assert(system_command((const char *const[]){"btrfs", "-q", "subvolume", "snapshot", origin, snapshot, NULL}));
    look_alikes_are_told_apart(path_in(origin, "file"), path_in(snapshot, "file"));
}
END_TEST

START_TEST(a_copy_of_a_file_system_beside_its_origin)
{
    static const char *const kinds[] = {"ext4", "xfs"};
    struct test_fs fs[TEST_FS_MAX];
    char image[4200], copy[4200], origin[4200], beside_it[4200];

    test_filesystems(fs);
    snprintf(image, sizeof(image), "%s/image", fs[0].path);
    snprintf(copy, sizeof(copy), "%s/copy", fs[0].path);
    snprintf(origin, sizeof(origin), "%s/origin", fs[0].path);
    snprintf(beside_it, sizeof(beside_it), "%s/beside", fs[0].path);
    for (size_t i = 0; i < 2; i++) {
        if (!small_filesystem_mount(kinds[i], image, origin, i == 0 ? 64 : 320)) {
            test_skip("no small file system of kind %s", kinds[i]);
            continue;
        }
        sequence_run((const char *const[]){"--write", path_in(origin, "file"), "1", NULL});
        filesystem_unmount(origin);
        ck_assert(system_command((const char *const[]){"cp", "--sparse=always", image, copy, NULL}));
        ck_assert(image_mount(kinds[i], image, origin) && image_mount(kinds[i], copy, beside_it));
        look_alikes_are_told_apart(path_in(origin, "file"), path_in(beside_it, "file"));
        filesystem_unmount(beside_it);
        filesystem_unmount(origin);
    }
}
END_TEST

START_TEST(two_stores_take_turns_on_one_file)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = sequence_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        char variable[2][4300];

        for (int store = 0; store < 2; store++) {
            char *directory = variable[store] + sprintf(variable[store], "BOUNCEIO_STORE=");

            snprintf(directory, 4200, "%s/store-%d", fs[i].path, store);
            mkdir(directory, 0700);
        }
        make_file_behind(path, 1, BYTES);
        for (int turn = 0; turn < 6; turn++) {
            const char *const environment[] = {variable[turn % 2], NULL};
            char before[8], after[8];

            snprintf(before, sizeof(before), "%d", 1 + turn);
            snprintf(after, sizeof(after), "%d", 2 + turn);
            /* From the third turn on, the store knows what its own program wrote two turns ago. */
            sequence_run_with(environment, (const char *const[]){"--check", path, before, turn < 2 ? "0" : "1", NULL});
            sequence_run_with(environment, (const char *const[]){"--write", path, after, NULL});
            sequence_sleep(50);
        }
    }
}
END_TEST

/* --- An append where the file is cut --------------------------------------------------------------------------------- */

enum { CUT_BLOCK = 10, CUT = CUT_BLOCK * BLOCK + SECTOR };

static bool is_cut(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && status.st_size == CUT;
}

/* The append is announced at the old end of the file; where the file is cut meanwhile, that block gets what nobody has announced. */
static void cut_under_an_append(const struct test_fs *fs)
{
    char wait[4300];
    const char *path = path_in(fs->path, "cut"), *sign = path_in(fs->path, "sign");
    struct actor appender = actor_new(NULL), truncator = actor_new(NULL);

    actor_opens(&appender, path);
    actor_writes(&appender, OLD, 0, BYTES / BLOCK);
    actor_opens(&truncator, path);
    actor_stops_at(&appender, "issue:stop");
    actor_begin(&appender, &(struct order){.act = ACT_APPEND, .seed = NEW, .offset = BYTES, .length = BLOCK});
    actor_await_stop(&appender);
    /* Between its last look at the block and what it says of it: if it says anything. */
    snprintf(wait, sizeof(wait), "conclude:wait=%s", sign);
    actor_stops_at(&truncator, wait);
    actor_begin(&truncator, &(struct order){.act = ACT_TRUNCATE, .length = CUT});
    while (!is_cut(path))
        sequence_sleep(1);
    sequence_sleep(200);
    actor_continue(&appender);
    ck_assert_int_eq(actor_finish(&appender).result, BLOCK);
    close(open(sign, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ck_assert_int_eq(actor_finish(&truncator).result, 0);
    actor_leaves(&truncator);
    actor_leaves(&appender);
    struct answer answer = survey_of(NULL, path, CUT_BLOCK + 2);

    ck_assert_msg(!strchr(answer.survey, 'E') && strspn(answer.survey, "v") >= CUT_BLOCK, "%s: \"%s\"", fs->name,
                  answer.survey);
    unlink(path);
    unlink(sign);
}

START_TEST(an_append_lands_where_the_file_is_cut)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = actors_can_play() ? sequence_filesystems(fs) : 0;

    for (size_t i = 0; i < count; i++)
        cut_under_an_append(&fs[i]);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {SEQUENCE_MODES,
                                                {"--no-space", no_space},
                                                {"--session", one_session},
                                                {"--crowd", crowd},
                                                {"--recycle", recycle},
                                                {"--beside", beside},
                                                ACTOR_MODE,
                                                {NULL, NULL}};
    const TTest *const tests[] = {
        no_space_left_in_the_middle_of_a_write,        sessions_that_open_at_once_share_one_map,
        an_inode_that_comes_back_has_no_old_checksums, a_snapshot_beside_its_origin,
        a_copy_of_a_file_system_beside_its_origin,     two_stores_take_turns_on_one_file,
        an_append_lands_where_the_file_is_cut,         NULL};

    return support_main(argc, argv, "map sequences", getenv("BOUNCEIO_TEST_FULL") ? 1800 : 120, modes, tests);
}
