/* What processes are doing, out of their sessions and their memory; and what the store holds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/config.h"
#include "base/stats.h"
#include "cli/cli.h"
#include "cli/map_view.h"
#include "cli/progress.h"
#include "cli/sessions.h"
#include "cli/stat.h"
#include "cli/text.h"

static const char *const counter_names[] = {
#define COUNTER_NAME(name) #name,
    STATS_COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
};

static const char *const request_kinds[] = {"", "", "write", "deciding read", "mutator", "adoption", "settling"};

/* ---- Counters, out of another process's memory ---- */

struct counters {
    uint64_t sum[STAT_COUNT];
};

/* @return 0, or -errno; -EPROTO when the process has something else there. */
static int read_counters(const struct session_file *session, struct counters *counters)
{
    static struct stats_shared shared;
    uint64_t address = atomic_load(&session->stats_address);
    struct iovec here = {&shared, sizeof shared}, there = {(void *)(uintptr_t)address, sizeof shared};
    if (address == 0)
        return -EPROTO;
    ssize_t length = process_vm_readv((pid_t)atomic_load(&session->pid), &here, 1, &there, 1, 0);
    if (length < 0)
        return -errno;
    if (length != (ssize_t)sizeof shared || memcmp(shared.magic, STATS_MAGIC, sizeof shared.magic) != 0 ||
        shared.counters != STAT_COUNT)
        return -EPROTO;
    *counters = (struct counters){{0}};
    for (int i = 0; i < STAT_COUNT; i++)
        for (int shard = 0; shard < STATS_SHARDS; shard++)
            counters->sum[i] += atomic_load(&shared.shards[shard].counter[i]);
    return 0;
}

static int complain(uint64_t pid, int error)
{
    if (error == -EPERM)
        return cli_error(
            "process %llu: its counters cannot be read: run bounceio as root, or as the user of the process "
            "with /proc/sys/kernel/yama/ptrace_scope at 0",
            (unsigned long long)pid);
    if (error == -ESRCH)
        return cli_error("process %llu: it has ended, or lives in another pid namespace: run bounceio there",
                         (unsigned long long)pid);
    return cli_error("process %llu: its counters cannot be read: %s", (unsigned long long)pid,
                     error == -EPROTO || error == -EFAULT ? "it runs another version of the shim" : strerror(-error));
}

/* ---- Maps by their number ---- */

struct known_map {
    uint64_t id;
    char *path; /* where its file was last seen, or the map's name */
};

static struct known_map *known_maps;
static int known_count;

static int by_id(const void *a, const void *b)
{
    const struct known_map *one = a, *other = b;
    return one->id < other->id ? -1 : one->id > other->id;
}

/* In-flight tables name maps by number: read every map's header once. */
static void learn_maps(void)
{
    char **names;
    int count = known_maps ? 0 : map_names(&names);
    if (count <= 0)
        return;
    known_maps = calloc((size_t)count, sizeof *known_maps);
    for (int i = 0; known_maps && i < count; i++) {
        struct map_view view;
        if (!map_name_is_plain(names[i]) || map_view_open(&view, names[i]) != 0)
            continue;
        const char *path = map_view_path(&view);
        known_maps[known_count++] = (struct known_map){view.map.id, strdup(path ? path : names[i])};
        map_view_close(&view);
    }
    map_names_free(names, count);
    if (known_maps)
        qsort(known_maps, (size_t)known_count, sizeof *known_maps, by_id);
}

static const char *path_of_map(uint64_t id)
{
    const struct known_map key = {id, NULL};
    const struct known_map *found =
        known_maps ? bsearch(&key, known_maps, (size_t)known_count, sizeof *known_maps, by_id) : NULL;
    return found && found->path ? found->path : "a map that has been removed";
}

/* ---- One session ---- */

static void json_session(struct stat_run *run, const struct session_file *session, const struct counters *counters)
{
    struct json *json = run->json;
    json_open_object(json, NULL);
    json_number(json, "pid", atomic_load(&session->pid));
    char command[sizeof session->command + 1] = {0};
    memcpy(command, session->command, sizeof session->command);
    json_text(json, "command", command);
    json_real(json, "started", (double)atomic_load(&session->started) / 1e9, 6);
    json_number(json, "requests_in_flight", sessions_requests(session, 0));
    json_open_array(json, "files");
    for (unsigned i = 0; i < SESSION_MAPS; i++)
        if (atomic_load(&session->maps[i]))
            json_text(json, NULL, path_of_map(atomic_load(&session->maps[i])));
    json_close_array(json);
    if (counters) {
        json_open_object(json, "counters");
        for (int i = 0; i < STAT_COUNT; i++)
            json_number(json, counter_names[i], counters->sum[i]);
        json_close_object(json);
    }
    json_close_object(json);
}

