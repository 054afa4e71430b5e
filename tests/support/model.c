/* The model, and a worker's life. */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Telling ------------------------------------------------------------------------------------------------------ */

void tell(struct worker *w, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(w->history[w->done % HISTORY], sizeof(w->history[0]), format, arguments);
    va_end(arguments);
}

_Noreturn void disagree(struct worker *w, const char *format, ...)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    int error = errno;
    va_list arguments;

    pthread_mutex_lock(&one_at_a_time);
    printf("worker %u, operation %" PRIu64 ", file size %" PRIu64 ": ", w->id, w->done, w->size);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" (errno %d: %s)\nlast operations:\n", error, strerror(error));
    for (uint64_t i = w->done < HISTORY ? 0 : w->done - HISTORY + 1; i <= w->done; i++)
        printf("  %" PRIu64 " %s\n", i, w->history[i % HISTORY]);
    fflush(stdout);
    _exit(1);
}

/* --- The model ---------------------------------------------------------------------------------------------------- */

void model_write(struct worker *w, uint64_t offset, const uint8_t *data, uint64_t length)
{
    memcpy(w->model + offset, data, length);
    if (length > 0 && offset + length > w->size)
        w->size = offset + length;
}

void model_truncate(struct worker *w, uint64_t size)
{
    if (size < w->size)
        memset(w->model + size, 0, w->size - size);
    w->size = size;
}

uint64_t model_readable(const struct worker *w, uint64_t offset, uint64_t length)
{
    if (offset >= w->size)
        return 0;
    return length < w->size - offset ? length : w->size - offset;
}

void check_data(struct worker *w, const char *what, uint64_t offset, const uint8_t *data, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        if (data[i] != w->model[offset + i])
            disagree(w, "%s: byte %" PRIu64 " is %02x, not %02x", what, offset + i, data[i], w->model[offset + i]);
}

void check_count(struct worker *w, const char *what, ssize_t result, uint64_t expected)
{
    if (result < 0 || (uint64_t)result != expected)
        disagree(w, "%s returned %zd, not %" PRIu64, what, result, expected);
}

unsigned owner_of(uint64_t offset)
{
    return (unsigned)(offset / CELL % WORKERS);
}

/* --- A worker's life ---------------------------------------------------------------------------------------------- */

static void check_whole_content(struct worker *w)
{
    uint8_t *content = malloc(OWN_MAX > SHARED_SIZE ? OWN_MAX : SHARED_SIZE);

    if (!content)
        support_die("no memory");
    if (size_behind(w->path) != w->size)
        disagree(w, "at the end the size is %" PRIu64, size_behind(w->path));
    read_behind(w->path, content, w->size, 0);
    check_data(w, "at the end", 0, content, w->size);
    free(content);
}

void *worker_run(void *worker)
{
    struct worker *w = worker;

    model_open_files(w, O_TRUNC);
    for (; w->done < w->operations; w->done++) {
        tell(w, "nothing");
        model_operate(w);
    }
    close(w->fd);
    close(w->append);
    close(w->plain);
    check_whole_content(w);
    return NULL;
}

struct worker *worker_new(const char *directory, unsigned id, uint64_t seed, uint64_t operations, int shared)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        support_die("no memory");
    w->random.state = seed * WORKERS + id;
    w->id = id;
    w->operations = operations;
    w->shared = shared;
    w->shimmed = shim_is_loaded();
    snprintf(w->path, sizeof(w->path), "%s/own-%u", directory, id);
    w->model = calloc(1, OWN_MAX);
    w->shared_model = malloc(SHARED_SIZE);
    w->memory = buffer_new(REQUEST_MAX + BLOCK);
    if (!w->model || !w->shared_model)
        support_die("no memory");
    pattern_fill(w->shared_model, SHARED_SIZE, seed, 0);
    return w;
}

void worker_check_shared(struct worker *w, const uint8_t *content)
{
    for (uint64_t at = 0; at < SHARED_SIZE; at++)
        if (owner_of(at) == w->id && content[at] != w->shared_model[at])
            disagree(w, "at the end: byte %" PRIu64 " of the shared file", at);
}
