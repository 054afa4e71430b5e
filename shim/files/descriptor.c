/*
 * The descriptor table: words are changed by compare-and-swap with a new sequence number; whoever replaces a word drops the
 * references that it held. Classification (what is this number?) is in classify.c.
 */
#include "files/descriptor.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/process.h"
#include "bounce/guard.h"
#include "files/classify.h"
#include "files/reader.h"
#include "files/standing.h"

_Atomic uint64_t *fd_table;
unsigned fd_table_length;
struct fd_generation *fd_generation;

/* One more than the highest number whose word was ever set; wiped with the table. */
static _Atomic unsigned *high;

static void descriptor_start(void)
{
    fd_table = process_arena(FD_MAX * sizeof *fd_table);
    fd_generation = process_arena(sizeof *fd_generation);
    high = process_arena(sizeof *high);
    fd_table_length = FD_MAX;
}
PROCESS_INITIALISER(descriptor_start);

static unsigned range_end(unsigned last)
{
    unsigned end = atomic_load_explicit(high, memory_order_acquire);
    return last < end ? last + 1 : end;
}

static uint64_t next_sequence(uint64_t word)
{
    return (word + (UINT64_C(1) << 8)) & FD_SEQUENCE_MASK;
}

void fd_word_drop(uint64_t word)
{
    if (fd_word_file(word))
        file_release(fd_word_file(word));
    if (fd_word_offset(word))
        offset_release(fd_word_offset(word));
}

/* @return false when `from` is no longer what was looked at: nothing was taken then. */
bool fd_word_hold(int fd, uint64_t word)
{
    if (fd_word_file(word))
        file_hold(fd_word_file(word));
    if (fd_word_offset(word))
        offset_hold(fd_word_offset(word));
    /* The entry's own references kept the objects alive if the word is still there. */
    if (fd_word(fd) == word)
        return true;
    fd_word_drop(word);
    return false;
}

bool fd_replace(int fd, uint64_t expected, uint64_t word)
{
    if ((unsigned)fd >= FD_MAX)
        return false;
    word = (word & ~FD_SEQUENCE_MASK) | next_sequence(expected);
    if (!atomic_compare_exchange_strong(&fd_table[fd], &expected, word))
        return false;
    unsigned seen = atomic_load_explicit(high, memory_order_relaxed);
    while (seen <= (unsigned)fd && !atomic_compare_exchange_weak(high, &seen, (unsigned)fd + 1))
        ;
    fd_word_drop(expected);
    return true;
}

/* Files that nobody refers to any more are closed now rather than with the next open. */
static void reap(void)
{
    uint64_t saved;
    if (!file_needs_reaping())
        return;
    process_lock(&saved);
    file_reap();
    process_unlock(&saved);
}

static bool state_has(uint64_t word, unsigned states)
{
    return states >> (word & 15) & 1;
}

/* The fast path: a direct number, known. @return false: to be looked at more closely. */
static inline bool open_direct(struct fd_view *view, int fd, bool uses_offset)
{
    const uint64_t word = fd_word(fd);
    if (fd_word_state(word) != FD_DIRECT || process_is_foreign())
        return false;
    struct file *file = fd_word_file(word);
    struct offset *offset = uses_offset ? fd_word_offset(word) : NULL;
    file_hold(file);
    if (offset)
        offset_hold(offset);
    /* As in fd_word_hold. */
    if (fd_word(fd) != word) {
        file_release(file);
        if (offset)
            offset_release(offset);
        return false;
    }
    *view = (struct fd_view){
        .state = FD_DIRECT, .fd = fd, .word = word, .file = file, .offset = offset, .flags = word & FD_FLAGS_MASK};
    return true;
}

int fd_view_open(struct fd_view *view, int fd, bool nowait)
{
    if (open_direct(view, fd, true)) {
        guard_thread(); /* the request will touch the file's map */
        return 0;
    }
    for (;;) {
        uint64_t word = fd_word(fd);
        *view = (struct fd_view){.state = fd_word_state(word), .fd = fd, .word = word, .flags = word & FD_FLAGS_MASK};
        switch (view->state) {
        case FD_PLAIN:
        case FD_EXCLUDED:
            return 0;
        case FD_EVENT:
            view->state = FD_PLAIN;
            return 0;
        case FD_FILE:
            if (fd_writes_pass(fd)) {
                view->state = FD_PLAIN;
                return 0;
            }
            return fd_classify(view, nowait);
        case FD_WATCHED:
        case FD_DIRECT:
            if (process_is_foreign())
                return fd_classify(view, nowait);
            if (!fd_word_hold(fd, word))
                continue;
            guard_thread(); /* the request will touch the file's map */
            view->file = fd_word_file(word);
            view->offset = fd_word_offset(word);
            return 0;
        default:
            return fd_classify(view, nowait);
        }
    }
}

