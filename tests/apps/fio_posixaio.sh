#!/bin/bash
# fio on POSIX AIO, which the C library serves with threads.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
needs fio python3

requests() { fio_verifies posixaio "$2" posixaio; }
misaligned_memory() { fio_verifies "posixaio, misaligned" "$2" posixaio iomem_align=1; }
damage_becomes_eio() { fio_fails_on_damage "$2" posixaio; }

on_filesystems "$fio_filesystems" requests
on_filesystems "ext4" misaligned_memory
once damage_becomes_eio
