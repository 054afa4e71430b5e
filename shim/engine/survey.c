/*
 * Reading a range in large pieces through bounce pages, counting verdicts.
 */
#include "engine/survey.h"

#include <errno.h>
#include <fcntl.h>

#include "base/log.h"
#include "base/raw.h"
#include "bounce/pool.h"
#include "engine/issue.h"
#include "engine/verify.h"

enum { SURVEY_PIECE = 1 << 20 };

static void add_tally(struct bounceio_verify_result *result, const struct tally *tally)
{
    result->verified += tally->verified;
    result->unverified += tally->unverified;
    result->mismatched += tally->damaged;
    result->blocks = result->verified + result->unverified + result->mismatched;
}

/* Whole blocks from `offset` to `end` (bytes; the file may end before). */
static int survey(const struct fd_view *view, int64_t offset, int64_t end, struct bounceio_verify_result *result)
{
    struct extent pages;
    int error = pool_take(&pages, SURVEY_PIECE + POOL_PAGE, false);
    if (error != 0)
        return error;
    char *data = pages.base;
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
    pool_give(&pages);
    return error;
}

int survey_range(int fd, uint64_t offset, uint64_t length, struct bounceio_verify_result *result)
{
    char path[32];
    struct fd_view view;
    *result = (struct bounceio_verify_result){0};
    if (offset > INT64_MAX - BLOCK_SIZE || length > INT64_MAX - BLOCK_SIZE - offset)
        return -EINVAL;
    if (raw_failed(raw(SYS_fcntl, fd, F_GETFD)))
        return -EBADF;
    log_format(path, sizeof path, "/proc/self/fd/%d", fd);
    int direct = (int)raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (direct < 0)
        return direct;
    fd_opened(direct, O_RDONLY | O_DIRECT, false);
    int error = fd_view_open(&view, direct, false);
    if (error == 0 && view.state != FD_DIRECT)
        error = -EINVAL;
    else if (error == 0 && !file_has_map(view.file))
        error = -ENODATA;
    if (error == 0) {
        uint64_t begin = offset / BLOCK_SIZE * BLOCK_SIZE;
        uint64_t end = length ? (offset + length + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE : INT64_MAX;
        error = survey(&view, (int64_t)begin, (int64_t)end, result);
    }
    fd_view_close(&view);
    fd_closing(direct);
    raw(SYS_close, direct);
    fd_closed(direct);
    return error;
}
