/* The formatter, and where lines go. See log.h. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/own_file.h"
#include "base/process.h"
#include "base/raw.h"

enum { LINE_SIZE = 4608, SHORT_LINE_SIZE = 1024 };
static const char line_prefix[] = "bounceio: ";

/* ---- The formatter ---- */

struct output {
    char *text;
    size_t size, used; /* used < size, always */
};

static void put_char(struct output *out, char c)
{
    if (out->used + 1 < out->size)
        out->text[out->used++] = c;
}

static void put_text(struct output *out, const char *text)
{
    for (text = text ? text : "(null)"; *text; text++)
        put_char(out, *text);
}

/* One conversion: "%08llx" has zeros, width 8, two longs and conversion x. */
struct conversion {
    bool zeros;
    unsigned width;
    int longs;
    char letter;
};

/* @return the character after the conversion. */
static const char *parse_conversion(struct conversion *conversion, const char *format)
{
    *conversion = (struct conversion){0};
    if (*format == '0') {
        conversion->zeros = true;
        format++;
    }
    for (; *format >= '0' && *format <= '9'; format++)
        conversion->width = conversion->width * 10 + (unsigned)(*format - '0');
    for (; *format == 'l' || *format == 'z'; format++)
        conversion->longs++;
    conversion->letter = *format;
    return *format ? format + 1 : format;
}

static void put_number(struct output *out, const struct conversion *conversion, uint64_t value, bool negative)
{
    char digits[20]; /* 2^64 - 1 has 20 decimal digits */
    unsigned count = 0, base = conversion->letter == 'x' ? 16 : 10;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    unsigned taken = count + negative;
    if (negative && conversion->zeros)
        put_char(out, '-');
    for (; taken < conversion->width; taken++)
        put_char(out, conversion->zeros ? '0' : ' ');
    if (negative && !conversion->zeros)
        put_char(out, '-');
    while (count)
        put_char(out, digits[--count]);
}

/* long and long long are both 64 bits wide on every platform that raw.h knows, so one fetch serves %l, %ll and %z. */
_Static_assert(sizeof(long) == sizeof(long long) && sizeof(size_t) == sizeof(long), "a 64-bit platform");

size_t log_vformat(char *buffer, size_t size, const char *format, va_list arguments)
{
    struct output out = {buffer, size, 0};
    struct conversion conversion;
    if (size == 0)
        return 0;
    while (*format) {
        if (*format != '%') {
            put_char(&out, *format++);
            continue;
        }
        const char *start = format;
        format = parse_conversion(&conversion, format + 1);
        switch (conversion.letter) {
        case 's':
            put_text(&out, va_arg(arguments, const char *));
            break;
        case 'c':
            put_char(&out, (char)va_arg(arguments, int));
            break;
        case 'd': {
            int64_t value = conversion.longs ? va_arg(arguments, long) : va_arg(arguments, int);
            put_number(&out, &conversion, value < 0 ? -(uint64_t)value : (uint64_t)value, value < 0);
            break;
        }
        case 'u':
        case 'x':
            put_number(&out, &conversion,
                       conversion.longs ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned), false);
            break;
        case '%':
            put_char(&out, '%');
            break;
        default: /* not one of ours: shown as it stands */
            while (start < format)
                put_char(&out, *start++);
        }
    }
    buffer[out.used] = '\0';
    return out.used;
}

size_t log_format(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = log_vformat(buffer, size, format, arguments);
    va_end(arguments);
    return length;
}

const char *log_reason(long result)
{
    switch (-result) {
#define REASON(number, words)                                                                                          \
    case number:                                                                                                       \
        return words;
        REASON(EPERM, "Operation not permitted")
        REASON(ENOENT, "No such file or directory")
        REASON(EIO, "Input/output error")
        REASON(ENXIO, "No such device or address")
        REASON(EBADF, "Bad file descriptor")
        REASON(EAGAIN, "Resource temporarily unavailable")
        REASON(ENOMEM, "Cannot allocate memory")
        REASON(EACCES, "Permission denied")
        REASON(EBUSY, "Device or resource busy")
        REASON(EEXIST, "File exists")
        REASON(EXDEV, "Invalid cross-device link")
        REASON(ENODEV, "No such device")
        REASON(ENOTDIR, "Not a directory")
        REASON(EISDIR, "Is a directory")
        REASON(EINVAL, "Invalid argument")
        REASON(ENFILE, "Too many open files in system")
        REASON(EMFILE, "Too many open files")
        REASON(ENOTTY, "Inappropriate ioctl for device")
        REASON(EFBIG, "File too large")
        REASON(ENOSPC, "No space left on device")
        REASON(EROFS, "Read-only file system")
        REASON(EPIPE, "Broken pipe")
        REASON(ENAMETOOLONG, "File name too long")
        REASON(ENOSYS, "Function not implemented")
        REASON(ELOOP, "Too many levels of symbolic links")
        REASON(EOVERFLOW, "Value too large for defined data type")
        REASON(EOPNOTSUPP, "Operation not supported")
        REASON(ESTALE, "Stale file handle")
        REASON(EDQUOT, "Disk quota exceeded")
#undef REASON
    default:
        return "Unknown error";
    }
}

