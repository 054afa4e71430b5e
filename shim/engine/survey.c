/*
 * Reading a range in large pieces through bounce pages, counting verdicts.
 */
#include "engine/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/process.h"
#include "base/raw.h"
#include "checksum/store.h"
#include "engine/active.h"
#include "engine/issue.h"
#include "engine/missing.h"
#include "engine/recover.h"
#include "engine/verify.h"
#include "files/reader.h"

enum { SURVEY_PIECE = 1 << 20 };

static void add_tally(struct bounceio_verify_result *result, const struct tally *tally)
{
    result->verified += tally->verified;
    result->unverified += tally->unverified + tally->recovered + tally->outside;
    result->mismatched += tally->damaged;
    result->blocks = result->verified + result->unverified + result->mismatched;
}

/* Whole blocks from `offset` to `end` (bytes; the file may end before). */
static int survey(const struct fd_view *view, int64_t offset, int64_t end, struct bounceio_verify_result *result)
{
    struct active_pages pages;
    if (recover_is_due(view->file))
        recover(view);
    int error = active_take(&pages, SURVEY_PIECE + POOL_PAGE, false);
    if (error != 0)
        return error;
    char *data = pages.extent.base;
    while (offset < end) {
        size_t piece = end - offset < SURVEY_PIECE ? (size_t)(end - offset) : SURVEY_PIECE;
        ssize_t length = issue_read(view->fd, data, piece, offset, 0);
        if (length <= 0) {
            error = (int)length;
            break;
        }
        struct tally tally = {0};
        const struct readout readout = {.view = view,
                                        .data = data,
                                        .offset = offset,
                                        .length = (size_t)length,
                                        .at_end = (size_t)length < piece,
                                        .certain = true,
                                        .scratch = data + SURVEY_PIECE};
        verify_and_count(&readout, &tally);
        add_tally(result, &tally);
        offset += length;
        if (readout.at_end)
            break;
    }
    active_give(&pages);
    if (error == 0 && offset < end) {
        struct tally missing = {0};
        missing_count(view, offset, end, false, &missing);
        add_tally(result, &missing);
    }
    return error;
}

/* The view of a descriptor that is not open for direct I/O. Its file, and our descriptor of it, are kept for good: closing the latter would
 * release the program's POSIX locks on the file. */
static int view_of_plain(struct fd_view *view, int fd)
{
    struct stat status;
    struct map_key key;
    uint64_t saved;
    int error = map_key_of(fd, &key);
    if (error != 0 || fstat(fd, &status) != 0)
        return error == -ENOTSUP || error == 0 ? -EINVAL : error;
    fd_view_close(view);
    if (!store_prepare())
        return -ENODATA;
    process_lock(&saved);
    *view = (struct fd_view){.fd = fd, .file = map_exists(&key) ? file_open(fd, &status, false) : NULL};
    process_unlock(&saved);
    if (!view->file)
        return -ENODATA;
    file_hold(view->file);
    return 0;
}

/* A view that can be read from with direct I/O. */
static int open_view(struct fd_view *view, int fd)
{
    if (raw_failed(raw(SYS_fcntl, fd, F_GETFD)))
        return -EBADF;
    int error = fd_view_open(view, fd, false);
    if (error == 0 && view->state != FD_DIRECT)
        error = view_of_plain(view, fd);
    if (error != 0)
        return error;
    if (!file_has_map(view->file))
        return -ENODATA;
    if (view->state == FD_DIRECT && (view->flags & FD_READABLE))
        return 0;
    int reader = reader_of(view->file, fd);
    if (reader < 0)
        return reader;
    view->fd = reader;
    view->flags = FD_READABLE;
    return 0;
}

int survey_range(int fd, uint64_t offset, uint64_t length, struct bounceio_verify_result *result)
{
    struct fd_view view = {0};
    *result = (struct bounceio_verify_result){0};
    if (offset > INT64_MAX - BLOCK_SIZE || length > INT64_MAX - BLOCK_SIZE - offset)
        return -EINVAL;
    int error = open_view(&view, fd);
    if (error == 0) {
        uint64_t begin = offset / BLOCK_SIZE * BLOCK_SIZE;
        uint64_t end = length ? (offset + length + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE : INT64_MAX;
        error = survey(&view, (int64_t)begin, (int64_t)end, result);
    }
    fd_view_close(&view);
    return error;
}
