/* Buffers between inaccessible pages, patterns that depend on the position, hashes and random numbers. */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static size_t pages_of(size_t length)
{
    return (length + BLOCK - 1) / BLOCK * BLOCK;
}

void *buffer_new(size_t length)
{
    size_t inner = pages_of(length);
    char *all = mmap(NULL, inner + 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (all == MAP_FAILED || (inner && mprotect(all + BLOCK, inner, PROT_READ | PROT_WRITE) != 0))
        support_die("no memory for a buffer of %zu bytes", length);
    return all + BLOCK;
}

void buffer_free(void *buffer, size_t length)
{
    if (buffer)
        munmap((char *)buffer - BLOCK, pages_of(length) + 2 * BLOCK);
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned char pattern_byte(uint64_t seed, uint64_t position)
{
    return (unsigned char)(mix(seed * 0x9e3779b97f4a7c15u + position / 8) >> (position % 8 * 8));
}

void pattern_fill(void *buffer, size_t length, uint64_t seed, uint64_t offset)
{
    unsigned char *to = buffer;
    size_t i = 0;

    for (; i < length && (offset + i) % 8 != 0; i++)
        to[i] = pattern_byte(seed, offset + i);
    for (; i + 8 <= length; i += 8) {
        uint64_t word = mix(seed * 0x9e3779b97f4a7c15u + (offset + i) / 8);

        memcpy(to + i, &word, sizeof(word));
    }
    for (; i < length; i++)
        to[i] = pattern_byte(seed, offset + i);
}

size_t pattern_check(const void *buffer, size_t length, uint64_t seed, uint64_t offset)
{
    const unsigned char *from = buffer;

    for (size_t i = 0; i < length; i++)
        if (from[i] != pattern_byte(seed, offset + i))
            return i;
    return length;
}

uint64_t hash_bytes(uint64_t hash, const void *data, size_t length)
{
    const unsigned char *from = data;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ from[i]) * 0x100000001b3u;
    return hash;
}

uint64_t random_run_seed(void)
{
    static uint64_t seed;
    static bool known;
    const char *wanted = getenv("BOUNCEIO_TEST_SEED");
    struct timespec now;

    if (known)
        return seed;
    if (wanted && *wanted) {
        seed = strtoull(wanted, NULL, 0);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        seed = mix((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) & 0xffffffffu;
    }
    known = true;
    printf("seed %llu (repeat with BOUNCEIO_TEST_SEED=%llu)\n", (unsigned long long)seed, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

uint64_t random_next(struct random *random)
{
    return mix(random->state += 0x9e3779b97f4a7c15u);
}

uint64_t random_below(struct random *random, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)random_next(random) * bound) >> 64);
}

bool random_chance(struct random *random, unsigned percent)
{
    return random_below(random, 100) < percent;
}
