/* See progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const uint64_t second = UINT64_C(1000000000);
enum { BAR_MAXIMUM = 40, LINE_MAXIMUM = 256 };

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * second + (uint64_t)time.tv_nsec;
}

const char *size_text(char buffer[SIZE_TEXT], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    for (; bytes >= 1023.5 && unit < 6; unit++)
        bytes /= 1024;
    snprintf(buffer, SIZE_TEXT, bytes < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return buffer;
}

static void duration_text(char buffer[SIZE_TEXT], double seconds)
{
    if (seconds > 359999)
        snprintf(buffer, SIZE_TEXT, "--:--");
    else if (seconds >= 3600)
        snprintf(buffer, SIZE_TEXT, "%u:%02u:%02u", (unsigned)seconds / 3600, (unsigned)seconds / 60 % 60,
                 (unsigned)seconds % 60);
    else
        snprintf(buffer, SIZE_TEXT, "%u:%02u", (unsigned)seconds / 60, (unsigned)seconds % 60);
}

/* The width is asked for each time: no signal handler, and always right. */
static unsigned terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void draw(const struct progress *progress)
{
    double done = (double)atomic_load_explicit(&progress->done, memory_order_relaxed);
    double total = (double)atomic_load_explicit(&progress->total, memory_order_relaxed);
    double seconds = (double)progress_elapsed(progress) / 1e9;
    double rate = seconds > 0 ? done / seconds : 0;
    double part = total > 0 ? done / total : 0;
    if (part > 1)
        part = 1;
    char done_text[SIZE_TEXT], total_text[SIZE_TEXT], rate_text[SIZE_TEXT], left_text[SIZE_TEXT];
    char numbers[LINE_MAXIMUM], bar[BAR_MAXIMUM + 1], line[2 * LINE_MAXIMUM];
    duration_text(left_text, rate > 0 && total >= done ? (total - done) / rate : 1e9);
    snprintf(numbers, sizeof numbers, " %3u%%  %s of %s  %s/s  %s left", (unsigned)(part * 100),
             size_text(done_text, done), size_text(total_text, total), size_text(rate_text, rate), left_text);
    unsigned width = terminal_width(), used = (unsigned)(strlen(progress->what) + strlen(numbers)) + 4;
    unsigned cells = width > used ? width - used : 0;
    if (cells > BAR_MAXIMUM)
        cells = BAR_MAXIMUM;
    for (unsigned i = 0; i < cells; i++)
        bar[i] = i < (unsigned)(part * cells) ? '#' : '.';
    bar[cells] = '\0';
    int length = snprintf(line, sizeof line, "%s [%s]%s", progress->what, bar, numbers);
    if (length >= (int)width) /* never wraps */
        line[width - 1] = '\0';
    fprintf(stderr, "\r%s\033[K\r", line);
    fflush(stderr);
}

void progress_open(struct progress *progress, const char *what, uint64_t total, bool quiet)
{
    *progress = (struct progress){.what = what, .begun = now(), .total = total};
    progress->shown = !quiet && isatty(STDERR_FILENO);
}

void progress_add(struct progress *progress, uint64_t bytes)
{
    /* Relaxed: numbers for the eye. */
    atomic_fetch_add_explicit(&progress->done, bytes, memory_order_relaxed);
    if (!progress->shown)
        return;
    uint64_t time = now(), next = atomic_load_explicit(&progress->next, memory_order_relaxed);
    if (time >= next && atomic_compare_exchange_strong_explicit(&progress->next, &next, time + second / 10,
                                                                memory_order_relaxed, memory_order_relaxed))
        draw(progress);
}

void progress_hide(struct progress *progress)
{
    if (!progress->shown)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

void progress_close(struct progress *progress)
{
    progress_hide(progress);
    progress->shown = false;
}

uint64_t progress_elapsed(const struct progress *progress)
{
    return now() - progress->begun;
}
