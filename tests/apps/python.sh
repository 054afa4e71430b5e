#!/bin/bash
# A Python program with os.preadv/os.pwritev on O_DIRECT files, buffers at any address, and subprocesses in between.
. "$(dirname "$0")/lib/app.sh"
needs python3 cmp

vectors_threads_and_subprocesses() {
    local directory=$2
    shimmed python3 "$(dirname "$0")/lib/direct.py" "$directory/file" "$directory/expected"
    writes_were_bounced
    reads_were_verified
    expect blocks_unverified -eq 0
    same_data "$directory/expected" "$directory/file"
}

on_each_filesystem vectors_threads_and_subprocesses
