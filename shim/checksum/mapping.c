/*
 * The registry of mappings: a table in wiped memory, filled and emptied by compare-and-swap. The handler takes no lock, and whoever
 * unmaps waits until no handler is looking.
 */
#include "checksum/mapping.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/process.h"
#include "base/raw.h"
#include "bounce/guard.h"
#include "checksum/store.h"

/*
 * Half of the mappings that a process may have by default: vm.max_map_count is 65,530. A large file takes several. The rest is the program's,
 * for its own memory and threads.
 */
enum { REGISTRY_SLOTS = 32768 };

struct mapping {
    _Atomic uintptr_t begin; /* 0: free; CLAIMED: being filled */
    _Atomic uint64_t length;
    _Atomic(struct map *) owner;
    _Atomic bool is_view; /* read-only: there is no header to mark */
};
enum { CLAIMED = 1 };

static struct registry {
    _Atomic bool store_failed;
    _Atomic uint32_t looking; /* handlers at work */
    _Atomic uint32_t high;    /* mappings [0, high) have been used */
    _Atomic uint32_t vacant;  /* where to look for a free one first */
    struct mapping mappings[REGISTRY_SLOTS];
} * registry;

/* @return a claimed slot of [first, end), or NULL. */
static struct mapping *claim(uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        uintptr_t nobody = 0;
        if (!atomic_compare_exchange_strong(&registry->mappings[i].begin, &nobody, CLAIMED))
            continue;
        atomic_store_explicit(&registry->vacant, i + 1, memory_order_relaxed);
        uint32_t high = atomic_load(&registry->high);
        while (high <= i && !atomic_compare_exchange_weak(&registry->high, &high, i + 1))
            ;
        return &registry->mappings[i];
    }
    return NULL;
}

static bool enter(uintptr_t address, uint64_t length, struct map *owner, bool is_view)
{
    uint32_t vacant = atomic_load_explicit(&registry->vacant, memory_order_relaxed);
    struct mapping *mapping = claim(vacant, REGISTRY_SLOTS);
    if (!mapping)
        mapping = claim(0, vacant);
    if (!mapping)
        return false;
    atomic_store_explicit(&mapping->length, length, memory_order_relaxed);
    atomic_store_explicit(&mapping->owner, owner, memory_order_relaxed);
    atomic_store_explicit(&mapping->is_view, is_view, memory_order_relaxed);
    /* Sequentially consistent: pairs with break_all, which sets store_failed before it looks. */
    atomic_store(&mapping->begin, address);
    return true;
}

static void leave(uintptr_t address)
{
    for (uint32_t i = 0; i < atomic_load(&registry->high); i++) {
        /* Relaxed: the mapping is the caller's, and nobody else takes it out. */
        if (atomic_load_explicit(&registry->mappings[i].begin, memory_order_relaxed) != address)
            continue;
        atomic_store(&registry->mappings[i].begin, 0);
        uint32_t vacant = atomic_load_explicit(&registry->vacant, memory_order_relaxed);
        if (i < vacant)
            atomic_store_explicit(&registry->vacant, i, memory_order_relaxed);
        return;
    }
}

