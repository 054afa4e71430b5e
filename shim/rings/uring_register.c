/*
 * io_uring_register(2) of files and buffers. The kernel is given a copy of the program's arrays, so that what it accepts is what we have read; what
 * it does not accept, or we cannot read, it judges by itself.
 *
 * What the range held is forgotten before the call, and learned after it from the numbers that were registered, if they lead to what they led
 * to before it. Nobody submits meanwhile: a request that was prepared for one file would go to the other.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/own.h"
#include "base/process.h"
#include "base/raw.h"
#include "bounce/copy.h"
#include "rings/uring_registered.h"

/* One call: the slots that it is about, and the array that says what they become. */
struct registration {
    bool is_new;   /* of all slots; else of some that exist */
    bool is_empty; /* sparse: there is no array */
    unsigned first, count;
    uint64_t array;   /* the program's */
    unsigned opcode;  /* as it came in, with URING_REGISTER_USE_REGISTERED_RING */
    void *argument;   /* for the kernel */
    unsigned size;    /* its last argument */
    uint64_t *target; /* where the argument says where the array is; NULL: the argument is the array */
    union {
        struct io_uring_rsrc_register registered;
        struct io_uring_rsrc_update update;
        struct io_uring_rsrc_update2 update2;
    } header; /* the kernel's copy */
};

static long call_kernel(int fd, unsigned opcode, const void *argument, unsigned size)
{
    return raw(SYS_io_uring_register, fd, opcode, argument, size);
}

static bool read_header(struct registration *call, const void *argument, size_t length)
{
    call->argument = &call->header;
    return copy_from_user(&call->header, argument, length) == length;
}

static bool parse_array(struct registration *call, void *argument, unsigned count)
{
    call->is_new = true;
    call->count = count;
    call->array = (uint64_t)(uintptr_t)argument;
    return true;
}

static bool parse_register(struct registration *call, const void *argument, unsigned size)
{
    if (size != sizeof call->header.registered || !read_header(call, argument, size))
        return false;
    call->is_new = true;
    call->is_empty = (call->header.registered.flags & IORING_RSRC_REGISTER_SPARSE) != 0;
    call->count = call->header.registered.nr;
    call->target = (uint64_t *)&call->header.registered.data;
    call->array = call->header.registered.data;
    return !call->is_empty || call->array == 0;
}

static bool parse_update(struct registration *call, const void *argument, unsigned count)
{
    if (!read_header(call, argument, sizeof call->header.update))
        return false;
    call->first = call->header.update.offset;
    call->count = count;
    call->target = (uint64_t *)&call->header.update.data;
    call->array = call->header.update.data;
    return true;
}

static bool parse_update2(struct registration *call, const void *argument, unsigned size)
{
    if (size != sizeof call->header.update2 || !read_header(call, argument, size))
        return false;
    call->first = call->header.update2.offset;
    call->count = call->header.update2.nr;
    call->target = (uint64_t *)&call->header.update2.data;
    call->array = call->header.update2.data;
    return true;
}

/* @return false: the kernel will refuse it, or knows more than we do. */
static bool parse(struct registration *call, unsigned opcode, void *argument, unsigned count)
{
    *call = (struct registration){.opcode = opcode, .argument = argument, .size = count};
    switch (opcode & ~URING_REGISTER_USE_REGISTERED_RING) {
    case IORING_REGISTER_FILES:
    case IORING_REGISTER_BUFFERS:
        return parse_array(call, argument, count);
    case IORING_REGISTER_FILES2:
    case IORING_REGISTER_BUFFERS2:
        return parse_register(call, argument, count);
    case IORING_REGISTER_FILES_UPDATE:
        return parse_update(call, argument, count);
    case IORING_REGISTER_FILES_UPDATE2:
    case IORING_REGISTER_BUFFERS_UPDATE:
        return parse_update2(call, argument, count);
    default:
        return false;
    }
}

