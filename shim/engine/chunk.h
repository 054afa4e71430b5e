/*
 * One system call's worth of a direct write: pages, checksums and in-flight entry from before it is issued until its result is known.
 * Blocking writes (write.c) and asynchronous ones (request.c) differ only in what lies between chunk_prepare and chunk_complete.
 *
 * Thread-safe, async-signal-safe; takes no lock on its fast path, and holds none while the caller's memory is touched.
 */
#ifndef BOUNCEIO_ENGINE_CHUNK_H
#define BOUNCEIO_ENGINE_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clear.h"
#include "bounce/copy.h"
#include "bounce/pool.h"
#include "checksum/announce.h"
#include "engine/landing.h"
#include "files/descriptor.h"

/* How a chunk is accounted for in the map. */
enum accounting {
    ACCOUNT_NONE,      /* no map */
    ACCOUNT_ANNOUNCED, /* checksums announced */
    ACCOUNT_LANDING,   /* no checksums: a mutator over it */
};

struct chunk {
    const struct fd_view *view;
    struct extent pages;
    char *data;
    size_t asked;   /* bytes the caller wants written */
    size_t length;  /* bytes that are: cut short by a bad address */
    int64_t offset; /* in the file; known when announced */
    int flags;      /* RWF_* */
    enum flight_transport transport;
    enum accounting accounting;
    struct announcement announcement;
    uint64_t whole_first, whole_end; /* blocks announced whole */
    int64_t looked, issued;          /* times: look_before_write's, or 0; and when it was issued */
    int64_t over;                    /* window_fine_now when it was known to be over; 0: when it is completed */
    const struct offset_use *use;    /* of the file offset, by requests that use it */
    struct landing landing;
    unsigned edges;
    struct edge edge[2]; /* the first `edges` of each */
    uint64_t edge_sum[2];
};

/* All zero, but for what is only looked at when there is some of it: nothing is accounted for, and no landing is open. */
static inline void chunk_clear(struct chunk *chunk)
{
    clear(chunk, offsetof(struct chunk, landing));
    chunk->landing.mutation.map = NULL;
    chunk->edges = 0;
}

/*
 * Take pages, copy in from *cursor, sum, announce. The caller has cleared it, and filled view, asked, length (the same), offset, flags,
 * transport, accounting, looked and use. @return 0: chunk->length bytes at chunk->data are ready to be issued, 0 of them when the caller's memory
 * is bad from the start; or -EAGAIN, -ENOMEM with nothing held.
 */
int chunk_prepare(struct chunk *chunk, struct cursor *cursor);

/* The system call returned `result`: publish, withdraw or forget; give the pages back. `certain`: the bytes landed at chunk->offset of the
 * file that the view was opened on. */
void chunk_complete(struct chunk *chunk, ssize_t result, bool certain);

/* It was never issued: leave the books as they were, give the pages back. */
void chunk_cancel(struct chunk *chunk);

/* A handler of the program's has jumped out of it, at any point after it was cleared: blocks become unknown, the pages are given back. */
void chunk_abandon(struct chunk *chunk);

/* Its end will never be known: blocks become unknown, and stay announced; the pages are leaked and counted. */
void chunk_lose(struct chunk *chunk);

#endif
