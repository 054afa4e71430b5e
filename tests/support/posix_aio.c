/* Requests of POSIX AIO. See posix_aio.h. */
#include "support/posix_aio.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

struct aiocb control_of(int fd, void *buffer, size_t length, size_t offset)
{
    return (struct aiocb){.aio_fildes = fd,
                          .aio_buf = buffer,
                          .aio_nbytes = length,
                          .aio_offset = (off_t)offset,
                          .aio_sigevent.sigev_notify = SIGEV_NONE};
}

ssize_t end_of(struct aiocb *control)
{
    const struct aiocb *list[] = {control};
    const struct timespec time = {.tv_sec = POSIX_PATIENCE};
    while (aio_error(control) == EINPROGRESS)
        check_that(aio_suspend(list, 1, &time) == 0 || errno == EINTR, "a request never ends");
    int error = aio_error(control);
    return error == 0 ? aio_return(control) : -error;
}

ssize_t posix_write(int fd, void *buffer, size_t length, size_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, offset);
    check_that(aio_write(&control) == 0, "aio_write");
    return end_of(&control);
}

ssize_t posix_read(int fd, void *buffer, size_t length, size_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, offset);
    check_that(aio_read(&control) == 0, "aio_read");
    return end_of(&control);
}

int posix_file(const char *path, unsigned seed, size_t size)
{
    int fd = direct_open(path, O_RDWR | O_CREAT | O_TRUNC);
    direct_write(fd, seed, 0, size);
    return fd;
}

void posix_on_every_file_system(void (*run)(const char *path))
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++) {
        const char *path = path_in(fs[i].path, "file");
        struct bounceio_stats before = counters();
        run(path);
        ck_assert_uint_eq(counters().mismatches, before.mismatches);
        ck_assert_uint_eq(counters().passed_through, before.passed_through);
        unlink(path);
    }
}
