/*
 * A scene for chains of io_uring requests: a file that is read, one that is written, a pair of sockets, and memory full of rubbish, so that what
 * is copied too early is seen. Requests have small numbers as tags; each has one completion.
 */
#ifndef BOUNCEIO_TESTS_CHAINS_H
#define BOUNCEIO_TESTS_CHAINS_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/async.h"
#include "support/direct.h"

enum { BLOCKS = 64, SIZE = BLOCKS * BLOCK, SOURCE = 1, TARGET = 2, DEPTH = 64, TAGS = 64, NOTHING = 12345 };

struct scene {
    struct io_uring ring;
    const char *fs;
    const char *source_path, *target_path; /* of SIZE bytes, the patterns SOURCE and TARGET */
    int source, target;
    int sockets[2];        /* requests use the first */
    unsigned char *memory; /* SIZE */
    int results[TAGS];     /* by tag; NOTHING: none yet */
    unsigned order[TAGS];  /* tags as they came */
    unsigned came;
};

#define scene_that(scene, condition, format, ...)                                                                      \
    check_that(condition, "on %s: " format, (scene)->fs __VA_OPT__(, ) __VA_ARGS__)

void on_each_filesystem(void (*play)(struct scene *scene));

/* No completion has come; rubbish in the memory. */
void scene_forget(struct scene *scene);

/* An entry of the queue, all zero but for tag and IOSQE_* flags. The library's functions set all of an entry: dress it afterwards. */
struct io_uring_sqe *next(struct scene *scene, unsigned tag, unsigned flags);
void dress(struct io_uring_sqe *sqe, unsigned tag, unsigned flags);

void queue_read(struct scene *scene, unsigned tag, unsigned flags, int fd, void *memory, unsigned length,
                uint64_t offset);
void queue_write(struct scene *scene, unsigned tag, unsigned flags, int fd, const void *memory, unsigned length,
                 uint64_t offset);
void queue_receive(struct scene *scene, unsigned tag, unsigned flags, void *memory, size_t length);
void queue_send(struct scene *scene, unsigned tag, unsigned flags, const void *memory, size_t length);
void queue_nop(struct scene *scene, unsigned tag, unsigned flags);
void submit(struct scene *scene, int count);

/* Wait for so many completions; see that none comes; that a request's result is this; that completions came in the order of their tags. */
void reap(struct scene *scene, unsigned count);
void expect_silence(struct scene *scene);
void expect(const struct scene *scene, unsigned tag, int result);
void expect_order(const struct scene *scene);

/* The target is SOURCE's content in [from, to), its own elsewhere; and every block of it verifies. */
void expect_target(struct scene *scene, size_t from, size_t to);

/* The other end of the sockets. */
void send_pattern(struct scene *scene, size_t length, uint64_t offset);
void expect_received(struct scene *scene, size_t length, uint64_t offset);

#endif
