/*
 * The files that a command line names: files themselves, and every regular file below a directory, sorted by name.
 *
 * Symbolic links are followed where they are named, never below a directory. An inode with several names comes once. What cannot be
 * looked at is said, counted, and passed over.
 */
#ifndef BOUNCEIO_CLI_WALK_H
#define BOUNCEIO_CLI_WALK_H

#include <stdbool.h>
#include <sys/stat.h>

struct walk {
    /* Called for each regular file; `named`: on the command line, not found below a directory. @return false to stop here. */
    bool (*file)(const char *path, const struct stat *status, bool named, void *context);
    void *context;
    unsigned errors; /* things that could not be looked at, and named ones that are neither file nor directory */
};

/* `paths` ends with NULL. @return false when a callback stopped it. */
bool walk_paths(struct walk *walk, char *const *paths);

/*
 * Open a file found by a walk, unless it is another one by now. `flags` as for open(2); O_CLOEXEC is added, and links are not followed
 * unless the file was named. @return a descriptor, or -errno (-ESTALE: another file).
 */
int walk_open(const char *path, const struct stat *status, bool named, int flags);

/* To ask for its identity: for reading where that is permitted, which tells most about its file system, else O_PATH. */
int walk_open_to_ask(const char *path, const struct stat *status, bool named);

#endif
