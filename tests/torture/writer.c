/* The writers: threads with descriptors of their own, each request entered in the ledger before it is issued. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/direct.h"
#include "torture/worker.h"

enum { LONGEST_SHIFT = 13, SMALL_SHIFT = 7 }; /* in sectors: 4 MiB, 64 KiB */

struct writer {
    struct ledger *ledger;
    const char *path;
    unsigned actor;
    unsigned habits;
    bool resizer;
    uint64_t requests; /* still to be made; 0: for ever */
    struct random random;
    int fd;
    int append_fd;
    uint64_t arena, cursor; /* where to stay, and how far a sequential writer has come, in sectors of the arena */
};

/* How many sectors of each arena this writer may touch with requests that announce themselves. */
static uint64_t room_of(const struct writer *writer)
{
    uint64_t sectors = (uint64_t)writer->ledger->arena_blocks * LEDGER_SECTORS;

    return (writer->habits & HABIT_RESIZE) ? sectors / 2 : sectors;
}

static void open_file(struct writer *writer)
{
    writer->fd = direct_open(writer->path, O_RDWR);
    if (writer->resizer)
        writer->append_fd = direct_open(writer->path, O_RDWR | O_APPEND);
}

static void close_file(struct writer *writer)
{
    close(writer->fd);
    if (writer->resizer)
        close(writer->append_fd);
}

/* A length from one sector or block up, every order of magnitude as likely as another. */
static uint64_t random_length(struct writer *writer, bool partial)
{
    unsigned longest = (writer->habits & HABIT_SMALL) ? SMALL_SHIFT : LONGEST_SHIFT;
    uint64_t least = UINT64_C(1) << random_below(&writer->random, longest);
    uint64_t sectors = least + random_below(&writer->random, least + 1);

    return partial ? sectors : (sectors + LEDGER_SECTORS - 1) / LEDGER_SECTORS * LEDGER_SECTORS;
}

/* Where the next request goes: sectors of the ledger. */
static void choose_range(struct writer *writer, uint64_t *sector, uint64_t *sectors)
{
    uint64_t room = room_of(writer);
    bool partial = (writer->habits & HABIT_PARTIAL) && random_chance(&writer->random, 40);
    uint64_t length = random_length(writer, partial);
    uint64_t unit = partial ? 1 : LEDGER_SECTORS;

    if (length > room)
        length = room;
    if (!(writer->habits & HABIT_STAY) || random_chance(&writer->random, 3))
        writer->arena = random_below(&writer->random, writer->ledger->arenas);
    if (writer->habits & HABIT_SEQUENTIAL) {
        if (writer->cursor % unit != 0 || writer->cursor + length > room) {
            writer->cursor = 0;
            writer->arena = (writer->arena + 1) % writer->ledger->arenas;
        }
    } else {
        writer->cursor = random_below(&writer->random, (room - length) / unit + 1) * unit;
    }
    *sector = writer->arena * writer->ledger->arena_blocks * LEDGER_SECTORS + writer->cursor;
    *sectors = length;
    writer->cursor += length;
}

static void fill(struct writer *writer, uint64_t generation, uint64_t offset, uint64_t sectors)
{
    (void)writer;
    for (uint64_t i = 0; i < sectors; i++)
        sector_fill(direct_memory() + i * SECTOR, generation, offset + i * SECTOR);
}

/* From pieces of memory of odd lengths. */
static ssize_t write_vector(struct writer *writer, uint64_t offset, size_t length)
{
    unsigned char *memory = direct_memory();
    size_t first = 1 + random_below(&writer->random, length - 2);
    size_t second = random_below(&writer->random, length - first);
    struct iovec iov[3] = {
        {memory, first}, {memory + first, second}, {memory + first + second, length - first - second}};

    return random_chance(&writer->random, 50) ? pwritev(writer->fd, iov, 3, (off_t)offset)
                                              : pwritev2(writer->fd, iov, 3, (off_t)offset, 0);
}

static ssize_t issue(struct writer *writer, uint64_t offset, size_t length)
{
    switch (random_below(&writer->random, 4)) {
    case 0:
        return write_vector(writer, offset, length);
    case 1:
        check_that(lseek(writer->fd, (off_t)offset, SEEK_SET) == (off_t)offset, "lseek");
        return write(writer->fd, direct_memory(), length);
    default:
        return pwrite(writer->fd, direct_memory(), length, (off_t)offset);
    }
}

static void write_range(struct writer *writer)
{
    uint64_t sector, sectors;

    choose_range(writer, &sector, &sectors);
    uint64_t first = sector / LEDGER_SECTORS;
    uint64_t blocks = (sector + sectors - 1) / LEDGER_SECTORS - first + 1;
    uint64_t offset = ledger_offset(writer->ledger, sector);
    bool punch = (writer->habits & HABIT_PUNCH) && random_chance(&writer->random, 5);

    fill(writer, ledger_generation(writer->ledger, writer->actor), offset, sectors);
    ledger_begin(writer->ledger, writer->actor, first, blocks, sector, sectors);
    if (punch) {
        int result =
            fallocate(writer->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)(sectors * SECTOR));

        check_that(result == 0, "punching %llu bytes at %llu", (unsigned long long)sectors * SECTOR,
                   (unsigned long long)offset);
    } else {
        ssize_t n = issue(writer, offset, sectors * SECTOR);

        check_that(n == (ssize_t)(sectors * SECTOR), "writing %llu bytes at %llu gave %zd",
                   (unsigned long long)sectors * SECTOR, (unsigned long long)offset, n);
    }
    ledger_end(writer->ledger, writer->actor, first, blocks, sector, sectors, punch ? LEDGER_PUNCHED : LEDGER_WROTE);
}

