/* Parity of the file's own offset, of descriptors that are copies, closed or something else, and of changes of size. */
#include "support/parity.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { K = 1024, M = 1024 * 1024 };

static int open_direct(struct parity_scene *scene)
{
    return scene->fd = open(scene->path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

static char *source(size_t length)
{
    char *buffer = buffer_new(length);

    pattern_fill(buffer, length, SOURCE_SEED, 0);
    return buffer;
}

static void position(struct parity_scene *scene, int fd)
{
    scene_note(scene, "at", lseek(fd, 0, SEEK_CUR));
}

/* --- The offset --------------------------------------------------------------------------------------------------- */

static void writes_one_after_the_other(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);

    for (size_t length = SECTOR; length <= 64 * K; length *= 2) {
        scene_note(scene, "write", write(fd, buffer, length));
        position(scene, fd);
    }
    buffer_free(buffer, 64 * K);
}

static void reads_one_after_the_other(struct parity_scene *scene)
{
    char *buffer = buffer_new(64 * K);
    int fd = open_direct(scene);
    uint64_t hash = HASH_START;
    ssize_t n;

    while ((n = read(fd, buffer, 24 * K)) > 0) {
        hash = hash_bytes(hash, buffer, (size_t)n);
        scene_note(scene, "read", n);
    }
    scene_note(scene, "read", n);
    scene_fact(scene, "data", hash);
    buffer_free(buffer, 64 * K);
}

static void reads_to_an_odd_end(struct parity_scene *scene)
{
    char *buffer = buffer_new(64 * K);
    int fd = open_direct(scene);

    scene_note(scene, "truncate", ftruncate(fd, 10000));
    for (int i = 0; i < 4; i++) {
        scene_note(scene, "read", read(fd, buffer, BLOCK));
        position(scene, fd);
    }
    buffer_free(buffer, 64 * K);
}

static void positions_after_errors(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    /* Hidden from the compiler, which knows better than to read from there. */
    char *volatile nowhere = NULL;
    int fd = open_direct(scene);

    lseek(fd, 8 * K, SEEK_SET);
    scene_note(scene, "write of 100", write(fd, buffer, 100));
    position(scene, fd);
    scene_note(scene, "write from nowhere", write(fd, nowhere, BLOCK));
    position(scene, fd);
    scene_note(scene, "read into nowhere", read(fd, nowhere, BLOCK));
    position(scene, fd);
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    position(scene, fd);
    lseek(fd, 100, SEEK_SET);
    scene_note(scene, "write at 100", write(fd, buffer, BLOCK));
    position(scene, fd);
    scene_note(scene, "read at 100", read(fd, buffer, BLOCK));
    position(scene, fd);
    buffer_free(buffer, BLOCK);
}

static void seeks_between_calls(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open_direct(scene);

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "seek", lseek(fd, 4 * BLOCK, SEEK_CUR));
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "seek", lseek(fd, -BLOCK, SEEK_END));
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "write at the end", write(fd, buffer, BLOCK));
    scene_note(scene, "seek before the start", lseek(fd, -1, SEEK_SET));
    scene_note(scene, "pwrite", pwrite(fd, buffer, BLOCK, 0));
    position(scene, fd);
    scene_note(scene, "hole", lseek(fd, 0, SEEK_HOLE));
    scene_note(scene, "data", lseek(fd, 0, SEEK_DATA));
    buffer_free(buffer, BLOCK);
}

static void mixed_directions(struct parity_scene *scene)
{
    char *buffer = source(8 * K);
    struct iovec vector[2] = {{buffer, BLOCK}, {buffer + BLOCK, BLOCK}};
    int fd = open_direct(scene);

    scene_note(scene, "writev", writev(fd, vector, 2));
    scene_note(scene, "read", read(fd, buffer, BLOCK));
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "readv", readv(fd, vector, 2));
    scene_note(scene, "pwritev2", pwritev2(fd, vector, 2, -1, 0));
    scene_note(scene, "preadv2", preadv2(fd, vector, 1, -1, 0));
    position(scene, fd);
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 8 * K));
    buffer_free(buffer, 8 * K);
}

