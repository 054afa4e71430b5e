#!/bin/bash
# sysbench fileio on libaio: threads that keep a backlog of random reads and writes in flight. All requests of a thread share one buffer:
# with a backlog, what it writes changes on its way down, and what it reads may be anything by the time that it is looked at.
. "$(dirname "$0")/lib/app.sh"
needs sysbench python3

seconds=3
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || seconds=30
files=(--file-total-size=96M --file-num=6 --file-extra-flags=direct --threads=4)

# work DIRECTORY COMMAND OPTION...: in the directory, where sysbench has its files.
work() {
    local directory=$1 command=$2
    shift 2
    shimmed env --chdir="$directory" timeout 200 sysbench fileio "${files[@]}" "$@" "$command"
    ! grep -q FATAL "$app_scratch/output" || { cat "$app_scratch/output" >&2; fail "sysbench saw wrong data"; }
}

note_rates() {
    echo "* fileio on $app_filesystem, $1: $(sed -nE 's/^ *(reads|writes)\/s: */\1\/s /p' "$app_scratch/output" | xargs)"
}

# Only with a backlog of 1 has a request ended when sysbench looks at its blocks' own checksums.
sysbench_validates() {
    local directory=$1
    work "$directory" prepare --file-io-mode=async --validate
    expect direct_writes -gt 0
    nothing_went_wrong
    work "$directory" run --file-io-mode=async --file-async-backlog=1 --validate --file-test-mode=rndrw --time=$seconds
    writes_were_bounced
    reads_were_verified
    note_rates "backlog 1"
    work "$directory" run --file-io-mode=sync --validate --file-test-mode=seqrd --time=1
    reads_were_verified
    scrub_is_clean "$directory"
}

buffers_change_in_flight() {
    local directory=$1
    work "$directory" run --file-io-mode=async --file-async-backlog=128 --file-test-mode=rndrw --time=$seconds
    writes_were_bounced
    reads_were_verified
    note_rates "backlog 128"
    scrub_is_clean "$directory"
}

random_reads_and_writes() {
    sysbench_validates "$2"
    buffers_change_in_flight "$2"
}

damage_becomes_eio() {
    local directory=$2
    work "$directory" prepare --file-io-mode=async
    damage_is_found "$directory/test_file.2" $((3 * 1024 * 1024 + 9)) env --chdir="$directory" timeout 50 sysbench fileio \
        "${files[@]}" --file-io-mode=async --file-async-backlog=8 --file-test-mode=seqrd --time=30 run
    work "$directory" cleanup
    [ -z "$(ls "$directory")" ] || fail "files are left"
}

on_filesystems "ext4 xfs btrfs-nocow tmpfs" random_reads_and_writes
once damage_becomes_eio
