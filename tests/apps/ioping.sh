#!/bin/bash
# ioping measures latency with direct requests to a file, blocking and asynchronous ones; what it wrote must verify afterwards.
. "$(dirname "$0")/lib/app.sh"
needs ioping dd cmp

read_and_write_latency() {
    local directory=$2
    random_file "$directory/file" 4194304
    shimmed ioping -D -c 200 -i 0 -s 4k -q "$directory/file"
    expect direct_reads -ge 200
    nothing_went_wrong

    shimmed ioping -D -WWW -c 200 -i 0 -s 16k -q "$directory/file"
    writes_were_bounced
    expect direct_writes -ge 200
    cp "$directory/file" "$directory/expected"

    shimmed dd if="$directory/file" of="$directory/back" bs=64k iflag=direct
    reads_were_verified
    same_data "$directory/expected" "$directory/back"
}

temporary_file_in_a_directory() {
    local directory=$2
    shimmed ioping -D -c 100 -i 0 -s 4k -S 1M -q "$directory"
    reads_were_verified
    expect direct_reads -ge 100
}

# libaio, by raw system calls. Its buffer is filled anew while writes are in flight.
asynchronous_requests() {
    local directory=$2
    random_file "$directory/file" 4194304
    shimmed ioping -A -D -WWW -c 300 -i 0 -s 4k -q "$directory/file"
    writes_were_bounced
    expect direct_writes -ge 300
    scrub_is_clean "$directory/file"

    shimmed ioping -A -D -c 300 -i 0 -s 16k -q "$directory/file"
    reads_were_verified
    expect direct_reads -ge 300

    shimmed ioping -A -D -G -WWW -c 300 -i 0 -s 64k -q "$directory/file"
    writes_were_bounced
    reads_were_verified
    scrub_is_clean "$directory/file"
}

on_each_filesystem read_and_write_latency
on_each_filesystem asynchronous_requests
on_each_filesystem temporary_file_in_a_directory
