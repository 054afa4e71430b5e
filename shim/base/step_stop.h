/*
 * Stopping a program between two steps, in the test build. BOUNCEIO_TEST_STOP="<step>[#<n>]:<action>"
 *
 *   step     the name of a STEP, or * for any
 *   n        the how-manyth time that it is reached since the variable was set; default 1
 *   action   kill          SIGKILL to this process
 *            stop          SIGSTOP to this process
 *            wait=<file>   this thread goes on when the file exists
 *
 * The variable is looked at whenever a step is reached, so a program arms it with setenv(3) just before the request in question.
 */
#ifndef BOUNCEIO_BASE_STEP_STOP_H
#define BOUNCEIO_BASE_STEP_STOP_H

void step_stop(const char *name);

#endif
