/*
 * Configuration: the BOUNCEIO_* variables, read once at start-up, never again.
 *
 * The values are copied out of the environment, because programs overwrite it (setproctitle). A value that does not
 * parse is reported once, by name, with what is used instead. A set-user-ID program honours no variable.
 */
#ifndef BOUNCEIO_BASE_CONFIG_H
#define BOUNCEIO_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

enum mismatch_policy { ON_MISMATCH_EIO, ON_MISMATCH_WARN, ON_MISMATCH_ABORT };
enum read_policy { READ_AUTO, READ_BOUNCE, READ_INPLACE };
enum copy_policy { COPY_GUARD, COPY_KERNEL };
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct config {
    const char *store;   /* absolute directory of the maps; NULL: none, stable pages without checksums */
    const char *include; /* colon-separated globs on the absolute path; NULL: every file */
    const char *exclude; /* likewise; NULL: no file */
    const char *stats;   /* path (%p = pid) or "stderr"; NULL: no report at exit */
    const char *log_file;
    enum mismatch_policy on_mismatch;
    enum read_policy read;
    enum copy_policy copy;
    enum log_level log_level;
    size_t pool; /* bytes that are no growth when they are committed; a multiple of 2 MiB, <= pool_max */
    size_t
        pool_ready;  /* how many of them when the first direct descriptor appears: all, if somebody has set the size */
    size_t pool_max; /* bytes of address space reserved; a multiple of 2 MiB */
    bool
        store_unknown; /* store is NULL for want of a home directory: worth a warning when a map would first be needed */
    size_t test_sweep_ms; /* for tests: milliseconds between sweeps of DIRTY regions; 0: as usual */
    bool detect;
    bool adopt;
    bool disable;
};

/* Valid after process_start; constant from then on. */
extern struct config config;

/* Read the environment into `config`. Called once, by process_start. No allocation. */
void config_load(void);

/*
 * Does a colon-separated list of globs match `path`? `*` (also across '/'), `?`, `[a-z]`, `[!x]`, backslash escapes.
 * Async-signal-safe, no allocation. A NULL or empty list matches nothing.
 */
bool config_glob_list_matches(const char *globs, const char *path);

#endif
