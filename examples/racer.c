/*
 * racer: what happens to a checksum when the buffer changes during a direct write?
 *
 * One thread rewrites a buffer without pause, as a guest kernel, another thread or a recycled buffer may do. The other
 * writes that buffer to a file with O_DIRECT, again and again, and after each pass over the file counts the blocks whose
 * content is not what was checksummed on the way down:
 *
 *   without bounceio  racer plays the checksumming layer (btrfs data checksums, T10 PI, iSCSI digests, DRBD, ...): it
 *                     hashes every 4 KiB block right before pwrite(), and compares with what it finds on the file.
 *   with bounceio     the layer is bounceio: bounceio_verify_range() compares every block on the file with the checksum
 *                     that bounceio took of its private copy.
 *
 *   racer FILE; LD_PRELOAD=libbounceshim.so racer FILE
 *
 * Exit status: 0 no such block, 1 some, 2 the test itself failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bounceio.h"

/* NULL when the shim is not loaded. */
#pragma weak bounceio_version
#pragma weak bounceio_verify_range

enum { BLOCK = 4096, BLOCK_WORDS = BLOCK / sizeof(uint64_t), FILE_WRITES = 64 };

static size_t write_size = 64 << 10;
static volatile uint64_t *buffer; /* write_size bytes, changed by the racer at any time */
static atomic_bool racing = true;
static atomic_ullong rounds; /* of the racer over the buffer: proof that it ran */

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "racer: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* FNV-1a over the words of one block. */
static uint64_t hash_block(const volatile uint64_t *words)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < BLOCK_WORDS; i++)
        hash = (hash ^ words[i]) * 0x100000001b3;
    return hash;
}

/* The racer: change one word of every block, then again, and again. */
static void *rewrite_buffer(void *unused)
{
    for (uint64_t round = 1; atomic_load_explicit(&racing, memory_order_relaxed); round++) {
        for (size_t word = round % BLOCK_WORDS; word < write_size / sizeof *buffer; word += BLOCK_WORDS)
            buffer[word] = round;
        atomic_store_explicit(&rounds, round, memory_order_relaxed);
    }
    return unused;
}

struct tally {
    unsigned long long writes, blocks, verified, changed, unverified;
};

/* Write the buffer `count` times, one after the other, and note the hashes of its blocks right before each write. */
static void write_pass(int fd, size_t count, uint64_t *hashes, struct tally *tally)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t block = 0; block < write_size / BLOCK; block++)
            *hashes++ = hash_block(buffer + block * BLOCK_WORDS);
        ssize_t written = pwrite(fd, (const void *)buffer, write_size, (off_t)(i * write_size));
        if (written != (ssize_t)write_size)
            die("pwrite");
        tally->writes++;
        tally->blocks += write_size / BLOCK;
    }
}

/* Compare with our own hashes; `memory` holds write_size bytes that nobody changes. */
static void compare_pass(int fd, size_t count, const uint64_t *hashes, uint64_t *memory, struct tally *tally)
{
    for (size_t i = 0; i < count; i++) {
        if (pread(fd, memory, write_size, (off_t)(i * write_size)) != (ssize_t)write_size)
            die("pread");
        for (size_t block = 0; block < write_size / BLOCK; block++) {
            bool same = hash_block(memory + block * BLOCK_WORDS) == *hashes++;
            tally->verified += same;
            tally->changed += !same;
        }
    }
}

/* Let bounceio compare with its checksums. */
static void verify_pass(int fd, size_t count, struct tally *tally)
{
    struct bounceio_verify_result result;
    if (bounceio_verify_range(fd, 0, count * write_size, &result) != 0)
        die("bounceio_verify_range");
    tally->verified += result.verified;
    tally->changed += result.mismatched;
    tally->unverified += result.unverified;
}

static void report(const struct tally *tally, bool json)
{
    const char *version = bounceio_version ? bounceio_version() : NULL;
    if (json)
        printf("{\"bounceio\": %s%s%s, \"write_size\": %zu, \"writes\": %llu, \"blocks\": %llu, \"verified\": %llu, "
               "\"changed\": %llu, \"unverified\": %llu, \"rounds\": %llu}\n",
               version ? "\"" : "", version ? version : "null", version ? "\"" : "", write_size, tally->writes,
               tally->blocks, tally->verified, tally->changed, tally->unverified, atomic_load(&rounds));
    else
        printf(
            "racer, %s bounceio, %zu KiB: writes=%llu, blocks=%llu, blocks that are not what was checksummed=%llu%s\n",
            version ? "with" : "without", write_size / 1024, tally->writes, tally->blocks, tally->changed,
            tally->unverified ? " (some blocks have no checksum: is BOUNCEIO_STORE usable?)" : "");
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: racer [--size 4K|64K|1M|BYTES] [--writes N] [--json] FILE\n");
    exit(2);
}

/* "64K", "1M", "4096"; a multiple of the block size. */
static size_t parse_size(const char *text)
{
    char *end;
    size_t size = strtoul(text, &end, 10);
    size *= *end == 'K' ? 1024 : *end == 'M' ? 1024 * 1024 : 1;
    if (size == 0 || size % BLOCK || size > 64 << 20 || (*end && end[1]))
        usage();
    return size;
}

static void *aligned_memory(size_t bytes)
{
    void *memory;
    errno = posix_memalign(&memory, BLOCK, bytes);
    if (errno)
        die("posix_memalign");
    return memset(memory, 0, bytes);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"size", required_argument, NULL, 's'},
        {"writes", required_argument, NULL, 'w'},
        {"json", no_argument, NULL, 'j'},
        {0},
    };
    unsigned long long writes = 2000;
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "s:w:j", options, NULL)) != -1;) {
        if (option == 's')
            write_size = parse_size(optarg);
        else if (option == 'w')
            writes = strtoull(optarg, NULL, 10);
        else if (option == 'j')
            json = true;
        else
            usage();
    }
    if (optind + 1 != argc || writes == 0)
        usage();

    int fd = open(argv[optind], O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0)
        die(argv[optind]);
    uint64_t *memory = aligned_memory(write_size);
    uint64_t *hashes = aligned_memory(FILE_WRITES * write_size / BLOCK * sizeof *hashes);
    buffer = aligned_memory(write_size);

    pthread_t racer;
    errno = pthread_create(&racer, NULL, rewrite_buffer, NULL);
    if (errno)
        die("pthread_create");
    struct tally tally = {0};
    while (tally.writes < writes) {
        size_t left = (size_t)(writes - tally.writes), count = left < FILE_WRITES ? left : FILE_WRITES;
        write_pass(fd, count, hashes, &tally);
        if (bounceio_verify_range)
            verify_pass(fd, count, &tally);
        else
            compare_pass(fd, count, hashes, memory, &tally);
    }
    atomic_store(&racing, false);
    pthread_join(racer, NULL);
    report(&tally, json);
    return tally.changed ? 1 : 0;
}
