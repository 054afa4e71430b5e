/* The readers: every block that the ledger covers, what it holds, and whether its checksum is recorded. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "support/direct.h"
#include "torture/worker.h"

enum { CHUNK_BLOCKS = 64 };

struct reader {
    struct ledger *ledger;
    unsigned actor;
    int fd;
    uint64_t known, looked_at; /* blocks whose checksum had to be there; blocks read */
    bool failed;
};

static void complain(struct reader *reader, uint64_t block, const char *what)
{
    uint64_t state = atomic_load(&reader->ledger->blocks[block].state);

    fprintf(stderr, "offset %llu: %s (state %llx)\n",
            (unsigned long long)ledger_offset(reader->ledger, block * LEDGER_SECTORS), what, (unsigned long long)state);
    reader->failed = true;
}

/* What the ledger says of some blocks, while this reader is at them. */
static void look(const struct reader *reader, uint64_t first, uint64_t blocks, struct ledger_block *seen)
{
    for (uint64_t i = 0; i < blocks; i++) {
        const struct ledger_block *block = &reader->ledger->blocks[first + i];

        seen[i].state = atomic_load(&block->state);
        for (unsigned s = 0; s < LEDGER_SECTORS; s++)
            seen[i].sectors[s] = atomic_load(&block->sectors[s]);
    }
}

/* Was nobody but this reader at the block from before the read until after it? */
static bool was_alone(const struct reader *reader, uint64_t block, const struct ledger_block *seen)
{
    uint64_t before = atomic_load(&seen->state);

    return (before & LEDGER_PRESENT) == LEDGER_ACTOR(reader->actor) &&
           atomic_load(&reader->ledger->blocks[block].state) == before;
}

static void check_content(struct reader *reader, uint64_t block, const struct ledger_block *seen,
                          const unsigned char *data, size_t bytes)
{
    for (unsigned s = 0; s < LEDGER_SECTORS && (s + 1) * SECTOR <= bytes; s++) {
        uint64_t offset = ledger_offset(reader->ledger, block * LEDGER_SECTORS + s);

        if (!sector_is(data + s * SECTOR, atomic_load(&seen->sectors[s]), offset))
            complain(reader, block, "holds something else than what was acknowledged");
    }
}

/* One request. @return whether every known block among them was verified; otherwise they are to be read one by one. */
static bool read_blocks(struct reader *reader, uint64_t first, uint64_t blocks, bool last_word)
{
    struct ledger_block seen[CHUNK_BLOCKS], alone[CHUNK_BLOCKS];
    unsigned char *memory = direct_memory();
    uint64_t known = 0, quiet = 0;

    ledger_begin(reader->ledger, reader->actor, first, blocks, 0, 0);
    look(reader, first, blocks, seen);
    uint64_t before = counters().blocks_verified;
    ssize_t n = pread(reader->fd, memory, blocks * BLOCK, (off_t)ledger_offset(reader->ledger, first * LEDGER_SECTORS));
    uint64_t verified = counters().blocks_verified - before;

    for (uint64_t i = 0; i < blocks && n > (ssize_t)(i * BLOCK); i++) {
        if (!was_alone(reader, first + i, &seen[i]))
            continue;
        known += (seen[i].state & LEDGER_KNOWN) != 0;
        alone[quiet++].state = i;
    }
    ledger_end(reader->ledger, reader->actor, first, blocks, 0, 0, LEDGER_NOTHING);
    if (n < 0) {
        complain(reader, first, strerror(errno));
        return true;
    }
    if (verified < known && !last_word)
        return false;
    if (verified < known)
        complain(reader, first, "was acknowledged, and has no checksum");
    for (uint64_t i = 0; i < quiet; i++) {
        uint64_t at = alone[i].state;

        check_content(reader, first + at, &seen[at], memory + at * BLOCK, (size_t)n - at * BLOCK);
    }
    reader->known += known;
    reader->looked_at += ((uint64_t)n + BLOCK - 1) / BLOCK;
    return true;
}

int worker_read(int argc, char **argv)
{
    check_that(argc == 3, "usage: --read LEDGER FILE ACTOR");
    struct reader reader = {.ledger = ledger_attach(atoi(argv[0])), .actor = (unsigned)atoi(argv[2])};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check_that(counting(), "a reader runs under the shim");
    reader.fd = direct_open(argv[1], O_RDONLY);
    uint64_t all = ledger_block_count(reader.ledger);
    uint64_t step = reader.ledger->arena_blocks % CHUNK_BLOCKS == 0 ? CHUNK_BLOCKS : 1;

    for (uint64_t first = 0; first < all; first += step)
        if (!read_blocks(&reader, first, step, step == 1))
            for (uint64_t i = 0; i < step; i++)
                read_blocks(&reader, first + i, 1, true);
    struct bounceio_stats stats = counters();

    printf("known %llu read %llu verified %llu recovered %llu\n", (unsigned long long)reader.known,
           (unsigned long long)reader.looked_at, (unsigned long long)stats.blocks_verified,
           (unsigned long long)stats.recovered_blocks);
    check_that(stats.mismatches == 0, "%llu mismatches", (unsigned long long)stats.mismatches);
    check_that(stats.changed_outside == 0, "%llu taken for outside changes", (unsigned long long)stats.changed_outside);
    check_that(stats.pages_leaked == 0, "%llu pages leaked", (unsigned long long)stats.pages_leaked);
    return reader.failed ? 1 : 0;
}

int worker_damaged(int argc, char **argv)
{
    check_that(argc == 2, "usage: --damaged FILE OFFSET");
    int fd = direct_open(argv[0], O_RDONLY);
    ssize_t n = pread(fd, direct_memory(), BLOCK, (off_t)strtoull(argv[1], NULL, 10));

    int error = errno;
    struct bounceio_stats stats = counters();

    check_that(n == -1 && error == EIO && stats.mismatches == 1 && stats.changed_outside == 0 &&
                   stats.recovered_blocks == 0,
               "reading a damaged block at %s gave %zd, errno %d: %llu mismatches, %llu unverified, %llu outside "
               "changes, %llu recovered",
               argv[1], n, error, (unsigned long long)stats.mismatches, (unsigned long long)stats.blocks_unverified,
               (unsigned long long)stats.changed_outside, (unsigned long long)stats.recovered_blocks);
    return 0;
}
