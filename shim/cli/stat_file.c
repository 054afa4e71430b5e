/* What the map of one file says. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "checksum/session_peers.h"
#include "cli/cli.h"
#include "cli/map_view.h"
#include "cli/progress.h"
#include "cli/sessions.h"
#include "cli/stat.h"
#include "cli/text.h"

struct coverage {
    uint64_t blocks; /* of the file */
    uint64_t known;
    uint64_t poisoned;
    uint64_t writing;
    uint64_t dirty, suspect; /* regions */
};

/* Blocks [first, first + count), which have words. */
static void count_words(struct coverage *coverage, const struct block_words *words, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        /* Relaxed: a look at one moment or another. */
        uint64_t current = atomic_load_explicit(&words[i].current, memory_order_relaxed);
        coverage->poisoned += current == WORD_POISON;
        coverage->known += current != WORD_UNKNOWN && current != WORD_POISON;
        coverage->writing += atomic_load_explicit(&words[i].pending, memory_order_relaxed) != WORD_IDLE;
    }
}

static void count_region(struct coverage *coverage, const struct map_view *view, uint64_t region)
{
    uint64_t block = region * REGION_BLOCKS, end = block + REGION_BLOCKS, run;
    if (end > coverage->blocks)
        end = coverage->blocks;
    for (; block < end; block += run) {
        const struct block_words *words = map_view_words(view, block, &run);
        if (words)
            count_words(coverage, words, run < end - block ? run : end - block);
    }
}

static uint64_t region_state(const struct map_view *view, uint64_t region)
{
    const _Atomic uint64_t *word = map_region_word(&view->map, region);
    return word ? atomic_load(word) : 0;
}

