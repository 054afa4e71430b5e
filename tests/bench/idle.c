/*
 * What the shim costs a program that never uses O_DIRECT: nanoseconds per read and write, milliseconds at start-up, KiB of memory.
 *
 *   LD_PRELOAD=libbounceshim.so idle [--check | --records]
 *
 * Calls: the function that the program is bound to (the shim's) and the C library's own take turns, in blocks; the median over the
 * pairs of blocks is what drift of clock and neighbours cannot touch. What the processor has learned to predict can: either side's
 * calls are some 6 ns slower for as long as nothing disturbs it. So each block begins with predictions scrambled, and
 * the median of several processes counts. Start-up and memory: a small dynamic program, run in turns with and without the shim.
 *
 * --check fails beyond the limits below; a noisy machine gets three attempts. --records: what is added, in lines of JSON for the
 * benchmark's report. --calls, --memory: what the processes that it starts measure.
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
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define LIMIT_NANOSECONDS 5.0
#define LIMIT_MILLISECONDS 0.3
#define LIMIT_KIB 384.0 /* resident: nearly all of it is the library's code, shared by all processes */

enum output { TABLE, RECORDS };

enum { PROCESSES = 15, PAIRS = 71, CALLS = 500, WARM_UP = 200, STARTS = 301, MEMORY_RUNS = 201, ATTEMPTS = 3 };

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

/* One kind of traffic: nanoseconds for so many rounds of it. */
static double pipe_traffic(const struct calls *calls, const int *fds, int rounds)
{
    char byte = 'x';
    double start = now();

    for (int i = 0; i < rounds; i++)
        if (calls->write(fds[1], &byte, 1) != 1 || calls->read(fds[0], &byte, 1) != 1)
            die("pipe");
    return now() - start;
}

static double file_reads(const struct calls *calls, const int *fds, int rounds)
{
    char byte;
    double start = now();

    for (int i = 0; i < rounds; i++)
        if (calls->pread(fds[2], &byte, 1, 0) != 1)
            die("pread");
    return now() - start;
}

static double file_writes(const struct calls *calls, const int *fds, int rounds)
{
    char byte = 'x';
    double start = now();

    for (int i = 0; i < rounds; i++)
        if (calls->pwrite(fds[2], &byte, 1, 0) != 1)
            die("pwrite");
    return now() - start;
}

static const struct traffic {
    const char *name;
    double (*run)(const struct calls *calls, const int *fds, int rounds);
    double calls; /* wrapped calls in one round */
} traffics[] = {{"write+read of a pipe", pipe_traffic, 2},
                {"pread of a file", file_reads, 1},
                {"pwrite of a file", file_writes, 1}};

enum { TRAFFICS = sizeof(traffics) / sizeof(traffics[0]) };

/* Make the processor forget what it predicts: some thousand jumps, from and to other places each time. */
static void scramble_predictions(void)
{
#if defined(__x86_64__)
    enum { JUMPS = 4096, APART = 256, JUMP = 5 };
    static unsigned char *code;
    static int places[JUMPS];

    if (!code)
        code =
            mmap(NULL, (size_t)JUMPS * APART, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        return;
    for (int i = 0; i < JUMPS; i++) {
        int other = (int)(random() % (i + 1));

        places[i] = places[other];
        places[other] = i * APART + (int)(random() % (APART - JUMP));
    }
    for (int i = 0; i + 1 < JUMPS; i++) {
        int distance = places[i + 1] - places[i] - JUMP;

        code[places[i]] = 0xe9; /* jmp */
        memcpy(code + places[i] + 1, &distance, sizeof(distance));
    }
    code[places[JUMPS - 1]] = 0xc3; /* ret */
    for (int i = 0; i < 4; i++)
        ((void (*)(void))(uintptr_t)(code + places[0]))();
#endif
}

static double block(const struct traffic *traffic, const struct calls *calls, const int *fds)
{
    scramble_predictions();
    traffic->run(calls, fds, WARM_UP);
    return traffic->run(calls, fds, CALLS);
}

/* @return nanoseconds that the shim adds to one call; `plain` receives what it costs without. In this process. */
static double added_here(const struct traffic *traffic, const int *fds, double *plain)
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
            with = block(traffic, &bound, fds);
            without = block(traffic, &own, fds);
        } else {
            without = block(traffic, &own, fds);
            with = block(traffic, &bound, fds);
        }
        added[i] = (with - without) / CALLS / traffic->calls;
        base[i] = without / CALLS / traffic->calls;
    }
    *plain = median(base, PAIRS);
    return median(added, PAIRS);
}

