/*
 * nowait: direct I/O from an event loop that must not block.
 *
 * The loop tries every write with RWF_NOWAIT. When the kernel or bounceio would have to wait (blocks to allocate, a lock, no
 * bounce page free at this moment), the call says EAGAIN at once, and the loop hands the request to a worker thread that
 * may block; the worker reports back through a pipe that the loop polls. At the end everything is read back and compared.
 *
 *   nowait FILE; LD_PRELOAD=libbounceshim.so nowait FILE
 *
 * Two rounds: the first fills an empty file, where file systems usually have to wait, the second overwrites it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bounceio.h"

/* NULL when the shim is not loaded. */
#pragma weak bounceio_version

enum { REQUESTS = 256, LENGTH = 64 << 10 };

struct request {
    int fd;
    off_t offset;
    struct iovec vector;
    ssize_t result; /* bytes, or -errno */
};

struct tally {
    unsigned on_loop, by_worker;
};

static int to_worker[2], to_loop[2]; /* pipes that carry pointers to requests */

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "nowait: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Pointers are shorter than PIPE_BUF, so each write and each read moves a whole one. */
static void send_request(int pipe_end, struct request *request)
{
    if (write(pipe_end, &request, sizeof request) != sizeof request)
        die("write to a pipe");
}

/* @return NULL at the end of the pipe. */
static struct request *receive_request(int pipe_end)
{
    struct request *request;
    return read(pipe_end, &request, sizeof request) == sizeof request ? request : NULL;
}

/* The worker does what the loop must not: it waits. */
static void *work(void *unused)
{
    for (struct request *request; (request = receive_request(to_worker[0])) != NULL;) {
        ssize_t result = pwritev2(request->fd, &request->vector, 1, request->offset, 0);
        request->result = result < 0 ? -errno : result;
        send_request(to_loop[1], request);
    }
    return unused;
}

static void check(const struct request *request)
{
    if (request->result == LENGTH)
        return;
    errno = request->result < 0 ? (int)-request->result : EIO;
    die("direct write");
}

/* Try on the loop. A short count is finished by the worker as well: writing the whole request again does no harm. */
static void submit(struct request *request, struct tally *tally)
{
    ssize_t result = pwritev2(request->fd, &request->vector, 1, request->offset, RWF_NOWAIT);
    if (result == LENGTH) {
        tally->on_loop++;
        return;
    }
    if (result < 0 && errno != EAGAIN && errno != EOPNOTSUPP)
        die("pwritev2");
    send_request(to_worker[1], request);
    tally->by_worker++;
}

/* Reap what the worker has finished; wait up to `milliseconds` for the first. @return how many. */
static unsigned reap(int milliseconds)
{
    struct pollfd ready = {.fd = to_loop[0], .events = POLLIN};
    unsigned reaped = 0;
    for (; poll(&ready, 1, reaped ? 0 : milliseconds) == 1; reaped++)
        check(receive_request(to_loop[0]));
    return reaped;
}

/* The event loop. Its other events would be polled in the same place. */
static struct tally run_loop(struct request *requests)
{
    struct tally tally = {0};
    unsigned reaped = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        submit(&requests[i], &tally);
        reaped += reap(0);
    }
    while (reaped < tally.by_worker)
        reaped += reap(-1);
    return tally;
}

static void fill(struct request *requests, uint64_t round)
{
    for (unsigned i = 0; i < REQUESTS; i++)
        for (size_t word = 0; word < LENGTH / sizeof(uint64_t); word++)
            ((uint64_t *)requests[i].vector.iov_base)[word] = round << 48 | (uint64_t)i << 32 | word;
}

static void compare(const struct request *requests, void *memory)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (pread(requests[i].fd, memory, LENGTH, requests[i].offset) != LENGTH)
            die("pread");
        if (memcmp(memory, requests[i].vector.iov_base, LENGTH) != 0) {
            errno = EILSEQ;
            die("what was read is not what was written");
        }
    }
}

static void *aligned_memory(size_t bytes)
{
    void *memory;
    errno = posix_memalign(&memory, 4096, bytes);
    if (errno)
        die("posix_memalign");
    return memory;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: nowait FILE\n");
        return 1;
    }
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0)
        die(argv[1]);
    static struct request requests[REQUESTS];
    char *memory = aligned_memory((size_t)(REQUESTS + 1) * LENGTH);
    for (unsigned i = 0; i < REQUESTS; i++)
        requests[i] = (struct request){
            .fd = fd,
            .offset = (off_t)i * LENGTH,
            .vector = {.iov_base = memory + (size_t)i * LENGTH, .iov_len = LENGTH},
        };
    pthread_t worker;
    if (pipe2(to_worker, O_CLOEXEC) || pipe2(to_loop, O_CLOEXEC))
        die("pipe2");
    errno = pthread_create(&worker, NULL, work, NULL);
    if (errno)
        die("pthread_create");

    printf("nowait, %s bounceio, %d writes of %d KiB per round:\n", bounceio_version ? "with" : "without", REQUESTS,
           LENGTH / 1024);
    for (uint64_t round = 1; round <= 2; round++) {
        fill(requests, round);
        struct tally tally = run_loop(requests);
        compare(requests, memory + (size_t)REQUESTS * LENGTH);
        printf("  %-12s completed on the loop=%u, by the worker=%u, read back correctly=%u\n",
               round == 1 ? "empty file:" : "overwrite:", tally.on_loop, tally.by_worker, REQUESTS);
    }
    close(to_worker[1]); /* the worker's end of work */
    pthread_join(worker, NULL);
    return 0;
}
