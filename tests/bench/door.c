/*
 * What the doors share; and the two that need no queue.
 */
#include "bench/door.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum/block_sum.h"

void bench_die(const char *format, ...)
{
    int error = errno;
    va_list arguments;

    fputs("bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(2);
}

/* --- Offsets ------------------------------------------------------------------------------------------------------ */

/* Each step can be undone modulo a power of two, so that different numbers stay different. */
static uint64_t scatter(uint64_t number, uint64_t slots)
{
    unsigned bits = slots > 1 ? (unsigned)__builtin_ctzll(slots) : 1;
    uint64_t mask = slots - 1;

    for (int round = 0; round < 3; round++) {
        number = (number * 0x9E3779B97F4A7C15u + 0x7F4A7C15u) & mask;
        number ^= number >> ((bits + 1) / 2);
    }
    return number;
}

uint64_t work_offset(struct work *work)
{
    uint64_t number = work->next++;

    return (work->is_random ? scatter(number & (work->slots - 1), work->slots) : number & (work->slots - 1)) *
           work->size;
}

/* --- Symbols ------------------------------------------------------------------------------------------------------ */

struct search {
    const char *library;
    char path[4096];
};

static int find_library(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct search *search = argument;
    const char *base = strrchr(info->dlpi_name, '/');

    (void)size;
    base = base ? base + 1 : info->dlpi_name;
    if (strncmp(base, search->library, strlen(search->library)) != 0)
        return 0;
    snprintf(search->path, sizeof(search->path), "%s", info->dlpi_name);
    return 1;
}

/*
 * The library past the shim. libc's calls that matter here are system calls and nothing more; but liburing and libaio call each other's
 * exported functions and syscall(), by names that the shim has taken. So they are loaded once more, into a namespace that is not preloaded.
 */
static void *untouched(const char *library)
{
    static struct {
        const char *library;
        void *handle;
    } loaded[4];
    struct search search = {.library = library};
    unsigned i = 0;

    for (; loaded[i].library; i++)
        if (strcmp(loaded[i].library, library) == 0)
            return loaded[i].handle;
    dl_iterate_phdr(find_library, &search);
    loaded[i].library = library;
    if (strcmp(library, "libc.so") == 0)
        loaded[i].handle = dlopen(search.path, RTLD_NOW | RTLD_NOLOAD);
    else
        loaded[i].handle = dlmopen(LM_ID_NEWLM, search.path, RTLD_NOW);
    if (!loaded[i].handle)
        bench_die("%s", dlerror());
    return loaded[i].handle;
}

void *door_symbol(bool through_shim, const char *library, const char *name)
{
    void *found = dlsym(through_shim ? RTLD_DEFAULT : untouched(library), name);

    if (!found)
        bench_die("no %s in %s", name, library);
    return found;
}

void door_check(const struct door *door, const struct work *work, int64_t result)
{
    if (result == (int64_t)work->size)
        return;
    errno = result < 0 ? (int)-result : 0;
    bench_die("%s: %s of %zu bytes gave %lld", door->name, work->is_write ? "write" : "read", work->size,
              (long long)result);
}

void numbers_init(struct numbers *numbers, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        numbers->free[i] = i;
    numbers->count = depth;
}

void *door_state(size_t size)
{
    void *state = calloc(1, size);

    if (!state)
        bench_die("memory");
    return state;
}

void door_die(const char *call, int result)
{
    errno = -result;
    bench_die("%s", call);
}

/* --- Blocking calls ----------------------------------------------------------------------------------------------- */

struct blocking {
    ssize_t (*pread)(int fd, void *buffer, size_t length, off_t offset);
    ssize_t (*pwrite)(int fd, const void *buffer, size_t length, off_t offset);
};

static void *blocking_open(bool through_shim, unsigned depth)
{
    struct blocking *calls = malloc(sizeof(*calls));

    (void)depth;
    if (!calls)
        bench_die("memory");
    *(void **)&calls->pread = door_symbol(through_shim, "libc.so", "pread");
    *(void **)&calls->pwrite = door_symbol(through_shim, "libc.so", "pwrite");
    return calls;
}

static void blocking_run(void *state, struct work *work, unsigned requests)
{
    const struct blocking *calls = state;
    double begin = clock_now();

    for (unsigned i = 0; i < requests; i++) {
        off_t offset = (off_t)work_offset(work);
        ssize_t n = work->is_write ? calls->pwrite(work->fd, work->memory, work->size, offset)
                                   : calls->pread(work->fd, work->memory, work->size, offset);
        double end = clock_now();

        if (n != (ssize_t)work->size)
            door_check(&door_blocking, work, n < 0 ? -errno : n);
        histogram_add(work->latencies, end - begin);
        begin = end;
    }
}

const struct door door_blocking = {"blocking", 1, blocking_open, blocking_run, free};

/* --- The floor ---------------------------------------------------------------------------------------------------- */

void block_sums_baseline(void *argument);
void block_sums_avx2(void *argument);
void block_sums_avx512(void *argument);

struct floor {
    void (*hash)(void *argument);
    unsigned char *memory; /* where the copies go */
};

enum { FLOOR_MAX = 4 << 20 };

static void *floor_open(bool through_shim, unsigned depth)
{
    struct floor *floor = calloc(1, sizeof(*floor));

    (void)through_shim;
    (void)depth;
    if (!floor || !(floor->memory = aligned_alloc(BLOCK_SIZE, FLOOR_MAX)))
        bench_die("memory");
    memset(floor->memory, 1, FLOOR_MAX);
    floor->hash = block_sums_baseline;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        floor->hash = block_sums_avx512;
    else if (__builtin_cpu_supports("avx2"))
        floor->hash = block_sums_avx2;
#endif
    return floor;
}

static void floor_run(void *state, struct work *work, unsigned requests)
{
    struct floor *floor = state;
    static uint64_t sums[FLOOR_MAX / BLOCK_SIZE];

    for (unsigned i = 0; i < requests; i++) {
        unsigned char *memory = work->memory + (size_t)(i % work->depth) * work->size;

        if (work->is_write)
            memcpy(floor->memory, memory, work->size);
        floor->hash(&(struct block_sums){work->is_write ? floor->memory : memory, work->size / BLOCK_SIZE, i, sums});
        __asm__ volatile("" ::: "memory");
    }
}

static void floor_close(void *state)
{
    free(((struct floor *)state)->memory);
    free(state);
}

const struct door door_floor = {"floor", 0, floor_open, floor_run, floor_close};
