/*
 * Scaffolding shared by all test programs: file systems, buffers, random numbers, children with and without the shim,
 * and access to files behind the shim's back.
 *
 * A test program is one call of support_main. Everything here ends the program with a message when the scaffolding
 * itself fails; only the behaviour under test is left to the test. "behind" means: by system calls that no wrapper
 * sees.
 */
#ifndef BOUNCEIO_TESTS_SUPPORT_H
#define BOUNCEIO_TESTS_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Flags of preadv2(2) and pwritev2(2) that the C library may not know yet. Source: <linux/fs.h>, Linux 6.14. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x40
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

enum { BLOCK = 4096, SECTOR = 512 };

/* --- Running ------------------------------------------------------------------------------------------------------ */

/* What a program does instead of its tests when its first argument is `name`: see child_run_self. */
struct support_mode {
    const char *name;                  /* "--record" */
    int (*run)(int argc, char **argv); /* arguments after the name; returns the exit status */
};

/*
 * The body of main: run the mode that argv names, or the suite of the NULL-terminated list of tests (START_TEST names).
 * `modes` ends with a NULL name and may be NULL. BOUNCEIO_TEST_ONLY=NAME runs one test; CK_FORK=no debugs it in this
 * process. A test is killed after `seconds` (times the sanitizers' factor BOUNCEIO_TEST_SLOW, default 1).
 */
int support_main(int argc, char **argv, const char *suite, double seconds, const struct support_mode *modes,
                 const TTest *const *tests);

/* End the program with a message and errno: the scaffolding failed. */
_Noreturn void support_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Is the shim loaded into this program? */
bool shim_is_loaded(void);

/* --- File systems ------------------------------------------------------------------------------------------------- */

struct test_fs {
    char name[32];   /* "ext4", "xfs", "btrfs", "btrfs-nocow", "tmpfs" or "disk" */
    char path[4096]; /* an empty directory of this program's own, removed at the end of the process that asked */
};

enum { TEST_FS_MAX = 8 };

/*
 * The file systems of BOUNCEIO_TEST_FS, or "disk:$TMPDIR" without it. `fs` receives up to TEST_FS_MAX.
 * @return their number, at least 1.
 */
size_t test_filesystems(struct test_fs *fs);

/* Find one by name. @return false when the run has none of that name; the test then prints why and returns. */
bool test_filesystem(const char *name, struct test_fs *fs);

/* Print "skipped: ..." with the test's reason. */
void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Is everything built with this sanitizer ("asan", "tsan")? Then the test is skipped, for that reason. */
bool test_skipped_under(const char *sanitizer, const char *reason);

/* "DIRECTORY/NAME" in one of 16 rotating buffers. */
const char *path_in(const char *directory, const char *name);

/* --- Memory ------------------------------------------------------------------------------------------------------- */

/* Zeroed anonymous memory, page aligned, with an inaccessible page before and after it. Released by buffer_free. */
void *buffer_new(size_t length);
void buffer_free(void *buffer, size_t length);

/* Fill with bytes that depend on `seed` and on the position in the file, `offset`, alone: any misplaced byte shows. */
void pattern_fill(void *buffer, size_t length, uint64_t seed, uint64_t offset);

/* @return the index of the first byte that differs from the pattern, or `length`. */
size_t pattern_check(const void *buffer, size_t length, uint64_t seed, uint64_t offset);

/* FNV-1a of 64 bits, continued from `hash` (start with HASH_START). */
#define HASH_START 0xcbf29ce484222325u
uint64_t hash_bytes(uint64_t hash, const void *data, size_t length);

/* --- Random numbers ----------------------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood 2014): equal seeds, equal numbers, on every machine. */
struct random {
    uint64_t state;
};

/* The seed of this run: BOUNCEIO_TEST_SEED or the clock. Printed once per program, with how to repeat. */
uint64_t random_run_seed(void);
uint64_t random_next(struct random *random);
/* 0 .. bound-1; bound > 0. */
uint64_t random_below(struct random *random, uint64_t bound);
bool random_chance(struct random *random, unsigned percent);

/* --- Children ----------------------------------------------------------------------------------------------------- */

enum preload { WITHOUT_SHIM, WITH_SHIM };

struct child {
    int status;     /* as from waitpid */
    char *output;   /* standard output, zero-terminated; never NULL */
    char *errors;   /* standard error, likewise */
    double seconds; /* wall time */
};

/*
 * Run a program to its end. `environment`: "NAME=value" strings added to ours, NULL-terminated, may be NULL; a string
 * without '=' removes the variable. WITH_SHIM puts BOUNCEIO_SHIM into LD_PRELOAD (dies when it is not set);
 * WITHOUT_SHIM removes LD_PRELOAD.
 */
struct child child_run(enum preload preload, const char *const *environment, const char *const *argv);

/* The same for this very program with `argv` after its name: argv[0] is a mode of support_main. */
struct child child_run_self(enum preload preload, const char *const *environment, const char *const *argv);

/*
 * Run `body` in `count` forked children at once; each exits with status 0 when it returns. For programs run by child_run_self: dies when
 * it cannot fork. @return whether all of them did.
 */
bool in_processes(unsigned count, void (*body)(unsigned process, void *argument), void *argument);

/* Did it exit with status 0? Prints its output when not. */
bool child_succeeded(const struct child *child);
void child_free(struct child *child);

/* --- Statistics --------------------------------------------------------------------------------------------------- */

/* One number of the report that BOUNCEIO_STATS wrote to `path`. @return -1 when there is no such file or key. */
int64_t stats_read(const char *path, const char *key);

/* --- Behind the shim ---------------------------------------------------------------------------------------------- */

/*
 * Change content as a failing disk would: through a descriptor the shim does not see, flushed, with the file's access
 * and modification times restored to the nanosecond.
 */
void flip_bit_behind(const char *path, uint64_t offset, unsigned bit);
void write_behind(const char *path, const void *data, size_t length, uint64_t offset);
void truncate_behind(const char *path, uint64_t size);

/* Read without the shim, buffered. @return bytes read; fewer than `length` at the end of the file. */
size_t read_behind(const char *path, void *data, size_t length, uint64_t offset);

/* Size, and hash of the whole content. Dies when the file cannot be read. */
uint64_t size_behind(const char *path);
uint64_t hash_behind(const char *path);

/* Create or replace a file with `length` bytes of the pattern, flushed; no wrapper sees it. */
void make_file_behind(const char *path, uint64_t seed, size_t length);

/*
 * A loop device of `bytes` over memory; it has 512 B sectors and goes with block_device_free or its last user.
 * @return false when this user or kernel cannot have one.
 */
bool block_device_new(size_t bytes, char *path, size_t room);
void block_device_free(const char *path);

#endif
