/*
 * libaio: io_submit what there is room for, io_getevents what has come, as fio does.
 */
#include "bench/door.h"

#include <errno.h>
#include <libaio.h>
#include <stdlib.h>

struct aio {
    io_context_t context;
    int (*setup)(int depth, io_context_t *context);
    int (*submit)(io_context_t context, long count, struct iocb **list);
    int (*getevents)(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout);
    int (*destroy)(io_context_t context);
    struct iocb blocks[DEPTH_MAX];
    struct io_event events[DEPTH_MAX];
    struct numbers numbers; /* of blocks */
};

static void *aio_open(bool through_shim, unsigned depth)
{
    static const char library[] = "libaio.so";
    struct aio *aio = door_state(sizeof(*aio));

    *(void **)&aio->setup = door_symbol(through_shim, library, "io_setup");
    *(void **)&aio->submit = door_symbol(through_shim, library, "io_submit");
    *(void **)&aio->getevents = door_symbol(through_shim, library, "io_getevents");
    *(void **)&aio->destroy = door_symbol(through_shim, library, "io_destroy");
    numbers_init(&aio->numbers, depth);
    int result = aio->setup((int)depth, &aio->context);

    if (result < 0)
        door_die("io_setup", result);
    return aio;
}

/* Submit `count` requests. */
static void submit(struct aio *aio, struct work *work, unsigned count)
{
    struct iocb *list[DEPTH_MAX];

    for (unsigned i = 0; i < count; i++) {
        unsigned number = number_take(&aio->numbers);
        unsigned char *memory = work->memory + (size_t)number * work->size;
        long long offset = (long long)work_offset(work);

        list[i] = &aio->blocks[number];
        if (work->is_write)
            io_prep_pwrite(list[i], work->fd, memory, work->size, offset);
        else
            io_prep_pread(list[i], work->fd, memory, work->size, offset);
        number_begin(&aio->numbers, number);
    }
    for (unsigned done = 0; done < count;) {
        int n = aio->submit(aio->context, (long)(count - done), list + done);

        if (n <= 0 && n != -EINTR)
            door_die("io_submit", n);
        done += n > 0 ? (unsigned)n : 0;
    }
}

/* @return how many have come. */
static unsigned reap(struct aio *aio, struct work *work, unsigned in_flight)
{
    int n = aio->getevents(aio->context, 1, (long)in_flight, aio->events, NULL);

    if (n < 0 && n != -EINTR)
        door_die("io_getevents", n);
    for (int i = 0; i < n; i++) {
        unsigned number = (unsigned)(aio->events[i].obj - aio->blocks);

        number_end(&aio->numbers, &door_libaio, work, number, (int64_t)aio->events[i].res);
    }
    return n > 0 ? (unsigned)n : 0;
}

static void aio_run(void *state, struct work *work, unsigned requests)
{
    unsigned issued = 0, in_flight = 0;

    while (issued < requests || in_flight > 0) {
        unsigned room = work->depth - in_flight, left = requests - issued, count = left < room ? left : room;

        if (count > 0)
            submit(state, work, count);
        issued += count;
        in_flight += count;
        in_flight -= reap(state, work, in_flight);
    }
}

static void aio_close(void *state)
{
    struct aio *aio = state;

    aio->destroy(aio->context);
    free(aio);
}

const struct door door_libaio = {"libaio", 2, aio_open, aio_run, aio_close};
