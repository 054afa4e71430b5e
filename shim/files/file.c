/*
 * The table of open files: FILE_MAX objects in wiped memory, found by (device, inode) through hash chains under the process lock.
 */
#include "files/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/config.h"
#include "base/log.h"
#include "base/process.h"
#include "base/raw.h"
#include "checksum/locator.h"
#include "checksum/map_unheard.h"
#include "checksum/window.h"
#include "files/reader.h"

enum { BUCKETS = 4096 };

static struct file_table {
    uint32_t buckets[BUCKETS]; /* index + 1 */
    uint32_t high;             /* objects [0, high) have been used */
    _Atomic uint32_t unreferenced;
    struct file files[FILE_MAX];
} * table;
struct file *file_first;

static void file_start(void)
{
    table = process_arena(sizeof *table);
    file_first = table->files;
}
PROCESS_INITIALISER(file_start);

uint32_t file_index(const struct file *file)
{
    return (uint32_t)(file - table->files);
}

static uint32_t *bucket_of(uint64_t device, uint64_t inode)
{
    return &table->buckets[(device * 31 + inode) * UINT64_C(0x9E3779B97F4A7C15) >> 52];
}

static struct file *find(uint64_t device, uint64_t inode)
{
    for (uint32_t i = *bucket_of(device, inode); i != 0; i = table->files[i - 1].next) {
        struct file *file = &table->files[i - 1];
        if (file->device == device && file->inode == inode)
            return file;
    }
    return NULL;
}

static void unlink_from_chain(struct file *file)
{
    uint32_t *link = bucket_of(file->device, file->inode);
    while (*link != file_index(file) + 1)
        link = &table->files[*link - 1].next;
    *link = file->next;
}

static struct file *unused(void)
{
    for (uint32_t i = 0; i < table->high; i++)
        if (!atomic_load(&table->files[i].in_use) && atomic_load(&table->files[i].references) == 0)
            return &table->files[i];
    return table->high < FILE_MAX ? &table->files[table->high++] : NULL;
}

static void learn_alignment(struct file *file, int fd)
{
    struct statx status;
    file->offset_align = file->memory_align = 512;
    if (raw(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0 || !(status.stx_mask & STATX_DIOALIGN))
        return;
    if (status.stx_dio_offset_align)
        file->offset_align = status.stx_dio_offset_align;
    if (status.stx_dio_mem_align)
        file->memory_align = status.stx_dio_mem_align;
}

static bool lies_in_memory(int fd)
{
    struct statfs status;
    return raw(SYS_fstatfs, fd, &status) == 0 && status.f_type == TMPFS_MAGIC;
}

/* @return false when the number leads to another file by now: another thread has closed it, and perhaps used it again. */
static bool open_map(struct file *file, int fd, bool create)
{
    struct map_key key;
    struct stat status;
    if (file->is_device)
        return fstat(fd, &status) == 0 && S_ISBLK(status.st_mode) && status.st_rdev == file->inode;
    if (map_key_of(fd, &key) != 0 || key.device != file->device || key.inode != file->inode)
        return false;
    int error = config.store ? map_open(&file->map, &key, create) : -ENOENT;
    if (error == 0)
        locator_note(&file->map, fd);
    /* No map; or it is another's: another inode's that looks alike, another machine's. */
    file->has_no_say = error != 0 && error != -ENOENT && error != -EBUSY && error != -EXDEV;
    return true;
}

static void say_unheard(int fd)
{
    struct file_path path;
    file_path_begin(&path, fd);
    log_warn("changed outside: path=\"%s\" is open for writing where its checksums cannot be kept; its "
             "blocks take the checksum of what is read from now on (when it is closed: bounceio adopt --trust \"%s\")",
             path.text, path.text);
    file_path_end(&path);
}

void file_will_be_written(struct file *file, int fd)
{
    struct map_key key;
    bool first = false;
    if (file->has_no_say && !file->unheard && map_key_of(fd, &key) == 0)
        file->unheard = map_unheard_begin(&key, &first);
    if (first)
        say_unheard(fd);
}

struct file *file_open(int fd, const struct stat *status, bool create_map)
{
    file_reap();
    bool is_device = S_ISBLK(status->st_mode);
    uint64_t device = is_device ? UINT64_MAX : status->st_dev;
    uint64_t inode = is_device ? status->st_rdev : status->st_ino;
    struct file *file = find(device, inode);
    if (file) {
        file_hold(file);
        return file;
    }
    file = unused();
    if (!file) {
        static atomic_flag said = ATOMIC_FLAG_INIT;
        if (!atomic_flag_test_and_set(&said))
            log_warn("more than %d files open for direct I/O: the others are not bounced", FILE_MAX);
        return NULL;
    }
    file_hold(file);
    file->is_device = is_device;
    file->device = device;
    file->inode = inode;
    atomic_store(&file->unlinked, false);
    atomic_store(&file->suspicions, 0);
    atomic_store(&file->swept, window_now());
    atomic_store(&file->unsaid, 0);
    atomic_store(&file->looked_for_dead, 0);
    file->has_no_say = false;
    file->unheard = 0;
    learn_alignment(file, fd);
    file->is_in_memory = !is_device && lies_in_memory(fd);
    if (!open_map(file, fd, create_map)) {
        file_release(file);
        return NULL;
    }
    /* What others have left DIRTY may be left alone long since. */
    if (atomic_load(&file->map.dirtied))
        atomic_store(&file->swept, 0);
    uint32_t *bucket = bucket_of(device, inode);
    file->next = *bucket;
    *bucket = file_index(file) + 1;
    atomic_store(&file->in_use, true);
    return file;
}

bool file_is_behind(const struct file *file, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return false;
    return file->is_device ? S_ISBLK(status.st_mode) && status.st_rdev == file->inode
                           : status.st_dev == file->device && status.st_ino == file->inode;
}

void file_unreferenced(void)
{
    atomic_fetch_add(&table->unreferenced, 1);
}

bool file_needs_reaping(void)
{
    return atomic_load_explicit(&table->unreferenced, memory_order_relaxed) != 0;
}

void file_reap(void)
{
    if (atomic_exchange(&table->unreferenced, 0) == 0)
        return;
    for (uint32_t i = 0; i < table->high; i++) {
        struct file *file = &table->files[i];
        if (!atomic_load(&file->in_use) || atomic_load(&file->references) != 0)
            continue;
        unlink_from_chain(file);
        reader_close(file);
        atomic_store(&file->in_use, false);
        map_close(&file->map, atomic_load(&file->unlinked));
        if (file->unheard)
            map_unheard_end(file->unheard);
    }
}

void file_path_begin(struct file_path *path, int fd)
{
    char link[32];
    path->text = "?";
    if (pool_take(&path->page, POOL_PAGE, false) != 0)
        return;
    log_format(link, sizeof link, "/proc/self/fd/%d", fd);
    char *text = path->page.base;
    long length = raw(SYS_readlinkat, AT_FDCWD, link, text, POOL_PAGE - 1);
    if (raw_failed(length))
        return;
    text[length] = '\0';
    path->text = text;
}

void file_path_end(struct file_path *path)
{
    pool_give(&path->page);
}

bool file_is_included(int fd)
{
    if (!config.include && !config.exclude)
        return true;
    struct file_path path;
    file_path_begin(&path, fd);
    bool included = (!config.include || config_glob_list_matches(config.include, path.text)) &&
                    !(config.exclude && config_glob_list_matches(config.exclude, path.text));
    file_path_end(&path);
    return included;
}
