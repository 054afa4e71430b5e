/* What workers do: everything that programs do to a file through a direct descriptor, and behind its back. */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- Choosing ----------------------------------------------------------------------------------------------------- */

static uint64_t sectors(struct worker *w, uint64_t most)
{
    return SECTOR * (1 + random_below(&w->random, most / SECTOR));
}

/* A length for a direct request: mostly short, mostly whole blocks, at times long. */
static size_t direct_length(struct worker *w)
{
    if (random_chance(&w->random, 50))
        return BLOCK * (1 + random_below(&w->random, 4));
    return (size_t)sectors(w, random_chance(&w->random, 10) ? REQUEST_MAX : 4 * BLOCK);
}

static uint64_t direct_offset(struct worker *w, size_t length)
{
    uint64_t unit = random_chance(&w->random, 50) ? BLOCK : SECTOR;

    return unit * random_below(&w->random, (OWN_MAX - length) / unit + 1);
}

/* Memory as odd as the run allows: without the shim the kernel wants it aligned. */
static uint8_t *choose_memory(struct worker *w)
{
    return w->memory + (w->shimmed && random_chance(&w->random, 30) ? random_below(&w->random, BLOCK) : 0);
}

static void scramble(struct worker *w, uint8_t *memory, size_t length)
{
    pattern_fill(memory, length, random_next(&w->random), 0);
}

/* Cut memory into up to eight segments. @return their number. */
static int cut(struct worker *w, struct iovec *vector, uint8_t *memory, size_t length)
{
    int count = 0;

    while (length > 0 && count < 7) {
        /* Without the shim the kernel wants every segment aligned as well. */
        size_t piece = w->shimmed ? 1 + random_below(&w->random, length) : (size_t)sectors(w, length);

        vector[count++] = (struct iovec){memory, piece};
        memory += piece;
        length -= piece;
    }
    if (length > 0)
        vector[count++] = (struct iovec){memory, length};
    return count;
}

/* --- Direct operations -------------------------------------------------------------------------------------------- */

/* RWF flags that change nothing about the result. */
static int harmless_flags(struct worker *w)
{
    return random_chance(&w->random, 5) ? RWF_DSYNC : random_chance(&w->random, 10) ? RWF_HIPRI : 0;
}

/*
 * XFS says EIO ("Direct I/O collision with buffered writes") when a direct read runs on into blocks behind the end of file
 * that an earlier buffered write has reserved and nobody has allocated yet. That is no answer about content; a false
 * alarm of the shim's would be counted in its `mismatches`.
 */
static bool is_collision(const struct worker *w, uint64_t offset, uint64_t length, ssize_t result)
{
    return result < 0 && errno == EIO && offset + length > (w->size + BLOCK - 1) / BLOCK * BLOCK;
}

static void write_at(struct worker *w)
{
    size_t length = direct_length(w);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = choose_memory(w);

    tell(w, "pwrite %zu at %" PRIu64, length, offset);
    scramble(w, memory, length);
    check_count(w, "pwrite", pwrite(w->fd, memory, length, (off_t)offset), length);
    model_write(w, offset, memory, length);
}

static void read_at(struct worker *w)
{
    size_t length = direct_length(w);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = choose_memory(w);

    tell(w, "pread %zu at %" PRIu64, length, offset);
    ssize_t n = pread(w->fd, memory, length, (off_t)offset);

    if (is_collision(w, offset, length, n))
        return;
    check_count(w, "pread", n, model_readable(w, offset, length));
    check_data(w, "pread", offset, memory, (uint64_t)n);
}

static void write_vector(struct worker *w)
{
    struct iovec vector[8];
    size_t length = direct_length(w);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = choose_memory(w);
    int count = cut(w, vector, memory, length);

    tell(w, "pwritev %zu at %" PRIu64 " in %d", length, offset, count);
    scramble(w, memory, length);
    ssize_t n = random_chance(&w->random, 50) ? pwritev(w->fd, vector, count, (off_t)offset)
                                              : pwritev2(w->fd, vector, count, (off_t)offset, harmless_flags(w));

    check_count(w, "pwritev", n, length);
    model_write(w, offset, memory, length);
}