/* --calls: a line for each kind of traffic, what is added and what it costs without. */
static int print_calls(void)
{
    char path[] = "/dev/shm/bounceio-idle.XXXXXX";
    double plain, added;
    int fds[3];

    srandom((unsigned)getpid());
    if (pipe(fds) != 0 || (fds[2] = mkstemp(path)) < 0 || unlink(path) != 0 || write(fds[2], "x", 1) != 1)
        die(path);
    for (size_t i = 0; i < TRAFFICS; i++) {
        added = added_here(&traffics[i], fds, &plain);
        printf("%.3f %.3f\n", added, plain);
    }
    return 0;
}

/* --- Other processes ------------------------------------------------------------------------------------------ */

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

/* Run this program with one argument; the numbers that it prints. */
static void ask(bool with_shim, char *program, const char *argument, double *numbers, size_t count)
{
    char *argv[] = {program, (char *)(uintptr_t)argument, NULL}, text[512], *next = text;
    int pipes[2];

    if (pipe(pipes) != 0)
        die("pipe");
    run(with_shim, argv, pipes[1]);
    close(pipes[1]);
    ssize_t length = read(pipes[0], text, sizeof(text) - 1);

    close(pipes[0]);
    text[length > 0 ? length : 0] = 0;
    for (size_t i = 0; i < count; i++) {
        char *begin = next;

        numbers[i] = strtod(begin, &next);
        if (next == begin)
            die("the child's report");
    }
}

struct added {
    double added, plain;
};

static void added_to_calls(char *program, struct added *calls)
{
    static double numbers[2 * TRAFFICS], values[2 * TRAFFICS][PROCESSES];

    for (int i = 0; i < PROCESSES; i++) {
        ask(true, program, "--calls", numbers, 2 * TRAFFICS);
        for (size_t number = 0; number < 2 * TRAFFICS; number++)
            values[number][i] = numbers[number];
    }
    for (size_t i = 0; i < TRAFFICS; i++)
        calls[i] = (struct added){median(values[2 * i], PROCESSES), median(values[2 * i + 1], PROCESSES)};
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

    for (int i = 0; i < MEMORY_RUNS; i++) {
        for (int with = 0; with < 2; with++) {
            double numbers[2];

            ask(with, program, "--memory", numbers, 2);
            all[with][i] = numbers[0];
            own[with][i] = numbers[1];
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
    bool within = true;
    double plain, added, resident, private;
    struct added calls[TRAFFICS];

    added_to_calls(program, calls);
    for (size_t i = 0; i < TRAFFICS; i++) {
        within = within && calls[i].added <= LIMIT_NANOSECONDS;
        print(output, traffics[i].name, calls[i].plain, calls[i].added, "ns");
    }
    added = added_to_a_start(&plain);
    within = within && added < LIMIT_MILLISECONDS;
    print(output, "start of /bin/true", plain, added, "ms");
    added_memory(program, &resident, &private);
    within = within && resident < LIMIT_KIB;
    print(output, "resident memory", 0, resident, "KiB");
    print(output, "private memory", 0, private, "KiB");
    return within;
}

int main(int argc, char **argv)
{
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0;

    bool records = argc > 1 && strcmp(argv[1], "--records") == 0;

    if (argc > 1 && strcmp(argv[1], "--memory") == 0)
        return print_memory();
    if (argc > 1 && strcmp(argv[1], "--calls") == 0)
        return print_calls();
    if (!dlsym(RTLD_DEFAULT, "bounceio_version")) {
        fprintf(stderr, "idle: the shim is not loaded: measuring nothing\n");
        if (check)
            return 2;
    }
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
