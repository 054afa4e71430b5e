/*
 * aio_blocks: write a file in blocks of random order with libaio, read it back in another order, and compare: the calls of the manual pages
 * io_setup(2), io_submit(2), io_getevents(2) and io_destroy(2).
 *
 *   aio_blocks FILE [MIB]; LD_PRELOAD=libbounceshim.so aio_blocks FILE [MIB]
 *
 * DEPTH requests are in flight at any time. A block's memory is used for the next one as soon as its event is there. Nothing in here
 * knows of bounceio.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH = 32, LENGTH = 16 << 10 };

struct job {
    io_context_t context;
    int fd;
    uint32_t blocks; /* a power of two */
    struct iocb iocbs[DEPTH];
    char *memory; /* DEPTH * LENGTH */
};

static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "aio_blocks: %s: %s\n", what, strerror(error));
    exit(1);
}

/* The `turn`th block of one of many orders: an odd step visits every place of a power of two once. */
static uint32_t place_of(const struct job *job, uint32_t turn, bool writing)
{
    return (turn * (writing ? 40503u : 30011u) + 7) % job->blocks;
}

static uint64_t word_of(uint32_t place, size_t word)
{
    return (uint64_t)place << 32 | (uint32_t)word;
}

static void fill(char *memory, uint32_t place)
{
    for (size_t word = 0; word < LENGTH / sizeof(uint64_t); word++)
        ((uint64_t *)(void *)memory)[word] = word_of(place, word);
}

static void compare(const char *memory, uint32_t place)
{
    for (size_t word = 0; word < LENGTH / sizeof(uint64_t); word++)
        if (((const uint64_t *)(const void *)memory)[word] != word_of(place, word))
            die("what was read is not what was written", EILSEQ);
}

/* Have iocb `slot` do the next block. */
static void submit(struct job *job, unsigned slot, uint32_t turn, bool writing)
{
    struct iocb *iocb = &job->iocbs[slot];
    char *memory = job->memory + (size_t)slot * LENGTH;
    uint32_t place = place_of(job, turn, writing);
    long long offset = (long long)place * LENGTH;

    if (writing) {
        fill(memory, place);
        io_prep_pwrite(iocb, job->fd, memory, LENGTH, offset);
    } else {
        io_prep_pread(iocb, job->fd, memory, LENGTH, offset);
    }
    iocb->data = (void *)(uintptr_t)place;
    int n = io_submit(job->context, 1, &iocb);
    if (n != 1)
        die("io_submit", -n);
}

/* One event: check it. @return the slot that is free again. */
static unsigned finish(struct job *job, const struct io_event *event, bool writing)
{
    unsigned slot = (unsigned)(event->obj - job->iocbs);
    long result = (long)event->res;

    if (result != LENGTH)
        die(writing ? "write" : "read", result < 0 ? (int)-result : EIO);
    if (!writing)
        compare(job->memory + (size_t)slot * LENGTH, (uint32_t)(uintptr_t)event->data);
    return slot;
}

static void run(struct job *job, bool writing)
{
    struct io_event events[DEPTH];
    uint32_t submitted = 0, done = 0;

    while (submitted < DEPTH && submitted < job->blocks) {
        submit(job, submitted, submitted, writing);
        submitted++;
    }
    while (done < job->blocks) {
        int n = io_getevents(job->context, 1, DEPTH, events, NULL);
        if (n < 0)
            die("io_getevents", -n);
        for (int i = 0; i < n; i++, done++) {
            unsigned slot = finish(job, &events[i], writing);
            if (submitted < job->blocks)
                submit(job, slot, submitted++, writing);
        }
    }
}

int main(int argc, char **argv)
{
    static struct job job;
    unsigned long mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 16;
    void *memory;

    if (argc < 2 || argc > 3 || mib == 0 || mib > 4096 || (mib & (mib - 1)) != 0) {
        fprintf(stderr, "usage: aio_blocks FILE [MIB], MIB a power of two up to 4096\n");
        return 1;
    }
    job.blocks = (uint32_t)((mib << 20) / LENGTH);
    job.fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (job.fd < 0)
        die(argv[1], errno);
    errno = posix_memalign(&memory, 4096, (size_t)DEPTH * LENGTH);
    if (errno)
        die("memory", errno);
    job.memory = memory;
    int error = io_setup(DEPTH, &job.context);
    if (error)
        die("io_setup", -error);
    run(&job, true);
    run(&job, false);
    error = io_destroy(job.context);
    if (error)
        die("io_destroy", -error);
    printf("%u blocks of %d KiB written and read back correctly\n", job.blocks, LENGTH / 1024);
    free(memory);
    return 0;
}
