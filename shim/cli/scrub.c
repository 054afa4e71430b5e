/*
 * bounceio scrub: read every block that has a checksum from the disk, and compare.
 *
 * A session like any other: what a running program writes meanwhile is seen as by every reader. After a region has been read each of its
 * blocks is looked at once more. When all of them were found to be as recorded, or unknown, the region is whole, and no longer suspect.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/config.h"
#include "bounce/pool.h"
#include "checksum/announce.h"
#include "cli/cli.h"
#include "cli/crew.h"
#include "cli/ledger.h"
#include "cli/trust.h"
#include "cli/work.h"
#include "engine/adopt.h"
#include "engine/decide.h"
#include "engine/missing.h"
#include "engine/report.h"
#include "engine/verify.h"

static const char help[] =
    "Usage: bounceio scrub [OPTION]... PATH...\n\n"
    "Read every block that has a checksum from the disk, and compare. Of a directory, every file below it.\n\n"
    "Programs may go on using the files. Each damaged block is reported on stderr, with its path, offset and\n"
    "checksums; a line for each file and a summary go to stdout. Blocks that an unclean stop of the machine has\n"
    "made doubtful, and files that were changed by a program without the shim, take the checksum of what is\n"
    "there, as when they are read under the shim; what turns out to be whole is doubted no longer.\n\n"
    "Files without checksums are passed over; to name one on the command line is an error: it cannot be\n"
    "verified. 'bounceio adopt' gives it checksums.\n\n"
    "Options:\n"
    "  --json       the results as one JSON object\n"
    "  --jobs N     threads (default: one for each processor)\n"
    "  --quiet      no progress bar, and only files with something wrong\n"
    "  --help       this text\n\n"
    "Exit status: 0 all is well, 1 there are damaged blocks, 2 something could not be read or verified;\n"
    "130 interrupted, 143 terminated.\n";

enum {
    PIECE = 256 << 10, /* bytes read at once: stays in a processor's cache until it is summed */
    PIECE_BLOCKS = PIECE / BLOCK_SIZE,
    OPEN_MOST = 1024, /* blocks of a region that are looked at again */
    LOOKS = 20,
};

static struct ledger ledger;

/* The file that this thread works on, for the mismatches that are reported from below. */
static _Thread_local struct subject *present;

/* One region while it is scrubbed. */
struct scan {
    struct subject *subject;
    struct map *map;
    char *room;   /* PIECE bytes, then a page of scratch */
    uint64_t end; /* blocks of the file */
    struct outcome outcome;
    uint64_t open[OPEN_MOST]; /* blocks that are not known to be as recorded */
    size_t open_count;
};

/* ---- A piece of a region ---- */

/* Is anything known of some block of the range, or pending there? */
static bool is_anything_known(const struct map *map, uint64_t first, uint64_t blocks)
{
    for (uint64_t block = first, run; block < first + blocks; block += run) {
        const struct block_words *words = map_words(map, block, &run);
        for (uint64_t i = 0; words && i < run && block + i < first + blocks; i++)
            if (atomic_load_explicit(&words[i].current, memory_order_relaxed) != WORD_UNKNOWN ||
                atomic_load_explicit(&words[i].pending, memory_order_relaxed) != WORD_IDLE)
                return true;
    }
    return false;
}

static void leave_open(struct scan *scan, uint64_t block)
{
    if (scan->open_count < OPEN_MOST)
        scan->open[scan->open_count++] = block;
    else
        scan->outcome.unsettled = true;
}

static void add_tally(struct scan *scan, const struct tally *tally)
{
    struct outcome *outcome = &scan->outcome;
    outcome->verified += tally->verified;
    outcome->unverified += tally->unverified;
    outcome->recovered += tally->recovered;
    outcome->outside += tally->outside;
    outcome->mismatched += tally->damaged;
    outcome->unreadable += tally->error != 0;
    outcome->unsettled |= tally->damaged > 0 || tally->error != 0;
}