int fd_view_open_at(struct fd_view *view, int fd, bool nowait)
{
    if (!open_direct(view, fd, false))
        return fd_view_open(view, fd, nowait);
    guard_thread();
    return 0;
}

bool fd_leads_to(int fd, const struct file *file, enum fd_state state, unsigned flags)
{
    const unsigned telling = FD_APPEND | FD_WRITABLE | FD_READABLE;
    uint64_t word = fd_word(fd);
    return fd_word_state(word) == state && fd_word_file(word) == file && ((word ^ flags) & telling) == 0;
}

uint64_t fd_maps_created(void)
{
    _Atomic uint64_t *now = atomic_load_explicit(&fd_generation->now, memory_order_relaxed);
    return now ? atomic_load_explicit(now, memory_order_relaxed) : 0;
}

void fd_view_close(struct fd_view *view)
{
    struct file *file = view->file;
    struct offset *offset = view->offset;
    /* First: whoever jumps out of us must not release them again. */
    view->file = NULL;
    view->offset = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    if (file)
        file_release(file);
    if (offset)
        offset_release(offset);
}

bool fd_view_leads(const struct fd_view *view)
{
    if (view->word != 0)
        return fd_view_is_current(view);
    return view->fd >= 0 && view->file && file_is_behind(view->file, view->fd);
}

static void look_by(struct fd_view *view, int fd, uint64_t word, uint64_t flags)
{
    view->fd = fd;
    view->word = word;
    view->flags = (unsigned)((view->flags & FD_APPEND) | (flags & FD_FLAGS_MASK & ~(uint64_t)FD_APPEND));
}

/* Does the number lead to the file by another entry than the one that was looked up? */
static bool find_again(struct fd_view *view, bool nowait)
{
    struct fd_view now;
    if (view->fd < 0 || fd_view_open(&now, view->fd, nowait) != 0)
        return false;
    bool same = now.state == FD_DIRECT && now.file == view->file;
    if (same)
        look_by(view, now.fd, now.word, now.flags);
    fd_view_close(&now);
    return same;
}

bool fd_view_renew(struct fd_view *view, bool nowait)
{
    if (fd_view_leads(view) || find_again(view, nowait))
        return true;
    view->fd = -1;
    for (unsigned fd = 0; fd < range_end(FD_MAX); fd++) {
        uint64_t word = fd_word((int)fd);
        if (fd_word_state(word) != FD_DIRECT || fd_word_file(word) != view->file)
            continue;
        look_by(view, (int)fd, word, word);
        if (word & FD_READABLE)
            break;
    }
    return view->fd >= 0;
}

void fd_opened(int fd, int flags, bool shared)
{
    if (fd < 0 || !process_owns_tables())
        return;
    uint64_t word;
    do
        word = fd_word(fd);
    while (!fd_replace(fd, word, (flags & O_DIRECT) ? FD_UNKNOWN : FD_NEW) && (unsigned)fd < FD_MAX);
    if (flags & O_DIRECT)
        fd_classify_opened(fd, flags, shared);
}

void fd_duplicated(int fd, int from)
{
    if (fd < 0 || !process_owns_tables())
        return;
    uint64_t source, word;
    do
        source = fd_word(from);
    while (!fd_word_hold(from, source));
    const uint64_t original = source;
    if (fd_word_state(source) == FD_CLOSING) {
        fd_word_drop(source);
        source = FD_UNKNOWN;
    }
    source &= ~(uint64_t)FD_STREAM;
    do
        word = fd_word(fd);
    while (!fd_replace(fd, word, source) && (unsigned)fd < FD_MAX);
    if ((unsigned)fd >= FD_MAX)
        fd_word_drop(source);
    /* The flags of the description may have been changed, or `from` replaced, while nobody could see that `fd` is concerned. */
    else if (fd_word(from) != original)
        fd_replace(fd, fd_word(fd), FD_UNKNOWN);
}

/*
 * If this may be a file's last descriptor: has the file a name left? Its map goes with it if not. And our own descriptor of the file
 * goes before the program's, so that POSIX locks are released when the program expects it, and never later.
 */
static void prepare_last_close(int fd, uint64_t word)
{
    struct file *file = fd_word_file(word);
    struct stat status;
    if (!file || atomic_load(&file->references) != 1)
        return;
    if (fstat(fd, &status) == 0)
        atomic_store(&file->unlinked, status.st_nlink == 0);
    reader_close(file);
}

