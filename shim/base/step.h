/*
 * Steps of the map's protocol, named as in the model, for the test build only.
 *
 * With -DBOUNCEIO_TEST_STEPS every STEP stands before the atomic step that it names, and is a place where a test may interfere:
 *
 *   step_hook               a function that a linked test sets; it is called on the thread that takes the step, and may block or kill
 *   BOUNCEIO_TEST_DELAYS    <microseconds>[:<one in N>] makes one step in N (default 16) take up to that long, so that interleavings
 *                           which are rare at full speed become common
 *   BOUNCEIO_TEST_STOP      stops or kills the program at a step: step_stop.h
 *
 * In a release build a step is nothing.
 */
#ifndef BOUNCEIO_BASE_STEP_H
#define BOUNCEIO_BASE_STEP_H

#ifdef BOUNCEIO_TEST_STEPS
typedef void step_hook_function(const char *name);
extern step_hook_function *_Atomic step_hook; /* NULL: none */
void step_reach(const char *name);
#define STEP(name) step_reach(name)
#else
#define STEP(name) ((void)0)
#endif

#endif
