#!/bin/bash
# qemu-img bench keeps 64 requests in flight, by libaio (reaping from the ring in memory), io_uring and worker threads.
. "$(dirname "$0")/lib/app.sh"
needs qemu-img qemu-io python3

image_bytes=$((64 * 1024 * 1024))
count=4000
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || count=200000

# filled_with PATTERN IMAGE: every byte of it.
filled_with() {
    app_step="looking for $1 in $2 [$app_filesystem]"
    python3 - "$@" <<'END' || fail "other bytes in the image"
import sys
pattern, rest = bytes([int(sys.argv[1])]) * 65536, open(sys.argv[2], "rb")
for offset, block in enumerate(iter(lambda: rest.read(65536), b"")):
    if block != pattern[:len(block)]:
        sys.exit("block of 64 KiB number %d differs" % offset)
END
}

every_way_of_asking() {
    local directory=$2 aio pattern=17 size image=$2/image seconds contended times
    truncate -s "$image_bytes" "$image"
    for aio in threads native io_uring; do
        seconds=""
        for size in 4k 64k 512k; do
            pattern=$((pattern + 1))
            shimmed timeout 120 qemu-img bench -f raw -t none -i $aio -w -c $count -d 64 -s $size --pattern=$pattern \
                --flush-interval=256 "$image"
            writes_were_bounced
            expect direct_writes -ge $count
            seconds="$seconds, write $size $app_seconds s"
            # When a request is still in flight as the next round comes to its place, nobody knows which of both stays.
            contended=$(counter contended_blocks)
            times=$((count * ${size%k} * 1024 / image_bytes + 1))
            # Enough requests to go round the image.
            [ $size = 4k ] || filled_with $pattern "$image"
            shimmed timeout 120 qemu-img bench -f raw -t none -i $aio -c $count -d 64 -s $size "$image"
            reads_were_verified
            expect direct_reads -ge $count
            [ $size = 4k ] || expect blocks_unverified -le $((contended * times))
            seconds="$seconds, read $app_seconds s"
        done
        scrub_is_clean "$image"
        echo "* bench $aio on $app_filesystem: $count requests each: ${seconds#, }"
    done
}

damage_becomes_eio() {
    local directory=$2 aio image=$2/image
    truncate -s "$image_bytes" "$image"
    shimmed qemu-img bench -f raw -t none -i native -w -c 1024 -d 64 -s 64k --pattern=65 "$image"
    for aio in threads native io_uring; do
        damage_is_found "$image" $((9 * 1024 * 1024 + 5)) qemu-img bench -f raw -t none -i $aio -c 1024 -d 64 -s 64k "$image"
        grep -q 'Input/output error' "$app_scratch/output" || { cat "$app_scratch/output" >&2; fail "qemu-img was not told EIO"; }
    done
}

on_filesystems "ext4 xfs btrfs-nocow tmpfs" every_way_of_asking
once damage_becomes_eio
