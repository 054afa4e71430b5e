/*
 * A store that cannot grow: its file system is full, or the program may not make files that long. The program's own direct I/O
 * goes on, and no signal that it would not have got without the shim reaches it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { SEED = 91, BYTES = 4 * BLOCK };

static enum preload as_we_run(void)
{
    return counting() ? WITH_SHIM : WITHOUT_SHIM;
}

/* The path of a new file on the first file system. */
static const char *new_path(void)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    return path_in(fs[0].path, "file");
}

/* --- A full file system ------------------------------------------------------------------------------------------- */

static char store[4096];

/* Make `store` a file system of its own with this many free pages. @return false, having said why, without root. */
static bool store_of_pages(unsigned pages)
{
    char options[64];

    if (!store[0]) {
        snprintf(store, sizeof(store), "%s/bounceio-store.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(store))
            support_die("cannot make %s", store);
    }
    snprintf(options, sizeof(options), "mode=0700,size=%u", (pages + 1) * BLOCK);
    if (mount("tmpfs", store, "tmpfs", 0, options) == 0) {
        make_file_behind(path_in(store, "full"), SEED, BLOCK);
        return true;
    }
    test_skip("a file system of %u pages needs root: %s", pages, strerror(errno));
    rmdir(store);
    return false;
}

static void store_unmount(void)
{
    if (umount2(store, MNT_DETACH) != 0)
        support_die("cannot unmount %s", store);
}

/* FILE: writes and reads with O_DIRECT. */
static int writer(int argc, char **argv)
{
    check_that(argc >= 1, "what file?");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
    return 0;
}

/* FILE STORE: the same, before and after the store's file system has been filled. */
static int filler(int argc, char **argv)
{
    static char page[BLOCK];
    char other[4200];

    check_that(argc == 2, "what files?");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    int rest = open(path_in(argv[1], "rest"), O_WRONLY | O_CREAT, 0600);

    direct_write(fd, SEED, 0, BYTES);
    while (write(rest, page, sizeof(page)) == BLOCK)
        ;
    check_that(errno == ENOSPC, "the store is not full");
    for (off_t offset = 0; offset < (off_t)256 << 20; offset += 8 << 20) {
        direct_write(fd, SEED, offset, BYTES);
        direct_check(fd, SEED, offset, BYTES);
    }
    snprintf(other, sizeof(other), "%s.other", argv[0]);
    return writer(1, (char *[]){other});
}

/* FILE: writes further out. */
static int writer_beyond(int argc, char **argv)
{
    check_that(argc == 1, "what file?");
    direct_write(direct_open(argv[0], O_RDWR | O_CREAT), SEED, BYTES, BYTES);
    return 0;
}

/* Run a mode with `store`; it must not notice anything. */
static void succeeds_in_store(const char *mode, const char *path, unsigned pages)
{
    char variable[4200];

    snprintf(variable, sizeof(variable), "BOUNCEIO_STORE=%s", store);
    struct child child = child_run_self(as_we_run(), (const char *const[]){variable, NULL},
                                        (const char *const[]){mode, path, store, NULL});

    ck_assert_msg(child_succeeded(&child), "with %u pages", pages);
    child_free(&child);
}

START_TEST(a_store_on_a_full_file_system_costs_checksums_alone)
{
    const char *path = new_path();

    for (unsigned pages = 0; pages <= 800 && store_of_pages(pages); pages += pages / 4 + 1) {
        unlink(path);
        succeeds_in_store("--writer", path, pages);
        store_unmount();
    }
    rmdir(store);
}
END_TEST

START_TEST(a_store_that_fills_while_in_use_costs_checksums_alone)
{
    const char *path = new_path();

    for (unsigned pages = 40; pages <= 3000 && store_of_pages(pages); pages *= 4) {
        unlink(path);
        succeeds_in_store("--filler", path, pages);
        store_unmount();
    }
    rmdir(store);
}
END_TEST

/* --- RLIMIT_FSIZE ------------------------------------------------------------------------------------------------- */

static void limit_file_sizes(rlim_t bytes)
{
    struct rlimit limit;

    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_program_within_its_limit_on_file_sizes_runs_to_its_end)
{
    const char *const mode[] = {"--writer", new_path(), NULL};

    for (rlim_t bytes = BYTES; bytes <= 1 << 24; bytes *= 4) {
        limit_file_sizes(bytes);
        struct child child = child_run_self(as_we_run(), NULL, mode);

        ck_assert_msg(child_succeeded(&child), "with a limit of %llu", (unsigned long long)bytes);
        child_free(&child);
    }
}
END_TEST

START_TEST(a_limit_on_file_sizes_set_during_direct_io_leaves_it_alone)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    int fd = direct_open(path_in(fs[0].path, "file"), O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    limit_file_sizes(BYTES);
    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
    /* A second file needs a map of its own. */
    fd = direct_open(path_in(fs[0].path, "other"), O_RDWR | O_CREAT);
    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
}
END_TEST

START_TEST(a_program_beyond_its_limit_on_file_sizes_gets_the_signal)
{
    const char *const mode[] = {"--writer-beyond", new_path(), NULL};

    limit_file_sizes(BYTES);
    struct child child = child_run_self(as_we_run(), NULL, mode);

    ck_assert(WIFSIGNALED(child.status));
    ck_assert_int_eq(WTERMSIG(child.status), SIGXFSZ);
    child_free(&child);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {
        {"--writer", writer}, {"--writer-beyond", writer_beyond}, {"--filler", filler}, {NULL, NULL}};
    const TTest *const tests[] = {a_store_on_a_full_file_system_costs_checksums_alone,
                                  a_store_that_fills_while_in_use_costs_checksums_alone,
                                  a_program_within_its_limit_on_file_sizes_runs_to_its_end,
                                  a_limit_on_file_sizes_set_during_direct_io_leaves_it_alone,
                                  a_program_beyond_its_limit_on_file_sizes_gets_the_signal,
                                  NULL};

    return support_main(argc, argv, "store limits", 60, modes, tests);
}
