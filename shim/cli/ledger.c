/* See ledger.h. */
#include "cli/ledger.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "checksum/block_sum.h"
#include "cli/cli.h"

static const char *status_of(const struct subject *subject)
{
    const struct outcome *outcome = &subject->outcome;
    return outcome->mismatched > 0                       ? "damaged"
           : subject->failure || outcome->unreadable > 0 ? "failed"
           : outcome->incomplete                         ? "incomplete"
                                                         : "ok";
}

static int compare_damages(const void *a, const void *b)
{
    const struct damage *one = a, *other = b;
    return one->first < other->first ? -1 : one->first > other->first;
}

/* Threads have added them in any order. */
static void sort_damages(struct subject *subject)
{
    size_t kept = 0;
    if (subject->damage_count == 0)
        return;
    qsort(subject->damages, subject->damage_count, sizeof *subject->damages, compare_damages);
    for (size_t i = 1; i < subject->damage_count; i++) {
        struct damage *last = &subject->damages[kept], *this = &subject->damages[i];
        if (last->first + last->blocks == this->first)
            last->blocks += this->blocks;
        else
            subject->damages[++kept] = *this;
    }
    subject->damage_count = kept + 1;
}

/* ---- JSON ---- */

static void write_outcome(struct ledger *ledger, const struct outcome *outcome)
{
    struct json *json = &ledger->json;
    if (ledger->adopting) {
        json_number(json, "blocks_adopted", outcome->adopted);
        json_number(json, "blocks_known_before", outcome->kept);
        json_number(json, "blocks_in_holes", outcome->holes);
        json_number(json, "blocks_left_unknown", outcome->unverified);
    } else {
        json_number(json, "blocks_verified", outcome->verified);
        json_number(json, "blocks_unverified", outcome->unverified);
        json_number(json, "mismatches", outcome->mismatched);
        json_number(json, "recovered_blocks", outcome->recovered);
        json_number(json, "changed_outside", outcome->outside);
        json_number(json, "unreadable_blocks", outcome->unreadable);
    }
    json_number(json, "bytes_read", outcome->bytes);
}

static void write_damages(struct json *json, const struct subject *subject)
{
    json_open_array(json, "damaged_ranges");
    for (size_t i = 0; i < subject->damage_count; i++) {
        json_open_object(json, NULL);
        json_number(json, "offset", subject->damages[i].first * BLOCK_SIZE);
        json_number(json, "length", subject->damages[i].blocks * BLOCK_SIZE);
        json_close_object(json);
    }
    json_close_array(json);
}

static void write_file(struct ledger *ledger, const struct subject *subject)
{
    struct json *json = &ledger->json;
    json_open_object(json, NULL);
    json_text(json, "path", subject->path);
    json_text(json, "status", status_of(subject));
    if (subject->failure)
        json_text(json, "error", subject->failure);
    json_number(json, "size", subject->size);
    write_outcome(ledger, &subject->outcome);
    if (!ledger->adopting)
        write_damages(json, subject);
    json_close_object(json);
}

static void write_totals(struct ledger *ledger, int signal, double seconds, int status)
{
    struct json *json = &ledger->json;
    json_close_array(json);
    json_open_object(json, "totals");
    json_number(json, "files", ledger->files);
    json_number(json, "files_failed", ledger->failed);
    if (!ledger->adopting) {
        json_number(json, "files_damaged", ledger->damaged);
        json_number(json, "files_without_checksums", ledger->without_map);
    }
    write_outcome(ledger, &ledger->total);
    json_real(json, "seconds", seconds, 3);
    json_bool(json, "interrupted", signal != 0);
    json_number(json, "exit_status", (uint64_t)status);
    json_close_object(json);
    json_close_object(json);
}

/* ---- Text ---- */

struct text {
    char characters[512];
    size_t length;
};

static void append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->characters + text->length, sizeof text->characters - text->length, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < sizeof text->characters - text->length)
        text->length += (size_t)length;
}

static void append_count(struct text *text, uint64_t count, const char *what)
{
    if (count > 0)
        append(text, "%s%llu %s", text->length > 0 ? ", " : "", (unsigned long long)count, what);
}

