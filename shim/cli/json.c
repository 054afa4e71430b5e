/* See json.h. */
#include "cli/json.h"

#include <stddef.h>

/* The length of the UTF-8 sequence at `text`, 0 when it is not one. Source: RFC 3629, section 4. */
static size_t sequence_length(const unsigned char *text)
{
    unsigned first = text[0];
    size_t length = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : 4;
    if (first >= 0xf5 || (first >= 0x80 && first < 0xc2))
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    bool no_character = (first == 0xed && text[1] >= 0xa0) || (first == 0xf4 && text[1] >= 0x90);
    return overlong || no_character ? 0 : length;
}

static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t length = sequence_length(at);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (*at < ' ' || *at == 0x7f)
            fprintf(out, "\\u%04x", *at);
        else
            fwrite(at, 1, length, out);
        at += length ? length : 1;
    }
    fputc('"', out);
}

static void new_line(struct json *json)
{
    fputc('\n', json->out);
    for (unsigned i = 0; i < json->depth; i++)
        fputs("  ", json->out);
}

/* What stands before every value. */
static void begin_value(struct json *json, const char *key)
{
    if (json->has_values[json->depth])
        fputc(',', json->out);
    json->has_values[json->depth] = true;
    if (json->depth > 0)
        new_line(json);
    if (key) {
        write_text(json->out, key);
        fputs(": ", json->out);
    }
}

static void open_level(struct json *json, const char *key, char bracket)
{
    begin_value(json, key);
    fputc(bracket, json->out);
    json->has_values[++json->depth] = false;
}

static void close_level(struct json *json, char bracket)
{
    bool empty = !json->has_values[json->depth--];
    if (!empty)
        new_line(json);
    fputc(bracket, json->out);
    if (json->depth == 0) {
        fputc('\n', json->out);
        json->has_values[0] = false; /* another document may follow */
    }
}

void json_open_object(struct json *json, const char *key)
{
    open_level(json, key, '{');
}

void json_close_object(struct json *json)
{
    close_level(json, '}');
}

void json_open_array(struct json *json, const char *key)
{
    open_level(json, key, '[');
}

void json_close_array(struct json *json)
{
    close_level(json, ']');
}

void json_text(struct json *json, const char *key, const char *text)
{
    begin_value(json, key);
    write_text(json->out, text);
}

void json_number(struct json *json, const char *key, uint64_t number)
{
    begin_value(json, key);
    fprintf(json->out, "%llu", (unsigned long long)number);
}

void json_real(struct json *json, const char *key, double number, int digits)
{
    begin_value(json, key);
    fprintf(json->out, "%.*f", digits, number);
}

void json_bool(struct json *json, const char *key, bool value)
{
    begin_value(json, key);
    fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json, const char *key)
{
    begin_value(json, key);
    fputs("null", json->out);
}
