/*
 * Numbers and names as people read them.
 */
#ifndef BOUNCEIO_CLI_TEXT_H
#define BOUNCEIO_CLI_TEXT_H

#include <stdint.h>

enum { TIME_TEXT = 48, BOOT_TEXT = 40, COUNT_TEXT = 32 };

/* Local time of `nanoseconds` of CLOCK_REALTIME: "2026-11-22 21:30:01 +0100". @return buffer */
const char *time_text(char buffer[TIME_TEXT], int64_t nanoseconds);

/* A boot id as /proc/sys/kernel/random/boot_id has it. @return buffer */
const char *boot_text(char buffer[BOOT_TEXT], const _Atomic uint64_t boot[2]);

/* "12,345". @return buffer */
const char *count_text(char buffer[COUNT_TEXT], uint64_t count);

/* A file's name on stdout; control characters, which a terminal would obey, as '?'. */
void print_name(const char *name);

#endif
