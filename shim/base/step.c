/*
 * What happens at a STEP in the test build. Owns the hook and a per-thread random state for the delays.
 */
#include "base/step.h"

#ifdef BOUNCEIO_TEST_STEPS

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "base/raw.h"
#include "base/step_stop.h"

step_hook_function *_Atomic step_hook;

static uint64_t next_random(void)
{
    static _Thread_local uint64_t state __attribute__((tls_model("initial-exec")));
    if (state == 0)
        state = (uint64_t)raw(SYS_gettid) * UINT64_C(0x9E3779B97F4A7C15) + 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void step_delay(void)
{
    static _Atomic long microseconds = -1;
    static _Atomic long one_in = 16;
    long limit = microseconds;
    if (limit < 0) {
        const char *text = getenv("BOUNCEIO_TEST_DELAYS");
        char *end = NULL;
        limit = text ? strtol(text, &end, 10) : 0;
        if (end && *end == ':')
            one_in = strtol(end + 1, NULL, 10);
        if (one_in < 1)
            one_in = 1;
        microseconds = limit;
    }
    if (limit == 0 || next_random() % (uint64_t)one_in != 0)
        return;
    struct timespec delay = {.tv_nsec = (long)(next_random() % (uint64_t)limit) * 1000};
    raw(SYS_nanosleep, &delay, NULL);
}

void step_reach(const char *name)
{
    step_hook_function *hook = step_hook;
    if (hook)
        hook(name);
    step_stop(name);
    step_delay();
}

#endif
