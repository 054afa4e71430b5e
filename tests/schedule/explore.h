/*
 * Choosing: every schedule with few preemptions, one after the other, or random ones.
 *
 * A preemption takes over from a participant that could go on. Errors that need more than two of them are rare
 * (Musuvathi and Qadeer, "Iterative context bounding for systematic testing of multithreaded programs", PLDI 2007).
 */
#ifndef BOUNCEIO_TESTS_SCHEDULE_EXPLORE_H
#define BOUNCEIO_TESTS_SCHEDULE_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>

/* Every combination of choices; or random ones, from a seed. */
void explore_all(void);
void explore_random(uint64_t seed);

/* Begin the next schedule. @return false when all have been (never, at random). */
bool explore_next(void);

/* Begin the same schedule again. */
void explore_again(void);

/* One of 0 .. ways - 1. At random the first comes as often as all others together. */
unsigned explore_choose(unsigned ways);

#endif
