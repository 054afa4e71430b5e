/* The shared counters and their report. See stats.h. */
#include "base/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "base/own_file.h"
#include "base/raw.h"
#include "bounceio.h"

enum { REPORT_SIZE = 4096, PATH_SIZE = 4096 + 64 };

static struct stats_shard private_shards[STATS_SHARDS];
struct stats_shard *stats_shards = private_shards;
_Thread_local unsigned stats_my_shard;

static struct stats_shared *shared;                /* one mapping, shared with every forked child */
static int loader;                                 /* pid of the process that loaded the shim */
static struct own_file report_stderr = {.fd = -1}; /* programs close their stderr before they end */

unsigned stats_choose_shard(void)
{
    static _Atomic unsigned threads;
    /* Relaxed: only the spread matters. */
    stats_my_shard = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % STATS_SHARDS + 1;
    return stats_my_shard;
}

uint64_t stats_get(enum stat_counter counter)
{
    uint64_t sum = 0;
    for (int i = 0; i < STATS_SHARDS; i++)
        sum += atomic_load_explicit(&stats_shards[i].counter[counter], memory_order_relaxed); /* as in stats_add */
    return sum;
}

const struct stats_shared *stats_memory(void)
{
    return shared;
}

static bool reports_to_stderr(void)
{
    return config.stats && strcmp(config.stats, "stderr") == 0;
}

void stats_start(void)
{
    loader = (int)raw(SYS_getpid);
    long address =
        raw(SYS_mmap, NULL, sizeof(struct stats_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!raw_failed(address)) {
        shared = (struct stats_shared *)address;
        memcpy(shared->magic, STATS_MAGIC, sizeof(shared->magic));
        shared->counters = STAT_COUNT;
        stats_shards = shared->shards;
    }
    if (reports_to_stderr()) {
        long fd = raw(SYS_fcntl, STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        if (!raw_failed(fd))
            own_file_keep(&report_stderr, (int)fd);
    }
}

/* `text` as the inside of a JSON string; what is not printable ASCII becomes '?', so that the report is valid JSON. */
static void json_escape(char *to, size_t size, const char *text)
{
    size_t used = 0;
    for (; *text && used + 3 < size; text++) {
        if (*text == '"' || *text == '\\')
            to[used++] = '\\';
        to[used++] = *text >= ' ' && *text <= '~' ? *text : '?';
    }
    to[used] = '\0';
}

static size_t format_report(char *report, size_t size)
{
    static const char *const names[] = {
#define STATS_NAME(name) #name,
        STATS_COUNTERS(STATS_NAME)
#undef STATS_NAME
    };
    char command[256];
    json_escape(command, sizeof(command), program_invocation_short_name);
    size_t used = log_format(report, size, "{\n  \"version\": \"%s\",\n  \"pid\": %d,\n  \"command\": \"%s\"",
                             BOUNCEIO_VERSION, loader, command);
    for (int i = 0; i < STAT_COUNT; i++)
        used += log_format(report + used, size - used, ",\n  \"%s\": %llu", names[i],
                           (unsigned long long)stats_get((enum stat_counter)i));
    return used + log_format(report + used, size - used, "\n}\n");
}

/* Copy `pattern` with every %p replaced by the pid of the process that loaded the shim. */
static bool expand_path(char *path, size_t size, const char *pattern)
{
    size_t used = 0;
    while (*pattern && used + 1 < size) {
        if (pattern[0] == '%' && pattern[1] == 'p') {
            used += log_format(path + used, size - used, "%d", loader);
            pattern += 2;
        } else {
            path[used++] = *pattern++;
        }
    }
    path[used] = '\0';
    return !*pattern;
}

static long write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        long written = raw(SYS_write, fd, text, length);
        if (written == -EINTR)
            continue;
        if (raw_failed(written))
            return written;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

static long write_new_file(const char *path, const char *report, size_t length)
{
    char temporary[PATH_SIZE + 32];
    log_format(temporary, sizeof(temporary), "%s.%d.tmp", path, (int)raw(SYS_getpid));
    raw(SYS_unlinkat, AT_FDCWD, temporary, 0); /* left by a process of the same pid that was killed here */
    long fd = raw(SYS_openat, AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (raw_failed(fd))
        return fd;
    long result = write_all((int)fd, report, length);
    raw(SYS_close, fd);
    if (!raw_failed(result))
        result = raw(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 0);
    if (raw_failed(result))
        raw(SYS_unlinkat, AT_FDCWD, temporary, 0);
    return result;
}

/* A pipe or a terminal cannot be replaced; it is written to. */
static long write_report(const char *path, const char *report, size_t length)
{
    struct stat status;
    if (raw_failed(raw(SYS_newfstatat, AT_FDCWD, path, &status, 0)) || S_ISREG(status.st_mode))
        return write_new_file(path, report, length);
    long fd = raw(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (raw_failed(fd))
        return fd;
    long result = write_all((int)fd, report, length);
    raw(SYS_close, fd);
    return result;
}

/* Has it left, by whatever way? One that nobody has waited for yet still answers a signal, but as a zombie. */
static bool process_is_gone(int pid)
{
    char path[32], text[512];
    log_format(path, sizeof(path), "/proc/%d/stat", pid);
    long fd = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (raw_failed(fd))
        return raw(SYS_kill, pid, 0) == -ESRCH;
    long length = raw(SYS_read, fd, text, sizeof(text) - 1);
    raw(SYS_close, fd);
    if (length <= 0)
        return true;
    text[length] = '\0';
    const char *end_of_name = strrchr(text, ')');
    return end_of_name && (end_of_name[2] == 'Z' || end_of_name[2] == 'X');
}

static bool report_is_ours(void)
{
    if ((int)raw(SYS_getpid) == loader)
        return true;
    /* Relaxed: a hint; the answer does not depend on other memory. */
    return (shared && atomic_load_explicit(&shared->reported, memory_order_relaxed)) || process_is_gone(loader);
}

void stats_report(void)
{
    char report[REPORT_SIZE], path[PATH_SIZE];
    if (!config.stats || !loader || !report_is_ours())
        return;
    size_t length = format_report(report, sizeof(report));
    if (shared && (int)raw(SYS_getpid) == loader)
        atomic_store_explicit(&shared->reported, true, memory_order_relaxed); /* as in report_is_ours */
    if (reports_to_stderr()) {
        int kept = own_file_get(&report_stderr);
        log_put(kept >= 0 ? kept : STDERR_FILENO, report, length);
        return;
    }
    long result = expand_path(path, sizeof(path), config.stats) ? write_report(path, report, length) : -ENAMETOOLONG;
    if (raw_failed(result))
        log_warn("cannot write BOUNCEIO_STATS=%s: %s", config.stats, log_reason(result));
}