static void verify_piece(struct scan *scan, uint64_t first, size_t length, bool at_end)
{
    struct tally tally = {0};
    uint64_t sums[PIECE_BLOCKS], blocks = (length + BLOCK_SIZE - 1) / BLOCK_SIZE;
    verify_and_count(&(struct readout){.view = &scan->subject->view,
                                       .data = scan->room,
                                       .offset = (int64_t)(first * BLOCK_SIZE),
                                       .length = length,
                                       .at_end = at_end,
                                       .certain = true,
                                       .scratch = scan->room + PIECE,
                                       .sums = sums},
                     &tally);
    add_tally(scan, &tally);
    for (uint64_t i = 0; i < blocks; i++)
        if (!trust_is_settled(scan->map, first + i, sums[i]))
            leave_open(scan, first + i);
}

/* Blocks that the file does not reach: with a checksum, something is missing. */
static void look_beyond_end(struct scan *scan, uint64_t first, uint64_t blocks)
{
    struct tally tally = {0};
    if (!is_anything_known(scan->map, first, blocks))
        return;
    missing_count(&scan->subject->view, (int64_t)(first * BLOCK_SIZE), (int64_t)((first + blocks) * BLOCK_SIZE), false,
                  &tally);
    add_tally(scan, &tally);
    for (uint64_t i = 0; i < blocks; i++)
        if (!trust_is_settled(scan->map, first + i, WORD_UNKNOWN))
            leave_open(scan, first + i);
}

static void scrub_piece(struct scan *scan, uint64_t first, uint64_t blocks);

/* Something in the piece cannot be read: find out which blocks. */
static void scrub_unreadable(struct scan *scan, uint64_t first, uint64_t blocks, int error)
{
    if (blocks > 1) {
        for (uint64_t i = 0; i < blocks && !crew_stopped(); i++)
            scrub_piece(scan, first + i, 1);
        return;
    }
    progress_hide(&ledger.progress);
    unsigned long long offset = first * BLOCK_SIZE;
    cli_error("%s: cannot read 4096 bytes at offset %llu: %s", scan->subject->path, offset, strerror(-error));
    scan->outcome.unreadable++;
    scan->outcome.unsettled = true;
}

static void scrub_piece(struct scan *scan, uint64_t first, uint64_t blocks)
{
    const uint64_t inside = first >= scan->end ? 0 : scan->end - first < blocks ? scan->end - first : blocks;
    if (!is_anything_known(scan->map, first, blocks)) {
        scan->outcome.unverified += inside;
        return;
    }
    size_t asked = blocks * BLOCK_SIZE;
    ssize_t length = subject_read(scan->subject, scan->room, asked, first * BLOCK_SIZE);
    if (length < 0) {
        scrub_unreadable(scan, first, blocks, (int)length);
        return;
    }
    scan->outcome.bytes += (uint64_t)length;
    if (length > 0)
        verify_piece(scan, first, (size_t)length, (size_t)length < asked);
    uint64_t read = ((uint64_t)length + BLOCK_SIZE - 1) / BLOCK_SIZE;
    look_beyond_end(scan, first + read, blocks - read);
}

/* ---- What is left open ---- */

/* The pending word belongs to a request of somebody who is gone: nothing is known of the block, unless it is as recorded. */
static void release_orphan(struct scan *scan, uint64_t block, uint64_t sum)
{
    struct announcement announcement;
    announce_open(&announcement, scan->map, block, 1, FLIGHT_SETTLER, TRANSPORT_BLOCKING, false);
    announce_sums(&announcement, block, 1, &sum);
    announce_forget(&announcement, block, 1);
    announce_close(&announcement);
}

static void settle_orphan(struct scan *scan, uint64_t block, const struct block_words *words, uint64_t sum)
{
    uint64_t pending = atomic_load(&words->pending), current = atomic_load(&words->current);
    bool as_recorded = sum == pending || sum == current;
    bool doubtful = current != WORD_UNKNOWN && trust_is_lost(scan->map, block);
    if (!as_recorded && !doubtful) {
        release_orphan(scan, block, sum);
        return;
    }
    struct adoption adoption = {.view = &scan->subject->view, .room = scan->room, .trust = true};
    adopt_blocks(&adoption, block, 1, &sum);
    if (!as_recorded)
        scan->outcome.recovered += adoption.adopted;
}

