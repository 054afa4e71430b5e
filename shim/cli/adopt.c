/*
 * bounceio adopt: blocks of files take the checksum of the content that they have.
 *
 * Online as well: what programs under the shim write meanwhile is seen (engine/adopt.h). Blocks that somebody was writing get another
 * chance; then they are left to their writer, who records a checksum as well.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/config.h"
#include "cli/cli.h"
#include "cli/crew.h"
#include "cli/ledger.h"
#include "cli/trust.h"
#include "cli/work.h"
#include "engine/adopt.h"

static const char help[] =
    "Usage: bounceio adopt [OPTION]... PATH...\n\n"
    "Give every block that has no checksum the one of its present content, so that files which were written\n"
    "without the shim are verified from now on. Of a directory, every file below it. Programs may go on using the\n"
    "files, if those that write them run under the shim.\n\n"
    "Holes of 4 MiB and more stay without checksums: nothing is stored in them. Blocks that have a checksum are\n"
    "left alone, unless:\n\n"
    "Options:\n"
    "  --trust      believe the present content of all blocks, also of damaged ones, and of files that a program\n"
    "               without the shim has changed\n"
    "  --json       the results as one JSON object\n"
    "  --jobs N     threads (default: one for each processor)\n"
    "  --quiet      no progress bar, and only files with something wrong\n"
    "  --help       this text\n\n"
    "Exit status: 0 done, 2 something could not be adopted; 130 interrupted, 143 terminated. What was adopted\n"
    "before an interruption stays; run the command again for the rest.\n";

enum {
    PIECE_BLOCKS = ADOPT_MOST,
    PIECE = PIECE_BLOCKS * BLOCK_SIZE,
    TRIES = 4,
};

static struct ledger ledger;
static bool trusting;

struct effort {
    struct subject *subject;
    struct map *map;
    char *room;   /* PIECE bytes, and as many for the second look */
    uint64_t end; /* blocks of the file */
    struct outcome outcome;
};

/* ---- A piece ---- */

struct piece {
    uint64_t first;
    uint64_t inside; /* of PIECE_BLOCKS, those that the file has */
};

/* Blocks of the piece, as far as the file goes, that have a checksum. */
static uint64_t count_known(const struct map *map, const struct piece *piece)
{
    uint64_t known = 0, run;
    for (uint64_t block = piece->first; block < piece->first + piece->inside; block++) {
        const struct block_words *words = map_words(map, block, &run);
        known += words && atomic_load_explicit(&words->current, memory_order_relaxed) != WORD_UNKNOWN;
    }
    return known;
}

static void fail(struct effort *effort, const char *why)
{
    subject_fail(effort->subject, why);
    effort->outcome.unsettled = true;
}

/* Read the piece and adopt. @return whether every block is settled; *adopted is raised. */
static bool try_piece(struct effort *effort, const struct piece *piece, uint64_t *adopted)
{
    uint64_t sums[PIECE_BLOCKS];
    ssize_t length = subject_read(effort->subject, effort->room, PIECE, piece->first * BLOCK_SIZE);
    if (length < 0) {
        fail(effort, strerror((int)-length));
        return false;
    }
    effort->outcome.bytes += (uint64_t)length;
    memset(effort->room + length, 0, PIECE - (size_t)length);
    /* Beyond the end of the file there is nothing to adopt, but perhaps something to forget. */
    uint64_t blocks = ((uint64_t)length + BLOCK_SIZE - 1) / BLOCK_SIZE;
    if (trusting && map_covers(effort->map, piece->first, PIECE_BLOCKS))
        blocks = PIECE_BLOCKS;
    block_sums(&(struct block_sums){.data = effort->room, .blocks = blocks, .first = piece->first, .sums = sums});
    struct adoption adoption = {.view = &effort->subject->view, .room = effort->room + PIECE, .trust = trusting};
    int error = adopt_blocks(&adoption, piece->first, blocks, sums);
    *adopted += adoption.adopted;
    if (error != 0) {
        fail(effort, error == -ENOSPC ? "the store is full" : strerror(-error));
        return false;
    }
    bool settled = true;
    for (uint64_t i = 0; i < blocks && settled; i++)
        settled = trust_is_settled(effort->map, piece->first + i, sums[i]);
    return settled;
}

