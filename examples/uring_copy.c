/*
 * uring_copy: copy a file with io_uring, after the example of liburing.
 *
 *   uring_copy FROM TO; LD_PRELOAD=libbounceshim.so uring_copy FROM TO
 *
 * Each piece is a read linked to a write from the same memory: the kernel starts the write when the read is complete, and the program hears
 * of both afterwards. The bulk goes through O_DIRECT; what is left at the end of the file, less than the alignment that direct I/O
 * wants, is copied through the page cache. Nothing in here knows of bounceio.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECES = 32, LENGTH = 128 << 10, ALIGNMENT = 4096 };

/* A piece in flight: its memory, and how much of it is on its way. */
struct piece {
    char *memory;
    unsigned length;
    unsigned ended; /* completions seen, of two */
};

struct copy {
    struct io_uring ring;
    int from, to;
    off_t size;   /* to be copied directly: a multiple of the alignment */
    off_t queued; /* so far */
    unsigned in_flight;
    struct piece pieces[PIECES];
};

static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "uring_copy: %s: %s\n", what, strerror(error));
    exit(1);
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path, errno);
    return fd;
}

/* Queue the next piece of the file in this piece's memory. */
static void queue_pair(struct copy *copy, struct piece *piece)
{
    off_t left = copy->size - copy->queued;
    piece->length = left < LENGTH ? (unsigned)left : LENGTH;
    piece->ended = 0;

    struct io_uring_sqe *read = io_uring_get_sqe(&copy->ring);
    io_uring_prep_read(read, copy->from, piece->memory, piece->length, (uint64_t)copy->queued);
    io_uring_sqe_set_flags(read, IOSQE_IO_LINK);
    io_uring_sqe_set_data(read, piece);

    struct io_uring_sqe *write = io_uring_get_sqe(&copy->ring);
    io_uring_prep_write(write, copy->to, piece->memory, piece->length, (uint64_t)copy->queued);
    io_uring_sqe_set_data(write, piece);

    copy->queued += piece->length;
    copy->in_flight++;
}

/* Wait for one completion. @return the piece, if that was its second. */
static struct piece *reap(struct copy *copy)
{
    struct io_uring_cqe *cqe;
    int error = io_uring_wait_cqe(&copy->ring, &cqe);
    if (error)
        die("waiting", -error);
    struct piece *piece = io_uring_cqe_get_data(cqe);
    int result = cqe->res;
    io_uring_cqe_seen(&copy->ring, cqe);
    if (result < 0)
        die("copying", -result);
    if ((unsigned)result != piece->length)
        die("a file that becomes shorter meanwhile", EIO);
    if (++piece->ended < 2)
        return NULL;
    copy->in_flight--;
    return piece;
}

static void copy_directly(struct copy *copy)
{
    for (unsigned i = 0; i < PIECES && copy->queued < copy->size; i++)
        queue_pair(copy, &copy->pieces[i]);
    while (copy->in_flight) {
        int n = io_uring_submit(&copy->ring);
        if (n < 0)
            die("submitting", -n);
        struct piece *piece = reap(copy);
        if (piece && copy->queued < copy->size)
            queue_pair(copy, piece);
    }
}

/* The last bytes, and those on the medium. */
static void copy_rest(struct copy *copy, const char *from, const char *to, off_t size)
{
    char memory[ALIGNMENT];
    int source = open_file(from, O_RDONLY), target = open_file(to, O_WRONLY);
    size_t rest = (size_t)(size - copy->size);
    if (pread(source, memory, rest, copy->size) != (ssize_t)rest ||
        pwrite(target, memory, rest, copy->size) != (ssize_t)rest || fsync(target))
        die("the end of the file", errno);
    close(source);
    close(target);
}

int main(int argc, char **argv)
{
    static struct copy copy;
    struct stat status;
    void *memory;

    if (argc != 3) {
        fprintf(stderr, "usage: uring_copy FROM TO\n");
        return 1;
    }
    copy.from = open_file(argv[1], O_RDONLY | O_DIRECT);
    copy.to = open_file(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT);
    if (fstat(copy.from, &status))
        die(argv[1], errno);
    copy.size = status.st_size / ALIGNMENT * ALIGNMENT;
    errno = posix_memalign(&memory, ALIGNMENT, (size_t)PIECES * LENGTH);
    if (errno)
        die("memory", errno);
    for (unsigned i = 0; i < PIECES; i++)
        copy.pieces[i].memory = (char *)memory + (size_t)i * LENGTH;
    int error = io_uring_queue_init(2 * PIECES, &copy.ring, 0);
    if (error)
        die("io_uring", -error);
    copy_directly(&copy);
    io_uring_queue_exit(&copy.ring);
    copy_rest(&copy, argv[1], argv[2], status.st_size);
    printf("%lld bytes copied\n", (long long)status.st_size);
    free(memory);
    return 0;
}