/* @return true when the block is as recorded, or unknown, with nobody at it. */
static bool look_again(struct scan *scan, uint64_t block)
{
    uint64_t run;
    ssize_t length = decide_read_block(&scan->subject->view, block, scan->room, false);
    const struct block_words *words = map_words(scan->map, block, &run);
    if (length < 0 || !words)
        return false;
    uint64_t sum = block_sum(scan->room, block);
    if (trust_is_settled(scan->map, block, sum))
        return true;
    if (atomic_load(&words->pending) != WORD_IDLE && !flight_others_over(scan->map->id, block, FLIGHT_BEYOND, false))
        settle_orphan(scan, block, words, sum);
    return trust_is_settled(scan->map, block, sum);
}

/* Blocks that somebody was writing will be settled in a moment; then the region is whole. Where that ends no doubt, one look will do. */
static void close_open_blocks(struct scan *scan, uint64_t region)
{
    const struct timespec moment = {.tv_nsec = 1000 * 1000};
    const int looks = trust_is_lost(scan->map, region * REGION_BLOCKS) ? LOOKS : 1;
    size_t left = scan->open_count;
    if (scan->outcome.unsettled)
        return;
    for (int look = 0; left > 0 && look < looks && !crew_stopped(); look++) {
        if (look > 0)
            nanosleep(&moment, NULL);
        size_t kept = 0;
        for (size_t i = 0; i < left; i++)
            if (!look_again(scan, scan->open[i]))
                scan->open[kept++] = scan->open[i];
        left = kept;
    }
    scan->outcome.unsettled = left > 0;
}

/* ---- A file ---- */

static void scrub_region(struct subject *subject, uint64_t region, char *room)
{
    struct scan scan = {.subject = subject,
                        .map = &subject->view.file->map,
                        .room = room,
                        .end = (subject->size + BLOCK_SIZE - 1) / BLOCK_SIZE};
    const uint64_t first = region * REGION_BLOCKS;
    present = subject;
    uint64_t done = 0;
    if (map_is_behind(scan.map))
        map_refresh(scan.map);
    for (; done < REGION_BLOCKS && !crew_stopped() && !subject_is_failed(subject); done += PIECE_BLOCKS) {
        scrub_piece(&scan, first + done, PIECE_BLOCKS);
        if (first + done < scan.end)
            progress_add(&ledger.progress, PIECE);
    }
    scan.outcome.incomplete = done < REGION_BLOCKS;
    scan.outcome.unsettled |= scan.outcome.incomplete;
    close_open_blocks(&scan, region);
    if (!scan.outcome.unsettled)
        trust_region(scan.map, region);
    subject_add(subject, &scan.outcome);
    present = NULL;
}

static void open_subject(struct subject *subject)
{
    switch (subject_open(subject, false)) {
    case SUBJECT_OPEN:
        trust_settle(subject);
        trust_open(subject, false);
        subject->regions = trust_regions(subject);
        break;
    case SUBJECT_WITHOUT_MAP:
        subject->failure = "it has no checksums; 'bounceio adopt' gives it some";
        break;
    case SUBJECT_FAILED:
        break;
    }
}

static void close_subject(struct subject *subject)
{
    if (subject->view.file && !subject_is_failed(subject))
        trust_close(subject);
    subject_close(subject);
    ledger_add(&ledger, subject);
}

static void note_damage(const struct bounceio_mismatch *mismatch, void *argument)
{
    (void)argument;
    if (present)
        subject_add_damage(present, mismatch->offset / BLOCK_SIZE);
}

/* ---- The command ---- */

static enum work_wish wish(const char *path, const struct stat *status, bool named)
{
    if (named)
        return WORK_TAKE;
    switch (subject_look(path, status, named)) {
    case SUBJECT_HAS_MAP:
        return WORK_TAKE;
    case SUBJECT_HAS_NONE:
        return WORK_PASS_OVER;
    default:
        return WORK_IGNORE;
    }
}

int scrub_main(int argc, char **argv)
{
    static const struct work work = {"scrub", wish, {open_subject, scrub_region, close_subject}};
    struct work_options options;
    int status = work_read_options(&options, argc, argv, false);
    if (status != CLI_CLEAN)
        return status < 0 ? cli_help(help) : status;
    if (cli_open_store(false) == CLI_FAILED)
        return CLI_FAILED;
    config.adopt = false;
    report_set_callback(note_damage, NULL);
    return work_run(&work, &options, argv + optind, &ledger);
}
