#!/bin/bash
# fio on io_uring with a thread of the kernel's that submits, for which the shim has one of its own: fio makes no system call at all, and
# looks for completions in memory.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
needs fio

# With two threads that spin and one request in flight a busy machine is slow: once is enough.
submission_thread() {
    [ "$1" = ext4 ] || local fio_depths="16 64"
    fio_verifies "io_uring, sqthread_poll" "$2" io_uring sqthread_poll
}
submission_thread_and_fixed() {
    fio_verifies "io_uring, sqthread_poll, fixed" "$2" io_uring sqthread_poll fixedbufs registerfiles nonvectored=1
}

on_filesystems "$fio_filesystems" submission_thread
on_filesystems "ext4" submission_thread_and_fixed
