#!/bin/bash
# dd copies a file with an odd size through the shim; it drops O_DIRECT with F_SETFL for the last, partial record.
. "$(dirname "$0")/lib/app.sh"
needs dd cmp

copy_with_every_record_size() {
    local directory=$2 size=$((12 * 1024 * 1024 + 4096 * 3 + 777)) record
    random_file "$directory/source" "$size"
    for record in 4k 64k 1M; do
        shimmed dd if="$directory/source" of="$directory/copy" bs=$record iflag=direct oflag=direct conv=fsync
        writes_were_bounced
        expect direct_reads -gt 0
        expect blocks_summed -ge $((12 * 256))
        same_data "$directory/source" "$directory/copy"

        shimmed dd if="$directory/copy" of="$directory/back" bs=128k iflag=direct
        reads_were_verified
        expect blocks_verified -ge $((12 * 256))
        same_data "$directory/source" "$directory/back"
    done
}

overwrite_the_middle_without_truncating() {
    local directory=$2
    random_file "$directory/source" 1048576
    random_file "$directory/copy" 4194304
    cp "$directory/copy" "$directory/expected"
    dd if="$directory/source" of="$directory/expected" bs=4k seek=100 conv=notrunc status=none
    shimmed dd if="$directory/source" of="$directory/copy" bs=4k seek=100 oflag=direct,dsync conv=notrunc
    writes_were_bounced
    expect blocks_summed -eq 256
    same_data "$directory/expected" "$directory/copy"
    shimmed dd if="$directory/copy" of="$directory/back" bs=1M iflag=direct
    reads_were_verified
    expect blocks_verified -eq 256
    same_data "$directory/expected" "$directory/back"
}

append_record_by_record() {
    local directory=$2 part
    random_file "$directory/source" 2097152
    : >"$directory/log"
    for part in 0 1 2 3; do
        shimmed dd if="$directory/source" of="$directory/log" bs=64k skip=$((part * 8)) count=8 \
            oflag=direct,append conv=notrunc
        expect direct_writes -eq 8
        nothing_went_wrong
    done
    same_data "$directory/source" "$directory/log"
    shimmed dd if="$directory/log" of="$directory/back" bs=64k iflag=direct
    nothing_went_wrong
    same_data "$directory/source" "$directory/back"
}

on_each_filesystem copy_with_every_record_size
on_each_filesystem overwrite_the_middle_without_truncating
on_each_filesystem append_record_by_record