/* --- Copies of a descriptor --------------------------------------------------------------------------------------- */

static void offsets_shared_by_dup(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open_direct(scene);
    int copy = dup(fd);
    int third = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    int fourth = dup2(fd, 150);
    int fifth = dup3(fd, 151, O_CLOEXEC);

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "write by dup", write(copy, buffer, BLOCK));
    scene_note(scene, "write by F_DUPFD", write(third, buffer, BLOCK));
    scene_note(scene, "write by dup2", write(fourth, buffer, BLOCK));
    scene_note(scene, "read by dup3", read(fifth, buffer, BLOCK));
    position(scene, fd);
    close(fd);
    scene->fd = copy;
    scene_note(scene, "write by dup", write(copy, buffer, BLOCK));
    scene_note(scene, "write by closed", write(fd, buffer, BLOCK));
    close(third);
    close(fourth);
    close(fifth);
    buffer_free(buffer, BLOCK);
}

static void offsets_shared_by_fork(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open_direct(scene);

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    fflush(NULL);
    pid_t pid = fork();

    if (pid == 0)
        _exit(write(fd, buffer, BLOCK) == BLOCK && read(fd, buffer, BLOCK) == BLOCK ? 0 : 1);
    int status = -1;

    waitpid(pid, &status, 0);
    scene_fact(scene, "status", (unsigned)status);
    position(scene, fd);
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

static void flags_set_through_a_copy(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = scene->fd = open(scene->path, O_RDWR);
    int copy = dup(fd);

    scene_note(scene, "odd, buffered", pwrite(fd, buffer, 100, 0));
    scene_note(scene, "set", fcntl(copy, F_SETFL, O_DIRECT));
    scene_note(scene, "odd, direct", pwrite(fd, buffer, 100, 0));
    scene_note(scene, "block, direct", pwrite(fd, buffer, BLOCK, BLOCK));
    close(copy);
    buffer_free(buffer, BLOCK);
}

static void two_openings_of_one_file(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open_direct(scene);
    int other = open(scene->path, O_RDWR | O_DIRECT);
    int plain = open(scene->path, O_RDWR);

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "write by the other", write(other, buffer, BLOCK));
    scene_note(scene, "buffered write", pwrite(plain, buffer, 1000, 10000));
    scene_note(scene, "read", pread(fd, buffer, BLOCK, 8 * K));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, BLOCK));
    scene_note(scene, "buffered read", pread(plain, buffer, 1000, 100));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 1000));
    close(other);
    close(plain);
    buffer_free(buffer, BLOCK);
}

/* --- Descriptors that are not a direct file ----------------------------------------------------------------------- */

static void every_call_on(struct parity_scene *scene, int fd, char *buffer)
{
    struct iovec vector = {buffer, BLOCK};

    scene_note(scene, "read", read(fd, buffer, BLOCK));
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "pread", pread(fd, buffer, BLOCK, 0));
    scene_note(scene, "pwrite", pwrite(fd, buffer, BLOCK, 0));
    scene_note(scene, "readv", readv(fd, &vector, 1));
    scene_note(scene, "writev", writev(fd, &vector, 1));
    scene_note(scene, "preadv", preadv(fd, &vector, 1, 0));
    scene_note(scene, "pwritev", pwritev(fd, &vector, 1, 0));
    scene_note(scene, "preadv2", preadv2(fd, &vector, 1, 0, 0));
    scene_note(scene, "pwritev2", pwritev2(fd, &vector, 1, 0, 0));
}

static void closed_descriptors(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open(scene->path, O_RDWR | O_DIRECT);

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "close", close(fd));
    every_call_on(scene, fd, buffer);
    scene_note(scene, "close again", close(fd));
    buffer_free(buffer, BLOCK);
}

static void numbers_that_are_no_descriptor(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    static const int numbers[] = {-1, -100, 987654, 2147483647, -2147483647 - 1};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        scene_note(scene, "pwrite", pwrite(numbers[i], buffer, BLOCK, 0));
        scene_note(scene, "read", read(numbers[i], buffer, BLOCK));
        scene_note(scene, "close", close(numbers[i]));
        scene_note(scene, "dup", dup(numbers[i]));
    }
    buffer_free(buffer, BLOCK);
}

