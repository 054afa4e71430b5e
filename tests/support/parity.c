/* Recording one side of a parity run, and comparing two of them. */
#include "parity.h"

#include "base/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CASES_MAX = 400, RECORD_LINE = 1400 };

/* The theme being run: libcheck's tests take no arguments. */
static const char *theme_name;
static const struct parity_case *theme_cases;

/* --- Recording ---------------------------------------------------------------------------------------------------- */

struct outcome {
    long result;
    int error;
    int64_t position;
    uint64_t size;
    uint64_t content; /* hash of the file */
    uint64_t data;    /* hash of the bytes read */
    bool exact;       /* everything above is what `result` promises */
};

static int64_t position_behind(int fd)
{
    return fd < 0 ? -1 : raw(SYS_lseek, fd, 0, SEEK_CUR);
}

static uint64_t size_before(const struct parity_case *c)
{
    return c->size == EMPTY_FILE ? 0 : c->size == 0 ? DEFAULT_SIZE : (uint64_t)c->size;
}

/* The file under test: flushed, and out of the page cache, so that RWF_NOWAIT sees the same state every time. */
static void make_file(struct parity_scene *scene)
{
    make_file_behind(scene->path, PRIOR_SEED, scene->size);
    long fd = raw(SYS_openat, AT_FDCWD, scene->path, O_RDONLY | O_CLOEXEC);

    raw(SYS_fadvise64, fd, 0, 0, POSIX_FADV_DONTNEED);
    raw(SYS_close, fd);
}