static struct coverage look(const struct map_view *view, uint64_t size)
{
    struct coverage coverage = {.blocks = (size + BLOCK_SIZE - 1) / BLOCK_SIZE};
    uint64_t regions = window_first_region(map_window_count(&view->map));
    for (uint64_t region = 0; region < regions; region++) {
        uint64_t state = region_state(view, region);
        coverage.dirty += (state & REGION_DIRTY) != 0;
        coverage.suspect += (state & REGION_SUSPECT) != 0;
        if (region * REGION_BLOCKS < coverage.blocks && (state & REGION_UNITS))
            count_region(&coverage, view, region);
    }
    return coverage;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* 99.99% of a large file is not all of it: round down, and up from nothing. */
static void print_part(const char *what, uint64_t part, uint64_t whole)
{
    char count[COUNT_TEXT];
    double exact = percent(part, whole);
    if (part > 0 && part < whole)
        exact = exact < 0.01 ? 0.01 : exact > 99.99 ? 99.99 : exact;
    printf("    %-14s %12s blocks  %6.2f%%\n", what, count_text(count, part), exact);
}

/* ---- For people ---- */

static void print_regions(const struct map_view *view, const char *what, uint64_t flag)
{
    uint64_t regions = window_first_region(map_window_count(&view->map));
    for (uint64_t region = 0; region < regions; region++)
        if (region_state(view, region) & flag)
            printf("    %s: offset %llu, 64 MiB\n", what, (unsigned long long)region * REGION_BLOCKS * BLOCK_SIZE);
}

static void print_users(const struct map_view *view)
{
    char users[USERS_TEXT];
    unsigned count = sessions_users_of(view->map.id, users);
    if (count == 0)
        puts("  used by          nobody");
    else
        printf("  used by          %u process%s: %s\n", count, count == 1 ? "" : "es", users);
}

static void print_file(const struct stat_run *run, const struct map_view *view, uint64_t size)
{
    const struct map_header *header = view->map.header;
    struct coverage coverage = look(view, size);
    char time[TIME_TEXT], boot[BOOT_TEXT], bytes[SIZE_TEXT], space[SIZE_TEXT];
    uint64_t unknown = coverage.blocks - coverage.known - coverage.poisoned;
    printf("  size             %s, %llu blocks\n", size_text(bytes, (double)size), (unsigned long long)coverage.blocks);
    printf("  map              %s on disk, maps/%s\n", size_text(space, (double)view->on_disk), view->map.name);
    puts("  coverage");
    print_part("with checksum", coverage.known, coverage.blocks);
    print_part("unknown", unknown, coverage.blocks);
    print_part("damaged", coverage.poisoned, coverage.blocks);
    print_part("being written", coverage.writing, coverage.blocks);
    printf("  last written     %s\n", time_text(time, atomic_load(&header->window_completion)));
    printf("  boot             %s%s\n", boot_text(boot, header->boot),
           boot_is_this_one(header->boot) ? ", this one" : ", an earlier one");
    printf("  regions          %llu dirty, %llu suspect (of 64 MiB)\n", (unsigned long long)coverage.dirty,
           (unsigned long long)coverage.suspect);
    if (run->verbose) {
        print_regions(view, "dirty", REGION_DIRTY);
        print_regions(view, "suspect", REGION_SUSPECT);
    }
    if (atomic_load(&header->flags) & MAP_CHANGED_OUTSIDE)
        puts("  changed outside  yes: mismatches are adopted until `bounceio scrub` finds the file whole");
    if (coverage.suspect)
        puts("  after power cut  mismatches in suspect regions are adopted until `bounceio scrub` finds them whole");
    print_users(view);
}

/* ---- For programs ---- */

static void json_regions(struct json *json, const struct map_view *view, const char *key, uint64_t flag)
{
    uint64_t regions = window_first_region(map_window_count(&view->map));
    json_open_array(json, key);
    for (uint64_t region = 0; region < regions; region++)
        if (region_state(view, region) & flag)
            json_number(json, NULL, region * REGION_BLOCKS * BLOCK_SIZE);
    json_close_array(json);
}

static void json_users(struct json *json, const struct map_view *view)
{
    json_open_array(json, "used_by");
    for (unsigned slot = 0; slot < sessions_count(); slot++) {
        const struct session_file *session = sessions_live(slot);
        if (session && session_lists_map(session, view->map.id))
            json_number(json, NULL, atomic_load(&session->pid));
    }
    json_close_array(json);
}

static void json_file(const struct stat_run *run, const struct map_view *view, uint64_t size)
{
    struct json *json = run->json;
    const struct map_header *header = view->map.header;
    struct coverage coverage = look(view, size);
    char boot[BOOT_TEXT];
    json_number(json, "size", size);
    json_text(json, "map", view->map.name);
    json_number(json, "map_bytes_on_disk", view->on_disk);
    json_number(json, "blocks", coverage.blocks);
    json_number(json, "blocks_with_checksum", coverage.known);
    json_number(json, "blocks_unknown", coverage.blocks - coverage.known - coverage.poisoned);
    json_number(json, "blocks_damaged", coverage.poisoned);
    json_number(json, "blocks_being_written", coverage.writing);
    json_real(json, "coverage_percent", percent(coverage.known, coverage.blocks), 3);
    json_real(json, "last_written", (double)atomic_load(&header->window_completion) / 1e9, 6);
    json_text(json, "boot", boot_text(boot, header->boot));
    json_bool(json, "this_boot", boot_is_this_one(header->boot));
    json_bool(json, "changed_outside", atomic_load(&header->flags) & MAP_CHANGED_OUTSIDE);
    json_number(json, "regions_dirty", coverage.dirty);
    json_number(json, "regions_suspect", coverage.suspect);
    if (run->verbose) {
        json_regions(json, view, "dirty_offsets", REGION_DIRTY);
        json_regions(json, view, "suspect_offsets", REGION_SUSPECT);
    }
    json_users(json, view);
}

/* ---- Either way ---- */

static int report(struct stat_run *run, const char *path, const struct map_view *view, uint64_t size)
{
    bool has_map = view->map.header;
    if (run->json) {
        json_open_object(run->json, NULL);
        json_text(run->json, "path", path);
        json_bool(run->json, "has_map", has_map);
        if (has_map)
            json_file(run, view, size);
        json_close_object(run->json);
    } else {
        if (run->reported > 0)
            putchar('\n');
        print_name(path);
        putchar('\n');
        if (has_map)
            print_file(run, view, size);
        else
            puts("  map              none: no block of it has a checksum");
    }
    run->reported++;
    return CLI_CLEAN;
}

int stat_file(struct stat_run *run, const char *path, uint64_t size, const struct map_key *key, bool named)
{
    char name[MAP_NAME_BYTES];
    struct map_view view;
    map_name(name, key);
    int error = map_view_open(&view, name);
    if (error == -ENOENT && !named)
        return CLI_CLEAN;
    if (error == -EINVAL)
        return cli_error(
            "%s: its map \"%s\" is damaged or of another version: it will be set aside when the file is opened", path,
            name);
    if (error != 0 && error != -ENOENT)
        return cli_error("%s: cannot read its map \"%s\": %s", path, name, strerror(-error));
    int status = report(run, path, &view, size);
    if (error == 0 && !map_is_usable(&view.map))
        status = cli_error("%s: its map \"%s\" cannot be read to its end: what was said of it is not all", path, name);
    map_view_close(&view);
    return status;
}
