/* See store_victim.h. */
#include "support/store_victim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/command.h"
#include "support/direct.h"
#include "support/sequence.h"
#include "support/support.h"

/* The content changes with the command: checksums of before it are wrong afterwards. */
enum { BEFORE = 77, AFTER = 78, BYTES = 16 * BLOCK, ROUNDS = 20 };

/* The second writer is in the second region, and so in the second window of the map. */
static const off_t places[] = {0, (off_t)80 << 20};

/* --- The victim --------------------------------------------------------------------------------------------------- */

static const char *victim_path;
static _Atomic bool stop;
static _Atomic uint64_t seed = BEFORE;
static _Atomic unsigned rounds_done[2];

static void *write_and_check(void *argument)
{
    const unsigned which = (unsigned)(uintptr_t)argument;
    sigset_t all;

    /* As worker threads do. The map's faults must get through all the same. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    int fd = direct_open(victim_path, O_RDWR);
    while (!stop) {
        const uint64_t now = seed;
        direct_write(fd, now, places[which], BYTES);
        direct_check(fd, now, places[which], BYTES);
        rounds_done[which]++;
    }
    close(fd);
    return NULL;
}

static void wait_for_more_rounds(void)
{
    unsigned first = rounds_done[0] + ROUNDS, second = rounds_done[1] + ROUNDS;

    while (rounds_done[0] < first || rounds_done[1] < second)
        usleep(1000);
}

static void own_fault(int number)
{
    (void)number;
    check_that(false, "the program got a fault that is not its own");
}

/* Everything that looks at a map or changes one. */
static void use_everything(void)
{
    static unsigned char block[BLOCK];
    char other[4200];
    int plain = open(victim_path, O_RDWR | O_CLOEXEC);
    int fd = direct_open(victim_path, O_RDWR);

    pattern_fill(block, sizeof(block), AFTER, BYTES);
    check_that(pwrite(plain, block, BLOCK, BYTES) == BLOCK, "buffered write");
    direct_check(fd, AFTER, BYTES, BLOCK);
    check_that(ftruncate(fd, places[1] + BYTES) == 0, "truncation");
    check_that(fsync(fd) == 0, "fsync");
    direct_write(fd, AFTER, 3 * BLOCK, SECTOR);
    direct_check(fd, AFTER, 0, BYTES);
    close(fd);
    close(plain);
    snprintf(other, sizeof(other), "%s.other", victim_path);
    fd = direct_open(other, O_RDWR | O_CREAT);
    direct_write(fd, AFTER, 0, BYTES);
    direct_check(fd, AFTER, 0, BYTES);
    close(fd);
}

/* FILE COMMAND: two threads write and read while the shell runs the command; then everything else is tried. */
int store_victim(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = own_fault};
    pthread_t threads[2];

    check_that(argc == 2, "usage: --victim FILE COMMAND");
    victim_path = argv[0];
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    int plain = open(victim_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int fd = direct_open(victim_path, O_RDWR);
    direct_write(fd, BEFORE, places[1], BYTES);
    direct_write(fd, BEFORE, 0, BYTES);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_and_check, (void *)(uintptr_t)i);
    wait_for_more_rounds();
    check_that(system_command((const char *const[]){"bash", "-c", argv[1], NULL}), "command failed: %s", argv[1]);
    seed = AFTER;
    wait_for_more_rounds();
    use_everything();
    stop = true;
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    direct_check(fd, AFTER, 0, BYTES + BLOCK);
    direct_check(fd, AFTER, places[1], BYTES);
    check_that(counters().mismatches == 0, "healthy data was called damaged");
    close(fd);
    close(plain);
    return 0;
}

static void *write_first(void *fd)
{
    direct_write(*(int *)fd, AFTER, 0, BYTES);
    return NULL;
}

/* FILE COMMAND: the first to touch the store after the command is a new thread that has all signals blocked. */
int store_latecomer(int argc, char **argv)
{
    pthread_t thread;
    sigset_t all, none;

    check_that(argc == 2, "usage: --latecomer FILE COMMAND");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    direct_write(fd, BEFORE, 0, BYTES);
    check_that(system_command((const char *const[]){"bash", "-c", argv[1], NULL}), "command failed: %s", argv[1]);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &none);
    pthread_create(&thread, NULL, write_first, &fd);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    pthread_join(thread, NULL);
    return 0;
}

/* FILE COMMAND: writes without direct I/O to a file that has a map, before and after the command. */
int store_buffered_writer(int argc, char **argv)
{
    static unsigned char block[BLOCK];

    check_that(argc == 2, "usage: --buffered-writer FILE COMMAND");
    int fd = open(argv[0], O_WRONLY | O_CLOEXEC);
    pattern_fill(block, sizeof(block), BEFORE, 0);
    check_that(write(fd, block, BLOCK) == BLOCK, "first write");
    check_that(system_command((const char *const[]){"bash", "-c", argv[1], NULL}), "command failed: %s", argv[1]);
    pattern_fill(block, sizeof(block), AFTER, 0);
    check_that(pwrite(fd, block, BLOCK, 0) == BLOCK, "second write");
    return 0;
}

/* FILE: reads all of it again; whatever the map says, it is not damaged. */
int store_reader(int argc, char **argv)
{
    check_that(argc == 1, "usage: --reader FILE");
    int fd = direct_open(argv[0], O_RDWR);

    direct_check(fd, AFTER, 0, BYTES + BLOCK);
    direct_check(fd, AFTER, places[1], BYTES);
    direct_write(fd, AFTER, 0, BYTES);
    direct_check(fd, AFTER, 0, BYTES);
    check_that(counters().mismatches == 0, "healthy data was called damaged");
    return 0;
}

/*
 * FILE: reads all of it, whatever it is, until FILE.stop is there. Writes blocks of its own, so that the times of the file are no
 * evidence that somebody else has written it.
 */
int store_companion(int argc, char **argv)
{
    char end[4200];

    check_that(argc == 1, "usage: --companion FILE");
    snprintf(end, sizeof(end), "%s.stop", argv[0]);
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);
    while (access(end, F_OK) != 0) {
        direct_write(fd, AFTER, (off_t)40 << 20, BLOCK);
        for (int i = 0; i < 2; i++)
            check_that(pread(fd, direct_memory(), BYTES, places[i]) >= 0, "reading at %lld", (long long)places[i]);
    }
    check_that(counters().mismatches == 0, "healthy data was called damaged");
    return 0;
}

/* DIRECTORY: its file system is gone from one moment to the next, as with a disk that is pulled out. */
int store_shut_down(int argc, char **argv)
{
    uint32_t without_log = 2;

    check_that(argc == 1, "usage: --shut-down DIRECTORY");
    /* Source: include/uapi/linux/fs.h, FS_IOC_SHUTDOWN, Linux 6.14; ext4 and XFS have had it under their own names. */
    check_that(ioctl(open(argv[0], O_RDONLY), _IOR('X', 125, uint32_t), &without_log) == 0, "cannot shut down");
    return 0;
}
