/*
 * The scene of a run: a store (BOUNCEIO_STORE, best on /dev/shm) with one map, this process's session, another session, and the page that all sessions
 * share, every one of them with the content that the input says.
 *
 * Content is put there through descriptors of the scene's own, as another process would, before the map is opened or while it is used.
 */
#ifndef BOUNCEIO_TESTS_FUZZ_SCENE_H
#define BOUNCEIO_TESTS_FUZZ_SCENE_H

#include "checksum/map.h"
#include "checksum/session_peers.h"
#include "fuzz/input.h"

enum { SCENE_PEER = 1 };

/* What may be written to at any time. */
enum scene_part { PART_HEADER, PART_REGIONS, PART_BLOCKS, PART_SESSION, PART_PEER, PART_SHARED, PART_END, PARTS };

extern const struct map_key scene_key;

/* Make the store's files and open this process's session. Once. */
void scene_make(void);

/* Lay out the map's file and the sessions' as the input says. */
void scene_set(struct input *input);

/* A word of some part, or the size of the map's file, becomes something else, at the next step of the protocol but `after`; 0: now. */
void scene_poke(struct input *input, unsigned after);

/* Put the sessions back as they were. */
void scene_reset(void);

/* A block number: mostly of a few blocks that many operations meet on. */
uint64_t scene_block(struct input *input);

/* A word for a block: mostly one that means something. */
uint64_t scene_word(struct input *input);

#endif
