/* Numbers, requests and what they hold, for unit tests of the engine. */
#include "support/request_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bounce/pool.h"
#include "checksum/block_sum.h"
#include "checksum/session_peers.h"
#include "engine/active.h"
#include "files/classify.h"
#include "support/support.h"

int number_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    ck_assert_msg(fd >= 0, "open %s: %s", path, strerror(errno));
    fd_opened(fd, flags, false);
    return fd;
}

void number_close(int fd)
{
    uint64_t closing = fd_closing(fd);
    ck_assert_int_eq(close(fd), 0);
    fd_closed(fd, closing);
}

void number_reuse(int fd, const char *path, int flags)
{
    int other = open(path, flags | O_CLOEXEC, 0600);
    ck_assert_int_ge(other, 0);
    uint64_t closing = fd_closing(fd);
    ck_assert_int_eq(dup3(other, fd, O_CLOEXEC), fd);
    fd_closed(fd, closing);
    close(other);
    fd_opened(fd, flags, false);
}

void scene_open(struct scene *scene, int flags)
{
    map_fixture_prepare(&scene->fixture);
    scene->fd = number_open(scene->fixture.path, flags | O_DIRECT);
    scene->file = fd_word_file(fd_word(scene->fd));
    ck_assert(scene->file && file_has_map(scene->file));
    scene->map = &scene->file->map;
}

void scene_fill(struct scene *scene, uint64_t seed, uint64_t blocks)
{
    char *memory = buffer_new(blocks * BLOCK);
    pattern_fill(memory, blocks * BLOCK, seed, 0);
    struct request_call call = writing(memory, blocks * BLOCK, 0);
    ck_assert_int_eq(request_whole(scene->fd, &call), (int64_t)(blocks * BLOCK));
    buffer_free(memory, blocks * BLOCK);
    for (uint64_t block = 0; block < blocks; block++)
        ck_assert_words(scene->map, block, pattern_sum(seed, block), WORD_IDLE);
}

struct request_call writing(const void *memory, size_t length, int64_t offset)
{
    return (struct request_call){
        .is_write = true, .address = memory, .length = length, .offset = offset, .transport = TRANSPORT_URING};
}

struct request_call reading(void *memory, size_t length, int64_t offset)
{
    return (struct request_call){.address = memory, .length = length, .offset = offset, .transport = TRANSPORT_URING};
}

int request_ask(struct request *request, int fd, const struct request_call *call)
{
    struct fd_view view;
    /* A slot's memory is as its last holder left it. */
    memset(request, 0xa5, sizeof *request);
    int error = fd_view_open(&view, fd, (call->flags & RWF_NOWAIT) != 0);
    return error != 0 ? error : request_prepare(request, &view, call);
}

void request_ready(struct request *request, int fd, const struct request_call *call)
{
    ck_assert_int_eq(request_ask(request, fd, call), REQUEST_READY);
}

ssize_t request_carry_out(const struct request *request, int fd)
{
    const struct iovec segment = {.iov_base = request->data, .iov_len = request->length};
    const bool is_write = request->kind != REQUEST_READ;
    ck_assert(!request->keeps_memory);
    long result = syscall(is_write ? SYS_pwritev2 : SYS_preadv2, fd, &segment, 1, request->offset, 0, request->flags);
    return result < 0 ? -errno : result;
}

int64_t request_whole(int fd, const struct request_call *call)
{
    struct request request;
    int road = request_ask(&request, fd, call);
    ck_assert_int_ne(road, REQUEST_PASSES);
    if (road < 0)
        return road;
    ssize_t result = request_carry_out(&request, fd);
    request_issued(&request);
    return request_complete(&request, result);
}

static unsigned flights(void)
{
    unsigned count = 0;
    struct flight_seen seen;
    const struct session_file *self = atomic_load(&session_state->self);
    for (unsigned i = 0; self && i < SESSION_FLIGHTS; i++)
        count += flight_read(&self->flights[i], &seen);
    return count;
}

struct holdings holdings_of(const struct scene *scene)
{
    return (struct holdings){.pages = pool_pages_taken(),
                             .references = atomic_load(&scene->file->references),
                             .flights = flights(),
                             .unsettled = atomic_load(&scene->map->header->unsettled)};
}

void holdings_check(const struct scene *scene, const struct holdings *before)
{
    const struct holdings now = holdings_of(scene);
    ck_assert_uint_eq(now.pages, before->pages);
    ck_assert_uint_eq(now.references, before->references);
    ck_assert_uint_eq(now.flights, before->flights);
    ck_assert_uint_eq(now.unsettled, before->unsettled);
}

uint64_t pattern_sum(uint64_t seed, uint64_t block)
{
    static char page[BLOCK];
    pattern_fill(page, BLOCK, seed, block * BLOCK);
    return block_sum(page, block);
}

jmp_buf scene_way_out;

void scene_jump_out(const struct bounceio_mismatch *mismatch, void *argument)
{
    (void)mismatch;
    (void)argument;
    active_leave(ACTIVE_EVERYTHING);
    longjmp(scene_way_out, 1);
}
