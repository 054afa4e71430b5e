/* See busy.h. */
#include "support/busy.h"

#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/sequence.h"

enum { TURNS = 500, BYTES = BUSY_BLOCKS * BLOCK };

int busy_main(int argc, char **argv)
{
    check_that(argc == 1, "usage: --busy FILE");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    struct random random = {random_run_seed() ^ (uint64_t)getpid()};

    for (size_t turn = 0; turn < TURNS; turn++) {
        uint64_t first = random_below(&random, BUSY_BLOCKS - 8);

        if (random_chance(&random, 2))
            check_that(ftruncate(fd, BYTES / 2) == 0 && ftruncate(fd, BYTES) == 0, "truncate");
        else if (random_chance(&random, 30))
            direct_write(fd, turn, (off_t)(first * BLOCK + SECTOR), 3 * SECTOR);
        else
            direct_write(fd, turn, (off_t)(first * BLOCK), (1 + random_below(&random, 8)) * BLOCK);
        usleep(500);
    }
    sequence_no_mismatch();
    return 0;
}

pid_t busy_start(const char *const *environment, const char *path)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    sequence_run_with(environment, (const char *const[]){"--busy", path, NULL});
    _exit(0);
}

bool busy_is_running(pid_t pid)
{
    siginfo_t info = {.si_pid = 0};

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

void busy_end(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
