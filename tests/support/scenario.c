/* Scenarios: see scenario.h. */
#include "support/scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/support.h"

static int direct_fd = -1;

/* Has the kernel a handler of SIGSEGV that the program did not install? Asked behind the shim's back. */
static bool kernel_has_handler(void)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } action = {0};
    syscall(SYS_rt_sigaction, SIGSEGV, NULL, &action, sizeof(action.mask));
    return action.handler != NULL && action.handler != (void *)1; /* neither SIG_DFL nor SIG_IGN */
}

void guard_may_rise(void)
{
    if (direct_fd >= 0)
        return;
    static struct test_fs fs[TEST_FS_MAX];
    static char path[8192];
    test_filesystems(fs);
    snprintf(path, sizeof(path), "%s", path_in(fs[0].path, "direct"));
    direct_fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    unlink(path);
    void *block;
    if (direct_fd < 0 || posix_memalign(&block, BLOCK, BLOCK) != 0)
        support_die("no direct file");
    memset(block, 1, BLOCK);
    if (pwrite(direct_fd, block, BLOCK, 0) != BLOCK)
        support_die("the first direct write failed");
    free(block);
    if (shim_is_loaded() && !kernel_has_handler())
        support_die("the guard is not up");
}

void direct_write_from_nowhere(void)
{
    if (pwrite(direct_fd, (void *)8192, BLOCK, 0) != -1 || errno != EFAULT)
        support_die("a direct write from a bad pointer did not give EFAULT");
}

void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(99);
}

int scenario_run(const struct scenario *scenarios, int argc, char **argv)
{
    if (argc != 2)
        support_die("--scenario early|late NAME");
    for (; scenarios->name; scenarios++) {
        if (strcmp(scenarios->name, argv[1]) != 0)
            continue;
        if (strcmp(argv[0], "early") == 0)
            guard_may_rise();
        scenarios->run();
        return EXIT_SUCCESS;
    }
    support_die("no scenario named %s", argv[1]);
}

static void expect_same_child(const char *when, const char *name)
{
    const char *arguments[] = {"--scenario", when, name, NULL};
    struct child native = child_run_self(WITHOUT_SHIM, NULL, arguments);
    struct child shimmed = child_run_self(WITH_SHIM, NULL, arguments);
    if (native.status != shimmed.status || strcmp(native.output, shimmed.output) != 0)
        ck_abort_msg("guard %s\n--- without the shim: wait status %#x\n%s%s--- with it: wait status %#x\n%s%s", when,
                     (unsigned)native.status, native.output, native.errors, (unsigned)shimmed.status, shimmed.output,
                     shimmed.errors);
    child_free(&native);
    child_free(&shimmed);
}

void expect_same_without_and_with_shim(const char *name)
{
    if (test_skipped_under("tsan", "ThreadSanitizer has signal handling of its own"))
        return;
    expect_same_child("early", name);
    expect_same_child("late", name);
}