/* The resizer is the only one that moves the end of the file, which lies in the second half of the arena. */
static void resize(struct writer *writer)
{
    uint64_t all = ledger_block_count(writer->ledger) * LEDGER_SECTORS;
    uint64_t least = room_of(writer);
    struct stat status;

    check_that(fstat(writer->fd, &status) == 0, "fstat");
    uint64_t size = (uint64_t)status.st_size / SECTOR;
    bool partial = writer->habits & HABIT_PARTIAL;
    uint64_t unit = partial ? 1 : LEDGER_SECTORS;
    uint64_t length = random_length(writer, partial);
    bool append = size + length <= all && random_chance(&writer->random, 75);
    uint64_t target = append ? size + length : least + random_below(&writer->random, (all - least) / unit + 1) * unit;
    uint64_t from = size < target ? size : target;
    uint64_t first = from / LEDGER_SECTORS;
    uint64_t blocks = ledger_block_count(writer->ledger) - first;

    if (append)
        fill(writer, ledger_generation(writer->ledger, writer->actor), size * SECTOR, length);
    ledger_begin(writer->ledger, writer->actor, first, blocks, from, all - from);
    if (append) {
        ssize_t n = write(writer->append_fd, direct_memory(), length * SECTOR);

        check_that(n == (ssize_t)(length * SECTOR), "appending %llu bytes gave %zd",
                   (unsigned long long)length * SECTOR, n);
        ledger_end(writer->ledger, writer->actor, first, blocks, size, length, LEDGER_CHANGED);
    } else {
        check_that(ftruncate(writer->fd, (off_t)(target * SECTOR)) == 0, "ftruncate");
        ledger_end(writer->ledger, writer->actor, first, blocks, from, all - from, LEDGER_PUNCHED);
    }
}

static void be_habitual(struct writer *writer)
{
    unsigned sync = (writer->habits & HABIT_SYNC) ? 25 : (writer->habits & HABIT_FSYNC) ? 2 : 0;

    if (random_chance(&writer->random, sync))
        check_that((random_chance(&writer->random, 50) ? fsync(writer->fd) : fdatasync(writer->fd)) == 0, "fsync");
    if ((writer->habits & HABIT_REOPEN) && random_chance(&writer->random, 3)) {
        close_file(writer);
        open_file(writer);
    }
    if (writer->habits & HABIT_PAUSE)
        usleep((unsigned)random_below(&writer->random, 8000));
}

static void *run(void *argument)
{
    struct writer *writer = argument;
    bool forever = writer->requests == 0;

    open_file(writer);
    while (!atomic_load(&writer->ledger->stop) && (forever || writer->requests-- > 0)) {
        if (writer->resizer && random_chance(&writer->random, 50))
            resize(writer);
        else
            write_range(writer);
        be_habitual(writer);
    }
    close_file(writer);
    return NULL;
}

int worker_write(int argc, char **argv)
{
    check_that(argc == 7, "usage: --write LEDGER FILE ACTOR THREADS SEED HABITS REQUESTS");
    struct ledger *ledger = ledger_attach(atoi(argv[0]));
    unsigned actor = (unsigned)atoi(argv[2]), threads = (unsigned)atoi(argv[3]);
    unsigned habits = (unsigned)atoi(argv[5]);
    struct writer writers[LEDGER_READER] = {0};
    pthread_t ids[LEDGER_READER];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check_that(counting(), "a writer runs under the shim");
    check_that(actor + threads <= LEDGER_READER, "there are %d actors", LEDGER_READER);
    for (unsigned i = 0; i < threads; i++) {
        writers[i] = (struct writer){.ledger = ledger,
                                     .path = argv[1],
                                     .actor = actor + i,
                                     .habits = habits,
                                     .resizer = (habits & HABIT_RESIZE) && actor + i == 0,
                                     .requests = strtoull(argv[6], NULL, 10),
                                     .random = {strtoull(argv[4], NULL, 10) + i}};
        check_that(pthread_create(&ids[i], NULL, run, &writers[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    struct bounceio_stats stats = counters();

    atomic_fetch_add(&ledger->leaked, stats.pages_leaked);
    check_that(stats.mismatches == 0, "%llu mismatches", (unsigned long long)stats.mismatches);
    check_that(stats.changed_outside == 0, "%llu taken for outside changes", (unsigned long long)stats.changed_outside);
    check_that(stats.pages_leaked == 0, "%llu pages leaked", (unsigned long long)stats.pages_leaked);
    return 0;
}
