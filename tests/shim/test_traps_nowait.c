/*
 * RWF_NOWAIT when the page pool is empty: refused with EAGAIN, by a call that allocates nothing and waits for nobody.
 *
 * The pool is emptied by writers that stand still in the middle of their copy (support/exhaust.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/raw.h"
#include "support/direct.h"
#include "support/exhaust.h"
#include "support/support.h"

enum { K = 1024, SEED = 1 };

/* --- Requests that must not wait ---------------------------------------------------------------------------------- */

struct impatient {
    const char *path;
    int fd;
    struct iovec memory; /* misaligned: it cannot be read into in place */
};

static void impatient_open(struct impatient *i, const char *path)
{
    i->path = path;
    make_file_behind(path, SEED, 256 * K);
    i->fd = direct_open(path, O_RDWR);
    i->memory = (struct iovec){direct_memory(), 8 * K};
    /* Blocking first: the blocks get checksums, and their region is known to be on disk. */
    direct_write(i->fd, SEED, 0, 256 * K);
    check_that(fdatasync(i->fd) == 0, "fdatasync");
    pattern_fill(i->memory.iov_base, i->memory.iov_len, SEED, 0);
}

static ssize_t write_at_once(const struct impatient *i)
{
    return pwritev2(i->fd, &i->memory, 1, 0, RWF_NOWAIT);
}

static ssize_t read_at_once(const struct impatient *i)
{
    return preadv2(i->fd, &i->memory, 1, 0, RWF_NOWAIT);
}

static bool takes_nowait(const struct impatient *i)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        /* The kernel itself refuses now and then (time stamps). */
        if (write_at_once(i) == 8 * K && read_at_once(i) == 8 * K)
            return true;
        direct_write(i->fd, SEED, 0, 8 * K);
        pattern_fill(i->memory.iov_base, i->memory.iov_len, SEED, 0);
    }
    return false;
}

static void refuse(const struct test_fs *fs)
{
    struct exhaust standing;
    struct impatient impatient;
    uint64_t before;

    impatient_open(&impatient, path_in(fs->path, "impatient"));
    if (!takes_nowait(&impatient)) {
        printf("%s: takes no RWF_NOWAIT at all\n", fs->name);
        return;
    }
    check_that(exhaust_start(&standing, path_in(fs->path, "standing")), "userfaultfd");
    before = counters().nowait_eagain;
    errno = 0;
    check_that(write_at_once(&impatient) == -1 && errno == EAGAIN, "%s: write with an empty pool", fs->name);
    check_that(read_at_once(&impatient) == -1 && errno == EAGAIN, "%s: read with an empty pool", fs->name);
    check_that(counters().nowait_eagain == before + 2, "%s: refusals are counted", fs->name);
    check_that(content_is(impatient.path, SEED, 256 * K), "%s: a refused write wrote", fs->name);
    exhaust_end(&standing);
    check_that(takes_nowait(&impatient), "%s: refused with a full pool", fs->name);
    close(impatient.fd);
}

static int refuse_mode(int argc, char **argv)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < count; i++)
        refuse(&fs[i]);
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

/* --- The same calls, traced --------------------------------------------------------------------------------------- */

enum { MARK = 0x5ead, TRACE_MAX = 64 };

/* Tells the tracer where one call begins and ends: a system call that takes no arguments, with one. */
static void mark(void)
{
    raw(SYS_getppid, MARK);
}

/* What is traced: the tracer follows this thread alone. */
static int traced_mode(int argc, char **argv)
{
    const char *directory = argv[0];
    struct exhaust standing;
    struct impatient impatient;

    check_that(argc == 1, "--traced DIRECTORY");
    impatient_open(&impatient, path_in(directory, "impatient"));
    check_that(takes_nowait(&impatient), "takes no RWF_NOWAIT");
    check_that(raw(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0) == 0, "PTRACE_TRACEME");
    raw(SYS_kill, raw(SYS_getpid), SIGSTOP);

    /* The tracer must be able to see what it is there to see. */
    mark();
    void *memory = mmap(NULL, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    mark();
    munmap(memory, BLOCK);

    mark();
    ssize_t written = write_at_once(&impatient);

    mark();
    mark();
    ssize_t got = read_at_once(&impatient);

    mark();
    /* Only the kernel may have refused these: it does, now and then. */
    check_that(written == 8 * K || (written == -1 && errno == EAGAIN), "write with a full pool");
    check_that(got == 8 * K || (got == -1 && errno == EAGAIN), "read with a full pool");

    check_that(exhaust_start(&standing, path_in(directory, "standing")), "userfaultfd");
    mark();
    written = write_at_once(&impatient);
    mark();
    check_that(written == -1 && errno == EAGAIN, "write with an empty pool");
    mark();
    got = read_at_once(&impatient);
    mark();
    check_that(got == -1 && errno == EAGAIN, "read with an empty pool");
    exhaust_end(&standing);
    return EXIT_SUCCESS;
}

/* The system calls of one marked call. */
struct trace {
    long numbers[TRACE_MAX];
    size_t count;
};

static bool contains(const struct trace *trace, long number)
{
    for (size_t i = 0; i < trace->count; i++)
        if (trace->numbers[i] == number)
            return true;
    return false;
}

static void print_trace(const char *what, const struct trace *trace)
{
    printf("%s:", what);
    for (size_t i = 0; i < trace->count; i++)
        printf(" %ld", trace->numbers[i]);
    printf("%s\n", trace->count ? " (system call numbers)" : " no system call");
    fflush(stdout);
}

#if defined(__x86_64__)
/* The system call a stopped thread is entering, and its first argument. */
static long entering(pid_t pid, unsigned long *argument)
{
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0)
        support_die("PTRACE_GETREGS");
    *argument = registers.rdi;
    return (long)registers.orig_rax;
}
#else
static long entering(pid_t pid, unsigned long *argument)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) < 0)
        support_die("PTRACE_GET_SYSCALL_INFO");
    *argument = info.entry.args[0];
    return (long)info.entry.nr;
}
#endif