/* Copy the array to memory of ours, for the kernel. @return it, or NULL: there is none, or part of it cannot be read. */
static void *take_array(struct registration *call, size_t element)
{
    if (call->is_empty || call->count == 0)
        return NULL;
    char *copy = registered_memory(call->count * element);
    const void *user = (const void *)(uintptr_t)call->array; /* NOLINT: the structure holds an address */
    if (!copy)
        return NULL;
    if (copy_from_user(copy, user, call->count * element) != call->count * element) {
        raw(SYS_munmap, copy, call->count * element);
        return NULL;
    }
    if (call->target)
        *call->target = (uint64_t)(uintptr_t)copy;
    else
        call->argument = copy;
    return copy;
}

static struct uring_registered *make_table(struct uring *ring)
{
    uint64_t saved;
    process_lock(&saved);
    struct uring_registered *table = registered_make(ring);
    process_unlock(&saved);
    return table;
}

static void count_change(struct uring *ring, struct uring_registered *table)
{
    uint64_t saved;
    process_lock(&saved);
    registered_count_change(ring, table);
    process_unlock(&saved);
}

/* ---- files ---- */

/* What is remembered of each number while the call is made: behind the copied numbers. */
struct before {
    uint64_t word;    /* what it led to */
    uint32_t version; /* of the slot, once it has been forgotten */
};

struct files {
    struct uring *ring;
    struct uring_registered *table;
    struct registration call;
    struct before *before;
    int *numbers;
    struct registered_look counts;
};

enum { SKIP = -2 /* IORING_REGISTER_FILES_SKIP */ };

/* What do the numbers lead to? Our own look closed to the kernel too. */
static void look_at_numbers(struct files *files)
{
    for (unsigned i = 0; i < files->call.count; i++) {
        struct fd_view view;
        int number = files->numbers[i];
        if (number < 0)
            continue;
        if (own_is(number))
            files->numbers[i] = INT_MAX;
        if (fd_view_open(&view, number, false) == 0)
            fd_view_close(&view);
        files->before[i].word = fd_word(number);
    }
}

/* Before the call. @return 0 or -ENOMEM. */
static int begin_files(struct files *files)
{
    uint64_t saved;
    int own[REGISTERED_OWN];
    unsigned found = 0;
    const struct registration *call = &files->call;
    const uint32_t known = files->numbers ? REGISTERED_CHANGING : REGISTERED_NOT_KNOWN;
    process_lock(&saved);
    unsigned there = atomic_load(&files->table->files);
    int error = call->is_new && call->count > there ? registered_resize(files->table, call->count) : 0;
    registered_count_change(files->ring, files->table);
    registered_note(files->ring, &files->counts);
    for (unsigned i = 0; error == 0 && i < call->count; i++) {
        const struct registered_file *file = registered_file(files->table, call->first + i);
        if (file && !call->is_new && !(files->numbers && files->numbers[i] == SKIP))
            found += registered_forget(files->table, call->first + i, 1, known, &own[found]);
        if (file && files->numbers)
            files->before[i].version = atomic_load(&file->version);
    }
    process_unlock(&saved);
    while (found > 0)
        registered_dismiss(own[--found]);
    return error;
}

/* Does the number lead to what it led to before the call? Then the kernel has found that, too. @return with a view of it, or false. */
static bool same_as_before(struct fd_view *view, int number, uint64_t word)
{
    const unsigned known = FD_STATES(FD_PLAIN) | FD_STATES(FD_FILE) | FD_STATES(FD_WATCHED) | FD_STATES(FD_DIRECT) |
                           FD_STATES(FD_EXCLUDED);
    if (number < 0 || !(known >> fd_word_state(word) & 1) || fd_view_open(view, number, false) != 0)
        return false;
    if (fd_word(number) == word)
        return true;
    fd_view_close(view);
    return false;
}

/* Slot `i` of the call, if it `is_done`, is what its number leads to. */
static void settle_file(struct files *files, unsigned i, bool is_done)
{
    const struct before *before = &files->before[i];
    const int number = files->numbers[i];
    const unsigned index = files->call.first + i;
    struct registered_look look = files->counts;
    struct fd_view view;
    struct stat status;
    look.version = before->version;
    if (number == SKIP)
        return;
    if (!is_done || !same_as_before(&view, number, before->word)) {
        registered_settle(files->ring, index, NULL, -1, &look);
        return;
    }
    if (fd_word_state(before->word) != FD_PLAIN && fstat(number, &status) == 0) {
        look.device = status.st_dev;
        look.inode = status.st_ino;
    }
    view.state = fd_word_state(before->word);
    view.flags = (unsigned)before->word & (FD_APPEND | FD_WRITABLE | FD_READABLE);
    registered_settle(files->ring, index, &view, number, &look);
}