static const char *outcome_text(struct text *text, const struct outcome *outcome)
{
    *text = (struct text){0};
    append_count(text, outcome->mismatched, "DAMAGED");
    append_count(text, outcome->unreadable, "UNREADABLE");
    append_count(text, outcome->recovered, "recovered after an unclean stop");
    append_count(text, outcome->outside, "changed outside (adopted)");
    append_count(text, outcome->adopted, "adopted");
    append_count(text, outcome->kept, "with a checksum before");
    append_count(text, outcome->verified, "verified");
    append_count(text, outcome->unverified, "without checksum");
    append_count(text, outcome->holes, "in holes");
    return text->length > 0 ? text->characters : "nothing to look at";
}

static bool is_wrong(const struct outcome *outcome)
{
    return outcome->mismatched + outcome->unreadable + outcome->recovered + outcome->outside > 0;
}

static void print_file(struct ledger *ledger, const struct subject *subject)
{
    struct text text;
    bool begun = !subject->failure || subject->outcome.bytes > 0;
    if (!begun || (ledger->quiet && !is_wrong(&subject->outcome)))
        return;
    printf("%s: blocks: %s%s\n", subject->path, outcome_text(&text, &subject->outcome),
           subject->failure              ? " (failed)"
           : subject->outcome.incomplete ? " (interrupted)"
                                         : "");
}

static void print_totals(const struct ledger *ledger, int signal, double seconds)
{
    struct text text;
    char bytes[SIZE_TEXT], rate[SIZE_TEXT];
    if (ledger->quiet && signal == 0)
        return;
    if (ledger->files > 0 || ledger->total.bytes > 0)
        printf("%s%llu file%s: blocks: %s; %s read in %.1f s, %s/s\n", signal ? "interrupted: " : "",
               (unsigned long long)ledger->files, ledger->files == 1 ? "" : "s", outcome_text(&text, &ledger->total),
               size_text(bytes, (double)ledger->total.bytes), seconds,
               size_text(rate, seconds > 0 ? (double)ledger->total.bytes / seconds : 0));
    else
        printf("%snothing done\n", signal ? "interrupted: " : "");
    if (ledger->without_map > 0)
        printf("%llu file%s without checksums passed over\n", (unsigned long long)ledger->without_map,
               ledger->without_map == 1 ? "" : "s");
}

/* ---- Adding up ---- */

void ledger_open(struct ledger *ledger, const char *what, uint64_t bytes)
{
    pthread_mutex_init(&ledger->lock, NULL);
    progress_open(&ledger->progress, what, bytes, ledger->quiet);
    if (!ledger->as_json)
        return;
    ledger->json.out = stdout;
    json_open_object(&ledger->json, NULL);
    json_open_array(&ledger->json, "files");
}

void ledger_add(struct ledger *ledger, struct subject *subject)
{
    const struct outcome *outcome = &subject->outcome;
    sort_damages(subject);
    pthread_mutex_lock(&ledger->lock);
    progress_hide(&ledger->progress);
    ledger->files += !subject->failure;
    ledger->damaged += outcome->mismatched > 0;
    ledger->failed += subject->failure || outcome->unreadable > 0;
    outcome_add(&ledger->total, outcome);
    if (subject->failure)
        cli_error("%s: %s", subject->path, subject->failure);
    if (ledger->as_json)
        write_file(ledger, subject);
    else
        print_file(ledger, subject);
    pthread_mutex_unlock(&ledger->lock);
}

int ledger_close(struct ledger *ledger, int signal)
{
    double seconds = (double)progress_elapsed(&ledger->progress) / 1e9;
    int status = signal != 0           ? 128 + signal
                 : ledger->damaged > 0 ? CLI_FOUND
                 : ledger->failed > 0  ? CLI_FAILED
                                       : CLI_CLEAN;
    progress_close(&ledger->progress);
    if (ledger->as_json)
        write_totals(ledger, signal, seconds, status);
    else
        print_totals(ledger, signal, seconds);
    pthread_mutex_destroy(&ledger->lock);
    return status;
}
