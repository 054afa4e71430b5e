/*
 * What every way of opening a file by path has in common: a truncation is announced before, the number learned after.
 */
#ifndef BOUNCEIO_ENTRY_OPEN_H
#define BOUNCEIO_ENTRY_OPEN_H

#include "engine/change.h"

void open_begin(struct change *change, int directory, const char *path, int flags);

/* `fd`: what the open returned, or -1 with errno. @return fd, errno untouched. */
int open_end(struct change *change, int fd, int flags);

#endif
