/*
 * Reading the environment, and matching the path globs. See config.h.
 *
 * Every variable is a row of one table: its name, how its value is read, and where it goes. Strings are copied into one
 * fixed buffer.
 */
#include "base/config.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/raw.h"

enum { MAXIMUM_STRING = 4096 };

static const size_t pool_unit = (size_t)2 << 20;

/* The pool when nobody has chosen its size, and what is ready of it at once: the largest extent fits. */
static const size_t pool_unasked = (size_t)16 << 20, pool_unasked_ready = (size_t)6 << 20;

#define POOL_UNASKED SIZE_MAX
#define DEFAULTS                                                                                                       \
    {                                                                                                                  \
        .log_level = LOG_LEVEL_WARN, .pool = POOL_UNASKED, .pool_max = (size_t)1 << 30                                 \
    }

struct config config = DEFAULTS;

/* Five strings have a variable; the copies of a second load (tests) start over. */
static char strings[5 * MAXIMUM_STRING];
static size_t strings_used;

/* ---- Values ---- */

static bool is_slash_path(const char *value)
{
    return value[0] == '/';
}

/* Copy `value`, or `directory`/`value`. @return NULL when that is too long. */
static const char *keep_string(const char *directory, const char *value)
{
    char *kept = strings + strings_used;
    size_t room = sizeof(strings) - strings_used, length = strlen(directory);
    const char *separator = length > 0 && directory[length - 1] != '/' ? "/" : "";
    if (room > MAXIMUM_STRING)
        room = MAXIMUM_STRING;
    if (length + strlen(value) + 2 > room)
        return NULL;
    strings_used += log_format(kept, room, "%s%s%s", directory, separator, value) + 1;
    return kept;
}

static bool read_text(void *field, const char *value, const char *words)
{
    (void)words;
    const char *kept = keep_string("", value);
    if (kept)
        *(const char **)field = kept;
    return kept;
}

/* A path that stays right when the program changes its directory. `words`: a value that is not a path, kept as it is. */
static bool read_path(void *field, const char *value, const char *words)
{
    char here[PATH_MAX];
    if (is_slash_path(value) || (words && strcmp(value, words) == 0))
        return read_text(field, value, NULL);
    if (raw_failed(raw(SYS_getcwd, here, sizeof(here))) || !is_slash_path(here))
        return false;
    const char *kept = keep_string(here, value);
    if (kept)
        *(const char **)field = kept;
    return kept;
}

/* One of `words`, separated by spaces; the field is the index of the one that matched. */
static bool read_word(void *field, const char *value, const char *words)
{
    size_t length = strlen(value);
    for (unsigned index = 0; *words; index++) {
        size_t word = strcspn(words, " ");
        if (word == length && strncmp(words, value, length) == 0) {
            *(unsigned *)field = index;
            return true;
        }
        words += word + (words[word] == ' ');
    }
    return false;
}

static bool read_flag(void *field, const char *value, const char *words)
{
    unsigned index;
    bool known = read_word(&index, value, words);
    if (known)
        *(bool *)field = index == 1;
    return known;
}

/* Bytes, with an optional K, M or G. */
static bool read_size(void *field, const char *value, const char *words)
{
    (void)words;
    uint64_t size = 0;
    const char *at = value;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, (uint64_t)(*at - '0'), &size))
            return false;
    }
    if (at == value)
        return false;
    const char *const suffixes = "KMG", *suffix = *at ? strchr(suffixes, *at) : NULL;
    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    if (at[suffix ? 1 : 0] != '\0' || size > (UINT64_C(1) << 46) >> shift)
        return false;
    *(size_t *)field = size << shift;
    return true;
}

/* ---- The table ---- */

_Static_assert(sizeof(enum mismatch_policy) == sizeof(unsigned) && sizeof(enum log_level) == sizeof(unsigned),
               "read_word stores an unsigned");

static const struct variable {
    const char *name; /* without BOUNCEIO_ */
    bool (*read)(void *field, const char *value, const char *words);
    void *field;
    const char *words;    /* the values a word may have, in the order of its enumeration */
    const char *fallback; /* what is used instead of a value that does not parse */
} variables[] = {
    /* The log first: what follows may have something to say. */
    {"LOG", read_word, &config.log_level, "error warn info debug", "warn"},
    {"LOG_FILE", read_path, &config.log_file, NULL, "stderr"},
    {"STORE", read_path, &config.store, "none", "the default store"},
    {"ON_MISMATCH", read_word, &config.on_mismatch, "eio warn abort", "eio"},
    {"READ", read_word, &config.read, "auto bounce inplace", "auto"},
    {"POOL", read_size, &config.pool, NULL, "16M"},
    {"POOL_MAX", read_size, &config.pool_max, NULL, "1G"},
    {"COPY", read_word, &config.copy, "guard kernel", "guard"},
    {"INCLUDE", read_text, &config.include, NULL, "every file"},
    {"EXCLUDE", read_text, &config.exclude, NULL, "no file"},
    {"DETECT", read_flag, &config.detect, "0 1", "0"},
    {"ADOPT", read_flag, &config.adopt, "0 1", "0"},
    {"STATS", read_path, &config.stats, "stderr", "no report"},
    {"DISABLE", read_flag, &config.disable, "0 1", "0"},
    {"TEST_SWEEP_MS", read_size, &config.test_sweep_ms, NULL, "the usual interval"},
};

static const char variable_prefix[] = "BOUNCEIO_";
enum { PREFIX_LENGTH = sizeof(variable_prefix) - 1, VARIABLES = sizeof(variables) / sizeof(variables[0]) };

