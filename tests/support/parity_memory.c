/* The memory that parity cases read and write: good, misaligned, partly bad, or a mapping of some file. */
#include "parity.h"

#include "base/raw.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* No request needs more real memory than this; longer ones are lengths that the kernel refuses or cuts. */
enum { REGION_MAX = 4 << 20 };

static bool is_mapping(enum parity_memory memory)
{
    return memory >= TRUNCATED_MIDDLE;
}

bool parity_memory_is_odd(enum parity_memory memory)
{
    return (memory >= ODD_1 && memory <= ODD_512) || memory == BAD_ODD || memory == BAD_ODD_1;
}

static size_t misalignment(enum parity_memory memory)
{
    switch (memory) {
    case ODD_1:
    case BAD_ODD_1:
        return 1;
    case ODD_2:
        return 2;
    case ODD_4:
        return 4;
    case ODD_8:
        return 8;
    case ODD_512:
    case BAD_ODD:
        return SECTOR;
    default:
        return 0;
    }
}

/* An address that needs no memory behind it, or NULL with *fixed false. */
static void *fixed_address(enum parity_memory memory, bool *fixed)
{
    *fixed = true;
    switch (memory) {
    case NOTHING:
        return NULL;
    case LOW:
        return (void *)(uintptr_t)BLOCK;
    case KERNEL:
        return (void *)(uintptr_t)0xffff888000000000u;
    case NON_CANONICAL:
        return (void *)(uintptr_t)0x8000000000000000u;
    case ADDRESS_END:
        return (void *)(uintptr_t)0xfffffffffffff000u;
    default:
        *fixed = false;
        return NULL;
    }
}

static void protect(char *region, size_t at, size_t length, int protection)
{
    if (raw_failed(raw(SYS_mprotect, region + at, length, protection)))
        support_die("cannot protect memory");
}

/* Take access from one page of anonymous memory. @return bytes before it, as the call's direction sees it. */
static uint64_t spoil(char *region, size_t length, enum parity_memory memory, bool writes, uint64_t total)
{
    size_t pages = length / BLOCK;
    size_t page;
    int protection = PROT_NONE;

    switch (memory) {
    case BAD_FIRST:
        page = 0;
        break;
    case BAD_SECOND:
        page = 1;
        break;
    case READ_ONLY_MIDDLE:
        protection = PROT_READ;
        page = pages / 2;
        break;
    case BAD_MIDDLE:
        page = pages / 2;
        break;
    case READ_ONLY_LAST:
        protection = PROT_READ;
        page = pages - 1;
        break;
    case BAD_LAST:
    case BAD_ODD:
    case BAD_ODD_1:
        page = pages - 1;
        break;
    case INACCESSIBLE:
        protect(region, 0, length, PROT_NONE);
        return 0;
    case READ_ONLY:
        protect(region, 0, length, PROT_READ);
        return writes ? total : 0;
    case WRITE_ONLY:
        /* The processor cannot express it: what can be written can be read. */
        protect(region, 0, length, PROT_WRITE);
        return total;
    default:
        return total;
    }
    protect(region, page * BLOCK, BLOCK, protection);
    if (protection == PROT_READ && writes)
        return total;
    return page * BLOCK - misalignment(memory);
}

/* Map `length` bytes of a file by system calls that no wrapper sees, for memory that is not what is under test. */
static char *map_behind(const char *path, size_t length, off_t at, int sharing)
{
    long fd = raw(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    long address = raw_failed(fd) ? fd : raw(SYS_mmap, 0, length, PROT_READ | PROT_WRITE, sharing, fd, at);

    if (raw_failed(address))
        support_die("cannot map %s", path);
    raw(SYS_close, fd);
    return (char *)(uintptr_t)address;
}

/* A program maps the file under test through the C library, so that the shim can see the mapping. */
static char *map_openly(const char *path, size_t length, off_t at, int sharing)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char *address = fd < 0 ? MAP_FAILED : mmap(NULL, length, PROT_READ | PROT_WRITE, sharing, fd, at);

    if (address == MAP_FAILED)
        support_die("cannot map %s", path);
    close(fd);
    return address;
}