static void pipes(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int ends[2];

    scene_note(scene, "pipe2", pipe2(ends, O_DIRECT | O_CLOEXEC));
    scene_note(scene, "write", write(ends[1], buffer, 100));
    scene_note(scene, "write", write(ends[1], buffer, 200));
    scene_note(scene, "read", read(ends[0], buffer, BLOCK));
    scene_note(scene, "read", read(ends[0], buffer, BLOCK));
    scene_note(scene, "pwrite", pwrite(ends[1], buffer, BLOCK, 0));
    scene_note(scene, "pread", pread(ends[0], buffer, BLOCK, 0));
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    scene_note(scene, "broken", write(ends[1], buffer, 100));
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
    buffer_free(buffer, BLOCK);
}

static void a_number_reused_by_a_socket(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open(scene->path, O_RDWR | O_DIRECT);
    int pair[2];

    scene_note(scene, "write", write(fd, buffer, BLOCK));
    close(fd);
    scene_note(scene, "socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    scene_fact(scene, "reused", pair[0] == fd);
    scene_note(scene, "write", write(pair[0], buffer, 100));
    scene_note(scene, "read", read(pair[1], buffer, BLOCK));
    scene_note(scene, "pwrite", pwrite(pair[0], buffer, BLOCK, 0));
    close(pair[0]);
    close(pair[1]);
    buffer_free(buffer, BLOCK);
}

static void a_number_replaced_by_dup2(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open_direct(scene);
    int plain = open(scene->path, O_RDWR);

    scene_note(scene, "odd, direct", pwrite(fd, buffer, 100, 0));
    scene_note(scene, "dup2", dup2(plain, fd) == fd);
    scene_note(scene, "odd, buffered", pwrite(fd, buffer, 100, 0));
    close(plain);
    buffer_free(buffer, BLOCK);
}

static void directories(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open(scene->directory, O_RDONLY | O_DIRECTORY);

    every_call_on(scene, fd, buffer);
    close(fd);
    buffer_free(buffer, BLOCK);
}

static void devices(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int null = open("/dev/null", O_RDWR);
    int zero = open("/dev/zero", O_RDWR);
    int full = open("/dev/full", O_RDWR);

    every_call_on(scene, null, buffer);
    every_call_on(scene, zero, buffer);
    every_call_on(scene, full, buffer);
    close(null);
    close(zero);
    close(full);
    buffer_free(buffer, BLOCK);
}

/* --- Size --------------------------------------------------------------------------------------------------------- */

static void truncation_and_extension(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);

    scene_note(scene, "pwrite", pwrite(fd, buffer, 64 * K, 0));
    scene_note(scene, "shorten", ftruncate(fd, 10000));
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, 0));
    scene_note(scene, "lengthen", ftruncate(fd, 20000));
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 20000));
    scene_note(scene, "by name", truncate(scene->path, 12288));
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, 0));
    scene_note(scene, "negative", ftruncate(fd, -1));
    scene_note(scene, "pwrite", pwrite(fd, buffer, BLOCK, 12288));
    buffer_free(buffer, 64 * K);
}

static void holes(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);

    scene_note(scene, "pwrite", pwrite(fd, buffer, 64 * K, 0));
    scene_note(scene, "punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 20000));
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 64 * K));
    scene_note(scene, "extend", fallocate(fd, 0, 0, DEFAULT_SIZE + 10000));
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, DEFAULT_SIZE));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 10000));
    scene_note(scene, "posix", posix_fallocate(fd, DEFAULT_SIZE + 20000, 1000));
    scene_note(scene, "bad mode", fallocate(fd, 0x4000, 0, BLOCK));
    scene_note(scene, "bad range", fallocate(fd, 0, -1, BLOCK));
    buffer_free(buffer, 64 * K);
}

