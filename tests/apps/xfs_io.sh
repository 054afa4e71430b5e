#!/bin/bash
# xfs_io -d: one system call after another, in every vectored and ranged form it knows.
. "$(dirname "$0")/lib/app.sh"
needs xfs_io cmp

# The same commands natively, buffered, make the file that is expected.
same_commands() {
    local directory=$1 command
    local -a arguments=()
    shift
    for command in "$@"; do
        arguments+=(-c "$command")
    done
    rm -f "$directory/expected" "$directory/file"
    app_step="xfs_io $* [$app_filesystem]"
    xfs_io -f "${arguments[@]}" "$directory/expected" >/dev/null
    shimmed xfs_io -f -d "${arguments[@]}" "$directory/file"
    nothing_went_wrong
    same_data "$directory/expected" "$directory/file"
}

read_back() {
    local directory=$1 option
    for option in "-b 4k" "-b 1m" "-V 16 -b 4k"; do
        shimmed xfs_io -d -c "pread $option 0 $2" "$directory/file"
        expect direct_reads -gt 0
        nothing_went_wrong
    done
}

writes_of_every_size_and_direction() {
    local directory=$2
    same_commands "$directory" "pwrite -S 0x11 -b 4k 0 2m" "pwrite -S 0x22 -b 64k 1m 4m" "pwrite -S 0x33 -B -b 16k 2m 1m" \
        "pwrite -S 0x44 -b 4m 8m 4m" "pwrite -S 0x66 -D -b 8k 256k 64k"
    writes_were_bounced
    read_back "$directory" 12m
    expect blocks_verified -gt 0
}

vectored_writes() {
    local directory=$2
    same_commands "$directory" "pwrite -S 0x55 -V 8 -b 32k 0 4m" "pwrite -S 0x66 -V 64 -b 4k 1m 1m"
    writes_were_bounced
    read_back "$directory" 4m
    expect blocks_unverified -eq 0
    expect blocks_verified -eq 1024
}

ranges_changed_between_direct_writes() {
    local directory=$2
    same_commands "$directory" "pwrite -S 0x77 -b 64k 0 4m" "fpunch 1m 64k" "pwrite -S 0x88 -b 4k 1028k 8k" "truncate 3m" \
        "truncate 4m" "fzero 512k 128k" "pwrite -S 0x99 -b 4k 544k 4k" "pread -b 64k 0 4m" "fsync"
    writes_were_bounced
    expect direct_reads -gt 0
    read_back "$directory" 4m
}

on_each_filesystem writes_of_every_size_and_direction
on_each_filesystem vectored_writes
on_each_filesystem ranges_changed_between_direct_writes
