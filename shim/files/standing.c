/*
 * The table of standing mutators, in wiped memory. An entry that finds the table full stands until the process ends, unlisted.
 */
#include "files/standing.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/process.h"
#include "base/raw.h"
#include "checksum/mutate.h"
#include "checksum/session.h"
#include "files/descriptor.h"

enum { STANDING_MAX = 256 };

struct standing {
    struct file *file;    /* NULL: free; holds a reference */
    int fd;               /* of a stream, or -1 */
    void *stream;         /* its FILE */
    uintptr_t begin, end; /* of a mapping */
    uint64_t first;       /* block */
    uint64_t blocks;      /* the most it has ever covered */
    struct mutation mutation;
};

static struct standing_table {
    _Atomic uint32_t mappings_made; /* shared, of any file */
    _Atomic uint32_t mappings;      /* of them listed here */
    _Atomic uint32_t streams;       /* listed here */
    struct standing entries[STANDING_MAX];
} * table;

static void standing_start(void)
{
    table = process_arena(sizeof *table);
}
PROCESS_INITIALISER(standing_start);

/* Process lock held. The mutation itself may map windows, which takes the lock: it is opened before. */
static void add(const struct standing *entry)
{
    for (int i = 0; i < STANDING_MAX; i++) {
        if (table->entries[i].file)
            continue;
        file_hold(entry->file);
        table->entries[i] = *entry;
        atomic_fetch_add(entry->fd < 0 ? &table->mappings : &table->streams, 1);
        return;
    }
}

static void begin(struct standing *entry)
{
    uint64_t saved;
    mutate_open(&entry->mutation, &entry->file->map, entry->first, FLIGHT_TO_END, TRANSPORT_MEMORY, false);
    process_lock(&saved);
    add(entry);
    process_unlock(&saved);
}

static void finish(struct standing *entry)
{
    /* Perhaps nothing was written by it. */
    entry->mutation.times_kept = true;
    mutate_close(&entry->mutation, entry->first, entry->blocks);
    file_release(entry->file);
}

static void take_out(struct standing *entry, struct standing *out)
{
    *out = *entry;
    atomic_fetch_sub(entry->fd < 0 ? &table->mappings : &table->streams, 1);
    entry->file = NULL;
}

/* Take out the first entry from *next on that is `wanted`, and move *next behind it. @return false when there is none left. */
static bool take_next(int *next, bool (*wanted)(struct standing *entry, const void *argument), const void *argument,
                      struct standing *out)
{
    bool found = false;
    uint64_t saved;
    process_lock(&saved);
    for (; *next < STANDING_MAX && !found; ++*next) {
        struct standing *entry = &table->entries[*next];
        found = entry->file && wanted(entry, argument);
        if (found)
            take_out(entry, out);
    }
    process_unlock(&saved);
    return found;
}

/* Relaxed: whoever asks about a stream or a mapping has made it himself, or was told of it. */
static bool none(const _Atomic uint32_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed) == 0;
}

void standing_stream_opened(int fd, struct file *file, void *stream)
{
    begin(&(struct standing){.file = file, .fd = fd, .stream = stream, .blocks = FLIGHT_TO_END});
}

static bool is_stream_of(struct standing *entry, const void *fd)
{
    return entry->fd == *(const int *)fd;
}

void *standing_stream_closed(int fd)
{
    struct standing out;
    void *stream = NULL;
    if (none(&table->streams))
        return NULL;
    for (int next = 0; take_next(&next, is_stream_of, &fd, &out); finish(&out))
        stream = out.stream;
    return stream;
}

void standing_mapping_noted(void)
{
    atomic_fetch_add(&table->mappings_made, 1);
}

void standing_mapping_made(void *address, size_t length, struct file *file, uint64_t offset, bool writable)
{
    uint64_t first = offset / BLOCK_SIZE;
    struct standing entry = {.file = file,
                             .fd = -1,
                             .begin = (uintptr_t)address,
                             .end = (uintptr_t)address + length,
                             .first = first,
                             .blocks = (offset + length + BLOCK_SIZE - 1) / BLOCK_SIZE - first};
    uint64_t saved;
    if (writable) {
        begin(&entry);
        return;
    }
    process_lock(&saved);
    add(&entry);
    process_unlock(&saved);
}

static bool no_mappings(void)
{
    return !table || none(&table->mappings);
}

struct range {
    uintptr_t begin, end;
};

static bool overlaps(const struct standing *entry, const struct range *range)
{
    return entry->fd < 0 && range->begin < entry->end && range->end > entry->begin;
}

static bool is_read_only_in(struct standing *entry, const void *range)
{
    return overlaps(entry, range) && !entry->mutation.map;
}

void standing_mapping_writable(const void *address, size_t length)
{
    const struct range range = {(uintptr_t)address, (uintptr_t)address + length};
    struct standing out;
    if (no_mappings())
        return;
    for (int next = 0; take_next(&next, is_read_only_in, &range, &out);) {
        begin(&out);
        file_release(out.file); /* the new entry holds one of its own */
    }
}

/* Cut a range off a mapping, from either side; a hole in the middle leaves it standing. @return nothing left? */
static bool trim(struct standing *entry, const void *argument)
{
    const struct range *gone = argument;
    if (!overlaps(entry, gone))
        return false;
    if (gone->begin <= entry->begin)
        entry->begin = gone->end;
    else if (gone->end >= entry->end)
        entry->end = gone->begin;
    return entry->begin >= entry->end;
}