static void read_vector(struct worker *w)
{
    struct iovec vector[8];
    size_t length = direct_length(w);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = choose_memory(w);
    int count = cut(w, vector, memory, length);

    tell(w, "preadv %zu at %" PRIu64 " in %d", length, offset, count);
    ssize_t n = random_chance(&w->random, 50) ? preadv(w->fd, vector, count, (off_t)offset)
                                              : preadv2(w->fd, vector, count, (off_t)offset, 0);

    if (is_collision(w, offset, length, n))
        return;
    check_count(w, "preadv", n, model_readable(w, offset, length));
    check_data(w, "preadv", offset, memory, (uint64_t)n);
}

/* Put the descriptor's offset where a direct request of `length` fits. */
static void seek_for(struct worker *w, size_t length)
{
    if (w->position % SECTOR == 0 && w->position + length <= OWN_MAX && !random_chance(&w->random, 20))
        return;
    w->position = direct_offset(w, length);
    if (lseek(w->fd, (off_t)w->position, SEEK_SET) != (off_t)w->position)
        disagree(w, "lseek to %" PRIu64, w->position);
}

static void check_position(struct worker *w)
{
    off_t at = lseek(w->fd, 0, SEEK_CUR);

    if (at != (off_t)w->position)
        disagree(w, "the offset is %jd, not %" PRIu64, (intmax_t)at, w->position);
}

static void write_on(struct worker *w)
{
    struct iovec vector[8];
    size_t length = direct_length(w);
    uint8_t *memory = choose_memory(w);

    seek_for(w, length);
    tell(w, "write %zu at %" PRIu64, length, w->position);
    scramble(w, memory, length);
    ssize_t n = random_chance(&w->random, 70) ? write(w->fd, memory, length)
                                              : writev(w->fd, vector, cut(w, vector, memory, length));

    check_count(w, "write", n, length);
    model_write(w, w->position, memory, length);
    w->position += length;
    check_position(w);
}

static void read_on(struct worker *w)
{
    struct iovec vector[8];
    size_t length = direct_length(w);
    uint8_t *memory = choose_memory(w);

    seek_for(w, length);
    tell(w, "read %zu at %" PRIu64, length, w->position);
    ssize_t n = random_chance(&w->random, 70) ? read(w->fd, memory, length)
                                              : readv(w->fd, vector, cut(w, vector, memory, length));

    if (is_collision(w, w->position, length, n))
        return;
    check_count(w, "read", n, model_readable(w, w->position, length));
    check_data(w, "read", w->position, memory, (uint64_t)n);
    w->position += (uint64_t)n;
    check_position(w);
}

static void append(struct worker *w)
{
    size_t length = direct_length(w);
    uint8_t *memory = choose_memory(w);
    uint64_t end = w->size;

    if (end % SECTOR != 0 || end + length > OWN_MAX)
        return;
    tell(w, "append %zu at %" PRIu64, length, end);
    scramble(w, memory, length);
    struct iovec vector = {memory, length};
    ssize_t n = random_chance(&w->random, 50)   ? write(w->append, memory, length)
                : random_chance(&w->random, 50) ? pwrite(w->append, memory, length, 0)
                                                : pwritev2(w->fd, &vector, 1, 0, RWF_APPEND);

    check_count(w, "append", n, length);
    model_write(w, end, memory, length);
}

static void without_waiting(struct worker *w)
{
    size_t length = direct_length(w);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = choose_memory(w);
    struct iovec vector = {memory, length};
    bool writes = random_chance(&w->random, 50);

    tell(w, "%s RWF_NOWAIT %zu at %" PRIu64, writes ? "pwritev2" : "preadv2", length, offset);
    scramble(w, memory, length);
    ssize_t n = writes ? pwritev2(w->fd, &vector, 1, (off_t)offset, RWF_NOWAIT)
                       : preadv2(w->fd, &vector, 1, (off_t)offset, RWF_NOWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP || (!writes && is_collision(w, offset, length, n))))
        return;
    /* The kernel may stop where it would have to wait. */
    if (n < 0 || (uint64_t)n > (writes ? length : model_readable(w, offset, length)))
        disagree(w, "RWF_NOWAIT returned %zd", n);
    if (writes)
        model_write(w, offset, memory, (uint64_t)n);
    else
        check_data(w, "preadv2 RWF_NOWAIT", offset, memory, (uint64_t)n);
}