/* After it. */
static void end_files(struct files *files, unsigned there, long result)
{
    uint64_t saved;
    const struct registration *call = &files->call;
    process_lock(&saved);
    registered_count_change(files->ring, files->table);
    if (call->is_new)
        registered_resize(files->table, result < 0 ? there : call->count);
    process_unlock(&saved);
    if (!files->numbers || (call->is_new && result < 0))
        return; /* nothing was forgotten, or no slot is there */
    long done = call->is_new ? (long)call->count : result;
    for (unsigned i = 0; i < call->count; i++)
        settle_file(files, i, (long)i < done);
}

static long register_files(struct files *files, int fd)
{
    struct registration *call = &files->call;
    files->numbers = take_array(call, sizeof *files->numbers);
    files->before = files->numbers ? registered_memory(call->count * sizeof *files->before) : NULL;
    const unsigned there = atomic_load(&files->table->files);
    long result = -ENOMEM;
    if (files->before)
        look_at_numbers(files);
    if (!files->numbers || files->before) {
        result = begin_files(files);
        if (result == 0)
            result = call_kernel(fd, call->opcode, call->argument, call->size);
        end_files(files, there, result);
    }
    if (files->before)
        raw(SYS_munmap, files->before, call->count * sizeof *files->before);
    if (files->numbers)
        raw(SYS_munmap, files->numbers, call->count * sizeof *files->numbers);
    return result;
}

/* The slots go, or something happens to them that is not looked into. */
static long change_all_files(struct uring *ring, struct uring_registered *table, int fd, unsigned opcode,
                             void *argument, unsigned count)
{
    uint64_t saved;
    long result = call_kernel(fd, opcode, argument, count);
    uring_files_changed(ring, 0, REGISTERED_FILES);
    if (result == 0 && (opcode & ~URING_REGISTER_USE_REGISTERED_RING) == IORING_UNREGISTER_FILES) {
        process_lock(&saved);
        registered_resize(table, 0);
        process_unlock(&saved);
    }
    return result;
}

/* A child between vfork and exec, or no memory for a table: whoever has one learns that it is no longer true. */
static long register_unseen(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count)
{
    atomic_fetch_add(&ring->control->registered, 1);
    long result = call_kernel(fd, opcode, argument, count);
    atomic_fetch_add(&ring->control->registered, 1);
    return result;
}

long uring_register_files(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count)
{
    struct active active;
    struct files files = {.ring = ring, .table = process_owns_tables() ? make_table(ring) : NULL};
    if (!files.table)
        return register_unseen(ring, fd, opcode, argument, count);
    const bool claimed = uring_claim(ring, &active, true);
    long result = parse(&files.call, opcode, argument, count) && files.call.count <= REGISTERED_FILES
                      ? register_files(&files, fd)
                      : change_all_files(ring, files.table, fd, opcode, argument, count);
    if (claimed)
        uring_disclaim(ring, &active);
    return result;
}

/* ---- buffers ---- */

