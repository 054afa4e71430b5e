/*
 * Memory mappings: a shared, writable one is a writer that the shim does not see at work.
 */
#include <stdarg.h>
#include <sys/mman.h>

#include "base/next.h"
#include "base/process.h"
#include "base/raw.h"
#include "entry/entry.h"
#include "entry/uring_raw.h"
#include "files/descriptor.h"
#include "files/standing.h"

/* A shared mapping of a file was made; if the file has a map, it is remembered. */
static void note_mapping(void *address, size_t length, int protection, int fd, off_t offset)
{
    struct fd_view view;
    standing_mapping_noted();
    if (!process_owns_tables())
        return;
    if (fd_view_open(&view, fd, false) == 0 && view.file && file_has_map(view.file) && (view.flags & FD_WRITABLE))
        standing_mapping_made(address, length, view.file, (uint64_t)offset, (protection & PROT_WRITE) != 0);
    fd_view_close(&view);
}

/* The call itself: of a shadow ring, or the next. */
static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    long result;
    if (!(flags & MAP_ANONYMOUS) && uring_raw_map(address, length, protection, flags, fd, (uint64_t)offset, &result))
        return raw_failed(result) ? (void *)with_errno(result) : (void *)result;
    return next.mmap(address, length, protection, flags, fd, offset);
}

EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    bool shared = (flags & MAP_SHARED) && !(flags & MAP_ANONYMOUS); /* MAP_SHARED_VALIDATE has that bit too */
    void *result = map(address, length, protection, flags, fd, offset);
    if ((flags & MAP_FIXED) && result != MAP_FAILED)
        standing_mapping_gone(address, length); /* what was there before */
    if (!shared || result == MAP_FAILED)
        return result;
    int error = errno;
    if (process_start())
        note_mapping(result, length, protection, fd, offset);
    errno = error;
    return result;
}

EXPORT int munmap(void *address, size_t length)
{
    /* Before: afterwards the addresses may be another thread's. The call fails only when it is misaligned or empty. */
    if (length > 0 && (uintptr_t)address % 4096 == 0)
        standing_mapping_gone(address, length);
    return next.munmap(address, length);
}

EXPORT int mprotect(void *address, size_t length, int protection)
{
    if (protection & PROT_WRITE)
        standing_mapping_writable(address, length);
    return next.mprotect(address, length, protection);
}

EXPORT int pkey_mprotect(void *address, size_t length, int protection, int key)
{
    if (protection & PROT_WRITE)
        standing_mapping_writable(address, length);
    return next.pkey_mprotect(address, length, protection, key);
}

/* MADV_REMOVE punches a hole into the mapped file, whatever the mapping's protection. */
EXPORT int madvise(void *address, size_t length, int advice)
{
    if (advice == MADV_REMOVE)
        standing_mapping_writable(address, length);
    return next.madvise(address, length, advice);
}

EXPORT void *mremap(void *address, size_t old_length, size_t new_length, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *wanted = (flags & MREMAP_FIXED) ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    void *result = next.mremap(address, old_length, new_length, flags, wanted);
    if (result == MAP_FAILED)
        return result;
    if (flags & MREMAP_FIXED)
        standing_mapping_gone(wanted, new_length);
    standing_mapping_moved(address, result, new_length);
    return result;
}

ALIAS(mmap64, mmap);
ALIAS(__mmap, mmap);
ALIAS(__munmap, munmap);
ALIAS(__mprotect, mprotect);
