/*
 * Classification of descriptors: F_GETFL, fstat, and for regular files the map. Owns no state.
 */
#include "files/classify.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/config.h"
#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "base/return_stack.h"
#include "bounce/guard.h"
#include "bounce/pool.h"
#include "checksum/store.h"
#include "files/standing.h"

/* What a descriptor turned out to be, with references for one holder. */
struct finding {
    enum fd_state state;
    unsigned flags;
    struct file *file;
    struct offset *offset;
};

static unsigned flags_of(int status_flags)
{
    unsigned flags = (status_flags & O_APPEND) ? FD_APPEND : 0;
    if ((status_flags & O_ACCMODE) != O_RDONLY)
        flags |= FD_WRITABLE;
    if ((status_flags & O_ACCMODE) != O_WRONLY)
        flags |= FD_READABLE;
    return flags;
}

/* Look at the store's count of maps before looking for one, so that a later creation is noticed. Process lock held. */
static void note_generation(void)
{
    struct store_shared *shared = store_shared();
    if (!shared)
        return;
    uint64_t now = atomic_load(&shared->map_generation);
    if (!atomic_load(&fd_generation->now) || atomic_load(&fd_generation->seen) != now) {
        atomic_store(&fd_generation->now, &shared->map_generation);
        atomic_store(&fd_generation->seen, now);
        fd_files_changed();
    }
}

static void find_buffered(struct finding *finding, int fd, const struct stat *status)
{
    struct map_key key;
    uint64_t saved;
    finding->state = FD_FILE;
    if (!(finding->flags & FD_WRITABLE) || !S_ISREG(status->st_mode) || !config.store || !store_prepare() ||
        map_key_of(fd, &key) != 0)
        return;
    process_lock(&saved);
    note_generation();
    if (map_exists(&key))
        finding->file = file_open(fd, status, false);
    if (finding->file)
        file_will_be_written(finding->file, fd);
    process_unlock(&saved);
    if (!finding->file)
        return;
    finding->state = FD_WATCHED;
    if (!file_has_map(finding->file)) {
        file_release(finding->file);
        finding->file = NULL;
        finding->state = FD_FILE;
    }
}

static void find_direct(struct finding *finding, int fd, const struct stat *status, struct offset *known, bool shared)
{
    uint64_t saved;
    finding->state = FD_EXCLUDED;
    if (!file_is_included(fd))
        return;
    pool_prepare();
    guard_install();
    return_stack_measure();
    process_lock(&saved);
    finding->file = file_open(fd, status, true);
    if (finding->file) {
        note_generation();
        if (finding->flags & FD_WRITABLE)
            file_will_be_written(finding->file, fd);
        finding->state = FD_DIRECT;
        finding->offset = known ? known : shared ? NULL : offset_new();
        if (known)
            offset_hold(known);
    }
    process_unlock(&saved);
    if (finding->file && file_has_map(finding->file))
        standing_file_opened(fd, finding->file, status);
}

/* @return 0, or -EAGAIN when `nowait` and a direct descriptor would have to be made ready. */
static int find(struct finding *finding, int fd, int status_flags, struct offset *known, bool shared, bool nowait)
{
    struct stat status;
    *finding = (struct finding){.state = FD_PLAIN, .flags = flags_of(status_flags)};
    if ((status_flags & O_PATH) || fstat(fd, &status) != 0)
        return 0;
    if ((status.st_mode & S_IFMT) == 0)
        finding->state = FD_EVENT;
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return 0;
    if (nowait && (status_flags & O_DIRECT))
        return -EAGAIN;
    /* A vfork child must not open anything for the tables that it shares: its descriptors are not its parent's. */
    if (!process_owns_tables())
        finding->state = (status_flags & O_DIRECT) ? FD_EXCLUDED : FD_FILE;
    else if (status_flags & O_DIRECT)
        find_direct(finding, fd, &status, known, shared);
    else
        find_buffered(finding, fd, &status);
    return 0;
}

int fd_classify(struct fd_view *view, bool nowait)
{
    struct finding finding;
    uint64_t word = view->word;
    view->state = FD_PLAIN;
    view->word = 0;
    if (own_is(view->fd))
        return 0;
    long status_flags = raw(SYS_fcntl, view->fd, F_GETFL);
    if (raw_failed(status_flags))
        return 0;
    /* A description that was opened here and whose flags have changed keeps its offset. */
    bool held = fd_word_hold(view->fd, word);
    int error = find(&finding, view->fd, (int)status_flags, held ? fd_word_offset(word) : NULL, true, nowait);
    if (held)
        fd_word_drop(word);
    if (error != 0)
        return error;
    view->state = finding.state == FD_FILE || finding.state == FD_EVENT ? FD_PLAIN : finding.state;
    view->flags = finding.flags | (unsigned)(word & FD_STREAM);
    view->file = finding.file;
    view->offset = finding.offset;
    uint64_t learned = fd_word_make(finding.state, view->flags, finding.file, finding.offset);
    if (fd_word_state(word) == FD_CLOSING || !process_owns_tables())
        return 0;
    /* References for the entry, on top of the view's. */
    if (finding.file)
        file_hold(finding.file);
    if (finding.offset)
        offset_hold(finding.offset);
    if (!fd_replace(view->fd, word, learned))
        fd_word_drop(learned);
    /* What was just stored, or nothing: somebody else's word would not be what this request was looked up under. */
    uint64_t now = fd_word(view->fd);
    view->word = (now & ~FD_SEQUENCE_MASK) == learned ? now : 0;
    return 0;
}

void fd_view_look(struct fd_view *view, int fd)
{
    struct finding finding = {.state = FD_PLAIN};
    long status_flags = raw(SYS_fcntl, fd, F_GETFL);
    if (!raw_failed(status_flags))
        find(&finding, fd, (int)status_flags, NULL, true, false);
    *view = (struct fd_view){
        .state = finding.state, .fd = fd, .file = finding.file, .offset = finding.offset, .flags = finding.flags};
}

void fd_classify_opened(int fd, int flags, bool shared)
{
    struct finding finding;
    uint64_t word = fd_word(fd);
    find(&finding, fd, flags, NULL, shared, false);
    if (!fd_replace(fd, word, fd_word_make(finding.state, finding.flags, finding.file, finding.offset)))
        fd_word_drop(fd_word_make(finding.state, finding.flags, finding.file, finding.offset));
}
