/*
 * The device begins with what one call has submitted while the rest of it is still being copied (engine/helping.h). The last request's memory is
 * there only when the first has landed in the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/raw.h"
#include "support/direct.h"
#include "support/support.h"

enum { WRITES = 12, LENGTH = 16 << 10, APART = 4 * LENGTH, SEED = 3, PATIENCE = 5000 /* ms */ };

/* Memory whose page is not there until somebody brings it. */
struct missing {
    int fd;
    unsigned char *page;
    int file; /* through the page cache */
    bool has_landed;
};

static uint64_t place(unsigned i)
{
    return (uint64_t)(WRITES - 1 - i) * APART;
}

static bool first_has_landed(int file)
{
    unsigned char found[BLOCK];

    for (int waited = 0; waited < PATIENCE; waited++) {
        if (pread(file, found, BLOCK, (off_t)place(0)) == BLOCK && pattern_check(found, BLOCK, SEED, place(0)) == BLOCK)
            return true;
        usleep(1000);
    }
    return false;
}

static void *bring(void *argument)
{
    struct missing *missing = argument;
    unsigned char content[BLOCK];
    struct uffd_msg message;
    struct pollfd poll_fd = {missing->fd, POLLIN, 0};
    struct timespec patience = {.tv_sec = PATIENCE / 1000};

    /* Past the shim: its poll would reap here what the other thread submits, and ThreadSanitizer sees no order in what its own poll calls. */
    if (raw(SYS_ppoll, &poll_fd, 1, &patience, NULL, 0) != 1 ||
        read(missing->fd, &message, sizeof message) != (ssize_t)sizeof message)
        return NULL;
    missing->has_landed = first_has_landed(missing->file);
    pattern_fill(content, BLOCK, SEED, place(WRITES - 1) + LENGTH - BLOCK);
    struct uffdio_copy copy = {.dst = (uintptr_t)missing->page, .src = (uintptr_t)content, .len = BLOCK};

    ioctl(missing->fd, UFFDIO_COPY, &copy);
    return NULL;
}

/* @return false when that cannot be had here. */
static bool take_away(struct missing *missing)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uintptr_t)missing->page, BLOCK}, .mode = UFFDIO_REGISTER_MODE_MISSING};

    missing->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (missing->fd < 0)
        return false;
    check_that(ioctl(missing->fd, UFFDIO_API, &api) == 0, "userfaultfd");
    check_that(madvise(missing->page, BLOCK, MADV_DONTNEED) == 0, "madvise");
    check_that(ioctl(missing->fd, UFFDIO_REGISTER, &range) == 0, "register");
    return true;
}

static void write_by_libaio(int fd, unsigned char *memory)
{
    struct iocb iocbs[WRITES], *list[WRITES];
    struct io_event events[WRITES];
    io_context_t context = NULL;

    check_that(io_setup(WRITES, &context) == 0, "io_setup");
    for (unsigned i = 0; i < WRITES; i++) {
        list[i] = &iocbs[i];
        io_prep_pwrite(list[i], fd, memory + (size_t)i * LENGTH, LENGTH, (long long)place(i));
    }
    check_that(io_submit(context, WRITES, list) == WRITES, "io_submit");
    check_that(io_getevents(context, WRITES, WRITES, events, NULL) == WRITES, "io_getevents");
    for (unsigned i = 0; i < WRITES; i++)
        check_that(events[i].res == LENGTH, "a write gave %ld", (long)events[i].res);
    io_destroy(context);
}

static void write_by_uring(int fd, unsigned char *memory)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;

    check_that(io_uring_queue_init(WRITES, &ring, 0) == 0, "no ring");
    for (unsigned i = 0; i < WRITES; i++)
        io_uring_prep_write(io_uring_get_sqe(&ring), fd, memory + (size_t)i * LENGTH, LENGTH, place(i));
    check_that(io_uring_submit(&ring) == WRITES, "submit");
    for (unsigned i = 0; i < WRITES; i++) {
        check_that(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == LENGTH, "a write");
        io_uring_cqe_seen(&ring, cqe);
    }
    io_uring_queue_exit(&ring);
}

static void overlap(const struct test_fs *fs, void (*write_all)(int fd, unsigned char *memory))
{
    const char *path = path_in(fs->path, "file");
    unsigned char *memory = buffer_new(WRITES * LENGTH);
    struct missing missing = {.page = memory + WRITES * LENGTH - BLOCK};
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    pthread_t thread;

    missing.file = open(path, O_RDONLY | O_CLOEXEC);
    check_that(ftruncate(fd, WRITES * APART) == 0 && missing.file >= 0, "the file");
    for (unsigned i = 0; i < WRITES; i++)
        pattern_fill(memory + (size_t)i * LENGTH, LENGTH, SEED, place(i));
    if (!take_away(&missing)) {
        test_skip("userfaultfd: %s", strerror(errno));
        return;
    }
    check_that(pthread_create(&thread, NULL, bring, &missing) == 0, "no thread");
    write_all(fd, memory);
    pthread_join(thread, NULL);
    check_that(missing.has_landed, "%s: nothing was begun before all was copied", fs->name);
    for (unsigned i = 0; i < WRITES; i++)
        direct_check(fd, SEED, (off_t)place(i), LENGTH);
    close(missing.fd);
    close(missing.file);
    close(fd);
    unlink(path);
    buffer_free(memory, WRITES * LENGTH);
}

static void each_filesystem(void (*write_all)(int fd, unsigned char *memory))
{
    struct test_fs fs[TEST_FS_MAX];

    for (size_t i = 0, count = test_filesystems(fs); i < count; i++)
        overlap(&fs[i], write_all);
}

START_TEST(libaio_begins_before_all_is_copied)
{
    each_filesystem(write_by_libaio);
}
END_TEST

START_TEST(io_uring_begins_before_all_is_copied)
{
    each_filesystem(write_by_uring);
}
END_TEST

int main(int argc, char **argv)
{
    return support_main(
        argc, argv, "helpings", 60, NULL,
        (const TTest *const[]){libaio_begins_before_all_is_copied, io_uring_begins_before_all_is_copied, NULL});
}
