/* Patterns through O_DIRECT, and the shim's counters. */
#include "direct.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

extern __typeof__(bounceio_get_stats) bounceio_get_stats __attribute__((weak));

_Noreturn void check_failed(const char *file, int line, const char *format, ...)
{
    int error = errno;
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (errno %d: %s)\n", error, strerror(error));
    _exit(EXIT_FAILURE);
}

bool counting(void)
{
    if (bounceio_get_stats)
        return true;
    check_that(getenv("BOUNCEIO_TEST_NATIVE"), "this test must run under the shim");
    return false;
}

struct bounceio_stats counters(void)
{
    struct bounceio_stats stats = {0};

    if (counting())
        check_that(bounceio_get_stats(&stats, sizeof(stats)) == 0, "no statistics");
    return stats;
}

int direct_open(const char *path, int flags)
{
    int fd = open(path, O_DIRECT | O_CLOEXEC | flags, 0600);

    check_that(fd >= 0, "cannot open %s with O_DIRECT", path);
    return fd;
}

unsigned char *aligned_memory(void)
{
    static _Thread_local unsigned char *memory;

    if (!memory) {
        memory = mmap(NULL, DIRECT_MAX + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            support_die("no memory");
    }
    return memory;
}

unsigned char *direct_memory(void)
{
    return aligned_memory() + (bounceio_get_stats ? 1 : 0);
}

void direct_write(int fd, uint64_t seed, off_t offset, size_t length)
{
    pattern_fill(direct_memory(), length, seed, (uint64_t)offset);
    ssize_t n = pwrite(fd, direct_memory(), length, offset);

    check_that(n == (ssize_t)length, "pwrite of %zu at %lld gave %zd", length, (long long)offset, n);
}

void direct_check(int fd, uint64_t seed, off_t offset, size_t length)
{
    memset(direct_memory(), 0xEE, length);
    ssize_t n = pread(fd, direct_memory(), length, offset);

    check_that(n == (ssize_t)length, "pread of %zu at %lld gave %zd", length, (long long)offset, n);
    size_t good = pattern_check(direct_memory(), length, seed, (uint64_t)offset);

    check_that(good == length, "byte %llu of the file is wrong", (unsigned long long)offset + good);
}

bool content_is(const char *path, uint64_t seed, size_t length)
{
    unsigned char *data = malloc(length + 1);

    if (!data)
        support_die("no memory");
    bool same = read_behind(path, data, length + 1, 0) == length && pattern_check(data, length, seed, 0) == length;

    free(data);
    return same;
}

size_t rounds(size_t slice, size_t full)
{
    return getenv("BOUNCEIO_TEST_FULL") ? full : slice;
}
