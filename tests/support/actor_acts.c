/* The actor's side: orders and what is done about them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/raw.h"
#include "support/actor.h"
#include "support/direct.h"

struct stage {
    int wire;
    int fd;   /* O_DIRECT */
    int more; /* for what needs a descriptor of another kind; opened when needed */
    char path[4200];
};

static int64_t open_file(struct stage *stage, const struct order *order)
{
    snprintf(stage->path, sizeof(stage->path), "%s", order->text);
    stage->fd = open(stage->path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    return stage->fd;
}

static int64_t write_pattern(int fd, const struct order *order)
{
    pattern_fill(direct_memory(), order->length, order->seed, order->offset);
    return pwrite(fd, direct_memory(), order->length, (off_t)order->offset);
}

/* A short-lived descriptor with other flags. */
static int64_t write_by(const struct stage *stage, const struct order *order, int flags)
{
    int fd = open(stage->path, O_RDWR | O_CLOEXEC | flags);
    int64_t result = fd < 0 ? -1 : write_pattern(fd, order);
    int error = errno;

    close(fd);
    errno = error;
    return result;
}

static int64_t read_range(const struct stage *stage, const struct order *order, struct answer *answer)
{
    ssize_t n = pread(stage->fd, direct_memory(), order->length, (off_t)order->offset);

    if (n >= 0)
        answer->hash = hash_bytes(HASH_START, direct_memory(), (size_t)n);
    return n;
}

static int64_t map_and_unmap(const struct stage *stage, const struct order *order)
{
    void *memory = mmap(NULL, order->length, PROT_READ | PROT_WRITE, MAP_SHARED, stage->fd, (off_t)order->offset);

    return memory == MAP_FAILED ? -1 : munmap(memory, order->length);
}

static char verdict_of_block(int fd, uint64_t block)
{
    struct bounceio_stats before = counters();
    ssize_t n = pread(fd, direct_memory(), BLOCK, (off_t)(block * BLOCK));
    struct bounceio_stats after = counters();

    if (after.mismatches > before.mismatches)
        return n == -1 && errno == EIO ? 'E' : 'M';
    if (n <= 0)
        return n == 0 ? '-' : 'e';
    if (after.recovered_blocks > before.recovered_blocks)
        return 'r';
    if (after.changed_outside > before.changed_outside)
        return 'o';
    return after.blocks_verified > before.blocks_verified ? 'v' : 'u';
}

static int64_t survey(int fd, uint64_t blocks, char *letters)
{
    for (uint64_t block = 0; block < blocks && block < ACTOR_SURVEY; block++)
        letters[block] = verdict_of_block(fd, block);
    return 0;
}

static int64_t fork_quietly(const struct stage *stage)
{
    pid_t pid = fork();

    if (pid == 0) {
        /* By calls that the shim does not see: it has nothing to do with this process. */
        raw(SYS_close, stage->wire);
        alarm(60);
        for (;;)
            raw(SYS_pause);
    }
    return pid;
}

static int64_t fork_and_write(const struct stage *stage, const struct order *order)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(write_pattern(stage->fd, order) == (int64_t)order->length ? 0 : 1);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static int64_t stop_at(const struct order *order)
{
    /* By way of none, so that the same place counts anew. */
    unsetenv("BOUNCEIO_TEST_STOP");
    return order->text[0] ? setenv("BOUNCEIO_TEST_STOP", order->text, 1) : 0;
}

static int64_t carry_out(struct stage *stage, const struct order *order, struct answer *answer)
{
    switch (order->act) {
    case ACT_OPEN:
        return open_file(stage, order);
    case ACT_CLOSE:
        return close(stage->fd);
    case ACT_WRITE:
        return write_pattern(stage->fd, order);
    case ACT_APPEND:
        return write_by(stage, order, O_DIRECT | O_APPEND);
    case ACT_BUFFERED:
        return write_by(stage, order, 0);
    case ACT_TRUNCATE:
        return ftruncate(stage->fd, (off_t)order->length);
    case ACT_PUNCH:
        return fallocate(stage->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)order->offset,
                         (off_t)order->length);
    case ACT_FSYNC:
        return fsync(stage->fd);
    case ACT_MAP:
        return map_and_unmap(stage, order);
    case ACT_READ:
        return read_range(stage, order, answer);
    case ACT_SURVEY:
        return survey(stage->fd, order->length, answer->survey);
    case ACT_STOP:
        return stop_at(order);
    case ACT_FORK:
        return fork_quietly(stage);
    case ACT_FORK_AND_WRITE:
        return fork_and_write(stage, order);
    case ACT_LEAVE:
        break;
    }
    exit(EXIT_SUCCESS);
}

int actor_main(int argc, char **argv)
{
    struct stage stage = {.fd = -1};
    static struct order order;

    check_that(argc == 1 && counting(), "usage: --actor WIRE");
    stage.wire = atoi(argv[0]);
    while (recv(stage.wire, &order, sizeof(order), MSG_WAITALL) == sizeof(order)) {
        struct answer answer = {0};

        errno = 0;
        answer.result = carry_out(&stage, &order, &answer);
        answer.error = errno;
        answer.stats = counters();
        check_that(send(stage.wire, &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer), "nobody listens");
    }
    return EXIT_SUCCESS;
}