/* Run the stopped child to its end, and collect what lies between its marks. @return the number of marked calls. */
static size_t follow(pid_t pid, struct trace *traces, size_t room)
{
    size_t calls = 0;
    bool inside = false;
    bool enters = true;
    int status;

    for (int signal = 0;;) {
        if (ptrace(PTRACE_SYSCALL, pid, 0, signal) != 0 || waitpid(pid, &status, 0) != pid)
            support_die("cannot follow the traced child");
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the traced child ended with status %x",
                          status);
            return calls;
        }
        signal = 0;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            signal = WSTOPSIG(status);
            continue;
        }
        if (enters) {
            unsigned long argument;
            long number = entering(pid, &argument);

            if (number == SYS_getppid && argument == MARK) {
                inside = !inside;
                if (inside && calls++ == room)
                    support_die("more marks than %zu", room);
            } else if (inside && traces[calls - 1].count < TRACE_MAX) {
                traces[calls - 1].numbers[traces[calls - 1].count++] = number;
            }
        }
        enters = !enters;
    }
}

/* Start this program under the shim with a small pool, stopped where it asks to be traced. */
static pid_t start_traced(const char *directory)
{
    const char *shim = getenv("BOUNCEIO_SHIM");
    pid_t pid = fork();

    if (pid == 0) {
        setenv("LD_PRELOAD", shim ? shim : "", 1);
        setenv("BOUNCEIO_POOL", "2M", 1);
        setenv("BOUNCEIO_POOL_MAX", "2M", 1);
        execl("/proc/self/exe", "test_traps_nowait", "--traced", directory, (char *)NULL);
        _exit(127);
    }
    int status;

    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        support_die("the traced child did not stop (status %x)", (unsigned)status);
    if (ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0)
        support_die("PTRACE_SETOPTIONS");
    return pid;
}

START_TEST(refused_nowait_makes_no_call_that_allocates_or_waits)
{
    static const struct {
        long number;
        const char *name;
    } forbidden[] = {{SYS_mmap, "mmap"},           {SYS_brk, "brk"},
                     {SYS_futex, "futex"},         {SYS_madvise, "madvise"},
                     {SYS_mremap, "mremap"},       {SYS_munmap, "munmap"},
                     {SYS_mprotect, "mprotect"},   {SYS_msync, "msync"},
                     {SYS_fallocate, "fallocate"}, {SYS_fdatasync, "fdatasync"},
                     {SYS_ppoll, "ppoll"},         {SYS_sched_yield, "sched_yield"},
                     {SYS_nanosleep, "nanosleep"}, {SYS_ftruncate, "ftruncate"}};
    static const char *const what[] = {"the tracer's own proof", "write, pages free", "read, pages free",
                                       "write, no page", "read, no page"};
    enum { CALLS = sizeof(what) / sizeof(what[0]) };
    struct test_fs fs;
    struct trace traces[CALLS] = {0};

    if (!exhaust_can())
        return;
    if (!test_filesystem("ext4", &fs) && !test_filesystem("disk", &fs))
        ck_abort_msg("no file system that takes RWF_NOWAIT");
    ck_assert_uint_eq(follow(start_traced(fs.path), traces, CALLS), CALLS);
    ck_assert(contains(&traces[0], SYS_mmap));
    for (size_t i = 1; i < CALLS; i++) {
        print_trace(what[i], &traces[i]);
        for (size_t j = 0; j < sizeof(forbidden) / sizeof(forbidden[0]); j++)
            ck_assert_msg(!contains(&traces[i], forbidden[j].number), "%s: %s", what[i], forbidden[j].name);
    }
    ck_assert(contains(&traces[1], SYS_pwritev2));
    ck_assert(!contains(&traces[3], SYS_pwritev2));
    ck_assert(!contains(&traces[4], SYS_preadv2));
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--refuse", refuse_mode}, {"--traced", traced_mode}, {NULL, NULL}};

    return support_main(argc, argv, "RWF_NOWAIT with an empty pool", 120, modes,
                        (const TTest *const[]){nowait_with_an_exhausted_pool_is_refused,
                                               refused_nowait_makes_no_call_that_allocates_or_waits, NULL});
}
