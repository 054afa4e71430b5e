/* See text.h. */
#include "cli/text.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *time_text(char buffer[TIME_TEXT], int64_t nanoseconds)
{
    struct tm local;
    time_t seconds = (time_t)(nanoseconds / 1000000000);
    if (!localtime_r(&seconds, &local) || strftime(buffer, TIME_TEXT, "%Y-%m-%d %H:%M:%S %z", &local) == 0)
        snprintf(buffer, TIME_TEXT, "%lld s", (long long)seconds);
    return buffer;
}

const char *boot_text(char buffer[BOOT_TEXT], const _Atomic uint64_t boot[2])
{
    uint64_t high = atomic_load(&boot[0]), low = atomic_load(&boot[1]);
    snprintf(buffer, BOOT_TEXT, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(high >> 32), (unsigned)(high >> 16) & 0xffff,
             (unsigned)high & 0xffff, (unsigned)(low >> 48), (unsigned long long)(low & 0xffffffffffff));
    return buffer;
}

const char *count_text(char buffer[COUNT_TEXT], uint64_t count)
{
    char digits[COUNT_TEXT];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    char *to = buffer;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return buffer;
}

void print_name(const char *name)
{
    for (; *name; name++)
        putchar((unsigned char)*name < ' ' || *name == 0x7f ? '?' : *name);
}
