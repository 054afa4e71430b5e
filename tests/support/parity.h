/*
 * Parity: the same calls without and with the shim, on every file system, and every difference accounted for.
 *
 * A theme is one test program: a table of cases and `parity_main`. Its record mode runs the table in one directory and
 * prints one line per case: result, errno, size, offset, hash of the content, hash of the data read, and whether all of that is
 * what the result promises ("exact"). The test runs the record mode twice per file system, without and with the shim,
 * and compares. A difference passes only as one of the exceptions of the contract, and is then listed:
 *
 *   misaligned  memory: EINVAL without the shim; with it, what aligned memory gives without the shim
 *   partly-bad  buffer: EFAULT or a shorter count without the shim; with it, a count and exactly that prefix
 *   mismatch    a block damaged behind the shim's back: EIO with the shim
 *   nowait      RWF_NOWAIT refused with EAGAIN, nothing touched: the shim never waits when told not to. The kernel
 *               refuses at times, too (XFS, when a time stamp must change): then the difference may be the other way round
 */
#ifndef BOUNCEIO_TESTS_PARITY_H
#define BOUNCEIO_TESTS_PARITY_H

#include "support.h"

#include <sys/uio.h>

/* What the caller's memory is like. Positions are of the whole request, over all segments. */
enum parity_memory {
    ALIGNED, /* page aligned, readable and writable */
    ODD_1,   /* misaligned by that many bytes */
    ODD_2,
    ODD_4,
    ODD_8,
    ODD_512,
    BAD_FIRST, /* one inaccessible page */
    BAD_SECOND,
    BAD_MIDDLE,
    BAD_LAST,
    BAD_ODD,          /* misaligned by 512 and the last page inaccessible: the fault is in the middle of a block */
    BAD_ODD_1,        /* the same, misaligned by one byte */
    INACCESSIBLE,     /* every page */
    READ_ONLY,        /* every page */
    READ_ONLY_MIDDLE, /* one page */
    READ_ONLY_LAST,
    WRITE_ONLY,
    UNTOUCHED,        /* anonymous memory that has no pages yet */
    NOTHING,          /* the null pointer */
    LOW,              /* an address below anything that can be mapped */
    KERNEL,           /* an address of the kernel's half */
    NON_CANONICAL,    /* an address that no page table can hold */
    ADDRESS_END,      /* the last page of the address space */
    TRUNCATED_MIDDLE, /* a mapping of another file that now ends in the middle of the buffer */
    TRUNCATED_ODD,    /* the same, 100 bytes into a page: the rest of that page reads as zeros */
    TRUNCATED_ALL,    /* the same, cut to nothing */
    OTHER_FILE,       /* an untouched mapping of another file */
    OTHER_PRIVATE,
    SAME_FILE,    /* a shared mapping of the file under test, from SAME_FILE_AT on */
    SAME_PRIVATE, /* a private one */
    SAME_RANGE    /* a shared one of the very range the request covers */
};

enum { DEFAULT_SIZE = 256 << 10, SAME_FILE_AT = 128 << 10, EMPTY_FILE = -1 };

enum parity_traits {
    WRITES = 1,
    AT_OFFSET = 2, /* names its offset; otherwise the file's own is used and moved */
    TAKES_FLAGS = 4
};

/* One way to read or write, made uniform. */
struct parity_call {
    const char *name;
    enum parity_traits traits;
    ssize_t (*issue)(int fd, const struct iovec *vector, int count, off_t offset, int flags);
};

extern const struct parity_call call_read, call_write, call_pread, call_pwrite, call_readv, call_writev, call_preadv,
    call_pwritev, call_preadv2, call_pwritev2;
/* The other names of the same calls, and the same system calls through syscall(2). */
extern const struct parity_call call_read_internal, call_write_internal, call_pread64, call_pwrite64,
    call_pread64_internal, call_pwrite64_internal, call_preadv64, call_pwritev64, call_preadv64v2, call_pwritev64v2,
    call_read_chk, call_pread_chk, call_pread64_chk, call_syscall_read, call_syscall_write, call_syscall_pread,
    call_syscall_pwrite, call_syscall_readv, call_syscall_writev, call_syscall_preadv, call_syscall_pwritev,
    call_syscall_preadv2, call_syscall_pwritev2;

enum { PARITY_SEGMENTS = 6 };

/* Marks an open mode as given, so that a case that says nothing opens O_RDWR | O_DIRECT. */
#define OPENED(flags) ((flags) | (1 << 30))

struct parity_scene;

/* Everything that is zero is the default: 4 KiB aligned memory has to be asked for by its length only. */
struct parity_case {
    const char *name;
    const struct parity_call *call;
    int64_t offset;  /* of calls that name one */
    int64_t at;      /* lseek there first, when not 0 */
    uint64_t length; /* of a single segment */
    enum parity_memory memory;
    int flags;      /* RWF_* */
    int open;       /* OPENED(flags) */
    int64_t size;   /* of the file before: DEFAULT_SIZE, EMPTY_FILE or bytes */
    bool vectored;  /* use `segments`, up to the first 0 not followed by another; see `count` */
    unsigned count; /* segments; with `each`: that many of `each` bytes, cut from one buffer */
    uint64_t each;
    uint64_t segments[PARITY_SEGMENTS];
    bool damaged; /* the file is written through the shim, then a bit of its first block is flipped behind it */
    bool warm;    /* the file is written through the shim first, whole */
    bool regular; /* not for a block device */
    /* Instead of a call: anything. What it notes is compared, then size, content and the offset of scene->fd. */
    void (*run)(struct parity_scene *scene);
};

struct parity_scene {
    const struct parity_case *c;
    const char *directory;
    char path[4096]; /* of the file under test, which holds the pattern of PRIOR_SEED */
    uint64_t size;   /* before */
    int fd;          /* -1: none; closed by the harness */
    char notes[1024];
};

enum { PRIOR_SEED = 1, SOURCE_SEED = 2, OTHER_SEED = 3 };

/* Add " what=result/errno" to the notes. @return the result. */
long scene_note(struct parity_scene *scene, const char *what, long result);
/* The same without errno: a plain number. */
void scene_fact(struct parity_scene *scene, const char *what, unsigned long long value);

/* Run a theme; `cases` ends with a NULL name. */
int parity_main(int argc, char **argv, const char *theme, const struct parity_case *cases);

/* --- Inside ------------------------------------------------------------------------------------------------------- */

/* The memory of one request, built as its case asks. */
struct parity_buffer {
    struct iovec *vector;
    int count;
    uint64_t good;  /* bytes before the first that cannot be accessed in the call's direction, over all segments */
    uint64_t total; /* bytes asked for */
    unsigned char *source; /* what a write would take: `good` bytes */
    void *region;          /* mapped memory behind the segments */
    size_t region_length;
    bool anonymous; /* from buffer_new */
};

void parity_buffer_build(struct parity_buffer *buffer, const struct parity_scene *scene, const struct parity_case *c,
                         uint64_t where);
void parity_buffer_free(struct parity_buffer *buffer);
bool parity_memory_is_odd(enum parity_memory memory);

#endif
