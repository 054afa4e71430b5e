#!/bin/bash
# fio on libaio: reaping by io_getevents, and from the ring in memory.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
. "$app_directory/server.sh"
needs fio python3

reaped_by_system_call() { fio_verifies libaio "$2" libaio; }
# The second option is what makes fio look into the ring's memory.
reaped_from_memory() { fio_verifies "libaio, userspace_reap" "$2" libaio userspace_reap iodepth_batch_complete_min=0; }
in_batches_by_threads() { fio_verifies "libaio, threads" "$2" libaio thread iodepth_batch=8 iodepth_batch_complete_max=8; }
misaligned_memory() { fio_verifies "libaio, misaligned" "$2" libaio iomem_align=1; }
one_file_for_all() { fio_shares "$2" libaio; }
killed_in_flight() { fio_is_killed "$2" libaio; }
damage_becomes_eio() { fio_fails_on_damage "$2" libaio; }

on_filesystems "$fio_filesystems" reaped_by_system_call
on_filesystems "$fio_filesystems" reaped_from_memory
on_filesystems "ext4 xfs" in_batches_by_threads
on_filesystems "ext4 xfs" misaligned_memory
on_filesystems "ext4 xfs" one_file_for_all
on_filesystems "ext4 xfs" killed_in_flight
once damage_becomes_eio
