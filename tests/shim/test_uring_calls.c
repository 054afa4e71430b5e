/*
 * io_uring by system calls, and what happens to the descriptors of rings: the same without the shim and with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/record.h"
#include "support/rings.h"

enum { ENTRIES = RINGS_ENTRIES, NO_SQARRAY = 1 << 16 };

/* --- By system calls --------------------------------------------------------------------------------------------------------- */

struct queues {
    int fd;
    struct io_uring_params params;
    char *sq, *cq;
    size_t sq_length, cq_length;
    struct io_uring_sqe *sqes;
};

static _Atomic unsigned *word(char *base, unsigned offset)
{
    return (_Atomic unsigned *)(void *)(base + offset);
}

/* `single`: as programs do that look at IORING_FEAT_SINGLE_MMAP; else as those that were written before it. */
static bool queues_open(struct queues *queues, unsigned flags, bool single)
{
    const int protection = PROT_READ | PROT_WRITE;

    *queues = (struct queues){.params = {.flags = flags}};
    struct io_uring_params *p = &queues->params;

    queues->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, p);
    note_errno("setup", queues->fd < 0 ? -1 : 0);
    if (queues->fd < 0)
        return false;
    note("sq %u cq %u flags %x features %x", p->sq_entries, p->cq_entries, p->flags, p->features);
    queues->sq_length = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    queues->cq_length = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    if (single && queues->cq_length > queues->sq_length)
        queues->sq_length = queues->cq_length;
    queues->sq = mmap(NULL, queues->sq_length, protection, MAP_SHARED | MAP_POPULATE, queues->fd, IORING_OFF_SQ_RING);
    queues->cq = single ? queues->sq
                        : mmap(NULL, queues->cq_length, protection, MAP_SHARED, queues->fd, (off_t)IORING_OFF_CQ_RING);
    queues->sqes =
        mmap(NULL, p->sq_entries * sizeof *queues->sqes, protection, MAP_SHARED, queues->fd, (off_t)IORING_OFF_SQES);
    check_that(queues->sq != MAP_FAILED && queues->cq != MAP_FAILED && queues->sqes != MAP_FAILED, "mmap");
    note("entries %u %u, masks %u %u", *word(queues->sq, p->sq_off.ring_entries),
         *word(queues->cq, p->cq_off.ring_entries), *word(queues->sq, p->sq_off.ring_mask),
         *word(queues->cq, p->cq_off.ring_mask));
    return true;
}

static void queues_close(struct queues *queues)
{
    munmap(queues->sqes, queues->params.sq_entries * sizeof *queues->sqes);
    if (queues->cq != queues->sq)
        munmap(queues->cq, queues->cq_length);
    munmap(queues->sq, queues->sq_length);
    note_errno("close", close(queues->fd));
}

static void put(struct queues *queues, unsigned index, uint64_t user_data)
{
    const struct io_sqring_offsets *offsets = &queues->params.sq_off;
    const unsigned mask = queues->params.sq_entries - 1;
    unsigned tail = *word(queues->sq, offsets->tail);

    if (index <= mask)
        queues->sqes[index] = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = user_data};
    if (!(queues->params.flags & NO_SQARRAY))
        *word(queues->sq, offsets->array + (tail & mask) * (unsigned)sizeof(unsigned)) = index;
    atomic_store(word(queues->sq, offsets->tail), tail + 1);
}

static void enter(const struct queues *queues, unsigned to_submit, unsigned least, unsigned flags)
{
    note_errno("enter", syscall(SYS_io_uring_enter, queues->fd, to_submit, least, flags, NULL, 0));
}

static void take_all(const struct queues *queues)
{
    const struct io_cqring_offsets *offsets = &queues->params.cq_off;
    const struct io_uring_cqe *cqes = (const void *)(queues->cq + offsets->cqes);
    unsigned head = *word(queues->cq, offsets->head), tail = atomic_load(word(queues->cq, offsets->tail));

    note("cqes: %u", tail - head);
    for (; head != tail; head++) {
        const struct io_uring_cqe *cqe = &cqes[head & (queues->params.cq_entries - 1)];

        note("  cqe %llu res %d flags %x", (unsigned long long)cqe->user_data, cqe->res, cqe->flags);
    }
    atomic_store(word(queues->cq, offsets->head), head);
}

