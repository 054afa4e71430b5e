/* Parity of the RWF_* flags and of the ways to open. */
#include "support/parity.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { K = 1024 };

/* Declared by the C library for its fortified callers only. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int directory, const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags);

/* Write one block through `fd`, read it back, and note both. */
static void use(struct parity_scene *scene, const char *what, int fd)
{
    char *buffer = buffer_new(2 * BLOCK);
    char label[64];

    scene_fact(scene, what, fd >= 0);
    pattern_fill(buffer, BLOCK, SOURCE_SEED, 0);
    snprintf(label, sizeof(label), "%s.pwrite", what);
    scene_note(scene, label, pwrite(fd, buffer, BLOCK, BLOCK));
    snprintf(label, sizeof(label), "%s.odd", what);
    scene_note(scene, label, pwrite(fd, buffer, 100, 0));
    snprintf(label, sizeof(label), "%s.pread", what);
    scene_note(scene, label, pread(fd, buffer, 2 * BLOCK, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, 2 * BLOCK));
    if (fd >= 0)
        close(fd);
    buffer_free(buffer, 2 * BLOCK);
}

static void names_of_open(struct parity_scene *scene)
{
    use(scene, "open", open(scene->path, O_RDWR | O_DIRECT));
    use(scene, "open64", open64(scene->path, O_RDWR | O_DIRECT));
    use(scene, "openat", openat(AT_FDCWD, scene->path, O_RDWR | O_DIRECT));
    use(scene, "openat64", openat64(AT_FDCWD, scene->path, O_RDWR | O_DIRECT));
    use(scene, "__open_2", __open_2(scene->path, O_RDWR | O_DIRECT));
    use(scene, "__open64_2", __open64_2(scene->path, O_RDWR | O_DIRECT));
    use(scene, "__openat_2", __openat_2(AT_FDCWD, scene->path, O_RDWR | O_DIRECT));
    use(scene, "__openat64_2", __openat64_2(AT_FDCWD, scene->path, O_RDWR | O_DIRECT));
}

static void opening_by_system_call(struct parity_scene *scene)
{
    use(scene, "open", (int)syscall(SYS_open, scene->path, O_RDWR | O_DIRECT, 0));
    use(scene, "openat", (int)syscall(SYS_openat, AT_FDCWD, scene->path, O_RDWR | O_DIRECT, 0));
}

static void opening_relative_to_a_directory(struct parity_scene *scene)
{
    int directory = open(scene->directory, O_RDONLY | O_DIRECTORY);

    use(scene, "openat", openat(directory, "file", O_RDWR | O_DIRECT));
    close(directory);
}

static void opening_through_proc(struct parity_scene *scene)
{
    char path[64];
    int plain = open(scene->path, O_RDWR);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", plain);
    use(scene, "open", open(path, O_RDWR | O_DIRECT));
    close(plain);
}

static void opening_through_a_link(struct parity_scene *scene)
{
    const char *symbolic = path_in(scene->directory, "symbolic");
    const char *hard = path_in(scene->directory, "hard");

    scene_note(scene, "symlink", symlink(scene->path, symbolic));
    scene_note(scene, "link", link(scene->path, hard));
    use(scene, "through symlink", open(symbolic, O_RDWR | O_DIRECT));
    use(scene, "through hard link", open(hard, O_RDWR | O_DIRECT));
    scene_note(scene, "nofollow", open(symbolic, O_RDWR | O_DIRECT | O_NOFOLLOW));
    unlink(symbolic);
    unlink(hard);
}

static void opening_that_fails(struct parity_scene *scene)
{
    scene_note(scene, "missing", open(path_in(scene->directory, "missing"), O_RDWR | O_DIRECT));
    scene_note(scene, "null", open((const char *)(uintptr_t)BLOCK, O_RDWR | O_DIRECT));
    scene_note(scene, "empty", open("", O_RDWR | O_DIRECT));
    scene_note(scene, "exclusive", open(scene->path, O_RDWR | O_DIRECT | O_CREAT | O_EXCL, 0600));
    scene_note(scene, "directory", open(scene->directory, O_RDWR | O_DIRECT));
    scene_note(scene, "not a directory", open(scene->path, O_RDONLY | O_DIRECT | O_DIRECTORY));
    scene_note(scene, "bad directory", openat(987654, "file", O_RDWR | O_DIRECT));
}

