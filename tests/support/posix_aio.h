/*
 * POSIX AIO as the tests do it: one request, and how it ends.
 */
#ifndef BOUNCEIO_TESTS_POSIX_AIO_H
#define BOUNCEIO_TESTS_POSIX_AIO_H

#include <aio.h>
#include <stddef.h>
#include <sys/types.h>

/* So many seconds does a request take at most, on the slowest machine. */
enum { POSIX_PATIENCE = 60 };

/* A request that nobody is told of. */
struct aiocb control_of(int fd, void *buffer, size_t length, size_t offset);

/* Wait for it. @return bytes or -errno. The test fails when it never ends. */
ssize_t end_of(struct aiocb *control);

/* Submit one and wait for it. */
ssize_t posix_write(int fd, void *buffer, size_t length, size_t offset);
ssize_t posix_read(int fd, void *buffer, size_t length, size_t offset);

/* A direct file of `size` bytes of the pattern `seed`, made anew. */
int posix_file(const char *path, unsigned seed, size_t size);

/* Run on each file system; the test fails when there was a mismatch, or a direct request passed the shim by. */
void posix_on_every_file_system(void (*run)(const char *path));

#endif
