/* Every name of every call that reads or writes, behind one signature. */
#include "parity.h"

#include <sys/syscall.h>
#include <unistd.h>

/* The C library exports these without declaring them for programs. */
ssize_t __read(int fd, void *buffer, size_t length);
ssize_t __write(int fd, const void *buffer, size_t length);
ssize_t __pread64(int fd, void *buffer, size_t length, off64_t offset);
ssize_t __pwrite64(int fd, const void *buffer, size_t length, off64_t offset);
ssize_t __read_chk(int fd, void *buffer, size_t length, size_t room);
ssize_t __pread_chk(int fd, void *buffer, size_t length, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buffer, size_t length, off64_t offset, size_t room);

#define CALL(name, traits, expression)                                                                                 \
    static ssize_t name##_issue(int fd, const struct iovec *v, int count, off_t offset, int flags)                     \
    {                                                                                                                  \
        (void)count;                                                                                                   \
        (void)offset;                                                                                                  \
        (void)flags;                                                                                                   \
        return expression;                                                                                             \
    }                                                                                                                  \
    const struct parity_call call_##name = {#name, (enum parity_traits)(traits), name##_issue}

CALL(read, 0, read(fd, v->iov_base, v->iov_len));
CALL(write, WRITES, write(fd, v->iov_base, v->iov_len));
CALL(pread, AT_OFFSET, pread(fd, v->iov_base, v->iov_len, offset));
CALL(pwrite, WRITES | AT_OFFSET, pwrite(fd, v->iov_base, v->iov_len, offset));
CALL(readv, 0, readv(fd, v, count));
CALL(writev, WRITES, writev(fd, v, count));
CALL(preadv, AT_OFFSET, preadv(fd, v, count, offset));
CALL(pwritev, WRITES | AT_OFFSET, pwritev(fd, v, count, offset));
CALL(preadv2, AT_OFFSET | TAKES_FLAGS, preadv2(fd, v, count, offset, flags));
CALL(pwritev2, WRITES | AT_OFFSET | TAKES_FLAGS, pwritev2(fd, v, count, offset, flags));

CALL(read_internal, 0, __read(fd, v->iov_base, v->iov_len));
CALL(write_internal, WRITES, __write(fd, v->iov_base, v->iov_len));
CALL(pread64, AT_OFFSET, pread64(fd, v->iov_base, v->iov_len, offset));
CALL(pwrite64, WRITES | AT_OFFSET, pwrite64(fd, v->iov_base, v->iov_len, offset));
CALL(pread64_internal, AT_OFFSET, __pread64(fd, v->iov_base, v->iov_len, offset));
CALL(pwrite64_internal, WRITES | AT_OFFSET, __pwrite64(fd, v->iov_base, v->iov_len, offset));
CALL(preadv64, AT_OFFSET, preadv64(fd, v, count, offset));
CALL(pwritev64, WRITES | AT_OFFSET, pwritev64(fd, v, count, offset));
CALL(preadv64v2, AT_OFFSET | TAKES_FLAGS, preadv64v2(fd, v, count, offset, flags));
CALL(pwritev64v2, WRITES | AT_OFFSET | TAKES_FLAGS, pwritev64v2(fd, v, count, offset, flags));
CALL(read_chk, 0, __read_chk(fd, v->iov_base, v->iov_len, v->iov_len));
CALL(pread_chk, AT_OFFSET, __pread_chk(fd, v->iov_base, v->iov_len, offset, v->iov_len));
CALL(pread64_chk, AT_OFFSET, __pread64_chk(fd, v->iov_base, v->iov_len, offset, v->iov_len));

/* The kernel takes the offset of the vectored calls in two halves; the upper one is ignored where a long holds it all. */
CALL(syscall_read, 0, syscall(SYS_read, fd, v->iov_base, v->iov_len));
CALL(syscall_write, WRITES, syscall(SYS_write, fd, v->iov_base, v->iov_len));
CALL(syscall_pread, AT_OFFSET, syscall(SYS_pread64, fd, v->iov_base, v->iov_len, offset));
CALL(syscall_pwrite, WRITES | AT_OFFSET, syscall(SYS_pwrite64, fd, v->iov_base, v->iov_len, offset));
CALL(syscall_readv, 0, syscall(SYS_readv, fd, v, count));
CALL(syscall_writev, WRITES, syscall(SYS_writev, fd, v, count));
CALL(syscall_preadv, AT_OFFSET, syscall(SYS_preadv, fd, v, count, offset, 0));
CALL(syscall_pwritev, WRITES | AT_OFFSET, syscall(SYS_pwritev, fd, v, count, offset, 0));
CALL(syscall_preadv2, AT_OFFSET | TAKES_FLAGS, syscall(SYS_preadv2, fd, v, count, offset, 0, flags));
CALL(syscall_pwritev2, WRITES | AT_OFFSET | TAKES_FLAGS, syscall(SYS_pwritev2, fd, v, count, offset, 0, flags));
