/*
 * Sequences that the map must survive: programs run with a build of the shim that delays the steps of its protocol, and the
 * check that follows each of them: every block of the file, read by a fresh process, agrees with its checksum.
 *
 *    1  space or quota gives out in the middle of a write              shim/test_map_sequences, shim/test_sequences_refused
 *    2  sectors of one block      3  a block that toggles      4  mutators among readers and writers    shim/test_map_races
 *    5  death at each step        shim/test_sequences_death
 *    6  writes that land after death                            unit/test_settle_uring
 *    7  power cuts                torture/powercut              8  a first session that is killed    shim/test_sequences_boot
 *    9  changes from outside      shim/test_map_outside, shim/test_wolf, shim/test_wolf_times, shim/test_wolf_life
 *   10  a flip after a kill       shim/test_sequences_death, shim/test_corruption_life
 *   11  crowds, look-alikes       shim/test_sequences_crowd, shim/test_map_sequences
 *   12  stores that fail          shim/test_store_faults, shim/test_store_limits
 *
 * BOUNCEIO_SHIM_STEPS names that build; without it BOUNCEIO_SHIM is used, at full speed.
 */
#ifndef BOUNCEIO_TESTS_SEQUENCE_H
#define BOUNCEIO_TESTS_SEQUENCE_H

#include <stddef.h>

#include "support/support.h"

/*
 * The file systems that sequences run on: XFS, ext4, btrfs without copy-on-write, or what there is without root.
 * @return their number, at least 1.
 */
size_t sequence_filesystems(struct test_fs *fs);

/* Run this program's mode argv[0] under the steps build, with delays; fails the test unless it succeeds. */
void sequence_run(const char *const *argv);

/* The same with an additional environment, e.g. another store. */
void sequence_run_with(const char *const *environment, const char *const *argv);

/*
 * Read every block of a file through the shim, in a fresh process: no EIO, no mismatch, nothing taken for an outside change, and
 * at least `verified` blocks that agree with their checksum.
 */
void sequence_idle_entries_are_true(const char *path, size_t verified);

/* Modes that every program with sequences lists. */
#define SEQUENCE_MODES                                                                                                 \
    {"--reread", sequence_reread}, {"--write", sequence_write},                                                        \
    {                                                                                                                  \
        "--check", sequence_check                                                                                      \
    }

enum { SEQUENCE_BYTES = 32 * BLOCK }; /* what --write writes and --check reads */

/* --reread FILE VERIFIED: see sequence_idle_entries_are_true. */
int sequence_reread(int argc, char **argv);

/* --write FILE SEED: a program that writes the pattern over the whole file and leaves. */
int sequence_write(int argc, char **argv);

/*
 * --check FILE SEED NOTICED: a program that reads it all, twice. NOTICED is 1 when the first reading must find that the file was
 * changed outside, 0 when it must not; the second one finds nothing new.
 */
int sequence_check(int argc, char **argv);

/* Leave the program when the shim has counted a mismatch. */
void sequence_no_mismatch(void);

void sequence_sleep(unsigned milliseconds);

/* Run a command of the system without the shim. @return true when it succeeded; otherwise its errors are printed. */
bool system_command(const char *const *argv);

/*
 * A small file system of its own for one test: `megabytes` on a loop device over the file `image`, mounted on `directory` (made
 * here). Kinds as in BOUNCEIO_TEST_FS. @return false when the run may not do that; the test then says why and returns.
 */
bool small_filesystem_mount(const char *kind, const char *image, const char *directory, unsigned megabytes);
/* Mount an image that has been made before. */
bool image_mount(const char *kind, const char *image, const char *directory);
void filesystem_unmount(const char *directory);

#endif