/* Make the region a mapping of some file. @return bytes that can be accessed. */
static uint64_t map_region(struct parity_buffer *buffer, const struct parity_scene *scene, enum parity_memory memory,
                           uint64_t where)
{
    const char *other = path_in(scene->directory, "other");
    size_t length = buffer->region_length;
    size_t kept = length;

    if (memory == SAME_FILE || memory == SAME_PRIVATE || memory == SAME_RANGE) {
        off_t at = memory == SAME_RANGE ? (off_t)(where / BLOCK * BLOCK) : SAME_FILE_AT;

        buffer->region = map_openly(scene->path, length, at, memory == SAME_PRIVATE ? MAP_PRIVATE : MAP_SHARED);
        return buffer->total;
    }
    make_file_behind(other, OTHER_SEED, length);
    buffer->region = map_behind(other, length, 0, memory == OTHER_PRIVATE ? MAP_PRIVATE : MAP_SHARED);
    if (memory == TRUNCATED_MIDDLE)
        kept = length / BLOCK / 2 * BLOCK;
    else if (memory == TRUNCATED_ODD)
        kept = length / BLOCK / 2 * BLOCK + 100;
    else if (memory == TRUNCATED_ALL)
        kept = 0;
    if (kept != length && raw_failed(raw(SYS_truncate, other, kept)))
        support_die("cannot truncate %s", other);
    kept = (kept + BLOCK - 1) / BLOCK * BLOCK;
    return kept < buffer->total ? kept : buffer->total;
}

/* Lay the segments over the region one after the other. */
static void cut_segments(struct parity_buffer *buffer, const struct parity_case *c, char *at)
{
    buffer->count = c->vectored ? (int)c->count : 1;
    buffer->vector = calloc((size_t)buffer->count + 1, sizeof(*buffer->vector));
    if (!buffer->vector)
        support_die("no memory");
    buffer->total = 0;
    for (int i = 0; i < buffer->count; i++) {
        uint64_t length = !c->vectored ? c->length : c->each;

        if (c->vectored && i < PARITY_SEGMENTS && !c->each)
            length = c->segments[i];

        buffer->vector[i].iov_base = at + buffer->total;
        buffer->vector[i].iov_len = length;
        buffer->total += length;
    }
}

/* Remember what a write would take: `length` bytes of memory, or of the file behind a mapping that must stay untouched. */
static void take_source(struct parity_buffer *buffer, const void *memory, const char *file, uint64_t at, size_t length)
{
    buffer->source = calloc(1, length + 1);
    if (!buffer->source)
        support_die("no memory");
    if (memory)
        memcpy(buffer->source, memory, length);
    else if (file)
        read_behind(file, buffer->source, length, at);
}

static void build_mapping(struct parity_buffer *buffer, const struct parity_scene *scene, enum parity_memory memory,
                          uint64_t where)
{
    buffer->good = map_region(buffer, scene, memory, where);
    if (memory == SAME_RANGE)
        take_source(buffer, NULL, scene->path, where / BLOCK * BLOCK, buffer->good);
    else if (memory == SAME_FILE || memory == SAME_PRIVATE)
        take_source(buffer, NULL, scene->path, SAME_FILE_AT, buffer->good);
    else
        take_source(buffer, NULL, path_in(scene->directory, "other"), 0, buffer->good);
}

static void build_anonymous(struct parity_buffer *buffer, enum parity_memory memory, bool writes)
{
    char *start = (char *)buffer->region + misalignment(memory);
    size_t room = buffer->region_length - misalignment(memory);

    if (buffer->total < room)
        room = buffer->total;
    if (writes && memory != UNTOUCHED)
        pattern_fill(start, room, SOURCE_SEED, 0);
    take_source(buffer, memory == UNTOUCHED ? NULL : start, NULL, 0, room);
    buffer->good = spoil(buffer->region, buffer->region_length, memory, writes, room);
    if (buffer->good > room)
        buffer->good = room;
}

void parity_buffer_build(struct parity_buffer *buffer, const struct parity_scene *scene, const struct parity_case *c,
                         uint64_t where)
{
    bool fixed;
    char *address = fixed_address(c->memory, &fixed);

    memset(buffer, 0, sizeof(*buffer));
    cut_segments(buffer, c, address);
    if (fixed) {
        take_source(buffer, NULL, NULL, 0, 0);
        return;
    }
    uint64_t wanted = buffer->total + misalignment(c->memory);

    if (wanted > REGION_MAX || wanted < buffer->total)
        wanted = REGION_MAX;
    buffer->region_length = wanted == 0 ? BLOCK : (size_t)((wanted + BLOCK - 1) / BLOCK * BLOCK);
    buffer->anonymous = !is_mapping(c->memory);
    if (buffer->anonymous) {
        buffer->region = buffer_new(buffer->region_length);
        build_anonymous(buffer, c->memory, c->call->traits & WRITES);
    } else {
        build_mapping(buffer, scene, c->memory, where);
    }
    free(buffer->vector);
    cut_segments(buffer, c, (char *)buffer->region + misalignment(c->memory));
}

void parity_buffer_free(struct parity_buffer *buffer)
{
    if (buffer->anonymous)
        buffer_free(buffer->region, buffer->region_length);
    else if (buffer->region)
        munmap(buffer->region, buffer->region_length);
    free(buffer->vector);
    free(buffer->source);
}
