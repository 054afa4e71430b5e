/* Children: this or another program, with or without the shim, their output kept. */
#include "support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { VARIABLES_MAX = 1024 };

/* Length of the name in "NAME=value" or "NAME". */
static size_t name_length(const char *variable)
{
    return strcspn(variable, "=");
}

static bool same_name(const char *a, const char *b)
{
    return name_length(a) == name_length(b) && strncmp(a, b, name_length(a)) == 0;
}

/* Set, replace or (without '=') remove one variable of a list. */
static void set_variable(const char **list, size_t *count, const char *variable)
{
    for (size_t i = 0; i < *count; i++) {
        if (same_name(list[i], variable)) {
            list[i] = list[--*count];
            break;
        }
    }
    if (!strchr(variable, '='))
        return;
    if (*count == VARIABLES_MAX)
        support_die("more than %d environment variables", VARIABLES_MAX);
    list[(*count)++] = variable;
}

/* A file of memory that a child writes to, numbered high so that a child's own numbers are what they always are. */
static int capture_new(void)
{
    int fd = memfd_create("capture", MFD_CLOEXEC);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 200);

    if (high < 0)
        support_die("cannot capture a child's output");
    close(fd);
    return high;
}

static char *capture_take(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        support_die("cannot look at a child's output");
    char *text = calloc(1, (size_t)st.st_size + 1);

    if (!text || pread(fd, text, (size_t)st.st_size, 0) != st.st_size)
        support_die("cannot read a child's output");
    close(fd);
    return text;
}

struct child child_run(enum preload preload, const char *const *environment, const char *const *argv)
{
    const char *list[VARIABLES_MAX + 1];
    char with[4200];
    size_t count = 0;
    struct child child = {0};
    struct timespec start, end;

    for (char **variable = environ; *variable; variable++)
        set_variable(list, &count, *variable);
    set_variable(list, &count, "LD_PRELOAD");
    if (preload == WITH_SHIM) {
        const char *shim = getenv("BOUNCEIO_SHIM");

        if (!shim)
            support_die("BOUNCEIO_SHIM is not set: it names the library under test");
        snprintf(with, sizeof(with), "LD_PRELOAD=%s", shim);
        set_variable(list, &count, with);
    }
    for (; environment && *environment; environment++)
        set_variable(list, &count, *environment);
    list[count] = NULL;

    int output = capture_new();
    int errors = capture_new();

    fflush(NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t pid = fork();

    if (pid < 0)
        support_die("cannot fork");
    if (pid == 0) {
        if (dup2(output, STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0)
            _exit(98);
        execvpe(argv[0], (char *const *)argv, (char *const *)list);
        dprintf(STDERR_FILENO, "cannot run %s: %m\n", argv[0]);
        _exit(127);
    }
    if (waitpid(pid, &child.status, 0) != pid)
        support_die("cannot wait for %s", argv[0]);
    clock_gettime(CLOCK_MONOTONIC, &end);
    child.seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    child.output = capture_take(output);
    child.errors = capture_take(errors);
    return child;
}

struct child child_run_self(enum preload preload, const char *const *environment, const char *const *argv)
{
    const char *all[64] = {"/proc/self/exe"};
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    size_t count = 1;

    if (n < 0)
        support_die("cannot find this program");
    path[n] = 0;
    all[0] = path;
    for (; *argv; argv++) {
        if (count == sizeof(all) / sizeof(all[0]) - 1)
            support_die("too many arguments");
        all[count++] = *argv;
    }
    return child_run(preload, environment, all);
}

bool in_processes(unsigned count, void (*body)(unsigned process, void *argument), void *argument)
{
    bool good = true;

    for (unsigned process = 0; process < count; process++) {
        pid_t pid = fork();

        if (pid < 0)
            support_die("cannot fork");
        if (pid == 0) {
            body(process, argument);
            _exit(0);
        }
    }
    for (unsigned process = 0; process < count; process++) {
        int status;

        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            good = false;
    }
    return good;
}

bool child_succeeded(const struct child *child)
{
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0)
        return true;
    if (WIFEXITED(child->status))
        printf("child exited with %d\n", WEXITSTATUS(child->status));
    else
        printf("child was killed by signal %d\n", WTERMSIG(child->status));
    printf("%s%s", child->output, child->errors);
    fflush(stdout);
    return false;
}

void child_free(struct child *child)
{
    free(child->output);
    free(child->errors);
    child->output = child->errors = NULL;
}