static void by_calls(unsigned flags, bool single)
{
    struct queues queues;

    if (!queues_open(&queues, flags, single))
        return;
    for (unsigned i = 0; i < 100; i++) {
        put(&queues, i % ENTRIES, i);
        enter(&queues, 1, 1, IORING_ENTER_GETEVENTS);
        take_all(&queues);
    }
    /* Entries need not be used in their order, unless there is no array. */
    const bool ordered = (flags & NO_SQARRAY) != 0;

    for (unsigned i = 0; i < 4; i++)
        put(&queues, ordered ? (100 + i) % ENTRIES : 7 - i, 200 + i);
    enter(&queues, 3, 0, 0);
    take_all(&queues);
    enter(&queues, 3, 0, 0);
    take_all(&queues);
    if (!ordered) {
        put(&queues, 1000, 0);
        put(&queues, 1, 300);
        enter(&queues, 2, 0, 0);
        note("dropped %u", *word(queues.sq, queues.params.sq_off.dropped));
        enter(&queues, 1, 0, 0);
        note("dropped %u", *word(queues.sq, queues.params.sq_off.dropped));
        take_all(&queues);
    }
    note("sq %u %u, overflow %u", *word(queues.sq, queues.params.sq_off.head),
         *word(queues.sq, queues.params.sq_off.tail), *word(queues.cq, queues.params.cq_off.overflow));
    queues_close(&queues);
}

static void calls(const char *directory)
{
    (void)directory;
    by_calls(0, true);
    by_calls(0, false);
    by_calls(NO_SQARRAY, true);
    by_calls(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, true);
}

static void note_map(const struct queues *queues, void *address, size_t length, int flags, off_t offset)
{
    void *mapped = mmap(address, length, PROT_READ | PROT_WRITE, MAP_SHARED | flags, queues->fd, offset);

    note_errno("mmap", mapped == MAP_FAILED ? -1 : 0);
    if (mapped != MAP_FAILED)
        munmap(mapped, length);
}

static void refusals(const char *directory)
{
    struct io_uring_params reserved = {.resv = {1}};
    struct queues queues;

    (void)directory;
    note_errno("no entries", syscall(SYS_io_uring_setup, 0, &(struct io_uring_params){0}));
    note_errno("too many", syscall(SYS_io_uring_setup, 1 << 20, &(struct io_uring_params){0}));
    note_errno("reserved", syscall(SYS_io_uring_setup, 1, &reserved));
    note_errno("no parameters", syscall(SYS_io_uring_setup, 1, NULL));
    note_errno("enter what is no ring", syscall(SYS_io_uring_enter, STDERR_FILENO, 0, 0, 0, NULL, 0));
    note_errno("enter nothing", syscall(SYS_io_uring_enter, 999, 0, 0, 0, NULL, 0));
    note_errno("enter by an index", syscall(SYS_io_uring_enter, 3, 0, 0, IORING_ENTER_REGISTERED_RING, NULL, 0));
    note_errno("register nothing", syscall(SYS_io_uring_register, 999, IORING_REGISTER_EVENTFD, NULL, 1));
    if (!queues_open(&queues, 0, true))
        return;
    note_map(&queues, NULL, 0, 0, IORING_OFF_SQ_RING);
    note_map(&queues, NULL, queues.sq_length, 0, 0x18000000);
    note_map(&queues, queues.sq, queues.sq_length, 0, IORING_OFF_SQ_RING);
    note_map(&queues, queues.sq, queues.sq_length, MAP_FIXED, IORING_OFF_SQ_RING);
    note_map(&queues, NULL, 64, 0, IORING_OFF_SQ_RING);
    note_map(&queues, NULL, 64, 0, (off_t)IORING_OFF_SQES);
    note_errno("unknown flags", syscall(SYS_io_uring_enter, queues.fd, 0, 0, 1U << 30, NULL, 0));
    note_errno("nothing", syscall(SYS_io_uring_enter, queues.fd, 0, 0, 0, NULL, 0));
    note_errno("an argument of no size",
               syscall(SYS_io_uring_enter, queues.fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, 8, 1));
    note_errno("an argument that cannot be read",
               syscall(SYS_io_uring_enter, queues.fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, 8, 24));
    note_errno("a mask of no size", syscall(SYS_io_uring_enter, queues.fd, 0, 1, IORING_ENTER_GETEVENTS, 8, 1));
    note_errno("a mask that cannot be read",
               syscall(SYS_io_uring_enter, queues.fd, 0, 1, IORING_ENTER_GETEVENTS, 8, 8));
    note_errno("register what there is not", syscall(SYS_io_uring_register, queues.fd, 9999, NULL, 0));
    note_errno("files that cannot be read", syscall(SYS_io_uring_register, queues.fd, IORING_REGISTER_FILES, 8, 4));
    note_errno("buffers that cannot be read", syscall(SYS_io_uring_register, queues.fd, IORING_REGISTER_BUFFERS, 8, 4));
    note_errno("read", read(queues.fd, &queues, 1));
    queues_close(&queues);
    note_errno("enter a closed one", syscall(SYS_io_uring_enter, queues.fd, 0, 0, 0, NULL, 0));
}