static void adopt_piece(struct effort *effort, uint64_t first)
{
    const struct timespec moment = {.tv_nsec = 1000 * 1000};
    struct piece piece = {.first = first};
    if (first < effort->end)
        piece.inside = effort->end - first < PIECE_BLOCKS ? effort->end - first : PIECE_BLOCKS;
    uint64_t known = count_known(effort->map, &piece), adopted = 0;
    if (!trusting && known == piece.inside) {
        effort->outcome.kept += known;
        return;
    }
    bool settled = false;
    for (int try = 0; try < TRIES && !settled && !subject_is_failed(effort->subject) && !crew_stopped(); try++) {
        if (try > 0)
            nanosleep(&moment, NULL);
        settled = try_piece(effort, &piece, &adopted);
        settled |= !trusting && count_known(effort->map, &piece) == piece.inside;
    }
    uint64_t now = count_known(effort->map, &piece);
    effort->outcome.unsettled |= !settled;
    effort->outcome.adopted += adopted;
    effort->outcome.kept += now > adopted ? now - adopted : 0;
    effort->outcome.unverified += piece.inside - now;
}

/* ---- A region ---- */

/* Is nothing stored in the file there, and nothing known of it? */
static bool is_hole(const struct effort *effort, uint64_t first, uint64_t blocks)
{
    uint64_t run;
    if (map_words(effort->map, first, &run))
        return false;
    if (first >= effort->end)
        return true;
    off_t data = lseek(effort->subject->view.fd, (off_t)(first * BLOCK_SIZE), SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= (first + blocks) * BLOCK_SIZE;
}

static void adopt_unit(struct effort *effort, uint64_t first)
{
    if (is_hole(effort, first, UNIT_BLOCKS)) {
        if (first < effort->end)
            effort->outcome.holes += effort->end - first < UNIT_BLOCKS ? effort->end - first : UNIT_BLOCKS;
        progress_add(&ledger.progress, UNIT_BLOCKS * BLOCK_SIZE);
        return;
    }
    for (uint64_t done = 0; done < UNIT_BLOCKS && !crew_stopped(); done += PIECE_BLOCKS) {
        adopt_piece(effort, first + done);
        if (first + done < effort->end)
            progress_add(&ledger.progress, PIECE);
    }
}

static void adopt_region(struct subject *subject, uint64_t region, char *room)
{
    struct effort effort = {.subject = subject,
                            .map = &subject->view.file->map,
                            .room = room,
                            .end = (subject->size + BLOCK_SIZE - 1) / BLOCK_SIZE};
    uint64_t done = 0;
    if (map_is_behind(effort.map))
        map_refresh(effort.map);
    for (; done < REGION_BLOCKS && !crew_stopped() && !subject_is_failed(subject); done += UNIT_BLOCKS)
        adopt_unit(&effort, region * REGION_BLOCKS + done);
    effort.outcome.incomplete = crew_stopped() != 0;
    effort.outcome.unsettled |= effort.outcome.incomplete || !trusting;
    if (!effort.outcome.unsettled)
        trust_region(effort.map, region);
    subject_add(subject, &effort.outcome);
}

/* ---- A file ---- */

static void open_subject(struct subject *subject)
{
    if (subject_open(subject, true) != SUBJECT_OPEN)
        return;
    trust_settle(subject);
    if (trusting)
        trust_open(subject, true);
    subject->regions = trust_regions(subject);
}

static void close_subject(struct subject *subject)
{
    if (subject->view.file && !subject_is_failed(subject))
        trust_close(subject);
    subject_close(subject);
    ledger_add(&ledger, subject);
}

static enum work_wish wish(const char *path, const struct stat *status, bool named)
{
    enum subject_state state = subject_look(path, status, named);
    bool can = state == SUBJECT_HAS_MAP || (state == SUBJECT_HAS_NONE && status->st_size > 0);
    return can ? WORK_TAKE : WORK_IGNORE;
}

int adopt_main(int argc, char **argv)
{
    static const struct work work = {"adopt", wish, {open_subject, adopt_region, close_subject}};
    struct work_options options;
    int status = work_read_options(&options, argc, argv, true);
    if (status != CLI_CLEAN)
        return status < 0 ? cli_help(help) : status;
    if (cli_open_store(true) != CLI_CLEAN)
        return CLI_FAILED;
    trusting = options.trust;
    ledger.adopting = true;
    return work_run(&work, &options, argv + optind, &ledger);
}