/* @return the value of `entry` ("NAME=VALUE") when its name is BOUNCEIO_`name`, else NULL. */
static const char *value_of(const char *entry, const char *name)
{
    size_t length = strlen(name);
    if (strncmp(entry + PREFIX_LENGTH, name, length) != 0 || entry[PREFIX_LENGTH + length] != '=')
        return NULL;
    return entry + PREFIX_LENGTH + length + 1;
}

static bool is_ours(const char *entry)
{
    /* Most variables are not, and are asked once for each row of the table. */
    return entry[0] == variable_prefix[0] && strncmp(entry, variable_prefix, PREFIX_LENGTH) == 0;
}

/* An empty value is an unset variable. @return whether the variable had a value that could be used. */
static bool load_variable(const struct variable *variable)
{
    for (char **entry = environ; entry && *entry; entry++) {
        const char *value = is_ours(*entry) ? value_of(*entry, variable->name) : NULL;
        if (!value)
            continue;
        if (*value == '\0')
            return false;
        if (variable->read(variable->field, value, variable->words))
            return true;
        log_warn("BOUNCEIO_%s=%s is not understood; using %s", variable->name, value, variable->fallback);
        return false;
    }
    return false;
}

static bool is_known(const char *entry)
{
    /* Set by the test-suite for its own programs. */
    if (strncmp(entry + PREFIX_LENGTH, "TEST_", 5) == 0 || strncmp(entry + PREFIX_LENGTH, "SHIM", 4) == 0)
        return true;
    for (size_t i = 0; i < VARIABLES; i++)
        if (value_of(entry, variables[i].name))
            return true;
    return false;
}

static void report_unknown_variables(void)
{
    for (char **entry = environ; entry && *entry; entry++) {
        if (is_ours(*entry) && !is_known(*entry)) {
            char name[64];
            log_format(name, sizeof(name), "%s", *entry);
            name[strcspn(name, "=")] = '\0';
            log_warn("unknown variable %s; see libbounceshim(7)", name);
        }
    }
}

/* ---- What depends on more than one value ---- */

/* The state directory of the XDG Base Directory Specification; the system's for root. */
static void choose_default_store(void)
{
    const char *home = getenv("HOME"), *state = getenv("XDG_STATE_HOME");
    if (raw(SYS_geteuid) == 0)
        config.store = "/var/lib/bounceio";
    else if (state && is_slash_path(state))
        config.store = keep_string(state, "bounceio");
    else if (home && is_slash_path(home))
        config.store = keep_string(home, ".local/state/bounceio");
    config.store_unknown = !config.store;
}

static size_t whole_units(size_t size)
{
    size_t units = (size + pool_unit - 1) / pool_unit;
    return units ? units * pool_unit : pool_unit;
}

static void settle_pool_sizes(void)
{
    const bool asked = config.pool != POOL_UNASKED;
    config.pool = asked ? whole_units(config.pool) : pool_unasked;
    config.pool_max = whole_units(config.pool_max);
    if (config.pool > config.pool_max)
        config.pool = config.pool_max;
    config.pool_ready = asked || config.pool < pool_unasked_ready ? config.pool : pool_unasked_ready;
}

void config_load(void)
{
    config = (struct config)DEFAULTS;
    strings_used = 0;
    for (size_t i = 0; i < VARIABLES; i++)
        load_variable(&variables[i]);
    report_unknown_variables();
    if (!config.store)
        choose_default_store();
    else if (strcmp(config.store, "none") == 0)
        config.store = NULL;
    settle_pool_sizes();
}

/* ---- Globs ---- */

/*
 * Match one character against the glob element at `glob`. @return the element behind it, or NULL when it does not match.
 * `end` ends the glob. A '[' that is never closed stands for itself.
 */
static const char *match_one(const char *glob, const char *end, char c)
{
    if (*glob == '\\' && glob + 1 < end)
        return glob[1] == c ? glob + 2 : NULL;
    if (*glob == '?')
        return glob + 1;
    if (*glob != '[')
        return *glob == c ? glob + 1 : NULL;
    bool inverted = glob + 1 < end && (glob[1] == '!' || glob[1] == '^'), found = false;
    const char *first = glob + 1 + inverted, *at = first;
    for (; at < end && (*at != ']' || at == first); at++) {
        char low = *at, high = low;
        if (at + 2 < end && at[1] == '-' && at[2] != ']') {
            high = at[2];
            at += 2;
        }
        found |= (unsigned char)low <= (unsigned char)c && (unsigned char)c <= (unsigned char)high;
    }
    if (at >= end)
        return c == '[' ? glob + 1 : NULL;
    return found != inverted ? at + 1 : NULL;
}

/* Only the last star can still be wrong, so one place to go back to is enough. */
static bool glob_matches(const char *glob, const char *end, const char *path)
{
    const char *star = NULL, *star_path = NULL;
    while (*path) {
        const char *behind = glob < end && *glob != '*' ? match_one(glob, end, *path) : NULL;
        if (behind) {
            glob = behind;
            path++;
        } else if (glob < end && *glob == '*') {
            star = ++glob;
            star_path = path;
        } else if (star) {
            glob = star;
            path = ++star_path;
        } else {
            return false;
        }
    }
    while (glob < end && *glob == '*')
        glob++;
    return glob == end;
}

/* The first colon that is not escaped. */
static const char *end_of_glob(const char *glob)
{
    for (; *glob && *glob != ':'; glob++)
        if (*glob == '\\' && glob[1])
            glob++;
    return glob;
}

bool config_glob_list_matches(const char *globs, const char *path)
{
    while (globs && *globs) {
        const char *end = end_of_glob(globs);
        if (end > globs && glob_matches(globs, end, path))
            return true;
        globs = *end ? end + 1 : NULL;
    }
    return false;
}