/* --- Numbers ------------------------------------------------------------------------------------------------------------------ */

static void registered(const char *directory)
{
    struct io_uring ring;
    int fds[2] = {-1, -1}, ends[2];

    (void)directory;
    if (pipe(ends) != 0 || !rings_open(&ring, 0, 0))
        return;
    note_result("register", io_uring_register_ring_fd(&ring));
    rings_add(&ring, 1);
    note_result("submit", io_uring_submit_and_wait(&ring, 1));
    rings_note_all(&ring);
    fds[0] = ends[0];
    note_result("files", io_uring_register_files(&ring, fds, 2));
    note_result("files again", io_uring_register_files(&ring, fds, 2));
    note_result("update", io_uring_register_files_update(&ring, 1, &ends[1], 1));
    note_result("no files", io_uring_unregister_files(&ring));
    note_result("no files again", io_uring_unregister_files(&ring));
    note_result("unregister", io_uring_unregister_ring_fd(&ring));
    rings_add(&ring, 2);
    note_result("submit", io_uring_submit_and_wait(&ring, 1));
    rings_note_all(&ring);
    note_result("register and leave", io_uring_register_ring_fd(&ring));
    io_uring_queue_exit(&ring);
}

static void duplicates(const char *directory)
{
    struct io_uring ring, view;
    struct io_uring_params params = {0};

    (void)directory;
    note_result("init", io_uring_queue_init_params(ENTRIES, &ring, &params));
    int first = ring.ring_fd, second = dup(first);

    note_result("map the duplicate", io_uring_queue_mmap(second, &params, &view));
    rings_add(&ring, 1);
    note_result("submit", io_uring_submit(&ring));
    rings_note_all(&view);
    close(first);
    ring.ring_fd = ring.enter_ring_fd = second;
    rings_add(&ring, 2);
    note_result("submit by the duplicate", io_uring_submit(&ring));
    rings_note_all(&ring);
    check_that(dup2(STDERR_FILENO, second) == second, "dup2");
    rings_add(&ring, 3);
    note_result("submit to what is no ring", io_uring_submit(&ring));
}

static void forked(const char *directory)
{
    struct io_uring ring;
    int status;

    (void)directory;
    if (!rings_open(&ring, 0, 0))
        return;
    rings_add(&ring, 1);
    note_result("submit", io_uring_submit(&ring));
    fflush(stdout);
    pid_t child = fork();

    if (child == 0) {
        rings_note_all(&ring);
        rings_add(&ring, 2);
        note_result("the child's", io_uring_submit(&ring));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    rings_note_all(&ring);
    ring.sq.sqe_head = ring.sq.sqe_tail = *ring.sq.ktail;
    rings_add(&ring, 3);
    note_result("the parent's", io_uring_submit_and_wait(&ring, 1));
    rings_note_all(&ring);
    io_uring_queue_exit(&ring);
}

/* --- Running ------------------------------------------------------------------------------------------------------------------ */

static void descriptors(const char *directory)
{
    registered(directory);
    duplicates(directory);
    forked(directory);
}

static const struct record_script scripts[] = {
    {"calls", calls}, {"refusals", refusals}, {"descriptors", descriptors}, {NULL, NULL}};

static int record(int argc, char **argv)
{
    return record_main(scripts, argc, argv);
}

START_TEST(system_calls_look_the_same)
{
    for (const struct record_script *script = scripts; script->name; script++)
        record_and_compare(script);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};

    return support_main(argc, argv, "io_uring by system calls", 120, modes,
                        (const TTest *const[]){system_calls_look_the_same, NULL});
}
