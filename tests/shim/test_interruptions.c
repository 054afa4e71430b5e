/*
 * Programs that interrupt themselves: cancelled threads, handlers of SIGSEGV that do as they please, handlers on small stacks,
 * children of vfork that write before they exec. And requests with RWF_NOWAIT on files that are not direct at all.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { SEED = 71, BYTES = 2 * BLOCK };

static char path[4200];

/* The path of a new file on the first file system. */
static void choose_path(void)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    snprintf(path, sizeof(path), "%s", path_in(fs[0].path, "file"));
}

static enum preload as_we_run(void)
{
    return counting() ? WITH_SHIM : WITHOUT_SHIM;
}

/* --- Cancellation ------------------------------------------------------------------------------------------------- */

static void *raw_read_when_cancelled(void *unused)
{
    int fd = open("/dev/zero", O_RDONLY);
    char bytes[8];

    (void)unused;
    pthread_cancel(pthread_self());
    long n = syscall(SYS_read, fd, bytes, sizeof(bytes));

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    return (void *)n;
}

START_TEST(a_raw_system_call_is_no_cancellation_point)
{
    pthread_t thread;
    void *result;

    ck_assert_int_eq(pthread_create(&thread, NULL, raw_read_when_cancelled, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_int_eq((intptr_t)result, 8);
}
END_TEST

static int empty_pipe[2], target;
static atomic_bool splicing;

static void *splice_from_empty_pipe(void *unused)
{
    loff_t offset = 0;

    (void)unused;
    atomic_store(&splicing, true);
    splice(empty_pipe[0], NULL, target, &offset, BLOCK, 0);
    return NULL;
}

START_TEST(a_thread_cancelled_in_splice_leaves_nothing_behind)
{
    pthread_t thread;
    void *result;

    choose_path();
    int fd = direct_open(path, O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    target = open(path, O_WRONLY);
    ck_assert_int_eq(pipe(empty_pipe), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, splice_from_empty_pipe, NULL), 0);
    while (!atomic_load(&splicing))
        usleep(1000);
    usleep(50000);
    pthread_cancel(thread);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_eq(result, PTHREAD_CANCELED);
    /* Whoever may still be writing keeps blocks without a checksum. */
    direct_write(fd, SEED, 0, BYTES);
    struct bounceio_stats before = counters();

    direct_check(fd, SEED, 0, BYTES);
    if (counting())
        ck_assert_uint_eq(counters().blocks_verified - before.blocks_verified, BYTES / BLOCK);
}
END_TEST

/* --- SIGSEGV as an ordinary signal -------------------------------------------------------------------------------- */

static pthread_t interrupted;
static atomic_bool kicking = true;
static volatile sig_atomic_t kicks;

static void handle_kick(int signal)
{
    struct sigaction other;

    (void)signal;
    sigaction(SIGUSR1, NULL, &other);
    close(open("/dev/null", O_RDONLY));
    kicks++;
}

static void *kick(void *unused)
{
    while (atomic_load(&kicking)) {
        pthread_kill(interrupted, SIGSEGV);
        usleep(20);
    }
    return unused;
}

/* FILE: sends itself SIGSEGV all the time, and opens files with O_DIRECT. */
static int kicked_opener(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = handle_kick, .sa_flags = SA_RESTART};
    pthread_t thread;

    check_that(argc == 1, "what file?");
    alarm(10);
    interrupted = pthread_self();
    sigaction(SIGSEGV, &action, NULL);
    close(direct_open(argv[0], O_RDWR | O_CREAT));
    check_that(pthread_create(&thread, NULL, kick, NULL) == 0, "no thread");
    for (int i = 0; i < 2000 || kicks < 20; i++)
        close(direct_open(argv[0], O_RDWR));
    atomic_store(&kicking, false);
    pthread_join(thread, NULL);
    return 0;
}

START_TEST(a_handler_of_sigsegv_may_open_files_while_files_are_opened)
{
    const char *sanitizer = getenv("BOUNCEIO_TEST_SANITIZER");

    if (sanitizer && strcmp(sanitizer, "tsan") == 0) {
        printf("skipped: ThreadSanitizer blocks every signal in handlers\n");
        return;
    }
    choose_path();
    struct child child = child_run_self(as_we_run(), NULL, (const char *const[]){"--kicked-opener", path, NULL});

    ck_assert(child_succeeded(&child));
    child_free(&child);
}
END_TEST

/* --- Handlers on small stacks ------------------------------------------------------------------------------------- */

static int small_fd;
static void (*volatile on_small_stack)(void);
static volatile ssize_t small_result;

static void open_and_close(void)
{
    int fd = open(path, O_RDWR | O_DIRECT);

    small_result = fd < 0 ? -1 : close(fd);
}

static void read_damaged_block(void)
{
    small_result = pread(small_fd, aligned_memory(), BLOCK, 0);
}

static void write_part_of_damaged_block(void)
{
    small_result = pwrite(small_fd, aligned_memory(), SECTOR, SECTOR);
}

static void handle_on_small_stack(int signal)
{
    (void)signal;
    on_small_stack();
}

/* Run it in a handler on an alternate stack of 8 KiB, besides what the kernel takes, with an inaccessible page below. */
static void run_on_small_stack(void (*run)(void))
{
    /* Instrumented code takes many times the stack. */
    if (getenv("BOUNCEIO_TEST_SANITIZER")) {
        test_skip("a sanitizer needs larger stacks");
        exit(0);
    }
    long frame = sysconf(_SC_MINSIGSTKSZ);
    size_t length = ((size_t)(frame > 0 ? frame : MINSIGSTKSZ) + 2 * BLOCK) & ~(size_t)15;
    size_t room = (length + BLOCK - 1) / BLOCK * BLOCK;
    char *memory = buffer_new(room);
    stack_t stack = {.ss_sp = memory, .ss_size = length};
    struct sigaction action = {.sa_handler = handle_on_small_stack, .sa_flags = SA_ONSTACK};

    on_small_stack = run;
    ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
    ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
    small_result = -2;
    errno = 0;
    raise(SIGUSR1);
}

/* A file whose first block is damaged behind the shim. */
static void damaged_file(void)
{
    choose_path();
    small_fd = direct_open(path, O_RDWR | O_CREAT);
    direct_write(small_fd, SEED, 0, BYTES);
    direct_check(small_fd, SEED, 0, BYTES);
    flip_bit_behind(path, 100, 1);
}

START_TEST(a_direct_open_fits_a_small_signal_stack)
{
    choose_path();
    close(open(path, O_RDWR | O_CREAT, 0600));
    run_on_small_stack(open_and_close);
    ck_assert_int_eq(small_result, 0);
}
END_TEST

START_TEST(a_reported_mismatch_fits_a_small_signal_stack)
{
    damaged_file();
    run_on_small_stack(read_damaged_block);
    if (counting()) {
        ck_assert_int_eq(small_result, -1);
        ck_assert_int_eq(errno, EIO);
    }
}
END_TEST

START_TEST(a_partial_write_fits_a_small_signal_stack)
{
    damaged_file();
    uint64_t before = counters().mismatches;

    run_on_small_stack(write_part_of_damaged_block);
    if (counting())
        ck_assert_uint_eq(counters().mismatches, before + 1);
}
END_TEST

/* --- vfork -------------------------------------------------------------------------------------------------------- */

/* FILE LOG: a child of vfork writes to a log before it execs; then the parent does its first direct write. */
static int logging_parent(int argc, char **argv)
{
    check_that(argc == 2, "what files?");
    int log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_t pid = vfork();

    if (pid == 0) {
        if (write(log, "exec\n", 5) == 5)
            execl("/bin/true", "true", NULL);
        _exit(1);
    }
    int status;

    check_that(waitpid(pid, &status, 0) == pid && status == 0, "the child failed");
    int fd = direct_open(argv[0], O_RDWR | O_CREAT);

    direct_write(fd, SEED, 0, BYTES);
    direct_check(fd, SEED, 0, BYTES);
    check_that(!counting() || counters().blocks_verified == BYTES / BLOCK, "no checksums");
    return 0;
}

START_TEST(a_vfork_child_that_logs_before_exec_leaves_the_parent_its_checksums)
{
    char log[4300];

    choose_path();
    snprintf(log, sizeof(log), "%s.log", path);
    struct child child = child_run_self(as_we_run(), NULL, (const char *const[]){"--logging-parent", path, log, NULL});

    ck_assert(child_succeeded(&child));
    child_free(&child);
}
END_TEST

/* --- RWF_NOWAIT on plain files ------------------------------------------------------------------------------------ */

/* TEMPLATE: how many of 50 requests for cached data succeed, and how the last one ends? */
static int nowait_requests(int argc, char **argv)
{
    static char bytes[BLOCK];
    struct iovec vector = {bytes, sizeof(bytes)};
    int reads = 0, writes = 0, error;

    check_that(argc == 1, "what file?");
    int made = mkstemp(argv[0]);
    int opened = open(argv[0], O_RDWR);
    int writer = open(argv[0], O_RDWR);

    check_that(made >= 0 && write(writer, bytes, sizeof(bytes)) == BLOCK, "cannot make the file");
    errno = 0;
    for (int i = 0; i < 50; i++)
        reads += preadv2(made, &vector, 1, 0, RWF_NOWAIT) == BLOCK;
    error = errno;
    /* A change of the modification time may be refused by itself: let there be one, with or without the shim's looking at it. */
    usleep(20000);
    errno = 0;
    for (int i = 0; i < 50; i++)
        writes += pwritev2(opened, &vector, 1, 0, RWF_NOWAIT) == BLOCK;
    printf("reads %d %s, writes %d %s\n", reads, strerror(error), writes, strerror(errno));
    unlink(argv[0]);
    return 0;
}

START_TEST(nowait_requests_on_plain_files_end_as_without_the_shim)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count; i++) {
        const char *const mode[] = {"--nowait-requests", path_in(fs[i].path, "XXXXXX"), NULL};
        struct child native = child_run_self(WITHOUT_SHIM, NULL, mode);
        struct child shimmed = child_run_self(as_we_run(), NULL, mode);

        ck_assert(child_succeeded(&native));
        ck_assert(child_succeeded(&shimmed));
        ck_assert_str_eq(shimmed.output, native.output);
        child_free(&native);
        child_free(&shimmed);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--kicked-opener", kicked_opener},
                                                {"--logging-parent", logging_parent},
                                                {"--nowait-requests", nowait_requests},
                                                {NULL, NULL}};
    const TTest *const tests[] = {a_raw_system_call_is_no_cancellation_point,
                                  a_thread_cancelled_in_splice_leaves_nothing_behind,
                                  a_handler_of_sigsegv_may_open_files_while_files_are_opened,
                                  a_direct_open_fits_a_small_signal_stack,
                                  a_reported_mismatch_fits_a_small_signal_stack,
                                  a_partial_write_fits_a_small_signal_stack,
                                  a_vfork_child_that_logs_before_exec_leaves_the_parent_its_checksums,
                                  nowait_requests_on_plain_files_end_as_without_the_shim,
                                  NULL};

    return support_main(argc, argv, "interruptions", 30, modes, tests);
}
