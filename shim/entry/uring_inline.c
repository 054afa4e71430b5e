/*
 * The search: `mov $number, %eax`, and `syscall` within a few bytes.
 */
#include "entry/uring_inline.h"

#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "base/raw.h"
#include "bounce/guard.h"
#include "bounce/trap.h"
#include "entry/uring_raw.h"

enum { MOV_LENGTH = 5, GAP_MOST = 12 /* bytes between the two: arguments that are moved to their registers */ };

static long called_inline(long number, const long argument[6])
{
    switch (number) { /* NOLINTBEGIN: registers hold addresses */
    case SYS_io_uring_setup:
        return uring_raw_setup((unsigned)argument[0], (struct io_uring_params *)argument[1], NULL);
    case SYS_io_uring_enter:
        return uring_raw_enter((unsigned)argument[0], (unsigned)argument[1], (unsigned)argument[2],
                               (unsigned)argument[3], (const void *)argument[4], (size_t)argument[5]);
    case SYS_io_uring_register:
        return uring_raw_register((unsigned)argument[0], (unsigned)argument[1], (void *)argument[2],
                                  (unsigned)argument[3]);
    default: /* the program has come there another way */
        return raw_syscall6(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    } /* NOLINTEND */
}

/* mov $number, %eax, of a number of io_uring's. */
static bool loads_number(const unsigned char *code)
{
    uint32_t number;
    memcpy(&number, code + 1, sizeof number);
    return code[0] == 0xb8 &&
           (number == SYS_io_uring_setup || number == SYS_io_uring_enter || number == SYS_io_uring_register);
}

/* @return where the instruction is, or NULL. */
static unsigned char *call_after(unsigned char *code, const unsigned char *end)
{
    for (int gap = 0; gap <= GAP_MOST && code + MOV_LENGTH + gap + TRAP_LENGTH <= end; gap++) {
        unsigned char *call = code + MOV_LENGTH + gap;
        if (call[0] == 0x0f && call[1] == 0x05)
            return call;
    }
    return NULL;
}

/* @return 0, or -errno of the first that cannot be replaced. */
static int replace_in(unsigned char *code, const unsigned char *end)
{
    int error = 0;
    while (error == 0 && end - code >= MOV_LENGTH + TRAP_LENGTH &&
           (code = memchr(code, 0xb8, (size_t)(end - code) - MOV_LENGTH)) != NULL) {
        unsigned char *call = loads_number(code) ? call_after(code, end) : NULL;
        if (call && !guard_is_up())
            error = -EPERM;
        else if (call)
            error = trap_place(call, called_inline);
        code++;
    }
    return error;
}

struct search {
    uintptr_t caller;
    int error;
};

/* The executable segments of the object that holds the caller. */
static int visit(struct dl_phdr_info *object, size_t size, void *argument)
{
    struct search *search = argument;
    bool is_it = false;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        is_it = is_it || (segment->p_type == PT_LOAD &&
                          search->caller - (object->dlpi_addr + segment->p_vaddr) < segment->p_memsz);
    }
    for (int i = 0; is_it && i < object->dlpi_phnum && search->error == 0; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        unsigned char *code = (unsigned char *)(object->dlpi_addr + segment->p_vaddr); /* NOLINT: from the loader */
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X))
            search->error = replace_in(code, code + segment->p_filesz);
    }
    return is_it;
}

static void say(int error)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        log_warn(
            "this program enters io_uring by instructions of its own, which cannot be replaced: %s; its requests by "
            "io_uring are not bounced (BOUNCEIO_COPY=guard, and a policy that permits changing code, are needed)",
            log_reason(error));
}

bool uring_inline_catch(const void *caller)
{
    static _Atomic(const void *) last; /* programs set several rings up from one place */
    struct search search = {.caller = (uintptr_t)caller};
    if (atomic_load(&last) == caller)
        return true;
    guard_install();
    dl_iterate_phdr(visit, &search);
    if (search.error != 0)
        say(search.error);
    else
        atomic_store(&last, caller);
    return search.error == 0;
}
