#!/bin/bash
# fio on io_uring, which it uses by system calls and its own mappings, without liburing.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/fio.sh"
. "$app_directory/server.sh"
needs fio python3

fixed=(fixedbufs registerfiles nonvectored=1)

plain() { fio_verifies io_uring "$2" io_uring; }
fixed_buffers_and_files() { fio_verifies "io_uring, fixed" "$2" io_uring "${fixed[@]}"; }
worker_threads() { fio_verifies "io_uring, force_async" "$2" io_uring force_async=3 thread; }
misaligned_memory() { fio_verifies "io_uring, misaligned" "$2" io_uring iomem_align=1 nonvectored=1; }
one_file_for_all() { fio_shares "$2" io_uring; }
killed_in_flight() { fio_is_killed "$2" io_uring; }
killed_with_fixed_buffers() { fio_is_killed "$2" io_uring "${fixed[@]}"; }
damage_becomes_eio() { fio_fails_on_damage "$2" io_uring; }
damage_becomes_eio_in_fixed_buffers() { fio_fails_on_damage "$2" io_uring "${fixed[@]}"; }

# Completions that are polled for. Few devices do that; where this one does not, fio must be told so as it is without the shim.
polled() {
    local directory=$2
    fio_jobs "$directory" io_uring 16 hipri >"$app_scratch/jobs"
    if fio --output-format=terse "$app_scratch/jobs" >"$app_scratch/native" 2>&1; then
        fio_verifies "io_uring, hipri" "$directory" io_uring hipri
        fio_verifies "io_uring, hipri, fixed" "$directory" io_uring hipri "${fixed[@]}"
        return
    fi
    app_step="fio with hipri [$app_filesystem]"
    grep -q 'Operation not supported' "$app_scratch/native" || { cat "$app_scratch/native" >&2; fail "unexpected"; }
    rm -f "$directory"/*
    ! under_shim timeout -k 5 60 fio --output-format=terse "$app_scratch/jobs" || fail "works, though the device cannot"
    grep -q 'Operation not supported' "$app_scratch/output" || { cat "$app_scratch/output" >&2; fail "not told why"; }
    nothing_went_wrong
    echo "skipped: hipri on $app_filesystem: the device does not poll; refused as without the shim"
}

on_filesystems "$fio_filesystems" plain
on_filesystems "$fio_filesystems" fixed_buffers_and_files
on_filesystems "ext4 xfs" worker_threads
on_filesystems "ext4 xfs" misaligned_memory
on_filesystems "$fio_filesystems" polled
on_filesystems "ext4 xfs" one_file_for_all
on_filesystems "ext4 xfs" killed_in_flight
once killed_with_fixed_buffers
once damage_becomes_eio
once damage_becomes_eio_in_fixed_buffers
