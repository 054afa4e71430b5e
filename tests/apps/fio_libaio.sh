#!/bin/bash
# fio on libaio: reaping by io_getevents, and from the ring in memory.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
needs fio python3

reaped_by_system_call() { fio_verifies libaio "$2" libaio; }
# The second option is what makes fio look into the ring's memory.
reaped_from_memory() { fio_verifies "libaio, userspace_reap" "$2" libaio userspace_reap iodepth_batch_complete_min=0; }
in_batches_by_threads() { fio_verifies "libaio, threads" "$2" libaio thread iodepth_batch=8 iodepth_batch_complete_max=8; }
misaligned_memory() { fio_verifies "libaio, misaligned" "$2" libaio iomem_align=1; }
damage_becomes_eio() { fio_fails_on_damage "$2" libaio; }

on_filesystems "$fio_filesystems" reaped_by_system_call
on_filesystems "$fio_filesystems" reaped_from_memory
on_filesystems "ext4 xfs" in_batches_by_threads
on_filesystems "ext4 xfs" misaligned_memory
once damage_becomes_eio
