/* Parity of vectors: how many segments, how long, where the bad one is, and the vector itself. */
#include "support/parity.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { K = 1024 };

#define VECTOR(n, ...) .vectored = true, .count = (n), .segments = {__VA_ARGS__}
#define PIECES(n, length) .vectored = true, .count = (n), .each = (length)

static int open_direct(struct parity_scene *scene)
{
    scene->fd = open(scene->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    return scene->fd;
}

/* Counts that are no count, passed as they are: the C library does not look at them. */
static void bad_counts(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);
    struct iovec vector = {buffer, BLOCK};
    /* Hidden from the compiler, which knows that no count is negative. */
    volatile int minus_one = -1;
    volatile int smallest = INT_MIN;
    int fd = open_direct(scene);

    scene_note(scene, "writev(-1)", writev(fd, &vector, minus_one));
    scene_note(scene, "readv(-1)", readv(fd, &vector, minus_one));
    scene_note(scene, "pwritev(INT_MIN)", pwritev(fd, &vector, smallest, 0));
    scene_note(scene, "preadv(-1)", preadv(fd, &vector, minus_one, 0));
    scene_note(scene, "pwritev2(-1)", pwritev2(fd, &vector, minus_one, 0, 0));
    scene_note(scene, "preadv2(-1)", preadv2(fd, &vector, minus_one, 0, 0));
    scene_note(scene, "syscall(pwritev,-1)", syscall(SYS_pwritev, fd, &vector, -1L, 0L, 0L));
    buffer_free(buffer, BLOCK);
}

static void bad_vectors(struct parity_scene *scene)
{
    struct iovec *nowhere = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open_direct(scene);

    scene_note(scene, "writev", writev(fd, nowhere, 1));
    scene_note(scene, "readv", readv(fd, nowhere, 1));
    scene_note(scene, "pwritev", pwritev(fd, nowhere, 2, 0));
    scene_note(scene, "preadv", preadv(fd, nowhere, 2, 0));
    scene_note(scene, "pwritev2", pwritev2(fd, nowhere, 9, 0, 0));
    scene_note(scene, "preadv2", preadv2(fd, nowhere, IOV_MAX, 0, 0));
    scene_note(scene, "pwritev of none", pwritev(fd, nowhere, 0, 0));
    scene_note(scene, "preadv of too many", preadv(fd, nowhere, IOV_MAX + 1, 0));
    scene_note(scene, "syscall(pwritev2)", syscall(SYS_pwritev2, fd, nowhere, 1L, 0L, 0L, 0L));
    munmap(nowhere, BLOCK);
}

/* A vector whose second entry lies on an inaccessible page. */
static void half_a_vector(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);
    char *pages = buffer_new(BLOCK); /* an inaccessible page follows */
    struct iovec *vector = (struct iovec *)(void *)(pages + BLOCK - sizeof(struct iovec));
    int fd = open_direct(scene);

    vector[0] = (struct iovec){buffer, BLOCK};
    scene_note(scene, "pwritev(1)", pwritev(fd, vector, 1, 0));
    scene_note(scene, "pwritev(2)", pwritev(fd, vector, 2, BLOCK));
    scene_note(scene, "preadv(1)", preadv(fd, vector, 1, 0));
    scene_note(scene, "preadv(2)", preadv(fd, vector, 2, BLOCK));
    buffer_free(pages, BLOCK);
    buffer_free(buffer, BLOCK);
}