/* Write the same content again through the C library, so that the shim knows every block. */
static void warm_up(const struct parity_scene *scene)
{
    int fd = open(scene->path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    char *buffer = buffer_new(scene->size);

    pattern_fill(buffer, scene->size, PRIOR_SEED, 0);
    if (fd < 0 || pwrite(fd, buffer, scene->size, 0) != (ssize_t)scene->size)
        support_die("cannot write %s", scene->path);
    close(fd);
    buffer_free(buffer, scene->size);
}

static uint8_t *whole_content(const char *path, uint64_t size)
{
    uint8_t *content = calloc(1, size + 1);

    if (!content || read_behind(path, content, size, 0) != size)
        support_die("cannot read %s", path);
    return content;
}

static bool appends(const struct parity_case *c)
{
    if (!(c->call->traits & WRITES))
        return false;
    if (c->call->traits & TAKES_FLAGS && c->flags & RWF_NOAPPEND)
        return false;
    return (c->open & OPENED(O_APPEND)) == OPENED(O_APPEND) || (c->call->traits & TAKES_FLAGS && c->flags & RWF_APPEND);
}

/* Where the call begins, and whether it moves the file's own offset. */
static uint64_t where_of(const struct parity_scene *scene, const struct parity_case *c, bool *moves)
{
    *moves = !(c->call->traits & AT_OFFSET) || (c->call->traits & TAKES_FLAGS && c->offset == -1);
    if (appends(c))
        return scene->size;
    return (uint64_t)(*moves ? c->at : c->offset);
}

/* Is the file what it was, but for `result` bytes of the source (or of a mapping that was read into)? */
static bool content_is_exact(const struct parity_scene *scene, const struct parity_case *c,
                             const struct parity_buffer *buffer, uint64_t where, const struct outcome *outcome)
{
    bool writes = c->call->traits & WRITES;
    uint64_t done = outcome->result > 0 ? (uint64_t)outcome->result : 0;
    uint64_t end = writes && done && where + done > scene->size ? where + done : scene->size;
    bool exact = false;

    if (done > buffer->good || outcome->size != end)
        return false;
    /* A write that stops at a bad address must reach the last whole block before it. */
    if (writes && done && done < buffer->total && done + BLOCK <= buffer->good)
        return false;
    uint8_t *expected = calloc(1, end + 1);
    uint8_t *found = whole_content(scene->path, end);

    if (!expected)
        support_die("no memory");
    pattern_fill(expected, scene->size, PRIOR_SEED, 0);
    if (c->damaged)
        expected[0] ^= 1;
    if (writes)
        memcpy(expected + where, buffer->source, done);
    else if (c->memory == SAME_FILE)
        memcpy(expected + SAME_FILE_AT, expected + where, done);
    exact = memcmp(expected, found, end) == 0;
    free(expected);
    free(found);
    return exact;
}

/* Are the bytes read those of the file, and the rest of the memory as it was? */
static bool data_is_exact(const struct parity_scene *scene, const struct parity_case *c,
                          const struct parity_buffer *buffer, uint64_t where, struct outcome *outcome)
{
    uint64_t left = outcome->result > 0 ? (uint64_t)outcome->result : 0;
    bool exact = left <= buffer->good && where + left <= (left ? scene->size : UINT64_MAX);

    outcome->data = HASH_START;
    for (int i = 0; i < buffer->count && left > 0 && left <= buffer->good; i++) {
        const struct iovec *segment = &buffer->vector[i];
        size_t n = segment->iov_len < left ? segment->iov_len : (size_t)left;

        outcome->data = hash_bytes(outcome->data, segment->iov_base, n);
        if (!c->damaged && pattern_check(segment->iov_base, n, PRIOR_SEED, where) != n)
            exact = false;
        where += n;
        left -= n;
    }
    return exact;
}

static struct outcome run_call(struct parity_scene *scene, const struct parity_case *c)
{
    struct outcome outcome = {.position = -1};
    struct parity_buffer buffer;
    bool moves;
    uint64_t where = where_of(scene, c, &moves);
    int flags = c->open ? c->open & ~OPENED(0) : O_RDWR | O_DIRECT;

    if (c->warm || c->damaged)
        warm_up(scene);
    if (c->damaged)
        flip_bit_behind(scene->path, 0, 0);
    scene->fd = open(scene->path, flags | O_CLOEXEC, 0600);
    if (scene->fd < 0) {
        outcome.result = -1;
        outcome.error = errno;
        outcome.size = size_behind(scene->path);
        outcome.content = hash_behind(scene->path);
        return outcome;
    }
    parity_buffer_build(&buffer, scene, c, where);
    if (c->at)
        lseek(scene->fd, c->at, SEEK_SET);
    errno = 0;
    outcome.result = c->call->issue(scene->fd, buffer.vector, buffer.count, c->offset, c->flags);
    outcome.error = outcome.result < 0 ? errno : 0;
    outcome.position = position_behind(scene->fd);
    outcome.size = size_behind(scene->path);
    outcome.content = hash_behind(scene->path);
    outcome.exact = content_is_exact(scene, c, &buffer, where, &outcome);
    if (!(c->call->traits & WRITES) && !data_is_exact(scene, c, &buffer, where, &outcome))
        outcome.exact = false;
    if (outcome.position !=
        (int64_t)((moves && outcome.result > 0 ? where + (uint64_t)outcome.result : (uint64_t)c->at)))
        outcome.exact = false;
    close(scene->fd);
    scene->fd = -1;
    parity_buffer_free(&buffer);
    return outcome;
}

static struct outcome run_function(struct parity_scene *scene, const struct parity_case *c)
{
    struct outcome outcome = {.exact = true};

    c->run(scene);
    outcome.position = position_behind(scene->fd);
    if (scene->fd >= 0)
        close(scene->fd);
    scene->fd = -1;
    outcome.size = size_behind(scene->path);
    outcome.content = hash_behind(scene->path);
    return outcome;
}

static void record(const char *directory, const char *device, const struct parity_case *c, const char *suffix)
{
    struct parity_scene scene = {.c = c, .directory = directory, .size = size_before(c), .fd = -1};
    struct outcome o;

    snprintf(scene.path, sizeof(scene.path), "%s", device ? device : path_in(directory, "file"));
    if (!device)
        raw(SYS_unlinkat, AT_FDCWD, scene.path, 0);
    make_file(&scene);
    o = c->run ? run_function(&scene, c) : run_call(&scene, c);
    printf("%s%s\t%ld\t%d\t%" PRIu64 "\t%" PRId64 "\t%016" PRIx64 "\t%016" PRIx64 "\t%d\t%s\n", c->name, suffix,
           o.result, o.error, o.size, o.position, o.content, o.data, o.exact, scene.notes);
    fflush(stdout);
}

/* Does the case make sense on a device of DEFAULT_SIZE that cannot grow or be replaced? */
static bool fits_device(const struct parity_case *c)
{
    return !c->regular && !c->run && !c->damaged && size_before(c) == DEFAULT_SIZE;
}

static int record_mode(int argc, char **argv)
{
    const char *device = argc > 1 ? argv[1] : NULL;

    for (const struct parity_case *c = theme_cases; c->name; c++) {
        if (device && !fits_device(c))
            continue;
        record(argv[0], device, c, "");
        if (!c->run && parity_memory_is_odd(c->memory)) {
            struct parity_case twin = *c;

            twin.memory = c->memory == BAD_ODD || c->memory == BAD_ODD_1 ? BAD_LAST : ALIGNED;
            record(argv[0], device, &twin, "~aligned");
        }
    }
    return EXIT_SUCCESS;
}

long scene_note(struct parity_scene *scene, const char *what, long result)
{
    int error = result < 0 ? errno : 0;
    size_t used = strlen(scene->notes);

    snprintf(scene->notes + used, sizeof(scene->notes) - used, " %s=%ld/%d", what, result, error);
    return result;
}

void scene_fact(struct parity_scene *scene, const char *what, unsigned long long value)
{
    size_t used = strlen(scene->notes);

    snprintf(scene->notes + used, sizeof(scene->notes) - used, " %s=%llu", what, value);
}

/* --- Comparing ---------------------------------------------------------------------------------------------------- */

struct line {
    char name[128];
    char rest[RECORD_LINE]; /* everything after the name, for equality */
    struct outcome outcome;
};

struct side {
    struct line lines[CASES_MAX];
    size_t count;
};

static void parse_side(struct side *side, char *text)
{
    char *rest;

    side->count = 0;
    for (char *row = strtok_r(text, "\n", &rest); row; row = strtok_r(NULL, "\n", &rest)) {
        struct line *line = &side->lines[side->count++];
        struct outcome *o = &line->outcome;
        char *tab = strchr(row, '\t');
        int exact;

        if (side->count == CASES_MAX || !tab || (size_t)(tab - row) >= sizeof(line->name))
            support_die("a record that makes no sense: %s", row);
        snprintf(line->name, sizeof(line->name), "%.*s", (int)(tab - row), row);
        snprintf(line->rest, sizeof(line->rest), "%s", tab + 1);
        if (sscanf(tab, "%ld %d %" SCNu64 " %" SCNd64 " %" SCNx64 " %" SCNx64 " %d", &o->result, &o->error, &o->size,
                   &o->position, &o->content, &o->data, &exact) != 7)
            support_die("a record that makes no sense: %s", row);
        o->exact = exact;
    }
}

static const struct line *find_line(const struct side *side, const char *name)
{
    for (size_t i = 0; i < side->count; i++)
        if (strcmp(side->lines[i].name, name) == 0)
            return &side->lines[i];
    return NULL;
}

static bool can_be_partly_bad(enum parity_memory memory)
{
    switch (memory) {
    case BAD_SECOND:
    case BAD_MIDDLE:
    case BAD_LAST:
    case BAD_ODD:
    case BAD_ODD_1:
    case READ_ONLY_MIDDLE:
    case READ_ONLY_LAST:
    case TRUNCATED_MIDDLE:
    case TRUNCATED_ODD:
        return true;
    default:
        return false;
    }
}

static bool is_refusal(const struct outcome *outcome)
{
    return outcome->result < 0 && outcome->error == EAGAIN;
}

/* Which exception of the contract explains the difference? NULL: none. */
static const char *exception(const struct parity_case *c, const struct line *native, const struct line *aligned,
                             const struct line *shimmed)
{
    const struct outcome *n = &native->outcome;
    const struct outcome *s = &shimmed->outcome;

    if (c->run)
        return NULL;
    if (aligned && n->result < 0 && n->error == EINVAL && strcmp(shimmed->rest, aligned->rest) == 0)
        return "misaligned";
    if (can_be_partly_bad(c->memory) && s->exact && s->result > 0 &&
        ((n->result < 0 && (n->error == EFAULT || (aligned && n->error == EINVAL))) || n->result > 0))
        return "partly-bad";
    if (c->damaged && s->result < 0 && s->error == EIO && s->exact)
        return "mismatch";
    if (c->call->traits & TAKES_FLAGS && c->flags & RWF_NOWAIT && is_refusal(n) != is_refusal(s) && n->exact &&
        s->exact)
        return "nowait";
    return NULL;
}

static const char *const exceptions[] = {"misaligned", "partly-bad", "mismatch", "nowait"};
enum { EXCEPTIONS = sizeof(exceptions) / sizeof(exceptions[0]) };

struct tally {
    unsigned cases;
    unsigned excused[EXCEPTIONS];
    unsigned failures;
    FILE *list; /* where exceptions are listed, beside standard output; may be NULL */
};

static void count_exception(struct tally *tally, const char *why, const char *fs, const struct line *native,
                            const struct line *shimmed)
{
    char text[512];

    for (unsigned i = 0; i < EXCEPTIONS; i++)
        tally->excused[i] += strcmp(why, exceptions[i]) == 0;
    snprintf(text, sizeof(text), "exception %s: case=\"%s\" fs=%s native=%ld/%d shimmed=%ld/%d", why, native->name, fs,
             native->outcome.result, native->outcome.error, shimmed->outcome.result, shimmed->outcome.error);
    puts(text);
    if (tally->list)
        fprintf(tally->list, "%s\n", text);
}

/* The list outlives the run beside the build's products: exceptions are to be read, not only counted. */
static FILE *open_list(char *path, size_t room)
{
    const char *build = getenv("BOUNCEIO_TEST_BUILD");

    snprintf(path, room, "%s/%s.exceptions", build ? build : "", program_invocation_short_name);
    return build ? fopen(path, "we") : NULL;
}

static void compare(const char *fs, const struct side *native, const struct side *shimmed, struct tally *tally)
{
    for (const struct parity_case *c = theme_cases; c->name; c++) {
        char twin[160];
        const struct line *n = find_line(native, c->name);
        const struct line *s = find_line(shimmed, c->name);

        if (!n)
            continue;
        tally->cases++;
        if (!s) {
            printf("FAIL %s: %s: not reached with the shim\n", fs, c->name);
            tally->failures++;
            return;
        }
        if (strcmp(n->rest, s->rest) == 0)
            continue;
        snprintf(twin, sizeof(twin), "%s~aligned", c->name);
        const char *why = exception(c, n, find_line(native, twin), s);

        if (why) {
            count_exception(tally, why, fs, n, s);
            continue;
        }
        tally->failures++;
        printf("FAIL %s: %s (result, errno, size, offset, content, data, exact, notes)\n  native  %s\n  shimmed %s\n",
               fs, c->name, n->rest, s->rest);
    }
}

static void compare_sides(const char *fs, const char *directory, const char *device, struct tally *tally)
{
    static struct side native, shimmed;
    /* A descriptor number that a case prints, or an inherited one, must not differ: both sides are started alike. */
    enum preload other = getenv("BOUNCEIO_TEST_PARITY_SELF") ? WITHOUT_SHIM : WITH_SHIM;
    const char *const arguments[] = {"--record", directory, device, NULL};
    struct child without = child_run_self(WITHOUT_SHIM, NULL, arguments);
    struct child with = child_run_self(other, NULL, arguments);

    if (!child_succeeded(&without))
        ck_abort_msg("%s: the run without the shim failed", fs);
    parse_side(&native, without.output);
    parse_side(&shimmed, with.output);
    if (with.status != 0) {
        printf("FAIL %s: the run with the shim ended with status %x after %s\n%s", fs, (unsigned)with.status,
               shimmed.count ? shimmed.lines[shimmed.count - 1].name : "nothing", with.errors);
        tally->failures++;
    }
    compare(fs, &native, &shimmed, tally);
    child_free(&without);
    child_free(&with);
}

START_TEST(every_call_gives_what_it_gives_without_the_shim)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    char device[64];
    char list[4096];
    struct tally tally = {.list = open_list(list, sizeof(list))};

    for (size_t i = 0; i < count; i++)
        compare_sides(fs[i].name, fs[i].path, NULL, &tally);
    if (block_device_new(DEFAULT_SIZE, device, sizeof(device))) {
        compare_sides("block device", fs[0].path, device, &tally);
        block_device_free(device);
    } else {
        test_skip("no block device (needs root and loop devices)");
    }
    printf("%s: %u comparisons; exceptions:", theme_name, tally.cases);
    for (unsigned i = 0; i < EXCEPTIONS; i++)
        printf(" %u %s%s", tally.excused[i], exceptions[i], i + 1 < EXCEPTIONS ? "," : "");
    printf("%s%s; %u failures\n", tally.list ? ", listed in " : "", tally.list ? list : "", tally.failures);
    if (tally.list)
        fclose(tally.list);
    fflush(stdout);
    ck_assert_uint_eq(tally.failures, 0);
}
END_TEST

int parity_main(int argc, char **argv, const char *theme, const struct parity_case *cases)
{
    static const struct support_mode modes[] = {{"--record", record_mode}, {NULL, NULL}};

    theme_name = theme;
    theme_cases = cases;
    return support_main(argc, argv, theme, 300, modes,
                        (const TTest *const[]){every_call_gives_what_it_gives_without_the_shim, NULL});
}
