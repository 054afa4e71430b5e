/*
 * Direct I/O from and to memory that is partly bad, through the shim, on every file system: nothing crashes, what is said to be
 * written is written, and not a byte of the file beside it changes. In every situation in which a fault could be fatal.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { PAGES = 8, LENGTH = PAGES * BLOCK, FILE_BLOCKS = 16, FILE_LENGTH = FILE_BLOCKS * BLOCK, OFFSET = 3 * BLOCK };
enum { CONTENT = 1, BUFFER = 2 }; /* seeds of the patterns */

#define NON_CANONICAL ((void *)0x8000000000000000)

/* How a page of the buffer is bad. */
enum badness { UNMAPPED, NO_ACCESS, TRUNCATED_FILE, READ_ONLY, BADNESS_COUNT };
static const char *const badness_names[] = {"unmapped", "PROT_NONE", "truncated file", "read-only"};

enum call { PLAIN, VECTOR, AT_OFFSET, CALL_COUNT };

struct target {
    char path[8192];
    int fd;
    size_t granularity; /* of direct I/O on the file; 0 unknown */
};

static struct target target_open(const struct test_fs *fs)
{
    struct target target = {.granularity = 0};
    struct statx status;
    snprintf(target.path, sizeof(target.path), "%s", path_in(fs->path, "file"));
    make_file_behind(target.path, CONTENT, FILE_LENGTH);
    target.fd = direct_open(target.path, O_RDWR);
    if (statx(target.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN) != 0)
        target.granularity = status.stx_dio_offset_align;
    return target;
}

static void target_close(struct target *target)
{
    close(target->fd);
    unlink(target->path);
}

/* A buffer of PAGES pages with the pattern in it, and one bad page in the middle of nowhere else. */
static unsigned char *buffer_with_bad_page(enum badness badness, size_t bad)
{
    unsigned char *buffer = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check_that(buffer != MAP_FAILED, "no memory");
    pattern_fill(buffer, LENGTH, BUFFER, 0);
    unsigned char *page = buffer + bad * BLOCK;
    int fd;
    switch (badness) {
    case UNMAPPED:
        munmap(page, BLOCK);
        break;
    case NO_ACCESS:
        mprotect(page, BLOCK, PROT_NONE);
        break;
    case TRUNCATED_FILE:
        fd = memfd_create("truncated", MFD_CLOEXEC);
        mmap(page, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
        close(fd);
        break;
    default:
        mprotect(page, BLOCK, PROT_READ);
    }
    return buffer;
}

/* PLAIN uses the file's position; VECTOR cuts the memory into three segments. */
static ssize_t transfer(bool writing, enum call call, int fd, unsigned char *memory, size_t length)
{
    struct iovec vector[] = {{memory, 1000}, {memory + 1000, 5000}, {memory + 6000, length - 6000}};
    switch (call) {
    case PLAIN:
        lseek(fd, OFFSET, SEEK_SET);
        return writing ? write(fd, memory, length) : read(fd, memory, length);
    case VECTOR:
        return writing ? pwritev(fd, vector, 3, OFFSET) : preadv(fd, vector, 3, OFFSET);
    default:
        return writing ? pwrite(fd, memory, length, OFFSET) : pread(fd, memory, length, OFFSET);
    }
}

/* `moved` bytes may be what a call says that found `good` bytes of memory. */
static bool plausible(const struct target *target, ssize_t moved, size_t good)
{
    if (moved < 0)
        return errno == EFAULT && good < (target->granularity != 0 ? target->granularity : BLOCK);
    if (target->granularity != 0)
        return moved > 0 && (size_t)moved == good / target->granularity * target->granularity;
    return moved > 0 && (size_t)moved <= good && good - (size_t)moved < BLOCK && moved % SECTOR == 0;
}

/* The file is its old content, with the first `written` bytes of the buffer's pattern from `shift` on at OFFSET. */
static void expect_file(const struct target *target, size_t written, size_t shift)
{
    static unsigned char content[FILE_LENGTH + 1];
    check_that(read_behind(target->path, content, sizeof(content), 0) == FILE_LENGTH, "the file's size changed");
    check_that(pattern_check(content, OFFSET, CONTENT, 0) == OFFSET, "changed before the write");
    check_that(pattern_check(content + OFFSET, written, BUFFER, shift) == written, "not what was said to be written");
    size_t rest = FILE_LENGTH - OFFSET - written;
    check_that(pattern_check(content + OFFSET + written, rest, CONTENT, OFFSET + written) == rest,
               "changed behind the write of %zu bytes", written);
}

/* The memory begins `shift` bytes into the buffer: most of these are no alignment that direct I/O allows without the shim. */
static void expect_exact_write(const struct target *target, enum badness badness, size_t bad, size_t shift,
                               enum call call)
{
    unsigned char *buffer = buffer_with_bad_page(badness, bad);
    size_t good = bad * BLOCK > shift ? bad * BLOCK - shift : 0;
    if (badness == READ_ONLY)
        good = LENGTH - BLOCK; /* reading it is allowed */
    ssize_t written = transfer(true, call, target->fd, buffer + shift, LENGTH - BLOCK);
    check_that(plausible(target, written, good), "%s page %zu, shift %zu, call %d: wrote %zd of %zu good bytes",
               badness_names[badness], bad, shift, call, written, good);
    expect_file(target, written < 0 ? 0 : (size_t)written, shift);
    munmap(buffer, LENGTH);
    direct_write(target->fd, CONTENT, 0, FILE_LENGTH);
}

static void expect_exact_read(const struct target *target, enum badness badness, size_t bad, size_t shift,
                              enum call call)
{
    unsigned char *buffer = buffer_with_bad_page(badness, bad);
    size_t good = bad * BLOCK > shift ? bad * BLOCK - shift : 0;
    ssize_t length = transfer(false, call, target->fd, buffer + shift, LENGTH - BLOCK);
    check_that(plausible(target, length, good), "%s page %zu, shift %zu, call %d: read %zd of %zu good bytes",
               badness_names[badness], bad, shift, call, length, good);
    size_t said = length < 0 ? 0 : (size_t)length;
    check_that(pattern_check(buffer + shift, said, CONTENT, OFFSET) == said, "not what is in the file");
    munmap(buffer, LENGTH);
}

/* The range touches pages 0 .. PAGES-1 of the buffer, or one less when it begins at a page. */
static void everywhere(void (*expect)(const struct target *, enum badness, size_t, size_t, enum call))
{
    static const size_t shifts[] = {0, 1, 512, 4095};
    static const size_t bad_pages[] = {0, 1, PAGES / 2, PAGES - 2};
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        struct target target = target_open(&fs[i]);
        for (enum badness badness = 0; badness < BADNESS_COUNT; badness++)
            for (size_t b = 0; b < sizeof(bad_pages) / sizeof(bad_pages[0]); b++)
                for (size_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++)
                    for (enum call call = 0; call < CALL_COUNT; call++)
                        expect(&target, badness, bad_pages[b], shifts[s], call);
        target_close(&target);
    }
}

