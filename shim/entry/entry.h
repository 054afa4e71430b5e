/*
 * What every file of wrappers needs: definitions that the dynamic linker can bind, and errno from an internal result.
 */
#ifndef BOUNCEIO_ENTRY_ENTRY_H
#define BOUNCEIO_ENTRY_ENTRY_H

#include <errno.h>

#define EXPORT __attribute__((visibility("default")))

/* gcc compares the attributes of both names, which C library headers sprinkle unevenly; clang does not know this one. */
#if __has_attribute(copy)
#define COPY_ATTRIBUTES(name) __attribute__((copy(name)))
#else
#define COPY_ATTRIBUTES(name)
#endif

/* Another name of the wrapper `name`, with the same body. */
#define ALIAS(other, name)                                                                                             \
    extern __typeof__(name) other __attribute__((alias(#name), visibility("default"))) COPY_ATTRIBUTES(name)

/* @return `result`, or -1 with errno set when it is -errno. */
static inline long with_errno(long result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

#endif
