#include "bench/sample.h"

#include <stdlib.h>
#include <time.h>

static double clock_of(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

double clock_now(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

double clock_processor(void)
{
    return clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

double clock_cost(void)
{
    enum { RUNS = 101, CALLS = 200 };
    static double cost;
    double runs[RUNS];

    if (cost > 0)
        return cost;
    for (int i = 0; i < RUNS; i++) {
        double start = clock_now();

        for (int call = 1; call < CALLS; call++)
            clock_now();
        runs[i] = (clock_now() - start) / CALLS;
    }
    cost = list_at(runs, RUNS, 0.5);
    return cost;
}

/* Below HISTOGRAM_STEPS nanoseconds the first row counts them one by one; each further row is one power of two. */
void histogram_add(struct histogram *histogram, double nanoseconds)
{
    uint64_t value = nanoseconds > 0 ? (uint64_t)nanoseconds : 0;
    unsigned power = 0;

    while (value >= 2 * HISTOGRAM_STEPS || (power == 0 && value >= HISTOGRAM_STEPS)) {
        if (power + 1 == HISTOGRAM_POWERS) {
            value = 2 * HISTOGRAM_STEPS - 1;
            break;
        }
        if (power > 0)
            value >>= 1;
        power++;
    }
    histogram->counts[power][value % HISTOGRAM_STEPS]++;
    histogram->total++;
}

double histogram_at(const struct histogram *histogram, double share)
{
    double wanted = share * (double)histogram->total;
    uint64_t seen = 0;

    for (unsigned power = 0; power < HISTOGRAM_POWERS; power++) {
        for (unsigned step = 0; step < HISTOGRAM_STEPS; step++) {
            seen += histogram->counts[power][step];
            if (histogram->counts[power][step] == 0 || (double)seen < wanted)
                continue;
            if (power == 0)
                return step;
            return (double)(HISTOGRAM_STEPS + step) * (double)(UINT64_C(1) << (power - 1));
        }
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double list_at(double *values, size_t count, double share)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof(*values), by_value);
    return values[(size_t)(share * (double)(count - 1) + 0.5)];
}
