/* The ledger. Each block's state is one word; contents are stored before the bit that says "I am at it" is taken back. */
#include "ledger.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

#define MARK UINT64_C(0x6c65646765722121)

static size_t bytes_for(uint32_t arenas, uint32_t arena_blocks)
{
    return sizeof(struct ledger) + (size_t)arenas * arena_blocks * sizeof(struct ledger_block);
}

size_t ledger_bytes(const struct ledger *ledger)
{
    return bytes_for(ledger->arenas, ledger->arena_blocks);
}

struct ledger *ledger_attach(int fd)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        support_die("%d is not a ledger", fd);
    struct ledger *ledger = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (ledger == MAP_FAILED)
        support_die("cannot map a ledger");
    return ledger;
}

struct ledger *ledger_new(int *fd, uint32_t arenas, uint32_t arena_blocks, const uint64_t *first)
{
    int low = memfd_create("ledger", 0);

    /* High, so that a child's own numbers are what they always are. */
    *fd = low < 0 ? -1 : fcntl(low, F_DUPFD, 300);
    if (*fd < 0 || ftruncate(*fd, (off_t)bytes_for(arenas, arena_blocks)) != 0)
        support_die("cannot make a ledger");
    close(low);
    struct ledger *ledger = ledger_attach(*fd);

    ledger->arenas = arenas;
    ledger->arena_blocks = arena_blocks;
    memcpy(ledger->arena_first, first, arenas * sizeof(*first));
    return ledger;
}

void ledger_free(struct ledger *ledger, int fd)
{
    munmap(ledger, ledger_bytes(ledger));
    if (fd >= 0)
        close(fd);
}

