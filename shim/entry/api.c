/*
 * bounceio.h: what a program can ask the shim it runs under; and the end of the process.
 */
#include <string.h>

#include "base/process.h"
#include "base/stats.h"
#include "bounceio.h"
#include "engine/report.h"
#include "engine/survey.h"
#include "entry/entry.h"
#include "files/standing.h"

EXPORT const char *bounceio_version(void)
{
    return BOUNCEIO_VERSION;
}

EXPORT int bounceio_get_stats(struct bounceio_stats *stats, size_t size)
{
    uint64_t counters[STAT_COUNT];
    _Static_assert(sizeof *stats == sizeof counters, "one field for each counter, in the same order");
    if (!stats) {
        errno = EINVAL;
        return -1;
    }
    process_start();
    for (int i = 0; i < STAT_COUNT; i++)
        counters[i] = stats_get((enum stat_counter)i);
    memset(stats, 0, size);
    memcpy(stats, counters, size < sizeof counters ? size : sizeof counters);
    return 0;
}

EXPORT int bounceio_on_mismatch(bounceio_mismatch_callback *callback, void *argument)
{
    process_start();
    report_set_callback(callback, argument);
    return 0;
}

EXPORT int bounceio_verify_range(int fd, uint64_t offset, uint64_t length, struct bounceio_verify_result *result)
{
    if (!result || !process_start()) {
        errno = result ? ENODATA : EINVAL;
        return -1;
    }
    return (int)with_errno(survey_range(fd, offset, length, result));
}

/* A process that ends in good order leaves nothing unsettled. */
__attribute__((destructor)) static void end(void)
{
    if (process_start() && process_owns_tables())
        standing_end();
}