void standing_mapping_gone(const void *address, size_t length)
{
    const struct range gone = {(uintptr_t)address, ((uintptr_t)address + length + 4095) & ~(uintptr_t)4095};
    struct standing out;
    if (no_mappings())
        return;
    for (int next = 0; take_next(&next, trim, &gone, &out);)
        finish(&out);
}

void standing_mapping_moved(const void *address, const void *new_address, size_t new_length)
{
    if (no_mappings())
        return;
    const struct range first = {(uintptr_t)address, (uintptr_t)address + 1};
    uint64_t saved;
    process_lock(&saved);
    for (int i = 0; i < STANDING_MAX; i++) {
        struct standing *entry = &table->entries[i];
        if (!entry->file || !overlaps(entry, &first))
            continue;
        entry->begin = (uintptr_t)new_address;
        entry->end = (uintptr_t)new_address + new_length;
        uint64_t blocks = (new_length + BLOCK_SIZE - 1) / BLOCK_SIZE + 1;
        if (blocks > entry->blocks)
            entry->blocks = blocks;
        break;
    }
    process_unlock(&saved);
}

struct search {
    struct file *file;
    const struct stat *status;
    int except;
};

static void stand_if_same(int fd, void *argument)
{
    const struct search *search = argument;
    struct stat status;
    /* Standard output may be a direct descriptor that the program writes to with write(). */
    if (!(fd_word(fd) & FD_STREAM) && fd_word_state(fd_word(fd)) == FD_DIRECT)
        return;
    long flags = raw(SYS_fcntl, fd, F_GETFL);
    if (!raw_failed(flags) && (flags & O_ACCMODE) != O_RDONLY && fd != search->except && fstat(fd, &status) == 0 &&
        status.st_dev == search->status->st_dev && status.st_ino == search->status->st_ino)
        standing_stream_opened(fd, search->file, fd == 1 ? stdout : fd == 2 ? stderr : NULL);
}

static const char *parse_hex(const char *text, uint64_t *value)
{
    *value = 0;
    for (;; text++) {
        unsigned digit = *text >= '0' && *text <= '9'   ? (unsigned)(*text - '0')
                         : *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a' + 10)
                                                        : 16;
        if (digit == 16)
            return text;
        *value = *value << 4 | digit;
    }
}

/* A line of /proc/self/maps: "begin-end rwxp offset major:minor inode path". */
static void stand_if_mapped(const char *line, const struct search *search)
{
    uint64_t begin_address, end_address, offset, major, minor, inode = 0;
    line = parse_hex(line, &begin_address);
    line = parse_hex(line + 1, &end_address);
    if (line[4] != 's')
        return;
    bool writable = line[2] == 'w';
    line = parse_hex(line + 6, &offset);
    line = parse_hex(line + 1, &major);
    line = parse_hex(line + 1, &minor);
    for (line++; *line >= '0' && *line <= '9'; line++)
        inode = inode * 10 + (uint64_t)(*line - '0');
    /* The device is not compared: btrfs shows another one here than to stat. A mutator too many is harmless. */
    if (inode == search->status->st_ino)
        standing_mapping_made((void *)(uintptr_t)begin_address, end_address - begin_address, search->file, offset,
                              writable);
}

static void find_mappings(const struct search *search)
{
    char buffer[1024];
    size_t filled = 0;
    long fd = raw(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (raw_failed(fd))
        return;
    for (;;) {
        long length = raw(SYS_read, fd, buffer + filled, sizeof buffer - 1 - filled);
        if (length <= 0)
            break;
        filled += (size_t)length;
        buffer[filled] = '\0';
        char *line = buffer;
        for (char *end; (end = memchr(line, '\n', filled - (size_t)(line - buffer))); line = end + 1)
            stand_if_mapped(line, search);
        filled -= (size_t)(line - buffer);
        if (filled == sizeof buffer - 1)
            filled = 0; /* the rest of a path longer than the buffer: its beginning was seen */
        memmove(buffer, line, filled);
    }
    raw(SYS_close, fd);
}

static bool stands(const struct file *file)
{
    bool found = false;
    uint64_t saved;
    process_lock(&saved);
    for (int i = 0; i < STANDING_MAX && !found; i++)
        found = table->entries[i].file == file;
    process_unlock(&saved);
    return found;
}

void standing_file_opened(int fd, struct file *file, const struct stat *status)
{
    const struct search search = {.file = file, .status = status, .except = fd};
    if (!(none(&table->streams) && none(&table->mappings)) && stands(file))
        return;
    fd_each_stream(stand_if_same, (void *)(uintptr_t)&search);
    if (atomic_load(&table->mappings_made) > 0)
        find_mappings(&search);
}

static bool write_out(FILE *stream)
{
    if (!stream)
        return true;
    if (ftrylockfile(stream) != 0)
        return false;
    fflush_unlocked(stream);
    funlockfile(stream);
    return true;
}

static bool is_entry(struct standing *entry, const void *argument)
{
    return entry == argument;
}

void standing_end(void)
{
    if (!table || (none(&table->streams) && none(&table->mappings)))
        return;
    for (int i = 0; i < STANDING_MAX; i++) {
        struct standing out;
        uint64_t saved;
        process_lock(&saved);
        out = table->entries[i];
        process_unlock(&saved);
        int next = i;
        if (out.file && write_out(out.stream) && take_next(&next, is_entry, &table->entries[i], &out))
            finish(&out);
    }
}
