/*
 * The program's own fsync, beside those that the shim makes for itself: it learns of every error.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

enum { SWEEP_MS = 20, OTHER_REGION = 64 << 20 };

/* From here on, fsync of this number fails. */
static void break_fsync_of(int fd)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)fd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        support_die("cannot install a filter");
}

/* --write-and-sync FILE: a flush fails that the program did not ask for. The second number of the description is not broken. */
static int write_and_sync(int argc, char **argv)
{
    int fd = argc > 0 ? direct_open(argv[0], O_RDWR | O_CREAT) : -1, same = dup(fd);
    if (same < 0)
        support_die("cannot open a file");
    direct_write(fd, 1, 0, BLOCK);
    break_fsync_of(fd);
    for (int i = 0; i < 10; i++) {
        direct_write(fd, 1, OTHER_REGION, BLOCK);
        sequence_sleep(2 * SWEEP_MS);
    }
    int first = fsync(same), error = errno, second = fsync(same);
    if (first != -1 || error != EIO)
        support_die("the program was not told: %d", first);
    return second == 0 ? 0 : 1;
}

START_TEST(error_of_a_flush_that_the_program_did_not_ask_for_is_its_next_fsyncs)
{
    struct test_fs fs[TEST_FS_MAX];
    if (!counting()) {
        test_skip("no shim");
        return;
    }
    sequence_filesystems(fs);
    sequence_run_with((const char *const[]){"BOUNCEIO_TEST_SWEEP_MS=20", NULL},
                      (const char *const[]){"--write-and-sync", path_in(fs[0].path, "file"), NULL});
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--write-and-sync", write_and_sync}, {NULL, NULL}};
    const TTest *const tests[] = {error_of_a_flush_that_the_program_did_not_ask_for_is_its_next_fsyncs, NULL};

    return support_main(argc, argv, "sync", 60, modes, tests);
}
