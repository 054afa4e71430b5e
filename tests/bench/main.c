/*
 * The benchmark's measurements. tests/bench/run.sh runs them under the shim, on the file systems, and report.py says what they mean.
 *
 *   LD_PRELOAD=libbounceshim.so BOUNCEIO_EXCLUDE=... bench [--quick] EXPERIMENT FILESYSTEM SECONDS DIRECTORY [DIRECTORY]
 *
 * Sides of a comparison take turns in one process (contest.h). A side without the shim calls the libraries past it (door.h), on a
 * file that the shim leaves alone. Without the shim both sides are the same, and the results say so: "covered" is 0.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/door.h"
#include "bench/experiment.h"

static const struct {
    const char *name;
    void (*run)(const struct setting *setting);
    int directories;
} experiments[] = {{"matrix", experiment_matrix, 1},       {"control", experiment_control, 1},
                   {"buffered", experiment_buffered, 2},   {"threads", experiment_threads, 1},
                   {"new-files", experiment_new_files, 1}, {"added", experiment_added, 1}};

enum { EXPERIMENTS = sizeof(experiments) / sizeof(experiments[0]) };

static int usage(void)
{
    fputs("usage: bench [--quick] EXPERIMENT FILESYSTEM SECONDS DIRECTORY [DIRECTORY]\nexperiments:", stderr);
    for (int i = 0; i < EXPERIMENTS; i++)
        fprintf(stderr, " %s", experiments[i].name);
    fputc('\n', stderr);
    return 2;
}

int main(int argc, char **argv)
{
    bool is_quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    char **words = argv + 1 + is_quick;
    int count = argc - 1 - is_quick;

    if (count < 4)
        return usage();
    struct setting setting = {.filesystem = words[1],
                              .directory = words[3],
                              .second = count > 4 ? words[4] : NULL,
                              .seconds = strtod(words[2], NULL),
                              .is_quick = is_quick};

    for (int i = 0; i < EXPERIMENTS; i++) {
        if (strcmp(words[0], experiments[i].name) != 0 || count != 3 + experiments[i].directories)
            continue;
        experiments[i].run(&setting);
        if (ferror(stdout) || fclose(stdout) != 0)
            bench_die("standard output");
        return 0;
    }
    return usage();
}
