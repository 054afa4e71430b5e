/*
 * The log: whole lines, written with one system call, to stderr or BOUNCEIO_LOG_FILE.
 *
 * Its own small formatter: stdio allocates and locks. Understands %s %d %u %ld %lu %zu %lld %llu %x %lx %llx, widths with
 * leading zeros (%016llx), %c and %%. Lines longer than 4,608 bytes are cut. Every line begins with "bounceio: ".
 * Thread-safe, async-signal-safe, leaves errno alone. Never called on a request's fast path.
 */
#ifndef BOUNCEIO_BASE_LOG_H
#define BOUNCEIO_BASE_LOG_H

#include <stdarg.h>
#include <stddef.h>

#include "base/config.h"

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Open BOUNCEIO_LOG_FILE, where it is set; called by process_start. Until then, and when it fails, the log goes to stderr. */
void log_start(void);

/* What a result of -errno means, in words ("No space left on device"). */
const char *log_reason(long result);

/* Write `length` bytes with one call, as far as `fd` takes them. Never raises SIGPIPE. */
void log_put(int fd, const char *text, size_t length);

/* The same formatter into a buffer, always terminated. @return the length, cut to size - 1. */
size_t log_format(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
size_t log_vformat(char *buffer, size_t size, const char *format, va_list arguments);

#endif
