#!/bin/bash
# QEMU's block layer with cache=none, in each of its ways of asking: worker threads that block every signal, libaio, io_uring.
. "$(dirname "$0")/lib/app.sh"
needs qemu-io qemu-img cmp

block_layer() {
    local command
    local -a arguments=()
    image=$1
    format=$2
    shift 2
    for command in "$@"; do
        arguments+=(-c "$command")
    done
    shimmed timeout 60 qemu-io -f "$format" -t none -i "$aio" "${arguments[@]}" "$image"
    if grep -q -i -e 'pattern verification failed' -e 'error' -e 'failed' "$app_scratch/output"; then
        cat "$app_scratch/output" >&2
        fail "qemu-io saw wrong data"
    fi
}

patterns() {
    local aio=$1 image=$2/image
    rm -f "$image"
    truncate -s 64M "$image"
    block_layer "$image" raw "write -P 0x11 0 4M" "write -P 0x22 1M 64k" "writev -P 0x33 2M 4k 8k 512k" \
        "aio_write -P 0x44 8M 1M" "aio_write -P 0x55 9M 1M" "aio_write -P 0x66 10M 64k" aio_flush \
        "write -P 0x77 12289k 512" "write -P 0x78 12290k 3k" flush
    writes_were_bounced
    block_layer "$image" raw "read -P 0x11 0 1M" "read -P 0x22 1M 64k" "readv -P 0x33 2M 4k 8k 512k" \
        "aio_read -P 0x44 8M 1M" "aio_read -P 0x55 9M 1M" aio_flush "read -P 0x77 12289k 512" "read -P 0x78 12290k 3k"
    reads_were_verified

    app_step="qemu-io without the shim [$app_filesystem]"
    qemu-io -f raw -r -c "read -P 0x11 0 1M" -c "read -P 0x22 1M 64k" -c "read -P 0x33 2M 524k" -c "read -P 0x44 8M 1M" \
        -c "read -P 0x55 9M 1M" -c "read -P 0x66 10M 64k" -c "read -P 0x77 12289k 512" "$image" >"$app_scratch/native"
    ! grep -i -e failed -e error "$app_scratch/native" || fail "the data on the file is wrong"
}

patterns_in_a_raw_image() {
    local aio
    for aio in threads native io_uring; do
        patterns $aio "$2"
        many_at_once $aio "$2"
    done
}

many_at_once() {
    local aio=$1 image=$2/image
    block_layer "$image" raw "aio_write -q -P 0x91 16M 64k" "aio_write -q -P 0x92 17M 4k 8k 16k" "aio_write -q -P 0x93 18M 1536k" \
        "aio_write -q -P 0x94 20M 512" "aio_write -q -z 21M 64k" aio_flush "aio_read -q -P 0x91 16M 64k" \
        "aio_read -q -P 0x92 17M 28k" "aio_read -q -P 0x93 18M 1536k" "aio_read -q -P 0x94 20M 512" "aio_read -q -P 0 21M 64k" aio_flush
    writes_were_bounced
    reads_were_verified
    scrub_is_clean "$image"
}

zeroes_and_discards_forget_checksums() {
    local aio
    for aio in threads native io_uring; do
        zeroes_and_discards $aio "$2"
    done
}

zeroes_and_discards() {
    local aio=$1 image=$2/image
    rm -f "$image"
    truncate -s 16M "$image"
    block_layer "$image" raw "write -P 0x11 0 8M" "write -z 1M 1M" "discard 4M 1M" "write -P 0x12 1536k 64k" \
        "read -P 0x11 0 1M" "read -P 0 1M 512k" "read -P 0x12 1536k 64k" "read -P 0x11 5M 1M"
    writes_were_bounced
    reads_were_verified
    scrub_is_clean "$image"
}

convert_between_formats() {
    local directory=$2
    random_file "$directory/source" $((24 * 1024 * 1024))
    shimmed qemu-img convert -f raw -O qcow2 -t none -T none -m 4 -W "$directory/source" "$directory/image.qcow2"
    writes_were_bounced
    app_step="comparing images without the shim [$app_filesystem]"
    qemu-img compare -q -f raw -F qcow2 "$directory/source" "$directory/image.qcow2" || fail "the images differ"
    shimmed qemu-img convert -f qcow2 -O raw -t none -T none -m 4 -W "$directory/image.qcow2" "$directory/back"
    reads_were_verified
    same_data "$directory/source" "$directory/back"
}

on_each_filesystem patterns_in_a_raw_image
on_each_filesystem zeroes_and_discards_forget_checksums
on_each_filesystem convert_between_formats
