/* See subject.h. */
#include "cli/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "cli/cli.h"
#include "cli/walk.h"
#include "engine/issue.h"

enum { DAMAGES_MOST = 1 << 20 }; /* remembered; all are logged */

struct subject *subject_new(const char *path, const struct stat *status, bool named)
{
    struct subject *subject = calloc(1, sizeof *subject);
    if (!subject || !(subject->path = strdup(path))) {
        free(subject);
        return NULL;
    }
    subject->device = status->st_dev;
    subject->inode = status->st_ino;
    subject->size = (uint64_t)status->st_size;
    subject->named = named;
    pthread_mutex_init(&subject->lock, NULL);
    return subject;
}

void subject_free(struct subject *subject)
{
    pthread_mutex_destroy(&subject->lock);
    free(subject->damages);
    free(subject->path);
    free(subject);
}

static bool is_of_store(int fd)
{
    static char store[PATH_MAX];
    char link[32], path[PATH_MAX];
    if (!store[0] && !(config.store && realpath(config.store, store)))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(store);
    return length > (ssize_t)prefix && memcmp(path, store, prefix) == 0 && path[prefix] == '/';
}

enum subject_state subject_look(const char *path, const struct stat *status, bool named)
{
    struct map_key key;
    uint64_t saved;
    bool has_map = false;
    int fd = walk_open(path, status, named, O_PATH);
    if (fd < 0)
        return SUBJECT_HAS_MAP;
    bool excluded = !file_is_included(fd) || is_of_store(fd);
    if (!excluded && map_key_of(fd, &key) == 0) {
        process_lock(&saved);
        has_map = map_exists(&key);
        process_unlock(&saved);
    }
    close(fd);
    return excluded ? SUBJECT_EXCLUDED : has_map ? SUBJECT_HAS_MAP : SUBJECT_HAS_NONE;
}

static void warn_of_buffering(const char *path)
{
    static _Atomic bool said;
    if (!atomic_exchange(&said, true))
        cli_warning("%s: its file system has no direct I/O; files there are read through the page cache, which is "
                    "dropped first where nothing in it waits to be written",
                    path);
}

/* @return a descriptor or -errno. */
static int open_file(struct subject *subject)
{
    const struct stat status = {.st_dev = subject->device, .st_ino = subject->inode};
    int fd = walk_open(subject->path, &status, subject->named, O_RDONLY | O_DIRECT);
    if (fd != -EINVAL)
        return fd;
    fd = walk_open(subject->path, &status, subject->named, O_RDONLY);
    subject->buffered = true;
    return fd;
}

static enum subject_opening fail(struct subject *subject, const char *failure)
{
    subject->failure = failure;
    return SUBJECT_FAILED;
}

static enum subject_opening open_map(struct subject *subject, bool create)
{
    struct stat status;
    struct map_key key;
    uint64_t saved;
    struct file *file = NULL;
    int error = map_key_of(subject->view.fd, &key);
    if (error != 0 || fstat(subject->view.fd, &status) != 0)
        return fail(subject, strerror(error != 0 ? -error : errno));
    process_lock(&saved);
    bool exists = map_exists(&key);
    if (exists || create)
        file = file_open(subject->view.fd, &status, create);
    process_unlock(&saved);
    if (!exists && !create)
        return SUBJECT_WITHOUT_MAP;
    subject->view.file = file;
    if (file && file_has_map(file)) {
        if (subject->buffered)
            warn_of_buffering(subject->path);
        return SUBJECT_OPEN;
    }
    return fail(subject, exists ? "its checksums cannot be used" : "no checksums can be kept for it");
}

enum subject_opening subject_open(struct subject *subject, bool create_map)
{
    int fd = open_file(subject);
    if (fd < 0)
        return fail(subject, fd == -ESTALE ? "it was replaced meanwhile" : strerror(-fd));
    subject->view = (struct fd_view){.state = FD_DIRECT, .fd = fd, .flags = FD_READABLE};
    subject->opened = true;
    int64_t size = issue_file_size(fd);
    subject->size = size > 0 ? (uint64_t)size : 0;
    return open_map(subject, create_map);
}

void subject_close(struct subject *subject)
{
    if (!subject->opened)
        return;
    if (subject->view.file)
        file_release(subject->view.file);
    close(subject->view.fd);
    subject->opened = false;
}

ssize_t subject_read(const struct subject *subject, char *data, size_t length, uint64_t offset)
{
    if (subject->buffered)
        posix_fadvise(subject->view.fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
    size_t done = 0;
    while (done < length) {
        ssize_t part = issue_read(subject->view.fd, data + done, length - done, (int64_t)(offset + done), 0);
        if (part == -EINTR)
            continue;
        if (part < 0)
            return part;
        done += (size_t)part;
        /* Direct reads end short at the end of the file, and inside a block only there. */
        if (part == 0 || done % BLOCK_SIZE != 0)
            break;
    }
    return (ssize_t)done;
}

int64_t subject_modified(const struct subject *subject)
{
    return issue_file_modified(subject->view.fd);
}

void subject_fail(struct subject *subject, const char *failure)
{
    pthread_mutex_lock(&subject->lock);
    subject->failure = failure;
    pthread_mutex_unlock(&subject->lock);
}

bool subject_is_failed(struct subject *subject)
{
    pthread_mutex_lock(&subject->lock);
    if (!subject->failure && !file_has_map(subject->view.file))
        subject->failure = "its checksums failed while they were in use";
    bool failed = subject->failure != NULL;
    pthread_mutex_unlock(&subject->lock);
    return failed;
}

void outcome_add(struct outcome *sum, const struct outcome *outcome)
{
    sum->verified += outcome->verified;
    sum->unverified += outcome->unverified;
    sum->kept += outcome->kept;
    sum->adopted += outcome->adopted;
    sum->recovered += outcome->recovered;
    sum->outside += outcome->outside;
    sum->mismatched += outcome->mismatched;
    sum->unreadable += outcome->unreadable;
    sum->holes += outcome->holes;
    sum->bytes += outcome->bytes;
    sum->unsettled |= outcome->unsettled;
    sum->incomplete |= outcome->incomplete;
}

void subject_add(struct subject *subject, const struct outcome *outcome)
{
    pthread_mutex_lock(&subject->lock);
    outcome_add(&subject->outcome, outcome);
    pthread_mutex_unlock(&subject->lock);
}

static bool make_room(struct subject *subject)
{
    if (subject->damages && subject->damage_count < subject->damage_room)
        return true;
    size_t room = subject->damage_room ? subject->damage_room * 2 : 16;
    struct damage *damages = room <= DAMAGES_MOST ? realloc(subject->damages, room * sizeof *damages) : NULL;
    if (!damages)
        return false;
    subject->damages = damages;
    subject->damage_room = room;
    return true;
}

void subject_add_damage(struct subject *subject, uint64_t block)
{
    pthread_mutex_lock(&subject->lock);
    struct damage *last = subject->damage_count ? &subject->damages[subject->damage_count - 1] : NULL;
    if (last && last->first + last->blocks == block)
        last->blocks++;
    else if (make_room(subject))
        subject->damages[subject->damage_count++] = (struct damage){block, 1};
    pthread_mutex_unlock(&subject->lock);
}