/* The vector itself is where the data goes: the kernel copies the vector first. The sanitizers' own preadv looks at it afterwards. */
static void read_over_the_vector(struct parity_scene *scene)
{
    if (getenv("BOUNCEIO_TEST_SANITIZER"))
        return;
    char *buffer = buffer_new(BLOCK);
    struct iovec *vector = (struct iovec *)(void *)buffer;
    int fd = open_direct(scene);

    vector[0] = (struct iovec){buffer, SECTOR};
    vector[1] = (struct iovec){buffer + SECTOR, BLOCK - SECTOR};
    scene_note(scene, "preadv", preadv(fd, vector, 2, BLOCK));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

/* Segments that overlap, and one segment many times. */
static void overlapping_segments(struct parity_scene *scene)
{
    char *buffer = buffer_new(2 * BLOCK);
    struct iovec overlapping[] = {{buffer, BLOCK}, {buffer + SECTOR, BLOCK}};
    struct iovec same[] = {{buffer, BLOCK}, {buffer, BLOCK}, {buffer, BLOCK}};
    int fd = open_direct(scene);

    pattern_fill(buffer, 2 * BLOCK, SOURCE_SEED, 0);
    scene_note(scene, "pwritev", pwritev(fd, overlapping, 2, 0));
    scene_note(scene, "pwritev of the same", pwritev(fd, same, 3, 4 * BLOCK));
    buffer_free(buffer, 2 * BLOCK);
}

/* Good, bad and good segments, each in memory of its own. */
static void bad_segments(struct parity_scene *scene)
{
    char *good = buffer_new(BLOCK);
    char *bad = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec first[] = {{bad, BLOCK}, {good, BLOCK}};
    struct iovec empty[] = {{bad, 0}, {good, BLOCK}, {bad, 0}};
    struct iovec kernel[] = {{good, BLOCK}, {(void *)(uintptr_t)0xffff888000000000u, BLOCK}};
    struct iovec null[] = {{NULL, 0}, {good, BLOCK}};
    int fd = open_direct(scene);

    pattern_fill(good, BLOCK, SOURCE_SEED, 0);
    scene_note(scene, "bad first", pwritev(fd, first, 2, 0));
    scene_note(scene, "bad but empty", pwritev(fd, empty, 3, BLOCK));
    scene_note(scene, "kernel address second", pwritev(fd, kernel, 2, 2 * BLOCK));
    scene_note(scene, "null but empty", pwritev(fd, null, 2, 4 * BLOCK));
    scene_note(scene, "read, bad first", preadv(fd, first, 2, 0));
    scene_note(scene, "read, bad but empty", preadv(fd, empty, 3, BLOCK));
    scene_note(scene, "read, kernel address second", preadv(fd, kernel, 2, 2 * BLOCK));
    munmap(bad, BLOCK);
    buffer_free(good, BLOCK);
}

/* Lengths whose sum overflows, or that are negative. */
static void overflowing_lengths(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);
    struct iovec sum[] = {{buffer, SSIZE_MAX}, {buffer, BLOCK}};
    struct iovec negative[] = {{buffer, BLOCK}, {buffer, (size_t)-BLOCK}};
    struct iovec minus_one[] = {{buffer, SIZE_MAX}};
    int fd = open_direct(scene);

    scene_note(scene, "pwritev sum", pwritev(fd, sum, 2, 0));
    scene_note(scene, "pwritev negative", pwritev(fd, negative, 2, 0));
    scene_note(scene, "pwritev minus one", pwritev(fd, minus_one, 1, 0));
    scene_note(scene, "preadv sum", preadv(fd, sum, 2, 0));
    scene_note(scene, "preadv negative", preadv(fd, negative, 2, 0));
    scene_note(scene, "writev negative", writev(fd, negative, 2));
    scene_note(scene, "readv negative", readv(fd, negative, 2));
    buffer_free(buffer, BLOCK);
}

