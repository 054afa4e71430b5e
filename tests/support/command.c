/* See command.h. */
#include "support/command.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 16 };

static const char *variant = "";

void command_use(const char *name)
{
    variant = name;
}

static void fill(const char *list[ARGUMENTS], const char *const *arguments)
{
    static char program[4200];
    const char *build = getenv("BOUNCEIO_TEST_BUILD");
    size_t count = 0;

    snprintf(program, sizeof(program), "%s/%s/bounceio", build ? build : "build", variant);
    list[count++] = program;
    while (*arguments && count < ARGUMENTS - 1)
        list[count++] = *arguments++;
    list[count] = NULL;
}

struct child command_run(const char *const *environment, const char *const *arguments)
{
    const char *list[ARGUMENTS];

    fill(list, arguments);
    return child_run(WITHOUT_SHIM, environment, list);
}

struct child command_ends(int status, const char *const *environment, const char *const *arguments)
{
    struct child child = command_run(environment, arguments);

    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == status,
                  "bounceio %s %s: status %x instead of %d\n%s%s", arguments[0], arguments[1], (unsigned)child.status,
                  status, child.output, child.errors);
    return child;
}

uint64_t command_total(const struct child *child, const char *key)
{
    char quoted[64];
    const char *totals = strstr(child->output, "\"totals\"");

    snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
    const char *found = totals ? strstr(totals, quoted) : NULL;

    ck_assert_msg(found, "no %s in\n%s", key, child->output);
    return strtoull(found + strlen(quoted), NULL, 10);
}

uint64_t command_counts(int status, const char *const *environment, const char *what, const char *path, const char *key)
{
    struct child child = command_ends(status, environment, (const char *const[]){what, "--json", path, NULL});
    uint64_t total = command_total(&child, key);

    child_free(&child);
    return total;
}

pid_t command_start(const char *const *environment, const char *const *arguments, const char *output)
{
    const char *list[ARGUMENTS];
    fill(list, arguments);
    /* Check's own handlers would take a signal that comes before execv for one that is meant for the test. */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    unsetenv("LD_PRELOAD");
    for (; environment && *environment; environment++)
        putenv(strdup(*environment));
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    dup2(fd, STDOUT_FILENO);
    execv(list[0], (char *const *)list);
    _exit(127);
}
