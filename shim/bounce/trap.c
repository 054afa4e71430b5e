/* The table of traps: filled once each, looked at by the guard's handler. See trap.h. */
#include "bounce/trap.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/process.h"
#include "base/raw.h"

#if defined(__x86_64__)

#define PAGE ((uintptr_t)4096)

static const unsigned char system_call[TRAP_LENGTH] = {0x0f, 0x05}; /* syscall */
static const unsigned char trap[TRAP_LENGTH] = {0xf4, 0x90};        /* hlt, which is the kernel's alone; nop */

static struct {
    _Atomic(unsigned char *) place; /* NULL: free. Stored last */
    trap_function *function;
} table[TRAP_MAX];

/* @return its number, or -1. */
static int find(const unsigned char *place)
{
    for (int i = 0; i < TRAP_MAX; i++) {
        /* Acquire: pairs with the release in write_trap. */
        const unsigned char *there = atomic_load_explicit(&table[i].place, memory_order_acquire);
        if (there == place)
            return i;
        if (!there)
            break;
    }
    return -1;
}

static int protect(const unsigned char *place, int protection)
{
    const uintptr_t first = (uintptr_t)place & ~(PAGE - 1);
    return (int)raw(SYS_mprotect, first, ((uintptr_t)place + TRAP_LENGTH - first + PAGE - 1) & ~(PAGE - 1), protection);
}

/* The code stays executable meanwhile, where that is allowed: other threads run there. */
static int write_trap(int number, unsigned char *place, trap_function *function)
{
    int error = protect(place, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (error != 0)
        return error;
    table[number].function = function;
    atomic_store_explicit(&table[number].place, place, memory_order_release);
    memcpy(place, trap, sizeof trap);
    return protect(place, PROT_READ | PROT_EXEC);
}

int trap_place(unsigned char *instruction, trap_function *function)
{
    uint64_t saved;
    int error = -ENOSPC;
    process_lock(&saved);
    if (find(instruction) >= 0 && memcmp(instruction, trap, sizeof trap) == 0)
        error = 0;
    else if (memcmp(instruction, system_call, sizeof system_call) != 0)
        error = -EINVAL;
    else
        for (int i = 0; i < TRAP_MAX && error == -ENOSPC; i++) {
            const unsigned char *there = atomic_load_explicit(&table[i].place, memory_order_relaxed);
            if (!there || there == instruction)
                error = write_trap(i, instruction, function);
        }
    process_unlock(&saved);
    return error;
}

bool trap_recover(ucontext_t *context)
{
    greg_t *registers = context->uc_mcontext.gregs;
    const unsigned char *place = (const unsigned char *)registers[REG_RIP]; /* NOLINT: the register holds an address */
    const int number = find(place);
    if (number < 0 || !place || memcmp(place, trap, sizeof trap) != 0)
        return false;
    const long argument[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                              registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    const int error = errno;
    registers[REG_RAX] = table[number].function(registers[REG_RAX], argument);
    registers[REG_RIP] += TRAP_LENGTH;
    errno = error;
    return true;
}

#else

int trap_place(unsigned char *instruction, trap_function *function)
{
    (void)instruction, (void)function;
    return -EINVAL;
}

bool trap_recover(ucontext_t *context)
{
    (void)context;
    return false;
}

#endif