/* A buffer that ends too early: the whole prefix, or nothing. Without the shim the kernel may write and say EFAULT. */
static void write_from_bad_memory(struct worker *w)
{
    size_t length = BLOCK * (2 + random_below(&w->random, 8));
    size_t good = random_below(&w->random, length);
    uint64_t offset = direct_offset(w, length);
    uint8_t *memory = w->memory + REQUEST_MAX + BLOCK - good;

    if (!w->shimmed)
        return;
    tell(w, "pwrite %zu at %" PRIu64 " of which %zu can be read", length, offset, good);
    scramble(w, memory, good);
    ssize_t n = pwrite(w->fd, memory, length, (off_t)offset);

    if (n < 0 && errno != EFAULT)
        disagree(w, "pwrite from bad memory returned %zd", n);
    if (n > (ssize_t)good || (n < 0 && good >= BLOCK) || (n > 0 && good - (size_t)n >= BLOCK))
        disagree(w, "pwrite from bad memory returned %zd", n);
    if (n > 0)
        model_write(w, offset, memory, (uint64_t)n);
}

/* --- Behind the direct descriptor's back -------------------------------------------------------------------------- */

static void write_buffered(struct worker *w)
{
    size_t length = 1 + random_below(&w->random, 3 * BLOCK);
    uint64_t offset = random_below(&w->random, OWN_MAX - length);

    tell(w, "buffered pwrite %zu at %" PRIu64, length, offset);
    scramble(w, w->memory, length);
    check_count(w, "buffered pwrite", pwrite(w->plain, w->memory, length, (off_t)offset), length);
    model_write(w, offset, w->memory, length);
}

static void read_buffered(struct worker *w)
{
    size_t length = 1 + random_below(&w->random, 3 * BLOCK);
    uint64_t offset = random_below(&w->random, OWN_MAX - length);

    tell(w, "buffered pread %zu at %" PRIu64, length, offset);
    ssize_t n = pread(w->plain, w->memory, length, (off_t)offset);

    check_count(w, "buffered pread", n, model_readable(w, offset, length));
    check_data(w, "buffered pread", offset, w->memory, (uint64_t)n);
}

static void truncate_file(struct worker *w)
{
    uint64_t size = random_below(&w->random, OWN_MAX);

    if (random_chance(&w->random, 50))
        size = size / BLOCK * BLOCK;
    tell(w, "truncate to %" PRIu64, size);
    int result = random_chance(&w->random, 50) ? ftruncate(w->fd, (off_t)size) : truncate(w->path, (off_t)size);

    if (result != 0)
        disagree(w, "truncate");
    model_truncate(w, size);
}

static void allocate(struct worker *w)
{
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE};
    int mode = modes[random_below(&w->random, sizeof(modes) / sizeof(modes[0]))];
    uint64_t length = 1 + random_below(&w->random, 8 * BLOCK);
    uint64_t offset = random_below(&w->random, OWN_MAX - length);

    tell(w, "fallocate mode %d, %" PRIu64 " at %" PRIu64, mode, length, offset);
    if (fallocate(w->fd, mode, (off_t)offset, (off_t)length) != 0) {
        if (errno == EOPNOTSUPP)
            return;
        disagree(w, "fallocate");
    }
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < w->size) {
        uint64_t inside = length < w->size - offset ? length : w->size - offset;

        memset(w->model + offset, 0, inside);
    }
    if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + length > w->size)
        model_truncate(w, offset + length);
}

static void copy_range(struct worker *w)
{
    uint64_t length = 1 + random_below(&w->random, 4 * BLOCK);
    off64_t from = (off64_t)random_below(&w->random, OWN_MAX / 2 - length);
    off64_t to = (off64_t)(OWN_MAX / 2 + random_below(&w->random, OWN_MAX / 2 - length));
    uint64_t source = (uint64_t)from, target = (uint64_t)to;

    if (source + length > w->size)
        return;
    tell(w, "copy_file_range %" PRIu64 " from %" PRIu64 " to %" PRIu64, length, source, target);
    ssize_t n = copy_file_range(w->plain, &from, w->plain, &to, length, 0);

    if (n < 0 && errno == EOPNOTSUPP)
        return;
    if (n <= 0 || (uint64_t)n > length)
        disagree(w, "copy_file_range returned %zd", n);
    model_write(w, target, w->model + source, (uint64_t)n);
}

