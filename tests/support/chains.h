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

struct chain_scene {
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

void chain_on_each_filesystem(void (*play)(struct chain_scene *scene));

/* No completion has come; rubbish in the memory. */
void chain_forget(struct chain_scene *scene);

/* An entry of the queue, all zero but for tag and IOSQE_* flags. The library's functions set all of an entry: dress it afterwards. */
struct io_uring_sqe *chain_next(struct chain_scene *scene, unsigned tag, unsigned flags);
void chain_dress(struct io_uring_sqe *sqe, unsigned tag, unsigned flags);

void chain_queue_read(struct chain_scene *scene, unsigned tag, unsigned flags, int fd, void *memory, unsigned length,
                      uint64_t offset);
void chain_queue_write(struct chain_scene *scene, unsigned tag, unsigned flags, int fd, const void *memory,
                       unsigned length, uint64_t offset);
void chain_queue_receive(struct chain_scene *scene, unsigned tag, unsigned flags, void *memory, size_t length);
void chain_queue_send(struct chain_scene *scene, unsigned tag, unsigned flags, const void *memory, size_t length);
void chain_queue_nop(struct chain_scene *scene, unsigned tag, unsigned flags);
void chain_submit(struct chain_scene *scene, int count);

/* Wait for so many completions; see that none comes; that a request's result is this; that completions came in the order of their tags. */
void chain_reap(struct chain_scene *scene, unsigned count);
void chain_expect_silence(struct chain_scene *scene);
void chain_expect(const struct chain_scene *scene, unsigned tag, int result);
void chain_expect_order(const struct chain_scene *scene);

/* The target is SOURCE's content in [from, to), its own elsewhere; and every block of it verifies. */
void chain_expect_target(struct chain_scene *scene, size_t from, size_t to);

/* The other end of the sockets. */
void chain_send_pattern(struct chain_scene *scene, size_t length, uint64_t offset);
void chain_expect_received(struct chain_scene *scene, size_t length, uint64_t offset);

#endif
