/*
 * Asynchronous requests as a front makes them, one step at a time: the test makes the system call between preparation and completion.
 *
 * Linked with the shim's objects, so for unit tests only. What fails here ends the test.
 */
#ifndef BOUNCEIO_TESTS_REQUEST_FIXTURE_H
#define BOUNCEIO_TESTS_REQUEST_FIXTURE_H

#include <setjmp.h>

#include "engine/request.h"
#include "support/map_fixture.h"

/* A file with a map, and a number that reaches it directly. */
struct scene {
    struct map_fixture fixture;
    int fd;
    struct file *file;
    struct map *map;
};

/* `flags`: beside O_DIRECT. */
void scene_open(struct scene *scene, int flags);

/* Open a path and tell the table; close a number, likewise. */
int number_open(const char *path, int flags);
void number_close(int fd);

/* Close `fd` and let the same number lead to `path`. */
void number_reuse(int fd, const char *path, int flags);

/* The file now holds `blocks` blocks of the pattern `seed`, written by requests and known to the map. */
void scene_fill(struct scene *scene, uint64_t seed, uint64_t blocks);

/* A request as io_uring makes it, of bytes. */
struct request_call writing(const void *memory, size_t length, int64_t offset);
struct request_call reading(void *memory, size_t length, int64_t offset);

/* Look `fd` up and prepare. @return as request_prepare. */
int request_ask(struct request *request, int fd, const struct request_call *call);

/* The same, which must be ready. */
void request_ready(struct request *request, int fd, const struct request_call *call);

/* The system call, by `fd`, with what the request says the kernel is to be given. @return bytes or -errno. */
ssize_t request_carry_out(const struct request *request, int fd);

/* From beginning to end. @return what the program is told. */
int64_t request_whole(int fd, const struct request_call *call);

/*
 * A callback of mismatches (report_set_callback) that leaves to the setjmp of scene_way_out, as a signal handler would that has interrupted the request.
 */
extern jmp_buf scene_way_out;
struct bounceio_mismatch;
void scene_jump_out(const struct bounceio_mismatch *mismatch, void *argument);

/* What all requests hold together: to be the same again at the end. */
struct holdings {
    size_t pages;
    uint32_t references;
    unsigned flights;
    uint64_t unsettled;
};
struct holdings holdings_of(const struct scene *scene);
void holdings_check(const struct scene *scene, const struct holdings *before);

/* The checksum of a block of the pattern `seed` at its place in the file. */
uint64_t pattern_sum(uint64_t seed, uint64_t block);

#endif
