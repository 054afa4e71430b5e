/* See exhaust.h. */
#include "support/exhaust.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/raw.h"
#include "support/direct.h"

enum { STANDING_SEED = 1 };

const char *const exhaust_pool[] = {"BOUNCEIO_POOL=2M", "BOUNCEIO_POOL_MAX=2M", NULL};

struct exhaust_writer {
    struct exhaust *all;
    unsigned number;
};

/* The first ones take most of the pool, the last ones what is left over between them. */
static size_t length_of(unsigned number)
{
    return number < STANDING / 2 ? STANDING_LENGTH : LITTLE_LENGTH;
}

static void *stand(void *argument)
{
    struct exhaust_writer *writer = argument;
    struct exhaust *all = writer->all;
    unsigned i = writer->number;

    all->results[i] =
        pwrite(all->fd, all->memory + (size_t)i * STANDING_LENGTH, length_of(i), (off_t)i * STANDING_LENGTH);
    free(writer);
    return NULL;
}

/* Wait until one more writer touches its buffer. */
static void wait_for_fault(int uffd)
{
    struct pollfd poll_fd = {uffd, POLLIN, 0};
    struct uffd_msg message;

    check_that(poll(&poll_fd, 1, 30000) == 1, "no writer reached its buffer");
    check_that(read(uffd, &message, sizeof(message)) == sizeof(message), "no message");
    check_that(message.event == UFFD_EVENT_PAGEFAULT, "event %d", message.event);
}

bool exhaust_start(struct exhaust *all, const char *path)
{
    struct uffdio_api api = {.api = UFFD_API};
    size_t length = (size_t)STANDING * STANDING_LENGTH;
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};

    /* User-mode faults are all that a copy in user space raises, and all that an unprivileged user may ask for. */
    all->uffd = (int)raw(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (all->uffd < 0)
        return false;
    all->memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    range.range.start = (uintptr_t)all->memory;
    range.range.len = length;
    check_that(all->memory != MAP_FAILED, "no memory");
    check_that(ioctl(all->uffd, UFFDIO_API, &api) == 0, "UFFDIO_API");
    check_that(ioctl(all->uffd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
    make_file_behind(path, STANDING_SEED, length);
    all->fd = direct_open(path, O_RDWR);
    for (unsigned i = 0; i < STANDING; i++) {
        struct exhaust_writer *writer = malloc(sizeof(*writer));

        *writer = (struct exhaust_writer){all, i};
        check_that(pthread_create(&all->threads[i], NULL, stand, writer) == 0, "no thread");
        wait_for_fault(all->uffd);
    }
    return true;
}

void exhaust_end(struct exhaust *all)
{
    struct uffdio_zeropage zero = {
        .range = {.start = (uintptr_t)all->memory, .len = (size_t)STANDING * STANDING_LENGTH}};

    check_that(ioctl(all->uffd, UFFDIO_ZEROPAGE, &zero) == 0, "UFFDIO_ZEROPAGE");
    for (unsigned i = 0; i < STANDING; i++) {
        pthread_join(all->threads[i], NULL);
        check_that(all->results[i] == (ssize_t)length_of(i), "standing writer %u: %zd", i, all->results[i]);
    }
    close(all->fd);
    close(all->uffd);
    munmap(all->memory, (size_t)STANDING * STANDING_LENGTH);
}

bool exhaust_can(void)
{
    long fd = raw(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (raw_failed(fd)) {
        test_skip("no userfaultfd (%s)", strerror((int)-fd));
        return false;
    }
    raw(SYS_close, fd);
    return true;
}