static void print_requests(const struct session_file *session)
{
    uint64_t high = atomic_load(&session->flights_high);
    for (uint64_t i = 0; i < high && i < SESSION_FLIGHTS; i++) {
        const struct flight *flight = &session->flights[i];
        unsigned kind = atomic_load(&flight->state) & 0xff;
        if (kind <= FLIGHT_FILLING || kind > FLIGHT_SETTLER)
            continue;
        uint64_t blocks = atomic_load(&flight->blocks);
        printf("    %s, offset %llu, ", request_kinds[kind],
               (unsigned long long)atomic_load(&flight->first) * BLOCK_SIZE);
        if (blocks >= FLIGHT_TO_END)
            printf("to the end of ");
        else
            printf("%llu bytes of ", (unsigned long long)blocks * BLOCK_SIZE);
        print_name(path_of_map(atomic_load(&flight->map_id)));
        putchar('\n');
    }
}

static void print_session(struct stat_run *run, const struct session_file *session, const struct counters *counters)
{
    char time[TIME_TEXT], count[COUNT_TEXT];
    if (run->reported > 0)
        putchar('\n');
    printf("%llu (%.15s)\n", (unsigned long long)atomic_load(&session->pid), session->command);
    printf("  since             %s\n", time_text(time, (int64_t)atomic_load(&session->started)));
    printf("  in flight         %u requests\n", sessions_requests(session, 0));
    if (run->verbose)
        print_requests(session);
    for (unsigned i = 0; i < SESSION_MAPS; i++) {
        if (!atomic_load(&session->maps[i]))
            continue;
        printf("  file              ");
        print_name(path_of_map(atomic_load(&session->maps[i])));
        putchar('\n');
    }
    for (int i = 0; counters && i < STAT_COUNT; i++)
        printf("  %-17s %20s\n", counter_names[i], count_text(count, counters->sum[i]));
}

static void report(struct stat_run *run, const struct session_file *session, const struct counters *counters)
{
    if (run->json)
        json_session(run, session, counters);
    else
        print_session(run, session, counters);
    run->reported++;
}

int stat_process(struct stat_run *run, uint64_t pid)
{
    int status = CLI_CLEAN;
    unsigned found = 0;
    learn_maps();
    for (unsigned slot = 0; slot < sessions_count(); slot++) {
        const struct session_file *session = sessions_live(slot);
        struct counters counters;
        if (!session || atomic_load(&session->pid) != pid)
            continue;
        int error = read_counters(session, &counters);
        if (error != 0)
            status = complain(pid, error);
        report(run, session, error == 0 ? &counters : NULL);
        found++;
    }
    if (found == 0)
        return cli_error("process %llu: it does not use the store \"%s\": it runs without the shim, with another "
                         "BOUNCEIO_STORE, or has opened no file for direct I/O yet",
                         (unsigned long long)pid, config.store);
    return status;
}

/* ---- The store ---- */

struct holdings {
    uint64_t maps, bytes, damaged, left_over;
};

static struct holdings count_maps(void)
{
    struct holdings holdings = {0};
    char **names;
    int count = map_names(&names);
    for (int i = 0; i < count; i++) {
        struct map_view view;
        if (!map_name_is_plain(names[i])) {
            holdings.left_over++;
        } else if (map_view_open(&view, names[i]) != 0) {
            holdings.damaged++;
        } else {
            holdings.maps++;
            holdings.bytes += view.on_disk;
            map_view_close(&view);
        }
    }
    if (count >= 0)
        map_names_free(names, count);
    return holdings;
}

static unsigned report_sessions(struct stat_run *run)
{
    unsigned live = 0;
    for (unsigned slot = 0; slot < sessions_count(); slot++) {
        const struct session_file *session = sessions_live(slot);
        struct counters counters;
        if (!session)
            continue;
        live++;
        if (run->json)
            json_session(run, session, read_counters(session, &counters) == 0 ? &counters : NULL);
        else
            printf("  %8llu  %-15.15s  %u requests in flight\n", (unsigned long long)atomic_load(&session->pid),
                   session->command, sessions_requests(session, 0));
    }
    return live;
}

int stat_store(struct stat_run *run)
{
    struct holdings holdings = count_maps();
    char bytes[SIZE_TEXT];
    if (run->json) {
        json_number(run->json, "maps", holdings.maps);
        json_number(run->json, "map_bytes_on_disk", holdings.bytes);
        json_number(run->json, "maps_damaged", holdings.damaged);
        json_number(run->json, "left_over_files", holdings.left_over);
        learn_maps();
        json_open_array(run->json, "sessions");
        report_sessions(run);
        json_close_array(run->json);
        return CLI_CLEAN;
    }
    printf("store %s\n", config.store);
    printf("  maps     %llu, %s on disk\n", (unsigned long long)holdings.maps,
           size_text(bytes, (double)holdings.bytes));
    if (holdings.damaged)
        printf("  damaged  %llu: set aside when their files are opened\n", (unsigned long long)holdings.damaged);
    if (holdings.left_over)
        printf("  other    %llu files set aside or left over: `bounceio gc`\n", (unsigned long long)holdings.left_over);
    puts("processes");
    if (report_sessions(run) == 0)
        puts("  none");
    return CLI_CLEAN;
}