static long make(int fd, uint64_t offset, uint64_t length, struct map *owner, bool is_view)
{
    long address = raw(SYS_mmap, NULL, length, is_view ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
    if (raw_failed(address))
        return address;
    raw(SYS_madvise, address, length, MADV_DONTFORK);
    if (enter((uintptr_t)address, length, owner, is_view))
        return address;
    raw(SYS_munmap, address, length);
    return -ENOMEM;
}

long mapping_make(int fd, uint64_t offset, uint64_t length, struct map *owner)
{
    return make(fd, offset, length, owner, false);
}

long mapping_make_view(int fd, uint64_t length, struct map *owner)
{
    return make(fd, 0, length, owner, true);
}

void mapping_unmake(void *address, uint64_t length)
{
    leave((uintptr_t)address);
    /* Sequentially consistent: pairs with mapping_repair. A handler that still may have found it is not to meet what comes there next. */
    while (atomic_load(&registry->looking) != 0)
        raw(SYS_sched_yield);
    raw(SYS_munmap, address, length);
}

bool mapping_store_failed(void)
{
    return atomic_load(&registry->store_failed);
}

/* ---- The handler's part. Its touches of headers may fault and be repaired in their turn. ---- */

static void break_owner(const struct mapping *mapping)
{
    struct map *map = atomic_load_explicit(&mapping->owner, memory_order_relaxed);
    if (!map || atomic_exchange(&map->broken, true) || !map->header ||
        atomic_load_explicit(&mapping->is_view, memory_order_relaxed))
        return;
    /* Relaxed: ordered before the next write of this process by the system call that it is. */
    atomic_fetch_or_explicit(&map->header->flags, MAP_CHANGED_OUTSIDE, memory_order_relaxed);
}

static void break_all(void)
{
    /* Sequentially consistent: a map that is being opened is seen below, or map_open sees this. */
    if (atomic_exchange(&registry->store_failed, true))
        return;
    for (uint32_t i = 0; i < atomic_load(&registry->high); i++) {
        struct mapping *mapping = &registry->mappings[i];
        if (atomic_load(&mapping->begin) > CLAIMED)
            break_owner(mapping);
    }
}

static struct mapping *find(uintptr_t address)
{
    for (uint32_t i = 0; i < atomic_load(&registry->high); i++) {
        struct mapping *mapping = &registry->mappings[i];
        /* Acquire: pairs with the store of begin in `enter`. */
        uintptr_t begin = atomic_load_explicit(&mapping->begin, memory_order_acquire);
        if (begin > CLAIMED && address >= begin &&
            address - begin < atomic_load_explicit(&mapping->length, memory_order_relaxed))
            return mapping;
    }
    return NULL;
}

static bool map_zeros(uintptr_t address, uint64_t length)
{
    return !raw_failed(raw(SYS_mmap, address, length, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0)) &&
           !raw_failed(raw(SYS_madvise, address, length, MADV_DONTFORK));
}

/*
 * Only the page that failed: requests in flight release their words in the others, where other sessions see it. The whole mapping when the
 * process may not have more mappings, which a hole in one would take.
 */
static bool put_zeros(struct mapping *mapping, uintptr_t address)
{
    uintptr_t page = address & ~(uintptr_t)(FORMAT_PAGE - 1);
    return map_zeros(page, FORMAT_PAGE) || map_zeros(atomic_load_explicit(&mapping->begin, memory_order_relaxed),
                                                     atomic_load_explicit(&mapping->length, memory_order_relaxed));
}

static bool repair_and_break(uintptr_t address)
{
    struct mapping *mapping = find(address);
    if (!mapping)
        return false;
    /* First: no thread is to take the zeros for what a map says. */
    if (atomic_load_explicit(&mapping->owner, memory_order_relaxed))
        break_owner(mapping);
    else
        break_all();
    return put_zeros(mapping, address);
}

static bool mapping_repair(void *address)
{
    /* A handler of the program's that interrupts us may unmap, and would wait for us; but faults must get through. */
    uint64_t saved, others = ~(UINT64_C(1) << (SIGSEGV - 1) | UINT64_C(1) << (SIGBUS - 1));
    raw(SYS_rt_sigprocmask, SIG_BLOCK, &others, &saved, sizeof(others));
    /* Sequentially consistent: pairs with mapping_unmake. */
    atomic_fetch_add(&registry->looking, 1);
    bool repaired = repair_and_break((uintptr_t)address);
    atomic_fetch_sub(&registry->looking, 1);
    raw(SYS_rt_sigprocmask, SIG_SETMASK, &saved, NULL, sizeof(saved));
    if (repaired)
        store_complain("its memory fails", EIO);
    return repaired;
}

static void mapping_start(void)
{
    registry = process_arena(sizeof *registry);
    guard_repair = mapping_repair;
}
PROCESS_INITIALISER(mapping_start);