static void opening_with_truncation(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);

    scene->fd = open(scene->path, O_RDWR | O_DIRECT | O_TRUNC);
    scene_note(scene, "pread", pread(scene->fd, buffer, BLOCK, 0));
    pattern_fill(buffer, BLOCK, SOURCE_SEED, 0);
    scene_note(scene, "write", write(scene->fd, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

static void creating(struct parity_scene *scene)
{
    const char *path = path_in(scene->directory, "created");
    mode_t mask = umask(022);

    use(scene, "open", open(path, O_RDWR | O_DIRECT | O_CREAT | O_EXCL, 0640));
    struct stat st;

    scene_note(scene, "stat", stat(path, &st));
    scene_fact(scene, "mode", st.st_mode);
    use(scene, "creat", creat(path, 0600));
    scene_fact(scene, "size", size_behind(path));
    unlink(path);
    umask(mask);
}

static void temporary_file(struct parity_scene *scene)
{
    use(scene, "tmpfile", open(scene->directory, O_RDWR | O_DIRECT | O_TMPFILE, 0600));
    use(scene, "write-only tmpfile", open(scene->directory, O_WRONLY | O_DIRECT | O_TMPFILE, 0600));
}

static void unlinked_file(struct parity_scene *scene)
{
    const char *path = path_in(scene->directory, "unlinked");
    int fd;

    make_file_behind(path, OTHER_SEED, 16 * K);
    fd = open(path, O_RDWR | O_DIRECT);
    unlink(path);
    use(scene, "unlinked", fd);
}

static void path_descriptor(struct parity_scene *scene)
{
    use(scene, "O_PATH", open(scene->path, O_PATH | O_DIRECT));
}

static void turning_direct_on_and_off(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);
    int fd = scene->fd = open(scene->path, O_RDWR);

    pattern_fill(buffer, BLOCK, SOURCE_SEED, 0);
    scene_note(scene, "odd, buffered", pwrite(fd, buffer, 100, 0));
    scene_note(scene, "on", fcntl(fd, F_SETFL, O_DIRECT));
    scene_note(scene, "odd, direct", pwrite(fd, buffer, 100, 0));
    scene_note(scene, "block, direct", pwrite(fd, buffer, BLOCK, BLOCK));
    scene_note(scene, "flags", fcntl(fd, F_GETFL));
    scene_note(scene, "off", fcntl(fd, F_SETFL, 0));
    scene_note(scene, "odd, buffered again", pwrite(fd, buffer, 100, 200));
    scene_note(scene, "block, buffered", pread(fd, buffer, BLOCK, 0));
    scene_fact(scene, "data", hash_bytes(HASH_START, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

static void append_turned_on_later(struct parity_scene *scene)
{
    char *buffer = buffer_new(BLOCK);
    int fd = scene->fd = open(scene->path, O_RDWR | O_DIRECT);

    pattern_fill(buffer, BLOCK, SOURCE_SEED, 0);
    scene_note(scene, "write", write(fd, buffer, BLOCK));
    scene_note(scene, "on", fcntl(fd, F_SETFL, O_DIRECT | O_APPEND));
    scene_note(scene, "appending write", write(fd, buffer, BLOCK));
    scene_note(scene, "appending pwrite", pwrite(fd, buffer, BLOCK, 0));
    scene_note(scene, "off", fcntl(fd, F_SETFL, O_DIRECT));
    scene_note(scene, "write again", write(fd, buffer, BLOCK));
    buffer_free(buffer, BLOCK);
}

#define APPEND OPENED(O_RDWR | O_DIRECT | O_APPEND)
#define BUFFERED OPENED(O_RDWR)

static const struct parity_case cases[] = {
    {"pwritev2 RWF_DSYNC", &call_pwritev2, .length = 8 * K, .flags = RWF_DSYNC},
    {"pwritev2 RWF_SYNC", &call_pwritev2, .length = 8 * K, .flags = RWF_SYNC},
    {"pwritev2 RWF_HIPRI", &call_pwritev2, .length = 8 * K, .flags = RWF_HIPRI},
    {"pwritev2 RWF_APPEND", &call_pwritev2, .length = 8 * K, .flags = RWF_APPEND},
    {"pwritev2 RWF_APPEND at offset -1", &call_pwritev2, .offset = -1, .at = BLOCK, .length = 8 * K,
     .flags = RWF_APPEND},
    {"pwritev2 RWF_APPEND to an odd end", &call_pwritev2, .length = 8 * K, .flags = RWF_APPEND, .size = 5000},
    {"pwritev2 RWF_APPEND from memory off by 1", &call_pwritev2, .length = 8 * K, .flags = RWF_APPEND, .memory = ODD_1},
    {"pwritev2 RWF_APPEND of 4 MiB", &call_pwritev2, .length = 4096 * K, .flags = RWF_APPEND},
    {"pwritev2 RWF_NOAPPEND", &call_pwritev2, .length = 8 * K, .flags = RWF_NOAPPEND},
    {"pwritev2 RWF_NOAPPEND on O_APPEND", &call_pwritev2, .offset = BLOCK, .length = 8 * K, .flags = RWF_NOAPPEND,
     .open = APPEND},
    {"pwritev2 RWF_APPEND | RWF_NOAPPEND", &call_pwritev2, .length = 8 * K, .flags = RWF_APPEND | RWF_NOAPPEND},
    {"pwritev2 RWF_NOWAIT", &call_pwritev2, .length = 8 * K, .flags = RWF_NOWAIT},
    {"pwritev2 RWF_NOWAIT, known blocks", &call_pwritev2, .length = 8 * K, .flags = RWF_NOWAIT, .warm = true},
    {"pwritev2 RWF_NOWAIT of a sector", &call_pwritev2, .length = SECTOR, .flags = RWF_NOWAIT, .warm = true},
    {"pwritev2 RWF_NOWAIT beyond the end", &call_pwritev2, .offset = DEFAULT_SIZE, .length = 8 * K,
     .flags = RWF_NOWAIT},
    {"pwritev2 RWF_NOWAIT of inaccessible memory", &call_pwritev2, .length = 8 * K, .flags = RWF_NOWAIT,
     .memory = INACCESSIBLE},
    {"pwritev2 RWF_NOWAIT at an odd offset", &call_pwritev2, .offset = 100, .length = 8 * K, .flags = RWF_NOWAIT},
    {"pwritev2 RWF_NOWAIT buffered", &call_pwritev2, .length = 8 * K, .flags = RWF_NOWAIT, .open = BUFFERED},
    {"pwritev2 RWF_ATOMIC", &call_pwritev2, .length = BLOCK, .flags = RWF_ATOMIC},
    {"pwritev2 RWF_ATOMIC of three blocks", &call_pwritev2, .length = 12 * K, .flags = RWF_ATOMIC},
    {"pwritev2 RWF_DONTCACHE", &call_pwritev2, .length = 8 * K, .flags = RWF_DONTCACHE},
    {"pwritev2 of a flag nobody has", &call_pwritev2, .length = 8 * K, .flags = 1 << 28},
    {"pwritev2 of every flag", &call_pwritev2, .length = 8 * K, .flags = -1},
    {"pwritev2 of nothing with a bad flag", &call_pwritev2, .flags = 1 << 28},
    {"pwritev2 at offset -1", &call_pwritev2, .offset = -1, .at = 8 * K, .length = 8 * K},
    {"pwritev2 at offset -2", &call_pwritev2, .offset = -2, .length = 8 * K},
    {"pwritev2 RWF_DSYNC at offset -1", &call_pwritev2, .offset = -1, .at = 8 * K, .length = 8 * K, .flags = RWF_DSYNC},
    {"syscall(pwritev2) at offset -1", &call_syscall_pwritev2, .offset = -1, .at = 8 * K, .length = 8 * K},
    {"syscall(pwritev2) RWF_APPEND", &call_syscall_pwritev2, .length = 8 * K, .flags = RWF_APPEND},
    {"syscall(pwritev2) of every flag", &call_syscall_pwritev2, .length = 8 * K, .flags = -1},
    {"preadv2 RWF_HIPRI", &call_preadv2, .length = 8 * K, .flags = RWF_HIPRI},
    {"preadv2 RWF_NOWAIT", &call_preadv2, .length = 8 * K, .flags = RWF_NOWAIT},
    {"preadv2 RWF_NOWAIT, known blocks", &call_preadv2, .length = 8 * K, .flags = RWF_NOWAIT, .warm = true},
    {"preadv2 RWF_NOWAIT of a sector", &call_preadv2, .length = SECTOR, .flags = RWF_NOWAIT, .warm = true},
    {"preadv2 RWF_NOWAIT at the end of file", &call_preadv2, .offset = DEFAULT_SIZE, .length = 8 * K,
     .flags = RWF_NOWAIT},
    {"preadv2 RWF_NOWAIT into inaccessible memory", &call_preadv2, .length = 8 * K, .flags = RWF_NOWAIT,
     .memory = INACCESSIBLE},
    {"preadv2 RWF_DSYNC", &call_preadv2, .length = 8 * K, .flags = RWF_DSYNC},
    {"preadv2 RWF_SYNC", &call_preadv2, .length = 8 * K, .flags = RWF_SYNC},
    {"preadv2 RWF_APPEND", &call_preadv2, .length = 8 * K, .flags = RWF_APPEND},
    {"preadv2 RWF_DONTCACHE", &call_preadv2, .length = 8 * K, .flags = RWF_DONTCACHE},
    {"preadv2 of a flag nobody has", &call_preadv2, .length = 8 * K, .flags = 1 << 28},
    {"preadv2 of every flag", &call_preadv2, .length = 8 * K, .flags = -1},
    {"preadv2 of nothing with a bad flag", &call_preadv2, .flags = 1 << 28},
    {"preadv2 at offset -1", &call_preadv2, .offset = -1, .at = 8 * K, .length = 8 * K},
    {"preadv2 at offset -2", &call_preadv2, .offset = -2, .length = 8 * K},
    {"syscall(preadv2) at offset -1", &call_syscall_preadv2, .offset = -1, .at = 8 * K, .length = 8 * K},

    {"write on O_APPEND", &call_write, .length = 8 * K, .open = APPEND},
    {"write on O_APPEND after lseek", &call_write, .at = BLOCK, .length = 8 * K, .open = APPEND},
    {"write on O_APPEND to an odd end", &call_write, .length = 8 * K, .open = APPEND, .size = 5000},
    {"write of a sector on O_APPEND", &call_write, .length = SECTOR, .open = APPEND},
    {"write of nothing on O_APPEND", &call_write, .at = BLOCK, .open = APPEND},
    {"write of 100 bytes on O_APPEND", &call_write, .length = 100, .open = APPEND},
    {"pwrite on O_APPEND", &call_pwrite, .offset = BLOCK, .length = 8 * K, .open = APPEND},
    {"pwrite at an odd offset on O_APPEND", &call_pwrite, .offset = 100, .length = 8 * K, .open = APPEND},
    {"pwritev on O_APPEND", &call_pwritev, .offset = BLOCK, .length = 8 * K, .open = APPEND},
    {"writev on O_APPEND", &call_writev, .length = 8 * K, .open = APPEND},
    {"write of 4 MiB on O_APPEND", &call_write, .length = 4096 * K, .open = APPEND},
    {"write on O_APPEND to an empty file", &call_write, .length = 8 * K, .open = APPEND, .size = EMPTY_FILE},
    {"read on O_APPEND", &call_read, .at = BLOCK, .length = 8 * K, .open = APPEND},
    {"pwrite on O_DSYNC", &call_pwrite, .length = 8 * K, .open = OPENED(O_RDWR | O_DIRECT | O_DSYNC)},
    {"pwrite on O_SYNC", &call_pwrite, .length = 8 * K, .open = OPENED(O_RDWR | O_DIRECT | O_SYNC)},
    {"pwrite on O_NONBLOCK", &call_pwrite, .length = 8 * K, .open = OPENED(O_RDWR | O_DIRECT | O_NONBLOCK)},
    {"pwrite on O_NOATIME", &call_pwrite, .length = 8 * K, .open = OPENED(O_RDWR | O_DIRECT | O_NOATIME)},
    {"pwrite on O_WRONLY", &call_pwrite, .length = 8 * K, .open = OPENED(O_WRONLY | O_DIRECT)},
    {"pwrite of a sector on O_WRONLY", &call_pwrite, .length = SECTOR, .open = OPENED(O_WRONLY | O_DIRECT)},
    {"pwrite of a known sector on O_WRONLY", &call_pwrite, .offset = SECTOR, .length = SECTOR, .warm = true,
     .open = OPENED(O_WRONLY | O_DIRECT)},
    {"write on O_WRONLY", &call_write, .at = BLOCK, .length = 8 * K, .open = OPENED(O_WRONLY | O_DIRECT)},
    {"pread on O_WRONLY", &call_pread, .length = 8 * K, .open = OPENED(O_WRONLY | O_DIRECT)},
    {"pread into the null pointer on O_WRONLY", &call_pread, .length = 8 * K, .memory = NOTHING,
     .open = OPENED(O_WRONLY | O_DIRECT)},
    {"pread on O_RDONLY", &call_pread, .length = 8 * K, .open = OPENED(O_RDONLY | O_DIRECT)},
    {"pwrite on O_RDONLY", &call_pwrite, .length = 8 * K, .open = OPENED(O_RDONLY | O_DIRECT)},
    {"pwrite from the null pointer on O_RDONLY", &call_pwrite, .length = 8 * K, .memory = NOTHING,
     .open = OPENED(O_RDONLY | O_DIRECT)},
    {"pwrite of 100 bytes on O_RDONLY", &call_pwrite, .length = 100, .open = OPENED(O_RDONLY | O_DIRECT)},
    {"pwrite of nothing on O_RDONLY", &call_pwrite, .open = OPENED(O_RDONLY | O_DIRECT)},
    {"writev on O_RDONLY", &call_writev, .length = 8 * K, .open = OPENED(O_RDONLY | O_DIRECT)},
    {"buffered pwrite of 100 bytes", &call_pwrite, .offset = 1000, .length = 100, .open = BUFFERED},
    {"buffered pwrite of known blocks", &call_pwrite, .offset = 1000, .length = 8 * K, .open = BUFFERED, .warm = true},
    {"buffered write from a bad page", &call_write, .at = 100, .length = 64 * K, .memory = BAD_MIDDLE,
     .open = BUFFERED},
    {"buffered pread of 100 bytes", &call_pread, .offset = 1000, .length = 100, .open = BUFFERED},
    {"every name of open", .run = names_of_open},
    {"opening by system call", .run = opening_by_system_call},
    {"opening relative to a directory", .run = opening_relative_to_a_directory},
    {"opening through /proc", .run = opening_through_proc},
    {"opening through links", .run = opening_through_a_link},
    {"opening that fails", .run = opening_that_fails},
    {"opening with O_TRUNC", .run = opening_with_truncation},
    {"creating", .run = creating},
    {"O_TMPFILE", .run = temporary_file},
    {"a file that is unlinked", .run = unlinked_file},
    {"O_PATH", .run = path_descriptor},
    {"O_DIRECT turned on and off", .run = turning_direct_on_and_off},
    {"O_APPEND turned on and off", .run = append_turned_on_later},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return parity_main(argc, argv, "parity: flags and opening", cases);
}
