/*
 * The one list of what the shim wraps. From it come the pointers to the next definition (next.h), their look-ups, and the
 * linker's version script (`make` generates shim.map from this file; `make lint` checks that every name is defined).
 *
 * NEXT_CALLS(X):   X(result, name, parameters, arguments, number): calls that are one system call. Until they are looked
 *                  up they go to the kernel directly. Looked up at start-up, because they are async-signal-safe.
 * NEXT_VARIADIC(X):X(result, name, parameters): likewise, with stubs written by hand (next.c).
 * NEXT_LIBC(X):    X(result, name, parameters, arguments): calls of the C library that are more than a system call; looked
 *                  up at start-up, or by their first caller.
 * NEXT_ALIASES(X): X(alias, name): other names of a call, with the same parameters and the same body.
 * NEXT_CHECKED(X): X(name): fortified forms (`_chk`, `_2`), each with a wrapper of its own beside the plain call.
 *                  The next definition is looked up only when the check fails. Also dprintf, whose wrapper ends in vdprintf.
 * NEXT_RAW(X):     X(name): calls of libraries that a program may or may not have loaded, each of them one system call, which is what the
 *                  wrapper makes: a plug-in's library is not among the next definitions.
 * NEXT_URING(X):   X(name): liburing's functions, whose wrappers make the system calls themselves.
 */
#ifndef BOUNCEIO_BASE_SYMBOLS_H
#define BOUNCEIO_BASE_SYMBOLS_H

#define NEXT_CALLS(X)                                                                                                  \
    X(ssize_t, read, (int fd, void *buffer, size_t length), (fd, buffer, length), SYS_read)                            \
    X(ssize_t, write, (int fd, const void *buffer, size_t length), (fd, buffer, length), SYS_write)                    \
    X(ssize_t, pread, (int fd, void *buffer, size_t length, off_t offset), (fd, buffer, length, offset), SYS_pread64)  \
    X(ssize_t, pwrite, (int fd, const void *buffer, size_t length, off_t offset), (fd, buffer, length, offset),        \
      SYS_pwrite64)                                                                                                    \
    X(ssize_t, readv, (int fd, const struct iovec *vector, int count), (fd, vector, count), SYS_readv)                 \
    X(ssize_t, writev, (int fd, const struct iovec *vector, int count), (fd, vector, count), SYS_writev)               \
    X(ssize_t, preadv, (int fd, const struct iovec *vector, int count, off_t offset), (fd, vector, count, offset, 0),  \
      SYS_preadv)                                                                                                      \
    X(ssize_t, pwritev, (int fd, const struct iovec *vector, int count, off_t offset), (fd, vector, count, offset, 0), \
      SYS_pwritev)                                                                                                     \
    X(ssize_t, preadv2, (int fd, const struct iovec *vector, int count, off_t offset, int flags),                      \
      (fd, vector, count, offset, 0, flags), SYS_preadv2)                                                              \
    X(ssize_t, pwritev2, (int fd, const struct iovec *vector, int count, off_t offset, int flags),                     \
      (fd, vector, count, offset, 0, flags), SYS_pwritev2)                                                             \
    X(off_t, lseek, (int fd, off_t offset, int whence), (fd, offset, whence), SYS_lseek)                               \
    X(int, close, (int fd), (fd), SYS_close)                                                                           \
    X(int, dup, (int fd), (fd), SYS_dup)                                                                               \
    X(int, dup3, (int fd, int number, int flags), (fd, number, flags), SYS_dup3)                                       \
    X(int, close_range, (unsigned first, unsigned last, int flags), (first, last, flags), SYS_close_range)             \
    X(int, fsync, (int fd), (fd), SYS_fsync)                                                                           \
    X(int, fdatasync, (int fd), (fd), SYS_fdatasync)                                                                   \
    X(int, truncate, (const char *path, off_t length), (path, length), SYS_truncate)                                   \
    X(int, ftruncate, (int fd, off_t length), (fd, length), SYS_ftruncate)                                             \
    X(int, fallocate, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length), SYS_fallocate)       \
    X(ssize_t, copy_file_range,                                                                                        \
      (int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags),                       \
      (in, in_offset, out, out_offset, length, flags), SYS_copy_file_range)                                            \
    X(ssize_t, sendfile, (int out, int in, off_t *offset, size_t count), (out, in, offset, count), SYS_sendfile)       \
    X(ssize_t, splice, (int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags),      \
      (in, in_offset, out, out_offset, length, flags), SYS_splice)                                                     \
    X(int, munmap, (void *address, size_t length), (address, length), SYS_munmap)                                      \
    X(int, mprotect, (void *address, size_t length, int protection), (address, length, protection), SYS_mprotect)      \
    X(int, utimensat, (int directory, const char *path, const struct timespec times[2], int flags),                    \
      (directory, path, times, flags), SYS_utimensat)