static void copies_inside_the_kernel(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);
    int plain = open(scene->path, O_RDWR);
    off64_t from = 0;
    off64_t to = 128 * K;
    off_t at = 0;

    scene_note(scene, "pwrite", pwrite(fd, buffer, 64 * K, 0));
    scene_note(scene, "copy_file_range", copy_file_range(plain, &from, plain, &to, 10000, 0));
    scene_note(scene, "pread", pread(fd, buffer, 16 * K, 128 * K));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 16 * K));
    lseek(plain, 192 * K + 100, SEEK_SET);
    scene_note(scene, "sendfile", sendfile(plain, plain, &at, 5000));
    scene_note(scene, "pread", pread(fd, buffer, 16 * K, 192 * K));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 16 * K));
    close(plain);
    buffer_free(buffer, 64 * K);
}

static void stores_through_a_mapping(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);

    scene_note(scene, "pwrite", pwrite(fd, buffer, 64 * K, 0));
    char *map = mmap(NULL, 64 * K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    memset(map + 5000, 0x5a, 3000);
    scene_note(scene, "msync", msync(map, 64 * K, MS_SYNC));
    scene_note(scene, "pread", pread(fd, buffer, 16 * K, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 16 * K));
    scene_note(scene, "pwrite", pwrite(fd, buffer, BLOCK, 32 * K));
    scene_fact(scene, "seen", hash_bytes(HASH_START, map, 64 * K));
    munmap(map, 64 * K);
    scene_note(scene, "pread", pread(fd, buffer, 64 * K, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 64 * K));
    buffer_free(buffer, 64 * K);
}

/* A write that meets RLIMIT_FSIZE is cut, the next one fails and raises SIGXFSZ. */
static void limit_of_file_size(struct parity_scene *scene)
{
    char *buffer = source(64 * K);
    int fd = open_direct(scene);
    struct rlimit old, limit;

    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){DEFAULT_SIZE + 16 * K, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    ssize_t across = pwrite(fd, buffer, 64 * K, DEFAULT_SIZE);
    int error = errno;
    ssize_t beyond = pwrite(fd, buffer, BLOCK, DEFAULT_SIZE + 64 * K);
    int error_beyond = errno;

    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    errno = error;
    scene_note(scene, "across", across);
    errno = error_beyond;
    scene_note(scene, "beyond", beyond);
    buffer_free(buffer, 64 * K);
}

/* Longer than what the shim hands on at once: nothing is transferred all the same, where the kernel refuses the length. */
static void odd_lengths_of_long_requests(struct parity_scene *scene)
{
    enum { LENGTH = 4 * M + 100 };
    char *buffer = source(5 * M);
    int fd = open_direct(scene);

    scene_note(scene, "write", write(fd, buffer, LENGTH));
    position(scene, fd);
    scene_note(scene, "pwrite", pwrite(fd, buffer, LENGTH, BLOCK));
    scene_note(scene, "size", lseek(fd, 0, SEEK_END));
    scene_note(scene, "write whole blocks", pwrite(fd, buffer, 5 * M, 0));
    lseek(fd, 0, SEEK_SET);
    scene_note(scene, "read", read(fd, buffer, LENGTH));
    position(scene, fd);
    scene_note(scene, "pread", pread(fd, buffer, LENGTH, BLOCK));
    buffer_free(buffer, 5 * M);
}

static volatile sig_atomic_t signals_seen;

static void count_signal(int number)
{
    (void)number;
    signals_seen++;
}

/* The limit is where the shim cuts a long write in two: no signal, as long as something can be written. */
static void limit_within_a_long_write(struct parity_scene *scene)
{
    char *buffer = source(12 * M);
    int fd = open_direct(scene);
    struct rlimit old, limit;
    ssize_t at_offset, at_position;

    signals_seen = 0;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){8 * M, old.rlim_max};
    signal(SIGXFSZ, count_signal);
    setrlimit(RLIMIT_FSIZE, &limit);
    at_offset = pwrite(fd, buffer, 12 * M, 0);
    lseek(fd, 4 * M, SEEK_SET);
    at_position = write(fd, buffer, 8 * M);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    scene_note(scene, "at an offset", at_offset);
    scene_note(scene, "at the position", at_position);
    scene_note(scene, "signals", signals_seen);
    position(scene, fd);
    buffer_free(buffer, 12 * M);
}

