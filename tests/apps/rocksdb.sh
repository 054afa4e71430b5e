#!/bin/bash
# RocksDB's db_bench with direct reads, flushes and compactions: loaded, overwritten, read by key and by batches; its own checksums and
# its own tools agree afterwards.
. "$(dirname "$0")/lib/app.sh"
needs db_bench ldb sst_dump python3

keys=60000
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || keys=1000000

# bench DIRECTORY WHAT OPTION...
bench() {
    local directory=$1 what=$2
    shift 2
    # Small buffers and caches: much is flushed, compacted, and read again.
    shimmed timeout 250 db_bench --db="$directory/db" --benchmarks="$what" --num=$keys --key_size=16 --value_size=400 --threads=1 \
        --use_direct_reads=true --use_direct_io_for_flush_and_compaction=true --write_buffer_size=2097152 \
        --target_file_size_base=2097152 --max_bytes_for_level_base=8388608 --cache_size=1048576 --verify_checksum=true \
        --seed=7 "$@"
}

# its_own_tools DIRECTORY: without the shim.
its_own_tools() {
    natively ldb --db="$1/db" checkconsistency
    natively sst_dump --file="$1/db" --command=verify
    ! grep -iE 'corrupt|mismatch' "$app_scratch/native" || fail "sst_dump found something"
}

load_and_read() {
    local directory=$2 seconds
    bench "$directory" fillrandom,overwrite,waitforcompaction
    writes_were_bounced
    reads_were_verified
    seconds="fill and overwrite $app_seconds s"
    its_own_tools "$directory"
    scrub_is_clean "$directory/db"

    bench "$directory" readrandom,readseq --use_existing_db=true --reads=$((keys / 4))
    reads_were_verified
    expect blocks_unverified -eq 0
    seconds="$seconds, read $app_seconds s"

    # Batches: by io_uring where RocksDB was built with it.
    bench "$directory" multireadrandom --use_existing_db=true --multiread_batched=true --batch_size=64 --async_io=true --reads=$((keys / 4))
    reads_were_verified
    expect blocks_unverified -eq 0
    echo "* rocksdb on $app_filesystem: $keys keys: $seconds, in batches $app_seconds s"
}

# It aborts when a read fails.
damage_becomes_eio() {
    local directory=$2 file
    bench "$directory" fillseq,compact
    file=$(find "$directory/db" -name '*.sst' -size +200k | sort | tail -1)
    damage_is_found "$file" $((100 * 1024 + 17)) db_bench --db="$directory/db" --benchmarks=readrandom --use_existing_db=true \
        --num=$keys --reads=$keys --use_direct_reads=true
    bench "$directory" readseq --use_existing_db=true
    reads_were_verified
}

on_filesystems "ext4 xfs btrfs-nocow" load_and_read
once damage_becomes_eio
library=$(ldd "$(command -v db_bench)" | awk '/librocksdb/ { print $3 }')
case $(ldd "${library:-$(command -v db_bench)}") in
*liburing*) ;;
*) echo "skipped: io_uring for RocksDB's batches: it was built without" ;;
esac