/* Put FD_CLOSING in the place of whatever is there, with `keep` of its flags. @return the word stored. */
static uint64_t close_word(int fd, uint64_t keep)
{
    uint64_t word = fd_word(fd);
    prepare_last_close(fd, word);
    while (!fd_replace(fd, word, FD_CLOSING | (word & keep)))
        word = fd_word(fd);
    return next_sequence(word) | FD_CLOSING | (word & keep);
}

uint64_t fd_closing(int fd)
{
    if ((unsigned)fd >= FD_MAX || !process_owns_tables())
        return 0;
    if (fd_word(fd) & FD_STREAM)
        standing_stream_closed(fd);
    return close_word(fd, 0);
}

void fd_closed(int fd, uint64_t closing)
{
    if (closing == 0)
        return;
    fd_replace(fd, closing, FD_UNKNOWN);
    reap();
}

uint64_t fd_replacing(int fd)
{
    return (unsigned)fd >= FD_MAX || !process_owns_tables() ? 0 : close_word(fd, FD_STREAM);
}

void fd_replaced(int fd, int from, uint64_t replacing, bool done)
{
    if (replacing == 0)
        return;
    if (!done) {
        fd_replace(fd, replacing, FD_UNKNOWN | (replacing & FD_STREAM));
        return;
    }
    bool is_stream = replacing & FD_STREAM;
    fd_duplicated(fd, from);
    /* Whoever writes to standard output by write() keeps it direct; others may use stdio. */
    is_stream = is_stream || ((fd == 1 || fd == 2) && fd_word_state(fd_word(fd)) != FD_DIRECT);
    void *stream = standing_stream_closed(fd);
    if (is_stream)
        fd_stream_opened(fd, stream ? stream : fd == 1 ? stdout : fd == 2 ? stderr : NULL);
    reap();
}

void fd_range_closing(unsigned first, unsigned last)
{
    if (!process_owns_tables())
        return;
    for (unsigned fd = first; fd < range_end(last); fd++)
        fd_closing((int)fd);
}

void fd_range_closed(unsigned first, unsigned last)
{
    if (!process_owns_tables())
        return;
    for (unsigned fd = first; fd < range_end(last); fd++) {
        uint64_t word = fd_word((int)fd);
        if (fd_word_state(word) == FD_CLOSING)
            fd_replace((int)fd, word, FD_UNKNOWN);
    }
    reap();
}

static _Atomic uint32_t flag_changes;

uint32_t fd_flag_changes(void)
{
    /* Acquire: pairs with the addition in fd_flags_changed, which comes after the flags were set. */
    return atomic_load_explicit(&flag_changes, memory_order_acquire);
}

void fd_flags_changed(void)
{
    const unsigned changing =
        FD_STATES(FD_NEW) | FD_STATES(FD_FILE) | FD_STATES(FD_WATCHED) | FD_STATES(FD_DIRECT) | FD_STATES(FD_EXCLUDED);
    atomic_fetch_add_explicit(&flag_changes, 1, memory_order_release);
    if (!process_owns_tables())
        return;
    for (unsigned fd = 0; fd < range_end(FD_MAX); fd++) {
        uint64_t word = fd_word((int)fd);
        while (state_has(word, changing)) {
            /* The offset is the description's, whatever its flags. */
            struct offset *offset = fd_word_offset(word);
            if (offset)
                offset_hold(offset);
            if (!fd_replace((int)fd, word, (word & (FD_OFFSET_MASK | FD_STREAM)) | FD_UNKNOWN) && offset)
                offset_release(offset);
            word = fd_word((int)fd);
        }
    }
    reap();
}

void fd_files_changed(void)
{
    for (unsigned fd = 0; fd < range_end(FD_MAX); fd++) {
        uint64_t word = fd_word((int)fd);
        if (fd_word_state(word) == FD_FILE)
            fd_replace((int)fd, word, (word & FD_STREAM) | FD_NEW);
    }
}

void fd_stream_opened(int fd, void *stream)
{
    if ((unsigned)fd >= FD_MAX || !process_owns_tables())
        return;
    for (;;) {
        uint64_t word = fd_word(fd);
        if (!fd_word_hold(fd, word))
            continue;
        if (fd_replace(fd, word, word | FD_STREAM))
            break;
        fd_word_drop(word);
    }
    struct fd_view view;
    if (fd_view_open(&view, fd, false) == 0 && view.file)
        standing_stream_opened(fd, view.file, stream);
    fd_view_close(&view);
}

void fd_each_stream(void (*visit)(int fd, void *argument), void *argument)
{
    for (unsigned fd = 0; fd < range_end(FD_MAX); fd++)
        if ((fd == 1 || fd == 2) || (fd_word((int)fd) & FD_STREAM))
            visit((int)fd, argument);
}