START_TEST(a_write_from_partly_bad_memory_writes_exactly_the_blocks_before)
{
    everywhere(expect_exact_write);
}
END_TEST

START_TEST(a_read_into_partly_bad_memory_fills_exactly_the_blocks_before)
{
    everywhere(expect_exact_read);
}
END_TEST

/* One bad write and one bad read, twice; run in every situation below. */
static void bad_transfers(const struct target *target)
{
    for (int round = 0; round < 2; round++) {
        expect_exact_write(target, NO_ACCESS, 2, 1, AT_OFFSET);
        expect_exact_read(target, TRUNCATED_FILE, 2, 1, VECTOR);
        check_that(pwrite(target->fd, NON_CANONICAL, BLOCK, 0) == -1 && errno == EFAULT, "non-canonical write");
        check_that(pread(target->fd, NON_CANONICAL, BLOCK, 0) == -1 && errno == EFAULT, "non-canonical read");
    }
}

static void on_every_filesystem(void (*situation)(const struct target *))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        struct target target = target_open(&fs[i]);
        situation(&target);
        target_close(&target);
    }
}

START_TEST(bad_memory_is_survived_twice_in_a_row)
{
    on_every_filesystem(bad_transfers);
}
END_TEST

static int survive_with_kernel_copies(int argc, char **argv)
{
    struct sigaction action;
    (void)argc, (void)argv;
    on_every_filesystem(bad_transfers);
    sigaction(SIGSEGV, NULL, &action);
    return action.sa_handler == SIG_DFL ? EXIT_SUCCESS : EXIT_FAILURE;
}

START_TEST(bad_memory_is_survived_where_the_kernel_copies)
{
    const char *environment[] = {"BOUNCEIO_COPY=kernel", NULL}, *mode[] = {"--kernel-copies", NULL};
    struct child child = child_run_self(WITH_SHIM, environment, mode);
    ck_assert(child_succeeded(&child));
    child_free(&child);
}
END_TEST

static void *block_all_and_transfer(void *target)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    bad_transfers(target);
    return NULL;
}

static void in_a_thread_that_blocks_everything(const struct target *target)
{
    pthread_t thread;
    check_that(pthread_create(&thread, NULL, block_all_and_transfer, (void *)(uintptr_t)target) == 0, "no thread");
    pthread_join(thread, NULL);
}

START_TEST(bad_memory_is_survived_in_a_thread_that_blocks_every_signal)
{
    on_every_filesystem(in_a_thread_that_blocks_everything);
}
END_TEST

static void *only_transfer(void *target)
{
    bad_transfers(target);
    return NULL;
}

static void in_a_thread_that_inherits_a_full_mask(const struct target *target)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    check_that(pthread_create(&thread, NULL, only_transfer, (void *)(uintptr_t)target) == 0, "no thread");
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

START_TEST(bad_memory_is_survived_in_a_thread_that_inherits_a_full_mask)
{
    on_every_filesystem(in_a_thread_that_inherits_a_full_mask);
}
END_TEST

static const struct target *volatile handlers_target;
static volatile int handled;

