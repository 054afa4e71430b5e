/*
 * File offsets: who else moves the offset of an open file description. One object for each description that this process
 * opened by itself, shared by its duplicates.
 *
 * read() and write() use and move the kernel's offset; where a request lands can be known only if nobody else moves it
 * meanwhile. A description is exclusive while no fork has shared it and no two requests have met on it; once shared, it stays so.
 */
#ifndef BOUNCEIO_FILES_OFFSET_H
#define BOUNCEIO_FILES_OFFSET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { OFFSET_MAX = 65536 };

struct offset {
    _Atomic uint32_t references;
    _Atomic uint32_t users;      /* requests between offset_enter and offset_leave */
    _Atomic uint32_t arrivals;   /* ever; wraps */
    _Atomic uint32_t seeks;      /* calls of lseek; wraps */
    _Atomic uint32_t seekers;    /* of those, under way */
    _Atomic bool shared;         /* for good */
    uint32_t forks;              /* of this process when the description was opened */
    _Atomic(const void *) first; /* thread that came when nobody was there */
};

/* What one request saw on its way in. */
struct offset_use {
    struct offset *offset;
    uint32_t arrivals, seeks;
    bool exclusive; /* nobody else was there, and nobody else can be outside this process */
    bool seeking;   /* an lseek was under way */
    bool is_seek;   /* this is one */
};

/* A new object with one reference, or NULL when there are too many. Process lock held. */
struct offset *offset_new(void);
static inline void offset_hold(struct offset *offset)
{
    atomic_fetch_add(&offset->references, 1);
}
static inline void offset_release(struct offset *offset)
{
    atomic_fetch_sub(&offset->references, 1);
}

/* All of them; set once at start-up. */
extern struct offset *offset_first;

static inline struct offset *offset_at(uint32_t index)
{
    return &offset_first[index];
}
uint32_t offset_index(const struct offset *offset);

/*
 * A request that uses the file offset begins and ends. The first two requests that meet make the description shared: the
 * second waits for the first, as the kernel would have it wait, then both know; nobody waits again.
 * @return 0; -EAGAIN, with nothing to leave, when `nowait` and the request would be that second one.
 */
int offset_enter(struct offset_use *use, struct offset *offset, bool nowait);
void offset_leave(struct offset_use *use);

/*
 * A request that nobody waits for will use the file offset at some time: the description is shared from now on, and whoever thinks himself
 * alone at this moment learns that he was not. Nothing to leave; `use` is for offset_was_sought.
 */
void offset_share(struct offset_use *use, struct offset *offset);

/* Still nobody else? To be asked after the request, before offset_leave. */
bool offset_was_exclusive(const struct offset_use *use);

/* Has lseek been at work since offset_enter? Then the offset may have gone anywhere. */
bool offset_was_sought(const struct offset_use *use);

/*
 * offset_enter for a call of lseek, which must not move the offset between an exclusive request's look at it and the system call: the
 * kernel too lets the two wait for each other.
 */
void offset_enter_seek(struct offset_use *use, struct offset *offset);

#endif
