/*
 * Direct I/O as the tests do it: patterns written and checked through O_DIRECT descriptors, from memory at odd addresses,
 * and the shim's counters as the program itself sees them.
 *
 * Memory at an odd address is the cheapest proof that a request was bounced: the kernel refuses it. A run without the
 * shim, to see that a test is sound, needs BOUNCEIO_TEST_NATIVE=1; it uses aligned memory and sees no counters.
 */
#ifndef BOUNCEIO_TESTS_DIRECT_H
#define BOUNCEIO_TESTS_DIRECT_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bounceio.h"

enum { DIRECT_MAX = 4 << 20 }; /* longest pattern written or checked at once, in bytes */

/*
 * An assertion that works anywhere: in threads, in children, and in programs run by child_run_self, where libcheck has nobody to
 * report to. Prints the message with errno and leaves the process at once.
 */
#define check_that(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            check_failed(__FILE__, __LINE__, __VA_ARGS__);                                                             \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Is the shim under this program? Fails the test when it is not, unless BOUNCEIO_TEST_NATIVE is set. */
bool counting(void);

/* The shim's counters; zeros without the shim. They include forked children, and what ran before in this process. */
struct bounceio_stats counters(void);

/* Open with O_DIRECT | O_CLOEXEC | `flags`, mode 0600. Fails the test when that fails. */
int direct_open(const char *path, int flags);

/* Memory of this thread, DIRECT_MAX bytes, at an odd address under the shim; overwritten by the functions below. */
unsigned char *direct_memory(void);

/* The same memory, from its page-aligned beginning: what the shim may read into in place. */
unsigned char *aligned_memory(void);

/* pwrite the pattern `seed` from odd memory; the test fails unless all of it is written. */
void direct_write(int fd, uint64_t seed, off_t offset, size_t length);

/* pread into odd memory; the test fails unless all of it arrives and is the pattern `seed`. */
void direct_check(int fd, uint64_t seed, off_t offset, size_t length);

/* Is the content of the whole file, read without the shim, `length` bytes of the pattern `seed`? */
bool content_is(const char *path, uint64_t seed, size_t length);

/* The soft limits of the suite: full length with BOUNCEIO_TEST_FULL=1, a slice otherwise. */
size_t rounds(size_t slice, size_t full);

#endif