static void streams(struct parity_scene *scene)
{
    char *buffer = source(BLOCK);
    int fd = open(scene->path, O_RDWR | O_DIRECT);
    FILE *stream = fdopen(fd, "r+");

    setvbuf(stream, buffer_new(BLOCK), _IOFBF, BLOCK);
    scene_fact(scene, "fread", fread(buffer, 1, 100, stream));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 100));
    scene_note(scene, "fclose", fclose(stream));
    scene_note(scene, "read", read(fd, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

static const struct parity_case cases[] = {
    {"write at the start", &call_write, .length = 8 * K},
    {"write in the middle", &call_write, .at = 64 * K, .length = 8 * K},
    {"write at the end", &call_write, .at = DEFAULT_SIZE, .length = 8 * K},
    {"write across the end", &call_write, .at = DEFAULT_SIZE - BLOCK, .length = 8 * K},
    {"write beyond the end", &call_write, .at = DEFAULT_SIZE + 64 * K, .length = 8 * K},
    {"write of nothing", &call_write, .at = 64 * K},
    {"write of a sector at a sector", &call_write, .at = 3 * SECTOR, .length = SECTOR},
    {"write at an odd offset", &call_write, .at = 100, .length = BLOCK},
    {"write of 100 bytes", &call_write, .at = BLOCK, .length = 100},
    {"write of SSIZE_MAX bytes", &call_write, .at = BLOCK, .length = INT64_MAX},
    {"read at the start", &call_read, .length = 8 * K},
    {"read in the middle", &call_read, .at = 64 * K, .length = 8 * K},
    {"read at the end", &call_read, .at = DEFAULT_SIZE, .length = 8 * K},
    {"read across the end", &call_read, .at = DEFAULT_SIZE - BLOCK, .length = 8 * K},
    {"read across an odd end", &call_read, .at = BLOCK, .length = 8 * K, .size = 5000},
    {"read beyond the end", &call_read, .at = DEFAULT_SIZE + 64 * K, .length = 8 * K},
    {"read of nothing", &call_read, .at = 64 * K},
    {"read of a sector at a sector", &call_read, .at = 3 * SECTOR, .length = SECTOR},
    {"read at an odd offset", &call_read, .at = 100, .length = BLOCK},
    {"read of 100 bytes", &call_read, .at = BLOCK, .length = 100},
    {"writes one after the other", .run = writes_one_after_the_other},
    {"reads one after the other", .run = reads_one_after_the_other},
    {"reads to an odd end", .run = reads_to_an_odd_end},
    {"positions after errors", .run = positions_after_errors},
    {"seeks between calls", .run = seeks_between_calls},
    {"reads and writes mixed", .run = mixed_directions},
    {"offsets shared by dup", .run = offsets_shared_by_dup},
    {"offsets shared by fork", .run = offsets_shared_by_fork},
    {"flags set through a copy", .run = flags_set_through_a_copy},
    {"two openings of one file", .run = two_openings_of_one_file},
    {"closed descriptors", .run = closed_descriptors},
    {"numbers that are no descriptor", .run = numbers_that_are_no_descriptor},
    {"pipes", .run = pipes},
    {"a number reused by a socket", .run = a_number_reused_by_a_socket},
    {"a number replaced by dup2", .run = a_number_replaced_by_dup2},
    {"directories", .run = directories},
    {"devices", .run = devices},
    {"truncation and extension", .run = truncation_and_extension},
    {"holes", .run = holes},
    {"copies inside the kernel", .run = copies_inside_the_kernel},
    {"stores through a mapping", .run = stores_through_a_mapping},
    {"the limit of file size", .run = limit_of_file_size},
    {"odd lengths of long requests", .run = odd_lengths_of_long_requests},
    {"a limit within a long write", .run = limit_within_a_long_write},
    {"streams", .run = streams},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return parity_main(argc, argv, "parity: offsets and descriptors", cases);
}
