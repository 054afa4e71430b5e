/*
 * bounceio stat: the parts that print files, processes and the store.
 */
#ifndef BOUNCEIO_CLI_STAT_H
#define BOUNCEIO_CLI_STAT_H

#include "cli/json.h"

struct stat_run {
    struct json *json; /* NULL: for people */
    bool verbose;
    int status;        /* exit status so far */
    unsigned reported; /* things printed so far */
};

/* What the map of `key` says about the file at `path`, of `size` bytes. @return an exit status */
struct map_key;
int stat_file(struct stat_run *run, const char *path, uint64_t size, const struct map_key *key, bool named);

/* The sessions of a process. @return an exit status */
int stat_process(struct stat_run *run, uint64_t pid);

/* All live sessions, and what the store holds. */
int stat_store(struct stat_run *run);

#endif
