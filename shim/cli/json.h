/*
 * A small JSON writer: objects and arrays on a stream, indented, one value a line.
 *
 * Text is written as UTF-8: what is not (file names are bytes) becomes U+FFFD. Not thread-safe.
 */
#ifndef BOUNCEIO_CLI_JSON_H
#define BOUNCEIO_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH = 16 };

struct json {
    FILE *out;
    unsigned depth;
    bool has_values[JSON_DEPTH]; /* at each depth: the next value needs a comma */
};

/* `key` is NULL for a value in an array, and for the outermost one. */
void json_open_object(struct json *json, const char *key);
void json_close_object(struct json *json);
void json_open_array(struct json *json, const char *key);
void json_close_array(struct json *json);
void json_text(struct json *json, const char *key, const char *text);
void json_number(struct json *json, const char *key, uint64_t number);
void json_real(struct json *json, const char *key, double number, int digits);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

#endif