uint64_t ledger_offset(const struct ledger *ledger, uint64_t sector)
{
    uint64_t block = sector / LEDGER_SECTORS;

    return (ledger->arena_first[block / ledger->arena_blocks] + block % ledger->arena_blocks) * BLOCK +
           sector % LEDGER_SECTORS * SECTOR;
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The actor makes a request. */
static void tick(struct ledger *ledger, struct ledger_actor *actor)
{
    uint64_t clock = atomic_fetch_add(&ledger->clock, 1) + 1;
    int64_t now = now_us();

    if (now - atomic_load(&actor->ticked) < ledger->interval)
        return;
    atomic_store(&actor->ticked, now);
    for (unsigned i = LEDGER_TICKS - 1; i > 0; i--)
        atomic_store(&actor->ticks[i], atomic_load(&actor->ticks[i - 1]));
    atomic_store(&actor->ticks[0], clock);
}

static void touch(struct ledger *ledger, uint64_t block)
{
    atomic_store(&ledger->touched[block / ledger->arena_blocks], atomic_load(&ledger->clock));
}

bool ledger_left_alone(const struct ledger *ledger, unsigned arena, uint64_t mask)
{
    for (unsigned actor = 0; actor < LEDGER_READER; actor++)
        if ((mask & LEDGER_ACTOR(actor)) &&
            atomic_load(&ledger->actors[actor].ticks[LEDGER_TICKS - 1]) <= atomic_load(&ledger->touched[arena]))
            return false;
    return true;
}

void ledger_begin(struct ledger *ledger, unsigned actor, uint64_t first, uint64_t blocks, uint64_t sector,
                  uint64_t sectors)
{
    uint64_t me = LEDGER_ACTOR(actor);

    atomic_store(&ledger->actors[actor].first, sector);
    atomic_store(&ledger->actors[actor].sectors, sectors);
    tick(ledger, &ledger->actors[actor]);
    if (sectors > 0)
        touch(ledger, first);
    for (uint64_t block = first; block < first + blocks; block++) {
        _Atomic uint64_t *word = &ledger->blocks[block].state;
        uint64_t old = atomic_load(word), new;

        do {
            new = (old | me) + LEDGER_VERSION;
            if (old & LEDGER_PRESENT)
                new |= LEDGER_MET;
            if ((me & LEDGER_WRITING) && (old & LEDGER_WRITING))
                new |= LEDGER_SHARED;
        } while (!atomic_compare_exchange_weak(word, &old, new));
    }
}

/* What of [sector, sector + sectors) lies in the block: bit i for its sector i. */
static unsigned part_of(uint64_t block, uint64_t sector, uint64_t sectors)
{
    unsigned part = 0;

    for (unsigned i = 0; i < LEDGER_SECTORS; i++)
        if (block * LEDGER_SECTORS + i >= sector && block * LEDGER_SECTORS + i < sector + sectors)
            part |= 1U << i;
    return part;
}

static void store_part(struct ledger_block *block, unsigned part, uint64_t content)
{
    for (unsigned i = 0; i < LEDGER_SECTORS; i++)
        if (part & (1U << i))
            atomic_store(&block->sectors[i], content);
}

/* The state of a block after an actor, alone or among others, has changed `part` of it. */
static uint64_t state_after(uint64_t old, uint64_t me, unsigned part, enum ledger_outcome outcome)
{
    uint64_t new = (old & ~me) + LEDGER_VERSION;
    bool wrote_whole = outcome == LEDGER_WROTE && part == (1U << LEDGER_SECTORS) - 1;

    if (wrote_whole)
        new |= LEDGER_KNOWN;
    if (part && ((old & (LEDGER_MET | LEDGER_DOUBT)) || (outcome != LEDGER_WROTE)))
        new &= ~LEDGER_KNOWN;
    if (!(new &LEDGER_PRESENT))
        new &= ~(LEDGER_MET | LEDGER_SHARED);
    return new;
}

void ledger_end(struct ledger *ledger, unsigned actor, uint64_t first, uint64_t blocks, uint64_t sector,
                uint64_t sectors, enum ledger_outcome outcome)
{
    uint64_t me = LEDGER_ACTOR(actor);
    uint64_t content = outcome == LEDGER_PUNCHED ? LEDGER_ZEROS : atomic_load(&ledger->actors[actor].generation);

    for (uint64_t block = first; block < first + blocks; block++) {
        struct ledger_block *it = &ledger->blocks[block];
        unsigned part = outcome == LEDGER_NOTHING ? 0 : part_of(block, sector, sectors);
        uint64_t old = atomic_load(&it->state);

        do {
            store_part(it, part, (old & LEDGER_SHARED) ? LEDGER_ANY : content);
        } while (!atomic_compare_exchange_strong(&it->state, &old, state_after(old, me, part, outcome)));
    }
    if (atomic_load(&ledger->actors[actor].sectors) > 0)
        touch(ledger, first);
    atomic_store(&ledger->actors[actor].sectors, 0);
    atomic_fetch_add(&ledger->actors[actor].done, 1);
}

uint64_t ledger_generation(struct ledger *ledger, unsigned actor)
{
    uint64_t count = atomic_load(&ledger->actors[actor].generation) & ((UINT64_C(1) << 40) - 1);
    uint64_t generation = ((uint64_t)(actor + 1) << 40) | (count + 1);

    atomic_store(&ledger->actors[actor].generation, generation);
    return generation;
}

uint64_t ledger_bury(struct ledger *ledger, uint64_t mask)
{
    uint64_t found = 0;

    for (uint64_t block = 0; block < ledger_block_count(ledger); block++) {
        struct ledger_block *it = &ledger->blocks[block];
        uint64_t dead = atomic_load(&it->state) & mask;

        if (!dead)
            continue;
        found++;
        for (unsigned actor = 0; actor < LEDGER_READER; actor++)
            if (dead & LEDGER_ACTOR(actor))
                store_part(it, part_of(block, ledger->actors[actor].first, ledger->actors[actor].sectors), LEDGER_ANY);
        uint64_t old = atomic_load(&it->state), new;

        do {
            new = ((old & ~dead) | LEDGER_DOUBT) + LEDGER_VERSION;
            if (dead & LEDGER_WRITING)
                new &= ~LEDGER_KNOWN;
            new = (new &LEDGER_PRESENT) ? new | LEDGER_MET | (dead & LEDGER_WRITING ? LEDGER_SHARED : 0)
                                        : new & ~(LEDGER_MET | LEDGER_SHARED);
        } while (!atomic_compare_exchange_weak(&it->state, &old, new));
    }
    return found;
}

void ledger_settled(struct ledger *ledger)
{
    for (uint64_t block = 0; block < ledger_block_count(ledger); block++)
        atomic_fetch_and(&ledger->blocks[block].state, ~LEDGER_DOUBT);
}

/* --- Content of sectors ------------------------------------------------------------------------------------------- */

void sector_fill(void *data, uint64_t generation, uint64_t offset)
{
    uint64_t head = generation ^ MARK;

    pattern_fill(data, SECTOR, generation, offset);
    memcpy(data, &head, sizeof(head));
}

static bool is_zeros(const unsigned char *data)
{
    return data[0] == 0 && memcmp(data, data + 1, SECTOR - 1) == 0;
}

bool sector_is(const void *data, uint64_t generation, uint64_t offset)
{
    unsigned char expected[SECTOR];
    uint64_t head;

    if (generation == LEDGER_ZEROS)
        return is_zeros(data);
    memcpy(&head, data, sizeof(head));
    if (generation == LEDGER_ANY) {
        if (is_zeros(data))
            return true;
        generation = head ^ MARK;
    }
    sector_fill(expected, generation, offset);
    return memcmp(data, expected, SECTOR) == 0;
}
