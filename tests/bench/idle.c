/*
 * What the shim costs a program that never uses O_DIRECT: nanoseconds per read and write, milliseconds at start-up, KiB of memory.
 *
 *   LD_PRELOAD=libbounceshim.so idle [--check | --records]
 *
 * Calls: the function that the program is bound to (the shim's) and the C library's own take turns, in blocks, in one process;
 * the median over the pairs of blocks is what drift of clock and neighbours cannot touch. Start-up and memory: a small dynamic
 * program, run in turns with and without the shim. --check fails beyond the limits below; a noisy machine gets three attempts.
 * --records: what is added, in lines of JSON for the benchmark's report.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define LIMIT_NANOSECONDS 5.0
#define LIMIT_MILLISECONDS 0.3
#define LIMIT_KIB 384.0 /* resident: nearly all of it is the library's code, shared by all processes */

enum output { TABLE, RECORDS };

enum { PAIRS = 401, CALLS = 1000, STARTS = 301, MEMORY_RUNS = 201, ATTEMPTS = 3 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "idle: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

/* --- Calls -------------------------------------------------------------------------------------------------------- */

typedef ssize_t read_call(int, void *, size_t);
typedef ssize_t write_call(int, const void *, size_t);
typedef ssize_t pread_call(int, void *, size_t, off_t);
typedef ssize_t pwrite_call(int, const void *, size_t, off_t);

struct calls {
    read_call *read;
    write_call *write;
    pread_call *pread;
    pwrite_call *pwrite;
};

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (!found)
        die(name);
    return found;
}

static struct calls calls_of(void *library)
{
    return (struct calls){
        (read_call *)(uintptr_t)symbol(library, "read"), (write_call *)(uintptr_t)symbol(library, "write"),
        (pread_call *)(uintptr_t)symbol(library, "pread"), (pwrite_call *)(uintptr_t)symbol(library, "pwrite")};
}

/* One kind of traffic: nanoseconds for CALLS rounds of it. */
static double pipe_traffic(const struct calls *calls, const int *fds)
{
    char byte = 'x';
    double start = now();

    for (int i = 0; i < CALLS; i++)
        if (calls->write(fds[1], &byte, 1) != 1 || calls->read(fds[0], &byte, 1) != 1)
            die("pipe");
    return now() - start;
}

static double file_reads(const struct calls *calls, const int *fds)
{
    char byte;
    double start = now();

    for (int i = 0; i < CALLS; i++)
        if (calls->pread(fds[2], &byte, 1, 0) != 1)
            die("pread");
    return now() - start;
}

static double file_writes(const struct calls *calls, const int *fds)
{
    char byte = 'x';
    double start = now();

    for (int i = 0; i < CALLS; i++)
        if (calls->pwrite(fds[2], &byte, 1, 0) != 1)
            die("pwrite");
    return now() - start;
}

static const struct traffic {
    const char *name;
    double (*run)(const struct calls *calls, const int *fds);
    double calls; /* wrapped calls in one round */
} traffics[] = {{"write+read of a pipe", pipe_traffic, 2},
                {"pread of a file", file_reads, 1},
                {"pwrite of a file", file_writes, 1}};

enum { TRAFFICS = sizeof(traffics) / sizeof(traffics[0]) };

/* @return nanoseconds that the shim adds to one call; `plain` receives what it costs without. */
static double added_to_a_call(const struct traffic *traffic, const int *fds, double *plain)
{
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    static double added[PAIRS], base[PAIRS];

    if (!libc)
        die("libc.so.6");
    struct calls bound = calls_of(RTLD_DEFAULT);
    struct calls own = calls_of(libc);

    for (int i = 0; i < PAIRS; i++) {
        double with, without;

        /* Who goes first alternates. */
        if (i % 2) {
            with = traffic->run(&bound, fds);
            without = traffic->run(&own, fds);
        } else {
            without = traffic->run(&own, fds);
            with = traffic->run(&bound, fds);
        }
        added[i] = (with - without) / CALLS / traffic->calls;
        base[i] = without / CALLS / traffic->calls;
    }
    *plain = median(base, PAIRS);
    return median(added, PAIRS);
}

/* --- Start-up and memory ------------------------------------------------------------------------------------------ */

static char **environments[2]; /* without and with the shim */