/* ---- Where lines go ---- */

static struct own_file log_file = {.fd = -1};
static bool log_file_opened;

static uint64_t signal_bit(int number)
{
    return UINT64_C(1) << (number - 1);
}

/*
 * A pipe that nobody reads any more must not kill a program that would have lived without us: SIGPIPE is held back, and
 * taken off again when it was our write that raised it.
 */
void log_put(int fd, const char *text, size_t length)
{
    static const struct timespec now;
    uint64_t saved, before = 0, sigpipe = signal_bit(SIGPIPE);
    long written;
    process_block_signals(&saved);
    raw(SYS_rt_sigpending, &before, sizeof(before));
    do {
        written = raw(SYS_write, fd, text, length);
    } while (written == -EINTR);
    if (written == -EPIPE && !(before & sigpipe))
        raw(SYS_rt_sigtimedwait, &sigpipe, NULL, &now, sizeof(sigpipe));
    process_restore_signals(&saved);
}

static int open_log_file(void)
{
    return (int)raw(SYS_openat, AT_FDCWD, config.log_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
}

void log_start(void)
{
    if (!config.log_file)
        return;
    int fd = open_log_file();
    log_file_opened = fd >= 0;
    if (fd >= 0)
        fd = own_file_keep(&log_file, fd);
    if (fd < 0)
        log_warn("cannot open BOUNCEIO_LOG_FILE=%s: %s; using stderr", config.log_file, log_reason(fd));
}

/* Number 2 may by now be anything, even the data file that the line is about. */
static bool stderr_is_for_messages(void)
{
    struct stat status;
    long flags = raw(SYS_fcntl, STDERR_FILENO, F_GETFL);
    return !raw_failed(flags) && !(flags & O_DIRECT) && !raw_failed(raw(SYS_fstat, STDERR_FILENO, &status)) &&
           !S_ISBLK(status.st_mode);
}

static void put_line(const char *line, size_t length)
{
    int kept = own_file_get(&log_file);
    if (kept >= 0) {
        log_put(kept, line, length);
        return;
    }
    /* The program has closed the descriptor after all: open the file for this line only. */
    int fd = log_file_opened ? open_log_file() : -1;
    if (fd >= 0) {
        log_put(fd, line, length);
        raw(SYS_close, fd);
    } else if (stderr_is_for_messages()) {
        log_put(STDERR_FILENO, line, length);
    }
}

/* One message is one line, whatever characters a path has in it. */
static void flatten(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            text[i] = '?';
}

static void write_line(char *line, size_t size, const char *format, va_list arguments)
{
    const size_t prefix = sizeof(line_prefix) - 1;
    memcpy(line, line_prefix, prefix);
    size_t length = log_vformat(line + prefix, size - prefix, format, arguments);
    flatten(line + prefix, length);
    line[prefix + length] = '\n'; /* over the terminator */
    put_line(line, prefix + length + 1);
}

/* For two threads at once, or a handler that interrupts: a line that may be cut, but fits a small signal stack. */
static __attribute__((noinline)) void write_short_line(const char *format, va_list arguments)
{
    char line[SHORT_LINE_SIZE];
    write_line(line, sizeof(line), format, arguments);
}

void log_write(enum log_level level, const char *format, ...)
{
    static char shared_line[LINE_SIZE];
    static _Atomic int writer; /* pid of the process that has the line; a forked child may inherit its parent's */
    va_list arguments;
    if (level > config.log_level)
        return;
    int self = (int)raw(SYS_getpid);
    int before = atomic_load_explicit(&writer, memory_order_relaxed);
    va_start(arguments, format);
    /* Acquire: pairs with the release below. */
    if (before != self &&
        atomic_compare_exchange_strong_explicit(&writer, &before, self, memory_order_acquire, memory_order_relaxed)) {
        write_line(shared_line, sizeof(shared_line), format, arguments);
        atomic_store_explicit(&writer, 0, memory_order_release);
    } else {
        write_short_line(format, arguments);
    }
    va_end(arguments);
}
