/* See libaio_setting.h. */
#include "support/libaio_setting.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <unistd.h>

#include "support/direct.h"

struct libaio_setting setting;

void set_up(const struct test_fs *fs, int events)
{
    memset(&setting, 0, sizeof setting);
    setting.path = path_in(fs->path, "file");
    setting.fd = direct_open(setting.path, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(setting.fd, SEED, 0, SIZE);
    setting.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    setting.epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(setting.epoll, EPOLL_CTL_ADD, setting.event, &(struct epoll_event){.events = EPOLLIN});
    setting.memory = (unsigned char *)aligned_alloc(BLOCK, (DEPTH + 1) * BLOCK) + (counting() ? 1 : 0);
    for (int i = 0; i < DEPTH; i++)
        setting.list[i] = &setting.iocbs[i];
    check_that(io_setup(events, &setting.context) == 0, "no context");
}

void tear_down(void)
{
    check_that(io_destroy(setting.context) == 0, "cannot destroy");
    close(setting.epoll);
    close(setting.event);
    close(setting.fd);
}

void on_two(void (*play)(void), int events)
{
    static const char *const names[] = {"xfs", "tmpfs"};
    struct test_fs fs;
    int played = 0;

    for (size_t i = 0; i < 2; i++)
        if (test_filesystem(names[i], &fs)) {
            set_up(&fs, events);
            play();
            tear_down();
            played++;
        }
    if (played == 0) {
        struct test_fs any[TEST_FS_MAX];

        test_filesystems(any);
        set_up(&any[0], events);
        play();
        tear_down();
    }
}

void submit_read(int i, uint64_t block, bool notified)
{
    io_prep_pread(&setting.iocbs[i], setting.fd, place(i), BLOCK, (long long)(block * BLOCK));
    setting.iocbs[i].data = (void *)(uintptr_t)(block * BLOCK);
    if (notified)
        io_set_eventfd(&setting.iocbs[i], setting.event);
    memset(place(i), 0, BLOCK);
    check_that(io_submit(setting.context, 1, &setting.list[i]) == 1, "cannot submit");
}

void check_read(const struct io_event *event)
{
    const ptrdiff_t i = event->obj - setting.iocbs;

    check_that(i >= 0 && i < DEPTH && (long)event->res == BLOCK, "event of %td: %ld", i, (long)event->res);
    check_that(pattern_check(place((int)i), BLOCK, SEED, (uintptr_t)event->data) == BLOCK, "%td: wrong data", i);
}

int reap_from_memory(void)
{
    struct ring *ring = (struct ring *)(void *)setting.context;
    unsigned head = atomic_load(&ring->head), tail = atomic_load(&ring->tail);
    int count = 0;

    for (; head != tail; head = (head + 1) % ring->nr, count++)
        check_read(&ring->events[head]);
    atomic_store(&ring->head, head);
    return count;
}

void wait_by(enum wait wait)
{
    struct pollfd poller = {.fd = setting.event, .events = POLLIN};
    struct timespec time = {.tv_sec = PATIENCE};
    struct timeval old_time = {.tv_sec = PATIENCE};
    struct epoll_event found;
    fd_set set;
    int ready = 1;

    FD_ZERO(&set);
    FD_SET(setting.event, &set);
    switch (wait) {
    case BY_POLL:
        ready = poll(&poller, 1, PATIENCE * 1000);
        break;
    case BY_PPOLL:
        ready = ppoll(&poller, 1, &time, NULL);
        break;
    case BY_SELECT:
        ready = select(setting.event + 1, &set, NULL, NULL, &old_time);
        break;
    case BY_PSELECT:
        ready = pselect(setting.event + 1, &set, NULL, NULL, &time, NULL);
        break;
    case BY_EPOLL:
        ready = epoll_wait(setting.epoll, &found, 1, PATIENCE * 1000);
        break;
    default: {
        uint64_t count;
        int flags = fcntl(setting.event, F_GETFL);

        fcntl(setting.event, F_SETFL, flags & ~O_NONBLOCK);
        check_that(read(setting.event, &count, sizeof count) == sizeof count, "cannot read the eventfd");
        fcntl(setting.event, F_SETFL, flags);
        break;
    }
    }
    check_that(ready == 1, "nothing is ready after %d s, by %d", PATIENCE, (int)wait);
}

void drain_eventfd(void)
{
    uint64_t count;
    ssize_t n = read(setting.event, &count, sizeof count);

    check_that(n == sizeof count || errno == EAGAIN, "cannot read the eventfd");
}
