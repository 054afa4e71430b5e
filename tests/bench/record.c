#include "bench/record.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* Where progress is not rewritten in place, it is told so often. */
#define PROGRESS_NANOSECONDS 10e9

struct agenda agenda_begin(const char *experiment, const char *filesystem, unsigned results, double seconds)
{
    return (struct agenda){experiment, filesystem, clock_now() + seconds * 1e9, results, results};
}

double agenda_next(struct agenda *agenda, const char *format, ...)
{
    static double told;
    double now = clock_now(), left = agenda->end > now ? agenda->end - now : 0;
    bool in_place = isatty(STDERR_FILENO);
    unsigned results = agenda->left > 0 ? agenda->left-- : 1;

    if (in_place || now >= told + PROGRESS_NANOSECONDS) {
        va_list arguments;

        told = now;
        fprintf(stderr, "%s  %s %s %u/%u, %.0f s left: ", in_place ? "\r\033[K" : "", agenda->experiment,
                agenda->filesystem, agenda->all - results + 1, agenda->all, left / 1e9);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputs(in_place ? "" : "\n", stderr);
    }
    return left / 1e9 / results;
}

void agenda_finish(const struct agenda *agenda)
{
    (void)agenda;
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

static void begin(const struct agenda *agenda)
{
    printf("{\"experiment\": \"%s\", \"filesystem\": \"%s\"", agenda->experiment, agenda->filesystem);
}

static void end(void)
{
    puts("}");
    if (fflush(stdout) != 0)
        bench_die("standard output");
}

void record_contest(const struct agenda *agenda, const char *door, const struct contest *contest)
{
    const struct pattern *pattern = &contest->pattern;

    begin(agenda);
    printf(", \"door\": \"%s\", \"depth\": %u, \"size\": %zu, \"order\": \"%s\", \"operation\": \"%s\"", door,
           pattern->depth, pattern->size, pattern->is_random ? "random" : "sequential",
           pattern->is_write ? "write" : "read");
    printf(", \"rounds\": %u, \"requests\": %u, \"covered\": %.3f, \"sides\": [", contest->rounds, contest->requests,
           contest->covered);
    for (unsigned i = 0; i < contest->count; i++) {
        const struct outcome *outcome = &contest->outcomes[i];

        printf("%s{\"name\": \"%s\", \"time\": %.1f, \"latency50\": %.0f, \"latency99\": %.0f, \"processor\": %.1f",
               i ? ", " : "", contest->sides[i].name, outcome->time, outcome->latency50, outcome->latency99,
               outcome->processor);
        printf(", \"ratio\": %.4f, \"ratio_low\": %.4f, \"ratio_high\": %.4f, \"added\": %.1f}", outcome->ratio,
               outcome->ratio_low, outcome->ratio_high, outcome->added);
    }
    fputs("]", stdout);
    end();
}

void record_value(const struct agenda *agenda, const char *name, double value, const char *unit)
{
    begin(agenda);
    printf(", \"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\"", name, value, unit);
    end();
}

const char *size_name(uint64_t bytes)
{
    static char names[4][16];
    static unsigned last;
    char *name = names[++last % 4];

    if (bytes >= 1 << 20)
        snprintf(name, sizeof(names[0]), "%uM", (unsigned)(bytes >> 20));
    else
        snprintf(name, sizeof(names[0]), "%uK", (unsigned)(bytes >> 10));
    return name;
}