static void store_mapped(struct worker *w)
{
    uint64_t first = random_below(&w->random, OWN_MAX / BLOCK) * BLOCK;
    uint64_t room = model_readable(w, first, 4 * BLOCK);

    if (room == 0)
        return;
    uint64_t start = random_below(&w->random, room);
    uint64_t length = 1 + random_below(&w->random, room - start);

    tell(w, "mmap and store %" PRIu64 " at %" PRIu64, length, first + start);
    uint8_t *map = mmap(NULL, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, w->plain, (off_t)first);

    if (map == MAP_FAILED)
        disagree(w, "mmap");
    scramble(w, map + start, length);
    model_write(w, first + start, map + start, length);
    if (random_chance(&w->random, 20))
        msync(map, 4 * BLOCK, MS_SYNC);
    munmap(map, 4 * BLOCK);
}

void model_open_files(struct worker *w, int more)
{
    w->fd = open(w->path, O_RDWR | O_DIRECT | O_CREAT | O_CLOEXEC | more, 0600);
    w->append = open(w->path, O_WRONLY | O_DIRECT | O_APPEND | O_CLOEXEC);
    w->plain = open(w->path, O_RDWR | O_CLOEXEC);
    w->position = 0;
    if (w->fd < 0 || w->append < 0 || w->plain < 0)
        disagree(w, "open");
}

static void reopen(struct worker *w)
{
    bool empty = random_chance(&w->random, 20);

    tell(w, "close and open%s", empty ? " with O_TRUNC" : "");
    close(w->fd);
    close(w->append);
    close(w->plain);
    if (empty)
        model_truncate(w, 0);
    model_open_files(w, empty ? O_TRUNC : 0);
}

static void flush(struct worker *w)
{
    tell(w, "fsync");
    if ((random_chance(&w->random, 50) ? fsync(w->fd) : fdatasync(w->plain)) != 0)
        disagree(w, "fsync");
}

/* --- The shared file ---------------------------------------------------------------------------------------------- */

static void write_shared(struct worker *w)
{
    uint64_t cell = (random_below(&w->random, ROUNDS_OF_CELLS) * WORKERS + w->id) * CELL;
    uint64_t first = random_below(&w->random, 7);
    uint64_t length = SECTOR * (1 + random_below(&w->random, 7 - first));
    uint64_t offset = cell + first * SECTOR;
    uint8_t *memory = choose_memory(w);

    tell(w, "shared pwrite %" PRIu64 " at %" PRIu64, length, offset);
    scramble(w, memory, length);
    check_count(w, "shared pwrite", pwrite(w->shared, memory, length, (off_t)offset), length);
    memcpy(w->shared_model + offset, memory, length);
}

static void read_shared(struct worker *w)
{
    size_t length = direct_length(w);
    uint64_t offset = SECTOR * random_below(&w->random, (SHARED_SIZE - length) / SECTOR + 1);
    uint8_t *memory = choose_memory(w);

    tell(w, "shared pread %zu at %" PRIu64, length, offset);
    check_count(w, "shared pread", pread(w->shared, memory, length, (off_t)offset), length);
    for (size_t i = 0; i < length; i++)
        if (owner_of(offset + i) == w->id && memory[i] != w->shared_model[offset + i])
            disagree(w, "shared pread: byte %" PRIu64 " is %02x, not %02x", offset + i, memory[i],
                     w->shared_model[offset + i]);
}

/* --- Drawing one -------------------------------------------------------------------------------------------------- */

/* How often, in a thousand. Operations that wait for the disk or throw content away are rare. */
static const struct {
    unsigned weight;
    void (*run)(struct worker *w);
} operations[] = {
    {170, write_at},
    {170, read_at},
    {70, write_vector},
    {70, read_vector},
    {70, write_on},
    {70, read_on},
    {30, append},
    {40, without_waiting},
    {20, write_from_bad_memory},
    {30, write_buffered},
    {30, read_buffered},
    {6, truncate_file},
    {12, allocate},
    {8, copy_range},
    {12, store_mapped},
    {6, reopen},
    {1, flush},
    {95, write_shared},
    {90, read_shared},
};

void model_operate(struct worker *w)
{
    unsigned total = 0;

    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        total += operations[i].weight;
    uint64_t drawn = random_below(&w->random, total);

    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (drawn < operations[i].weight) {
            operations[i].run(w);
            return;
        }
        drawn -= operations[i].weight;
    }
}
