/*
 * Does the file of a map still exist, and where? Asked by gc before it removes anything.
 *
 *   alive      the path that was noted leads to the inode, or else the file handle does, on a mount of its file system
 *   gone       the handle is stale on a mount of its file system, and the place where the file was is on that very mount: a clone of
 *              the file system, mounted somewhere while the original is not, proves nothing
 *   absent     its file system is not mounted, or not where we can see it
 *   undecided  anything else, with the reason
 *
 * Only "gone" is a reason to remove a map.
 */
#ifndef BOUNCEIO_CLI_LOCATE_H
#define BOUNCEIO_CLI_LOCATE_H

#include "cli/map_view.h"

enum whereabouts { FILE_ALIVE, FILE_GONE, FILE_ABSENT, FILE_UNDECIDED };

struct located {
    enum whereabouts where;
    int fd;             /* FILE_ALIVE: O_PATH descriptor of the file, the caller's to close; else -1 */
    bool by_handle;     /* the path that was noted is outdated */
    const char *reason; /* FILE_UNDECIDED */
};

void locate(const struct map_view *view, struct located *located);

/* Close what locate keeps open from one map to the next: a descriptor of each mount. */
void locate_end(void);

#endif