static void make_environments(void)
{
    size_t count = 0;

    while (environ[count])
        count++;
    environments[1] = environ;
    environments[0] = calloc(count + 1, sizeof(char *));
    if (!environments[0])
        die("no memory");
    for (size_t i = 0, kept = 0; i < count; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
            environments[0][kept++] = environ[i];
}

/* Run a program to its end, its output going to `output`. @return nanoseconds. */
static double run(bool with_shim, char *const *argv, int output)
{
    posix_spawn_file_actions_t actions;
    int status;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    double start = now();

    if (posix_spawn(&pid, argv[0], &actions, NULL, argv, environments[with_shim]) != 0 ||
        waitpid(pid, &status, 0) != pid)
        die(argv[0]);
    double end = now();

    posix_spawn_file_actions_destroy(&actions);
    if (status != 0)
        die(argv[0]);
    return end - start;
}

static double added_to_a_start(double *plain)
{
    static double added[STARTS], base[STARTS];
    char *argv[] = {"/bin/true", NULL};

    for (int i = 0; i < STARTS; i++) {
        double first = run(i % 2, argv, STDOUT_FILENO);
        double second = run(!(i % 2), argv, STDOUT_FILENO);

        base[i] = (i % 2 ? second : first) / 1e6;
        added[i] = (i % 2 ? first - second : second - first) / 1e6;
    }
    *plain = median(base, STARTS);
    return median(added, STARTS);
}

/* One line of /proc/self/smaps_rollup or status, in KiB. */
static double kib(const char *path, const char *key)
{
    char line[256];
    FILE *file = fopen(path, "r");
    double value = 0;

    if (!file)
        die(path);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtod(line + strlen(key), NULL);
    fclose(file);
    return value;
}

/* What a program that uses no O_DIRECT has resident: all of it, and its own alone. */
static int print_memory(void)
{
    printf("%.0f %.0f\n", kib("/proc/self/status", "VmRSS:"),
           kib("/proc/self/smaps_rollup", "Private_Clean:") + kib("/proc/self/smaps_rollup", "Private_Dirty:"));
    return 0;
}

static void added_memory(char *program, double *resident, double *private)
{
    static double all[2][MEMORY_RUNS], own[2][MEMORY_RUNS];
    char *argv[] = {program, "--memory", NULL};
    int pipes[2];

    if (pipe(pipes) != 0)
        die("pipe");
    for (int i = 0; i < MEMORY_RUNS; i++) {
        for (int with = 0; with < 2; with++) {
            char text[64];

            run(with, argv, pipes[1]);
            ssize_t n = read(pipes[0], text, sizeof(text) - 1);

            text[n > 0 ? n : 0] = 0;
            if (sscanf(text, "%lf %lf", &all[with][i], &own[with][i]) != 2)
                die("the child's report");
        }
    }
    *resident = median(all[1], MEMORY_RUNS) - median(all[0], MEMORY_RUNS);
    *private = median(own[1], MEMORY_RUNS) - median(own[0], MEMORY_RUNS);
}

/* What is without the shim (where that is known), and what the shim adds. */
static void print(enum output output, const char *name, double plain, double added, const char *unit)
{
    if (output == RECORDS)
        printf("{\"experiment\": \"idle\", \"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\"}\n", name, added, unit);
    else if (plain > 0)
        printf("%-24s %8.*f %s  %+7.*f %s\n", name, plain < 10 ? 3 : 1, plain, unit, plain < 10 ? 3 : 2, added, unit);
    else
        printf("%-24s %11s  %+7.0f %s\n", name, "", added, unit);
}

/* Measure and print everything. @return true when all of it is within the limits. */
static bool measure(char *program, enum output output)
{
    char path[] = "/dev/shm/bounceio-idle.XXXXXX";
    bool within = true;
    double plain, added, resident, private;
    int fds[3];

    if (pipe(fds) != 0 || (fds[2] = mkstemp(path)) < 0 || unlink(path) != 0 || write(fds[2], "x", 1) != 1)
        die(path);
    for (size_t i = 0; i < TRAFFICS; i++) {
        added = added_to_a_call(&traffics[i], fds, &plain);
        within = within && added <= LIMIT_NANOSECONDS;
        print(output, traffics[i].name, plain, added, "ns");
    }
    added = added_to_a_start(&plain);
    within = within && added < LIMIT_MILLISECONDS;
    print(output, "start of /bin/true", plain, added, "ms");
    added_memory(program, &resident, &private);
    within = within && resident < LIMIT_KIB;
    print(output, "resident memory", 0, resident, "KiB");
    print(output, "private memory", 0, private, "KiB");
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    return within;
}

int main(int argc, char **argv)
{
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0;

    bool records = argc > 1 && strcmp(argv[1], "--records") == 0;

    if (argc > 1 && strcmp(argv[1], "--memory") == 0)
        return print_memory();
    if (!dlsym(RTLD_DEFAULT, "bounceio_version"))
        fprintf(stderr, "idle: the shim is not loaded: measuring nothing\n");
    make_environments();
    for (int attempt = 1;; attempt++) {
        if (measure(argv[0], records ? RECORDS : TABLE) || !check)
            return 0;
        if (attempt == ATTEMPTS)
            break;
        printf("beyond a limit; once more, in case it was the machine\n");
    }
    printf("beyond a limit: %.0f ns per call, %.1f ms at start-up, %.0f KiB\n", LIMIT_NANOSECONDS, LIMIT_MILLISECONDS,
           LIMIT_KIB);
    return 1;
}