#define NEXT_VARIADIC(X)                                                                                               \
    X(int, open, (const char *path, int flags, ...))                                                                   \
    X(int, openat, (int directory, const char *path, int flags, ...))                                                  \
    X(int, fcntl, (int fd, int command, ...))                                                                          \
    X(int, ioctl, (int fd, unsigned long request, ...))                                                                \
    X(long, syscall, (long number, ...))                                                                               \
    X(void *, mremap, (void *address, size_t old_length, size_t new_length, int flags, ...))

#define NEXT_LIBC(X)                                                                                                   \
    X(int, creat, (const char *path, mode_t mode), (path, mode))                                                       \
    X(int, dup2, (int fd, int number), (fd, number))                                                                   \
    X(void, closefrom, (int first), (first))                                                                           \
    X(FILE *, fopen, (const char *path, const char *mode), (path, mode))                                               \
    X(FILE *, fdopen, (int fd, const char *mode), (fd, mode))                                                          \
    X(FILE *, freopen, (const char *path, const char *mode, FILE *stream), (path, mode, stream))                       \
    X(int, fclose, (FILE * stream), (stream))                                                                          \
    X(int, pclose, (FILE * stream), (stream))                                                                          \
    X(int, vdprintf, (int fd, const char *format, va_list arguments), (fd, format, arguments))                         \
    X(int, madvise, (void *address, size_t length, int advice), (address, length, advice))                             \
    X(int, pkey_mprotect, (void *address, size_t length, int protection, int key), (address, length, protection, key)) \
    X(int, closedir, (DIR * directory), (directory))                                                                   \
    X(int, posix_fallocate, (int fd, off_t offset, off_t length), (fd, offset, length))                                \
    X(void *, mmap, (void *address, size_t length, int protection, int flags, int fd, off_t offset),                   \
      (address, length, protection, flags, fd, offset))                                                                \
    X(int, futimens, (int fd, const struct timespec times[2]), (fd, times))                                            \
    X(int, utimes, (const char *path, const struct timeval times[2]), (path, times))                                   \
    X(int, lutimes, (const char *path, const struct timeval times[2]), (path, times))                                  \
    X(int, futimes, (int fd, const struct timeval times[2]), (fd, times))                                              \
    X(int, futimesat, (int directory, const char *path, const struct timeval times[2]), (directory, path, times))      \
    X(int, utime, (const char *path, const struct utimbuf *times), (path, times))                                      \
    X(int, sigaction, (int number, const struct sigaction *action, struct sigaction *old), (number, action, old))      \
    X(sighandler_t, signal, (int number, sighandler_t handler), (number, handler))                                     \
    X(sighandler_t, sysv_signal, (int number, sighandler_t handler), (number, handler))                                \
    X(sighandler_t, sigset, (int number, sighandler_t handler), (number, handler))                                     \
    X(int, sighold, (int number), (number))                                                                            \
    X(int, sigrelse, (int number), (number))                                                                           \
    X(int, sigignore, (int number), (number))                                                                          \
    X(int, siginterrupt, (int number, int interrupt), (number, interrupt))                                             \
    X(int, sigpause, (int argument), (argument))                                                                       \
    X(int, __xpg_sigpause, (int number), (number))                                                                     \
    X(int, __sigpause, (int argument, int is_number), (argument, is_number))                                           \
    X(int, sigblock, (int mask), (mask))                                                                               \
    X(int, sigsetmask, (int mask), (mask))                                                                             \
    X(int, siggetmask, (void), ())                                                                                     \
    X(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old))                            \
    X(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old))                                \
    X(int, sigsuspend, (const sigset_t *mask), (mask))                                                                 \
    X(int, eventfd_read, (int fd, eventfd_t *value), (fd, value))                                                      \
    X(int, poll, (struct pollfd * fds, nfds_t count, int timeout), (fds, count, timeout))                              \
    X(int, select, (int count, fd_set *reads, fd_set *writes, fd_set *excepts, struct timeval *timeout),               \
      (count, reads, writes, excepts, timeout))                                                                        \
    X(int, epoll_wait, (int fd, struct epoll_event *events, int maximum, int timeout), (fd, events, maximum, timeout)) \
    X(int, ppoll, (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),           \
      (fds, count, timeout, mask))                                                                                     \
    X(int, pselect,                                                                                                    \
      (int count, fd_set *reads, fd_set *writes, fd_set *excepts, const struct timespec *timeout,                      \
       const sigset_t *mask),                                                                                          \
      (count, reads, writes, excepts, timeout, mask))                                                                  \
    X(int, epoll_pwait, (int fd, struct epoll_event *events, int maximum, int timeout, const sigset_t *mask),          \
      (fd, events, maximum, timeout, mask))                                                                            \
    X(int, epoll_pwait2,                                                                                               \
      (int fd, struct epoll_event *events, int maximum, const struct timespec *timeout, const sigset_t *mask),         \
      (fd, events, maximum, timeout, mask))                                                                            \
    X(int, aio_read, (struct aiocb * control), (control))                                                              \
    X(int, aio_write, (struct aiocb * control), (control))                                                             \
    X(int, aio_fsync, (int operation, struct aiocb *control), (operation, control))                                    \
    X(int, lio_listio, (int mode, struct aiocb *const list[], int count, struct sigevent *event),                      \
      (mode, list, count, event))                                                                                      \
    X(int, aio_error, (const struct aiocb *control), (control))                                                        \
    X(ssize_t, aio_return, (struct aiocb * control), (control))                                                        \
    X(int, aio_suspend, (const struct aiocb *const list[], int count, const struct timespec *timeout),                 \
      (list, count, timeout))                                                                                          \
    X(int, aio_cancel, (int fd, struct aiocb *control), (fd, control))                                                 \
    X(void, aio_init, (const struct aioinit *wishes), (wishes))                                                        \
    X(int, pthread_create,                                                                                             \
      (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),                  \
      (thread, attributes, start, argument))                                                                           \
    X(void, pthread_exit, (void *value), (value))                                                                      \
    X(void, longjmp, (struct __jmp_buf_tag * target, int value), (target, value))                                      \
    X(void, __longjmp_chk, (struct __jmp_buf_tag * target, int value), (target, value))                                \
    X(int, setcontext, (const ucontext_t *target), (target))                                                           \
    X(int, swapcontext, (ucontext_t * saved, const ucontext_t *target), (saved, target))

