/*
 * The ways by which requests reach the kernel: blocking calls, libaio, io_uring; and a "floor" that reaches nothing, and does only what a
 * bounced, checksummed request cannot do without: copying and hashing.
 *
 * Each can be used as the program is bound to it (through the shim, when that is loaded) or as its library defines it, past the shim: a side
 * that is to be measured without the shim is, down to the last jump, even though both are in one process.
 */
#ifndef BOUNCEIO_BENCH_DOOR_H
#define BOUNCEIO_BENCH_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/sample.h"

enum { DEPTH_MAX = 64 };

/* One side's requests: equal sides get equal ones, in the same order. */
struct work {
    int fd;
    bool is_write;
    bool is_random;
    size_t size;           /* bytes of a request; a power of two */
    unsigned depth;        /* requests in flight, up to DEPTH_MAX */
    uint64_t slots;        /* file size / size; a power of two, at least `depth`: requests in flight never overlap */
    uint64_t next;         /* number of the next request */
    unsigned char *memory; /* depth * size bytes, page aligned */
    struct histogram *latencies;
};

struct door {
    const char *name;
    unsigned clocks; /* calls of clock_now for each request, which are subtracted */
    void *(*open)(bool through_shim, unsigned depth);
    /* Issue `requests` of them, depth at a time, and wait for all. */
    void (*run)(void *state, struct work *work, unsigned requests);
    void (*close)(void *state);
};

extern const struct door door_blocking, door_libaio, door_uring, door_floor;

/*
 * Where request number work->next goes, in bytes. Random ones go through all slots before one comes twice: in flight together they
 * never meet.
 */
uint64_t work_offset(struct work *work);

/*
 * What the program is bound to by this name, or the definition in the library whose file name begins so ("libaio.so"), which the shim has
 * no part in. Ends the program if there is none.
 */
void *door_symbol(bool through_shim, const char *library, const char *name);

/* A request must transfer all of its bytes: anything else ends the program with a message. `result`: bytes or -errno. */
void door_check(const struct door *door, const struct work *work, int64_t result);

/*
 * The requests of a door with a queue have numbers below the depth, and each number its place in the work's memory. One is taken, begun when
 * its request is ready to be submitted, and ended when its completion has come.
 */
struct numbers {
    double begun[DEPTH_MAX];
    unsigned free[DEPTH_MAX], count;
};

void numbers_init(struct numbers *numbers, unsigned depth);

static inline unsigned number_take(struct numbers *numbers)
{
    return numbers->free[--numbers->count];
}

static inline void number_begin(struct numbers *numbers, unsigned number)
{
    numbers->begun[number] = clock_now();
}

/* `result` as in door_check. */
static inline void number_end(struct numbers *numbers, const struct door *door, struct work *work, unsigned number,
                              int64_t result)
{
    door_check(door, work, result);
    histogram_add(work->latencies, clock_now() - numbers->begun[number]);
    numbers->free[numbers->count++] = number;
}

/* Memory of a door's own, zeros. Ends the program if there is none. */
void *door_state(size_t size);

/* End the program: this call has returned -errno. */
_Noreturn void door_die(const char *call, int result);

/* End the program: what failed, and errno. */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
