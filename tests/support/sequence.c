/* Programs under the steps build, and the check that follows each of them. */
#include "support/sequence.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"

/* Each step of the protocol takes up to this long, one time in so many. */
#define DELAYS "BOUNCEIO_TEST_DELAYS=300:8"

size_t sequence_filesystems(struct test_fs *fs)
{
    struct test_fs all[TEST_FS_MAX];
    size_t count = test_filesystems(all);
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].name, "tmpfs") != 0 && strcmp(all[i].name, "btrfs") != 0)
            fs[kept++] = all[i];
    if (kept == 0)
        fs[kept++] = all[0];
    return kept;
}

void sequence_run_with(const char *const *environment, const char *const *argv)
{
    const char *list[8] = {DELAYS};
    const char *steps = getenv("BOUNCEIO_SHIM_STEPS");
    const char *shim = steps ? steps : getenv("BOUNCEIO_SHIM");
    char preload[4200];
    size_t count = 1;

    if (counting()) {
        snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", shim ? shim : "");
        list[count++] = preload;
    }
    for (; environment && *environment && count < 7; environment++)
        list[count++] = *environment;
    struct child child = child_run_self(WITHOUT_SHIM, list, argv);

    ck_assert_msg(child_succeeded(&child), "%s %s", argv[0], argv[1] ? argv[1] : "");
    ck_assert_msg(!strstr(child.errors, "checksum mismatch"), "%s", child.errors);
    child_free(&child);
}

void sequence_run(const char *const *argv)
{
    sequence_run_with(NULL, argv);
}

int sequence_reread(int argc, char **argv)
{
    check_that(argc == 2, "usage: --reread FILE VERIFIED");
    int fd = direct_open(argv[0], O_RDONLY);
    uint64_t size = size_behind(argv[0]);

    for (uint64_t at = 0; at < size; at += 64 * BLOCK) {
        ssize_t n = pread(fd, direct_memory(), 64 * BLOCK, (off_t)at);

        check_that(n > 0, "reading again at %llu gave %zd", (unsigned long long)at, n);
    }
    if (counting()) {
        struct bounceio_stats stats = counters();

        check_that(stats.mismatches == 0, "%llu mismatches", (unsigned long long)stats.mismatches);
        check_that(stats.changed_outside == 0, "%llu taken for outside changes",
                   (unsigned long long)stats.changed_outside);
        check_that(stats.blocks_verified >= strtoull(argv[1], NULL, 10), "only %llu blocks verified",
                   (unsigned long long)stats.blocks_verified);
    }
    return 0;
}

void sequence_idle_entries_are_true(const char *path, size_t verified)
{
    char least[32];

    snprintf(least, sizeof(least), "%zu", verified);
    sequence_run((const char *const[]){"--reread", path, least, NULL});
}

void sequence_no_mismatch(void)
{
    struct bounceio_stats stats = counters();

    check_that(stats.mismatches == 0, "%llu mismatches", (unsigned long long)stats.mismatches);
}

void sequence_sleep(unsigned milliseconds)
{
    usleep(milliseconds * 1000);
}

int sequence_write(int argc, char **argv)
{
    check_that(argc == 2, "usage: --write FILE SEED");
    direct_write(direct_open(argv[0], O_RDWR | O_CREAT), strtoull(argv[1], NULL, 10), 0, SEQUENCE_BYTES);
    sequence_no_mismatch();
    return 0;
}

int sequence_check(int argc, char **argv)
{
    check_that(argc == 3, "usage: --check FILE SEED NOTICED");
    int fd = direct_open(argv[0], O_RDWR);

    direct_check(fd, strtoull(argv[1], NULL, 10), 0, SEQUENCE_BYTES);
    sequence_no_mismatch();
    struct bounceio_stats once = counters();

    check_that(!counting() || (once.changed_outside > 0) == (argv[2][0] == '1'), "%llu outside changes",
               (unsigned long long)once.changed_outside);
    direct_check(fd, strtoull(argv[1], NULL, 10), 0, SEQUENCE_BYTES);
    check_that(counters().changed_outside == once.changed_outside, "what was adopted is not known");
    sequence_no_mismatch();
    return 0;
}

bool system_command(const char *const *argv)
{
    struct child child = child_run(WITHOUT_SHIM, NULL, argv);
    bool succeeded = WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0;

    if (!succeeded)
        printf("%s: %s", argv[0], child.errors);
    child_free(&child);
    return succeeded;
}

bool image_mount(const char *kind, const char *image, const char *directory)
{
    bool xfs = strcmp(kind, "xfs") == 0;
    const char *type = strncmp(kind, "btrfs", 5) == 0 ? "btrfs" : kind;

    mkdir(directory, 0700);
    return system_command(
        (const char *const[]){"mount", "-t", type, "-o", xfs ? "loop,nouuid" : "loop", image, directory, NULL});
}

bool small_filesystem_mount(const char *kind, const char *image, const char *directory, unsigned megabytes)
{
    char mkfs[32];
    bool nocow = strcmp(kind, "btrfs-nocow") == 0;

    if (geteuid() != 0)
        return false;
    make_file_behind(image, 0, 0);
    ck_assert_int_eq(truncate(image, (off_t)megabytes << 20), 0);
    snprintf(mkfs, sizeof(mkfs), "mkfs.%s", nocow ? "btrfs" : kind);
    const char *quietly[] = {mkfs, "-q", image, NULL};

    if (!system_command(quietly) || !image_mount(kind, image, directory))
        return false;
    return !nocow || system_command((const char *const[]){"chattr", "+C", directory, NULL});
}

void filesystem_unmount(const char *directory)
{
    if (!system_command((const char *const[]){"umount", directory, NULL}))
        support_die("cannot unmount %s", directory);
}
