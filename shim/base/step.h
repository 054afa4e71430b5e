/*
 * Steps of the map's protocol, named as in the model, for the test build only.
 *
 * With -DBOUNCEIO_TEST_STEPS every STEP may sleep: BOUNCEIO_TEST_DELAYS=<microseconds>[:<one in N>] makes one step in N (default
 * 16) take up to that long, so that interleavings which are rare at full speed become common. In a release build a step is nothing.
 */
#ifndef BOUNCEIO_BASE_STEP_H
#define BOUNCEIO_BASE_STEP_H

#ifdef BOUNCEIO_TEST_STEPS
void step_delay(const char *name);
#define STEP(name) step_delay(name)
#else
#define STEP(name) ((void)0)
#endif

#endif
