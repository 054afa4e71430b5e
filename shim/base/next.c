/* The stubs that stand in before start-up, and the look-up that replaces them. See next.h. */
#include "base/next.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/raw.h"

/* A raw result as the C library returns it. */
static long with_errno(long result)
{
    if (!raw_failed(result))
        return result;
    errno = (int)-result;
    return -1;
}

#define UNWRAP(...) __VA_ARGS__

#define STUB_CALL(result, name, parameters, arguments, call)                                                           \
    static result stub_##name parameters                                                                               \
    {                                                                                                                  \
        return (result)with_errno(raw(call, UNWRAP arguments));                                                        \
    }
NEXT_CALLS(STUB_CALL)

/* What a call that the C library does not have returns, by its result type. */
#define FAILURE(result)                                                                                                \
    _Generic((result(*)(void))NULL, FILE * (*)(void) : NULL, void (*)(void) : (void)0, default : (result)-1)

#define STUB_LIBC(result, name, parameters, arguments)                                                                 \
    static result stub_##name parameters                                                                               \
    {                                                                                                                  \
        result(*found) parameters = (result(*) parameters)next_find(#name);                                            \
        if (found)                                                                                                     \
            return found arguments;                                                                                    \
        errno = ENOSYS;                                                                                                \
        return FAILURE(result);                                                                                        \
    }
NEXT_LIBC(STUB_LIBC)

static bool takes_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

static int stub_openat(int directory, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = takes_mode(flags) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return (int)with_errno(raw(SYS_openat, directory, path, flags, mode));
}

static int stub_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = takes_mode(flags) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return (int)with_errno(raw(SYS_openat, AT_FDCWD, path, flags, mode));
}

static int stub_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    return (int)with_errno(raw(SYS_fcntl, fd, command, argument));
}

static int stub_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    return (int)with_errno(raw(SYS_ioctl, fd, request, argument));
}

static long stub_syscall(long number, ...)
{
    va_list arguments;
    long argument[6];
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        argument[i] = va_arg(arguments, long);
    va_end(arguments);
    return with_errno(
        raw_syscall6(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]));
}

static void *stub_mremap(void *address, size_t old_length, size_t new_length, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *new_address = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    return (void *)with_errno(raw(SYS_mremap, address, old_length, new_length, flags, new_address));
}

#define INITIAL_CALL(result, name, parameters, arguments, call) .name = stub_##name,
#define INITIAL_VARIADIC(result, name, parameters) .name = stub_##name,
#define INITIAL_LIBC(result, name, parameters, arguments) .name = stub_##name,

struct next_symbols next = {NEXT_CALLS(INITIAL_CALL) NEXT_VARIADIC(INITIAL_VARIADIC) NEXT_LIBC(INITIAL_LIBC)};

void *next_find(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        dlerror(); /* ours to clear: the program's next dlerror() must not report it */
    return found;
}

/* A symbol that is not found keeps its stub. */
#define RESOLVE(result, name, parameters)                                                                              \
    found = next_find(#name);                                                                                          \
    if (found)                                                                                                         \
        next.name = (result(*) parameters)found;
#define RESOLVE_CALL(result, name, parameters, arguments, call) RESOLVE(result, name, parameters)
#define RESOLVE_VARIADIC(result, name, parameters) RESOLVE(result, name, parameters)
#define RESOLVE_LIBC(result, name, parameters, arguments) RESOLVE(result, name, parameters)

void next_resolve(void)
{
    void *found;
    NEXT_CALLS(RESOLVE_CALL)
    NEXT_VARIADIC(RESOLVE_VARIADIC)
    NEXT_LIBC(RESOLVE_LIBC)
}
