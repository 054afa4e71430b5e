/*
 * A libaio context on a file of a known pattern, with an eventfd: what the tests of shadow contexts share. One at a time.
 */
#ifndef BOUNCEIO_TESTS_LIBAIO_SETTING_H
#define BOUNCEIO_TESTS_LIBAIO_SETTING_H

#include <libaio.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "support/support.h"

enum { DEPTH = 16, BLOCKS = 64, SIZE = BLOCKS * BLOCK, SEED = 9, PATIENCE = 20 };

/* As QEMU has it (block/linux-aio.c). */
struct ring {
    unsigned id, nr;
    _Atomic unsigned head, tail;
    unsigned magic, compat_features, incompat_features, header_length;
    struct io_event events[];
};

struct libaio_setting {
    const char *path;
    int fd;
    int event; /* an eventfd */
    int epoll; /* that watches it */
    io_context_t context;
    unsigned char *memory; /* DEPTH blocks, at odd addresses under the shim */
    struct iocb iocbs[DEPTH];
    struct iocb *list[DEPTH];
};
extern struct libaio_setting setting;

void set_up(const struct test_fs *fs, int events);
void tear_down(void);

/* Play on a file system that completes requests later, and on one that does so within the submission. */
void on_two(void (*play)(void), int events);

static inline unsigned char *place(int i)
{
    return setting.memory + (size_t)i * BLOCK;
}

/* Submit a read of `block` with iocb and place `i`; `notified`: by the eventfd. */
void submit_read(int i, uint64_t block, bool notified);

/* The event of such a read must be right. */
void check_read(const struct io_event *event);

/* Take what the ring's memory shows. @return how many. */
int reap_from_memory(void);

/* Wait until the eventfd is readable (BY_READ: and read it), or fail. */
enum wait { BY_READ, BY_POLL, BY_PPOLL, BY_SELECT, BY_PSELECT, BY_EPOLL, WAITS };
void wait_by(enum wait wait);

/* Read it, if there is anything to read. */
void drain_eventfd(void);

#endif
