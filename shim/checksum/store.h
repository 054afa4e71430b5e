/*
 * The store: the directory that holds the maps, opened once by each process that needs one.
 *
 * Mode 0700, ours, opened without following a link. What cannot be had is said once, by name and reason, and the program goes
 * on with stable pages and no checksums.
 */
#ifndef BOUNCEIO_CHECKSUM_STORE_H
#define BOUNCEIO_CHECKSUM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "checksum/format.h"

/*
 * Open the store, creating it when `create`. Called with the process lock held; idempotent.
 * @return 0; -ENOENT when there is none and !create (silent); another -errno after one warning.
 */
int store_open(bool create);

/*
 * The same without creating it, for callers without the lock, and the guard, before its memory is touched. Every path to a map
 * comes through here, or has installed the guard for a direct descriptor. @return whether there is a store.
 */
bool store_prepare(void);

/* Memory shared by all sessions of the store; NULL before store_open. Any thread. */
struct store_shared *store_shared(void);

/*
 * The `maps` directory and the lock file: descriptors of ours, checked to be what they were when opened. Process lock held.
 * @return the descriptor, or -EBADF.
 */
int store_maps_directory(void);
int store_lock_file(void);

/*
 * In a forked child: close the descriptors it inherited, so that it neither keeps its parent's lock alive nor releases it.
 * Async-signal-safe.
 */
void store_drop_inherited(void);

/*
 * Open maps/NAME for a moment, even if the program has as many files open as it may: a number is kept for that. What is opened, by one at
 * a time, is given back by store_close_map. Process lock held. @return a descriptor, or -errno.
 */
int store_open_map(const char *name);
void store_close_map(int fd);

/* Open sessions/SLOT. @return a descriptor to be closed by the caller, or -errno. */
int store_open_session(unsigned slot, bool create);

/* This boot of this machine, 16 bytes as two words. BOUNCEIO_TEST_BOOT_ID (32 hex digits) replaces it in tests. */
void store_boot_id(uint64_t boot[2]);

/*
 * Allocate [offset, offset + length) of one of the store's files on disk, and make it that long. @return 0 or -errno; -EFBIG, without asking
 * the kernel, beyond the program's RLIMIT_FSIZE: that would be a SIGXFSZ.
 */
int store_allocate(int fd, uint64_t offset, uint64_t length);

/* The same, and zeros are there afterwards, whatever was. Not where anybody has the range mapped for use. */
int store_allocate_zeros(int fd, uint64_t offset, uint64_t length);

/* Say once that checksums are unavailable, and why. */
void store_complain(const char *what, int error);

#endif
