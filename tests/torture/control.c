/* Workers: started with their errors kept, killed by their number, collected. */
#include "control.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

const char *number(uint64_t value)
{
    static char text[32][24];
    static unsigned next;
    char *it = text[next++ % 32];

    snprintf(it, sizeof(text[0]), "%llu", (unsigned long long)value);
    return it;
}

unsigned torture_count(const char *variable, unsigned otherwise)
{
    const char *value = getenv(variable);

    return value && *value ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}

unsigned directory_count(const char *path)
{
    DIR *directory = opendir(path);
    unsigned count = 0;

    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count > 2 ? count - 2 : 0;
}

void sleep_us(uint64_t microseconds)
{
    struct timespec time = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};

    nanosleep(&time, NULL);
}

double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void set_environment(const struct setting *setting)
{
    const char *steps = getenv("BOUNCEIO_SHIM_STEPS");
    const char *shim = setting->steps && steps ? steps : getenv("BOUNCEIO_SHIM");

    if (!shim)
        support_die("BOUNCEIO_SHIM is not set: it names the library under test");
    setenv("LD_PRELOAD", shim, 1);
    setenv("BOUNCEIO_STORE", setting->store, 1);
    if (setting->steps)
        setenv("BOUNCEIO_TEST_DELAYS", "300:16", 1);
    if (setting->boot_id)
        setenv("BOUNCEIO_TEST_BOOT_ID", setting->boot_id, 1);
    for (const char *const *variable = setting->environment; variable && *variable; variable++)
        putenv((char *)(uintptr_t)*variable);
}

struct worker worker_start(const struct setting *setting, const char *const *argv)
{
    struct worker worker = {.errors = memfd_create("errors", MFD_CLOEXEC),
                            .output = memfd_create("output", MFD_CLOEXEC)};
    const char *all[16] = {"/proc/self/exe"};
    size_t count = 1;
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (n < 0 || worker.errors < 0 || worker.output < 0)
        support_die("cannot start a worker");
    path[n] = 0;
    all[0] = path;
    while (*argv && count < 15)
        all[count++] = *argv++;
    fflush(NULL);
    worker.pid = fork();
    if (worker.pid < 0)
        support_die("cannot fork");
    if (worker.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(worker.output, STDOUT_FILENO);
        dup2(worker.errors, STDERR_FILENO);
        set_environment(setting);
        execv(path, (char *const *)(uintptr_t)all);
        _exit(127);
    }
    return worker;
}

static void take_text(int fd, char *text, size_t room)
{
    ssize_t n = pread(fd, text, room - 1, 0);

    text[n > 0 ? n : 0] = 0;
    close(fd);
}

/* @return the wait status. */
static int end(struct worker *worker, char *errors, size_t room)
{
    int status;

    if (waitpid(worker->pid, &status, 0) != worker->pid)
        support_die("cannot wait for %d", (int)worker->pid);
    take_text(worker->errors, errors, room);
    take_text(worker->output, worker->said, sizeof(worker->said));
    worker->pid = 0;
    return status;
}

bool worker_kill(struct worker *worker)
{
    char errors[4096];

    kill(worker->pid, SIGKILL);
    int status = end(worker, errors, sizeof(errors));
    bool fine = WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0;

    if (!fine || *errors)
        printf("a worker that was to be killed (status %x) said:\n%s", (unsigned)status, errors);
    return fine && !*errors;
}

bool worker_collect(struct worker *worker)
{
    char errors[4096];
    int status = end(worker, errors, sizeof(errors));

    if (status == 0 && !*errors)
        return true;
    printf("a worker ended with status %x and said:\n%s%s", (unsigned)status, worker->said, errors);
    return false;
}

bool worker_wait_stopped(const struct worker *worker)
{
    siginfo_t seen = {0};

    if (waitid(P_PID, (id_t)worker->pid, &seen, WSTOPPED | WEXITED | WNOWAIT) != 0)
        support_die("cannot wait for %d", (int)worker->pid);
    return seen.si_code == CLD_STOPPED;
}

bool worker_wait_gone(const struct worker *worker, unsigned milliseconds)
{
    siginfo_t seen = {0};

    for (unsigned i = 0; i < milliseconds && seen.si_pid == 0; i++) {
        if (waitid(P_PID, (id_t)worker->pid, &seen, WEXITED | WNOWAIT | WNOHANG) != 0)
            support_die("cannot wait for %d", (int)worker->pid);
        if (seen.si_pid == 0)
            sleep_us(1000);
    }
    return seen.si_pid != 0;
}

bool worker_run(const struct setting *setting, char *said, const char *const *argv)
{
    struct worker worker = worker_start(setting, argv);
    bool good = worker_collect(&worker);

    if (said)
        strcpy(said, worker.said);
    return good;
}

bool flip_is_found(const struct setting *setting, const char *path, uint64_t offset, struct random *random)
{
    /* The log line is expected. */
    const char *environment[] = {"BOUNCEIO_LOG_FILE=/dev/null", NULL};
    struct setting quiet = *setting;
    uint64_t byte = offset + random_below(random, BLOCK);
    unsigned bit = (unsigned)random_below(random, 8);

    quiet.environment = environment;
    flip_bit_behind(path, byte, bit);
    bool found = worker_run(&quiet, NULL, (const char *const[]){"--damaged", path, number(offset), NULL});

    if (!found)
        printf("a flipped bit of byte %llu was not found\n", (unsigned long long)byte);
    flip_bit_behind(path, byte, bit);
    return found;
}

/* Is every thread of the process stopped? */
static bool is_stopped(pid_t pid)
{
    char path[64], line[512];
    bool stopped = true;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *directory = opendir(path);

    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry && stopped; entry = readdir(directory)) {
        char stat_path[400];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(stat_path, sizeof(stat_path), "%s/%s/stat", path, entry->d_name);
        FILE *file = fopen(stat_path, "re");
        const char *state = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;

        if (file)
            fclose(file);
        /* A thread that has gone meanwhile is as good as stopped. */
        stopped = !state || state[2] == 'T' || state[2] == 'Z' || state[2] == 'X';
    }
    if (directory)
        closedir(directory);
    return stopped;
}

void worker_freeze(const struct worker *worker)
{
    kill(worker->pid, SIGSTOP);
    while (!is_stopped(worker->pid))
        sleep_us(200);
}

void worker_thaw(const struct worker *worker)
{
    kill(worker->pid, SIGCONT);
}