#define NEXT_ALIASES(X)                                                                                                \
    X(__read, read)                                                                                                    \
    X(__write, write)                                                                                                  \
    X(pread64, pread)                                                                                                  \
    X(__pread64, pread)                                                                                                \
    X(pwrite64, pwrite)                                                                                                \
    X(__pwrite64, pwrite)                                                                                              \
    X(preadv64, preadv)                                                                                                \
    X(pwritev64, pwritev)                                                                                              \
    X(preadv64v2, preadv2)                                                                                             \
    X(pwritev64v2, pwritev2)                                                                                           \
    X(lseek64, lseek)                                                                                                  \
    X(llseek, lseek)                                                                                                   \
    X(__lseek, lseek)                                                                                                  \
    X(open64, open)                                                                                                    \
    X(__open, open)                                                                                                    \
    X(__open64, open)                                                                                                  \
    X(openat64, openat)                                                                                                \
    X(creat64, creat)                                                                                                  \
    X(__close, close)                                                                                                  \
    X(__dup2, dup2)                                                                                                    \
    X(fcntl64, fcntl)                                                                                                  \
    X(__fcntl, fcntl)                                                                                                  \
    X(fopen64, fopen)                                                                                                  \
    X(freopen64, freopen)                                                                                              \
    X(truncate64, truncate)                                                                                            \
    X(ftruncate64, ftruncate)                                                                                          \
    X(fallocate64, fallocate)                                                                                          \
    X(posix_fallocate64, posix_fallocate)                                                                              \
    X(sendfile64, sendfile)                                                                                            \
    X(mmap64, mmap)                                                                                                    \
    X(__mmap, mmap)                                                                                                    \
    X(__munmap, munmap)                                                                                                \
    X(__mprotect, mprotect)                                                                                            \
    X(__sigaction, sigaction)                                                                                          \
    X(bsd_signal, signal)                                                                                              \
    X(ssignal, signal)                                                                                                 \
    X(__sysv_signal, sysv_signal)                                                                                      \
    X(__sigsuspend, sigsuspend)                                                                                        \
    X(__poll, poll)                                                                                                    \
    X(__select, select)                                                                                                \
    X(aio_read64, aio_read)                                                                                            \
    X(aio_write64, aio_write)                                                                                          \
    X(aio_fsync64, aio_fsync)                                                                                          \
    X(lio_listio64, lio_listio)                                                                                        \
    X(aio_error64, aio_error)                                                                                          \
    X(aio_return64, aio_return)                                                                                        \
    X(aio_suspend64, aio_suspend)                                                                                      \
    X(aio_cancel64, aio_cancel)                                                                                        \
    X(_IO_fopen, fopen)                                                                                                \
    X(_IO_fdopen, fdopen)                                                                                              \
    X(_IO_fclose, fclose)                                                                                              \
    X(siglongjmp, longjmp)                                                                                             \
    X(_longjmp, longjmp)

