/*
 * An allocator that can be told to fail: loaded in front of the C library's, it refuses and counts every call of a thread
 * that has forbidden allocation.
 */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Exported by the C library for allocators in front of its own. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void failing_malloc_forbid(bool forbid);
unsigned failing_malloc_refused(void);

static _Thread_local bool forbidden __attribute__((tls_model("initial-exec")));
static _Atomic unsigned refused;

void failing_malloc_forbid(bool forbid)
{
    forbidden = forbid;
}

unsigned failing_malloc_refused(void)
{
    return atomic_load_explicit(&refused, memory_order_relaxed); /* a counter orders nothing */
}

static bool refuse(void)
{
    if (!forbidden)
        return false;
    atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed); /* a counter orders nothing */
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return refuse() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refuse() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return refuse() ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size)
{
    return refuse() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return refuse() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (refuse())
        return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
