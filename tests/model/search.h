/*
 * An explicit-state search: every state that a model can reach, in whatever order its participants take their steps.
 *
 * A model is a function that takes one step of one mover in a state. What a mover may do in more than one way, it decides by
 * search_choose, and is run once for each answer. States are compared byte by byte, so what no longer matters must be zero.
 * The search is breadth first: what it finds is found on a shortest way.
 */
#ifndef BOUNCEIO_TESTS_MODEL_SEARCH_H
#define BOUNCEIO_TESTS_MODEL_SEARCH_H

#include <stdbool.h>
#include <stddef.h>

struct search {
    size_t bytes;    /* of a state */
    unsigned movers; /* who may take the next step */
    size_t limit;    /* states; beyond it the search gives up */

    /* Take one step, changing *state. @return false when the mover cannot. Says what it did by search_say. */
    bool (*move)(void *state, unsigned mover);

    /* @return NULL, or the property that the state violates. `stuck`: nobody can move. */
    const char *(*judge)(const void *state, bool stuck);

    /* A line about the state: what the last mover left. */
    void (*print)(const void *state);

    /* How a mover is called in a trace. */
    const char *(*mover_name)(unsigned mover);
};

struct search_result {
    size_t states;
    const char *violated; /* NULL: no property */
    bool gave_up;
};

/* Search from *first; on a violation, print the way there when `trace`. */
struct search_result search_run(const struct search *search, const void *first, bool trace);

/* To be called by `move`. One of 0 .. ways - 1; each will be tried. */
unsigned search_choose(unsigned ways);
void search_say(const char *step);

#endif
