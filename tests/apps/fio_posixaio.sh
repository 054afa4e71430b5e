#!/bin/bash
# fio on POSIX AIO, which the C library serves with threads.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
. "$app_directory/server.sh"
needs fio python3

requests() { fio_verifies posixaio "$2" posixaio; }
misaligned_memory() { fio_verifies "posixaio, misaligned" "$2" posixaio iomem_align=1; }
one_file_for_all() { fio_shares "$2" posixaio; }
killed_in_flight() { fio_is_killed "$2" posixaio; }
damage_becomes_eio() { fio_fails_on_damage "$2" posixaio; }

on_filesystems "$fio_filesystems" requests
on_filesystems "ext4" misaligned_memory
on_filesystems "ext4" one_file_for_all
on_filesystems "ext4" killed_in_flight
once damage_becomes_eio
