/*
 * The inside of a shadow context. For rings/aio*.c only.
 *
 *   keys[] in wiped memory: the address that io_setup has told the program -> struct aio (wiped) -> the shadow, shared with children
 *                                                                              `-> the kernel's own context, hidden
 *
 * Where an event is, and who may take it:
 *
 *   in the kernel   anybody, by the real io_getevents; he finishes it, and gives it to his caller or to the shadow
 *   in the shadow   the program itself, from memory, or io_getevents
 *
 * `turn` is the right to change the shadow, but for the program's own moving of `head`. Its holder has signals held back and never sleeps, so
 * it may be waited for, by whoever does not hold it.
 *
 * A pump takes events away from the threads that sleep in the real io_getevents, whom the kernel would have woken with them: so it does nothing while
 * there are any. It takes the turn, then looks at `sleepers`; a sleeper enters himself there, then looks at the turn: one of them sees
 * the other (Dekker). A sleeper who finds the turn taken waits for it, since what he came for may be in the shadow afterwards.
 */
#ifndef BOUNCEIO_RINGS_AIO_CONTEXT_H
#define BOUNCEIO_RINGS_AIO_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rings/abi.h"
#include "rings/slot.h"

enum {
    AIO_MAX = 4096, /* contexts of one process */
    AIO_CHUNK = 64, /* events taken at once */
};

/* The ring as programs know it. 32 bytes, and 32 for each event. Source: struct aio_ring, fs/aio.c. */
struct aio_ring {
    uint32_t id; /* the kernel's */
    uint32_t nr; /* places; one of them stays empty */
    _Atomic uint32_t head;
    _Atomic uint32_t tail;
    uint32_t magic;
    uint32_t compat_features;
    uint32_t incompat_features;
    uint32_t header_length;
    struct io_event events[];
};

struct aio {
    aio_context_t real;
    struct aio_ring *shadow;
    size_t length; /* of the shadow's mapping, bytes */
    uint32_t nr;
    _Atomic uint32_t holders;   /* calls that use it, and one as long as it has its key */
    _Atomic uint32_t turn;      /* futex: 0 free, 1 taken, 2 taken and somebody waits */
    _Atomic uint32_t tail;      /* of the shadow; its own copy is not believed */
    _Atomic int32_t sleepers;   /* threads in the real io_getevents that wait there */
    _Atomic int32_t submitters; /* threads in io_submit */
    _Atomic int32_t in_kernel;  /* requests and events that the kernel has */
    _Atomic int32_t ours;       /* those of them that have a slot */
    _Atomic bool dead;          /* being destroyed; set with the turn */
    _Atomic bool taken;
} __attribute__((aligned(64)));

/* ---- aio_context.c: the table, the turn, the shadow. ---- */

/* The context that the program knows by that address, held; NULL: none of ours. */
struct aio *aio_hold(aio_context_t context);
void aio_release(struct aio *aio);

/* Take its key away: nobody finds it any more. @return it, held, or NULL when it is none of ours or another thread was first. */
struct aio *aio_remove(aio_context_t context);

/* Call `visit` for every context, held. */
void aio_each(void (*visit)(struct aio *aio));

void aio_take_turn(struct aio *aio, uint64_t *saved);
void aio_give_turn(struct aio *aio, const uint64_t *saved);

static inline bool aio_turn_is_taken(const struct aio *aio)
{
    /* Sequentially consistent: partner of the compare-and-swaps in aio_take_turn; see above. */
    return atomic_load_explicit(&aio->turn, memory_order_seq_cst) != 0;
}

/* Events in the shadow. Exact with the turn, and to the program itself. */
uint32_t aio_in_shadow(const struct aio *aio);

/* With the turn: take up to `most` of the oldest events, put events behind the youngest, or before the oldest, as far as there is room. */
unsigned aio_shadow_take(struct aio *aio, struct io_event *events, unsigned most);
unsigned aio_shadow_put(struct aio *aio, const struct io_event *events, unsigned count);
void aio_shadow_put_back(struct aio *aio, const struct io_event *events, unsigned count);

/* Has the kernel's ring events? A look at its memory. True when in doubt. */
bool aio_has_events(const struct aio *aio);

/* ---- aio_submit.c ---- */

/* The slot of ours whose private iocb an event names, or NULL. */
struct slot *aio_slot_of(const struct aio *aio, uint64_t object);

/* Did the number still lead to the file when the kernel took the request? Before request_complete. */
void aio_learn_whether_current(struct slot *slot);

/* ---- aio_reap.c ---- */

/* Turn an event of the kernel's into the program's. *over: window_fine_now() since the kernel told of it, or 0: to be asked if it is needed. */
void aio_finish(struct aio *aio, struct io_event *event, int64_t *over);

#endif
