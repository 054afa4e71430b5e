/*
 * The benchmark's measurements. tests/bench/run.sh runs them under the shim, on the file systems, and report.py says what they mean.
 *
 *   LD_PRELOAD=libbounceshim.so BOUNCEIO_EXCLUDE=... bench [--quick] [--only WORDS] EXPERIMENT FILESYSTEM SECONDS DIRECTORY [DIRECTORY]
 *
 * One cell, for a profiler: bench --only "blocking random 4K write" matrix xfs 10 /mnt
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
    fputs("usage: bench [--quick] [--only WORDS] EXPERIMENT FILESYSTEM SECONDS DIRECTORY [DIRECTORY]\nexperiments:",
          stderr);
    for (int i = 0; i < EXPERIMENTS; i++)
        fprintf(stderr, " %s", experiments[i].name);
    fputc('\n', stderr);
    return 2;
}

static bool has_word(const char *text, const char *word, size_t length)
{
    for (const char *at = text; (at = strchr(at, *word)) != NULL; at++)
        if (strncmp(at, word, length) == 0 && (at == text || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0))
            return true;
    return false;
}

bool setting_wants(const struct setting *setting, const char *name)
{
    for (const char *word = setting->only ? setting->only : ""; *word;) {
        size_t length = strcspn(word, " ");

        if (length > 0 && !has_word(name, word, length))
            return false;
        word += length + (word[length] == ' ');
    }
    return true;
}

int main(int argc, char **argv)
{
    struct setting setting = {.is_quick = false};
    char **words = argv + 1, **end = argv + argc;

    for (; words < end && strncmp(*words, "--", 2) == 0; words++) {
        if (strcmp(*words, "--quick") == 0)
            setting.is_quick = true;
        else if (strcmp(*words, "--only") == 0 && words + 1 < end)
            setting.only = *++words;
        else
            return usage();
    }
    if (end - words < 4)
        return usage();
    setting.filesystem = words[1];
    setting.seconds = strtod(words[2], NULL);
    setting.directory = words[3];
    setting.second = end - words > 4 ? words[4] : NULL;
    for (int i = 0; i < EXPERIMENTS; i++) {
        if (strcmp(words[0], experiments[i].name) != 0 || end - words != 3 + experiments[i].directories)
            continue;
        experiments[i].run(&setting);
        if (ferror(stdout) || fclose(stdout) != 0)
            bench_die("standard output");
        return 0;
    }
    return usage();
}