static struct registered_buffer *buffer_at(struct uring_registered *table, unsigned index)
{
    struct registered_buffer *chunk =
        atomic_load_explicit(&table->buffer_chunk[index / REGISTERED_CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % REGISTERED_CHUNK] : NULL;
}

/* Process lock held. @return 0 or -ENOMEM. */
static int make_buffers(struct uring_registered *table, unsigned buffers)
{
    for (unsigned i = 0; i < (buffers + REGISTERED_CHUNK - 1) / REGISTERED_CHUNK; i++) {
        struct registered_buffer *chunk = atomic_load(&table->buffer_chunk[i]);
        if (chunk)
            continue;
        if (!(chunk = registered_memory(REGISTERED_CHUNK * sizeof *chunk)))
            return -ENOMEM;
        atomic_store_explicit(&table->buffer_chunk[i], chunk, memory_order_release);
    }
    return 0;
}

/* Process lock held: `done` slots of the call have become what the array says, or empty. */
static void learn_buffers(struct uring_registered *table, const struct registration *call, const struct iovec *array,
                          unsigned done)
{
    unsigned known = atomic_load(&table->buffers);
    for (unsigned i = 0; i < done && call->first + i < REGISTERED_BUFFERS; i++) {
        struct registered_buffer *buffer =
            call->is_new || call->first + i < known ? buffer_at(table, call->first + i) : NULL;
        if (!buffer)
            continue;
        atomic_store_explicit(&buffer->address, array ? (uint64_t)(uintptr_t)array[i].iov_base : 0,
                              memory_order_relaxed);
        atomic_store_explicit(&buffer->length, array ? array[i].iov_len : 0, memory_order_relaxed);
    }
    if (call->is_new) {
        atomic_store_explicit(&table->buffers, done, memory_order_release);
        atomic_store_explicit(&table->buffers_known, true, memory_order_release);
    }
}

static long register_buffers(struct uring *ring, struct uring_registered *table, int fd, struct registration *call)
{
    uint64_t saved;
    struct iovec *array = take_array(call, sizeof *array);
    process_lock(&saved);
    int error = call->is_new ? make_buffers(table, call->count) : 0;
    registered_count_change(ring, table);
    process_unlock(&saved);
    long result = error != 0 ? error : call_kernel(fd, call->opcode, call->argument, call->size);
    process_lock(&saved);
    registered_count_change(ring, table);
    if (result >= 0 && (array || call->is_empty))
        learn_buffers(table, call, array, call->is_new ? call->count : (unsigned)result);
    else if (result >= 0 || !call->is_new)
        atomic_store(&table->buffers_known, false);
    process_unlock(&saved);
    if (array)
        raw(SYS_munmap, array, call->count * sizeof *array);
    return result;
}

long uring_register_buffers(struct uring *ring, int fd, unsigned opcode, void *argument, unsigned count)
{
    struct registration call;
    struct uring_registered *table = process_owns_tables() ? make_table(ring) : NULL;
    uring_fixed_end(ring, fd, opcode);
    if ((opcode & ~URING_REGISTER_USE_REGISTERED_RING) == URING_REGISTER_CLONE_BUFFERS)
        uring_fixed_end_source(argument);
    if (!table)
        return register_unseen(ring, fd, opcode, argument, count);
    if (parse(&call, opcode, argument, count) && call.count <= REGISTERED_BUFFERS)
        return register_buffers(ring, table, fd, &call);
    long result = call_kernel(fd, opcode, argument, count);
    count_change(ring, table);
    bool gone = result == 0 && (opcode & ~URING_REGISTER_USE_REGISTERED_RING) == IORING_UNREGISTER_BUFFERS;
    if (gone)
        atomic_store(&table->buffers, 0);
    if (gone || result >= 0)
        atomic_store(&table->buffers_known, gone);
    return result;
}

bool uring_buffer_holds(struct uring *ring, unsigned index, uint64_t address, uint64_t length)
{
    struct uring_registered *table = registered_of(ring);
    uint32_t changes = atomic_load_explicit(&ring->control->registered, memory_order_acquire);
    if (!table)
        return changes != 0;
    /* Registrations of another process that shares the ring are not known. */
    if (atomic_load_explicit(&table->seen, memory_order_relaxed) != changes ||
        !atomic_load_explicit(&table->buffers_known, memory_order_acquire))
        return true;
    const struct registered_buffer *buffer =
        index < atomic_load_explicit(&table->buffers, memory_order_acquire) ? buffer_at(table, index) : NULL;
    if (!buffer)
        return false;
    uint64_t begin = atomic_load_explicit(&buffer->address, memory_order_relaxed);
    uint64_t whole = atomic_load_explicit(&buffer->length, memory_order_relaxed);
    return address >= begin && length <= whole && address - begin <= whole - length;
}
