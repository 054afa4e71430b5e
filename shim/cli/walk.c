/* See walk.h. */
#include "cli/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

struct inode {
    dev_t device;
    ino_t number;
};

static int compare_inodes(const void *a, const void *b)
{
    const struct inode *one = a, *other = b;
    if (one->device != other->device)
        return one->device < other->device ? -1 : 1;
    return one->number < other->number ? -1 : one->number > other->number;
}

static int compare_names(const FTSENT **a, const FTSENT **b)
{
    /* The order of the command line stays as it is. */
    return (*a)->fts_level == FTS_ROOTLEVEL ? 0 : strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Has this inode come before, by this name or another? */
static bool is_known(void **seen, const struct stat *status)
{
    struct inode *inode = malloc(sizeof *inode);
    if (!inode)
        return false;
    *inode = (struct inode){status->st_dev, status->st_ino};
    struct inode *const *found = tsearch(inode, seen, compare_inodes);
    if (found && *found == inode)
        return false;
    free(inode);
    return found;
}

static bool visit(struct walk *walk, const FTSENT *entry, void **seen)
{
    bool named = entry->fts_level == FTS_ROOTLEVEL;
    switch (entry->fts_info) {
    case FTS_F:
        return is_known(seen, entry->fts_statp) || walk->file(entry->fts_path, entry->fts_statp, named, walk->context);
    case FTS_DEFAULT:
        if (!named)
            return true;
        cli_error("%s: neither a regular file nor a directory", entry->fts_path);
        break;
    case FTS_DC:
        cli_error("%s: a directory that contains itself", entry->fts_path);
        break;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
    case FTS_SLNONE:
        cli_error("%s: %s", entry->fts_path, strerror(entry->fts_errno ? entry->fts_errno : ENOENT));
        break;
    default: /* directories, symbolic links */
        return true;
    }
    walk->errors++;
    return true;
}

bool walk_paths(struct walk *walk, char *const *paths)
{
    bool all = true;
    void *seen = NULL;
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, compare_names);
    if (!tree) {
        cli_error("cannot walk the directories: %s", strerror(errno));
        walk->errors++;
        return true;
    }
    errno = 0;
    for (const FTSENT *entry = fts_read(tree); all && entry; entry = all ? fts_read(tree) : NULL)
        all = visit(walk, entry, &seen);
    fts_close(tree);
    tdestroy(seen, free);
    return all;
}

int walk_open(const char *path, const struct stat *status, bool named, int flags)
{
    struct stat now;
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (named ? 0 : O_NOFOLLOW));
    if (fd < 0)
        return -errno;
    if (fstat(fd, &now) == 0 && now.st_dev == status->st_dev && now.st_ino == status->st_ino)
        return fd;
    close(fd);
    return -ESTALE;
}

int walk_open_to_ask(const char *path, const struct stat *status, bool named)
{
    int fd = walk_open(path, status, named, O_RDONLY);
    return fd < 0 ? walk_open(path, status, named, O_PATH) : fd;
}
