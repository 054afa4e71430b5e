/*
 * What POSIX AIO does to files, pipes and sockets, with and without the shim. How its requests end and who is told is in test_posix_aio_parity_ends.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/posix_parity.h"
#include "support/support.h"

static const char *directory;
static unsigned char *memory; /* SCRIPT_BLOCKS blocks */

static int file(const char *name, int flags)
{
    int fd = open(path_in(directory, name), flags | O_CLOEXEC, 0600);
    check_that(fd >= 0, "cannot open %s", name);
    return fd;
}

static void transfers(int fd)
{
    void *const nowhere = (void *)4096;
    pattern_fill(memory, 16 * BLOCK, 1, 0);
    say_write("write", fd, memory, 16 * BLOCK, 0);
    say_write("write of nothing", fd, memory, 0, 0);
    say_write("write at -1", fd, memory, BLOCK, -1);
    say_write("write at an odd offset", fd, memory, BLOCK, 100);
    say_write("write of an odd length", fd, memory, 100, 0);
    say_write("write from nowhere", fd, nowhere, BLOCK, 0);
    say_write("write of too much", fd, memory, SIZE_MAX, 0);
    say_write("write beyond the end", fd, memory, BLOCK, 20 * BLOCK);
    memset(memory, 0, 16 * BLOCK);
    say_read("read", fd, memory, 16 * BLOCK, 0);
    printf("content: %zu\n", pattern_check(memory, 16 * BLOCK, 1, 0));
    say_read("read of nothing", fd, memory, 0, 0);
    say_read("read at -4096", fd, memory, BLOCK, -4096);
    say_read("read over the end", fd, memory, 16 * BLOCK, 18 * BLOCK);
    say_read("read beyond the end", fd, memory, BLOCK, 40 * BLOCK);
    say_read("read to nowhere", fd, nowhere, BLOCK, 0);
    say_read("read at the end of time", fd, memory, BLOCK, INT64_MAX & -BLOCK);
}

static void bad_descriptors(void)
{
    int readable = file("plain", O_RDONLY), writable = file("plain", O_WRONLY), at = open("/", O_RDONLY | O_DIRECTORY);
    say_read("read of -1", -1, memory, BLOCK, 0);
    say_write("write to 999", 999, memory, BLOCK, 0);
    say_read("read of a write-only descriptor", writable, memory, BLOCK, 0);
    say_write("write to a read-only descriptor", readable, memory, BLOCK, 0);
    say_read("read of a directory", at, memory, BLOCK, 0);
    close(readable);
    close(writable);
    close(at);
}

static void priorities(int fd)
{
    static const int values[] = {-1, 0, 20, 21};
    for (int i = 0; i < 4; i++) {
        struct aiocb control = control_of(fd, memory, BLOCK, 0);
        control.aio_reqprio = values[i];
        SAY("priority", aio_read(&control));
        say_end("priority", &control);
        printf("reqprio %d opcode %d\n", control.aio_reqprio, control.aio_lio_opcode);
    }
}

static void syncs(int fd)
{
    int readable = file("plain", O_RDONLY);
    const struct {
        const char *name;
        int operation, fd;
    } calls[] = {{"O_SYNC", O_SYNC, fd},     {"O_DSYNC", O_DSYNC, fd},       {"0", 0, fd},
                 {"O_APPEND", O_APPEND, fd}, {"of -1", O_SYNC, -1},          {"of 999", O_DSYNC, 999},
                 {"of stdin", O_SYNC, 0},    {"read-only", O_SYNC, readable}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct aiocb control = control_of(calls[i].fd, NULL, 0, 0);
        control.aio_reqprio = 7;
        errno = 0;
        int result = aio_fsync(calls[i].operation, &control);
        printf("fsync %s: %d %s\n", calls[i].name, result, name_of(errno));
        if (result == 0)
            say_end(calls[i].name, &control);
        printf("reqprio %d opcode %d\n", control.aio_reqprio, control.aio_lio_opcode);
    }
    close(readable);
}

/* What has no offset; and one descriptor's requests keep their order. */
static void streams(void)
{
    int ends[2], sockets[2];
    char text[64] = {0};
    check_that(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "pipe");
    say_write("write to a pipe", ends[1], (char[]){"hello"}, 5, 100);
    say_read("read of a pipe", ends[0], text, 5, 7);
    printf("%s\n", text);
    struct aiocb parts[8];
    for (int i = 0; i < 8; i++) {
        memory[i] = (unsigned char)('a' + i);
        parts[i] = control_of(sockets[1], memory + i, 1, 0);
        SAY("write to a socket", aio_write(&parts[i]));
    }
    for (int i = 0; i < 8; i++)
        say_end("part", &parts[i]);
    say_read("read of a socket", sockets[0], text, sizeof text - 1, 0);
    printf("%s\n", text);
    close(ends[1]);
    say_read("read of a pipe's end", ends[0], text, 5, 0);
    close(ends[0]);
    close(sockets[0]);
    close(sockets[1]);
}

static void appends(void)
{
    int fd = file("appended", O_RDWR | O_CREAT | O_TRUNC | O_APPEND);
    struct aiocb parts[16];
    for (int i = 0; i < 16; i++) {
        memset(memory + i * BLOCK, 'a' + i, BLOCK);
        parts[i] = control_of(fd, memory + i * BLOCK, BLOCK, 0);
        SAY("append", aio_write(&parts[i]));
    }
    for (int i = 0; i < 16; i++)
        say_end("append", &parts[i]);
    printf("hash %llx\n", (unsigned long long)hash_behind(path_in(directory, "appended")));
    close(fd);
}

static void script(const struct posix_scene *scene)
{
    directory = scene->directory;
    memory = scene->memory;
    close(file("plain", O_RDWR | O_CREAT | O_TRUNC));
    transfers(scene->fd);
    bad_descriptors();
    priorities(scene->fd);
    syncs(scene->fd);
    streams();
    appends();
}

int main(int argc, char **argv)
{
    return posix_parity_main(argc, argv, "posix_aio_parity", script);
}