#define NEXT_CHECKED(X)                                                                                                \
    X(__read_chk)                                                                                                      \
    X(__pread_chk)                                                                                                     \
    X(__pread64_chk)                                                                                                   \
    X(__open_2)                                                                                                        \
    X(__open64_2)                                                                                                      \
    X(__openat_2)                                                                                                      \
    X(__openat64_2)                                                                                                    \
    X(__poll_chk)                                                                                                      \
    X(__ppoll_chk)                                                                                                     \
    X(__dprintf_chk)                                                                                                   \
    X(__vdprintf_chk)                                                                                                  \
    X(dprintf)

#define NEXT_RAW(X)                                                                                                    \
    X(io_setup)                                                                                                        \
    X(io_destroy)                                                                                                      \
    X(io_submit)                                                                                                       \
    X(io_cancel)                                                                                                       \
    X(io_getevents)                                                                                                    \
    X(io_pgetevents)                                                                                                   \
    X(io_queue_init)                                                                                                   \
    X(io_queue_release)                                                                                                \
    X(io_queue_run)                                                                                                    \
    X(io_queue_wait)

#define NEXT_URING(X)                                                                                                  \
    X(io_uring_setup)                                                                                                  \
    X(io_uring_enter)                                                                                                  \
    X(io_uring_enter2)                                                                                                 \
    X(io_uring_register)                                                                                               \
    X(io_uring_queue_init)                                                                                             \
    X(io_uring_queue_init_params)                                                                                      \
    X(io_uring_queue_init_mem)                                                                                         \
    X(io_uring_queue_mmap)                                                                                             \
    X(io_uring_queue_exit)                                                                                             \
    X(io_uring_submit)                                                                                                 \
    X(io_uring_submit_and_wait)                                                                                        \
    X(io_uring_submit_and_wait_timeout)                                                                                \
    X(io_uring_submit_and_wait_min_timeout)                                                                            \
    X(io_uring_submit_and_wait_reg)                                                                                    \
    X(io_uring_submit_and_get_events)                                                                                  \
    X(io_uring_get_events)                                                                                             \
    X(__io_uring_get_cqe)                                                                                              \
    X(__io_uring_sqring_wait)                                                                                          \
    X(io_uring_wait_cqes)                                                                                              \
    X(io_uring_wait_cqes_min_timeout)                                                                                  \
    X(io_uring_wait_cqe_timeout)                                                                                       \
    X(io_uring_peek_batch_cqe)                                                                                         \
    X(io_uring_register_ring_fd)                                                                                       \
    X(io_uring_unregister_ring_fd)                                                                                     \
    X(io_uring_close_ring_fd)                                                                                          \
    X(io_uring_register_files)                                                                                         \
    X(io_uring_register_files_tags)                                                                                    \
    X(io_uring_register_files_sparse)                                                                                  \
    X(io_uring_register_files_update)                                                                                  \
    X(io_uring_register_files_update_tag)                                                                              \
    X(io_uring_unregister_files)                                                                                       \
    X(io_uring_register_buffers)                                                                                       \
    X(io_uring_register_buffers_tags)                                                                                  \
    X(io_uring_register_buffers_sparse)                                                                                \
    X(io_uring_register_buffers_update_tag)                                                                            \
    X(io_uring_unregister_buffers)                                                                                     \
    X(io_uring_clone_buffers)                                                                                          \
    X(io_uring_clone_buffers_offset)                                                                                   \
    X(__io_uring_clone_buffers)                                                                                        \
    X(__io_uring_clone_buffers_offset)                                                                                 \
    X(io_uring_register_sync_cancel)                                                                                   \
    X(io_uring_resize_rings)

#endif
