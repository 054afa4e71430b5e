/*
 * Mismatch reports. Owns the program's callback: an index into two slots, so that callback and argument change together.
 */
#include "engine/report.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/config.h"
#include "base/log.h"
#include "base/process.h"
#include "base/stats.h"
#include "checksum/block_sum.h"
#include "files/file.h"

static struct {
    _Atomic(bounceio_mismatch_callback *) callback;
    _Atomic(void *) argument;
} slots[2];
static _Atomic unsigned slot_now;

void report_set_callback(bounceio_mismatch_callback *callback, void *argument)
{
    uint64_t saved;
    process_lock(&saved);
    unsigned next_slot = 1 - atomic_load(&slot_now);
    atomic_store(&slots[next_slot].callback, callback);
    atomic_store(&slots[next_slot].argument, argument);
    /* Release: pairs with the acquire in report_mismatch. */
    atomic_store_explicit(&slot_now, next_slot, memory_order_release);
    process_unlock(&saved);
}

__attribute__((noinline)) void report_mismatch(int fd, uint64_t block, uint64_t expected, uint64_t found)
{
    struct file_path path;
    int saved_errno = errno;
    file_path_begin(&path, fd);
    stats_add(STAT_mismatches, 1);
    log_error("checksum mismatch: path=\"%s\" offset=%llu length=%d expected=%016llx found=%016llx", path.text,
              (unsigned long long)(block * BLOCK_SIZE), BLOCK_SIZE, (unsigned long long)expected,
              (unsigned long long)found);
    unsigned slot = atomic_load_explicit(&slot_now, memory_order_acquire);
    bounceio_mismatch_callback *callback = atomic_load(&slots[slot].callback);
    if (callback) {
        const struct bounceio_mismatch mismatch = {.path = path.text,
                                                   .offset = block * BLOCK_SIZE,
                                                   .length = BLOCK_SIZE,
                                                   .expected = expected,
                                                   .found = found};
        callback(&mismatch, atomic_load(&slots[slot].argument));
    }
    file_path_end(&path);
    errno = saved_errno;
}

int report_policy(void)
{
    if (config.on_mismatch == ON_MISMATCH_ABORT)
        abort();
    return config.on_mismatch == ON_MISMATCH_WARN ? 0 : -EIO;
}

__attribute__((noinline)) void report_changed_outside(int fd)
{
    struct file_path path;
    file_path_begin(&path, fd);
    log_warn("changed outside: path=\"%s\" was changed by a program without bounceio; its blocks take the checksum "
             "of what is read from now on (run both programs with bounceio, or: bounceio adopt --trust \"%s\")",
             path.text, path.text);
    file_path_end(&path);
}

__attribute__((noinline)) void report_recovered(int fd, uint64_t block)
{
    struct file_path path;
    file_path_begin(&path, fd);
    log_info("recovered after an unclean stop: path=\"%s\" offset=%llu length=%d", path.text,
             (unsigned long long)(block * BLOCK_SIZE), BLOCK_SIZE);
    file_path_end(&path);
}
