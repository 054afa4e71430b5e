/*
 * Participants of a model, written as the code is written: one function after the other, with a STEP before each access to what they
 * share. (Protothreads: each function keeps where it is in a counter of the participant's, so that the search can copy it.)
 *
 *   BEGIN(counter)      opens a function; END closes it, LEAVE returns from it
 *   STEP(name)          others may come in between here; what follows, up to the next STEP, is one atomic step of that name
 *   WAIT(name, when)    a step that cannot be taken until the condition holds
 *   CALL(function())    runs a function of the same kind, with a counter of its own
 *
 * What a function needs after a STEP must be in the participant; C's locals do not survive one.
 */
#ifndef BOUNCEIO_TESTS_MODEL_STEPS_H
#define BOUNCEIO_TESTS_MODEL_STEPS_H

#include "model/search.h"

enum progress { PAUSED, BLOCKED, FINISHED };

#define BEGIN(counter)                                                                                                 \
    unsigned char *const at_ = &(counter);                                                                             \
    switch (*at_) {                                                                                                    \
    default:
#define END                                                                                                            \
    }                                                                                                                  \
    *at_ = 0;                                                                                                          \
    return FINISHED

#define LEAVE                                                                                                          \
    do {                                                                                                               \
        *at_ = 0;                                                                                                      \
        return FINISHED;                                                                                               \
    } while (0)
#define STEP(name) WAIT_AT(name, true, __COUNTER__ + 1)
#define WAIT(name, when) WAIT_AT(name, when, __COUNTER__ + 1)
#define WAIT_AT(name, when, number)                                                                                    \
    do {                                                                                                               \
        *at_ = number;                                                                                                 \
        return PAUSED;                                                                                                 \
    case number:                                                                                                       \
        if (!(when))                                                                                                   \
            return BLOCKED;                                                                                            \
        search_say(name);                                                                                              \
    } while (0)

#define CALL(function) CALL_AT(function, __COUNTER__ + 1)
#define CALL_AT(function, number)                                                                                      \
    do {                                                                                                               \
        *at_ = number;                                                                                                 \
        __attribute__((fallthrough));                                                                                  \
    case number:;                                                                                                      \
        enum progress progress_ = (function);                                                                          \
        if (progress_ != FINISHED)                                                                                     \
            return progress_;                                                                                          \
    } while (0)

#endif