static const struct parity_case cases[] = {
    {"pwritev of two blocks", &call_pwritev, VECTOR(2, BLOCK, BLOCK)},
    {"pwritev of unequal segments", &call_pwritev, VECTOR(4, BLOCK, 64 * K, SECTOR, 7 * SECTOR)},
    {"pwritev of sectors that make blocks", &call_pwritev, PIECES(16, SECTOR)},
    {"pwritev of sectors that make no whole block", &call_pwritev, PIECES(15, SECTOR)},
    {"pwritev of odd segments with an aligned sum", &call_pwritev, VECTOR(3, 100, 3996, BLOCK)},
    {"pwritev of odd segments with an odd sum", &call_pwritev, VECTOR(2, 100, 100)},
    {"pwritev with empty segments between", &call_pwritev, VECTOR(5, 0, BLOCK, 0, BLOCK, 0)},
    {"pwritev of empty segments", &call_pwritev, VECTOR(3, 0, 0, 0)},
    {"pwritev of no segments", &call_pwritev, VECTOR(0, 0)},
    {"pwritev of IOV_MAX sectors", &call_pwritev, PIECES(IOV_MAX, SECTOR), .size = 512 * K},
    {"pwritev of IOV_MAX blocks", &call_pwritev, PIECES(IOV_MAX, BLOCK), .size = 512 * K},
    {"pwritev of IOV_MAX+1 sectors", &call_pwritev, PIECES(IOV_MAX + 1, SECTOR), .size = 512 * K},
    {"pwritev of IOV_MAX empty segments", &call_pwritev, VECTOR(IOV_MAX, 0)},
    {"pwritev of IOV_MAX bytes", &call_pwritev, PIECES(IOV_MAX, 1)},
    {"pwritev from memory off by 1", &call_pwritev, VECTOR(2, BLOCK, BLOCK), .memory = ODD_1},
    {"pwritev with a bad first page", &call_pwritev, VECTOR(2, BLOCK, BLOCK), .memory = BAD_FIRST},
    {"pwritev with a bad second segment", &call_pwritev, VECTOR(3, BLOCK, BLOCK, BLOCK), .memory = BAD_SECOND},
    {"pwritev with a bad page in the middle", &call_pwritev, VECTOR(2, 64 * K, 64 * K), .memory = BAD_MIDDLE},
    {"pwritev with a bad last page", &call_pwritev, VECTOR(4, BLOCK, 16 * K, SECTOR, 7 * SECTOR), .memory = BAD_LAST},
    {"pwritev of sectors with a bad middle page", &call_pwritev, PIECES(64, SECTOR), .memory = BAD_MIDDLE},
    {"pwritev at an odd offset", &call_pwritev, VECTOR(2, BLOCK, BLOCK), .offset = 100},
    {"pwritev at a negative offset", &call_pwritev, VECTOR(2, BLOCK, BLOCK), .offset = -1},
    {"pwritev across the end of file", &call_pwritev, VECTOR(2, BLOCK, BLOCK), .offset = DEFAULT_SIZE - BLOCK},
    {"pwritev from a mapping of the same file", &call_pwritev, VECTOR(2, BLOCK, 16 * K), .memory = SAME_FILE},
    {"writev of three segments", &call_writev, VECTOR(3, BLOCK, SECTOR, 7 * SECTOR), .at = 8 * K},
    {"writev with a bad last page", &call_writev, VECTOR(3, BLOCK, BLOCK, BLOCK), .at = 8 * K, .memory = BAD_LAST},
    {"writev of no segments", &call_writev, VECTOR(0, 0), .at = 8 * K},
    {"preadv of two blocks", &call_preadv, VECTOR(2, BLOCK, BLOCK)},
    {"preadv of unequal segments", &call_preadv, VECTOR(4, BLOCK, 64 * K, SECTOR, 7 * SECTOR)},
    {"preadv of sectors that make blocks", &call_preadv, PIECES(16, SECTOR)},
    {"preadv of sectors that make no whole block", &call_preadv, PIECES(15, SECTOR)},
    {"preadv of odd segments with an aligned sum", &call_preadv, VECTOR(3, 100, 3996, BLOCK)},
    {"preadv of odd segments with an odd sum", &call_preadv, VECTOR(2, 100, 100)},
    {"preadv with empty segments between", &call_preadv, VECTOR(5, 0, BLOCK, 0, BLOCK, 0)},
    {"preadv of empty segments", &call_preadv, VECTOR(3, 0, 0, 0)},
    {"preadv of no segments", &call_preadv, VECTOR(0, 0)},
    {"preadv of IOV_MAX sectors", &call_preadv, PIECES(IOV_MAX, SECTOR), .size = 512 * K},
    {"preadv of IOV_MAX+1 sectors", &call_preadv, PIECES(IOV_MAX + 1, SECTOR), .size = 512 * K},
    {"preadv into memory off by 1", &call_preadv, VECTOR(2, BLOCK, BLOCK), .memory = ODD_1},
    {"preadv with a bad first page", &call_preadv, VECTOR(2, BLOCK, BLOCK), .memory = BAD_FIRST},
    {"preadv with a bad second segment", &call_preadv, VECTOR(3, BLOCK, BLOCK, BLOCK), .memory = BAD_SECOND},
    {"preadv with a bad page in the middle", &call_preadv, VECTOR(2, 64 * K, 64 * K), .memory = BAD_MIDDLE},
    {"preadv with a read-only last page", &call_preadv, VECTOR(2, 16 * K, 16 * K), .memory = READ_ONLY_LAST},
    {"preadv of sectors with a bad middle page", &call_preadv, PIECES(64, SECTOR), .memory = BAD_MIDDLE},
    {"preadv at an odd offset", &call_preadv, VECTOR(2, BLOCK, BLOCK), .offset = 100},
    {"preadv at a negative offset", &call_preadv, VECTOR(2, BLOCK, BLOCK), .offset = -1},
    {"preadv across the end of file", &call_preadv, VECTOR(2, BLOCK, BLOCK), .offset = DEFAULT_SIZE - BLOCK},
    {"preadv across an odd end of file", &call_preadv, VECTOR(3, BLOCK, BLOCK, BLOCK), .offset = 64 * K,
     .size = 64 * K + 5000},
    {"readv of three segments", &call_readv, VECTOR(3, BLOCK, SECTOR, 7 * SECTOR), .at = 8 * K},
    {"readv with a bad last page", &call_readv, VECTOR(3, BLOCK, BLOCK, BLOCK), .at = 8 * K, .memory = BAD_LAST},
    {"counts that are no count", .run = bad_counts},
    {"vectors that are nowhere", .run = bad_vectors},
    {"a vector half of which is nowhere", .run = half_a_vector},
    {"a read over its own vector", .run = read_over_the_vector},
    {"segments that overlap", .run = overlapping_segments},
    {"segments that are bad", .run = bad_segments},
    {"lengths that overflow", .run = overflowing_lengths},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return parity_main(argc, argv, "parity: vectors", cases);
}
