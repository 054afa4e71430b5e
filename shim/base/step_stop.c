/*
 * BOUNCEIO_TEST_STOP. Owns the count of steps since the variable was set.
 */
#include "base/step_stop.h"

#ifdef BOUNCEIO_TEST_STEPS

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/raw.h"

static const char *const actions[] = {":kill", ":stop", ":wait="};

/* Step names hold colons as well: what follows the first one that begins an action is the action. */
static const char *find_action(const char *text)
{
    const char *found = NULL;
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        const char *here = strstr(text, actions[i]);
        if (here && (!found || here < found))
            found = here;
    }
    return found;
}

static bool is_meant(const char *text, size_t length, const char *name)
{
    return (length == 1 && *text == '*') || (strlen(name) == length && memcmp(text, name, length) == 0);
}

/* How often has the variable's step been reached since it was set? */
static long count(const char *text)
{
    static const char *_Atomic counted;
    static _Atomic long times;
    const char *before = atomic_load(&counted);
    if (before != text && atomic_compare_exchange_strong(&counted, &before, text))
        atomic_store(&times, 0);
    return atomic_fetch_add(&times, 1) + 1;
}

static void wait_for(const char *path)
{
    static const struct timespec pause = {.tv_nsec = 1000 * 1000};
    while (raw_failed(raw(SYS_faccessat, AT_FDCWD, path, 0 /* F_OK */)))
        raw(SYS_nanosleep, &pause, NULL);
}

void step_stop(const char *name)
{
    const char *text = getenv("BOUNCEIO_TEST_STOP");
    const char *action = text ? find_action(text) : NULL;
    if (!action)
        return;
    const char *number = memchr(text, '#', (size_t)(action - text));
    if (!is_meant(text, (size_t)((number ? number : action) - text), name))
        return;
    if (count(text) != (number ? strtol(number + 1, NULL, 10) : 1))
        return;
    if (action[1] == 'w')
        wait_for(strchr(action, '=') + 1);
    else
        /* To this thread: one that is sent to the process may reach another first, while this one goes on for a while. */
        raw(SYS_tgkill, raw(SYS_getpid), raw(SYS_gettid), action[1] == 'k' ? SIGKILL : SIGSTOP);
}

#endif
