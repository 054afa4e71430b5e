/* See work.h. */
#include "cli/work.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/walk.h"

static bool read_jobs(const char *text, unsigned *jobs)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < 1 || number > CREW_JOBS_MOST)
        return false;
    *jobs = (unsigned)number;
    return true;
}

int work_read_options(struct work_options *options, int argc, char **argv, bool may_trust)
{
    const struct option known[] = {{"json", no_argument, NULL, 'J'},
                                   {"jobs", required_argument, NULL, 'j'},
                                   {"quiet", no_argument, NULL, 'q'},
                                   {"help", no_argument, NULL, 'h'},
                                   {may_trust ? "trust" : NULL, no_argument, NULL, 't'},
                                   {NULL, 0, NULL, 0}};
    *options = (struct work_options){.jobs = crew_default_jobs()};
    for (int option; (option = getopt_long(argc, argv, "j:qh", known, NULL)) != -1;)
        switch (option) {
        case 'J':
            options->json = true;
            break;
        case 'q':
            options->quiet = true;
            break;
        case 't':
            options->trust = true;
            break;
        case 'h':
            return -1;
        case 'j':
            if (read_jobs(optarg, &options->jobs))
                break;
            cli_error("--jobs=%s is not a number from 1 to %d", optarg, CREW_JOBS_MOST);
            return cli_usage(argv);
        default:
            return cli_usage(argv);
        }
    if (optind == argc) {
        cli_error("which files or directories?");
        return cli_usage(argv);
    }
    return CLI_CLEAN;
}

/* ---- The files ---- */

struct search {
    const struct work *work;
    struct ledger *ledger;
    struct crew_list list;
    bool failed;
};

static bool find_file(const char *path, const struct stat *status, bool named, void *context)
{
    struct search *search = context;
    if (crew_stopped())
        return false;
    enum work_wish wish = search->work->wish(path, status, named);
    search->ledger->without_map += wish == WORK_PASS_OVER;
    if (wish != WORK_TAKE)
        return true;
    struct subject *subject = subject_new(path, status, named);
    search->failed = !subject || !crew_list_add(&search->list, subject);
    return !search->failed;
}

int work_run(const struct work *work, const struct work_options *options, char **paths, struct ledger *ledger)
{
    struct search search = {.work = work, .ledger = ledger};
    struct walk walk = {.file = find_file, .context = &search};
    ledger->as_json = options->json;
    ledger->quiet = options->quiet;
    crew_catch_signals();
    walk_paths(&walk, paths);
    ledger_open(ledger, work->name, search.list.bytes);
    ledger->failed += walk.errors;
    if (search.failed || !crew_run(&work->task, &search.list, options->jobs)) {
        cli_error("%s", strerror(ENOMEM));
        ledger->failed++;
    }
    return ledger_close(ledger, crew_stopped());
}