static void transfer_in_handler(int number)
{
    (void)number;
    bad_transfers(handlers_target);
    handled++;
}

static void in_a_handler(const struct target *target, int flags)
{
    struct sigaction action = {.sa_handler = transfer_in_handler, .sa_flags = flags};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    handlers_target = target;
    handled = 0;
    raise(SIGUSR1);
    check_that(handled == 1, "the handler did not run");
}

static void in_a_handler_with_a_full_mask(const struct target *target)
{
    in_a_handler(target, 0);
}

START_TEST(bad_memory_is_survived_in_a_handler_with_a_full_mask)
{
    on_every_filesystem(in_a_handler_with_a_full_mask);
}
END_TEST

static void in_a_handler_on_an_alternate_stack(const struct target *target)
{
    static unsigned char stack[1 << 18];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&alternate, NULL);
    in_a_handler(target, SA_ONSTACK);
}

START_TEST(bad_memory_is_survived_on_an_alternate_stack)
{
    on_every_filesystem(in_a_handler_on_an_alternate_stack);
}
END_TEST

static sigjmp_buf back;

static void transfer_and_leave(int number)
{
    transfer_in_handler(number);
    siglongjmp(back, 1);
}

static void in_the_handler_of_the_programs_own_fault(const struct target *target)
{
    struct sigaction action = {.sa_handler = transfer_and_leave};
    sigfillset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    handlers_target = target;
    handled = 0;
    for (volatile int round = 0; round < 2; round++)
        if (sigsetjmp(back, 1) == 0)
            *(volatile char *)(BLOCK * 2) = 1;
    check_that(handled == 2, "the handler ran %d times", handled);
    bad_transfers(target);
    signal(SIGSEGV, SIG_DFL);
}

START_TEST(bad_memory_is_survived_in_the_handler_of_the_programs_own_fault)
{
    on_every_filesystem(in_the_handler_of_the_programs_own_fault);
}
END_TEST

static void with_ignored_signals(const struct target *target)
{
    signal(SIGSEGV, SIG_IGN);
    signal(SIGBUS, SIG_IGN);
    bad_transfers(target);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

START_TEST(bad_memory_is_survived_with_both_signals_ignored)
{
    on_every_filesystem(with_ignored_signals);
}
END_TEST

/* Descriptors of vectors are user memory, too. */
static void bad_vectors(const struct target *target)
{
    unsigned char *memory = buffer_with_bad_page(NO_ACCESS, PAGES - 1);
    struct iovec *edge = (struct iovec *)(void *)(memory + LENGTH - BLOCK) - 1;
    struct iovec vector[] = {{memory, BLOCK}, {memory + LENGTH - BLOCK, BLOCK}, {memory + BLOCK, BLOCK}};
    struct iovec impossible[] = {{memory, BLOCK}, {NON_CANONICAL, BLOCK}}; /* refused before anything is moved */
    *edge = (struct iovec){memory, BLOCK};
    check_that(pwritev(target->fd, NON_CANONICAL, 1, 0) == -1 && errno == EFAULT, "vector nowhere");
    check_that(pwritev(target->fd, edge, 2, 0) == -1 && errno == EFAULT, "vector that ends in a bad page");
    check_that(preadv(target->fd, edge, 2, 0) == -1 && errno == EFAULT, "vector that ends in a bad page");
    check_that(pwritev(target->fd, impossible, 2, OFFSET) == -1 && errno == EFAULT, "impossible second segment");
    expect_file(target, 0, 0);
    check_that(pwritev(target->fd, edge, 1, OFFSET) == BLOCK, "vector at the edge");
    expect_file(target, BLOCK, 0);
    check_that(pwritev(target->fd, vector, 3, OFFSET) == BLOCK, "bad second segment");
    expect_file(target, BLOCK, 0);
    check_that(pwritev(target->fd, vector + 1, 2, OFFSET) == -1 && errno == EFAULT, "bad first segment");
    expect_file(target, BLOCK, 0);
    munmap(memory, LENGTH);
}

START_TEST(bad_vectors_and_bad_segments_are_exact)
{
    on_every_filesystem(bad_vectors);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--kernel-copies", survive_with_kernel_copies}, {NULL, NULL}};
    const TTest *const tests[] = {
        a_write_from_partly_bad_memory_writes_exactly_the_blocks_before,
        a_read_into_partly_bad_memory_fills_exactly_the_blocks_before,
        bad_memory_is_survived_twice_in_a_row,
        bad_memory_is_survived_where_the_kernel_copies,
        bad_memory_is_survived_in_a_thread_that_blocks_every_signal,
        bad_memory_is_survived_in_a_thread_that_inherits_a_full_mask,
        bad_memory_is_survived_in_a_handler_with_a_full_mask,
        bad_memory_is_survived_on_an_alternate_stack,
        bad_memory_is_survived_in_the_handler_of_the_programs_own_fault,
        bad_memory_is_survived_with_both_signals_ignored,
        bad_vectors_and_bad_segments_are_exact,
        NULL,
    };
    return support_main(argc, argv, "faults", 60, modes, tests);
}
